// The metrics of requests from the snapshots of all threads to samples: summed, then shaped as Telemetry resources ask. Label sets that a
// shape makes equal are one series.

import { KEY_SEPARATOR } from "./connection-labels.ts";
import { addCells } from "./histogram.ts";
import type { MetricsShape } from "./metrics-shape.ts";
import type { MetricsSnapshot } from "./metrics-snapshot.ts";
import { REQUEST_FAMILIES, REQUEST_FAMILY_NAMES, REQUEST_LABEL_NAMES, type RequestFamilyName } from "./request-families.ts";
import { REQUEST_COLUMNS } from "./request-metrics.ts";

/** One label set of one family; `cells` are one number for a counter, a histogram's cells otherwise. */
export interface RequestSample {
  readonly labels: Readonly<Record<string, string>>;
  readonly cells: Float64Array;
}

interface Merged {
  readonly key: string;
  readonly shape: MetricsShape | null;
  readonly values: Float64Array;
}

/** @param labelsOf kept objects for keys seen before: equal keys give the same object. */
export function requestSamples(snapshots: readonly MetricsSnapshot[], labelsOf: (names: readonly string[], key: string) => Record<string, string>): Map<RequestFamilyName, RequestSample[]> {
  const merged = merge(snapshots);
  const shaped = merged.some(({ shape }) => shape !== null);
  return new Map(REQUEST_FAMILY_NAMES.map((name) => [name, shaped ? shapedSamples(name, merged, labelsOf) : plainSamples(name, merged, labelsOf)]));
}

function merge(snapshots: readonly MetricsSnapshot[]): Merged[] {
  const merged = new Map<string, Merged>();
  for (const { requests } of snapshots) {
    requests?.keys.forEach((key, i) => {
      const values = requests.values.subarray(i * REQUEST_COLUMNS.count, (i + 1) * REQUEST_COLUMNS.count);
      const shape = requests.shapes[requests.shapeOf[i]!] ?? null;
      const id = shape === null ? key : `${key}\x1e${shape.id}`;
      const sum = merged.get(id);
      if (sum === undefined) merged.set(id, { key, shape, values: values.slice() });
      else addCells(sum.values, values);
    });
  }
  return [...merged.values()];
}

type LabelsOf = Parameters<typeof requestSamples>[1];

function plainSamples(name: RequestFamilyName, merged: readonly Merged[], labelsOf: LabelsOf): RequestSample[] {
  return merged.filter((set) => counts(name, set)).map(({ key, values }) => ({ labels: labelsOf(REQUEST_LABEL_NAMES, key), cells: cellsOf(name, values) }));
}

function shapedSamples(name: RequestFamilyName, merged: readonly Merged[], labelsOf: LabelsOf): RequestSample[] {
  const samples = new Map<string, RequestSample>();
  for (const set of merged) {
    const { key, shape, values } = set;
    const family = shape?.families[name];
    if (family?.disabled === true || !counts(name, set)) continue;
    const labels = family === undefined ? labelsOf(REQUEST_LABEL_NAMES, key) : { ...labelsOf(REQUEST_LABEL_NAMES, key), ...Object.fromEntries(family.set) };
    if (family !== undefined) for (const label of family.removed) delete labels[label];
    const id = Object.keys(labels).sort().map((label) => `${label}=${labels[label]}`).join(KEY_SEPARATOR);
    const sample = samples.get(id);
    if (sample === undefined) samples.set(id, { labels, cells: cellsOf(name, values).slice() });
    else addCells(sample.cells, cellsOf(name, values));
  }
  return [...samples.values()];
}

/** What never counted is not shown: messages where there are none, histograms that were shared. */
function counts(name: RequestFamilyName, { values }: Merged): boolean {
  const { bounds } = REQUEST_FAMILIES[name];
  const at = REQUEST_COLUMNS[name];
  for (let i = at; i <= at + (bounds?.length ?? 0); i++) if (values[i]! > 0) return true;
  return false;
}

function cellsOf(name: RequestFamilyName, values: Float64Array): Float64Array {
  const at = REQUEST_COLUMNS[name];
  const { bounds } = REQUEST_FAMILIES[name];
  return values.subarray(at, at + (bounds === null ? 1 : bounds.length + 2));
}
