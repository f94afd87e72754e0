// `npm run bench -- l7`: a waypoint beside Envoy, one worker each, before the same nginx. One series after the other: first without any
// feature (each protocol, each number of connections, large bodies, an open loop), then HTTP/2 with 64 connections for each feature.
// Both proxies of a series run side by side; rounds alternate between them, and what counts is the ratio inside one round.

import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ip } from "../../test/kit/mesh-records.ts";
import { must as mustLink, NamespaceLinks } from "../../src/net/links.ts";
import { cpuSeconds, memoryOf, peakOf, SETTLE_MS, withDescendants } from "../lib/accounting.ts";
import { run, Server, until } from "../lib/process.ts";
import { RunFailed, wrk } from "../l4/load.ts";
import { Record } from "../l4/record.ts";
import { ENVOY_TUNNEL, startEnvoy, startTunnels } from "./envoy.ts";
import { type Features, type Materials, PLAIN, requestPath, SERIES } from "./features.ts";
import { h2load, type LoadFigures } from "./h2load.ts";
import { makeMaterials } from "./materials.ts";
import type { L7Process, PeerName, Protocol } from "./peer.ts";
import { CONNECTIONS, PROTOCOLS } from "./rows.ts";
import { BACKEND, BACKEND_PORTS, GRPC_PATH, grpcMessage, LARGE_BODY_BYTES, LARGE_BODY_PATH, startNginx } from "./servers.ts";
import { startWeft, WEFT_TUNNEL } from "./weft.ts";

const WARM_UP_S = 2;
const START_S = 20;
/** More connections than this take a while until each has had its turn: the run is longer. */
const MANY = 100;
const BULK_CONNECTIONS = 16;
const SERIES_CONNECTIONS = 64;
/** Of what Envoy did in the closed loop: far enough from the edge that waiting lines are short with both. */
const OPEN_SHARE = 0.5;
/** Its load is light, and one stall of the machine is more than a hundredth of a short run. */
const OPEN_TIMES = 5;
const GRPC_REQUEST_BYTES = 64;
/** Where the load enters the tunnels. */
const TUNNEL_ENTRANCES: Readonly<{ [peer in PeerName]: number }> = { weft: 14_080, envoy: 14_081 };

export interface L7Options {
  readonly rounds: number;
  readonly seconds: number;
  /** Of SERIES_NAMES: those to run. */
  readonly series: readonly string[];
  readonly progress: (line: string) => void;
}

interface RunningPeer {
  readonly name: PeerName;
  readonly process: L7Process;
  /** Where the load goes: the proxy, or the entrance of a tunnel to it. */
  readonly portOf: (protocol: Protocol) => number;
}

interface Load {
  readonly protocol: Protocol;
  readonly path: string;
  readonly connections: number;
  /** Null: closed loop. */
  readonly perSecond: number | null;
}

