// The hash under consistent hashing: 32 bits, MurmurHash3 over UTF-16 code units. Every waypoint computes the same for the same key,
// so that they agree on endpoints without talking to each other.

const C1 = 0xcc9e2d51;
const C2 = 0x1b873593;

/** Hash of a text, unsigned 32 bits. */
export function hashText(text: string, seed = 0): number {
  let h = seed | 0;
  let i = 0;
  for (const last = text.length - 1; i < last; i += 2) {
    h ^= mixIn(text.charCodeAt(i) | (text.charCodeAt(i + 1) << 16));
    h = (h << 13) | (h >>> 19);
    h = (Math.imul(h, 5) + 0xe6546b64) | 0;
  }
  if (i < text.length) h ^= mixIn(text.charCodeAt(i));
  return finish(h ^ (text.length * 2));
}

/** Hash of a hash and a number: the n-th point of an endpoint, the n-th try of a key. Unsigned 32 bits. */
export function hashNumber(hash: number, n: number): number {
  let h = (hash ^ mixIn(n | 0)) | 0;
  h = (h << 13) | (h >>> 19);
  return finish((Math.imul(h, 5) + 0xe6546b64) ^ 4);
}

function mixIn(k: number): number {
  const m = Math.imul(k, C1);
  return Math.imul((m << 15) | (m >>> 17), C2);
}

function finish(hash: number): number {
  let h = hash;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
