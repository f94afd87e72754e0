// A fast, stable 64-bit hash of text: versions of resources and places in an address range. Not for secrets.

/** Two 32-bit halves, well mixed (MurmurHash3's finaliser over FNV-1a). */
export function hash64(text: string): readonly [high: number, low: number] {
  let a = 0x811c9dc5;
  let b = 0xcbf29ce4;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    a = Math.imul(a ^ c, 0x01000193);
    b = Math.imul(b ^ (c + i), 0x85ebca6b);
    b = (b << 13) | (b >>> 19);
  }
  return [mix(a ^ text.length) >>> 0, mix(b ^ a) >>> 0];
}

export function contentHash(text: string): string {
  const [high, low] = hash64(text);
  return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

function mix(value: number): number {
  let h = value;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
