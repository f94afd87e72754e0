import { describe, expect, test } from "bun:test";
import { DEFAULT_LIMITS } from "../wire/http2/limits.ts";
import { ByteBudget, type ByteHolder, STALLED_MS_MAX } from "./byte-budget.ts";
import { HeldBytes } from "./held-bytes.ts";

const LIMIT = 1024 * 1024;

function setUp() {
  const events: string[] = [];
  const budget = new ByteBudget(LIMIT, { pressed: () => events.push("pressed"), relieved: () => events.push("relieved"), shedding: (why) => events.push(`shed ${why}`) });
  const holder = (name: string, progressMs = 0): ByteHolder & { readonly held: HeldBytes } => {
    const made = {
      get heldBytes(): number {
        return held.capacityBytes;
      },
      progressMs,
      shed() {
        events.push(name);
        held.clear();
      },
      get held() {
        return held;
      },
    };
    const held = new HeldBytes(budget, made);
    return made;
  };
  return { events, budget, holder };
}

const read = (held: HeldBytes, step: number): Uint8Array => {
  const parts: Uint8Array[] = [];
  while (!held.empty) {
    const first = held.first().slice(0, step);
    parts.push(first);
    held.take(first.length);
  }
  return Buffer.concat(parts);
};

describe("held bytes", () => {
  test("come out as they went in, whatever the sizes, and nothing stays counted", () => {
    const { budget, holder } = setUp();
    const { held } = holder("a");
    const sizes = [1, 1, 4_000, 95, 96, 5_000, 70_000, 1, 200_000, 3];
    const sent = Buffer.concat(sizes.map((size, i) => Buffer.alloc(size, i + 1)));
    for (const step of [1_000, 65_536, 7]) {
      let at = 0;
      for (const size of sizes) held.push(sent.subarray(at, (at += size)));
      expect(Buffer.compare(read(held, step), sent)).toBe(0);
      expect([held.empty, held.capacityBytes, budget.heldBytes, budget.holderCount]).toEqual([true, 0, 0, 0]);
    }
  });

  test("reading and writing in turns keeps the order", () => {
    const { holder } = setUp();
    const { held } = holder("a");
    let written = 0;
    let seen = 0;
    for (let round = 0; round < 500; round++) {
      const chunk = Uint8Array.from({ length: 1 + ((round * 37) % 900) }, () => written++ & 0xff);
      held.push(chunk);
      for (let left = (round * 53) % 1_000; left > 0 && !held.empty; ) {
        const first = held.first();
        const count = Math.min(left, first.length);
        for (let i = 0; i < count; i++) expect(first[i]).toBe(seen++ & 0xff);
        held.take(count);
        left -= count;
      }
    }
  });

  test("a byte at a time holds little more than the bytes", () => {
    const { held } = setUp().holder("a");
    for (let i = 0; i < 300_000; i++) held.push(Uint8Array.of(i & 0xff));
    expect(held.capacityBytes).toBeLessThan(300_000 + 65_536 + 1);
  });
});

describe("byte budget", () => {
  test("above half no tunnel gives window back ahead; below two fifths all is as before", () => {
    const { events, budget, holder } = setUp();
    const { held } = holder("a");
    expect(budget.http2Limits.unconsumedBytesMax).toBe(DEFAULT_LIMITS.unconsumedBytesMax);
    held.push(new Uint8Array(LIMIT / 2));
    expect([budget.pressed, events]).toEqual([false, []]);
    held.push(new Uint8Array(LIMIT / 8));
    expect([budget.pressed, events, budget.http2Limits.unconsumedBytesMax]).toEqual([true, ["pressed"], 0]);
    held.take(LIMIT / 2);
    expect([budget.pressed, events]).toEqual([false, ["pressed", "relieved"]]);
    expect(budget.http2Limits.unconsumedBytesMax).toBe(DEFAULT_LIMITS.unconsumedBytesMax);
    expect(DEFAULT_LIMITS.unconsumedBytesMax).toBeGreaterThan(0);
  });

  test("at the limit the largest go, at the end of the turn, until there is room", () => {
    const { events, budget, holder } = setUp();
    const [small, large, middle] = [holder("small"), holder("large"), holder("middle")];
    small.held.push(new Uint8Array(100_000));
    large.held.push(new Uint8Array(600_000));
    middle.held.push(new Uint8Array(400_000));
    expect(events).toEqual(["pressed"]);
    expect(budget.full).toBe(true);
    budget.endOfTurn();
    expect(events).toEqual(["pressed", "shed limit", "large"]);
    expect(budget.full).toBe(false);
    budget.endOfTurn();
    expect(events.length).toBe(3);
  });

  test("far beyond the limit whoever adds goes at once, in the same turn", () => {
    const { events, budget, holder } = setUp();
    const [large, late] = [holder("large"), holder("late")];
    large.held.push(new Uint8Array(LIMIT));
    late.held.push(new Uint8Array(LIMIT / 8));
    budget.check(late);
    expect(events).toEqual(["pressed"]);
    late.held.push(new Uint8Array(LIMIT / 4));
    budget.check(late);
    expect(events).toEqual(["pressed", "shed limit", "late"]);
    expect(budget.heldBytes).toBe(LIMIT);
  });

  test("under pressure those who have read nothing for long go, the longest first; without it they may wait for ever", () => {
    const { events, budget, holder } = setUp();
    const [old, older, fresh] = [holder("old", 2_000), holder("older", 1_000), holder("fresh", 9_000)];
    for (const { held } of [old, older]) held.push(new Uint8Array(200_000));
    budget.tick(1_000_000);
    expect(events).toEqual([]);
    fresh.held.push(new Uint8Array(300_000));
    budget.tick(STALLED_MS_MAX + 500);
    expect(events).toEqual(["pressed"]);
    budget.tick(STALLED_MS_MAX + 2_000);
    expect(events).toEqual(["pressed", "shed stalled", "older", "shed stalled", "old", "relieved"]);
    expect(budget.heldBytes).toBe(300_000);
  });
});
