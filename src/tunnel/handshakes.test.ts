import { describe, expect, test } from "bun:test";
import { type IpAddress, parseIp } from "../core/ip.ts";
import { HANDSHAKE_FAILURES, HANDSHAKE_SOURCES_MAX, type Handshake, HandshakeGate, HANDSHAKES_MAX, HANDSHAKES_PER_SOURCE_MAX } from "./handshakes.ts";

const ip = (text: string): IpAddress => parseIp(text)!;

class Fake implements Handshake {
  evicted = false;
  evict(): void {
    this.evicted = true;
  }
}

function setUp() {
  const clock = { nowMs: 1_000 };
  const gate = new HandshakeGate(() => clock.nowMs);
  const begin = (source: string) => {
    const handshake = new Fake();
    return { handshake, refusal: gate.begin(handshake, ip(source)) };
  };
  const many = (source: string, count: number) => Array.from({ length: count }, () => begin(source));
  return { clock, gate, begin, many };
}

describe("handshake gate", () => {
  test("one source has its share and no more; the next source is not affected", () => {
    const { gate, begin, many } = setUp();
    expect(many("198.18.0.1", HANDSHAKES_PER_SOURCE_MAX).every(({ refusal }) => refusal === null)).toBe(true);
    expect(begin("198.18.0.1").refusal).toBe("source");
    expect(begin("198.18.0.2").refusal).toBeNull();
    expect(gate.underWay).toBe(HANDSHAKES_PER_SOURCE_MAX + 1);
  });

  test("an IPv6 source is its /64", () => {
    const { begin, many } = setUp();
    for (let i = 0; i < HANDSHAKES_PER_SOURCE_MAX; i++) many(`2001:db8::${(i + 1).toString(16)}`, 1);
    expect(begin("2001:db8::ffff").refusal).toBe("source");
    expect(begin("2001:db8:0:1::1").refusal).toBeNull();
  });

  test("when all places are taken a newcomer gets the oldest of the heaviest source's, and that source can get none by coming again", () => {
    const { begin, many } = setUp();
    const heavy = ["198.18.0.1", "198.18.0.2", "198.18.0.3", "198.18.0.4"].map((source) => many(source, HANDSHAKES_MAX / 4));
    const newcomer = begin("198.18.0.9");
    expect(newcomer.refusal).toBeNull();
    expect(heavy.flat().filter(({ handshake }) => handshake.evicted).length).toBe(1);
    expect(heavy[0]![0]!.handshake.evicted).toBe(true);
    // The evicted one has one fewer than its fellows: it may come back only up to being equal with them.
    expect(begin("198.18.0.2").refusal).toBe("source");
    expect(begin("198.18.0.1").refusal).toBe("total");
  });

  test("a source whose handshakes fail is refused for a while, and forgiven with time", () => {
    const { clock, gate, begin } = setUp();
    for (let i = 0; i < HANDSHAKE_FAILURES.burst; i++) {
      const { handshake, refusal } = begin("198.18.0.1");
      expect(refusal).toBeNull();
      gate.ended(handshake, true);
    }
    expect(begin("198.18.0.1").refusal).toBe("failures");
    expect(begin("198.18.0.2").refusal).toBeNull();
    clock.nowMs += 1_000;
    expect(begin("198.18.0.1").refusal).toBeNull();
  });

  test("nothing is kept of a source that has behaved, and little of those that have not", () => {
    const { clock, gate, begin } = setUp();
    gate.ended(begin("198.18.0.1").handshake, false);
    expect(gate.sourceCount).toBe(0);
    gate.ended(begin("198.18.0.1").handshake, true);
    expect(gate.sourceCount).toBe(1);
    clock.nowMs += 1_000;
    gate.tick();
    expect(gate.sourceCount).toBe(0);
    for (let i = 0; i < HANDSHAKE_SOURCES_MAX + 100; i++) gate.ended(begin(`198.18.${i >> 8}.${i & 255}`).handshake, true);
    expect(gate.sourceCount).toBe(HANDSHAKE_SOURCES_MAX);
  });

  test("an end told twice counts once", () => {
    const { gate, begin } = setUp();
    const { handshake } = begin("198.18.0.1");
    gate.ended(handshake, true);
    gate.ended(handshake, true);
    expect(gate.underWay).toBe(0);
  });
});
