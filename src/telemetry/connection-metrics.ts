// What the data thread counts. A connection looks its counters up once and keeps the reference; from then on counting is an
// addition to a field. The number of series is bounded; what does not fit goes to one overflow series and is counted.

import type { Service, Workload } from "../mesh/records.ts";
import {
  clean, connectionKey, type ConnectionLabels, KEY_SEPARATOR, overflowKey, type ReporterRole, RESPONSE_FLAGS,
} from "./connection-labels.ts";
import { Histogram } from "./histogram.ts";
import { type CellName, FAMILIES, type FamilyName, type HistogramName, type LabelsOf, SERIES_MAX } from "./metric-families.ts";

export const LABEL_SETS_MAX = 10_000;
/** A label set without an open connection is dropped when it was not looked up for this long. */
export const LABEL_SET_IDLE_MS = 3_600_000;
/** Disuse is measured in steps of this. */
const GENERATION_MS = 60_000;

/** How a connection's bytes travel; a label of the histograms. */
export type ConnectionPath = "plain" | "tunnel" | "node_local";

/** The counters of one label set. Fields are added to directly; `closed` and `failed` are indexed by FLAG_INDEX. */
export class ConnectionCounters {
  readonly key: string;
  opened = 0;
  /** Connections open now: keeps the set from being dropped. */
  open = 0;
  /** Bytes towards the client. */
  sentBytes = 0;
  /** Bytes from the client. */
  receivedBytes = 0;
  readonly closed = new Float64Array(RESPONSE_FLAGS.length);
  readonly failed = new Float64Array(RESPONSE_FLAGS.length);
  /** Minute of the last look-up. */
  generation = 0;
  evicted = false;

  constructor(key: string) {
    this.key = key;
  }
}

/** The histograms of one route; shared by all its label sets. */
export interface RouteHistograms {
  readonly connectSeconds: Histogram;
  readonly sentBytes: Histogram;
  readonly receivedBytes: Histogram;
  readonly durationSeconds: Histogram;
}

/** A counter or gauge; add to `value`, or set it. */
export interface Cell {
  value: number;
}

/** Plain data, so that it crosses thread borders by structured clone. */
export interface MetricsSnapshot {
  /** CONNECTION_LABEL_NAMES values joined by KEY_SEPARATOR, one per label set. */
  readonly connectionKeys: readonly string[];
  /** CONNECTION_COLUMNS numbers per label set: opened, sent, received, then closed and failed by flag. */
  readonly connectionValues: Float64Array;
  readonly cells: readonly FamilySnapshot<number>[];
  readonly histograms: readonly FamilySnapshot<Float64Array>[];
}
/** The values of `keys` are the family's labels in its order, joined by KEY_SEPARATOR. */
export interface FamilySnapshot<V> {
  readonly name: FamilyName;
  readonly keys: readonly string[];
  readonly values: readonly V[];
}

export const CONNECTION_COLUMNS = 3 + 2 * RESPONSE_FLAGS.length;

export interface ConnectionMetricsOptions {
  readonly labelSetsMax?: number;
  readonly labelSetIdleMs?: number;
}

type PairCache = WeakMap<object, WeakMap<object, Map<string, ConnectionCounters>>>;
/** Stands for an end that is not known, in the caches keyed by workload. */
const NOBODY: object = Object.freeze({});

export class ConnectionMetrics {
  readonly #labelSetsMax: number;
  readonly #idleGenerations: number;
  readonly #sets = new Map<string, ConnectionCounters>();
  readonly #byPair: PairCache = new WeakMap();
  readonly #cells = new Map<CellName, Map<string, Cell>>();
  readonly #histograms = new Map<HistogramName, Map<string, Histogram>>();
  readonly #routes = new Map<string, RouteHistograms>();
  #generation = 0;

  constructor(options: ConnectionMetricsOptions = {}) {
    this.#labelSetsMax = options.labelSetsMax ?? LABEL_SETS_MAX;
    this.#idleGenerations = Math.ceil((options.labelSetIdleMs ?? LABEL_SET_IDLE_MS) / GENERATION_MS);
  }

  /**
   * The counters of a connection. Workload and service records are immutable, so the same objects have the same labels:
   * the usual case is three look-ups without building a label.
   */
  labelSet(labels: ConnectionLabels): ConnectionCounters {
    const byVariant = this.#variants(labels.source, labels.destination);
    const variant = variantKey(labels);
    const kept = byVariant?.get(variant);
    if (kept !== undefined && !kept.evicted) {
      kept.generation = this.#generation;
      return kept;
    }
    const counters = this.#bySet(labels);
    // The overflow series is not cached: there may be room the next time.
    if (byVariant !== null && counters.key !== OVERFLOW[labels.reporter]) byVariant.set(variant, counters);
    return counters;
  }

  /** A counter or gauge with its labels; look up once and keep. */
  cell<N extends CellName>(name: N, labels: LabelsOf<N>): Cell {
    let cells = this.#cells.get(name);
    if (cells === undefined) this.#cells.set(name, (cells = new Map()));
    return this.#bounded(cells, name, familyKey(name, labels), () => ({ value: 0 }));
  }

  histogram<N extends HistogramName>(name: N, labels: LabelsOf<N>): Histogram {
    let histograms = this.#histograms.get(name);
    if (histograms === undefined) this.#histograms.set(name, (histograms = new Map()));
    return this.#bounded(histograms, name, familyKey(name, labels), () => new Histogram(FAMILIES[name].bounds));
  }

