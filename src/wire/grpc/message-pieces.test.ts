import { describe, expect, test } from "bun:test";
import { err, ok } from "../../core/result.ts";
import { GrpcMessagePieces, type GrpcMessageSink } from "./message-pieces.ts";

const message = (length: number, flags = 0, fill = 7): number[] => [flags, 0, 0, length >> 8, length & 255, ...new Array<number>(length).fill(fill)];
const BODY = Uint8Array.from([...message(3), ...message(0), ...message(300), ...message(1)]);

function collecting(): { readonly sink: GrpcMessageSink; readonly told: string[] } {
  const told: string[] = [];
  let bytes = 0;
  return {
    told,
    sink: {
      begin: (length) => {
        bytes = 0;
        told.push(`begin ${length}`);
      },
      piece: (piece) => {
        expect(piece.length).toBeGreaterThan(0);
        bytes += piece.filter((byte) => byte === 7).length;
        return ok(undefined);
      },
      end: () => {
        told.push(`end ${bytes}`);
        return ok(undefined);
      },
    },
  };
}

describe("messages of a body, in pieces", () => {
  test.each([1, 2, 5, 7, 64, 1000])("come whole whatever the chunks, here of %i", (size) => {
    const { sink, told } = collecting();
    const pieces = new GrpcMessagePieces(sink, 300);
    for (let at = 0; at < BODY.length; at += size) expect(pieces.push(BODY.subarray(at, at + size))).toEqual(ok(undefined));
    expect(told).toEqual(["begin 3", "end 3", "begin 0", "end 0", "begin 300", "end 300", "begin 1", "end 1"]);
    expect(pieces.within).toBe(false);
  });

  test("are not whole where the body ends, also within the prefix", () => {
    for (const cut of [1, 4, 5, 7]) {
      const pieces = new GrpcMessagePieces(collecting().sink, 300);
      pieces.push(BODY.subarray(0, cut));
      expect(pieces.within).toBe(true);
    }
  });

  test.each([
    ["a message that is too long", [0, 0, 0, 1, 45], "a message of 301 bytes, wanted at most 300"], ["one of four gigabytes", [0, 255, 255, 255, 255], "a message of 4294967295 bytes, wanted at most 300"],
    ["a compressed one", [1], "a compressed message, which was not asked for"], ["trailers of gRPC-Web", [0x80], "a message with the flags 128"],
  ] as const)("%s is refused when its prefix says so", (_, bytes, error) => {
    expect(new GrpcMessagePieces(collecting().sink, 300).push(Uint8Array.from(bytes))).toEqual(err(error));
  });

  test("what the reader of a message finds ends the body", () => {
    const pieces = new GrpcMessagePieces({ begin: () => {}, piece: () => err("no message of mine"), end: () => ok(undefined) }, 300);
    expect(pieces.push(BODY)).toEqual(err("no message of mine"));
  });
});
