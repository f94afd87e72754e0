// Bytes from one socket to another inside the kernel: their pages change hands, and none is copied. For plain sockets only, and for bytes
// that nobody has to look at. See splice(2).

import { close, F_SETPIPE_SZ, fcntl, O_CLOEXEC, O_NONBLOCK, pipe, readFd, SPLICE_F_MOVE, SPLICE_F_NONBLOCK, splice } from "./libc.ts";

/** What one call moves at most. The kernel gives pipes of this size to everybody (fs.pipe-max-size). */
const PIPE_BYTES = 1024 * 1024;

export interface Spliced {
  /** Bytes that the other socket has taken. */
  readonly moved: number;
  /** Taken from the first socket and not by the second, which is full or gone; null when there are none. Ours to keep. */
  readonly left: Uint8Array | null;
}

const NOTHING: Spliced = { moved: 0, left: null };

/** One pipe, empty between two calls: one for all the connections of a thread. */
export class Splicer {
  readonly #into: number;
  readonly #outOf: number;

  private constructor(outOf: number, into: number) {
    this.#outOf = outOf;
    this.#into = into;
  }

  /** Null when no pipe can be had: bytes are copied then, as ever. */
  static open(): Splicer | null {
    const ends = pipe(O_CLOEXEC | O_NONBLOCK);
    if (typeof ends === "number") return null;
    // A smaller pipe only means more calls.
    fcntl(ends.into, F_SETPIPE_SZ, PIPE_BYTES);
    return new Splicer(ends.outOf, ends.into);
  }

  /**
   * Moves what is there, without waiting, until `from` has no more, `to` takes no more, or `bytesMax` is passed. An end or a fault of
   * either socket is not told: whoever reads and writes them next will meet it.
   */
  move(from: number, to: number, bytesMax: number): Spliced {
    let moved = 0;
    while (moved < bytesMax) {
      const got = splice(from, this.#into, PIPE_BYTES, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
      if (got <= 0) break;
      for (let left = got; left > 0; ) {
        const put = splice(this.#outOf, to, left, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (put <= 0) return { moved, left: this.#takeOut(left) };
        left -= put;
        moved += put;
      }
    }
    return moved === 0 ? NOTHING : { moved, left: null };
  }

  close(): void {
    close(this.#into);
    close(this.#outOf);
  }

  /** Empties the pipe. */
  #takeOut(bytes: number): Uint8Array {
    const taken = new Uint8Array(bytes);
    for (let at = 0; at < bytes; ) {
      const got = readFd(this.#outOf, taken.subarray(at));
      if (got <= 0) throw new Error(`splice: a pipe that held ${bytes - at} bytes more gave none (${got})`);
      at += got;
    }
    return taken;
  }
}
