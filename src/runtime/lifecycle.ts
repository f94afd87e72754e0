// The life of the process: not ready until every named task is done; asked to stop once, it drains; asked again, it ends at once.

/** What must happen before the process is ready, by name. */
export class Readiness {
  readonly #tasks = new Map<string, string>();
  readonly #listeners: ((ready: boolean, before: boolean) => void)[] = [];

  /** @param name unique while pending. @returns the function that ends the task; calling it again does nothing. */
  pending(name: string, why = ""): () => void {
    if (this.#tasks.has(name)) throw new Error(`readiness: ${name} is pending already`);
    this.#change(() => this.#tasks.set(name, why));
    return () => this.#change(() => this.#tasks.delete(name));
  }

  /** Pending exactly while `why` is given; for conditions that come and go. */
  set(name: string, why: string | null): void {
    this.#change(() => (why === null ? this.#tasks.delete(name) : this.#tasks.set(name, why)));
  }

  get ready(): boolean {
    return this.#tasks.size === 0;
  }

  /** `name` or `name: why`, in the order in which they came. */
  get tasks(): string[] {
    return [...this.#tasks].map(([name, why]) => (why === "" ? name : `${name}: ${why}`));
  }

  /** Called whenever the set of tasks has changed; `before` is what `ready` was until then. */
  onChange(listener: (ready: boolean, before: boolean) => void): void {
    this.#listeners.push(listener);
  }

  #change(change: () => void): void {
    const before = this.ready;
    const tasksBefore = this.tasks.join("\n");
    change();
    if (tasksBefore !== this.tasks.join("\n")) for (const listener of this.#listeners) listener(this.ready, before);
  }
}

export interface StopReason {
  /** For the log: `SIGTERM`, `POST /quitquitquit`, `handed over to process 4711`. */
  readonly message: string;
  /** The listening ports live on in a successor: rules stay, and nothing is refused. */
  readonly handedOver: boolean;
  readonly exitStatus: number;
}

/** Two phases: `stop` is aborted when the end is asked for, `force` when it may not take any longer. */
export class Lifecycle {
  readonly #stop = new AbortController();
  readonly #force = new AbortController();
  #reason: StopReason | null = null;
  readonly #reloads: (() => void)[] = [];
  readonly readiness = new Readiness();

  /** Graceful end: close listeners, tell peers, wait. */
  get stop(): AbortSignal {
    return this.#stop.signal;
  }

  /** Waiting is over. */
  get force(): AbortSignal {
    return this.#force.signal;
  }

  get reason(): StopReason | null {
    return this.#reason;
  }

  /** First call starts the drain; a later one ends it. */
  requestStop(reason: StopReason): void {
    if (this.#reason === null) {
      this.#reason = reason;
      this.#stop.abort(reason);
    } else if (!reason.handedOver) {
      this.forceStop();
    }
  }

  forceStop(): void {
    this.#force.abort(this.#reason);
  }

  onReload(listener: () => void): void {
    this.#reloads.push(listener);
  }

  reload(): void {
    for (const listener of this.#reloads) listener();
  }

  /** Resolves with the reason when a stop is asked for. */
  async stopped(): Promise<StopReason> {
    if (this.#reason === null) await aborted(this.#stop.signal);
    return this.#reason!;
  }

  /** Resolves with what `work` gives, or `null` when the force comes first or `deadlineMs` has passed. */
  async within<T>(deadlineMs: number, work: Promise<T>): Promise<T | null> {
    const timer = setTimeout(() => this.forceStop(), deadlineMs);
    try {
      return await Promise.race([work, aborted(this.#force.signal).then(() => null)]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** SIGTERM and SIGINT stop, SIGHUP reloads. Disposing lets go of them. */
export function handleSignals(lifecycle: Lifecycle): Disposable {
  const stop = (signal: NodeJS.Signals) => lifecycle.requestStop({ message: signal, handedOver: false, exitStatus: 0 });
  const reload = () => lifecycle.reload();
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", reload);
  return {
    [Symbol.dispose]() {
      process.off("SIGTERM", stop);
      process.off("SIGINT", stop);
      process.off("SIGHUP", reload);
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
