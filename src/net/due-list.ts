// Deadlines that move: things that each know when they are next due, looked at together by one timer. For what changes its deadline
// with every byte, or lives a millisecond under a deadline of minutes: a queue (deadlines.ts) would keep an entry for each until it expires.

export interface Due {
  /** When to be called, on the list's clock; Infinity for never. Written by the owner: raise it freely, call `sooner` after lowering it. */
  dueMs: number;
  /** The list's own; -1 while not on it. */
  dueIndex: number;
  /** Called once `dueMs` has passed; it was set to Infinity before, and the owner sets the next one. */
  onDue(nowMs: number): void;
}

/** The timer does not fire more often: retries wait tens of milliseconds at least, timeouts are longer still. */
const GRANULARITY_MS = 5;
/** setTimeout's own limit lies at 2^31; looking once in a while more costs nothing. */
const LONGEST_SLEEP_MS = 60_000;

export class DueList {
  readonly #nowMs: () => number;
  readonly #members: Due[] = [];
  #timer: ReturnType<typeof setTimeout> | null = null;
  /** When the timer fires. */
  #armedMs = Infinity;
  #closed = false;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get size(): number {
    return this.#members.length;
  }

  add(member: Due): void {
    if (member.dueIndex >= 0) throw new Error("due list: added twice");
    member.dueIndex = this.#members.length;
    this.#members.push(member);
    if (member.dueMs < this.#armedMs) this.#arm(member.dueMs);
  }

  /** Nothing happens when it is not on the list. */
  remove(member: Due): void {
    const at = member.dueIndex;
    if (at < 0) return;
    member.dueIndex = -1;
    const last = this.#members.pop()!;
    if (last === member) return;
    last.dueIndex = at;
    this.#members[at] = last;
  }

  /** `dueMs` of a member was lowered. */
  sooner(member: Due): void {
    if (member.dueIndex >= 0 && member.dueMs < this.#armedMs) this.#arm(member.dueMs);
  }

  /** No more calls. */
  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #arm(dueMs: number): void {
    if (this.#closed) return;
    const nowMs = this.#nowMs();
    const sleepMs = Math.min(LONGEST_SLEEP_MS, Math.max(GRANULARITY_MS, dueMs - nowMs));
    this.#armedMs = nowMs + sleepMs;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fire(), sleepMs);
  }

  #fire(): void {
    this.#timer = null;
    this.#armedMs = Infinity;
    const nowMs = this.#nowMs();
    const late: Due[] = [];
    for (const member of this.#members) if (member.dueMs <= nowMs) late.push(member);
    for (const member of late) {
      // An earlier one may have taken it off, or moved it.
      if (member.dueIndex < 0 || member.dueMs > nowMs) continue;
      member.dueMs = Infinity;
      member.onDue(nowMs);
    }
    let nextMs = Infinity;
    for (const { dueMs } of this.#members) if (dueMs < nextMs) nextMs = dueMs;
    if (nextMs < this.#armedMs && nextMs !== Infinity) this.#arm(nextMs);
  }
}
