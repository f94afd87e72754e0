import { describe, expect, test } from "bun:test";
import { CONNECTION_LABEL_NAMES, connectionKey, FLAG_INDEX, KEY_SEPARATOR } from "./connection-labels.ts";
import { CONNECTION_COLUMNS, ConnectionMetrics } from "./connection-metrics.ts";
import { SERIES_MAX } from "./metric-families.ts";
import { identity, labels, service, workload } from "./telemetry-fixtures.ts";

const MINUTE = 60_000;

describe("labels", () => {
  test("there are 27 with response_flags, in one order, and absent values read unknown", () => {
    expect(CONNECTION_LABEL_NAMES.length + 1).toBe(27);
    const values = connectionKey(labels({ source: null, sourceIdentity: null, service: null, mutualTls: false })).split(KEY_SEPARATOR);
    expect(values).toHaveLength(26);
    const named = Object.fromEntries(CONNECTION_LABEL_NAMES.map((name, i) => [name, values[i]]));
    expect(named).toMatchObject({
      reporter: "source", source_workload: "unknown", source_principal: "unknown", destination_service: "unknown", destination_workload: "web",
      destination_principal: "spiffe://cluster.local/ns/shop/sa/web", request_protocol: "tcp", connection_security_policy: "unknown",
      destination_app: "web", destination_version: "latest", destination_cluster: "Kubernetes", destination_zone: "z1", source_zone: "unknown",
    });
  });

  test("a value cannot forge another label set", () => {
    const forged = labels({ source: workload("a", { canonicalName: "x\x1fy\nz" }) });
    expect(connectionKey(forged).split(KEY_SEPARATOR)).toHaveLength(26);
    expect(connectionKey(forged)).toContain("x?y?z");
  });
});

describe("look-up", () => {
  test("the same ends give the same counters, by object and by value", () => {
    const metrics = new ConnectionMetrics();
    const first = metrics.labelSet(labels());
    expect(metrics.labelSet(labels())).toBe(first);
    const same = labels();
    expect(metrics.labelSet(same)).toBe(metrics.labelSet(same));
    expect(metrics.labelSetCount).toBe(1);
  });

  test("identity, service, security and reporter each make another set for the same two workloads", () => {
    const metrics = new ConnectionMetrics();
    const base = labels();
    const sets = [base, { ...base, sourceIdentity: identity("other") }, { ...base, service: null }, { ...base, mutualTls: false }, { ...base, reporter: "destination" as const }]
      .map((each) => metrics.labelSet(each));
    expect(new Set(sets).size).toBe(5);
    const peer = { workloadName: "far", namespace: "ns", canonicalName: "far", canonicalRevision: "1", clusterId: "c2", region: "", zone: "" };
    const known = metrics.labelSet({ ...base, source: null, sourceDescription: peer });
    expect(metrics.labelSet({ ...base, source: null, sourceDescription: { ...peer, workloadName: "near" } })).not.toBe(known);
  });

  test("beyond the limit everything goes to one overflow set per reporter, and is counted", () => {
    const metrics = new ConnectionMetrics({ labelSetsMax: 2 });
    metrics.labelSet(labels({ source: workload("a") }));
    metrics.labelSet(labels({ source: workload("b") }));
    const over = metrics.labelSet(labels({ source: workload("c") }));
    expect(metrics.labelSet(labels({ source: workload("d") }))).toBe(over);
    expect(over.key.split(KEY_SEPARATOR)[1]).toBe("overflow");
    expect(metrics.cell("weft_metric_series_overflowed_total", { family: "istio_tcp" }).value).toBe(2);
    expect(metrics.labelSetCount).toBe(3);
  });

  test("a family's own label combinations are bounded too", () => {
    const metrics = new ConnectionMetrics();
    for (let i = 0; i < SERIES_MAX + 50; i++) metrics.cell("weft_http2_fatal_total", { counter: `c${i}` }).value++;
    const snapshot = metrics.snapshot().cells.find((family) => family.name === "weft_http2_fatal_total")!;
    expect(snapshot.keys).toHaveLength(SERIES_MAX + 1);
    expect(snapshot.values[snapshot.keys.indexOf("overflow")]).toBe(50);
  });
});

describe("disuse", () => {
  test("a set is dropped after an idle hour, not while a connection is open, and comes back fresh", () => {
    const metrics = new ConnectionMetrics();
    const idle = labels({ source: workload("idle") });
    const counters = metrics.labelSet(idle);
    const busy = metrics.labelSet(labels({ source: workload("busy") }));
    busy.open = 1;
    metrics.tick(60 * MINUTE);
    expect(metrics.labelSetCount).toBe(2);
    metrics.tick(61 * MINUTE);
    expect(metrics.labelSetCount).toBe(1);
    expect(busy.evicted).toBe(false);
    expect(counters.evicted).toBe(true);
    expect(metrics.labelSet(idle)).not.toBe(counters);
    expect(metrics.cell("weft_metric_series_evicted_total", {}).value).toBe(1);
  });
});

test("a snapshot is plain data that survives structured clone", () => {
  const metrics = new ConnectionMetrics();
  const counters = metrics.labelSet(labels());
  counters.opened = 3;
  counters.closed[FLAG_INDEX.DENY]! += 2;
  counters.failed[FLAG_INDEX.CONNECT]! += 1;
  metrics.route("source", "tunnel", service).connectSeconds.observe(0.3);
  const snapshot = structuredClone(metrics.snapshot());
  expect(snapshot.connectionValues).toHaveLength(CONNECTION_COLUMNS);
  expect([...snapshot.connectionValues.slice(0, 5)]).toEqual([3, 0, 0, 0, 2]);
  const connect = snapshot.histograms.find((family) => family.name === "weft_connect_duration_seconds")!;
  expect(connect.values[0]!.reduce((sum, n) => sum + n, 0)).toBeCloseTo(1.3);
});
