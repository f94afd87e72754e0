// Messages on a TCP stream: two bytes of length before each (RFC 1035, section 4.2.2). Holds at most one unfinished message.

const PREFIX_BYTES = 2;

/** A fresh copy with its length in front. */
export function frame(message: Uint8Array): Uint8Array {
  const framed = new Uint8Array(PREFIX_BYTES + message.length);
  framed[0] = message.length >>> 8;
  framed[1] = message.length & 0xff;
  framed.set(message, PREFIX_BYTES);
  return framed;
}

export class FrameReader {
  #held = new Uint8Array(0);

  /** @param chunk kept until its messages are read. Read them all before the next push: what is held stays below one message and a chunk. */
  push(chunk: Uint8Array): void {
    if (this.#held.length === 0) {
      this.#held = chunk as Uint8Array<ArrayBuffer>;
      return;
    }
    const joined = new Uint8Array(this.#held.length + chunk.length);
    joined.set(this.#held);
    joined.set(chunk, this.#held.length);
    this.#held = joined;
  }

  /** The next whole message, a view valid until the next push; null when there is none yet. */
  next(): Uint8Array | null {
    const held = this.#held;
    if (held.length < PREFIX_BYTES) return null;
    const end = PREFIX_BYTES + ((held[0]! << 8) | held[1]!);
    if (held.length < end) return null;
    this.#held = held.subarray(end);
    return held.subarray(PREFIX_BYTES, end);
  }
}
