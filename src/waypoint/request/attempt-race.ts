// The attempts of one request that are under way at the same time: one, or with hedging a few, of which one answer goes on. Who is in it
// and who is out; what any of that means is decided elsewhere.

import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import type { ServerAttempt } from "./server-attempt.ts";

const NOBODY: readonly ServerAttempt[] = Object.freeze([]);

export class AttemptRace {
  #lead: ServerAttempt | null = null;
  /** Begun before it and still without an answer. */
  #rivals = NOBODY;

  /** Begun last, or the one whose answer goes on. */
  get lead(): ServerAttempt | null {
    return this.#lead;
  }

  /** Several are in it. */
  get isContested(): boolean {
    return this.#rivals.length > 0;
  }

  /** When the first of them takes too long. */
  get endsMs(): number {
    let endsMs = this.#lead?.endsMs ?? Infinity;
    for (const rival of this.#rivals) endsMs = Math.min(endsMs, rival.endsMs);
    return endsMs;
  }

  /** One that takes too long; null for none. */
  late(nowMs: number): ServerAttempt | null {
    if (this.#lead !== null && nowMs >= this.#lead.endsMs) return this.#lead;
    return this.#rivals.find(({ endsMs }) => nowMs >= endsMs) ?? null;
  }

  get endpoints(): UpstreamEndpoint[] {
    const rivals = this.#rivals.map(({ endpoint }) => endpoint);
    return this.#lead === null ? rivals : [...rivals, this.#lead.endpoint];
  }

  enter(attempt: ServerAttempt): void {
    if (this.#lead !== null) this.#rivals = [...this.#rivals, this.#lead];
    this.#lead = attempt;
  }

  /** Out of it. True: others are still in. */
  leave(attempt: ServerAttempt): boolean {
    if (this.#rivals.length === 0) {
      if (attempt === this.#lead) this.#lead = null;
      return this.#lead !== null;
    }
    const left = this.#rivals.filter((rival) => rival !== attempt);
    if (attempt === this.#lead) this.#lead = left.pop() ?? null;
    this.#rivals = left;
    return this.#lead !== null;
  }

  /** The others, for their end. */
  win(attempt: ServerAttempt): readonly ServerAttempt[] {
    if (this.#rivals.length === 0) return NOBODY;
    const others = [...this.#rivals, this.#lead!].filter((other) => other !== attempt);
    this.#rivals = NOBODY;
    this.#lead = attempt;
    return others;
  }

  /** All of them are given up. */
  cancel(): void {
    const lead = this.#lead;
    const rivals = this.#rivals;
    this.#lead = null;
    this.#rivals = NOBODY;
    lead?.cancel();
    for (const rival of rivals) rival.cancel();
  }
}
