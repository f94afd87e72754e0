// The table of the waypoint's benchmark, and its rows as JSON.

import { median, ratiosByRound } from "../lib/statistics.ts";
import { alignColumns, figureCell, ratioCell } from "../l4/report.ts";
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
    return [name, unit, figureCell(median([...ours.values()])), figureCell(median([...theirs.values()])), ratioCell(ratiosByRound(ours, theirs)), target ?? ""].join("\t");
  });
  return alignColumns([["row", "unit", "weft", "envoy", "ratio", "target"].join("\t"), ...lines]).join("\n");
}
