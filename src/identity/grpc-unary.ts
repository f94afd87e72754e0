// A gRPC call of one question and one answer.

import { err, ok, type Result } from "../core/result.ts";
import type { GrpcEnd } from "./grpc-call.ts";
import type { PreparedCall } from "./grpc-channel.ts";

export interface UnaryOptions {
  readonly path: string;
  readonly question: Uint8Array;
  readonly signal: AbortSignal;
  readonly timeoutMs: number;
}

/** @returns the answer, or how the call ended without one. */
export async function callUnary({ call }: PreparedCall, { path, question, signal, timeoutMs }: UnaryOptions): Promise<Result<Uint8Array, GrpcEnd>> {
  const pieces: Uint8Array[] = [];
  let answers = 0;
  const asked = call({
    path, signal, timeoutMs,
    sink: {
      begin: () => {},
      piece: (piece) => {
        // It is borrowed, and a Buffer's `slice` would be a view.
        pieces.push(new Uint8Array(piece));
        return ok(undefined);
      },
      end: () => (++answers > 1 ? err("more than one answer") : ok(undefined)),
    },
  });
  asked.send(question);
  asked.end();
  const end = await asked.ended;
  if (end.status !== "Ok") return err(end);
  return answers === 1 ? ok(Buffer.concat(pieces)) : err({ status: "Internal", message: "no answer came" });
}
