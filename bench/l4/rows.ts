// The rows of the L4 table, with the target of each: the ratio of ours to the reference ztunnel that counts as met.

export interface Row {
  readonly name: string;
  readonly title: string;
  readonly unit: string;
  readonly better: "higher" | "lower";
  /** Ratio ours / ztunnel that counts as met; absent for figures that are told and not judged. */
  readonly target?: number;
}

/** These names are the contract of `--json`. */
export const ROWS: readonly Row[] = [
  { name: "throughput", title: "bulk throughput, one stream", unit: "Gb/s", better: "higher", target: 1.1 },
  { name: "throughput_8", title: "bulk throughput, eight streams", unit: "Gb/s", better: "higher", target: 1.1 },
  { name: "rps_64", title: "HTTP/1.1 keep-alive, 64 connections", unit: "req/s", better: "higher", target: 1.5 },
  { name: "cpu_per_request_64", title: "processor time of both proxies per request, 64 connections", unit: "us", better: "lower", target: 0.5 },
  { name: "connections_per_s", title: "new connections", unit: "1/s", better: "higher", target: 1.5 },
  { name: "p99_1", title: "p99 latency, one connection", unit: "ms", better: "lower", target: 1.0 },
  { name: "p99_64", title: "p99 latency, 64 connections", unit: "ms", better: "lower", target: 0.7 },
  { name: "first_connection_ms", title: "first byte of the first connection ever", unit: "ms", better: "lower", target: 0.5 },
  { name: "idle_memory_10k", title: "resident memory (RSS) per proxy, 10 000 idle connections", unit: "MB", better: "lower", target: 1.0 },
  { name: "same_node_throughput", title: "same node: bulk throughput, one stream", unit: "Gb/s", better: "higher", target: 2.5 },
  { name: "same_node_cpu_per_request", title: "same node: processor time per request, 64 connections", unit: "us", better: "lower", target: 0.5 },
];

/** Printed below the table, not in `--json`. */
export const EXTRA_ROWS: readonly Row[] = [
  { name: "cpu_s_per_gb", title: "processor time of both proxies per GB, one stream", unit: "s", better: "lower" },
  { name: "rps_1", title: "HTTP/1.1 keep-alive, one connection", unit: "req/s", better: "higher" },
  { name: "p50_1", title: "p50 latency, one connection", unit: "ms", better: "lower" },
  { name: "p50_64", title: "p50 latency, 64 connections", unit: "ms", better: "lower" },
  { name: "cpu_per_connection", title: "processor time of both proxies per connection", unit: "us", better: "lower" },
  { name: "same_node_rps_64", title: "same node: HTTP/1.1 keep-alive, 64 connections", unit: "req/s", better: "higher" },
  { name: "system_calls_per_request", title: "system calls of both proxies per request, 64 connections", unit: "calls", better: "lower" },
  { name: "system_calls_per_connection", title: "system calls of both proxies per connection, 64 at a time", unit: "calls", better: "lower" },
  { name: "idle_bytes_per_connection", title: "anonymous memory per idle connection and proxy", unit: "bytes", better: "lower" },
  { name: "idle_memory_10k_pss", title: "proportional memory (PSS) per proxy, 10 000 idle connections", unit: "MB", better: "lower" },
  { name: "idle_memory_10k_anonymous", title: "anonymous memory per proxy, 10 000 idle connections", unit: "MB", better: "lower" },
  { name: "rest_memory", title: "RSS per proxy after the load, before those connections", unit: "MB", better: "lower" },
  { name: "rest_memory_pss", title: "PSS per proxy at that time", unit: "MB", better: "lower" },
  { name: "rest_memory_anonymous", title: "anonymous memory per proxy at that time", unit: "MB", better: "lower" },
];

/** Whose ratio the targets are about. */
export const REFERENCE_PEER = "ztunnel";
export const OUR_PEER = "weft";

/** Whether a ratio meets the row's target; null when the row has none. */
export function meetsTarget(row: Row, ratio: number): boolean | null {
  if (row.target === undefined) return null;
  return row.better === "higher" ? ratio >= row.target : ratio <= row.target;
}

export function describeTarget(row: Row): string {
  if (row.target === undefined) return "";
  return `${row.better === "higher" ? ">=" : "<="} ${row.target}`;
}
