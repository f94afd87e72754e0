// Takes the messages of a gRPC body apart while its chunks come: each is told of when it begins, in pieces, and when it is whole. Keeps none
// of it (gRPC over HTTP/2, "Length-Prefixed-Message").

import { err, ok, type Result } from "../../core/result.ts";
import { GRPC_PREFIX_BYTES } from "./message.ts";

const COMPRESSED = 1;

export interface GrpcMessageSink {
  /** @param length of the message, in bytes. */
  begin(length: number): void;
  /** @param piece borrowed; never empty. An error says what is wrong with the message: nothing more is asked of the body. */
  piece(piece: Uint8Array): Result<void, string>;
  end(): Result<void, string>;
}

export class GrpcMessagePieces {
  readonly #sink: GrpcMessageSink;
  readonly #messageBytesMax: number;
  #prefixBytes = 0;
  #length = 0;
  /** Of the present message, to come still. */
  #restBytes = 0;

  constructor(sink: GrpcMessageSink, messageBytesMax: number) {
    this.#sink = sink;
    this.#messageBytesMax = messageBytesMax;
  }

  /** A message has begun and is not whole. */
  get within(): boolean {
    return this.#prefixBytes > 0;
  }

  /** @param chunk borrowed. An error is the peer's fault: the body cannot be read any further. */
  push(chunk: Uint8Array): Result<void, string> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#prefixBytes < GRPC_PREFIX_BYTES) {
        const byte = chunk[at++]!;
        if (this.#prefixBytes++ === 0) {
          if (byte !== 0) return err(byte === COMPRESSED ? "a compressed message, which was not asked for" : `a message with the flags ${byte}`);
          this.#length = 0;
          continue;
        }
        this.#length = this.#length * 256 + byte;
        if (this.#prefixBytes < GRPC_PREFIX_BYTES) continue;
        if (this.#length > this.#messageBytesMax) return err(`a message of ${this.#length} bytes, wanted at most ${this.#messageBytesMax}`);
        this.#restBytes = this.#length;
        this.#sink.begin(this.#length);
      } else {
        const step = Math.min(this.#restBytes, chunk.length - at);
        const taken = this.#sink.piece(step === chunk.length ? chunk : chunk.subarray(at, at + step));
        if (!taken.ok) return taken;
        this.#restBytes -= step;
        at += step;
      }
      if (this.#restBytes > 0) continue;
      this.#prefixBytes = 0;
      const ended = this.#sink.end();
      if (!ended.ok) return ended;
    }
    return ok(undefined);
  }
}
