// Counts the messages of a gRPC body as its chunks pass, without keeping any: each has a flag byte and a length of four bytes before it
// (gRPC over HTTP/2, "Length-Prefixed-Message"). Frames of trailers, which gRPC-Web puts into the body, are not counted.

const PREFIX_BYTES = 5;
/** The highest bit of the flags marks gRPC-Web's trailers. */
const TRAILERS_FLAG = 0x80;

export class GrpcMessageCounter {
  /** Messages whose prefix has been seen. */
  count = 0;
  /** Of the present message. */
  #skipBytes = 0;
  #prefixBytes = 0;
  #flags = 0;
  #length = 0;

  /** @param chunk borrowed. */
  push(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#skipBytes > 0) {
        const step = Math.min(this.#skipBytes, chunk.length - at);
        this.#skipBytes -= step;
        at += step;
        continue;
      }
      const byte = chunk[at++]!;
      if (this.#prefixBytes === 0) this.#flags = byte;
      else this.#length = this.#length * 256 + byte;
      if (++this.#prefixBytes < PREFIX_BYTES) continue;
      if ((this.#flags & TRAILERS_FLAG) === 0) this.count++;
      this.#skipBytes = this.#length;
      this.#prefixBytes = this.#length = 0;
    }
  }
}
