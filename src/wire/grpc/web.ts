// The gRPC-Web forms of a gRPC body (PROTOCOL-WEB of the gRPC project): trailers as a last message inside the body, and, for clients that
// cannot read bytes, everything in base64. Without IO.

import { err, ok, type Result } from "../../core/result.ts";
import type { HeaderList } from "../http/header-list.ts";
import { GRPC_PREFIX_BYTES } from "./message.ts";

const TRAILERS_FLAG = 0x80;
const CHARS_IN_GROUP = 4;
const PAD = 0x3d;
/** By character code: its six bits; 255 for what is no base64. */
const SIX_BITS = new Uint8Array(256).fill(255);
for (const [i, char] of [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"].entries()) SIX_BITS[char.charCodeAt(0)] = i;

/** Trailers as the last message of a body: a flag byte, a length, and lines as HTTP/1 has them. */
export function frameWebTrailers(trailers: HeaderList): Uint8Array {
  let text = "";
  for (let i = 0; i < trailers.length; i += 2) text += `${trailers[i]!}: ${trailers[i + 1]!}\r\n`;
  const framed = new Uint8Array(GRPC_PREFIX_BYTES + text.length);
  framed[0] = TRAILERS_FLAG;
  new DataView(framed.buffer).setUint32(1, text.length);
  // One char per byte, as header values are kept.
  for (let i = 0; i < text.length; i++) framed[GRPC_PREFIX_BYTES + i] = text.charCodeAt(i);
  return framed;
}

/** Decodes base64 that comes in pieces; each message, or any part of the body, may have been padded by itself. */
export class WebTextDecoder {
  #bits = 0;
  #chars = 0;
  #pads = 0;

  /** @returns the bytes of all groups that are complete; an error when something is no base64 (the peer's fault). */
  push(chunk: Uint8Array): Result<Uint8Array, string> {
    const out = new Uint8Array(Math.ceil(((this.#chars + chunk.length) * 3) / CHARS_IN_GROUP));
    let length = 0;
    for (const char of chunk) {
      if (char === PAD) {
        if (this.#chars < 2) return err("padding where base64 has none");
        this.#pads++;
        this.#bits <<= 6;
      } else {
        const six = SIX_BITS[char]!;
        if (six === 255 || this.#pads > 0) return err(`the byte ${char} where base64 was wanted`);
        this.#bits = (this.#bits << 6) | six;
      }
      if (++this.#chars < CHARS_IN_GROUP) continue;
      out[length++] = (this.#bits >> 16) & 255;
      if (this.#pads < 2) out[length++] = (this.#bits >> 8) & 255;
      if (this.#pads < 1) out[length++] = this.#bits & 255;
      this.#bits = this.#chars = this.#pads = 0;
    }
    return ok(out.subarray(0, length));
  }

  /** Nothing of a group is left over: the body may end here. */
  get isComplete(): boolean {
    return this.#chars === 0;
  }
}
