// The main thread's handle on Workers that all do the same: starts them, tells them all the same things, and gathers their answers.

/** How long a thread may take to answer a question before the answer is given without it. */
const ANSWER_MS_MAX = 2_000;
const START_MS_MAX = 30_000;

/**
 * In the compiled binary all modules are one file, and the other entry points of scripts/build.ts lie below the common root of all of
 * them. The path has to be absolute: a relative one would be looked for in the working directory too.
 */
export function workerPath(part: "ztunnel" | "waypoint", source: URL): string {
  return import.meta.path.startsWith("/$bunfs/") ? `/$bunfs/root/${part}/data-thread.js` : source.href;
}

export interface WorkerThreadsOptions<From> {
  readonly count: number;
  /** Of the Worker's entry, see workerPath. */
  readonly path: string;
  /** What no question waits for. */
  readonly received: (message: From) => void;
  /** A thread ended: the process cannot go on as it was. */
  readonly crashed: (error: Error) => void;
}

interface Question {
  readonly answered: (values: unknown[]) => void;
  readonly values: unknown[];
}

/** @template From what the threads tell beside their answers. */
export class WorkerThreads<To, From extends { readonly kind: string }> {
  readonly count: number;
  readonly #options: WorkerThreadsOptions<From>;
  readonly #workers: Worker[] = [];
  readonly #questions = new Map<string, Question>();

  constructor(options: WorkerThreadsOptions<From>) {
    this.count = options.count;
    this.#options = options;
    for (let i = 0; i < options.count; i++) {
      const worker = new Worker(options.path, { smol: true } as WorkerOptions);
      worker.onmessage = ({ data }: MessageEvent<From | ThreadAnswer>) => this.#receive(data);
      worker.onerror = (event: ErrorEvent) => options.crashed(event.error instanceof Error ? event.error : new Error(event.message));
      this.#workers.push(worker);
    }
  }

  post(message: To): void {
    for (const worker of this.#workers) worker.postMessage(message);
  }

  /** Tells each thread something of its own. */
  postEach(make: (index: number) => To): void {
    this.#workers.forEach((worker, index) => worker.postMessage(make(index)));
  }

  /** One value of each thread that answers in time. @param question as the threads name it in their answers. */
  gather(question: string, timeoutMs: number = question === "ready" ? START_MS_MAX : ANSWER_MS_MAX): Promise<unknown[]> {
    return new Promise((resolve) => {
      const values: unknown[] = [];
      const timer = setTimeout(() => {
        this.#questions.delete(question);
        resolve(values);
      }, timeoutMs);
      this.#questions.set(question, {
        values,
        answered: (all) => {
          clearTimeout(timer);
          this.#questions.delete(question);
          resolve(all);
        },
      });
    });
  }

  terminate(): void {
    for (const worker of this.#workers) worker.terminate();
  }

  #receive(message: From | ThreadAnswer): void {
    if (!isAnswer(message)) return this.#options.received(message);
    const { question, value } = message;
    const waiting = this.#questions.get(question);
    if (waiting === undefined) return;
    waiting.values.push(value);
    if (waiting.values.length === this.count) waiting.answered(waiting.values);
  }
}

/** A thread's answer to `gather`. */
export interface ThreadAnswer {
  readonly kind: "answer";
  readonly question: string;
  readonly value: unknown;
}

const isAnswer = (message: { readonly kind: string }): message is ThreadAnswer => message.kind === "answer";
