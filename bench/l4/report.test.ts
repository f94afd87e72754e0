import { expect, test } from "bun:test";
import { Record } from "./record.ts";
import { failures, jsonEntries, table } from "./report.ts";
import { meetsTarget, ROWS, type Row } from "./rows.ts";

const rowNamed = (name: string): Row => {
  const found = ROWS.find((row) => row.name === name);
  if (found === undefined) throw new Error(`no row ${name}`);
  return found;
};

function measured(): Record {
  const record = new Record();
  record.add("weft", 0, { rps_64: 150, p99_1: 2 });
  record.add("ztunnel", 0, { rps_64: 100, p99_1: 1 });
  record.add("weft", 1, { rps_64: 400 });
  record.add("ztunnel", 1, { rps_64: 200 });
  record.add("weft", 2, { rps_64: 900 });
  return record;
}

test("json: has every row of the contract, for every peer but ours", () => {
  const entries = jsonEntries(measured(), ["weft", "ztunnel", "direct"]);
  expect(new Set(entries.map((entry) => entry.row))).toEqual(
    new Set([
      "throughput", "throughput_8", "rps_64", "cpu_per_request_64", "connections_per_s", "p99_1", "p99_64",
      "first_connection_ms", "idle_memory_10k", "same_node_throughput", "same_node_cpu_per_request",
    ]),
  );
  expect(new Set(entries.map((entry) => entry.peerName))).toEqual(new Set(["ztunnel", "direct"]));
});

test("json: figures are medians, the ratio is the median of ratios within a round", () => {
  const entry = jsonEntries(measured(), ["weft", "ztunnel"]).find(({ row }) => row === "rps_64");
  expect(entry).toEqual({ row: "rps_64", unit: "req/s", ours: 400, peer: 150, peerName: "ztunnel", ratio: 1.75 });
});

test("json: what was not measured is null, not zero", () => {
  const entry = jsonEntries(measured(), ["weft", "ztunnel"]).find(({ row }) => row === "throughput");
  expect(entry).toMatchObject({ ours: null, peer: null, ratio: null });
});

test("targets: higher rows want at least, lower rows at most", () => {
  expect(meetsTarget(rowNamed("rps_64"), 1.5)).toBe(true);
  expect(meetsTarget(rowNamed("rps_64"), 1.49)).toBe(false);
  expect(meetsTarget(rowNamed("p99_64"), 0.7)).toBe(true);
  expect(meetsTarget(rowNamed("p99_64"), 0.71)).toBe(false);
});

test("table: says met or SHORT by the ratio to the reference", () => {
  const lines = table(measured(), ["weft", "ztunnel"]).split("\n");
  expect(lines.find((line) => line.startsWith("rps_64"))).toMatch(/1\.75 \(1\.50-2\.00\) +>= 1\.5 +met$/);
  expect(lines.find((line) => line.startsWith("p99_1"))).toMatch(/2\.00 \(2\.00-2\.00\) +<= 1 +SHORT$/);
});

test("failures: each run without a figure is told", () => {
  const record = measured();
  record.fail({ peer: "weft", round: 1, probe: "bulk", why: "iperf3 did not end" });
  expect(failures(record)).toBe("runs: 6, of which 1 gave no figure:\n  round 2, weft, bulk: iperf3 did not end");
  expect(failures(measured())).toBe("runs: 5, all gave a figure");
});
