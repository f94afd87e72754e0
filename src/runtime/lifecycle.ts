// The life of the process: not ready until every named task is done; asked to stop once, it drains; asked again, it ends at once.

/** What must happen before the process is ready, by name; and what is amiss without holding it up. */
export class Readiness {
  readonly #remarks = new Map<string, string>();
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

  /** Amiss exactly while `what` is given, ready or not. */
  remark(name: string, what: string | null): void {
    this.#change(() => (what === null ? this.#remarks.delete(name) : this.#remarks.set(name, what)));
  }

  get ready(): boolean {
    return this.#tasks.size === 0;
  }

  /** `name: what`, in the order in which they came. */
  get remarks(): string[] {
    return [...this.#remarks].map(([name, what]) => `${name}: ${what}`);
  }

  /** `name` or `name: why`, in the order in which they came. */
  get tasks(): string[] {
    return [...this.#tasks].map(([name, why]) => (why === "" ? name : `${name}: ${why}`));
  }

  /** Called whenever tasks or remarks have changed; `before` is what `ready` was until then. */
  onChange(listener: (ready: boolean, before: boolean) => void): void {
    this.#listeners.push(listener);
  }

  #change(change: () => void): void {
    const before = this.ready;
    const said = () => [...this.tasks, "", ...this.remarks].join("\n");
    const saidBefore = said();
    change();
    if (saidBefore !== said()) for (const listener of this.#listeners) listener(this.ready, before);
  }
}

export interface StopReason {
  /** For the log: `SIGTERM`, `POST /quitquitquit`, `handed over to process 4711`. */
  readonly message: string;
  /** The process in which the listening ports live on: rules stay, and nothing is refused. Null when there is none. */
  readonly successorPid: number | null;
  readonly exitStatus: number;
}

/** Two phases: `stop` is aborted when the end is asked for, `force` when it may not take any longer. */
export class Lifecycle {
  readonly #stop = new AbortController();
  readonly #force = new AbortController();
  #reason: StopReason | null = null;
  readonly #reloads: (() => void)[] = [];
  readonly #replacements: (() => void)[] = [];
  #replaceAsked = false;
  readonly #hurry = new AbortController();
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

  /** After a handover connections may take their time; this says that they may not any more. */
  get hurry(): AbortSignal {
    return this.#hurry.signal;
  }

  /** First call starts the drain; a later one ends it. The first one after a handover only shortens it. */
  requestStop(reason: StopReason): void {
    if (this.#reason === null) {
      this.#reason = reason;
      this.#stop.abort(reason);
    } else if (reason.successorPid !== null) {
      return;
    } else if (this.#reason.successorPid !== null && !this.#hurry.signal.aborted) {
      this.#hurry.abort(reason);
    } else {
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

  /** Called at once when it was asked for before. */
  onReplace(listener: () => void): void {
    this.#replacements.push(listener);
    if (this.#replaceAsked) listener();
  }

  /** A new process of the same program is to take this one's place. */
  replace(): void {
    this.#replaceAsked = true;
    for (const listener of this.#replacements) listener();
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

/** SIGTERM and SIGINT stop, SIGHUP reloads, SIGUSR2 replaces. Disposing lets go of them. */
export function handleSignals(lifecycle: Lifecycle): Disposable {
  const stop = (signal: NodeJS.Signals) => lifecycle.requestStop({ message: signal, successorPid: null, exitStatus: 0 });
  const replace = () => lifecycle.replace();
  const reload = () => lifecycle.reload();
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  process.on("SIGHUP", reload);
  process.on("SIGUSR2", replace);
  return {
    [Symbol.dispose]() {
      process.off("SIGTERM", stop);
      process.off("SIGINT", stop);
      process.off("SIGHUP", reload);
      process.off("SIGUSR2", replace);
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
