// One probe is one run of a load program against one peer; it yields the figures of one or more rows.

import { join } from "node:path";
import { cpuSeconds, memoryOf, SETTLE_MS, withDescendants, type Memory } from "../lib/accounting.ts";
import { run } from "../lib/process.ts";
import type { Placement, RunningPeer } from "../peers/peer.ts";
import { iperf3, RunFailed, wrk, type HttpFigures } from "./load.ts";
import { BULK_PORT, HTTP_PORT, IDLE_PORT, STATUS_PORT, type Testbed } from "./testbed.ts";

export const IDLE_CONNECTIONS = 10_000;
/** Opening ten thousand connections at a few hundred a second is slow, not stuck. */
const IDLE_READY_SECONDS = 60;

/** Key of a figure: a row of the table, or one of the extra figures below it. */
export type Figures = Readonly<Record<string, number>>;

export interface Target {
  readonly bed: Testbed;
  readonly peer: RunningPeer;
  /** Length of a measured run. */
  readonly seconds: number;
  /** For what helps to understand a figure. */
  readonly note: (text: string) => void;
}

export interface Probe {
  readonly name: string;
  readonly placement: Placement;
  /** Holds IDLE_CONNECTIONS open, which not every proxy can under every descriptor limit. */
  readonly holdsIdle?: boolean;
  /** Every figure it yields. */
  readonly yields: readonly string[];
  /** Throws RunFailed when the run gave no figure. */
  readonly measure: (target: Target) => Promise<Figures>;
}

const WARM_UP_SECONDS = 1;

const url = (target: Target): string => `http://${target.bed.server.ip}:${HTTP_PORT}/`;
const processes = (target: Target): number[] => withDescendants(target.peer.pids);

interface HttpShape {
  readonly connections: number;
  readonly close: boolean;
}

/** Warms up, then measures, with the processor time that both proxies took meanwhile. */
async function http(target: Target, shape: HttpShape): Promise<HttpFigures & { readonly cpuMicrosPerRequest: number }> {
  const load = { enter: target.bed.client.enter, url: url(target), ...shape };
  await wrk({ ...load, seconds: WARM_UP_SECONDS });
  const pids = processes(target);
  const before = cpuSeconds(pids);
  const figures = await wrk({ ...load, seconds: target.seconds });
  const spent = cpuSeconds(pids) - before;
  if (pids.length > 0 && spent === 0) throw new RunFailed("the proxies took no processor time: the requests went around them");
  return { ...figures, cpuMicrosPerRequest: (spent * 1e6) / figures.requests };
}

async function bulk(target: Target, streams: number): Promise<{ readonly gigabits: number; readonly cpuSecondsPerGigabyte: number }> {
  const load = { enter: target.bed.client.enter, ip: target.bed.server.ip, port: BULK_PORT, streams };
  await iperf3({ ...load, seconds: WARM_UP_SECONDS });
  const pids = processes(target);
  const before = cpuSeconds(pids);
  const figures = await iperf3({ ...load, seconds: target.seconds });
  return { gigabits: figures.gigabitsPerSecond, cpuSecondsPerGigabyte: (cpuSeconds(pids) - before) / figures.gigabytes };
}

const bulkOne: Probe = {
  name: "bulk",
  placement: "across",
  yields: ["throughput", "cpu_s_per_gb"],
  measure: async (target) => {
    const { gigabits, cpuSecondsPerGigabyte } = await bulk(target, 1);
    return { throughput: gigabits, cpu_s_per_gb: cpuSecondsPerGigabyte };
  },
};

const bulkEight: Probe = {
  name: "bulk-8",
  placement: "across",
  yields: ["throughput_8"],
  measure: async (target) => ({ throughput_8: (await bulk(target, 8)).gigabits }),
};

