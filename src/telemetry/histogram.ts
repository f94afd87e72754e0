// A histogram of fixed buckets as one Float64Array: what the data path observes into, and what crosses to the main thread.

/** Upper bounds, ascending; the bucket above the last is implied. */
export type Bounds = readonly number[];

/** Seconds. From a hit in the pool on this node to a SYN that was sent four times. */
export const CONNECT_SECONDS: Bounds = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** Seconds. From a health probe to a database connection that lives for days. */
export const LIFETIME_SECONDS: Bounds = [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600, 21600, 86400];
/** Bytes. Powers of eight. */
export const SIZE_BYTES: Bounds = [64, 512, 4096, 32768, 262144, 2097152, 16777216, 134217728, 1073741824, 8589934592];
/** Seconds. The buckets of the reference's DNS histogram. */
export const DNS_SECONDS: Bounds = [0.0005, 0.001, 0.01, 0.1, 1, 5];

/** Milliseconds. The buckets that Istio's dashboards know from Envoy. */
export const REQUEST_MS: Bounds = [0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000];
/** Bytes of one body. From an empty one to more than anyone should send at once; powers of four. */
export const REQUEST_SIZE_BYTES: Bounds = [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864, 1_073_741_824];

/** `cells` holds one count per bound, one for everything above, and the sum of the values: bounds.length + 2 numbers. */
export class Histogram {
  readonly bounds: Bounds;
  readonly cells: Float64Array;

  constructor(bounds: Bounds, cells: Float64Array = new Float64Array(bounds.length + 2)) {
    this.bounds = bounds;
    this.cells = cells;
  }

  observe(value: number): void {
    const { bounds, cells } = this;
    let i = 0;
    while (i < bounds.length && value > bounds[i]!) i++;
    cells[i]!++;
    cells[bounds.length + 1]! += value;
  }
}

/** Adds the cells of another thread's histogram of the same bounds. */
export function addCells(into: Float64Array, from: Float64Array): void {
  if (into.length !== from.length) throw new Error(`histograms of ${into.length} and ${from.length} cells cannot be added`);
  for (let i = 0; i < into.length; i++) into[i]! += from[i]!;
}
