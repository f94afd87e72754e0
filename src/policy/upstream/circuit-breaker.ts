// Circuit breaking: how many connections, waiting requests, requests and retries one service, port and subset may have at once. Past
// a limit a request is refused at once. What is taken hangs on its owner's handle and goes back with it, once. A host under a wildcard takes
// from its own breaker and from the wildcard's, which bounds all of its hosts together.

import type { LimitSettings } from "./settings.ts";

export const LIMITED_RESOURCES = ["connections", "pendingRequests", "activeRequests", "activeRetries"] as const;
export type LimitedResource = (typeof LIMITED_RESOURCES)[number];

export interface LimitRefusal {
  readonly resource: LimitedResource;
  readonly limit: number;
  /** Reached by several together: what they are of, e.g. `shop/*.example.com:80`; null by the one alone. */
  readonly all: string | null;
}

const WORDS: Readonly<Record<LimitedResource, string>> = {
  connections: "connections open", pendingRequests: "requests waiting for a connection", activeRequests: "requests under way", activeRetries: "retries under way",
};
const FIELDS: Readonly<Record<LimitedResource, string>> = {
  connections: "connectionsMax", pendingRequests: "pendingRequestsMax", activeRequests: "activeRequestsMax", activeRetries: "activeRetriesMax",
};

/** For the log and the answer, e.g. `1024 requests under way, which is the limit (activeRequestsMax)`. */
export function explainRefusal({ resource, limit, all }: LimitRefusal): string {
  return `${limit} ${WORDS[resource]}${all === null ? "" : ` of all hosts of ${all}`}, which is the limit (${FIELDS[resource]})`;
}

export class CircuitBreaker {
  #limits: readonly number[] = [];
  #refusals: readonly LimitRefusal[] = [];
  readonly #inUse = new Int32Array(LIMITED_RESOURCES.length);
  readonly #refused = new Float64Array(LIMITED_RESOURCES.length);

  /** Of all that this is one of; null when it is by itself. */
  readonly #whole: { readonly breaker: CircuitBreaker; readonly name: string } | null;

  constructor(limits: LimitSettings, whole: { readonly breaker: CircuitBreaker; readonly name: string } | null = null) {
    this.#whole = whole;
    this.reconfigure(limits);
  }

  /** What is taken stays taken, also above a limit that has become lower. */
  reconfigure(limits: LimitSettings): void {
    this.#limits = [limits.connectionsMax, limits.pendingRequestsMax, limits.activeRequestsMax, limits.activeRetriesMax];
    this.#refusals = LIMITED_RESOURCES.map((resource, i) => Object.freeze({ resource, limit: this.#limits[i]!, all: null }));
  }

  inUse(resource: LimitedResource): number {
    return this.#inUse[LIMITED_RESOURCES.indexOf(resource)]!;
  }

  /** Of this thread. */
  limit(resource: LimitedResource): number {
    return this.#limits[LIMITED_RESOURCES.indexOf(resource)]!;
  }

  /** How often it was refused since the start. */
  refused(resource: LimitedResource): number {
    return this.#refused[LIMITED_RESOURCES.indexOf(resource)]!;
  }

  /** For Permits only: they know who gives it back. */
  take(index: number): LimitRefusal | null {
    if (this.#inUse[index]! >= this.#limits[index]!) {
      this.#refused[index]!++;
      return this.#refusals[index]!;
    }
    const ofWhole = this.#whole?.breaker.take(index) ?? null;
    if (ofWhole !== null) {
      this.#refused[index]!++;
      return { ...ofWhole, all: this.#whole!.name };
    }
    this.#inUse[index]!++;
    return null;
  }

  giveBack(index: number): void {
    this.#inUse[index]!--;
    this.#whole?.breaker.giveBack(index);
  }
}

/** What one owner (a request, a connection) holds: at most one of each resource. Disposing of it gives back all that is held. */
export class Permits implements Disposable {
  readonly #breaker: CircuitBreaker;
  /** Bit i: one of LIMITED_RESOURCES[i] is held. */
  #held = 0;

  constructor(breaker: CircuitBreaker) {
    this.#breaker = breaker;
  }

  /** Null when it is held now. Throws when it was held already: a broken caller. */
  acquire(resource: LimitedResource): LimitRefusal | null {
    const index = LIMITED_RESOURCES.indexOf(resource);
    if ((this.#held & (1 << index)) !== 0) throw new Error(`one owner acquired ${resource} twice`);
    const refusal = this.#breaker.take(index);
    if (refusal === null) this.#held |= 1 << index;
    return refusal;
  }

  /** Nothing happens when it is not held. */
  release(resource: LimitedResource): void {
    this.#releaseAt(LIMITED_RESOURCES.indexOf(resource));
  }

  holds(resource: LimitedResource): boolean {
    return (this.#held & (1 << LIMITED_RESOURCES.indexOf(resource))) !== 0;
  }

  [Symbol.dispose](): void {
    for (let index = 0; this.#held !== 0; index++) this.#releaseAt(index);
  }

  #releaseAt(index: number): void {
    if ((this.#held & (1 << index)) === 0) return;
    this.#held &= ~(1 << index);
    this.#breaker.giveBack(index);
  }
}
