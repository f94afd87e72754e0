import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createRequest } from "../identity/csr.ts";
import { parseIp, type IpAddress } from "../core/ip.ts";
import { parseSpiffeId } from "../core/spiffe.ts";
import { parseTrustDomain } from "../core/spiffe.ts";
import { namespacedName } from "../core/brand.ts";
import { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import { Exposition } from "../telemetry/exposition.ts";
import { workload } from "../telemetry/telemetry-fixtures.ts";
import { type AdminAddresses, type AdminListeners, type AdminServers, judgeHost, judgeOrigin, listenAdmin, startAdmin } from "./admin.ts";
import { configDump, type DumpSources } from "./config-dump.ts";
import { InheritedSockets } from "./inherited-sockets.ts";
import { Lifecycle } from "./lifecycle.ts";
import { parseLogFilter } from "./log-filter.ts";
import { Log } from "./logger.ts";
import { LogWriter } from "./log-writer.ts";
import { ProcessListeners } from "./process-listeners.ts";
import { processMetrics } from "./process-metrics.ts";

const loopback = { ip: parseIp("127.0.0.1") as IpAddress, port: 0 };
const writer = new LogWriter({ sink: { write: (bytes, done) => done(null, bytes.length) }, droppedLine: String });
const filter = parseLogFilter("info");
if (!filter.ok) throw new Error(filter.error);
const log = new Log({ writer, clock: { monotonicMs: () => 0, wallMs: () => 0 }, format: "text", filter: filter.value });
const metrics = new ConnectionMetrics();
metrics.cell("istio_build", { component: "ztunnel", tag: "test" }).value = 1;
let lifecycle = new Lifecycle();
let servers: AdminServers;

const opened = (addresses: AdminAddresses) => listenAdmin(addresses, new ProcessListeners(new InheritedSockets([], false)));
function listening(): AdminListeners {
  const listeners = opened({ admin: loopback, metrics: loopback, readiness: loopback });
  if (!listeners.ok) throw new Error(listeners.error);
  return listeners.value;
}

beforeAll(async () => {
  servers = await startAdmin(listening(), {
    log, lifecycle, version: "test", configDump: async () => ({ workloads: [] }), snapshots: async () => [metrics.snapshot()],
    exposition: new Exposition(), processMetrics: processMetrics(),
  });
});
afterAll(() => servers.stop());

const admin = (path: string, init: RequestInit = {}) => fetch(`http://127.0.0.1:${servers.adminPort}${path}`, init);

describe("administration", () => {
  test("shows the configuration and the index, and answers health", async () => {
    expect(await (await admin("/config_dump")).json()).toEqual({ workloads: [] });
    const page = await (await admin("/")).text();
    for (const path of ["/config_dump", "/clusters", "/stats", "/logging", "/certificates/renew", "/quitquitquit", "/healthz"]) expect(page).toContain(path);
    expect(await (await admin("/healthz")).text()).toBe("ok\n");
    expect((await admin("/nothing")).status).toBe(404);
  });

  test("changes the log filter and puts it back; a bad one is refused and changes nothing", async () => {
    expect(await (await admin("/logging?level=debug,access=off", { method: "POST" })).text()).toBe("current log level is debug,access=off\n");
    expect((await admin("/logging?level=access%3Dloud", { method: "POST" })).status).toBe(400);
    expect(await (await admin("/logging")).text()).toBe("current log level is debug,access=off\n");
    expect(await (await admin("/logging?reset", { method: "POST" })).text()).toBe("current log level is info\n");
  });

  test("what istioctl asks leaves the filter alone, and what it names changes alone", async () => {
    const post = async (query: string): Promise<string> => (await (await admin(`/logging?${query}`, { method: "POST" })).text()).replace("current log level is ", "").trim();
    expect(await post("level=debug,access=off")).toBe("debug,access=off");
    expect(await post("level=")).toBe("debug,access=off");
    expect(await post("level=ztunnel::pool:warn")).toBe("debug,access=off,ztunnel.pool=warn");
    expect(await post("level=info,access:error")).toBe("info,access=error,ztunnel.pool=warn");
    expect((await admin("/logging?level=nonsense%3Dloud&reset", { method: "POST" })).status).toBe(400);
    expect(await post("level=")).toBe("info,access=error,ztunnel.pool=warn");
    expect(await post("level=warn&reset")).toBe("warn");
    expect(await post("reset")).toBe("info");
  });

  test("refuses a Host that is not loopback, and a page of another origin", async () => {
    expect((await admin("/config_dump", { headers: { Host: "rebound.example" } })).status).toBe(403);
    expect((await admin("/quitquitquit", { method: "POST", headers: { Origin: "http://evil.example" } })).status).toBe(403);
    expect(lifecycle.reason).toBeNull();
  });

  test("refuses a body that is too large", async () => {
    const response = await admin("/logging", { method: "POST", body: "x".repeat(100_000) });
    expect(response.status).toBe(413);
  });

  test("a GET does not stop the process, a POST does, and readiness says so", async () => {
    expect((await admin("/quitquitquit")).status).toBe(405);
    expect(lifecycle.reason).toBeNull();
    expect((await admin("/quitquitquit", { method: "POST" })).status).toBe(200);
    expect(lifecycle.reason?.message).toBe("POST /quitquitquit");
    expect((await fetch(`http://127.0.0.1:${servers.readinessPort}/healthz/ready`)).status).toBe(503);
  });
});

describe("metrics", () => {
  const get = (headers: Record<string, string>, path = "/metrics") => fetch(`http://127.0.0.1:${servers.metricsPort}${path}`, { headers });

  test("come as Prometheus text, as OpenMetrics when asked, compressed when acceptable", async () => {
    const plain = await get({ "Accept-Encoding": "identity" });
    expect(plain.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
    expect(plain.headers.get("content-encoding")).toBeNull();
    const text = await plain.text();
    expect(text).toContain('istio_build{component="ztunnel",tag="test"} 1');
    expect(text).toMatch(/^process_open_fds \d+$/m);
    expect(text).toMatch(/^process_resident_memory_bytes \d+$/m);
    const open = await get({ Accept: "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip" }, "/stats/prometheus");
    expect(open.headers.get("content-encoding")).toBe("gzip");
    expect(await open.text()).toEndWith("# EOF\n");
  });
});

test("readiness names what is waited for", async () => {
  lifecycle = new Lifecycle();
  const started = await startAdmin(listening(), {
    log, lifecycle, version: "test", configDump: async () => ({}), snapshots: async () => [], exposition: new Exposition(), processMetrics: [],
  });
  const get = () => fetch(`http://127.0.0.1:${started.readinessPort}/healthz/ready`);
  const done = lifecycle.readiness.pending("configuration", "not read yet");
  const waiting = await get();
  expect([waiting.status, await waiting.text()]).toEqual([503, "not ready: configuration: not read yet\n"]);
  done();
  expect((await get()).status).toBe(200);
  lifecycle.readiness.remark("workloads", "a is not in the mesh");
  const amiss = await get();
  expect([amiss.status, await amiss.text()]).toEqual([200, "ready\nworkloads: a is not in the mesh\n"]);
  await started.stop();
});

test("a port that cannot be had is named", () => {
  const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response() });
  const started = opened({ admin: { ...loopback, port: taken.port! }, metrics: loopback, readiness: loopback });
  expect(started).toMatchObject({ ok: false });
  if (!started.ok) expect(started.error).toContain(`cannot listen on 127.0.0.1:${taken.port}`);
  void taken.stop(true);
});