/** @returns what was measured, and every run that gave no figure. */
export async function benchL7(options: L7Options): Promise<Record> {
  const directory = mkdtempSync(join(tmpdir(), "weft-l7-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  using links = mustLink(NamespaceLinks.open(null));
  mustLink(links.addAddress(mustLink(links.loopback()), ip(BACKEND), 32));
  const materials = await makeMaterials(directory);
  writeFileSync(join(directory, "grpc-request"), grpcMessage(GRPC_REQUEST_BYTES));
  const nginx = stack.adopt(startNginx(materials), (server) => server.stop());
  await until(() => answers("h1", `http://${BACKEND}:${BACKEND_PORTS.h1}/`, []), "nginx answers", START_S, nginx);
  const envoy = process.env["ENVOY_BIN"] ?? "";
  const bench = new Bench(options, materials, existsSync(envoy) ? envoy : null);
  if (!existsSync(envoy)) options.progress("envoy is left out, and with it the series with tunnels, whose client's end it is: ENVOY_BIN names no program");
  if (options.series.includes("plain")) await bench.plain();
  for (const [name, features] of Object.entries(SERIES)) if (options.series.includes(name)) await bench.series(name, features);
  return bench.record;
}

class Bench {
  readonly record = new Record();
  readonly #options: L7Options;
  readonly #materials: Materials;
  readonly #envoy: string | null;

  constructor(options: L7Options, materials: Materials, envoy: string | null) {
    this.#options = options;
    this.#materials = materials;
    this.#envoy = envoy;
  }

  async plain(): Promise<void> {
    await this.#with("plain", PLAIN, async (peers) => {
      await this.#settled(peers, 0, "memory_rest");
      await this.#rounds(peers, async (turn, round) => {
        for (const protocol of PROTOCOLS) {
          for (const connections of CONNECTIONS) await turn(async (peer) => this.#closed(peer, round, `${protocol}_${connections}`, { protocol, path: "/", connections, perSecond: null }));
        }
        const rate = (this.record.of("h2_64_rps", this.#envoy === null ? "weft" : "envoy").get(round) ?? 0) * OPEN_SHARE;
        if (rate > 0) await turn((peer) => this.#open(peer, round, rate));
        await turn((peer) => this.#bulk(peer, round));
        for (const peer of peers) this.#memory(peer, round, "memory");
        for (const peer of peers) this.record.add(peer.name, round, { memory_peak: peakOf([peer.process.server.pid]) / 1e6 });
        await this.#settled(peers, round, "memory_settled");
      });
    });
  }

  async series(name: string, features: Features): Promise<void> {
    if (features.mtls && this.#envoy === null) return;
    await this.#with(name, features, (peers) =>
      this.#rounds(peers, async (turn, round) => {
        await turn((peer) => this.#closed(peer, round, name, { protocol: "h2", path: requestPath(features), connections: SERIES_CONNECTIONS, perSecond: null }, features));
        if (name === "all") for (const peer of peers) this.#memory(peer, round, "memory_all");
      }),
    );
  }

  /** Starts both proxies and warms them up; ends them. A proxy that does not come up is a failure of its own. */
  async #with(name: string, features: Features, body: (peers: readonly RunningPeer[]) => Promise<void>): Promise<void> {
    await using stack = new AsyncDisposableStack();
    const own = <T extends Server>(server: T): T => stack.adopt(server, (one) => one.stop());
    const processes: [PeerName, L7Process][] = [["weft", startWeft(features, this.#materials, name)]];
    if (this.#envoy !== null) processes.push(["envoy", startEnvoy(this.#envoy, features, this.#materials, name)]);
    for (const [, { server, helpers }] of processes) for (const one of [...helpers, server]) own(one);
    if (features.mtls) {
      own(startTunnels(this.#envoy!, this.#materials, [{ listen: TUNNEL_ENTRANCES.weft, ...WEFT_TUNNEL }, { listen: TUNNEL_ENTRANCES.envoy, ...ENVOY_TUNNEL }]));
    }
    const ready: RunningPeer[] = [];
    for (const [peerName, process] of processes) {
      const peer: RunningPeer = { name: peerName, process, portOf: (protocol) => (features.mtls ? TUNNEL_ENTRANCES[peerName] : process.ports[protocol]) };
      const load: Load = { protocol: "h2", path: requestPath(features), connections: SERIES_CONNECTIONS, perSecond: null };
      try {
        await until(() => answers("h2", urlOf(peer, load), this.#headers(features)), `${name}: ${peerName} answers`, START_S, process.server);
        await this.#load(peer, load, WARM_UP_S, features);
        ready.push(peer);
      } catch (error) {
        const words = process.helpers.map((helper) => helper.logTail(400).trim()).join("\n");
        this.record.fail({ peer: peerName, round: 0, probe: name, why: `${error instanceof Error ? error.message : String(error)}${words === "" ? "" : `; beside it: ${words}`}` });
      }
    }
    await body(ready);
  }

  async #rounds(peers: readonly RunningPeer[], body: (turn: (one: (peer: RunningPeer) => Promise<void>) => Promise<void>, round: number) => Promise<void>): Promise<void> {
    for (let round = 0; round < this.#options.rounds; round++) {
      const order = round % 2 === 0 ? peers : [...peers].reverse();
      await body(async (one) => {
        for (const peer of order) await one(peer);
      }, round);
    }
  }

  async #closed(peer: RunningPeer, round: number, row: string, load: Load, features: Features = PLAIN): Promise<void> {
    await this.#measured(peer, round, row, async () => {
      const got = await this.#cpu(peer, () => this.#load(peer, load, this.#options.seconds * (load.connections > MANY ? 3 : 1), features));
      return latencies(row, got, { [`${row}_rps`]: got.perSecond });
    });
  }

  async #open(peer: RunningPeer, round: number, perSecond: number): Promise<void> {
    await this.#measured(peer, round, "open", async () => {
      const got = await this.#cpu(peer, () => this.#load(peer, { protocol: "h2", path: "/", connections: 1, perSecond }, this.#options.seconds * OPEN_TIMES, PLAIN));
      return latencies("open", got, { open_rate: got.perSecond });
    });
  }

  async #bulk(peer: RunningPeer, round: number): Promise<void> {
    await this.#measured(peer, round, "bulk", async () => {
      const got = await this.#cpu(peer, () => this.#load(peer, { protocol: "h1", path: LARGE_BODY_PATH, connections: BULK_CONNECTIONS, perSecond: null }, this.#options.seconds, PLAIN));
      return { bulk_throughput: (got.perSecond * LARGE_BODY_BYTES * 8) / 1e9, bulk_cpu_per_gb: (got.cpuUs * 1e3) / LARGE_BODY_BYTES };
    });
  }

  async #measured(peer: RunningPeer, round: number, probe: string, measure: () => Promise<{ readonly [row: string]: number }>): Promise<void> {
    try {
      const figures = await measure();
      this.record.add(peer.name, round, figures);
      this.#options.progress(`round ${round + 1}: ${peer.name}, ${probe}: ${Object.entries(figures).map(([row, value]) => `${row.replace(`${probe}_`, "")} ${value.toPrecision(4)}`).join(", ")}`);
    } catch (error) {
      if (!(error instanceof RunFailed)) throw error;
      const why = `${error.message}; its last words: ${peer.process.server.logTail(400).trim() || "none"}`;
      this.record.fail({ peer: peer.name, round, probe, why });
      this.#options.progress(`round ${round + 1}: ${peer.name}, ${probe}: ${why}`);
    }
  }

  /** Processor time of the proxy in the run, for each request. */
  async #cpu(peer: RunningPeer, load: () => Promise<LoadFigures>): Promise<LoadFigures & { readonly cpuUs: number }> {
    const pids = withDescendants([peer.process.server.pid]);
    const before = cpuSeconds(pids);
    const figures = await load();
    return { ...figures, cpuUs: ((cpuSeconds(pids) - before) * 1e6) / figures.requests };
  }

  #memory(peer: RunningPeer, round: number, row: string): void {
    const { rssBytes, pssBytes, anonymousBytes } = memoryOf(withDescendants([peer.process.server.pid]));
    this.record.add(peer.name, round, { [row]: rssBytes / 1e6, [`${row}_pss`]: pssBytes / 1e6, [`${row}_anonymous`]: anonymousBytes / 1e6 });
  }

  async #settled(peers: readonly RunningPeer[], round: number, row: string): Promise<void> {
    this.#options.progress(`round ${round + 1}: ${SETTLE_MS / 1000} s without load`);
    await Bun.sleep(SETTLE_MS);
    for (const peer of peers) this.#memory(peer, round, row);
  }

  #headers({ jwt }: Features): readonly string[] {
    return jwt ? [`authorization: Bearer ${this.#materials.token}`] : [];
  }

  async #load(peer: RunningPeer, load: Load, seconds: number, features: Features): Promise<LoadFigures> {
    const { protocol, connections, perSecond } = load;
    const url = urlOf(peer, load);
    if (protocol === "h1") return await wrk({ enter: [], url, connections, seconds, close: false });
    const { directory } = this.#materials;
    const grpc = protocol === "grpc" ? ["content-type: application/grpc", "te: trailers"] : [];
    return await h2load({
      url, connections, seconds, perSecond, headers: [...this.#headers(features), ...grpc],
      bodyFile: protocol === "grpc" ? join(directory, "grpc-request") : null, logFile: join(directory, "h2load.log"),
    });
  }
}

const latencies = (row: string, { p50Us, p99Us, p999Us, cpuUs }: LoadFigures & { readonly cpuUs: number }, more: { readonly [row: string]: number }): { readonly [row: string]: number } => ({
  ...more, [`${row}_p50`]: p50Us / 1000, [`${row}_p99`]: p99Us / 1000, [`${row}_p999`]: p999Us / 1000, [`${row}_cpu_per_request`]: cpuUs,
});

const urlOf = (peer: RunningPeer, { protocol, path }: Load): string => `http://127.0.0.1:${peer.portOf(protocol)}${protocol === "grpc" ? GRPC_PATH : path}`;

async function answers(protocol: Protocol, url: string, headers: readonly string[]): Promise<boolean> {
  const version = protocol === "h1" ? [] : ["--http2-prior-knowledge"];
  return (await run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "1", ...version, ...headers.flatMap((header) => ["-H", header]), url], { limitSeconds: 3 })).stdout === "200";
}
