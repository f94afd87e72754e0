// What a data thread counts of requests. The same two ends, service and outcome are found by comparing references, so that a request in
// the usual case costs two look-ups and a few additions; no label is built. Bounded as the metrics of connections are.

import type { SpiffeId } from "../core/spiffe.ts";
import type { Service } from "../mesh/records.ts";
import { clean, CONNECTION_LABEL_NAMES, KEY_SEPARATOR, labelValues, type PeerDescription } from "./connection-labels.ts";
import { Histogram } from "./histogram.ts";
import { ByPair, LABEL_SET_IDLE_MS, type LabelSet, LabelSets, VARIANTS_MAX } from "./label-sets.ts";
import type { MetricsShape } from "./metrics-shape.ts";
import type { RequestSnapshot } from "./metrics-snapshot.ts";
import { REQUEST_FAMILIES, REQUEST_LABEL_NAMES } from "./request-families.ts";
import type { RequestRecord } from "./request-record.ts";

/** Each has a line of a kilobyte in what a scraper reads. */
export const REQUEST_SETS_MAX = 2_000;
/** Label sets with histograms of their own. Each has fifty lines more: 500 of them make 25 MB, which is what a scraper may be given. */
export const REQUEST_HISTOGRAMS_MAX = 500;

const DURATION_BOUNDS = REQUEST_FAMILIES.istio_request_duration_milliseconds.bounds;
const SIZE_BOUNDS = REQUEST_FAMILIES.istio_request_bytes.bounds;
const DURATION_CELLS = DURATION_BOUNDS.length + 2;
const SIZE_CELLS = SIZE_BOUNDS.length + 2;
const COUNTS = 3;

/** Where in the numbers of one label set each family stands. */
export const REQUEST_COLUMNS = {
  istio_requests_total: 0,
  istio_request_messages_total: 1,
  istio_response_messages_total: 2,
  istio_request_duration_milliseconds: COUNTS,
  istio_request_bytes: COUNTS + DURATION_CELLS,
  istio_response_bytes: COUNTS + DURATION_CELLS + SIZE_CELLS,
  count: COUNTS + DURATION_CELLS + 2 * SIZE_CELLS,
} as const;

class RequestHistograms {
  readonly durationMs = new Histogram(DURATION_BOUNDS);
  readonly requestBytes = new Histogram(SIZE_BOUNDS);
  readonly responseBytes = new Histogram(SIZE_BOUNDS);

  add(r: RequestRecord): void {
    this.durationMs.observe(r.endedMs - r.startedMs);
    this.requestBytes.observe(r.requestBytes);
    this.responseBytes.observe(r.responseBytes);
  }

  copyTo(into: Float64Array): void {
    into.set(this.durationMs.cells, REQUEST_COLUMNS.istio_request_duration_milliseconds);
    into.set(this.requestBytes.cells, REQUEST_COLUMNS.istio_request_bytes);
    into.set(this.responseBytes.cells, REQUEST_COLUMNS.istio_response_bytes);
  }
}

/** The counters of one label set. */
class RequestSeries implements LabelSet {
  readonly key: string;
  readonly labels: string;
  readonly shape: MetricsShape | null;
  /** Its own, or those that all share who came too late. */
  readonly histograms: RequestHistograms;
  readonly open = 0;
  generation = 0;
  evicted = false;
  count = 0;
  requestMessages = 0;
  responseMessages = 0;

  constructor(key: string, labels: string, shape: MetricsShape | null, histograms: RequestHistograms) {
    this.key = key;
    this.labels = labels;
    this.shape = shape;
    this.histograms = histograms;
  }

  add(r: RequestRecord): void {
    this.count++;
    this.requestMessages += r.requestMessages;
    this.responseMessages += r.responseMessages;
    this.histograms.add(r);
  }

  /** Without its histograms. */
  copyTo(into: Float64Array): void {
    into[REQUEST_COLUMNS.istio_requests_total] = this.count;
    into[REQUEST_COLUMNS.istio_request_messages_total] = this.requestMessages;
    into[REQUEST_COLUMNS.istio_response_messages_total] = this.responseMessages;
  }
}

/** Everything that the labels of a request depend on but its outcome and its two workloads. */
interface Variant {
  readonly service: Service | null;
  readonly sourceIdentity: SpiffeId | null;
  readonly endpointIdentity: SpiffeId | null;
  readonly peer: PeerDescription | null;
  readonly mutualTls: boolean;
  readonly isGrpc: boolean;
  readonly shape: MetricsShape | null;
  /** By `outcomeNumber`; requests with a flag by text. */
  readonly clean: Map<number, RequestSeries>;
  readonly flagged: Map<string, RequestSeries>;
}

export interface RequestMetricsOptions {
  readonly setsMax?: number;
  readonly histogramsMax?: number;
  readonly idleMs?: number;
  /** Told of each look-up that found no room. */
  readonly onOverflow: (what: "istio_requests" | "istio_request_histograms") => void;
}

const SHAPE_SEPARATOR = "\x1e";
const OVERFLOW_KEY = ["waypoint", ...REQUEST_LABEL_NAMES.slice(1).map(() => "overflow")].join(KEY_SEPARATOR);
const NO_GRPC_STATUS = 31;
/** Outcomes that one variant keeps by reference: more than any sane service has. */
const OUTCOMES_MAX = 256;

export class RequestMetrics {
  readonly #sets: LabelSets<RequestSeries>;
  readonly #byPair = new ByPair<Variant[]>(() => []);
  readonly #histogramsMax: number;
  readonly #onOverflow: RequestMetricsOptions["onOverflow"];
  /** Of sets that found no room for their own. */
  readonly #sharedHistograms = new RequestHistograms();
  #ownHistograms = 0;
  /** Of the set that is being looked up: what `make` cannot see in its key. */
  #labels = "";
  #shape: MetricsShape | null = null;

