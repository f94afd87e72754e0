// The table of the waypoint's benchmark, and its rows as JSON.

import { median, ratiosByRound, spreadOf } from "../lib/statistics.ts";
import { alignColumns } from "../l4/report.ts";
import type { Record } from "../l4/record.ts";
import { L7_ROWS } from "./rows.ts";

export interface L7Entry {
  readonly row: string;
  readonly unit: string;
  readonly ours: number | null;
  readonly peer: number | null;
  readonly peerName: "envoy";
  /** Median of the rounds' ratios. */
  readonly ratio: number | null;
}

/** One entry for each row, measured or not. */
export function l7Entries(record: Record): L7Entry[] {
  return L7_ROWS.map(({ name, unit }) => {
    const [ours, theirs] = [record.of(name, "weft"), record.of(name, "envoy")];
    return { row: name, unit, ours: median([...ours.values()]), peer: median([...theirs.values()]), peerName: "envoy", ratio: median(ratiosByRound(ours, theirs)) };
  });
}

export function l7Table(record: Record): string {
  const lines = L7_ROWS.map(({ name, unit, target }) => {
    const [ours, theirs] = [record.of(name, "weft"), record.of(name, "envoy")];
    const spread = spreadOf(ratiosByRound(ours, theirs));
    const ratio = spread === null ? "-" : `${spread.median.toFixed(2)} (${spread.lowest.toFixed(2)}-${spread.highest.toFixed(2)})`;
    return [name, unit, figure(median([...ours.values()])), figure(median([...theirs.values()])), ratio, target ?? ""].join("\t");
  });
  return alignColumns([["row", "unit", "weft", "envoy", "ratio", "target"].join("\t"), ...lines]).join("\n");
}

function figure(value: number | null): string {
  if (value === null) return "-";
  return value.toFixed(value >= 1000 ? 0 : value >= 10 ? 1 : 3);
}
