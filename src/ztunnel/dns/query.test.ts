import { describe, expect, test } from "bun:test";
import { parseSocketAddress } from "../../core/ip.ts";
import { seededRandom } from "../../core/ports.ts";
import { decodeMessage } from "../../wire/dns/decode.ts";
import { isOurselves, judgeQuery } from "./query.ts";
import { frame, FrameReader } from "./tcp-frames.ts";

describe("question", () => {
  test("no input makes the judge throw, and every reply it makes is a response with the id of the question", () => {
    const random = seededRandom(11);
    for (let i = 0; i < 20_000; i++) {
      const bytes = Uint8Array.from({ length: Math.floor(random.next() * 40) }, (_, at) => (at === 5 && random.next() < 0.7 ? 1 : at > 3 && at < 12 ? 0 : Math.floor(random.next() * 256)));
      const outcome = judgeQuery(bytes, "udp", null);
      if (outcome.kind !== "refuse") continue;
      const reply = decodeMessage(outcome.reply);
      if (!reply.ok) throw new Error(reply.error);
      expect(reply.value).toMatchObject({ response: true, id: (bytes[0]! << 8) | bytes[1]! });
    }
  });

  test("an upstream on our own port of a loopback address is ourselves", () => {
    const ours = ["127.0.0.1:15053", "127.9.9.9:15053", "[::1]:15053", "0.0.0.0:15053", "[::]:15053"];
    const others = ["127.0.0.53:53", "198.18.0.1:15053", "[::1]:53"];
    for (const text of ours) expect(isOurselves(parseSocketAddress(text)!, 15053)).toBe(true);
    for (const text of others) expect(isOurselves(parseSocketAddress(text)!, 15053)).toBe(false);
  });
});

describe("messages on TCP", () => {
  test("are found however the stream is cut", () => {
    const messages = [new Uint8Array(0), Uint8Array.of(1), new Uint8Array(700).fill(7), Uint8Array.of(2, 3)];
    const stream = new Uint8Array(messages.flatMap((message) => [...frame(message)]));
    for (const step of [1, 2, 3, 100, 703, stream.length]) {
      const reader = new FrameReader();
      const found: Uint8Array[] = [];
      for (let at = 0; at < stream.length; at += step) {
        reader.push(stream.subarray(at, at + step));
        for (let message = reader.next(); message !== null; message = reader.next()) found.push(new Uint8Array(message));
      }
      expect(found).toEqual(messages);
    }
  });

  test("the longest one", () => {
    const reader = new FrameReader();
    reader.push(frame(new Uint8Array(65_535).fill(9)));
    expect(reader.next()?.length).toBe(65_535);
    expect(reader.next()).toBeNull();
  });
});
