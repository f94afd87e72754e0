// Values as bytes, one after the other, and back: what packed records are made of. Only for what this process writes itself: nothing here
// looks at whether the bytes make sense.

const FIRST_BYTES = 4096;
const utf8 = new TextEncoder();
const NO_BYTES = new Uint8Array(0);
const NO_ROOM = Buffer.alloc(0);

export class PackWriter {
  #bytes: Buffer = NO_ROOM;
  #at = 0;

  get length(): number {
    return this.#at;
  }

  /** A whole number, 0 to 2^53 - 1. */
  uint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new Error(`packing ${value}: wanted a whole number from 0`);
    this.#room(8);
    while (value > 0x7f) {
      this.#bytes[this.#at++] = (value & 0x7f) | 0x80;
      value = Math.floor(value / 128);
    }
    this.#bytes[this.#at++] = value;
  }

  /** Its length in bytes, doubled, and one more where some of them are not ASCII. */
  text(value: string): void {
    const { length } = value;
    this.#room(length * 3 + 8);
    const before = this.#at;
    this.uint(length * 2);
    const bytes = this.#bytes;
    let at = this.#at;
    for (let i = 0; i < length; i++) {
      const code = value.charCodeAt(i);
      if (code > 0x7f) {
        this.#at = before;
        return this.#wideText(value);
      }
      bytes[at++] = code;
    }
    this.#at = at;
  }

  /** As `text` of the ASCII that these bytes are. */
  ascii(from: Uint8Array, start: number, end: number): void {
    this.#room(end - start + 8);
    this.uint((end - start) * 2);
    const bytes = this.#bytes;
    let at = this.#at;
    for (let i = start; i < end; i++) bytes[at++] = from[i]!;
    this.#at = at;
  }

  #wideText(value: string): void {
    const bytes = utf8.encode(value);
    this.uint(bytes.length * 2 + 1);
    this.#put(bytes);
  }

  /** With its length. */
  bytes(value: Uint8Array): void {
    this.uint(value.length);
    this.#put(value);
  }

  #put(bytes: Uint8Array): void {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** What was written since the last time. A view: valid until the next is written. */
  take(): Uint8Array {
    const taken = this.#bytes.subarray(0, this.#at);
    this.#at = 0;
    return taken;
  }

  /** The same, a copy. */
  own(): Uint8Array {
    return this.#at === 0 ? NO_BYTES : new Uint8Array(this.take());
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#bytes.length) return;
    const larger = Buffer.alloc(Math.max(FIRST_BYTES, this.#bytes.length * 2, this.#at + bytes));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
  }
}

/** Reads what a PackWriter wrote, in its order. */
export class PackReader {
  #bytes: Buffer = Buffer.alloc(0);
  at = 0;

  /** @param bytes borrowed until everything was read. */
  from(bytes: Buffer, at: number): this {
    this.#bytes = bytes;
    this.at = at;
    return this;
  }

  uint(): number {
    const first = this.#bytes[this.at++]!;
    if (first < 0x80) return first;
    let value = first & 0x7f;
    for (let scale = 128; ; scale *= 128) {
      const byte = this.#bytes[this.at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  }

  text(): string {
    const head = this.uint();
    if (head === 0) return "";
    const start = this.at;
    this.at += head >> 1;
    return this.#bytes.toString((head & 1) === 0 ? "latin1" : "utf8", start, this.at);
  }

  /** A copy. */
  bytes(): Uint8Array {
    const length = this.uint();
    const start = this.at;
    this.at += length;
    return new Uint8Array(this.#bytes.subarray(start, this.at));
  }
}
