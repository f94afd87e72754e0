import { describe, expect, test } from "bun:test";
import { MetricSeries } from "./metric-series.ts";
import { FLAG_INDEX } from "./connection-labels.ts";
import { ConnectionMetrics } from "./connection-metrics.ts";
import { acceptsGzip, Exposition, type ExpositionFormat, type GaugeSource, negotiateFormat } from "./exposition.ts";
import { labels, service, workload } from "./telemetry-fixtures.ts";

interface ParsedFamily {
  type: string;
  samples: { name: string; labels: Record<string, string>; value: number }[];
}

/** Strict reader of both formats: every line must be HELP, TYPE, a sample of the family just typed, or the final EOF. */
function parse(body: string, format: ExpositionFormat): Map<string, ParsedFamily> {
  const families = new Map<string, ParsedFamily>();
  const seen = new Set<string>();
  let current = "";
  const lines = body.split("\n");
  expect(lines.pop()).toBe("");
  if (format === "openmetrics") expect(lines.pop()).toBe("# EOF");
  for (const line of lines) {
    if (line === "" && format === "prometheus") continue;
    const meta = /^# (HELP|TYPE) ([a-z_][a-z0-9_]*) (.+)$/.exec(line);
    if (meta !== null) {
      if (meta[1] === "TYPE") families.set(meta[2]!, { type: meta[3]!, samples: [] });
      else expect(families.has(meta[2]!)).toBe(false);
      current = meta[2]!;
      continue;
    }
    const sample = /^([a-z_][a-z0-9_]*)(?:\{((?:[a-z_][a-z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (-?[0-9.e+-]+|NaN|[+-]Inf)$/.exec(line);
    if (sample === null) throw new Error(`not a sample: ${line}`);
    const family = families.get(current)!;
    const suffixes = family.type === "histogram" ? ["_bucket", "_sum", "_count"] : family.type === "counter" && format === "openmetrics" ? ["_total"] : [""];
    expect(suffixes.map((suffix) => `${current}${suffix}`)).toContain(sample[1]!);
    const identity = `${sample[1]}{${sample[2] ?? ""}}`;
    expect(seen.has(identity)).toBe(false);
    seen.add(identity);
    const labelList = [...(sample[2] ?? "").matchAll(/([a-z_][a-z0-9_]*)="((?:[^"\\]|\\.)*)"/g)].map(([, name, value]) => [name!, value!] as const);
    expect(new Set(labelList.map(([name]) => name)).size).toBe(labelList.length);
    family.samples.push({ name: sample[1]!, labels: Object.fromEntries(labelList), value: Number(sample[3]) });
  }
  return families;
}

const uptime: GaugeSource = { name: "process_cpu_seconds_total", help: "CPU", type: "counter", read: () => 1.5 };

function twoThreads(): ConnectionMetrics[] {
  return [1, 2].map((n) => {
    const metrics = new ConnectionMetrics();
    const counters = metrics.labelSet(labels());
    counters.opened = n;
    counters.sentBytes = 100 * n;
    counters.closed[FLAG_INDEX["-"]]! += n;
    counters.failed[FLAG_INDEX.DENY]! += 1;
    metrics.cell("istio_tcp_sockets_open", { reporter: "source" }).value = n;
    const { connectSeconds } = metrics.route("source", "tunnel", service);
    connectSeconds.observe(0.0001);
    connectSeconds.observe(99);
    return metrics;
  });
}

describe.each(["prometheus", "openmetrics"] as const)("%s", (format) => {
  const render = async (threads: ConnectionMetrics[]) => {
    const { body, contentType } = await new Exposition().render(threads.map((each) => each.snapshot()), [uptime], format);
    expect(contentType).toStartWith(format === "openmetrics" ? "application/openmetrics-text; version=1.0.0" : "text/plain; version=0.0.4");
    return parse(body, format);
  };
  const counterName = (name: string) => (format === "openmetrics" ? name.replace(/_total$/, "") : name);

  test("sums the threads, with all 27 labels on each connection series", async () => {
    const families = await render(twoThreads());
    const opened = families.get(counterName("istio_tcp_connections_opened_total"))!;
    expect(opened.type).toBe("counter");
    expect(opened.samples).toHaveLength(1);
    expect(opened.samples[0]!.name).toBe("istio_tcp_connections_opened_total");
    expect(Object.keys(opened.samples[0]!.labels)).toHaveLength(27);
    expect(opened.samples[0]!.value).toBe(3);
    expect(families.get(counterName("istio_tcp_sent_bytes_total"))!.samples[0]!.value).toBe(300);
    const failed = families.get(counterName("istio_tcp_connections_failed_total"))!.samples;
    expect(failed.map(({ labels: l, value }) => [l["response_flags"], value])).toEqual([["DENY", 2]]);
    expect(families.get("istio_tcp_sockets_open")!.samples[0]).toMatchObject({ labels: { reporter: "source" }, value: 3 });
    expect(families.get(counterName("process_cpu_seconds_total"))!.samples[0]!.value).toBe(1.5);
  });

  test("histogram buckets are cumulative and end in +Inf, count and sum agree", async () => {
    const { samples } = (await render(twoThreads())).get("weft_connect_duration_seconds")!;
    const buckets = samples.filter(({ name }) => name.endsWith("_bucket"));
    expect(buckets[0]).toMatchObject({ value: 2, labels: { le: "0.0001", path: "tunnel", destination_service_name: "web" } });
    expect(buckets.at(-1)).toMatchObject({ value: 4, labels: { le: "+Inf" } });
    expect(samples.find(({ name }) => name.endsWith("_count"))!.value).toBe(4);
    expect(samples.find(({ name }) => name.endsWith("_sum"))!.value).toBeCloseTo(198.0002);
  });

  test("endpoints, which every thread sees for itself, are not added up", async () => {
    const threads = [2, 3].map((usable) => {
      const series = new MetricSeries();
      const labels = { destination_service_namespace: "shop", destination_service_name: "web", port: "80", subset: "" };
      series.cell("weft_upstream_endpoints", { ...labels, health: "usable" }).value = usable;
      series.cell("weft_upstream_in_use", { ...labels, resource: "connections" }).value = usable;
      return { connectionKeys: [], connectionValues: new Float64Array(0), cells: series.snapshotCells(), histograms: [] };
    });
    const families = parse((await new Exposition().render(threads, [], format)).body, format);
    expect(families.get("weft_upstream_endpoints")!.samples[0]!.value).toBe(3);
    expect(families.get("weft_upstream_in_use")!.samples[0]!.value).toBe(5);
  });

  test("hostile label values stay inside their quotes", async () => {
    const metrics = new ConnectionMetrics();
    metrics.labelSet(labels({ source: workload("x", { canonicalName: 'a"} 1\n# EOF\\' }) })).opened = 1;
    const opened = (await render([metrics])).get(counterName("istio_tcp_connections_opened_total"))!;
    expect(opened.samples[0]!.labels["source_canonical_service"]).toBe('a\\"} 1?# EOF\\\\');
  });

  test("rendering twice gives the same text", async () => {
    const exposition = new Exposition();
    const snapshots = twoThreads().map((each) => each.snapshot());
    const first = await exposition.render(snapshots, [], format);
    expect((await exposition.render(snapshots, [], format)).body).toBe(first.body);
  });
});

test("the format follows the Accept header", () => {
  expect(negotiateFormat(null)).toBe("prometheus");
  expect(negotiateFormat("*/*")).toBe("prometheus");
  expect(negotiateFormat("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")).toBe("openmetrics");
  expect(negotiateFormat("application/openmetrics-text;q=0.1, text/plain")).toBe("prometheus");
  expect(negotiateFormat("application/openmetrics-text;q=nonsense")).toBe("prometheus");
});

test("gzip is used only when it is acceptable", () => {
  expect(acceptsGzip(null)).toBe(false);
  expect(acceptsGzip("deflate, gzip")).toBe(true);
  expect(acceptsGzip("gzip;q=0, *")).toBe(false);
  expect(acceptsGzip("identity")).toBe(false);
});
