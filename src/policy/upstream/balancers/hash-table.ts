// Consistent hashing over the members of a group, whatever their health: a key keeps its endpoint while others come and go, and one
// that is ejected gives its keys away without moving any other. Building a table takes milliseconds, so a change is taken over by
// `maintain`, off the path of requests; until then the old table serves, less the endpoints that are gone.

import { HASH_STEPS_MAX } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import { hashNumber } from "./hash.ts";
import { NO_ENDPOINTS, type PickContext, type Picker } from "./picker.ts";

/** A table from hashes to endpoints. */
export interface HashTable {
  readonly members: readonly UpstreamEndpoint[];
  /** The endpoint of a hash at the given step: 0 is its own, each further step another place for it. */
  at(hash: number, step: number): UpstreamEndpoint;
}

export type BuildTable = (members: readonly UpstreamEndpoint[]) => HashTable;

export class ConsistentHash implements Picker {
  readonly #build: BuildTable;
  #table: HashTable | null = null;
  #members: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  #usable: readonly UpstreamEndpoint[] = NO_ENDPOINTS;
  #weights: readonly number[] = [];

  constructor(build: BuildTable) {
    this.#build = build;
  }

  update(usable: readonly UpstreamEndpoint[], members: readonly UpstreamEndpoint[]): void {
    this.#usable = usable;
    this.#members = members;
  }

  /** Builds the table when members or weights have changed since. */
  maintain(): boolean {
    if (!this.#isStale()) return false;
    this.#weights = this.#members.map((member) => member.weight);
    this.#table = this.#members.length === 0 ? null : this.#build(this.#members);
    return true;
  }

  pick({ hash, tried }: PickContext): UpstreamEndpoint | null {
    const usable = this.#usable;
    if (usable.length === 0) return null;
    // The first table is built by the first request, if nobody found the time before.
    if (this.#table === null) this.maintain();
    const table = this.#table;
    if (table !== null) {
      for (let step = 0; step < HASH_STEPS_MAX; step++) {
        const endpoint = table.at(hash, step);
        if (endpoint.usable && !endpoint.gone && (tried.length === 0 || !tried.includes(endpoint))) return endpoint;
      }
    }
    // Nearly all are unusable: any place among the rest, the same for the same key.
    const start = hashNumber(hash, HASH_STEPS_MAX) % usable.length;
    for (let i = 0; i < usable.length; i++) {
      const endpoint = usable[(start + i) % usable.length]!;
      if (!tried.includes(endpoint)) return endpoint;
    }
    return null;
  }

  #isStale(): boolean {
    const members = this.#members;
    const built = this.#table === null ? NO_ENDPOINTS : this.#table.members;
    if (members === built) return members.some((member, i) => member.weight !== this.#weights[i]);
    return members.length !== built.length || members.some((member, i) => member !== built[i] || member.weight !== this.#weights[i]);
  }
}