  constructor(options: RequestMetricsOptions) {
    this.#histogramsMax = options.histogramsMax ?? REQUEST_HISTOGRAMS_MAX;
    this.#onOverflow = options.onOverflow;
    this.#sets = new LabelSets({
      max: options.setsMax ?? REQUEST_SETS_MAX, idleMs: options.idleMs ?? LABEL_SET_IDLE_MS, onOverflow: () => options.onOverflow("istio_requests"),
      make: (key) => (key === OVERFLOW_KEY ? new RequestSeries(key, key, null, this.#sharedHistograms) : new RequestSeries(key, this.#labels, this.#shape, this.#histograms())),
    });
  }

  get size(): number {
    return this.#sets.size;
  }

  add(r: RequestRecord): void {
    const { metrics } = r.telemetry;
    if (metrics !== null && metrics.nothing) return;
    this.#seriesOf(r).add(r);
  }

  /** Returns how many sets were dropped for disuse. */
  tick(nowMs: number): number {
    const evicted = this.#sets.tick(nowMs);
    if (evicted > 0) {
      this.#ownHistograms = 0;
      for (const { histograms } of this.#sets.values()) if (histograms !== this.#sharedHistograms) this.#ownHistograms++;
    }
    return evicted;
  }

  snapshot(): RequestSnapshot {
    const keys: string[] = [];
    const shapeOf: number[] = [];
    const shapes: MetricsShape[] = [];
    // One more for the histograms that are shared: they belong to the overflow's labels.
    const values = new Float64Array((this.#sets.size + 1) * REQUEST_COLUMNS.count);
    let at = 0;
    for (const series of this.#sets.values()) {
      keys.push(series.labels);
      shapeOf.push(series.shape === null ? -1 : indexOf(shapes, series.shape));
      const own = values.subarray(at, (at += REQUEST_COLUMNS.count));
      series.copyTo(own);
      if (series.histograms !== this.#sharedHistograms) series.histograms.copyTo(own);
    }
    keys.push(OVERFLOW_KEY);
    shapeOf.push(-1);
    this.#sharedHistograms.copyTo(values.subarray(at));
    return { keys, shapeOf, shapes, values };
  }

  #histograms(): RequestHistograms {
    if (this.#ownHistograms >= this.#histogramsMax) {
      this.#onOverflow("istio_request_histograms");
      return this.#sharedHistograms;
    }
    this.#ownHistograms++;
    return new RequestHistograms();
  }

  #seriesOf(r: RequestRecord): RequestSeries {
    const variant = this.#variantOf(r);
    const isClean = r.flags === "-";
    const outcome = r.status * 32 + (r.grpcStatus ?? NO_GRPC_STATUS);
    const kept = isClean ? variant.clean.get(outcome) : variant.flagged.get(`${r.flags} ${outcome}`);
    if (kept !== undefined && this.#sets.touch(kept)) return kept;
    const series = this.#look(r, variant.shape);
    // The overflow series is not kept: there may be room the next time.
    if (series.key !== OVERFLOW_KEY && variant.clean.size + variant.flagged.size < OUTCOMES_MAX) {
      if (isClean) variant.clean.set(outcome, series);
      else variant.flagged.set(`${r.flags} ${outcome}`, series);
    }
    return series;
  }

  #variantOf(r: RequestRecord): Variant {
    const variants = this.#byPair.of(r.source, r.endpoint);
    const { metrics: shape } = r.telemetry;
    for (const variant of variants) {
      if (
        variant.service === r.service && variant.sourceIdentity === r.sourceIdentity && variant.endpointIdentity === r.endpointIdentity && variant.mutualTls === r.mutualTls &&
        variant.isGrpc === r.isGrpc && variant.shape === shape && variant.peer === r.sourceDescription
      ) return variant;
    }
    if (variants.length >= VARIANTS_MAX) variants.length = 0;
    const made: Variant = {
      service: r.service, sourceIdentity: r.sourceIdentity, endpointIdentity: r.endpointIdentity, peer: r.sourceDescription, mutualTls: r.mutualTls, isGrpc: r.isGrpc, shape,
      clean: new Map(), flagged: new Map(),
    };
    variants.push(made);
    return made;
  }

  #look(r: RequestRecord, shape: MetricsShape | null): RequestSeries {
    const values = labelValues({
      reporter: "waypoint", source: r.source, destination: r.endpoint, service: r.service, sourceIdentity: r.sourceIdentity, destinationIdentity: r.endpointIdentity,
      mutualTls: r.mutualTls, sourceDescription: r.sourceDescription,
    }, r.isGrpc ? "grpc" : "http");
    // Empty, as Istio has it, where no gRPC status was given.
    values.push(String(r.status), r.grpcStatus === null ? "" : String(r.grpcStatus), clean(r.flags));
    if (shape !== null) REQUEST_LABEL_NAMES.forEach((name, i) => {
      const fixed = shape.common[name];
      if (fixed !== undefined) values[i] = clean(fixed ?? "");
    });
    this.#labels = values.join(KEY_SEPARATOR);
    this.#shape = shape;
    return this.#sets.get(shape === null ? this.#labels : this.#labels + SHAPE_SEPARATOR + shape.id, OVERFLOW_KEY);
  }
}

function indexOf(shapes: MetricsShape[], shape: MetricsShape): number {
  const at = shapes.findIndex(({ id }) => id === shape.id);
  return at >= 0 ? at : shapes.push(shape) - 1;
}

if (REQUEST_LABEL_NAMES.length !== CONNECTION_LABEL_NAMES.length + 3) throw new Error("the labels of requests are those of connections and three more");
