// Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): a table whose places endpoints fill in turn, each in an order of its own.
// One look finds a key's endpoint, shares are even to a few per mille, and a change moves few keys beside those it must.

import type { UpstreamEndpoint } from "../endpoint.ts";
import { hashNumber, hashText } from "./hash.ts";
import type { BuildTable, HashTable } from "./hash-table.ts";

const OFFSET_SEED = 0x51ed270b;
const SKIP_SEED = 0x2f0b4c47;

/** Tables of `size` places; a size that is not prime is taken up to the next prime, as the walk needs. */
export function maglevBuilder(size: number): BuildTable {
  const prime = primeFrom(Math.max(size, 3));
  return (members) => buildTable(members, prime);
}

function buildTable(members: readonly UpstreamEndpoint[], size: number): HashTable {
  const count = members.length;
  const places = new Int32Array(size).fill(-1);
  const position = new Int32Array(count);
  const skip = new Int32Array(count);
  const credit = new Float64Array(count);
  let weightMax = 0;
  members.forEach((member, i) => {
    const { uid } = member.target.workload;
    position[i] = hashText(uid, OFFSET_SEED) % size;
    skip[i] = (hashText(uid, SKIP_SEED) % (size - 1)) + 1;
    weightMax = Math.max(weightMax, member.weight);
  });
  let filled = 0;
  while (filled < size) {
    for (let i = 0; i < count && filled < size; i++) {
      // A turn for each whole part of the heaviest weight that has come together.
      credit[i] = credit[i]! + members[i]!.weight / weightMax;
      if (credit[i]! < 1) continue;
      credit[i] = credit[i]! - 1;
      let at = position[i]!;
      while (places[at]! >= 0) at = (at + skip[i]!) % size;
      places[at] = i;
      position[i] = (at + skip[i]!) % size;
      filled++;
    }
  }
  return {
    members,
    at: (hash, step) => members[places[(step === 0 ? hash : hashNumber(hash, step)) % size]!]!,
  };
}

function primeFrom(wanted: number): number {
  let n = wanted;
  while (!isPrime(n)) n++;
  return n;
}

function isPrime(n: number): boolean {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return n > 1;
}
