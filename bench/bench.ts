// `npm run bench -- l4 [--json FILE] [--rounds N] [--rows a,b] [--peers a,b] [--quick]`: speed and memory beside the peers on this machine.
//
// `npm run bench -- l7 [--json FILE] [--rounds N] [--series a,b] [--quick]`: a waypoint beside Envoy.
//
// `npm run bench -- control [--json FILE] [--quick]`: a control plane over a real API server (KUBE_BIN_DIR) with a large cluster.
//
//   ENVOY_BIN=PATH     Envoy
//   ZTUNNEL_BIN=PATH   the reference ztunnel, built with its `testing` feature
//   WEFT_BIN=PATH      Weft compiled; else dist/weft when it is newer than the sources, else the sources
//   HAProxy and nginx  are taken when installed
//
// Everything runs in the tests' sealed namespaces. docs/benchmarks.md tells what each row means.

import { writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { resealed, isSealed } from "../test/runner/sealed.ts";
import { needsKubernetes } from "../test/kubernetes/api-server.ts";
import { benchControl, FULL, QUICK } from "./control/control.ts";
import { benchL4 } from "./l4/l4.ts";
import { benchL7 } from "./l7/l7.ts";
import { SERIES_NAMES } from "./l7/rows.ts";
import { l7Entries, l7Table } from "./l7/report.ts";
import { failures, jsonEntries, table } from "./l4/report.ts";
import { EXTRA_ROWS, OUR_PEER, ROWS } from "./l4/rows.ts";
import { direct } from "./peers/direct.ts";
import type { Peer } from "./peers/peer.ts";
import { haproxy, nginx } from "./peers/tls-tunnel.ts";
import { weft, weftCommand } from "./peers/weft.ts";
import { ztunnel } from "./peers/ztunnel.ts";

const PEERS: readonly Peer[] = [weft, ztunnel, haproxy, nginx, direct];

const ROUNDS = 5;
const SECONDS = 2;
const ROUNDS_QUICK = 2;
const SECONDS_QUICK = 1;

/** Each proxy of a plain TLS tunnel needs two descriptors per idle connection. */
const DESCRIPTORS = 65_536;

const USAGE = `usage: npm run bench -- l4 [--json FILE] [--rounds N] [--rows a,b] [--peers a,b] [--quick]
       npm run bench -- l7 [--json FILE] [--rounds N] [--series a,b] [--quick]
       npm run bench -- control [--json FILE] [--quick]
rows:  ${ROWS.map((row) => row.name).join(" ")}
peers: ${PEERS.map((peer) => peer.name).join(" ")}
series: ${SERIES_NAMES.join(" ")}`;

interface Arguments {
  readonly what: "l4" | "l7" | "control";
  readonly quick: boolean;
  readonly jsonFile: string | null;
  readonly rounds: number;
  readonly seconds: number;
  readonly rows: readonly string[];
  readonly peers: readonly Peer[];
  readonly series: readonly string[];
}

/** Throws a message for the operator. */
function parseArguments(args: readonly string[]): Arguments {
  const [what] = args;
  if (what !== "l4" && what !== "l7" && what !== "control") throw new Error(USAGE);
  const values = new Map<string, string>();
  for (let i = 1; i < args.length; i += 1) {
    const option = args[i] ?? "";
    if (option === "--quick") values.set(option, "");
    else if (["--json", "--rounds", "--rows", "--peers", "--series"].includes(option)) values.set(option, args[(i += 1)] ?? "");
    else throw new Error(`unknown argument ${option}\n${USAGE}`);
  }
  const quick = values.has("--quick");
  const json = values.get("--json");
  return {
    what, quick,
    jsonFile: json === undefined ? null : resolve(json),
    rounds: positive(values.get("--rounds") ?? `${quick ? ROUNDS_QUICK : ROUNDS}`),
    seconds: quick ? SECONDS_QUICK : SECONDS,
    rows: namesOf(values.get("--rows"), [...ROWS, ...EXTRA_ROWS]).map((row) => row.name),
    peers: values.has("--peers") ? namesOf(values.get("--peers"), PEERS) : PEERS,
    series: values.has("--series") ? namesOf(values.get("--series"), SERIES_NAMES.map((name) => ({ name }))).map(({ name }) => name) : SERIES_NAMES,
  };
}

function positive(text: string): number {
  if (!/^[1-9][0-9]{0,2}$/.test(text)) throw new Error(`--rounds wants a number from 1 to 999, got ${text}`);
  return Number(text);
}

function namesOf<T extends { readonly name: string }>(list: string | undefined, known: readonly T[]): T[] {
  if (list === undefined) return [];
  return list.split(",").map((name) => {
    const found = known.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no ${name}; there are: ${known.map((one) => one.name).join(" ")}`);
    return found;
  });
}

/** Raises our own limit where we may (root, before the user namespace); children inherit it. */
function raiseDescriptorLimit(): void {
  Bun.spawnSync(["prlimit", "--pid", `${process.pid}`, `--nofile=${DESCRIPTORS}:${DESCRIPTORS}`], { stdio: ["ignore", "ignore", "ignore"] });
}

async function main(args: readonly string[]): Promise<number> {
  const wanted = parseArguments(args);
  if (!isSealed()) raiseDescriptorLimit();
  const outside = await resealed(import.meta.path, args);
  if (outside !== null) return outside;
  if (wanted.what === "l7") return await mainL7(wanted);
  if (wanted.what === "control") return await mainControl(wanted);
  const peers = wanted.peers.filter(available);
  for (const peer of peers) console.log(`${peer.name}: ${peer.command()}`);
  const record = await benchL4({ ...wanted, peers, progress: (line) => console.error(line) });
  const names = peers.map((peer) => peer.name);
  console.log(`\nmedians of ${wanted.rounds} rounds; ratios are medians of the rounds' ratios, lowest and highest in brackets\n`);
  console.log(table(record, names));
  console.log(`\n${failures(record)}`);
  if (wanted.jsonFile !== null) writeFileSync(wanted.jsonFile, `${JSON.stringify(jsonEntries(record, names), null, 2)}\n`);
  return record.failedRuns.some((failed) => failed.peer === OUR_PEER) ? 1 : 0;
}

async function mainL7({ rounds, seconds, series, jsonFile }: Arguments): Promise<number> {
  console.log(`weft: ${weftCommand().join(" ")}`);
  const record = await benchL7({ rounds, seconds, series, progress: (line) => console.error(line) });
  console.log(`\nmedians of ${rounds} rounds; ratios are medians of the rounds' ratios, lowest and highest in brackets\n\n${l7Table(record)}\n\n${failures(record)}`);
  if (jsonFile !== null) writeFileSync(jsonFile, `${JSON.stringify(l7Entries(record), null, 2)}\n`);
  return record.failedRuns.some((failed) => failed.peer === OUR_PEER) ? 1 : 0;
}

async function mainControl({ quick, jsonFile }: Arguments): Promise<number> {
  if (needsKubernetes !== null) throw new Error(`no control plane can be measured here: ${needsKubernetes}`);
  const { table: text, rows } = await benchControl(quick ? QUICK : FULL, (line) => console.error(line));
  console.log(`\n${text}`);
  if (jsonFile !== null) writeFileSync(jsonFile, `${JSON.stringify(rows, null, 2)}\n`);
  return 0;
}

function available(peer: Peer): boolean {
  const missing = peer.missing();
  if (missing !== null) console.error(`${peer.name} is left out: ${missing}`);
  return missing === null;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exit(2);
}
