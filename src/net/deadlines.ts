// Deadlines without a timer each: entries of one duration expire in the order they were added, so one coarse tick and a queue
// serve any number of connections.

export interface Expiring {
  /** Called once when the deadline passes, unless it was cancelled. */
  onDeadline(): void;
}

/** One queue for one duration. Precision is the tick's. */
export class DeadlineQueue {
  readonly durationMs: number;
  #entries: { owner: Expiring | null; atMs: number }[] = [];
  #head = 0;

  constructor(durationMs: number) {
    this.durationMs = durationMs;
  }

  /** Starts a deadline; the handle cancels it. */
  add(owner: Expiring, nowMs: number): DeadlineHandle {
    const entry = { owner: owner as Expiring | null, atMs: nowMs + this.durationMs };
    this.#entries.push(entry);
    return entry;
  }

  /** Fires what is due. */
  tick(nowMs: number): void {
    const entries = this.#entries;
    while (this.#head < entries.length && (entries[this.#head]!.owner === null || entries[this.#head]!.atMs <= nowMs)) {
      const entry = entries[this.#head++]!;
      const owner = entry.owner;
      entry.owner = null;
      owner?.onDeadline();
    }
    if (this.#head > 1024 && this.#head * 2 > entries.length) {
      this.#entries = entries.slice(this.#head);
      this.#head = 0;
    } else if (this.#head === entries.length) {
      this.#entries = [];
      this.#head = 0;
    }
  }

  get size(): number {
    return this.#entries.length - this.#head;
  }
}

export type DeadlineHandle = { owner: Expiring | null };

/** Idempotent; a handle that fired is no longer owned by anyone. */
export function cancelDeadline(handle: DeadlineHandle | null): void {
  if (handle !== null) handle.owner = null;
}
