// What the data thread counts. A connection looks its counters up once and keeps the reference; from then on counting is an
// addition to a field. The number of series is bounded; what does not fit goes to one overflow series and is counted.

import type { Service } from "../mesh/records.ts";
import { connectionKey, type ConnectionLabels, overflowKey, type ReporterRole, RESPONSE_FLAGS } from "./connection-labels.ts";
import type { Histogram } from "./histogram.ts";
import { ByPair, LABEL_SET_IDLE_MS, type LabelSet, LabelSets, VARIANTS_MAX } from "./label-sets.ts";
import { type CellName, type HistogramName, type LabelsOf, SERIES_MAX } from "./metric-families.ts";
import { type Cell, MetricSeries } from "./metric-series.ts";
import type { MetricsSnapshot } from "./metrics-snapshot.ts";

export const LABEL_SETS_MAX = 10_000;

/** How a connection's bytes travel; a label of the histograms. */
export type ConnectionPath = "plain" | "tunnel" | "node_local";

/** The counters of one label set. Fields are added to directly; `closed` and `failed` are indexed by FLAG_INDEX. */
export class ConnectionCounters implements LabelSet {
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

export const CONNECTION_COLUMNS = 3 + 2 * RESPONSE_FLAGS.length;

export interface ConnectionMetricsOptions {
  readonly labelSetsMax?: number;
  readonly labelSetIdleMs?: number;
}

export class ConnectionMetrics {
  readonly #sets: LabelSets<ConnectionCounters>;
  readonly #byPair = new ByPair(() => new Map<string, ConnectionCounters>());
  readonly #series = new MetricSeries();
  readonly #routes = new Map<string, RouteHistograms>();

  constructor(options: ConnectionMetricsOptions = {}) {
    this.#sets = new LabelSets({
      max: options.labelSetsMax ?? LABEL_SETS_MAX, idleMs: options.labelSetIdleMs ?? LABEL_SET_IDLE_MS, make: (key) => new ConnectionCounters(key),
      onOverflow: () => void this.cell("weft_metric_series_overflowed_total", { family: "istio_tcp" }).value++,
    });
  }

  /**
   * The counters of a connection. Workload and service records are immutable, so the same objects have the same labels:
   * the usual case is three look-ups without building a label.
   */
  labelSet(labels: ConnectionLabels): ConnectionCounters {
    const byVariant = this.#variants(labels);
    const variant = variantKey(labels);
    const kept = byVariant?.get(variant);
    if (kept !== undefined && this.#sets.touch(kept)) return kept;
    const counters = this.#sets.get(connectionKey(labels), OVERFLOW[labels.reporter]);
    // The overflow series is not cached: there may be room the next time.
    if (byVariant !== null && counters.key !== OVERFLOW[labels.reporter]) byVariant.set(variant, counters);
    return counters;
  }

  /** A counter or gauge with its labels; look up once and keep. */
  cell<N extends CellName>(name: N, labels: LabelsOf<N>): Cell {
    return this.#series.cell(name, labels);
  }

  histogram<N extends HistogramName>(name: N, labels: LabelsOf<N>): Histogram {
    return this.#series.histogram(name, labels);
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
    const evicted = this.#sets.tick(nowMs);
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
    return { connectionKeys, connectionValues, cells: this.#series.snapshotCells(), histograms: this.#series.snapshotHistograms() };
  }

  #variants({ source, destination }: ConnectionLabels): Map<string, ConnectionCounters> | null {
    if (source === null && destination === null) return null;
    const byVariant = this.#byPair.of(source, destination);
    if (byVariant.size > VARIANTS_MAX) byVariant.clear();
    return byVariant;
  }
}

const OVERFLOW: Readonly<Record<ReporterRole, string>> = { source: overflowKey("source"), destination: overflowKey("destination"), waypoint: overflowKey("waypoint") };

/** What else the labels depend on, once both workloads are given. */
function variantKey(labels: ConnectionLabels): string {
  const { reporter, service, sourceIdentity, destinationIdentity, mutualTls, sourceDescription: peer } = labels;
  const end = `${reporter}${mutualTls ? "+" : "-"}${service === null ? "" : `${service.namespace}/${service.hostname}`} ${sourceIdentity} ${destinationIdentity}`;
  return peer === null || peer === undefined ? end : `${end} ${connectionKey(labels)}`;
}
