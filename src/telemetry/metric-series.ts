// The counters, gauges and histograms of one thread by family and labels, each family bounded by SERIES_MAX. Look up once and keep.

import { clean, KEY_SEPARATOR } from "./connection-labels.ts";
import { Histogram } from "./histogram.ts";
import { type CellName, FAMILIES, type FamilyName, type HistogramName, type LabelsOf, SERIES_MAX } from "./metric-families.ts";

/** A counter or gauge; add to `value`, or set it. */
export interface Cell {
  value: number;
}

/** The values of `keys` are the family's labels in its order, joined by KEY_SEPARATOR. Plain data. */
export interface FamilySnapshot<V> {
  readonly name: FamilyName;
  readonly keys: readonly string[];
  readonly values: readonly V[];
}

export class MetricSeries {
  readonly #cells = new Map<CellName, Map<string, Cell>>();
  readonly #histograms = new Map<HistogramName, Map<string, Histogram>>();

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

  /** Takes gauges of things that are gone out of sight. */
  clear(name: CellName): void {
    this.#cells.delete(name);
  }

  snapshotCells(): FamilySnapshot<number>[] {
    return [...this.#cells].map(([name, series]) => ({ name, keys: [...series.keys()], values: [...series.values()].map((cell) => cell.value) }));
  }

  snapshotHistograms(): FamilySnapshot<Float64Array>[] {
    return [...this.#histograms].map(([name, series]) => ({ name, keys: [...series.keys()], values: [...series.values()].map((histogram) => histogram.cells.slice()) }));
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

function familyKey<N extends FamilyName>(name: N, labels: LabelsOf<N>): string {
  const names: readonly string[] = FAMILIES[name].labels;
  if (names.length === 0) return "";
  return names.map((label) => clean((labels as Readonly<Record<string, string>>)[label] ?? "unknown")).join(KEY_SEPARATOR);
}