const http64: Probe = {
  name: "http-64",
  placement: "across",
  yields: ["rps_64", "cpu_per_request_64", "p99_64", "p50_64"],
  measure: async (target) => {
    const got = await http(target, { connections: 64, close: false });
    return { rps_64: got.perSecond, cpu_per_request_64: got.cpuMicrosPerRequest, p99_64: got.p99Us / 1000, p50_64: got.p50Us / 1000 };
  },
};

const http1: Probe = {
  name: "http-1",
  placement: "across",
  yields: ["p99_1", "rps_1", "p50_1"],
  measure: async (target) => {
    const got = await http(target, { connections: 1, close: false });
    return { p99_1: got.p99Us / 1000, rps_1: got.perSecond, p50_1: got.p50Us / 1000 };
  },
};

const connections: Probe = {
  name: "connections",
  placement: "across",
  yields: ["connections_per_s", "cpu_per_connection"],
  measure: async (target) => {
    const got = await http(target, { connections: 64, close: true });
    return { connections_per_s: got.perSecond, cpu_per_connection: got.cpuMicrosPerRequest };
  },
};

const sameNodeBulk: Probe = {
  name: "same-node-bulk",
  placement: "same-node",
  yields: ["same_node_throughput"],
  measure: async (target) => ({ same_node_throughput: (await bulk(target, 1)).gigabits }),
};

const sameNodeHttp: Probe = {
  name: "same-node-http",
  placement: "same-node",
  yields: ["same_node_cpu_per_request", "same_node_rps_64"],
  measure: async (target) => {
    const got = await http(target, { connections: 64, close: false });
    return { same_node_cpu_per_request: got.cpuMicrosPerRequest, same_node_rps_64: got.perSecond };
  },
};

const MEGABYTE = 1e6;

const idle: Probe = {
  name: "idle",
  holdsIdle: true,
  placement: "across",
  yields: [
    "idle_memory_10k", "idle_memory_10k_pss", "idle_memory_10k_anonymous",
    "rest_memory", "rest_memory_pss", "rest_memory_anonymous",
    "idle_bytes_per_connection",
  ],
  measure: async (target) => {
    const pids = processes(target);
    const before = memoryOf(pids);
    const held = await holdIdle(target);
    try {
      await Bun.sleep(SETTLE_MS);
      return idleFigures({ before, after: memoryOf(pids), proxies: target.peer.pids.length });
    } finally {
      await held.release();
    }
  },
};

/** Memory is given per proxy process; a connection passes two proxies, so its cost is what one of them spends on it. */
function idleFigures({ before, after, proxies }: { before: Memory; after: Memory; proxies: number }): Figures {
  const each = (bytes: number): number => bytes / proxies / MEGABYTE;
  return {
    idle_memory_10k: each(after.rssBytes),
    idle_memory_10k_pss: each(after.pssBytes),
    idle_memory_10k_anonymous: each(after.anonymousBytes),
    rest_memory: each(before.rssBytes),
    rest_memory_pss: each(before.pssBytes),
    rest_memory_anonymous: each(before.anonymousBytes),
    idle_bytes_per_connection: (after.anonymousBytes - before.anonymousBytes) / proxies / IDLE_CONNECTIONS,
  };
}

interface Held {
  readonly release: () => Promise<void>;
}

/** Opens the idle connections; resolves when every one of them has been answered through the proxies. */
async function holdIdle({ bed, peer }: Target): Promise<Held> {
  const script = join(import.meta.dir, "idle-client.ts");
  const argv = [...bed.client.enter, process.execPath, script, bed.server.ip, `${IDLE_PORT}`, `${IDLE_CONNECTIONS}`];
  const child = Bun.spawn(argv, { stdin: "pipe", stdout: "pipe", stderr: "inherit" });
  const limit = setTimeout(() => child.kill("SIGKILL"), IDLE_READY_SECONDS * 1000);
  const reader = child.stdout.getReader();
  const first = await reader.read();
  clearTimeout(limit);
  const said = first.done ? "it said nothing" : new TextDecoder().decode(first.value).trim();
  const release = async (): Promise<void> => {
    await child.stdin.end();
    await child.exited;
  };
  if (said === `ready ${IDLE_CONNECTIONS}`) return { release };
  await release();
  peer.assertAlive();
  throw new RunFailed(`idle connections: ${said}`);
}

