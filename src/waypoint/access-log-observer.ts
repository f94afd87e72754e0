// Tells of requests in the access log, a batch at a time.

import type { Random } from "../core/ports.ts";
import { LogBatch, type LogCredit, type PostLines } from "../telemetry/log-batch.ts";
import { passthroughLine, requestLine } from "./access-line.ts";
import type { Client } from "./client.ts";
import type { EndedRequest, PassedThrough, RequestObserver } from "./observer.ts";

export interface AccessLogObserverOptions {
  readonly format: "off" | "text" | "json";
  /** Share of the clean requests that is logged; failures always are. */
  readonly sample: number;
  readonly random: Random;
  readonly wallMs: () => number;
  readonly post: PostLines;
  readonly credit: LogCredit | null;
}

export class AccessLogObserver implements RequestObserver {
  readonly #options: AccessLogObserverOptions;
  readonly #batch: LogBatch;
  /** Of clients that broke HTTP, by code. */
  readonly malformedCounts = new Map<string, number>();

  constructor(options: AccessLogObserverOptions) {
    this.#options = options;
    this.#batch = new LogBatch(options.post, options.credit);
  }

  ended(request: EndedRequest): void {
    const { format, wallMs } = this.#options;
    if (format !== "off" && this.#wants(request.code !== null || request.status >= 500) && this.#batch.reserve()) this.#batch.add(requestLine(request, format, wallMs()));
  }

  passedThrough(connection: PassedThrough): void {
    const { format, wallMs } = this.#options;
    if (format !== "off" && this.#wants(connection.error !== null) && this.#batch.reserve()) this.#batch.add(passthroughLine(connection, format, wallMs()));
  }

  malformed(_client: Client, code: string): void {
    this.malformedCounts.set(code, (this.malformedCounts.get(code) ?? 0) + 1);
  }

  flush(): void {
    this.#batch.flush();
  }

  #wants(failed: boolean): boolean {
    const { sample, random } = this.#options;
    return failed || sample >= 1 || (sample > 0 && random.next() < sample);
  }
}
