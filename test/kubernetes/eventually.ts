// States that come one after the other, and waiting for one that is as it should be.

import { systemClock } from "../../src/core/ports.ts";
import { parseLogFilter } from "../../src/runtime/log-filter.ts";
import { descriptorSink, LogWriter } from "../../src/runtime/log-writer.ts";
import { Log, type Logger } from "../../src/runtime/logger.ts";

const WAIT_MS = 45_000;

export class Eventually<T> {
  #last: { readonly value: T } | null = null;
  #waiting: { readonly holds: (value: T) => boolean; readonly resolve: (value: T) => void }[] = [];

  get last(): T | null {
    return this.#last?.value ?? null;
  }

  put(value: T): void {
    this.#last = { value };
    const met = this.#waiting.filter(({ holds }) => holds(value));
    this.#waiting = this.#waiting.filter((one) => !met.includes(one));
    for (const { resolve } of met) resolve(value);
  }

  /** The first state, from the present one on, for which `holds`. */
  when(holds: (value: T) => boolean): Promise<T> {
    if (this.#last !== null && holds(this.#last.value)) return Promise.resolve(this.#last.value);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no such state came; the last one: ${Bun.inspect(this.#last?.value, { depth: 3 }).slice(0, 4000)}`)), WAIT_MS);
      this.#waiting.push({ holds, resolve: (value) => {
        clearTimeout(timer);
        resolve(value);
      } });
    });
  }
}

/** Waits for a condition that nobody announces. */
export async function until<T>(look: () => Promise<T | null | undefined | false>, what: string, waitMs = WAIT_MS): Promise<T> {
  const deadline = Date.now() + waitMs;
  for (;;) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    if (Date.now() > deadline) throw new Error(`not within ${waitMs} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function quietLog(scope = "control"): Logger {
  const filter = parseLogFilter(process.env["TEST_LOG"] ?? "off");
  if (!filter.ok) throw new Error(filter.error);
  return new Log({ writer: new LogWriter({ sink: descriptorSink(2), onDropped: () => {}, droppedLine: () => "" }), clock: systemClock, format: "text", filter: filter.value }).scope(scope);
}
