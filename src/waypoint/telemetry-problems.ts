// Forms of the access log that say less than their author thought: told once each, when the configuration that brings them is read.

import type { TelemetryPolicy } from "../mesh/l7/telemetry.ts";
import { formatProvenance } from "../core/fault.ts";
import { compileLogFormat, type LogOptions } from "../telemetry/log-format.ts";

/** Forgotten and told again beyond this many: nobody writes so many forms. */
const TOLD_MAX = 1_000;

export class TelemetryProblems {
  readonly #options: LogOptions;
  readonly #told = new Set<string>();

  constructor(options: LogOptions) {
    this.#options = options;
  }

  /** Sentences for the role's log, those told before left out. */
  of(policies: Iterable<TelemetryPolicy>): string[] {
    const news: string[] = [];
    for (const { accessLog, provenance } of policies) {
      for (const sink of accessLog?.sinks ?? []) {
        if (sink.kind !== "standardOutput" || sink.format === null) continue;
        for (const problem of compileLogFormat(sink.format, this.#options).problems) {
          const sentence = `${formatProvenance(provenance)}: ${problem}`;
          if (this.#told.has(sentence)) continue;
          if (this.#told.size >= TOLD_MAX) this.#told.clear();
          this.#told.add(sentence);
          news.push(sentence);
        }
      }
    }
    return news;
  }
}
