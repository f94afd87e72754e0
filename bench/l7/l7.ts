// `npm run bench -- l7`: a waypoint beside Envoy, one worker each, both with one route to the same nginx, logs off; HTTP/1.1 without TLS.
// Rounds alternate; what counts is the ratio inside one round.

import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ip } from "../../test/kit/mesh-records.ts";
import { must as mustLink, NamespaceLinks } from "../../src/net/links.ts";
import { cpuSeconds, memoryOf, withDescendants } from "../lib/accounting.ts";
import { run, Server, until } from "../lib/process.ts";
import { median, ratiosByRound, spreadOf } from "../lib/statistics.ts";
import { wrk } from "../l4/load.ts";

const ROOT = join(import.meta.dir, "../..");
/** On the loopback of the benchmark's own namespace: a workload's address may not be loopback itself. */
const BACKEND = "198.18.7.1";
const BACKEND_PORT = 8080;
const WARM_UP_S = 2;
const START_S = 20;
const CONNECTIONS = [1, 64] as const;

interface L7Peer {
  readonly name: "weft" | "envoy";
  readonly port: number;
  readonly server: Server;
}

export interface L7Options {
  readonly rounds: number;
  readonly seconds: number;
  readonly progress: (line: string) => void;
}

/** One figure of one peer, by round. */
type Figures = Map<string, Map<number, number>>;

export async function benchL7({ rounds, seconds, progress }: L7Options): Promise<{ readonly table: string; readonly rows: readonly object[] }> {
  const directory = mkdtempSync(join(tmpdir(), "weft-l7-"));
  await using stack = new AsyncDisposableStack();
  stack.defer(() => rmSync(directory, { recursive: true, force: true }));
  using links = mustLink(NamespaceLinks.open(null));
  mustLink(links.addAddress(mustLink(links.loopback()), ip(BACKEND), 32));
  const nginx = stack.adopt(startNginx(directory), (server) => server.stop());
  await until(() => answers(`http://${BACKEND}:${BACKEND_PORT}/`), "nginx answers", START_S, nginx);
  const peers: L7Peer[] = [{ name: "weft", port: 10_080, server: stack.adopt(startWeft(directory), (server) => server.stop()) }];
  const envoy = process.env["ENVOY_BIN"] ?? "";
  if (envoy !== "" && existsSync(envoy)) peers.push({ name: "envoy", port: 10_081, server: stack.adopt(startEnvoy(envoy, directory), (server) => server.stop()) });
  else progress("envoy is left out: ENVOY_BIN names no program");
  const figures = new Map(peers.map(({ name }) => [name, new Map<string, Map<number, number>>() as Figures]));
  for (const { port, server, name } of peers) {
    await until(() => answers(urlOf(port)), `${name} answers`, START_S, server);
    await wrk({ enter: [], url: urlOf(port), connections: 64, seconds: WARM_UP_S, close: false });
  }
  for (let round = 0; round < rounds; round++) {
    for (const connections of CONNECTIONS) {
      for (const peer of round % 2 === 0 ? peers : [...peers].reverse()) {
        const pids = withDescendants([peer.server.pid]);
        const before = cpuSeconds(pids);
        const load = await wrk({ enter: [], url: urlOf(peer.port), connections, seconds, close: false });
        const note = (figure: string, value: number): void => {
          const of = figures.get(peer.name)!;
          const name = `h1_${connections}_${figure}`;
          of.set(name, (of.get(name) ?? new Map<number, number>()).set(round, value));
        };
        note("rps", load.perSecond);
        note("p50", load.p50Us);
        note("p99", load.p99Us);
        note("cpu_us", ((cpuSeconds(pids) - before) * 1e6) / load.requests);
        note("memory", memoryOf(pids).rssBytes / 1e6);
        progress(`round ${round + 1}: ${peer.name} at ${connections}: ${Math.round(load.perSecond)} requests/s, p99 ${load.p99Us} us`);
      }
    }
  }
  return report(figures);
}

