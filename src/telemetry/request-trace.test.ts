import { describe, expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import { ListFields } from "../wire/http/fields.ts";
import { IdSource } from "../wire/trace/ids.ts";
import { readTrace, requestIdOf } from "./request-trace.ts";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const OTHER = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "00f067aa0ba902b7";
const always = { sampling: 1 };
const never = { sampling: 0 };

const random = seededRandom(3);
const ids = new IdSource((bytes) => bytes.forEach((_, i) => (bytes[i] = Math.floor(random.next() * 256))));

/** What the endpoint gets. */
function sent(list: readonly string[], settings: { sampling: number } | null): { trace: ReturnType<typeof readTrace>; headers: Record<string, string> } {
  const fields = ListFields.of(list);
  const trace = readTrace(fields, settings, ids);
  trace?.writeAttempt(fields, trace.attemptId());
  const out: string[] = [];
  fields.appendTo(out);
  return { trace, headers: Object.fromEntries(Array.from({ length: out.length / 2 }, (_, i) => [out[2 * i]!, out[2 * i + 1]!])) };
}

describe("a trace that came", () => {
  test("sampled: our span stands between", () => {
    const { trace, headers } = sent(["traceparent", `00-${TRACE}-${SPAN}-01`, "tracestate", "a=1 , b=2"], never);
    expect(trace).toMatchObject({ traceId: TRACE, parentSpanId: SPAN, sampled: true, tracestate: "a=1,b=2" });
    expect(trace!.spanId).toMatch(/^[0-9a-f]{16}$/);
    expect(headers["traceparent"]).toBe(`00-${TRACE}-${trace!.attemptSpanId}-01`);
    expect(headers["tracestate"]).toBe("a=1,b=2");
    expect(new Set([SPAN, trace!.spanId, trace!.attemptSpanId]).size).toBe(3);
  });

  test.each([["not sampled", "00", always], ["no tracing set up", "01", null], ["neither", "00", null]] as const)("%s: it goes on untouched", (_, flags, settings) => {
    const list = ["traceparent", `00-${TRACE}-${SPAN}-${flags}`, "tracestate", "a=1 , b=2", "b3", `${OTHER}-${SPAN}-1`];
    const { trace, headers } = sent(list, settings);
    expect(trace).toMatchObject({ traceId: TRACE, parentSpanId: SPAN, sampled: false, spanId: "" });
    expect(headers).toEqual({ traceparent: list[1]!, tracestate: list[3]!, b3: list[5]! });
  });

  test("each attempt has a span of its own, and the context is written anew", () => {
    const fields = ListFields.of(["traceparent", `00-${TRACE}-${SPAN}-01`]);
    const trace = readTrace(fields, always, ids)!;
    trace.writeAttempt(fields, trace.attemptId());
    const first = trace.attemptSpanId;
    trace.writeAttempt(fields, trace.attemptId());
    expect(trace.attemptSpanId).not.toBe(first);
    expect(fields.values("traceparent")).toEqual([`00-${TRACE}-${trace.attemptSpanId}-01`]);
  });

  test("a bad tracestate is dropped, the trace is not", () => {
    const { trace, headers } = sent(["traceparent", `00-${TRACE}-${SPAN}-01`, "tracestate", "A=1"], always);
    expect(trace!.traceId).toBe(TRACE);
    expect(headers["tracestate"]).toBeUndefined();
  });

  test("in both forms: B3 of the same trace follows, of another it is left alone", () => {
    const same = sent(["traceparent", `00-${TRACE}-${SPAN}-01`, "b3", `${TRACE}-${SPAN}-1`], always);
    expect(same.headers["b3"]).toBe(`${TRACE}-${same.trace!.attemptSpanId}-1-${same.trace!.spanId}`);
    const other = sent(["traceparent", `00-${TRACE}-${SPAN}-01`, "b3", `${OTHER}-${SPAN}-1`], always);
    expect(other.headers["b3"]).toBe(`${OTHER}-${SPAN}-1`);
  });

  test("twice, it is none: nobody can tell which", () => {
    const { trace } = sent(["traceparent", `00-${TRACE}-${SPAN}-01`, "traceparent", `00-${OTHER}-${SPAN}-01`], always);
    expect(trace!.parentSpanId).toBeNull();
    expect([TRACE, OTHER]).not.toContain(trace!.traceId);
  });
});

describe("B3 alone", () => {
  test("in several headers: answered in several, and as traceparent", () => {
    const { trace, headers } = sent(["x-b3-traceid", TRACE, "x-b3-spanid", SPAN, "x-b3-parentspanid", "0000000000000001", "x-b3-sampled", "1"], never);
    const { spanId, attemptSpanId } = trace!;
    expect(headers).toEqual({
      traceparent: `00-${TRACE}-${attemptSpanId}-01`, "x-b3-traceid": TRACE, "x-b3-spanid": attemptSpanId, "x-b3-parentspanid": spanId, "x-b3-sampled": "1",
    });
  });

  test("of 64 bits: kept short there, full everywhere else; debug stays debug", () => {
    const { trace, headers } = sent(["b3", `${SPAN}-${SPAN}-d`], never);
    expect(trace).toMatchObject({ traceId: `${"0".repeat(16)}${SPAN}`, parentSpanId: SPAN, sampled: true });
    expect(headers["b3"]).toBe(`${SPAN}-${trace!.attemptSpanId}-d-${trace!.spanId}`);
  });

  test("without a decision: ours is passed on", () => {
    expect(sent(["b3", `${TRACE}-${SPAN}`], never).headers["b3"]).toMatch(new RegExp(`^${TRACE}-[0-9a-f]{16}-0-${SPAN}$`));
    expect(sent(["b3", `${TRACE}-${SPAN}`], always).headers["b3"]).toMatch(new RegExp(`^${TRACE}-[0-9a-f]{16}-1-[0-9a-f]{16}$`));
    expect(sent(["b3", `${TRACE}-${SPAN}`], null).headers["b3"]).toBe(`${TRACE}-${SPAN}`);
  });

  test("a decision without ids holds for the trace that begins here", () => {
    expect(sent(["b3", "0"], always).trace).toMatchObject({ sampled: false, parentSpanId: null });
    expect(sent(["b3", "1"], never).trace).toMatchObject({ sampled: true, parentSpanId: null });
  });
});

describe("no trace, or one that cannot be read", () => {
  test("one begins, by rate; the others are told of what was decided", () => {
    const { trace, headers } = sent([], always);
    expect(trace).toMatchObject({ parentSpanId: null, sampled: true });
    expect(headers["traceparent"]).toBe(`00-${trace!.traceId}-${trace!.attemptSpanId}-01`);
    const unsampled = sent([], never);
    expect(unsampled.trace).toMatchObject({ sampled: false, spanId: "" });
    expect(unsampled.headers["traceparent"]).toMatch(new RegExp(`^00-${unsampled.trace!.traceId}-[0-9a-f]{16}-00$`));
    const share = Array.from({ length: 5000 }, () => readTrace(ListFields.of([]), { sampling: 0.2 }, ids)!.sampled).filter(Boolean).length;
    expect(share).toBeGreaterThan(900);
    expect(share).toBeLessThan(1100);
  });

  test("nothing begins where tracing is not set up: it would switch off everyone's sampling behind us", () => {
    expect(sent([], null)).toEqual({ trace: null, headers: {} });
    expect(sent(["traceparent", "nonsense"], null)).toEqual({ trace: null, headers: { traceparent: "nonsense" } });
  });

  test("a malformed header is replaced, its tracestate dropped", () => {
    const { trace, headers } = sent(["traceparent", `00-${TRACE}-${SPAN}-01-extra`, "tracestate", "a=1"], always);
    expect(trace!.traceId).not.toBe(TRACE);
    expect(headers["traceparent"]).toContain(trace!.traceId);
    expect(headers["tracestate"]).toBeUndefined();
  });
});

test("a request id is kept when it is sane, else made", () => {
  const make = (): string => "made";
  expect(requestIdOf(ListFields.of(["x-request-id", "abc-1"]), make)).toBe("abc-1");
  for (const list of [[], ["x-request-id", "a b"], ["x-request-id", "x".repeat(129)], ["x-request-id", "a", "x-request-id", "b"]]) {
    const fields = ListFields.of(["a", "b", ...list]);
    expect(requestIdOf(fields, make)).toBe("made");
    expect(fields.values("x-request-id")).toEqual(["made"]);
  }
});
