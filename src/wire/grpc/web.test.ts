import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { frameWebTrailers, WebTextDecoder } from "./web.ts";

const ascii = (text: string): Uint8Array => Buffer.from(text, "latin1");

describe("trailers in the body", () => {
  test("are a message with the highest flag", () => {
    expect(frameWebTrailers(["grpc-status", "0", "grpc-message", "caf\u00e9"])).toEqual(Uint8Array.from([0x80, 0, 0, 0, 36, ...ascii("grpc-status: 0\r\ngrpc-message: caf\u00e9\r\n")]));
    expect(frameWebTrailers([])).toEqual(Uint8Array.from([0x80, 0, 0, 0, 0]));
  });
});

describe("base64 in pieces", () => {
  test("decodes whatever the pieces, with padding between them", () => {
    fc.assert(fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 40 }), { maxLength: 6 }), fc.integer({ min: 1, max: 9 }), (messages, size) => {
      const text = ascii(messages.map((message) => Buffer.from(message).toString("base64")).join(""));
      const decoder = new WebTextDecoder();
      const out: number[] = [];
      for (let at = 0; at < text.length; at += size) {
        const decoded = decoder.push(text.subarray(at, at + size));
        if (!decoded.ok) throw new Error(decoded.error);
        out.push(...decoded.value);
      }
      expect(out).toEqual(messages.flatMap((message) => [...message]));
      expect(decoder.isComplete).toBe(true);
    }));
  });

  test.each(["AAA!", "A===", "AA=A", "=AAA", "AAAA\n"])("%j is none", (text) => expect(new WebTextDecoder().push(ascii(text)).ok).toBe(false));
  test("knows when it is cut short", () => {
    const decoder = new WebTextDecoder();
    decoder.push(ascii("AAAAAA"));
    expect(decoder.isComplete).toBe(false);
  });
});