function report(figures: ReadonlyMap<string, Figures>): { readonly table: string; readonly rows: readonly object[] } {
  const ours = figures.get("weft")!;
  const theirs = figures.get("envoy") ?? (new Map() as Figures);
  const rows = [...ours].map(([row, byRound]) => {
    const other = theirs.get(row);
    const ratio = other === undefined ? null : spreadOf(ratiosByRound(byRound, other));
    return { row, weft: median([...byRound.values()]), envoy: other === undefined ? null : median([...other.values()]), ratio: ratio?.median ?? null, lowest: ratio?.lowest ?? null, highest: ratio?.highest ?? null };
  });
  const cell = (value: number | null, digits = 1): string => (value === null ? "-" : value.toFixed(digits)).padStart(10);
  const lines = rows.map(({ row, weft, envoy, ratio, lowest, highest }) => `${row.padEnd(16)}${cell(weft)}${cell(envoy)}${cell(ratio, 2)}  ${ratio === null ? "" : `${lowest!.toFixed(2)}..${highest!.toFixed(2)}`}`);
  return { table: [`${"row".padEnd(16)}${"weft".padStart(10)}${"envoy".padStart(10)}${"ratio".padStart(10)}`, ...lines].join("\n"), rows };
}

const urlOf = (port: number): string => `http://127.0.0.1:${port}/`;

async function answers(url: string): Promise<boolean> {
  return (await run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "1", url], { limitSeconds: 3 })).stdout === "200";
}

function startNginx(directory: string): Server {
  const config = join(directory, "nginx.conf");
  writeFileSync(config, `daemon off; user root; worker_processes 1; pid ${directory}/nginx.pid; error_log ${directory}/nginx.err; events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600; server { listen ${BACKEND}:${BACKEND_PORT}; location / { return 200 "hello world\\n"; } } }\n`);
  return new Server({ argv: ["nginx", "-p", directory, "-c", config], logFile: join(directory, "nginx.log") });
}

function startWeft(directory: string): Server {
  const config = join(directory, "config");
  mkdirSync(config);
  writeFileSync(join(config, "web.yaml"), [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } },
    { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: { name: "web", namespace: "shop" }, spec: { address: BACKEND, labels: { app: "web" }, serviceAccount: "web" } },
    { apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop" }, spec: { clusterIP: "198.18.250.10", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: BACKEND_PORT }] } },
    { apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "web", namespace: "shop" }, spec: { parentRefs: [{ group: "", kind: "Service", name: "web" }], rules: [{ matches: [{ path: { type: "PathPrefix", value: "/" } }], backendRefs: [{ name: "web", port: 80 }] }] } },
  ].map((resource) => JSON.stringify(resource)).join("\n---\n"));
  return new Server({
    argv: [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", config, "--state", join(directory, "state"), "--gateway", "shop/waypoint", "--access-log", "off", "--workers", "1",
      "--serve", "127.0.0.1:10080=shop/web.shop.svc.cluster.local:80"],
    logFile: join(directory, "weft.log"),
  });
}

function startEnvoy(binary: string, directory: string): Server {
  const config = join(directory, "envoy.json");
  const address = (at: string, port: number): object => ({ socket_address: { address: at, port_value: port } });
  writeFileSync(config, JSON.stringify({
    static_resources: {
      listeners: [{
        address: address("127.0.0.1", 10_081),
        filter_chains: [{ filters: [{
          name: "envoy.filters.network.http_connection_manager",
          typed_config: {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix: "web", generate_request_id: false,
            route_config: { virtual_hosts: [{ name: "web", domains: ["*"], routes: [{ match: { prefix: "/" }, route: { cluster: "web" } }] }] },
            http_filters: [{ name: "envoy.filters.http.router", typed_config: { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
          },
        }] }],
      }],
      clusters: [{ name: "web", type: "STATIC", connect_timeout: "5s", load_assignment: { cluster_name: "web", endpoints: [{ lb_endpoints: [{ endpoint: { address: address(BACKEND, BACKEND_PORT) } }] }] } }],
    },
  }));
  return new Server({ argv: [binary, "-c", config, "--concurrency", "1", "--log-level", "warn", "--disable-hot-restart"], logFile: join(directory, "envoy.log") });
}
