import { describe, expect, test } from "bun:test";
import { seededRandom } from "../../core/ports.ts";
import { ListFields } from "../http/fields.ts";
import { encodeB3Multi, encodeB3Single, fullTraceId, readB3 } from "./b3.ts";
import { type FillRandom, fractionOf, IdSource, isRequestId } from "./ids.ts";
import { readTracestate, TRACESTATE_CHARS_MAX, TRACESTATE_MEMBERS_MAX } from "./tracestate.ts";

const TRACE = "463ac35c9f6413ad48485a3953bb6124";
const SPAN = "a2fb4a1d1a96d312";
const PARENT = "0020000000000001";

/** The members and limits of W3C Trace Context, sections 3.3.1 to 3.3.1.5. */
describe("tracestate", () => {
  test("members are kept in order, white space around them and empty ones are not", () => {
    expect(readTracestate(["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"])).toBe("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    expect(readTracestate(["rojo=1 , \t congo=2,, "])).toBe("rojo=1,congo=2");
    expect(readTracestate(["rojo=1", "congo=2"])).toBe("rojo=1,congo=2");
    expect(readTracestate(["fw529a3039@dt=FfAAAAA==", "1a-2f@foo=bar1:=2"])).toBeNull();
    expect(readTracestate(["fw529a3039@dt=Ff AAA"])).toBe("fw529a3039@dt=Ff AAA");
  });

  test.each([
    ["no key", "=1"], ["no value", "a="], ["no equals sign", "a"], ["upper case", "Foo=1"], ["a comma's place taken by a semicolon", "a=1;b=2,A=1"], ["the same key twice", "a=1,a=2"],
    ["a key that is too long", `${"a".repeat(257)}=1`], ["a value that is too long", `a=${"b".repeat(257)}`], ["a system id that is too long", `t@${"v".repeat(15)}=1`],
    ["two at signs", "a@b@c=1"], ["a control character", "a=\x01"], ["a byte beyond ASCII", "a=\u00e9"], ["an equals sign in a value", "a=b=c"],
  ])("%s drops the whole", (_, text) => expect(readTracestate([`ok=1,${text}`])).toBeNull());

  test("bounds", () => {
    const members = (count: number) => Array.from({ length: count }, (_, i) => `k${i}=v`).join(",");
    expect(readTracestate([members(TRACESTATE_MEMBERS_MAX)])).not.toBeNull();
    expect(readTracestate([members(TRACESTATE_MEMBERS_MAX + 1)])).toBeNull();
    expect(readTracestate([Array.from({ length: 9 }, (_, i) => `k${i}=${"v".repeat(250)}`).join(",")])).toBeNull();
    expect(TRACESTATE_CHARS_MAX).toBeLessThan(9 * 250);
    expect(readTracestate([])).toBeNull();
    expect(readTracestate([""])).toBeNull();
  });
});

describe("b3", () => {
  const read = (...list: string[]) => readB3(ListFields.of(list));

  test("the single header, whole and in part", () => {
    expect(read("b3", `${TRACE}-${SPAN}-1-${PARENT}`)).toEqual({ form: "single", ids: { traceId: TRACE, spanId: SPAN }, sampling: "accept" });
    expect(read("b3", `${TRACE.slice(16)}-${SPAN}-d`)).toEqual({ form: "single", ids: { traceId: TRACE.slice(16), spanId: SPAN }, sampling: "debug" });
    expect(read("b3", `${TRACE}-${SPAN}`)!.sampling).toBe("defer");
    expect(read("b3", "0")).toEqual({ form: "single", ids: null, sampling: "deny" });
  });

  test("several headers", () => {
    expect(read("x-b3-traceid", TRACE, "x-b3-spanid", SPAN, "x-b3-parentspanid", PARENT, "x-b3-sampled", "1")).toEqual({ form: "multi", ids: { traceId: TRACE, spanId: SPAN }, sampling: "accept" });
    expect(read("x-b3-traceid", TRACE, "x-b3-spanid", SPAN, "x-b3-sampled", "false")!.sampling).toBe("deny");
    expect(read("x-b3-traceid", TRACE, "x-b3-spanid", SPAN, "x-b3-flags", "1")!.sampling).toBe("debug");
    expect(read("x-b3-sampled", "0")).toEqual({ form: "multi", ids: null, sampling: "deny" });
  });

  test("the single header decides where both are", () => expect(read("b3", `${TRACE}-${SPAN}-0`, "x-b3-sampled", "1")!.sampling).toBe("deny"));

  test.each([
    ["b3", `${TRACE}-${SPAN}-2`], ["b3", `${TRACE.toUpperCase()}-${SPAN}-1`], ["b3", `${TRACE}`], ["b3", `${"0".repeat(32)}-${SPAN}-1`], ["b3", `${TRACE}-${"0".repeat(16)}-1`],
    ["b3", `${TRACE}-${SPAN}-1-${PARENT}-x`], ["b3", `${TRACE}-${SPAN}--${PARENT}`], ["b3", ""], ["b3", `${TRACE}-${SPAN}-1, ${TRACE}-${SPAN}-1`], ["x-b3-traceid", TRACE], ["x-b3-spanid", SPAN],
    ["x-b3-sampled", "yes"], ["x-b3-flags", "2"],
  ])("refuses %s: %j", (name, value) => expect(read(name, value)).toBeNull());

  test("what is written is read back", () => {
    for (const sampling of ["accept", "deny", "debug", "defer"] as const) for (const parentSpanId of [null, PARENT]) {
      const span = { traceId: TRACE, spanId: SPAN, parentSpanId, sampling };
      const ids = { traceId: TRACE, spanId: SPAN };
      expect(read("b3", encodeB3Single(span))).toEqual({ form: "single", ids, sampling });
      expect(read(...encodeB3Multi(span))).toEqual({ form: "multi", ids, sampling });
    }
  });

  test("short trace ids are the low half of long ones", () => expect(fullTraceId(SPAN)).toBe(`${"0".repeat(16)}${SPAN}`));
});

function bytesOf(seed: number): FillRandom {
  const random = seededRandom(seed);
  return (bytes) => bytes.forEach((_, i) => (bytes[i] = Math.floor(random.next() * 256)));
}

describe("ids", () => {
  test("have their form, and none comes twice", () => {
    let fills = 0;
    const fill = bytesOf(1);
    const ids = new IdSource((bytes) => {
      fills++;
      fill(bytes);
    });
    const seen = new Set<string>();
    for (let i = 0; i < 2000; i++) {
      const [trace, span] = [ids.traceId(), ids.spanId()];
      expect(trace).toMatch(/^[0-9a-f]{32}$/);
      expect(span).toMatch(/^[0-9a-f]{16}$/);
      seen.add(trace).add(span);
    }
    expect(seen.size).toBe(4000);
    expect(fills).toBeLessThan(30);
  });

  test("are never all zero", () => {
    const ids = new IdSource((bytes) => bytes.fill(0));
    expect(ids.traceId()).toBe(`${"0".repeat(31)}1`);
    expect(ids.spanId()).toBe(`${"0".repeat(15)}1`);
  });

  test("fall evenly, and the same id always at the same place", () => {
    const ids = new IdSource(bytesOf(2));
    const below = Array.from({ length: 20_000 }, () => fractionOf(ids.traceId())).filter((fraction) => fraction < 0.1).length;
    expect(below).toBeGreaterThan(1800);
    expect(below).toBeLessThan(2200);
    expect(fractionOf("f".repeat(32))).toBeLessThan(1);
    expect(fractionOf(`${"f".repeat(16)}${"0".repeat(16)}`)).toBe(0);
  });

  test("request ids are one visible word of sane length", () => {
    expect(["a", "7f-x", "x".repeat(128)].map(isRequestId)).toEqual([true, true, true]);
    expect(["", "a b", "x".repeat(129), "a\u00e9", "a\nb"].map(isRequestId)).toEqual([false, false, false, false, false]);
  });
});
