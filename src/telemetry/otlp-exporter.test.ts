import { describe, expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import { MetricSeries } from "./metric-series.ts";
import { CALL_RECORDS_MAX, GIVE_UP_MS, LINGER_MS, OtlpExporter, QUEUE_RECORDS_MAX } from "./otlp-exporter.ts";
import type { SpanRecord } from "./otlp-records.ts";
import type { ExportOutcome, OtlpPayload } from "./otlp-transport.ts";

const collector: OtlpCollector = { name: "c", protocol: "http", service: "obs/c" as OtlpCollector["service"], port: 4318, path: "", timeoutMs: 60_000, headers: [] };
const span = (n: number): SpanRecord => ({ traceId: "1".repeat(32), spanId: n.toString(16).padStart(16, "0"), parentSpanId: null, tracestate: null, kind: "server", name: "n", startedWallMs: 0, endedWallMs: 0, attributes: [], error: null });
const spans = (count: number, from = 0) => Array.from({ length: count }, (_, i) => span(from + i));
const ok: ExportOutcome = { kind: "ok", partial: { rejected: 0, message: "" } };
/** Everything that was promised has happened. */
const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

function make() {
  let nowMs = 1_000_000;
  const calls: { payload: OtlpPayload; answer: (outcome: ExportOutcome) => void }[] = [];
  const health: string[] = [];
  let closed = 0;
  const series = new MetricSeries();
  const exporter = new OtlpExporter({
    series, clock: { monotonicMs: () => nowMs, wallMs: () => 0 }, random: seededRandom(1), onHealth: (of, signal, failure) => health.push(`${of.name} ${signal} ${failure ?? "well"}`),
    transportOf: () => ({ send: (payload) => new Promise((answer) => calls.push({ payload, answer })), close: () => void closed++ }),
  });
  const dropped = () => Object.fromEntries(series.snapshotCells().filter(({ name }) => name === "weft_otlp_records_dropped_total").flatMap(({ keys, values }) => keys.map((key, i) => [key.replace("\x1f", " "), values[i]!])));
  const exports = () => Object.fromEntries(series.snapshotCells().filter(({ name }) => name === "weft_otlp_exports_total").flatMap(({ keys, values }) => keys.map((key, i) => [key.replaceAll("\x1f", " "), values[i]!])));
  const answer = async (outcome: ExportOutcome) => {
    calls.at(-1)!.answer(outcome);
    await settled();
  };
  return { exporter, calls, health, dropped, exports, answer, pass: (ms: number) => void (nowMs += ms), closed: () => closed };
}

const take = (exporter: OtlpExporter, list: readonly SpanRecord[]) => exporter.take([{ collector, spans: list, logs: [] }]);

describe("batches", () => {
  test("a full one goes at once, a small one after a while", async () => {
    const { exporter, calls, answer, pass } = make();
    expect(take(exporter, spans(3))).toBe(3);
    exporter.tick();
    expect(calls).toHaveLength(0);
    pass(LINGER_MS);
    exporter.tick();
    expect(calls.map(({ payload }) => payload.records.length)).toEqual([3]);
    await answer(ok);
    take(exporter, spans(CALL_RECORDS_MAX + 1));
    expect(calls.map(({ payload }) => payload.records.length)).toEqual([3, CALL_RECORDS_MAX]);
    await answer(ok);
    expect(calls).toHaveLength(2);
    pass(LINGER_MS);
    exporter.tick();
    expect(calls[2]!.payload.records).toEqual([span(CALL_RECORDS_MAX)]);
  });

  test("one call is under way, and what comes meanwhile waits in order", async () => {
    const { exporter, calls, answer } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    take(exporter, spans(CALL_RECORDS_MAX, 1000));
    expect(calls).toHaveLength(1);
    await answer(ok);
    expect(calls).toHaveLength(2);
    expect(calls[1]!.payload.records[0]).toEqual(span(1000));
  });

  test("spans and logs do not wait for each other", () => {
    const { exporter, calls, pass } = make();
    exporter.take([{ collector, spans: spans(1), logs: [{ wallMs: 0, severity: "info", body: "b", attributes: [], traceId: null, spanId: null }] }]);
    pass(LINGER_MS);
    exporter.tick();
    expect(calls.map(({ payload }) => payload.signal)).toEqual(["traces", "logs"]);
  });
});

describe("a collector in trouble", () => {
  test("its records wait up to the bound; the newest beyond are dropped and counted, and the sender gets its credit back all the same", async () => {
    const { exporter, calls, answer, dropped, pass } = make();
    expect(take(exporter, spans(QUEUE_RECORDS_MAX + 100))).toBe(QUEUE_RECORDS_MAX + 100);
    expect(take(exporter, spans(5))).toBe(5);
    expect(dropped()).toEqual({ "traces queue": 105 });
    for (let i = 0; i < QUEUE_RECORDS_MAX / CALL_RECORDS_MAX; i++) await answer(ok);
    pass(LINGER_MS);
    exporter.tick();
    expect(calls.flatMap(({ payload }) => (payload.signal === "traces" ? payload.records : []))).toEqual(spans(QUEUE_RECORDS_MAX));
  });

  test("is asked again after longer and longer times, with the same records", async () => {
    const { exporter, calls, answer, pass, exports } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    const waits: number[] = [];
    for (let i = 0; i < 4; i++) {
      const before = calls.length;
      await answer({ kind: "retry", afterMs: null, message: "away" });
      let waited = 0;
      for (; calls.length === before && waited < 100_000; waited += 100) {
        pass(100);
        exporter.tick();
      }
      waits.push(waited);
    }
    expect(waits[0]).toBeGreaterThanOrEqual(500);
    expect(waits[0]).toBeLessThanOrEqual(1100);
    for (let i = 1; i < 4; i++) expect(waits[i]!).toBeGreaterThan(waits[i - 1]!);
    expect(new Set(calls.map(({ payload }) => JSON.stringify(payload))).size).toBe(1);
    await answer(ok);
    expect(exports()).toEqual({ "c traces failed": 4, "c traces ok": 1 });
  });

  test("may say when to come back", async () => {
    const { exporter, calls, answer, pass } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    await answer({ kind: "retry", afterMs: 20_000, message: "busy" });
    pass(19_999);
    exporter.tick();
    expect(calls).toHaveLength(1);
    pass(1);
    exporter.tick();
    expect(calls).toHaveLength(2);
  });

  test("records that could not be delivered for long are given up", async () => {
    const { exporter, calls, answer, pass, dropped } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    pass(GIVE_UP_MS);
    await answer({ kind: "retry", afterMs: null, message: "away" });
    expect(dropped()).toEqual({ "traces queue": CALL_RECORDS_MAX });
    pass(100_000);
    exporter.tick();
    expect(calls).toHaveLength(1);
  });

  test("what it refuses is not sent again; what it refuses in part is counted", async () => {
    const { exporter, calls, answer, dropped, pass } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    await answer({ kind: "refused", message: "400" });
    take(exporter, spans(CALL_RECORDS_MAX));
    await answer({ kind: "ok", partial: { rejected: 3, message: "too old" } });
    pass(100_000);
    exporter.tick();
    expect(calls).toHaveLength(2);
    expect(dropped()).toEqual({ "traces refused": CALL_RECORDS_MAX + 3 });
  });

  test("is told of once, and again when it is well", async () => {
    const { exporter, answer, health, pass } = make();
    take(exporter, spans(2 * CALL_RECORDS_MAX));
    for (let i = 0; i < 3; i++) {
      await answer({ kind: "retry", afterMs: 1, message: `away ${i}` });
      pass(1);
      exporter.tick();
    }
    await answer(ok);
    await answer(ok);
    expect(health).toEqual(["c traces away 0", "c traces well"]);
  });
});

describe("the end", () => {
  test("everything is sent before it", async () => {
    const { exporter, calls, answer, closed } = make();
    take(exporter, spans(CALL_RECORDS_MAX + 5));
    const drained = exporter.drain(new AbortController().signal);
    await answer(ok);
    await answer(ok);
    await drained;
    expect(calls.map(({ payload }) => payload.records.length)).toEqual([CALL_RECORDS_MAX, 5]);
    expect(closed()).toBe(1);
  });

  test("a collector that is away is not waited for, nor is one that never answers", async () => {
    const away = make();
    take(away.exporter, spans(CALL_RECORDS_MAX + 5));
    const drained = away.exporter.drain(new AbortController().signal);
    await away.answer({ kind: "retry", afterMs: null, message: "away" });
    await drained;
    expect(away.dropped()).toEqual({ "traces queue": CALL_RECORDS_MAX + 5 });
    const silent = make();
    take(silent.exporter, spans(1));
    const end = new AbortController();
    const ended = silent.exporter.drain(end.signal);
    end.abort();
    await ended;
    expect(silent.dropped()).toEqual({ "traces queue": 1 });
  });

  test("one that is no longer named is let go", async () => {
    const { exporter, answer, pass, closed } = make();
    take(exporter, spans(CALL_RECORDS_MAX));
    await answer(ok);
    pass(299_999);
    exporter.tick();
    expect(closed()).toBe(0);
    pass(1);
    exporter.tick();
    expect(closed()).toBe(1);
  });
});
