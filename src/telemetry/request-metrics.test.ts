import { describe, expect, test } from "bun:test";
import type { MetricsOverride } from "../mesh/l7/telemetry.ts";
import { Exposition } from "./exposition.ts";
import { compileMetricsShape } from "./metrics-shape.ts";
import type { MetricsSnapshot } from "./metrics-snapshot.ts";
import { REQUEST_COLUMNS, RequestMetrics } from "./request-metrics.ts";
import type { RequestRecord } from "./request-record.ts";
import { identity, request, service, workload } from "./telemetry-fixtures.ts";

const MINUTE = 60_000;
const client = workload("client");
const web = workload("web");

function metrics(options: { setsMax?: number; histogramsMax?: number } = {}) {
  const overflows = { istio_requests: 0, istio_request_histograms: 0 };
  const counted = new RequestMetrics({ ...options, onOverflow: (what) => void overflows[what]++ });
  return { counted, overflows: () => overflows };
}

const at = (over: Partial<RequestRecord> = {}) => request({ source: client, endpoint: web, ...over });
const snapshotOf = (counted: RequestMetrics): MetricsSnapshot => ({ connectionKeys: [], connectionValues: new Float64Array(0), cells: [], histograms: [], requests: structuredClone(counted.snapshot()) });

/** Samples of one metric: its labels, and the value. */
async function samples(snapshots: MetricsSnapshot[], name: string): Promise<{ labels: Record<string, string>; value: number }[]> {
  const { body } = await new Exposition().render(snapshots, [], "prometheus");
  return body.split("\n").filter((line) => line.startsWith(`${name}{`)).map((line) => ({
    labels: Object.fromEntries([...line.matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, value]) => [label!, value!])), value: Number(line.slice(line.lastIndexOf(" "))),
  }));
}

describe("labels", () => {
  test("are Istio's: those of connections, with reporter waypoint, and those of the answer", async () => {
    const { counted } = metrics();
    counted.add(at({ isGrpc: true, grpcStatus: 14, flags: "UF,URX" }));
    const [sample] = await samples([snapshotOf(counted)], "istio_requests_total");
    expect(Object.keys(sample!.labels)).toHaveLength(29);
    expect(sample!.labels).toMatchObject({
      reporter: "waypoint", source_workload: "client", source_principal: "spiffe://cluster.local/ns/shop/sa/client", destination_workload: "web", destination_service_name: "web",
      destination_service: "web.shop.svc.cluster.local", request_protocol: "grpc", connection_security_policy: "mutual_tls", response_code: "200", grpc_response_status: "14", response_flags: "UF,URX",
    });
    expect(sample!.value).toBe(1);
  });

  test("what is not known reads unknown; no gRPC status is empty, as Istio has it", async () => {
    const { counted } = metrics();
    counted.add(request({ source: null, sourceIdentity: null, endpoint: null, endpointIdentity: null, service: null, mutualTls: false, status: 0, flags: "DC" }));
    const [sample] = await samples([snapshotOf(counted)], "istio_requests_total");
    expect(sample!.labels).toMatchObject({ source_workload: "unknown", destination_service: "unknown", response_code: "0", grpc_response_status: "", connection_security_policy: "unknown", request_protocol: "http" });
  });
});

