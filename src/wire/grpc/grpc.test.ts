import { describe, expect, test } from "bun:test";
import { GrpcMessageCounter } from "./message-counter.ts";
import { decodeGrpcMessage, GRPC_MESSAGE_CHARS_MAX, parseGrpcStatusField } from "./status.ts";

describe("status", () => {
  test.each([[undefined, null], ["0", 0], ["16", 16], ["17", 2], ["-1", 2], ["01", 2], ["0, 0", 2], ["", 2], ["OK", 2]] as const)("%j is %j", (text, status) => expect(parseGrpcStatusField(text)).toBe(status));
});

describe("message", () => {
  test.each([
    ["no such cart", "no such cart"], ["50%25 off", "50% off"], ["caf%C3%A9", "caf\u00e9"], ["line%0Abreak", "line\nbreak"], ["%", "%"], ["%4", "%4"], ["%zz", "%zz"], ["%FF", "\ufffd"], ["", ""],
  ])("%j reads %j", (text, message) => expect(decodeGrpcMessage(text)).toBe(message));
  test("is cut", () => expect(decodeGrpcMessage("%41".repeat(100_000)).length).toBeLessThanOrEqual(GRPC_MESSAGE_CHARS_MAX));
});

describe("messages of a body", () => {
  const message = (length: number, flags = 0) => [flags, 0, 0, length >> 8, length & 255, ...new Array<number>(length).fill(0xff)];
  const body = Uint8Array.from([...message(3), ...message(0), ...message(300, 1), ...message(5, 0x80), ...message(1)]);

  test.each([1, 2, 5, 7, 1000])("are counted whatever the chunks, here of %i", (size) => {
    const counter = new GrpcMessageCounter();
    for (let at = 0; at < body.length; at += size) counter.push(body.subarray(at, at + size));
    expect(counter.count).toBe(4);
  });

  test("a length of four gigabytes is only a number", () => {
    const counter = new GrpcMessageCounter();
    counter.push(Uint8Array.from([0, 0xff, 0xff, 0xff, 0xff]));
    for (let i = 0; i < 100; i++) counter.push(body);
    expect(counter.count).toBe(1);
  });
});
