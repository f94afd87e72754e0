// h2load, for HTTP/2 and gRPC. Its own summary has no percentiles: they are taken from its log of single requests.
//
// Closed loop: one request at a time on each connection. Open loop (`perSecond`): requests leave by the clock, on few connections with room
// for many streams, so that a slow answer holds none of the next ones back: nothing is omitted that would have waited.

import { readFileSync, rmSync } from "node:fs";
import { run } from "../lib/process.ts";
import { RunFailed } from "../l4/load.ts";

const GRACE_SECONDS = 8;
/** Connections are made, and their first requests answered together, in this time: they tell nothing about the steady state. */
export const leadS = (connections: number): number => 0.25 + connections / 1024;
const OPEN_CONNECTIONS = 8;
const OPEN_STREAMS = 100;

export interface H2Load {
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
  readonly headers: readonly string[];
  /** File that each request sends; null: GET. */
  readonly bodyFile: string | null;
  readonly logFile: string;
  /** Null: closed loop. */
  readonly perSecond: number | null;
}

export interface LoadFigures {
  /** In all, for what is counted over the whole run. */
  readonly requests: number;
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
}

/** Throws RunFailed when a single request failed, or the generator itself was too slow for the rate. */
export async function h2load({ url, connections, seconds, headers, bodyFile, logFile, perSecond }: H2Load): Promise<LoadFigures> {
  const rate = perSecond === null ? ["-c", `${connections}`, "-m1"] : ["-c", `${OPEN_CONNECTIONS}`, `-m${OPEN_STREAMS}`, "--rps", `${Math.max(1, Math.round(perSecond / OPEN_CONNECTIONS))}`];
  const lead = leadS(perSecond === null ? connections : OPEN_CONNECTIONS);
  const body = bodyFile === null ? [] : ["-d", bodyFile];
  const ran = await run(["h2load", "-t1", ...rate, "-D", `${Math.round((seconds + lead) * 1000)}ms`, `--log-file=${logFile}`, ...headers.flatMap((header) => ["-H", header]), ...body, url], { limitSeconds: seconds + GRACE_SECONDS });
  const lastWords = `${ran.stdout}\n${ran.stderr}`.trim().slice(-400);
  if (ran.timedOut || ran.exitCode !== 0) throw new RunFailed(`h2load ${ran.timedOut ? "did not end" : `ended with status ${ran.exitCode}`}: ${lastWords}`);
  const log = readFileSync(logFile, "utf8");
  rmSync(logFile);
  return summary(log, { seconds, leadS: lead, wantedPerSecond: perSecond });
}

/** @param log lines of start (us since 1970), status and duration (us), parted by tabs. */
export function summary(log: string, { seconds, leadS: lead, wantedPerSecond }: { readonly seconds: number; readonly leadS: number; readonly wantedPerSecond: number | null }): LoadFigures {
  const answers = log.trimEnd().split("\n").filter((line) => line !== "").map((line) => line.split("\t").map(Number) as [number, number, number]);
  const failed = answers.filter(([, status]) => status !== 200);
  if (answers.length === 0) throw new RunFailed("h2load got no answer at all");
  if (failed.length > 0) throw new RunFailed(`h2load counted ${failed.length} failures in ${answers.length} requests, the first with status ${failed[0]![1]}`);
  const from = answers.reduce((least, [start]) => Math.min(least, start), Infinity) + lead * 1e6;
  const durations = answers.filter(([start]) => start >= from).map(([, , duration]) => duration).sort((a, b) => a - b);
  if (durations.length === 0) throw new RunFailed(`h2load got all its ${answers.length} answers in the first ${lead} s`);
  const perSecond = durations.length / seconds;
  if (wantedPerSecond !== null && perSecond < wantedPerSecond * RATE_KEPT) throw new RunFailed(`the load was to be ${Math.round(wantedPerSecond)} requests/s and was ${Math.round(perSecond)}`);
  const at = (share: number): number => durations[Math.min(durations.length - 1, Math.floor(durations.length * share))]!;
  return { requests: answers.length, perSecond, p50Us: at(0.5), p99Us: at(0.99), p999Us: at(0.999) };
}

/** Below it the latency is that of another load. */
const RATE_KEPT = 0.9;