const TRACED_SECONDS = 2;
/** Attaching to a dozen threads takes a moment, in which the load already runs. */
const TRACE_MARGIN_SECONDS = 1;

/** Under strace everything is slower, so calls and requests are counted over the same second, and only their ratio is used. */
async function callsPerRequest(target: Target, close: boolean): Promise<number | null> {
  const pids = processes(target);
  if (pids.length === 0 || Bun.which("strace") === null) return null;
  const load = { enter: target.bed.client.enter, url: url(target), connections: 64, close };
  await wrk({ ...load, seconds: WARM_UP_SECONDS });
  const seconds = TRACED_SECONDS + 2 * TRACE_MARGIN_SECONDS;
  const running = wrk({ ...load, seconds });
  await Bun.sleep(TRACE_MARGIN_SECONDS * 1000);
  const answeredBefore = await answered(target);
  const calls = await traceCalls(pids, TRACED_SECONDS);
  const requests = (await answered(target)) - answeredBefore;
  await running;
  if (requests <= 0) throw new RunFailed("no request was answered while system calls were counted");
  target.note(`calls per request: ${describeCalls(calls, requests)}`);
  return total(calls) / requests;
}

/** Requests that the server has answered so far, by its own count. */
async function answered({ bed }: Target): Promise<number> {
  const { stdout } = await run([...bed.server.enter, "curl", "-s", `http://127.0.0.1:${STATUS_PORT}/`], { limitSeconds: 5 });
  const count = /\n\s*\d+ \d+ (\d+)\s*\n/.exec(stdout)?.[1];
  if (count === undefined) throw new RunFailed(`the server tells no count: ${stdout}`);
  return Number(count);
}

async function traceCalls(pids: readonly number[], seconds: number): Promise<Map<string, number>> {
  const attach = pids.flatMap((pid) => ["-p", `${pid}`]);
  const ran = await run(["timeout", "-s", "INT", `${seconds}`, "strace", "-c", "-f", ...attach], { limitSeconds: seconds + 10 });
  const calls = new Map<string, number>();
  // % time, seconds, usecs/call, calls, [errors,] syscall
  for (const [, count, name] of ran.stderr.matchAll(/^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?([a-z]\w*)$/gm)) {
    if (name !== undefined && name !== "total") calls.set(name, Number(count));
  }
  if (calls.size === 0) throw new RunFailed(`strace gave no table: ${ran.stderr.slice(-300)}`);
  return calls;
}

const total = (calls: ReadonlyMap<string, number>): number => [...calls.values()].reduce((sum, count) => sum + count, 0);

function describeCalls(calls: ReadonlyMap<string, number>, requests: number): string {
  const most = [...calls].sort(([, a], [, b]) => b - a).slice(0, 12);
  return most.map(([name, count]) => `${name} ${(count / requests).toFixed(2)}`).join(", ");
}

const systemCalls: Probe = {
  name: "system-calls",
  placement: "across",
  yields: ["system_calls_per_request", "system_calls_per_connection"],
  measure: async (target) => {
    const perRequest = await callsPerRequest(target, false);
    const perConnection = await callsPerRequest(target, true);
    return perRequest === null || perConnection === null ? {} : { system_calls_per_request: perRequest, system_calls_per_connection: perConnection };
  },
};

/** In the order in which they run: idle memory last, because ten thousand connections leave a heap behind. */
export const PROBES: readonly Probe[] = [http64, http1, connections, bulkOne, bulkEight, sameNodeHttp, sameNodeBulk, systemCalls, idle];

/** Not a probe: it is taken from each fresh pair of proxies before anything else. */
export const FIRST_CONNECTION = "first_connection_ms";
