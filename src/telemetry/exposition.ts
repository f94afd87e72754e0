// From the snapshots of all threads to the text a scraper reads: Prometheus 0.0.4, or OpenMetrics 1.0 when it asks for that.
// Merging adds, but for what each thread sees for itself; the rendering is prom-client's registry. Runs on the main thread only.

// Of the library the registry alone: the whole takes two megabytes, for metrics of its own making that nobody here asks for.
import Registry from "prom-client/lib/registry.js";
import { CONNECTION_LABEL_NAMES, KEY_SEPARATOR, RESPONSE_FLAGS } from "./connection-labels.ts";
import { CONNECTION_COLUMNS } from "./connection-metrics.ts";
import { addCells, type Bounds } from "./histogram.ts";
import { CONNECTION_FAMILIES, FAMILIES, type Family, type FamilyName, SEEN_BY_EACH } from "./metric-families.ts";
import type { MetricsSnapshot } from "./metrics-snapshot.ts";
import { requestSamples } from "./request-exposition.ts";
import { REQUEST_FAMILIES } from "./request-families.ts";

export type ExpositionFormat = "prometheus" | "openmetrics";

/** One metric as prom-client's registry renders it; labels that many samples share are given once. */
interface RegistryMetric {
  name: string;
  help: string;
  type: string;
  values: Sample[];
}
interface Sample {
  value: number;
  labels: Record<string, string | number>;
  sharedLabels?: object;
  metricName?: string;
}

/** A metric of this thread that is read when asked for. */
export interface GaugeSource {
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge";
  read(): number | null;
}

/** Label objects of keys seen before: equal keys share one object, and prom-client keeps its rendering by object. */
const LABEL_CACHE_MAX = 25_000;

export class Exposition {
  readonly #labels = new Map<readonly string[], Map<string, Record<string, string>>>();

  /** @param snapshots one per thread, the main thread's included. */
  async render(snapshots: readonly MetricsSnapshot[], sources: readonly GaugeSource[], format: ExpositionFormat): Promise<{ body: string; contentType: string }> {
    const registry = new Registry();
    if (format === "openmetrics") registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as unknown as Parameters<Registry["setContentType"]>[0]);
    const metrics = [...this.#connectionMetrics(snapshots), ...this.#requestMetrics(snapshots), ...this.#familyMetrics(snapshots), ...sourceMetrics(sources)];
    for (const metric of metrics) register(registry, metric);
    return { body: await registry.metrics(), contentType: registry.contentType };
  }

