// What is wrong with the configuration, told once when it appears and once when it is mended.

import { formatDiagnostic } from "../resources/diagnostic.ts";
import type { ConfigState } from "./config-source.ts";
import type { Logger } from "./logger.ts";

export class DiagnosticLog {
  readonly #log: Logger;
  #told = new Set<string>();

  constructor(log: Logger) {
    this.#log = log;
  }

  tell({ diagnostics, resourceCount, version }: ConfigState): void {
    const lines = new Map(diagnostics.map((diagnostic) => [formatDiagnostic(diagnostic), diagnostic]));
    for (const [line, { severity, code }] of lines) {
      if (this.#told.has(line)) continue;
      if (severity === "error") this.#log.error(line, { code });
      else if (severity === "warning") this.#log.warn(line, { code });
      else this.#log.info(line, { code });
    }
    for (const line of this.#told) if (!lines.has(line)) this.#log.info("no longer so", { diagnostic: line });
    this.#told = new Set(lines.keys());
    this.#log.info("configuration applied", { version, resources: resourceCount });
  }
}
