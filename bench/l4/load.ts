// The load programs: wrk, iperf3, curl. Each call is one run; a run that hangs, errs or says nothing is an error with the
// program's last words, never a missing number.

import { join } from "node:path";
import { run, type Ran } from "../lib/process.ts";

/** Beyond its own duration: start-up on a busy machine, and the last request. */
const GRACE_SECONDS = 8;

/** A run without a usable figure. */
export class RunFailed extends Error {}

export interface HttpLoad {
  /** Prefix that enters the client's namespace. */
  readonly enter: readonly string[];
  readonly url: string;
  readonly connections: number;
  readonly seconds: number;
  /** Ask the server to end the connection after each answer. */
  readonly close: boolean;
}

export interface HttpFigures {
  readonly requests: number;
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  readonly p999Us: number;
  readonly maxUs: number;
}

export async function wrk(load: HttpLoad): Promise<HttpFigures> {
  const header = load.close ? ["-H", "Connection: close"] : [];
  const script = join(import.meta.dir, "wrk-report.lua");
  const argv = [...load.enter, "wrk", "-t1", `-c${load.connections}`, `-d${load.seconds}s`, "--timeout", "5s", ...header, "-s", script, load.url];
  const ran = await run(argv, { limitSeconds: load.seconds + GRACE_SECONDS });
  refuseBroken("wrk", ran);
  const json = /^JSON (\{.*\})$/m.exec(ran.stdout)?.[1];
  if (json === undefined) throw new RunFailed(`wrk gave no figures: ${lastWords(ran)}`);
  const figures = JSON.parse(json) as Record<string, number>;
  const errors = ["connectErrors", "readErrors", "writeErrors", "statusErrors", "timeouts"].filter((key) => (figures[key] ?? 0) > 0);
  if (errors.length > 0) throw new RunFailed(`wrk counted ${errors.map((key) => `${figures[key]} ${key}`).join(", ")} in ${figures["requests"]} requests`);
  const requests = figures["requests"] ?? 0;
  if (requests === 0) throw new RunFailed("wrk got no answer at all");
  return {
    requests,
    perSecond: requests / (figures["seconds"] ?? load.seconds),
    p50Us: figures["p50Us"] ?? 0,
    p99Us: figures["p99Us"] ?? 0,
    p999Us: figures["p999Us"] ?? 0,
    maxUs: figures["maxUs"] ?? 0,
  };
}

export interface BulkLoad {
  readonly enter: readonly string[];
  readonly ip: string;
  readonly port: number;
  readonly streams: number;
  readonly seconds: number;
}

export interface BulkFigures {
  readonly gigabitsPerSecond: number;
  readonly gigabytes: number;
}

export async function iperf3(load: BulkLoad): Promise<BulkFigures> {
  const argv = [...load.enter, "iperf3", "-J", "-c", load.ip, "-p", `${load.port}`, "-P", `${load.streams}`, "-t", `${load.seconds}`];
  const ran = await run(argv, { limitSeconds: load.seconds + GRACE_SECONDS });
  if (ran.timedOut) throw new RunFailed(`iperf3 did not end: ${lastWords(ran)}`);
  const report = parseIperf(ran);
  if (report.error !== undefined) throw new RunFailed(`iperf3: ${report.error}`);
  const received = report.end?.sum_received;
  if (received === undefined || received.bytes === 0) throw new RunFailed("iperf3 moved no byte");
  return { gigabitsPerSecond: received.bits_per_second / 1e9, gigabytes: received.bytes / 1e9 };
}

interface IperfReport {
  readonly error?: string;
  readonly end?: { readonly sum_received?: { readonly bytes: number; readonly bits_per_second: number } };
}

function parseIperf(ran: Ran): IperfReport {
  try {
    return JSON.parse(ran.stdout) as IperfReport;
  } catch {
    throw new RunFailed(`iperf3 gave no JSON: ${lastWords(ran)}`);
  }
}

/** One request on a new connection; milliseconds from the start of connect() to the first byte of the answer. */
export async function firstByteMs(enter: readonly string[], url: string): Promise<number> {
  const argv = [...enter, "curl", "-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{time_starttransfer}", url];
  const ran = await run(argv, { limitSeconds: 10 + GRACE_SECONDS });
  refuseBroken("curl", ran);
  const [status, seconds] = ran.stdout.split(" ");
  if (status !== "200") throw new RunFailed(`curl got status ${status}`);
  return Number(seconds) * 1000;
}

function refuseBroken(program: string, ran: Ran): void {
  if (ran.timedOut) throw new RunFailed(`${program} did not end: ${lastWords(ran)}`);
  if (ran.exitCode !== 0) throw new RunFailed(`${program} ended with status ${ran.exitCode}: ${lastWords(ran)}`);
}

const lastWords = (ran: Ran): string => `${ran.stdout}\n${ran.stderr}`.trim().slice(-400) || "(it said nothing)";
