// What is wrong with the configuration, told once when it appears and once when it is mended.

import { describeDiagnostic, type Diagnostic, formatDiagnostic } from "../resources/diagnostic.ts";
import type { ConfigState } from "./config-source.ts";
import type { LogFields, Logger } from "./logger.ts";

export class DiagnosticLog {
  readonly #log: Logger;
  readonly #changes: "info" | "debug";
  /** By all that can be said of them. */
  #told = new Map<string, Diagnostic>();

  /** @param changes level at which a new state is told: of a directory each is somebody's doing, of a cluster they never end. */
  constructor(log: Logger, changes: "info" | "debug" = "info") {
    this.#log = log;
    this.#changes = changes;
  }

  /** @param fields what else the line says that tells of the new state. */
  tell({ diagnostics, resourceCount, version }: Pick<ConfigState, "diagnostics" | "resourceCount" | "version">, fields: LogFields = {}): void {
    const found = new Map(diagnostics.map((diagnostic) => [formatDiagnostic(diagnostic), diagnostic]));
    for (const [key, diagnostic] of found) if (!this.#told.has(key)) this.#say(diagnostic);
    for (const [key, diagnostic] of this.#told) {
      if (!found.has(key)) this.#log.info("no longer so", { diagnostic: describeDiagnostic(diagnostic), code: diagnostic.code });
    }
    this.#told = found;
    this.#log[version === 1 ? "info" : this.#changes]("configuration applied", { version, resources: resourceCount, ...fields });
  }

  #say(diagnostic: Diagnostic): void {
    const { severity, code } = diagnostic;
    const say = severity === "error" ? this.#log.error : severity === "warning" ? this.#log.warn : this.#log.info;
    say(describeDiagnostic(diagnostic), { code });
  }
}
