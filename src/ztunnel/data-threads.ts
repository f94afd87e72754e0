// The main thread's handle on its data threads: starts them, tells them all the same things, and gathers their answers.

import type { WorkloadUid } from "../core/brand.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { newPulse } from "../runtime/thread-pulse.ts";
import type { FromData, ToData, WorkloadListeners } from "./messages.ts";

/** How long a data thread may take to answer a question before the answer is given without it. */
const ANSWER_MS_MAX = 2_000;

export interface DataThreadEvents {
  needSvid(message: Extract<FromData, { kind: "needSvid" }>): void;
  log(message: Extract<FromData, { kind: "log" }>): void;
  released(message: Extract<FromData, { kind: "released" }>): void;
  warning(message: Extract<FromData, { kind: "warning" }>): void;
  /** A data thread ended: the process cannot go on as it was. */
  crashed(error: Error): void;
}

/**
 * In the compiled binary all modules are one file, and the second entry point of scripts/build.ts lies at this path below the common
 * root of the entry points. It has to be absolute: a relative one would be looked for in the working directory too.
 */
const COMPILED_WORKER = "/$bunfs/root/ztunnel/data-thread.js";

function workerPath(): string {
  return import.meta.path.startsWith("/$bunfs/") ? COMPILED_WORKER : new URL("./data-thread.ts", import.meta.url).href;
}

/** One attachment, per data thread: its own listeners (SO_REUSEPORT) and its own namespace descriptor. */
export interface ThreadAttachment {
  readonly namespaceFd: number;
  readonly listeners: WorkloadListeners;
}

export class DataThreads {
  readonly count: number;
  /** One of each thread, see runtime/thread-pulse.ts. */
  readonly pulses: readonly SharedArrayBuffer[];
  readonly #workers: Worker[] = [];
  readonly #events: DataThreadEvents;
  readonly #waiting = new Map<string, { resolve: (value: unknown) => void; remaining: number; values: unknown[] }>();
  #requestId = 0;

  private constructor(count: number, events: DataThreadEvents) {
    this.count = count;
    this.pulses = Array.from({ length: count }, newPulse);
    this.#events = events;
  }

  /** Starts the threads and waits until each is ready. */
  static async start(options: { count: number; config: DataPlaneConfig; logCredit: SharedArrayBuffer | null; events: DataThreadEvents }): Promise<DataThreads> {
    const threads = new DataThreads(options.count, options.events);
    const ready = threads.#gather("ready");
    for (let i = 0; i < options.count; i++) {
      const worker = new Worker(workerPath(), { smol: true } as WorkerOptions);
      worker.onmessage = (event: MessageEvent<FromData>) => threads.#receive(event.data);
      worker.onerror = (event: ErrorEvent) => options.events.crashed(event.error instanceof Error ? event.error : new Error(event.message));
      worker.postMessage({ kind: "configure", config: options.config, logCredit: options.logCredit, pulse: threads.pulses[i]! } satisfies ToData);
      threads.#workers.push(worker);
    }
    await ready;
    return threads;
  }

  /** Tells every thread. */
  post(message: ToData): void {
    for (const worker of this.#workers) worker.postMessage(message);
  }

  /** Hands each thread its own listeners. Returns null when all have them, or the first failure. */
  async attach(uid: WorkloadUid, attachments: readonly ThreadAttachment[]): Promise<string | null> {
    const answers = this.#gather(`attach ${uid}`);
    this.#workers.forEach((worker, i) => {
      const { namespaceFd, listeners } = attachments[i]!;
      worker.postMessage({ kind: "attach", uid, namespaceFd, listeners } satisfies ToData);
    });
    const failures = (await answers).filter((answer): answer is string => typeof answer === "string");
    return failures[0] ?? null;
  }

  /** One value per thread; a thread that does not answer in time is left out. */
  async snapshot(what: "metrics" | "connections"): Promise<unknown[]> {
    const requestId = ++this.#requestId;
    const answers = this.#gather(`snapshot ${requestId}`);
    this.post({ kind: "snapshot", requestId, what });
    return answers;
  }

  /** Resolves with the number of connections closed by force when every thread has drained. */
  async drain(deadlineMs: number): Promise<number> {
    const answers = this.#gather("drained", deadlineMs + ANSWER_MS_MAX);
    this.post({ kind: "drain", deadlineMs });
    return (await answers).reduce<number>((sum, value) => sum + Number(value), 0);
  }

  terminate(): void {
    for (const worker of this.#workers) worker.terminate();
  }

  #receive(message: FromData): void {
    switch (message.kind) {
      case "ready":
        return this.#answer("ready", null);
      case "attached":
        return this.#answer(`attach ${message.uid}`, null);
      case "attachFailed":
        return this.#answer(`attach ${message.uid}`, message.message);
      case "released":
        return this.#events.released(message);
      case "snapshot":
        return this.#answer(`snapshot ${message.requestId}`, message.value);
      case "drained":
        return this.#answer("drained", message.closedByForce);
      case "needSvid":
        return this.#events.needSvid(message);
      case "log":
        return this.#events.log(message);
      case "warning":
        return this.#events.warning(message);
    }
  }

  /** Collects one answer of each thread under `key`. */
  #gather(key: string, timeoutMs = ANSWER_MS_MAX): Promise<unknown[]> {
    return new Promise((resolve) => {
      const waiting = { resolve: resolve as (value: unknown) => void, remaining: this.count, values: [] as unknown[] };
      this.#waiting.set(key, waiting);
      const timer = setTimeout(() => {
        if (this.#waiting.get(key) === waiting) this.#waiting.delete(key);
        resolve(waiting.values);
      }, key === "ready" ? 30_000 : timeoutMs);
      waiting.resolve = (values) => {
        clearTimeout(timer);
        resolve(values as unknown[]);
      };
    });
  }

  #answer(key: string, value: unknown): void {
    const waiting = this.#waiting.get(key);
    if (waiting === undefined) return;
    waiting.values.push(value);
    if (--waiting.remaining > 0) return;
    this.#waiting.delete(key);
    waiting.resolve(waiting.values);
  }
}