  /** The histograms that a connection is observed into; look up once per connection. */
  route(reporter: ReporterRole, path: ConnectionPath, service: Service | null): RouteHistograms {
    const key = service === null ? `${reporter}${path}` : `${reporter}${path}${service.namespace}/${service.name}`;
    const kept = this.#routes.get(key);
    if (kept !== undefined) return kept;
    const labels = {
      reporter, path, destination_service_namespace: service?.namespace ?? "unknown", destination_service_name: service?.name ?? "unknown",
    };
    const route: RouteHistograms = {
      connectSeconds: this.histogram("weft_connect_duration_seconds", labels),
      sentBytes: this.histogram("weft_connection_bytes", { ...labels, direction: "sent" }),
      receivedBytes: this.histogram("weft_connection_bytes", { ...labels, direction: "received" }),
      durationSeconds: this.histogram("weft_connection_duration_seconds", labels),
    };
    if (this.#routes.size < SERIES_MAX) this.#routes.set(key, route);
    return route;
  }

  /** Call about once a minute or more often: drops label sets in disuse. */
  tick(nowMs: number): void {
    const generation = Math.floor(nowMs / GENERATION_MS);
    if (generation === this.#generation) return;
    this.#generation = generation;
    let evicted = 0;
    for (const [key, counters] of this.#sets) {
      if (counters.open > 0) {
        counters.generation = generation;
      } else if (generation - counters.generation > this.#idleGenerations) {
        counters.evicted = true;
        this.#sets.delete(key);
        evicted++;
      }
    }
    if (evicted > 0) this.cell("weft_metric_series_evicted_total", {}).value += evicted;
  }

  get labelSetCount(): number {
    return this.#sets.size;
  }

  snapshot(): MetricsSnapshot {
    this.cell("weft_metric_series", {}).value = this.#sets.size;
    const connectionKeys: string[] = [];
    const connectionValues = new Float64Array(this.#sets.size * CONNECTION_COLUMNS);
    let at = 0;
    for (const counters of this.#sets.values()) {
      connectionKeys.push(counters.key);
      connectionValues[at] = counters.opened;
      connectionValues[at + 1] = counters.sentBytes;
      connectionValues[at + 2] = counters.receivedBytes;
      connectionValues.set(counters.closed, at + 3);
      connectionValues.set(counters.failed, at + 3 + RESPONSE_FLAGS.length);
      at += CONNECTION_COLUMNS;
    }
    const cells = [...this.#cells].map(([name, series]) => ({ name, keys: [...series.keys()], values: [...series.values()].map((cell) => cell.value) }));
    const histograms = [...this.#histograms].map(([name, series]) => ({
      name, keys: [...series.keys()], values: [...series.values()].map((histogram) => histogram.cells.slice()),
    }));
    return { connectionKeys, connectionValues, cells, histograms };
  }

  #variants(source: Workload | null, destination: Workload | null): Map<string, ConnectionCounters> | null {
    if (source === null && destination === null) return null;
    let bySource = this.#byPair.get(source ?? NOBODY);
    if (bySource === undefined) this.#byPair.set(source ?? NOBODY, (bySource = new WeakMap()));
    let byVariant = bySource.get(destination ?? NOBODY);
    if (byVariant === undefined) bySource.set(destination ?? NOBODY, (byVariant = new Map()));
    // Identities of unknown sources come from outside: one destination may not gather them without end.
    if (byVariant.size > VARIANTS_MAX) byVariant.clear();
    return byVariant;
  }

  #bySet(labels: ConnectionLabels): ConnectionCounters {
    let key = connectionKey(labels);
    let counters = this.#sets.get(key);
    if (counters === undefined && this.#sets.size >= this.#labelSetsMax) {
      this.cell("weft_metric_series_overflowed_total", { family: "istio_tcp" }).value++;
      key = OVERFLOW[labels.reporter];
      counters = this.#sets.get(key);
    }
    if (counters === undefined) this.#sets.set(key, (counters = new ConnectionCounters(key)));
    counters.generation = this.#generation;
    return counters;
  }

  #bounded<V>(series: Map<string, V>, name: FamilyName, key: string, make: () => V): V {
    const kept = series.get(key);
    if (kept !== undefined) return kept;
    if (series.size >= SERIES_MAX) {
      if (name !== "weft_metric_series_overflowed_total") this.cell("weft_metric_series_overflowed_total", { family: name }).value++;
      key = FAMILIES[name].labels.map(() => "overflow").join(KEY_SEPARATOR);
      const overflow = series.get(key);
      if (overflow !== undefined) return overflow;
    }
    const made = make();
    series.set(key, made);
    return made;
  }
}

const VARIANTS_MAX = 64;
const OVERFLOW: Readonly<Record<ReporterRole, string>> = { source: overflowKey("source"), destination: overflowKey("destination") };

/** What else the labels depend on, once both workloads are given. */
function variantKey(labels: ConnectionLabels): string {
  const { reporter, service, sourceIdentity, destinationIdentity, mutualTls, sourceDescription: peer } = labels;
  const end = `${reporter}${mutualTls ? "+" : "-"}${service === null ? "" : `${service.namespace}/${service.hostname}`} ${sourceIdentity} ${destinationIdentity}`;
  return peer === null || peer === undefined ? end : `${end} ${connectionKey(labels)}`;
}

function familyKey<N extends FamilyName>(name: N, labels: LabelsOf<N>): string {
  const names: readonly string[] = FAMILIES[name].labels;
  if (names.length === 0) return "";
  return names.map((label) => clean((labels as Readonly<Record<string, string>>)[label] ?? "unknown")).join(KEY_SEPARATOR);
}
