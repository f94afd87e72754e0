// A stretch of bytes in the array that they came in, told without a view of its own: making a view of a small chunk that the runtime has just
// handed out moves the chunk to other memory first, and costs more than reading a frame does.

const NO_BYTES = new Uint8Array(0);

/** Made once and set anew for each stretch: valid for the call that it is given to, and no longer. */
export class ByteRange {
  bytes: Uint8Array = NO_BYTES;
  start = 0;
  end = 0;

  get length(): number {
    return this.end - this.start;
  }

  set(bytes: Uint8Array, start: number, end: number): this {
    this.bytes = bytes;
    this.start = start;
    this.end = end;
    return this;
  }

  /** Lets go of the bytes. */
  clear(): void {
    this.set(NO_BYTES, 0, 0);
  }

  /** The same bytes as an array of their own kind; no copy. @param from leaves out as many at the front. */
  view(from = 0): Uint8Array {
    const start = this.start + from;
    return start === 0 && this.end === this.bytes.length ? this.bytes : this.bytes.subarray(start, this.end);
  }
}
