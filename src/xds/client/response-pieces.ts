// Reads a delta response while it comes: each resource is handed on as soon as it is whole, and the rest of the response, which is small, is
// read at its end. A response of a large mesh is never in memory as such.

import { err, ok, type Result } from "../../core/result.ts";
import { decode } from "../../wire/protobuf/decode.ts";
import { DeltaDiscoveryResponseSchema } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";

/** One resource: the policies with the most rules have some hundred KiB. What is larger is not kept for the next start either. */
export const RESOURCE_BYTES_MAX = 64 * 1024 * 1024;
/** All there is beside resources: names of what is gone, a hundred bytes each. */
export const REST_BYTES_MAX = 64 * 1024 * 1024;
/** A tag and a length, at their longest. */
const HEAD_BYTES_MAX = 20;
const FIRST_BYTES = 4096;

const RESOURCES = DeltaDiscoveryResponseSchema.field.resources.number;
const [VARINT, FIXED64, DELIMITED, FIXED32] = [0, 1, 2, 5] as const;

/** A response but for its resources. */
export interface ResponseRest {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly removed: readonly string[];
}

interface Head {
  readonly number: number;
  /** Of tag and, where there is one, length. */
  readonly headBytes: number;
  /** Of what follows. */
  readonly bytes: number;
}

export class ResponsePieces {
  readonly #onResource: (resource: Uint8Array) => void;
  /** The beginning of a field of which the end has not come. */
  #held = Buffer.alloc(0);
  #heldBytes = 0;
  #rest = Buffer.alloc(0);
  #restBytes = 0;
  #fieldBytes = 0;

  /** @param onResource a Resource message; borrowed. */
  constructor(onResource: (resource: Uint8Array) => void) {
    this.#onResource = onResource;
  }

  /** @param piece of the message; borrowed. An error says what is wrong with it (the server's fault). */
  push(piece: Uint8Array): Result<void, string> {
    let at = 0;
    while (at < piece.length) {
      if (this.#heldBytes > 0) {
        // What is held is a head that is not whole, of which every byte counts, or a field, whose length is known.
        const step = this.#fieldBytes === 0 ? 1 : Math.min(this.#fieldBytes - this.#heldBytes, piece.length - at);
        this.#hold(piece.subarray(at, at + step));
        at += step;
        if (this.#fieldBytes > this.#heldBytes) continue;
        const taken = this.#take(this.#held.subarray(0, this.#heldBytes));
        if (!taken.ok) return taken;
        if (taken.value > 0) this.#release();
        continue;
      }
      const rest = at === 0 ? piece : piece.subarray(at);
      const taken = this.#take(rest);
      if (!taken.ok) return taken;
      if (taken.value === 0) {
        this.#hold(rest);
        return ok(undefined);
      }
      at += taken.value;
    }
    return ok(undefined);
  }

  /** The message is whole. */
  end(): Result<ResponseRest, string> {
    if (this.#heldBytes > 0) return err("a field is cut off");
    const rest = decode(DeltaDiscoveryResponseSchema, this.#rest.subarray(0, this.#restBytes));
    this.#rest = Buffer.alloc(0);
    this.#restBytes = 0;
    return rest.ok ? ok({ typeUrl: rest.value.typeUrl, nonce: rest.value.nonce, removed: rest.value.removedResources }) : rest;
  }

  /** @returns how long the field at the beginning of `bytes` is; 0 where it is not whole, and then, in `#fieldBytes`, how long it will be, if that is known. */
  #take(bytes: Uint8Array): Result<number, string> {
    const head = headOf(bytes);
    if (!head.ok) return head;
    if (head.value === null) {
      this.#fieldBytes = 0;
      return ok(0);
    }
    const { number, headBytes, bytes: length } = head.value;
    const whole = headBytes + length;
    if (number === RESOURCES ? length > RESOURCE_BYTES_MAX : this.#restBytes + whole > REST_BYTES_MAX) {
      return err(number === RESOURCES ? `a resource of ${length} bytes, wanted at most ${RESOURCE_BYTES_MAX}` : `more than ${REST_BYTES_MAX} bytes beside resources`);
    }
    if (bytes.length < whole) {
      this.#fieldBytes = whole;
      return ok(0);
    }
    if (number === RESOURCES) this.#onResource(bytes.subarray(headBytes, whole));
    else this.#keep(bytes.subarray(0, whole));
    return ok(whole);
  }

  #hold(bytes: Uint8Array): void {
    this.#held = withRoom(this.#held, this.#heldBytes, bytes.length);
    this.#held.set(bytes, this.#heldBytes);
    this.#heldBytes += bytes.length;
  }

  #release(): void {
    this.#heldBytes = 0;
    this.#fieldBytes = 0;
    if (this.#held.length > FIRST_BYTES) this.#held = Buffer.alloc(0);
  }

  #keep(bytes: Uint8Array): void {
    this.#rest = withRoom(this.#rest, this.#restBytes, bytes.length);
    this.#rest.set(bytes, this.#restBytes);
    this.#restBytes += bytes.length;
  }
}

/** Grows with what has come, not with what was announced. */
function withRoom(bytes: Buffer<ArrayBuffer>, used: number, more: number): Buffer<ArrayBuffer> {
  if (used + more <= bytes.length) return bytes;
  const larger = Buffer.alloc(Math.max(FIRST_BYTES, bytes.length * 2, used + more));
  larger.set(bytes.subarray(0, used));
  return larger;
}

/** Null where the head itself is not whole. */
function headOf(bytes: Uint8Array): Result<Head | null, string> {
  const tag = varint(bytes, 0);
  if (tag === null) return bytes.length < HEAD_BYTES_MAX ? ok(null) : err("a tag of more than ten bytes");
  const [number, wireType] = [Math.floor(tag.value / 8), tag.value % 8];
  switch (wireType) {
    case FIXED64:
      return ok({ number, headBytes: tag.end, bytes: 8 });
    case FIXED32:
      return ok({ number, headBytes: tag.end, bytes: 4 });
    case VARINT:
    case DELIMITED: {
      const value = varint(bytes, tag.end);
      if (value === null) return bytes.length < HEAD_BYTES_MAX ? ok(null) : err("a number of more than ten bytes");
      return ok({ number, headBytes: value.end, bytes: wireType === VARINT ? 0 : value.value });
    }
    default:
      return err(`field ${number} is of wire type ${wireType}: groups are not read`);
  }
}

/** Null where it is not whole, or longer than any is. As exact as doubles are: enough to be compared with limits. */
function varint(bytes: Uint8Array, from: number): { readonly value: number; readonly end: number } | null {
  let value = 0;
  let scale = 1;
  for (let at = from; at < bytes.length && at < from + HEAD_BYTES_MAX / 2; at++) {
    const byte = bytes[at]!;
    value += (byte & 0x7f) * scale;
    if (byte < 0x80) return { value, end: at + 1 };
    scale *= 128;
  }
  return null;
}
