// Ring hash (Ketama): each endpoint has points on a ring of 2^32 in proportion to its weight; a key belongs to the next point. When
// an endpoint comes or goes only the keys of its own points move.

import { RING_SIZE_MAX } from "../defaults.ts";
import type { UpstreamEndpoint } from "../endpoint.ts";
import { hashNumber, hashText } from "./hash.ts";
import type { BuildTable, HashTable } from "./hash-table.ts";

/** Points of the lightest endpoint, so that shares stay within some ten percent of what weights say. */
const POINTS_MIN = 160;
/** Members from which on the ring has its configured size. */
const MEMBERS_FOR_MINIMUM = 4;

/** Rings of at least `sizeMin` points (at most RING_SIZE_MAX). */
export function ringBuilder(sizeMin: number): BuildTable {
  return (members) => buildRing(members, sizeMin);
}

function buildRing(members: readonly UpstreamEndpoint[], sizeMin: number): HashTable {
  const counts = pointCounts(members, sizeMin);
  let size = 0;
  for (const count of counts) size += count;
  // Position above, owner below: one sort of doubles orders both. Positions have 32 bits, owners 20: exact.
  const keyed = new Float64Array(size);
  let next = 0;
  members.forEach((member, owner) => {
    const base = hashText(member.target.workload.uid);
    for (let n = 0; n < counts[owner]!; n++) keyed[next++] = hashNumber(base, n) * RING_SIZE_MAX + owner;
  });
  keyed.sort();
  const positions = new Uint32Array(size);
  const owners = new Uint32Array(size);
  for (let i = 0; i < size; i++) {
    positions[i] = Math.floor(keyed[i]! / RING_SIZE_MAX);
    owners[i] = keyed[i]! % RING_SIZE_MAX;
  }
  const index = new RingIndex(positions);
  return {
    members,
    at(hash, step) {
      let place = index.firstNotBefore(hash);
      if (step === 0) return members[owners[place]!]!;
      // The step-th other endpoint along the ring; bounded by the points that one endpoint may have in a row.
      let owner = owners[place]!;
      let changes = 0;
      for (let i = 0; i < positions.length && changes < step; i++) {
        place = place + 1 === positions.length ? 0 : place + 1;
        if (owners[place]! !== owner) {
          owner = owners[place]!;
          changes++;
        }
      }
      return members[owner]!;
    },
  };
}

/**
 * Points by weight. How many a member has must not depend on how many others there are, or keys would move between endpoints that
 * stay: it is a number for each unit of the least weight, halved only where the ring would become too large.
 */
function pointCounts(members: readonly UpstreamEndpoint[], sizeMin: number): number[] {
  let weightMin = Infinity;
  let sum = 0;
  for (const { weight } of members) {
    weightMin = Math.min(weightMin, weight);
    sum += weight;
  }
  const unit = 2 ** Math.floor(Math.log2(weightMin));
  let pointsPerUnit = Math.max(POINTS_MIN, Math.ceil(sizeMin / MEMBERS_FOR_MINIMUM));
  while ((sum / unit) * pointsPerUnit + members.length > RING_SIZE_MAX && pointsPerUnit > 1 / RING_SIZE_MAX) pointsPerUnit /= 2;
  return members.map(({ weight }) => Math.max(1, Math.round((weight / unit) * pointsPerUnit)));
}

/** Points for each entry of the index: a look-up passes half of them, and the index takes a quarter of the ring's own memory. */
const POINTS_PER_ENTRY = 4;

/** Finds a point by the upper bits of a hash: positions are spread evenly, so that a few steps from there are enough. */
class RingIndex {
  readonly #positions: Uint32Array;
  readonly #shift: number;
  /** Place of the first point whose upper bits are i or more. */
  readonly #starts: Uint32Array;

  constructor(positions: Uint32Array) {
    const bits = Math.max(1, Math.ceil(Math.log2(positions.length / POINTS_PER_ENTRY)));
    this.#positions = positions;
    this.#shift = 32 - bits;
    this.#starts = new Uint32Array(2 ** bits);
    let place = 0;
    for (let entry = 0; entry < this.#starts.length; entry++) {
      while (place < positions.length && positions[place]! >>> this.#shift < entry) place++;
      this.#starts[entry] = place;
    }
  }

  /** Place of the first position that is not before `hash`; past the last one the ring begins again. */
  firstNotBefore(hash: number): number {
    const positions = this.#positions;
    let place = this.#starts[hash >>> this.#shift]!;
    while (place < positions.length && positions[place]! < hash) place++;
    return place === positions.length ? 0 : place;
  }
}
