// The rows of the table, and what each is called.

import { SERIES } from "./features.ts";
import type { Protocol } from "./peer.ts";

export const PROTOCOLS: readonly Protocol[] = ["h1", "h2", "grpc"];
export const CONNECTIONS = [1, 64, 1024] as const;

/** What can be run alone. */
export const SERIES_NAMES: readonly string[] = ["plain", ...Object.keys(SERIES)];

export interface L7Row {
  readonly name: string;
  readonly unit: string;
  /** What to compare the ratio with; null: shown to understand the others. */
  readonly target: string | null;
}

/** Of one closed loop. */
const ofRun = (run: string, rpsTarget: string | null): L7Row[] => [
  { name: `${run}_rps`, unit: "req/s", target: rpsTarget }, { name: `${run}_p50`, unit: "ms", target: null }, { name: `${run}_p99`, unit: "ms", target: null },
  { name: `${run}_p999`, unit: "ms", target: null }, { name: `${run}_cpu_per_request`, unit: "us", target: null },
];

const ofMemory = (row: string, target: string): L7Row[] => [
  { name: row, unit: "MB", target }, { name: `${row}_pss`, unit: "MB", target: null }, { name: `${row}_anonymous`, unit: "MB", target: null },
];

export const L7_ROWS: readonly L7Row[] = [
  ...PROTOCOLS.flatMap((protocol) => CONNECTIONS.flatMap((connections) => ofRun(`${protocol}_${connections}`, ">= 2"))),
  { name: "open_rate", unit: "req/s", target: null }, { name: "open_p50", unit: "ms", target: null }, { name: "open_p99", unit: "ms", target: "<= 0.7" }, { name: "open_p999", unit: "ms", target: null },
  { name: "open_cpu_per_request", unit: "us", target: null },
  { name: "bulk_throughput", unit: "Gb/s", target: null }, { name: "bulk_cpu_per_gb", unit: "s", target: null },
  ...Object.keys(SERIES).flatMap((series) => ofRun(series, ">= 2")),
  ...ofMemory("memory", "<= 0.8"), { name: "memory_peak", unit: "MB", target: null }, ...ofMemory("memory_rest", "<= 0.8"), ...ofMemory("memory_settled", "<= 0.8"), ...ofMemory("memory_all", "<= 0.8"),
];