test("host and origin are judged strictly", () => {
  for (const host of ["localhost", "LOCALHOST:15000", "127.0.0.1:15000", "127.9.9.9", "[::1]:15000"]) expect(judgeHost(host)).toBeNull();
  for (const host of [undefined, "", "localhost.evil.example", "127.0.0.1.evil.example", "198.18.0.1", "::1", "[127.0.0.1]", "0.0.0.0", "2130706433"]) expect(judgeHost(host)).not.toBeNull();
  for (const origin of [undefined, "http://localhost:15000", "http://127.0.0.1:15000"]) expect(judgeOrigin(origin, 15000)).toBeNull();
  for (const origin of ["null", "http://localhost:8080", "https://localhost:15000", "http://localhost.evil:15000"]) expect(judgeOrigin(origin, 15000)).not.toBeNull();
});

describe("configuration dump", () => {
  const web = workload("web", { waypoints: [{ weight: 1, gateway: { destination: { kind: "hostname", service: namespacedName("shop", "wp.shop.svc.cluster.local") }, hboneMtlsPort: 15008 } }] });
  const id = parseSpiffeId("spiffe://cluster.local/ns/shop/sa/web")!.id;
  const sources: DumpSources = {
    workloads: () => [web], services: () => [], policies: () => [], endpoints: () => [], config: () => ({}), version: "test",
    certificates: () => [{ spiffeId: id, failure: "CA is away", certificate: null }, { spiffeId: id, failure: null, certificate: { certificateChainPem: createRequest(id).privateKeyPem, trustBundlePem: "" } }],
    localWorkloads: async () => [{ uid: web.uid, workload: web, state: "Up", connections: [{ direction: "outbound", source: "a", asked: "b", reached: "c", protocol: "HBONE" }, { direction: "inbound", source: "d", asked: null, reached: "e", protocol: "TCP" }] }],
  };

  test("has the keys that istioctl reads", async () => {
    expect(parseTrustDomain("cluster.local")).not.toBeNull();
    const dump = await configDump(sources);
    expect(dump["workloads"]).toMatchObject([{ uid: web.uid, workloadIps: ["198.18.0.1"], protocol: "HBONE", status: "Healthy", waypoint: { destination: "shop/wp.shop.svc.cluster.local" } }]);
    expect(dump["workloadState"]).toMatchObject({ [web.uid]: { state: "Up", connections: { inbound: [{ src: "d", actualDst: "e", protocol: "TCP" }], outbound: [{ src: "a", originalDst: "b", actualDst: "c", protocol: "HBONE" }] }, info: { name: "web", serviceAccount: "web" } } });
    expect(dump["certificates"]).toMatchObject([{ state: "Unavailable: CA is away" }, { state: "Available", certChain: [] }]);
  });

  test("never shows a private key, even one that stands where a certificate should", async () => {
    expect(JSON.stringify(await configDump(sources))).not.toContain("PRIVATE");
    expect(Buffer.from(JSON.stringify(await configDump(sources))).includes(Buffer.from("PRIVATE").toString("base64"))).toBe(false);
  });
});
