// What one thread has counted, as plain data: it crosses thread borders by structured clone.

import type { FamilySnapshot } from "./metric-series.ts";
import type { MetricsShape } from "./metrics-shape.ts";

export interface MetricsSnapshot {
  /** CONNECTION_LABEL_NAMES values joined by KEY_SEPARATOR, one per label set. */
  readonly connectionKeys: readonly string[];
  /** CONNECTION_COLUMNS numbers per label set: opened, sent, received, then closed and failed by flag. */
  readonly connectionValues: Float64Array;
  readonly cells: readonly FamilySnapshot<number>[];
  readonly histograms: readonly FamilySnapshot<Float64Array>[];
  /** Of threads that carry requests. */
  readonly requests?: RequestSnapshot;
}

export interface RequestSnapshot {
  /** REQUEST_LABEL_NAMES values joined by KEY_SEPARATOR, one per label set. */
  readonly keys: readonly string[];
  /** For each label set where in `shapes` its shape stands; -1 for none. */
  readonly shapeOf: readonly number[];
  readonly shapes: readonly MetricsShape[];
  /** REQUEST_COLUMNS numbers per label set: see `requestColumns`. */
  readonly values: Float64Array;
}