  #connectionMetrics(snapshots: readonly MetricsSnapshot[]): RegistryMetric[] {
    const merged = new Map<string, Float64Array>();
    for (const { connectionKeys, connectionValues } of snapshots) {
      connectionKeys.forEach((key, i) => {
        const values = connectionValues.subarray(i * CONNECTION_COLUMNS, (i + 1) * CONNECTION_COLUMNS);
        const sum = merged.get(key);
        if (sum === undefined) merged.set(key, values.slice());
        else addCells(sum, values);
      });
    }
    const make = ({ name, help }: { name: string; help: string }): RegistryMetric => ({ name, help, type: "counter", values: [] });
    const opened = make(CONNECTION_FAMILIES.opened);
    const closed = make(CONNECTION_FAMILIES.closed);
    const failed = make(CONNECTION_FAMILIES.failed);
    const sent = make(CONNECTION_FAMILIES.sentBytes);
    const received = make(CONNECTION_FAMILIES.receivedBytes);
    for (const [key, values] of merged) {
      const sharedLabels = this.#labelsOf(CONNECTION_LABEL_NAMES, key);
      const clean = { response_flags: "-" };
      opened.values.push({ value: values[0]!, labels: clean, sharedLabels });
      sent.values.push({ value: values[1]!, labels: clean, sharedLabels });
      received.values.push({ value: values[2]!, labels: clean, sharedLabels });
      RESPONSE_FLAGS.forEach((flag, i) => {
        const closedCount = values[3 + i]!;
        const failedCount = values[3 + RESPONSE_FLAGS.length + i]!;
        if (closedCount > 0 || i === 0) closed.values.push({ value: closedCount, labels: { response_flags: flag }, sharedLabels });
        if (failedCount > 0) failed.values.push({ value: failedCount, labels: { response_flags: flag }, sharedLabels });
      });
    }
    return [opened, closed, failed, sent, received];
  }

  /** None at all from a process that carries no requests. */
  #requestMetrics(snapshots: readonly MetricsSnapshot[]): RegistryMetric[] {
    if (!snapshots.some(({ requests }) => requests !== undefined)) return [];
    return [...requestSamples(snapshots, (names, key) => this.#labelsOf(names, key))].map(([name, samples]) => {
      const { type, bounds, help } = REQUEST_FAMILIES[name];
      const values = samples.flatMap(({ labels, cells }) => (bounds === null ? [{ value: cells[0]!, labels: {}, sharedLabels: labels }] : histogramSamples(name, bounds, cells, labels)));
      return { name, help, type, values };
    });
  }

  #familyMetrics(snapshots: readonly MetricsSnapshot[]): RegistryMetric[] {
    const cells = new Map<FamilyName, Map<string, number>>();
    const histograms = new Map<FamilyName, Map<string, Float64Array>>();
    for (const snapshot of snapshots) {
      for (const { name, keys, values } of snapshot.cells) {
        const merged = getOrMake(cells, name, () => new Map<string, number>());
        const seenByEach = SEEN_BY_EACH.has(name);
        keys.forEach((key, i) => merged.set(key, seenByEach ? Math.max(merged.get(key) ?? 0, values[i]!) : (merged.get(key) ?? 0) + values[i]!));
      }
      for (const { name, keys, values } of snapshot.histograms) {
        const merged = getOrMake(histograms, name, () => new Map<string, Float64Array>());
        keys.forEach((key, i) => {
          const sum = merged.get(key);
          if (sum === undefined) merged.set(key, values[i]!.slice());
          else addCells(sum, values[i]!);
        });
      }
    }
    const metrics: RegistryMetric[] = [];
    for (const [name, series] of cells) {
      const family: Family = FAMILIES[name];
      const values = [...series].map(([key, value]) => ({ value, labels: {}, sharedLabels: this.#labelsOf(family.labels, key) }));
      metrics.push({ name, help: family.help, type: family.type, values });
    }
    for (const [name, series] of histograms) {
      const family: Family = FAMILIES[name];
      const values = [...series].flatMap(([key, sum]) => histogramSamples(name, family.bounds!, sum, this.#labelsOf(family.labels, key)));
      metrics.push({ name, help: family.help, type: "histogram", values });
    }
    return metrics;
  }

  #labelsOf(names: readonly string[], key: string): Record<string, string> {
    const byKey = getOrMake(this.#labels, names, () => new Map<string, Record<string, string>>());
    const kept = byKey.get(key);
    if (kept !== undefined) return kept;
    const labels: Record<string, string> = {};
    const values = key.split(KEY_SEPARATOR);
    names.forEach((name, i) => (labels[name] = values[i] ?? "unknown"));
    if (byKey.size >= LABEL_CACHE_MAX) byKey.clear();
    byKey.set(key, labels);
    return labels;
  }
}

/** What the scraper's Accept header prefers; Prometheus text when it says nothing. */
export function negotiateFormat(accept: string | null): ExpositionFormat {
  let best: { format: ExpositionFormat; quality: number } = { format: "prometheus", quality: 0 };
  for (const range of (accept ?? "").slice(0, 1024).split(",")) {
    const [type, ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    const format: ExpositionFormat | null = type === "application/openmetrics-text" ? "openmetrics" : type === "text/plain" || type === "text/*" || type === "*/*" ? "prometheus" : null;
    if (format === null) continue;
    const quality = Number(parameters.find((each) => each.startsWith("q="))?.slice(2) ?? "1");
    if (quality > best.quality) best = { format, quality };
  }
  return best.format;
}

/** Whether a coding is acceptable by an Accept-Encoding header. */
export function acceptsGzip(acceptEncoding: string | null): boolean {
  for (const range of (acceptEncoding ?? "").slice(0, 1024).split(",")) {
    const [coding, ...parameters] = range.split(";").map((part) => part.trim().toLowerCase());
    if (coding !== "gzip" && coding !== "*") continue;
    return Number(parameters.find((each) => each.startsWith("q="))?.slice(2) ?? "1") > 0;
  }
  return false;
}

function histogramSamples(name: string, bounds: Bounds, cells: Float64Array, sharedLabels: object): Sample[] {
  const samples: Sample[] = [];
  let count = 0;
  for (let i = 0; i <= bounds.length; i++) {
    count += cells[i]!;
    samples.push({ metricName: `${name}_bucket`, value: count, labels: { le: i < bounds.length ? formatBound(bounds[i]!) : "+Inf" }, sharedLabels });
  }
  samples.push({ metricName: `${name}_sum`, value: cells[bounds.length + 1]!, labels: {}, sharedLabels });
  samples.push({ metricName: `${name}_count`, value: count, labels: {}, sharedLabels });
  return samples;
}

/** OpenMetrics' canonical number: `1.0`, not `1`. Prometheus reads both alike. */
function formatBound(bound: number): string {
  return Number.isInteger(bound) ? `${bound}.0` : String(bound);
}

function sourceMetrics(sources: readonly GaugeSource[]): RegistryMetric[] {
  const metrics: RegistryMetric[] = [];
  for (const { name, help, type, read } of sources) {
    const value = read();
    if (value !== null) metrics.push({ name, help, type, values: [{ value, labels: {} }] });
  }
  return metrics;
}

function register(registry: Registry, metric: RegistryMetric): void {
  const registered = { ...metric, get: async () => metric, getForPromString: async () => ({ ...metric, name: registered.name }) };
  registry.registerMetric(registered as unknown as Parameters<Registry["registerMetric"]>[0]);
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) map.set(key, (value = make()));
  return value;
}
