// What is wrong with the cluster's configuration, told once when it appears and once when it is mended. Statuses say it to whoever wrote
// the object; this is for whoever runs the mesh.

import type { ClusterDiagnostic } from "../resources/cluster/cluster-diagnostic.ts";
import type { ClusterEvaluation } from "../resources/cluster/cluster-set.ts";
import type { Logger } from "../runtime/logger.ts";

/** Of more than these only the number is told: a cluster may hold thousands of objects in error, each of which has its status. */
const TOLD_MAX = 500;

export class DiagnosticTeller {
  readonly #log: Logger;
  #told = new Set<string>();
  #last: readonly ClusterDiagnostic[] | null = null;

  constructor(log: Logger) {
    this.#log = log;
  }

  tell({ diagnostics }: Pick<ClusterEvaluation, "diagnostics">): void {
    if (diagnostics === this.#last) return;
    this.#last = diagnostics;
    const lines = new Map(diagnostics.slice(0, TOLD_MAX).map((one) => [lineOf(one), one]));
    for (const [line, { severity, code }] of lines) {
      if (this.#told.has(line)) continue;
      if (severity === "error") this.#log.error(line, { code });
      else if (severity === "warning") this.#log.warn(line, { code });
      else this.#log.info(line, { code });
    }
    for (const line of this.#told) if (!lines.has(line)) this.#log.info("no longer so", { diagnostic: line });
    this.#told = new Set(lines.keys());
  }
}

function lineOf({ resource, fieldPath, message }: ClusterDiagnostic): string {
  return `${resource}: ${fieldPath === "" ? "" : `${fieldPath}: `}${message}`;
}