describe("counting", () => {
  test("each of what labels depend on makes another set, and the same makes none", () => {
    const { counted } = metrics();
    const variants: Partial<RequestRecord>[] = [
      {}, { status: 404 }, { status: 404, flags: "NR" }, { grpcStatus: 0 }, { grpcStatus: 5 }, { isGrpc: true }, { service: null }, { mutualTls: false }, { sourceIdentity: identity("x") },
      { endpointIdentity: null }, { endpoint: null }, { source: null },
      { source: null, sourceDescription: { workloadName: "far", namespace: "n", canonicalName: "f", canonicalRevision: "1", clusterId: "c", region: "", zone: "" } },
    ];
    for (const over of [...variants, ...variants]) counted.add(at(over));
    expect(counted.size).toBe(variants.length);
    const { values } = counted.snapshot();
    for (let i = 0; i < variants.length; i++) expect(values[i * REQUEST_COLUMNS.count]).toBe(2);
  });

  test("durations and sizes are histograms, summed over threads", async () => {
    const threads = [1, 2].map(() => {
      const { counted } = metrics();
      counted.add(at());
      counted.add(at({ endedMs: 4000, requestBytes: 5000, responseBytes: 0 }));
      return snapshotOf(counted);
    });
    const bucket = async (name: string, le: string) => (await samples(threads, `${name}_bucket`)).find(({ labels }) => labels["le"] === le)!.value;
    expect(await bucket("istio_request_duration_milliseconds", "100.0")).toBe(2);
    expect(await bucket("istio_request_duration_milliseconds", "5000.0")).toBe(4);
    expect((await samples(threads, "istio_request_duration_milliseconds_sum"))[0]!.value).toBe(6200);
    expect(await bucket("istio_request_bytes", "64.0")).toBe(2);
    expect(await bucket("istio_response_bytes", "64.0")).toBe(2);
    expect((await samples(threads, "istio_response_bytes_count"))[0]!.value).toBe(4);
  });

  test("gRPC messages are shown where there are any", async () => {
    const { counted } = metrics();
    counted.add(at());
    counted.add(at({ isGrpc: true, grpcStatus: 0, requestMessages: 3, responseMessages: 7 }));
    expect((await samples([snapshotOf(counted)], "istio_request_messages_total")).map(({ value }) => value)).toEqual([3]);
    expect((await samples([snapshotOf(counted)], "istio_response_messages_total")).map(({ labels, value }) => [labels["request_protocol"], value])).toEqual([["grpc", 7]]);
  });

  test("beyond the limit everything goes to one set", async () => {
    const { counted, overflows } = metrics({ setsMax: 2 });
    for (let i = 0; i < 10; i++) counted.add(at({ sourceIdentity: identity(`s${i}`) }));
    expect(counted.size).toBe(3);
    expect(overflows()).toEqual({ istio_requests: 8, istio_request_histograms: 0 });
    const overflow = (await samples([snapshotOf(counted)], "istio_requests_total")).find(({ labels }) => labels["source_principal"] === "overflow")!;
    expect(overflow).toMatchObject({ value: 8, labels: { reporter: "waypoint", response_code: "overflow" } });
  });

  test("histograms have a lower limit: later sets are counted apart, and share the overflow's", async () => {
    const { counted, overflows } = metrics({ histogramsMax: 2 });
    for (let i = 0; i < 5; i++) counted.add(at({ sourceIdentity: identity(`s${i}`), endedMs: 1000 + i }));
    counted.add(at({ sourceIdentity: identity("s4"), endedMs: 1010 }));
    expect(overflows()).toEqual({ istio_requests: 0, istio_request_histograms: 3 });
    const snapshot = snapshotOf(counted);
    expect((await samples([snapshot], "istio_requests_total")).map(({ value }) => value)).toEqual([1, 1, 1, 1, 2]);
    expect((await samples([snapshot], "istio_request_duration_milliseconds_count")).map(({ labels, value }) => [labels["source_principal"]!.split("/").at(-1), value])).toEqual([["s0", 1], ["s1", 1], ["overflow", 4]]);
    expect((await samples([snapshot], "istio_request_duration_milliseconds_sum")).at(-1)!.value).toBe(2 + 3 + 4 + 10);
  });

  test("room for histograms comes back with disuse", async () => {
    const { counted, overflows } = metrics({ histogramsMax: 1 });
    counted.add(at());
    counted.tick(61 * MINUTE);
    counted.add(at({ status: 404 }));
    expect(overflows().istio_request_histograms).toBe(0);
    expect((await samples([snapshotOf(counted)], "istio_response_bytes_count")).map(({ labels, value }) => [labels["response_code"], value])).toEqual([["404", 1]]);
  });

  test("identities from outside gather no memory: ten thousand of them at one endpoint", () => {
    const { counted } = metrics({ setsMax: 100 });
    for (let i = 0; i < 10_000; i++) counted.add(at({ source: null, sourceIdentity: identity(`s${i}`) }));
    expect(counted.size).toBe(101);
  });

  test("a set in disuse is dropped, and counted anew when it comes back", () => {
    const { counted } = metrics();
    counted.add(at());
    expect(counted.tick(61 * MINUTE)).toBe(1);
    expect(counted.size).toBe(0);
    counted.add(at());
    expect(counted.size).toBe(1);
    expect(counted.snapshot().values[0]).toBe(1);
    counted.tick(100 * MINUTE);
    counted.add(at());
    expect(counted.tick(160 * MINUTE)).toBe(0);
    expect(counted.tick(161 * MINUTE)).toBe(1);
  });
});

