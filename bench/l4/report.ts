// The table a person reads, and the array that `--json` writes.

import { median, ratiosByRound, spreadOf } from "../lib/statistics.ts";
import type { Record } from "./record.ts";
import { describeTarget, EXTRA_ROWS, meetsTarget, OUR_PEER, REFERENCE_PEER, ROWS, type Row } from "./rows.ts";

export interface JsonEntry {
  readonly row: string;
  readonly unit: string;
  /** Medians over the rounds; null when there is no figure. */
  readonly ours: number | null;
  readonly peer: number | null;
  readonly peerName: string;
  /** Median of ours / peer, each taken within one round. */
  readonly ratio: number | null;
}

export function jsonEntries(record: Record, peers: readonly string[]): JsonEntry[] {
  const others = peers.filter((peer) => peer !== OUR_PEER);
  return ROWS.flatMap((row) => others.map((peerName) => jsonEntry(record, row, peerName)));
}

function jsonEntry(record: Record, row: Row, peerName: string): JsonEntry {
  const [ours, theirs] = [record.of(row.name, OUR_PEER), record.of(row.name, peerName)];
  const ratio = median(ratiosByRound(ours, theirs));
  return { row: row.name, unit: row.unit, ours: median([...ours.values()]), peer: median([...theirs.values()]), peerName, ratio };
}

export function table(record: Record, peers: readonly string[]): string {
  const measured = (row: Row): boolean => peers.some((peer) => record.of(row.name, peer).size > 0);
  const lines = [heading(peers), ...ROWS.filter(measured).map((row) => line(record, row, peers))];
  const extra = EXTRA_ROWS.filter(measured);
  if (extra.length > 0) lines.push("", "besides:", heading(peers), ...extra.map((row) => line(record, row, peers)));
  return alignColumns(lines).join("\n");
}

/** Cells are divided by tabs until they are aligned. */
function heading(peers: readonly string[]): string {
  const others = peers.filter((peer) => peer !== OUR_PEER && peer !== "direct");
  const ratios = others.map((peer) => `${OUR_PEER}/${peer}`);
  return ["row", "unit", ...peers, ...ratios, "target", ""].join("\t");
}

function line(record: Record, row: Row, peers: readonly string[]): string {
  const figures = peers.map((peer) => figureCell(median([...record.of(row.name, peer).values()])));
  const others = peers.filter((peer) => peer !== OUR_PEER && peer !== "direct");
  const ratios = others.map((peer) => ratioCell(ratiosByRound(record.of(row.name, OUR_PEER), record.of(row.name, peer))));
  const arrow = row.better === "higher" ? "(more is better)" : "(less is better)";
  return [`${row.name} ${arrow}`, row.unit, ...figures, ...ratios, describeTarget(row), verdict(record, row)].join("\t");
}

function verdict(record: Record, row: Row): string {
  if (row.target === undefined) return "";
  const ratio = median(ratiosByRound(record.of(row.name, OUR_PEER), record.of(row.name, REFERENCE_PEER)));
  if (ratio === null) return "not compared";
  return meetsTarget(row, ratio) === true ? "met" : "SHORT";
}

export function figureCell(value: number | null): string {
  if (value === null) return "-";
  const digits = Math.abs(value) >= 1000 ? 0 : Math.abs(value) >= 10 ? 1 : 3;
  return value.toFixed(digits);
}

/** `1.52 (1.40-1.66)`: median, lowest and highest round. */
export function ratioCell(ratios: readonly number[]): string {
  const spread = spreadOf(ratios);
  if (spread === null) return "-";
  return `${spread.median.toFixed(2)} (${spread.lowest.toFixed(2)}-${spread.highest.toFixed(2)})`;
}

export function alignColumns(lines: readonly string[]): string[] {
  const cells = lines.map((text) => text.split("\t"));
  const widths: number[] = [];
  for (const row of cells) {
    if (row.length > 1) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  }
  return cells.map((row) => row.map((cell, i) => (row.length === 1 ? cell : cell.padEnd(widths[i] ?? 0))).join("  ").trimEnd());
}

/** Every run without a figure, with its peer: a proxy that stalls must not look like one that was not asked. */
export function failures(record: Record): string {
  if (record.failedRuns.length === 0) return `runs: ${record.runs}, all gave a figure`;
  const told = record.failedRuns.map((f) => `  round ${f.round + 1}, ${f.peer}, ${f.probe}: ${f.why}`);
  return [`runs: ${record.runs}, of which ${record.failedRuns.length} gave no figure:`, ...told].join("\n");
}
