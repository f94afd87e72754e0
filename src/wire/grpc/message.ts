// One message of a gRPC body: a flag byte, a length of four bytes, the message (gRPC over HTTP/2, "Length-Prefixed-Message"). For calls of
// one question and one answer; streams are passed through and never read.

import { err, ok, type Result } from "../../core/result.ts";

export const GRPC_PREFIX_BYTES = 5;
const COMPRESSED = 1;

/** The message with its prefix, not compressed. */
export function frameGrpcMessage(message: Uint8Array): Uint8Array {
  const framed = new Uint8Array(GRPC_PREFIX_BYTES + message.length);
  new DataView(framed.buffer).setUint32(1, message.length);
  framed.set(message, GRPC_PREFIX_BYTES);
  return framed;
}

/** @param body the whole of it. @returns a view of the one message in it; an error says what was found (the peer's fault). */
export function readGrpcMessage(body: Uint8Array): Result<Uint8Array, string> {
  if (body.length < GRPC_PREFIX_BYTES) return err(`a body of ${body.length} bytes, wanted one message`);
  const flags = body[0]!;
  if (flags === COMPRESSED) return err("a compressed message, which was not asked for");
  if (flags !== 0) return err(`a message with the flags ${flags}`);
  const length = new DataView(body.buffer, body.byteOffset, body.byteLength).getUint32(1);
  const rest = body.length - GRPC_PREFIX_BYTES;
  if (length !== rest) return err(length > rest ? `${rest} bytes of a message of ${length}` : "more than one message");
  return ok(body.subarray(GRPC_PREFIX_BYTES));
}