describe("overrides of Telemetry resources", () => {
  const override = (over: Partial<MetricsOverride>): MetricsOverride => ({ metric: null, disabled: false, removeTags: [], setTags: [], ...over });
  const shapedRequest = (overrides: MetricsOverride[], over: Partial<RequestRecord> = {}): RequestRecord => {
    const plain = at(over);
    return { ...plain, telemetry: { ...plain.telemetry, metrics: compileMetricsShape(overrides) } };
  };

  test("a family that is off is not there, the others are", async () => {
    const { counted } = metrics();
    counted.add(shapedRequest([override({ metric: "istio_request_bytes", disabled: true })]));
    expect(await samples([snapshotOf(counted)], "istio_request_bytes_count")).toEqual([]);
    expect(await samples([snapshotOf(counted)], "istio_response_bytes_count")).toHaveLength(1);
  });

  test("all off: nothing is even counted; on again by a later one", () => {
    const { counted } = metrics();
    counted.add(shapedRequest([override({ disabled: true })]));
    expect(counted.size).toBe(0);
    counted.add(shapedRequest([override({ disabled: true }), override({ metric: "istio_requests_total" })]));
    expect(counted.size).toBe(1);
  });

  test("a changed resource makes other sets of the same requests", () => {
    const { counted } = metrics();
    counted.add(at());
    counted.add(shapedRequest([override({ removeTags: ["source_app"] })]));
    counted.add(shapedRequest([override({ removeTags: ["source_version"] })]));
    expect([counted.size, counted.snapshot().shapes.length]).toEqual([3, 2]);
  });

  test("labels that every family loses bound the number of sets", async () => {
    const { counted } = metrics();
    const shape = compileMetricsShape([override({ removeTags: ["source_principal", "response_flags"], setTags: [["destination_app", "fixed"], ["team", "a\"b"]] })]);
    for (let i = 0; i < 20; i++) {
      const plain = at({ sourceIdentity: identity(`s${i}`) });
      counted.add({ ...plain, telemetry: { ...plain.telemetry, metrics: shape } });
    }
    expect(counted.size).toBe(1);
    const [sample] = await samples([snapshotOf(counted)], "istio_requests_total");
    expect(sample!.value).toBe(20);
    expect(sample!.labels["source_principal"]).toBeUndefined();
    expect(sample!.labels).toMatchObject({ destination_app: "fixed", team: 'a\\"b' });
  });

  test("labels that one family loses: its series are summed, the others stay apart, over threads too", async () => {
    const threads = [1, 2].map(() => {
      const { counted } = metrics();
      const overrides = [override({ metric: "istio_requests_total", removeTags: ["response_code"] })];
      counted.add(shapedRequest(overrides));
      counted.add(shapedRequest(overrides, { status: 404 }));
      return snapshotOf(counted);
    });
    expect((await samples(threads, "istio_requests_total")).map(({ value }) => value)).toEqual([4]);
    expect((await samples(threads, "istio_response_bytes_count")).map(({ labels, value }) => [labels["response_code"], value])).toEqual([["200", 2], ["404", 2]]);
  });

  test("a name that Prometheus would not take is no label", () => {
    expect(compileMetricsShape([override({ setTags: [["bad-name", "x"]] })])).toBeNull();
    expect(compileMetricsShape([])).toBeNull();
    expect(compileMetricsShape([override({ metric: "istio_tcp_sent_bytes_total", disabled: true })])).toBeNull();
  });
});

test("a process without requests shows none of their metrics", async () => {
  const { body } = await new Exposition().render([{ connectionKeys: [], connectionValues: new Float64Array(0), cells: [], histograms: [] }], [], "prometheus");
  expect(body).not.toContain("istio_request");
  expect(body).toContain("istio_tcp_connections_opened_total");
  expect(service.name).toBe("web");
});
