// Rows by the hash of what they are looked up by, in two arrays of numbers: 16 to 32 bytes for each. Several rows may have one hash, and what they
// were hashed by is not kept: whoever asks compares. Open addressing with linear probing; a removal closes the gap.

const FIRST_SLOTS = 64;
const EMPTY = -1;

/** FNV-1a over UTF-16 code units, as an unsigned 32-bit number. @param from goes on from the hash of what stands before. */
export function hashText(text: string, from = 0x811c9dc5): number {
  let hash = from;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

export class HashIndex {
  #hashes = new Uint32Array(FIRST_SLOTS);
  #rows = new Int32Array(FIRST_SLOTS).fill(EMPTY);
  #count = 0;

  add(hash: number, row: number): void {
    // At most three quarters full.
    if ((this.#count + 1) * 4 > this.#rows.length * 3) this.#grow();
    this.#place(hash, row);
    this.#count++;
  }

  remove(hash: number, row: number): void {
    const mask = this.#rows.length - 1;
    for (let slot = home(hash, mask); this.#rows[slot] !== EMPTY; slot = (slot + 1) & mask) {
      if (this.#rows[slot] !== row || this.#hashes[slot] !== hash) continue;
      this.#closeGap(slot, mask);
      this.#count--;
      return;
    }
  }

  /** The first row with this hash that `accept` takes; -1 when there is none. */
  find(hash: number, accept: (row: number) => boolean): number {
    const mask = this.#rows.length - 1;
    for (let slot = home(hash, mask); this.#rows[slot] !== EMPTY; slot = (slot + 1) & mask) {
      if (this.#hashes[slot] === hash && accept(this.#rows[slot]!)) return this.#rows[slot]!;
    }
    return -1;
  }

  /** Rows behind a gap that may not stand before their home move into it. */
  #closeGap(gap: number, mask: number): void {
    let open = gap;
    for (let slot = (gap + 1) & mask; this.#rows[slot] !== EMPTY; slot = (slot + 1) & mask) {
      const distance = (slot - home(this.#hashes[slot]!, mask)) & mask;
      if (distance < ((slot - open) & mask)) continue;
      this.#hashes[open] = this.#hashes[slot]!;
      this.#rows[open] = this.#rows[slot]!;
      open = slot;
    }
    this.#rows[open] = EMPTY;
  }

  #grow(): void {
    const [hashes, rows] = [this.#hashes, this.#rows];
    this.#hashes = new Uint32Array(rows.length * 2);
    this.#rows = new Int32Array(rows.length * 2).fill(EMPTY);
    for (let slot = 0; slot < rows.length; slot++) if (rows[slot] !== EMPTY) this.#place(hashes[slot]!, rows[slot]!);
  }

  #place(hash: number, row: number): void {
    const mask = this.#rows.length - 1;
    let slot = home(hash, mask);
    while (this.#rows[slot] !== EMPTY) slot = (slot + 1) & mask;
    this.#hashes[slot] = hash;
    this.#rows[slot] = row;
  }
}

/** FNV's low bits follow the last character closely: the high ones are folded in. */
const home = (hash: number, mask: number): number => (hash ^ (hash >>> 15)) & mask;
