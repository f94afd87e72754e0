// Writes to the API, one after the other at a bounded rate: a change that touches a thousand statuses must not take the API server away
// from everybody else. One entry for each subject: a newer write takes the place of one that waits.

import type { Clock } from "../../core/ports.ts";
import type { Timers } from "../../net/timers.ts";
import type { Logger } from "../../runtime/logger.ts";
import type { ApiFault } from "../../runtime/kubernetes/api.ts";

/** As much as client libraries of Kubernetes' controllers allow themselves, several times over. */
export const WRITES_PER_S = 50;
const WRITES_BURST = 100;
/** Under way at once. */
const CONCURRENT_MAX = 4;
const RETRY_MS_MIN = 1_000;
const RETRY_MS_MAX = 60_000;
/** Subjects that wait: every object there is. Beyond it the oldest is dropped, and seen again at the next look at all. */
const SUBJECTS_MAX = 200_000;

/** Does the write; null when all is well or there is nothing to do. A conflict is no failure: the watch brings what changed. */
export type Write = () => Promise<ApiFault | null>;

export class WriteQueue {
  readonly counters = { written: 0, failed: 0, conflicts: 0 };
  readonly #clock: Clock;
  readonly #timers: Timers;
  readonly #log: Logger;
  readonly #waiting = new Map<string, { readonly write: Write; readonly attempt: number }>();
  readonly #running = new Set<string>();
  readonly #retries = new Set<() => void>();
  #budget = WRITES_BURST;
  #atMs: number;
  #cancel: (() => void) | null = null;
  #stopped = false;

  constructor(parts: { readonly clock: Clock; readonly timers: Timers; readonly log: Logger }) {
    this.#clock = parts.clock;
    this.#timers = parts.timers;
    this.#log = parts.log;
    this.#atMs = parts.clock.monotonicMs();
  }

  get length(): number {
    return this.#waiting.size + this.#running.size;
  }

  put(subject: string, write: Write): void {
    this.#add(subject, { write, attempt: 0 });
  }

  stop(): void {
    this.#stopped = true;
    this.#waiting.clear();
    this.#cancel?.();
    for (const cancel of this.#retries) cancel();
  }

  #add(subject: string, entry: { readonly write: Write; readonly attempt: number }): void {
    if (this.#stopped) return;
    if (this.#waiting.size >= SUBJECTS_MAX && !this.#waiting.has(subject)) this.#waiting.delete(this.#waiting.keys().next().value!);
    this.#waiting.set(subject, entry);
    this.#pump();
  }

  #pump(): void {
    const nowMs = this.#clock.monotonicMs();
    this.#budget = Math.min(WRITES_BURST, this.#budget + ((nowMs - this.#atMs) / 1000) * WRITES_PER_S);
    this.#atMs = nowMs;
    for (const [subject, entry] of this.#waiting) {
      if (this.#running.size >= CONCURRENT_MAX) return;
      if (this.#running.has(subject)) continue;
      if (this.#budget < 1) {
        this.#cancel ??= this.#timers.after(Math.ceil(((1 - this.#budget) * 1000) / WRITES_PER_S), () => {
          this.#cancel = null;
          this.#pump();
        });
        return;
      }
      this.#budget--;
      this.#waiting.delete(subject);
      this.#running.add(subject);
      void this.#run(subject, entry);
    }
  }

  async #run(subject: string, { write, attempt }: { readonly write: Write; readonly attempt: number }): Promise<void> {
    const fault = await write();
    this.#running.delete(subject);
    if (fault === null) this.counters.written++;
    else if (fault.code === "api_conflict") this.counters.conflicts++;
    else {
      this.counters.failed++;
      this.#log.warn(fault.message, { subject, attempt });
      if (fault.retry.kind !== "never") this.#again(subject, write, attempt + 1);
    }
    if (!this.#stopped) this.#pump();
  }

  #again(subject: string, write: Write, attempt: number): void {
    if (this.#stopped) return;
    const cancel = this.#timers.after(Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(attempt, 10)), () => {
      this.#retries.delete(cancel);
      if (!this.#waiting.has(subject)) this.#add(subject, { write, attempt });
    });
    this.#retries.add(cancel);
  }
}
