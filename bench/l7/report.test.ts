import { expect, test } from "bun:test";
import { Record } from "../l4/record.ts";
import { l7Entries, l7Table } from "./report.ts";

test("the rows that the project promises are there, measured or not, with the median of the rounds' ratios", () => {
  const record = new Record();
  for (const [round, [ours, theirs]] of [[20, 10], [33, 11], [24, 12]].entries()) {
    record.add("weft", round, { h1_64_rps: ours! });
    record.add("envoy", round, { h1_64_rps: theirs! });
  }
  const entries = new Map(l7Entries(record).map((entry) => [entry.row, entry]));
  for (const protocol of ["h1", "h2", "grpc"]) for (const connections of [1, 64, 1024]) for (const what of ["rps", "p50", "p99", "p999"]) expect(entries.has(`${protocol}_${connections}_${what}`)).toBe(true);
  expect(entries.get("h1_64_rps")).toEqual({ row: "h1_64_rps", unit: "req/s", ours: 24, peer: 11, peerName: "envoy", ratio: 2 });
  expect(entries.get("bulk_throughput")).toEqual({ row: "bulk_throughput", unit: "Gb/s", ours: null, peer: null, peerName: "envoy", ratio: null });
  expect(entries.has("memory")).toBe(true);
  expect(l7Table(record)).toMatch(/h1_64_rps +req\/s +24\.0 +11\.0 +2\.00 \(2\.00-3\.00\) +>= 2/);
});
