// The harness itself, on a direct connection and on proxies that do not do what they should.

import { expect, test } from "bun:test";
import { unsealed } from "../../test/kit/box.ts";
import { firstReason, needsProgram, testUnless } from "../../test/kit/skip.ts";
import { direct } from "../peers/direct.ts";
import type { Peer } from "../peers/peer.ts";
import { benchL4 } from "./l4.ts";
import { FIRST_CONNECTION, PROBES } from "./probes.ts";
import type { Record } from "./record.ts";
import { EXTRA_ROWS, ROWS } from "./rows.ts";

const reason = firstReason(unsealed, ...["ip", "ss", "nginx", "wrk", "iperf3", "curl", "nsenter"].map(needsProgram));
const LIMIT_MS = 60_000;

const oneRound = (peer: Peer, rows: readonly string[]): Promise<Record> => benchL4({ peers: [peer], rounds: 1, seconds: 1, rows, progress: () => {} });

testUnless(reason)("bench: a direct connection gives figures for the load rows", async () => {
  const record = await oneRound(direct, ["rps_64", "throughput"]);
  expect(record.failedRuns).toEqual([]);
  expect(record.of("rps_64", "direct").get(0)).toBeGreaterThan(100);
  expect(record.of("throughput", "direct").get(0)).toBeGreaterThan(0.1);
  expect(record.of("first_connection_ms", "direct").get(0)).toBeGreaterThan(0);
}, LIMIT_MS);

testUnless(reason)("bench: a peer whose traffic goes around its proxies fails", async () => {
  const bystander: Peer = { ...direct, name: "bystander", tunnelPorts: [15008] };
  const record = await oneRound(bystander, ["first_connection_ms"]);
  expect(record.failedRuns.map((run) => run.why).join()).toContain("traffic did not pass through a tunnel");
  expect(record.of("first_connection_ms", "bystander").size).toBe(0);
}, LIMIT_MS);

testUnless(reason)("bench: a peer that does not start is told, not dropped", async () => {
  const broken: Peer = { ...direct, name: "broken", start: () => Promise.reject(new Error("no such luck")) };
  const record = await oneRound(broken, ["rps_64"]);
  expect(record.failedRuns).toEqual([{ peer: "broken", round: 0, probe: "start", why: "no such luck" }]);
}, LIMIT_MS);

test("bench: every row is yielded by exactly one probe", () => {
  const yielded = [FIRST_CONNECTION, ...PROBES.flatMap((probe) => probe.yields)];
  expect(new Set(yielded).size).toBe(yielded.length);
  expect([...ROWS, ...EXTRA_ROWS].map((row) => row.name).sort()).toEqual(yielded.toSorted());
});
