// The main thread's handle on a ztunnel's data threads: what they are asked and what they tell, by name.

import type { WorkloadUid } from "../core/brand.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { DRAIN_GRACE_MS } from "../runtime/leave.ts";
import { workerPath, WorkerThreads } from "../runtime/worker-threads.ts";
import type { FromData, ToData, WorkloadListeners } from "./messages.ts";

type Told<Kind extends FromData["kind"]> = Extract<FromData, { kind: Kind }>;

export interface DataThreadEvents {
  needSvid(message: Told<"needSvid">): void;
  log(message: Told<"log">): void;
  released(message: Told<"released">): void;
  warning(message: Told<"warning">): void;
  /** A data thread ended: the process cannot go on as it was. */
  crashed(error: Error): void;
}

/** One attachment, per data thread: its own listeners (SO_REUSEPORT) and its own namespace descriptor. */
export interface ThreadAttachment {
  readonly namespaceFd: number;
  readonly listeners: WorkloadListeners;
}

export interface DataThreadsOptions {
  readonly config: DataPlaneConfig;
  readonly logCredit: SharedArrayBuffer | null;
  /** One of each thread, see runtime/thread-pulse.ts; as many threads are started. */
  readonly pulses: readonly SharedArrayBuffer[];
  readonly events: DataThreadEvents;
}

export class DataThreads {
  readonly #threads: WorkerThreads<ToData, FromData>;
  #questions = 0;

  private constructor(threads: WorkerThreads<ToData, FromData>) {
    this.#threads = threads;
  }

  /** Starts the threads and waits until each is ready. */
  static async start({ config, logCredit, pulses, events }: DataThreadsOptions): Promise<DataThreads> {
    const threads = new WorkerThreads<ToData, FromData>({
      count: pulses.length, path: workerPath("ztunnel", new URL("./data-thread.ts", import.meta.url)), crashed: events.crashed, received: (message) => tell(events, message),
    });
    const ready = threads.gather("ready");
    threads.postEach((i) => ({ kind: "configure", config, logCredit, pulse: pulses[i]! }));
    await ready;
    return new DataThreads(threads);
  }

  get count(): number {
    return this.#threads.count;
  }

  /** Tells every thread. */
  post(message: ToData): void {
    this.#threads.post(message);
  }

  /** Hands each thread its own listeners. Returns null when all have them, or the first failure. */
  async attach(uid: WorkloadUid, attachments: readonly ThreadAttachment[]): Promise<string | null> {
    const question = this.#question("attach");
    const answers = this.#threads.gather(question);
    this.#threads.postEach((i) => ({ kind: "attach", question, uid, ...attachments[i]! }));
    return (await answers).find((answer) => typeof answer === "string") ?? null;
  }

  /** One value per thread; a thread that does not answer in time is left out. */
  async snapshot(what: "metrics" | "connections"): Promise<unknown[]> {
    const question = this.#question("snapshot");
    const answers = this.#threads.gather(question);
    this.post({ kind: "snapshot", question, what });
    return answers;
  }

  /** Resolves with the number of connections closed by force when every thread has drained. `closed`: no thread has a listener any more. */
  async drain(deadlineMs: number, closed?: () => void): Promise<number> {
    const answers = this.#threads.gather("drained", deadlineMs + DRAIN_GRACE_MS);
    if (closed !== undefined) void this.#threads.gather("closed", deadlineMs + DRAIN_GRACE_MS).then(closed);
    this.post({ kind: "drain", deadlineMs });
    return (await answers).reduce<number>((sum, value) => sum + Number(value), 0);
  }

  terminate(): void {
    this.#threads.terminate();
  }

  #question(about: string): string {
    return `${about} ${++this.#questions}`;
  }
}

function tell(events: DataThreadEvents, message: FromData): void {
  switch (message.kind) {
    case "released":
      return events.released(message);
    case "needSvid":
      return events.needSvid(message);
    case "log":
      return events.log(message);
    case "warning":
      return events.warning(message);
    default:
      message satisfies never;
  }
}
