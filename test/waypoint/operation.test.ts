// `weft waypoint` as its operator sees it: the administration port, log levels, readiness, and the end by SIGTERM for clients of either HTTP.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { connect as connect2 } from "node:http2";
import { until } from "../kit/until.ts";
import { backend1, backend2, type Backend } from "../kit/waypoint.ts";
import { ownAddresses, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [GOOD, BAD, TWO] = ["198.18.7.1", "198.18.7.2", "198.18.7.3"];
const URL_BASE = "http://127.0.0.1:8080";
const ADMIN = "http://127.0.0.1:15000";
const SECRET = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

const entry = (name: string, address: string, port: number, app = "web"): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop }
spec: { address: ${address}, ports: { http: ${port} }, labels: { app: ${app} }, serviceAccount: web }
`;

const REST = `
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 198.18.250.1, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Service
metadata: { name: two, namespace: shop }
spec: { clusterIP: 198.18.250.3, selector: { app: two }, ports: [{ name: http2, port: 80, targetPort: http }] }
---
apiVersion: v1
kind: Service
metadata: { name: private, namespace: shop }
spec: { clusterIP: 198.18.250.2, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: http }] }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: web, namespace: shop }
spec:
  host: web.shop.svc.cluster.local
  trafficPolicy:
    # The default would not go back to an endpoint that has failed once while the other is quicker.
    loadBalancer: { simple: ROUND_ROBIN }
    connectionPool: { http: { http2MaxRequests: 77, maxRetries: 3 } }
    outlierDetection: { consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100 }
---
apiVersion: v1
kind: Secret
metadata: { name: login, namespace: shop }
stringData: { clientSecret: "${SECRET}", keys: "${SECRET}" }
---
apiVersion: weft.dev/v1alpha1
kind: LoginPolicy
metadata: { name: private, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: private }]
  issuer: https://issuer.example
  clientId: shop
  clientSecretRef: { name: login }
  cookie: { keysRef: { name: login } }
`;

let good: Backend;
let bad: Backend;
let two: Backend;
let waypoint: WaypointProcess;
/** Answers that are held back until they are let go. */
const held: (() => void)[] = [];

beforeAll(async () => {
  ownAddresses([GOOD, BAD, TWO]);
  const handler = (status: number) => (request: IncomingMessage, response: import("node:http").ServerResponse): void => {
    response.statusCode = request.url === "/fails" ? status : 200;
    if (request.url === "/held") held.push(() => response.end("held"));
    else response.end("ok");
  };
  good = await backend1(handler(200), GOOD);
  bad = await backend1(handler(500), BAD);
  two = await backend2((stream) => void held.push(() => {
    stream.respond({ ":status": 200 });
    stream.end("held");
  }), TWO);
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [`${WAYPOINT_YAML}\n`, entry("good", GOOD, good.port), entry("bad", BAD, bad.port), entry("two", TWO, two.port, "two"), REST].join("---") },
    flags: ["--workers", "2", "--drain", "10s", "--serve", "127.0.0.1:8080=shop/web.shop.svc.cluster.local:80,127.0.0.1:8082=shop/two.shop.svc.cluster.local:80"],
  });
});

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  await good[Symbol.asyncDispose]();
  await bad[Symbol.asyncDispose]();
  await two[Symbol.asyncDispose]();
});

const admin = async (path: string, init: RequestInit = {}): Promise<string> => (await fetch(`${ADMIN}${path}`, init)).text();
/** Each over a connection of its own, so that both threads have some. */
const get = async (path: string): Promise<number> => (await fetch(URL_BASE + path, { headers: { connection: "close" }, keepalive: false })).status;

describe("the administration port of a waypoint", () => {
  test("/config_dump has the L7 configuration beside the mesh's, and no secret of either", async () => {
    const text = await admin("/config_dump");
    expect(text).not.toContain(SECRET);
    const dump = JSON.parse(text) as Record<string, { name?: string; clientSecret?: string; cookieKeys?: string[] }[]> & { gateway: string; trafficPolicies: object };
    expect(dump.gateway).toBe("shop/waypoint");
    expect(dump["workloads"]!.map(({ name }) => name).sort()).toEqual(["bad", "good", "two"]);
    expect(dump["loginPolicies"]).toEqual([expect.objectContaining({ name: "private", clientId: "shop", clientSecret: "(not shown)", cookieKeys: ["(not shown)"] })]);
    expect(Object.keys(dump.trafficPolicies)).toEqual(["shop/web.shop.svc.cluster.local"]);
    expect(dump["services"]!.find(({ name }) => name === "web")).toMatchObject({ endpoints: { [Object.keys((dump["services"]![0] as unknown as { endpoints: object }).endpoints)[0]!]: { status: "Healthy" } } });
  });

  test("/clusters shows endpoints of all threads with ejection and load, and the limits", async () => {
    const text = await until("an ejection", 10_000, async () => {
      for (let i = 0; i < 8; i++) await get("/fails");
      const shown = await admin("/clusters");
      return shown.includes("failed_outlier_check") ? shown : null;
    });
    expect(text).toMatch(new RegExp(`^shop/web\\.shop\\.svc\\.cluster\\.local:80::${BAD}:${bad.port}::health_flags::/failed_outlier_check \\(consecutive5xx, [12] of [12] threads\\)$`, "m"));
    expect(text).toContain(`shop/web.shop.svc.cluster.local:80::${GOOD}:${good.port}::health_flags::unchecked\n`);
    expect(text).toMatch(/::limit_activeRequests::0\/(77|154)\n/);
    const slow = get("/held");
    await until("it to arrive", 5_000, () => held.length > 0);
    const { clusters } = JSON.parse(await admin("/clusters?format=json")) as { clusters: { name: string; endpoints: { activeRequests: number }[] }[] };
    expect(clusters[0]!.endpoints.reduce((sum, { activeRequests }) => sum + activeRequests, 0)).toBe(1);
    held.shift()!();
    expect(await slow).toBe(200);
  });

  test("/stats are the metrics one a line; /stats/prometheus is what port 15020 has", async () => {
    const lines = (await admin("/stats?filter=istio_requests_total")).trimEnd().split("\n");
    expect(lines.length).toBeGreaterThan(0);
    for (const line of lines) expect(line).toMatch(/^istio_requests_total\{.*\} \d+$/);
    expect(await admin("/stats/prometheus")).toContain("# TYPE istio_requests_total counter");
    expect(await admin("/stats")).toContain("weft_upstream_endpoints{");
    const threads = [...(await admin("/stats?filter=weft_thread_lag_seconds")).matchAll(/thread="([^"]*)"/g)].map((match) => match[1]);
    expect(threads.sort()).toEqual(["data-0", "data-1", "main"]);
  });

  test("/logging changes what is logged while it runs", async () => {
    await admin("/logging?level=info,access=off", { method: "POST" });
    const before = waypoint.lines.length;
    await get("/quiet");
    // Its line has left the data thread.
    await waypoint.dump();
    expect(await admin("/logging?reset", { method: "POST" })).toBe("current log level is info\n");
    await get("/loud");
    await until("the line", 5_000, () => waypoint.lines.some(({ path }) => path === "/loud"));
    expect(waypoint.lines.slice(before).map(({ path }) => path)).toEqual(["/loud"]);
  });
});

describe("SIGTERM", () => {
  test("clients are told, what is under way ends by itself, readiness says so, nothing new is taken", async () => {
    const session = connect2("http://127.0.0.1:8082");
    let goaway = false;
    session.on("goaway", () => (goaway = true));
    session.on("error", () => {});
    const over2 = answer2(session, "/held");
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    await answer1(agent, "/before");
    const over1 = answer1(agent, "/held");
    await until("both to arrive", 5_000, () => held.length === 2);
    waypoint.process.kill("SIGTERM");
    await until("GOAWAY", 5_000, () => goaway);
    expect((await fetch("http://127.0.0.1:15021/healthz/ready")).status).toBe(503);
    expect(await (await fetch("http://127.0.0.1:15021/healthz/ready")).text()).toContain("stopping: ");
    await until("no new connection to be taken", 5_000, () => fetch(`${URL_BASE}/new`, { keepalive: false }).then(() => false, () => true));
    for (const release of held.splice(0)) release();
    expect(await over2).toEqual({ status: 200, text: "held" });
    expect(await over1).toEqual({ status: 200, text: "held", connection: "close" });
    expect(await waypoint.process.exited).toBe(0);
    expect(waypoint.log).toContain('"closed_by_force":0');
    agent.destroy();
    session.destroy();
  });
});

function answer2(session: import("node:http2").ClientHttp2Session, path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":path": path, ":authority": "web" });
    let status = 0;
    let text = "";
    stream.on("response", (headers) => (status = Number(headers[":status"])));
    stream.on("data", (chunk: Buffer) => (text += chunk.toString()));
    stream.on("end", () => resolve({ status, text }));
    stream.on("error", reject);
    stream.end();
  });
}

function answer1(agent: Agent, path: string): Promise<{ status: number; text: string; connection: string | undefined }> {
  return new Promise((resolve, reject) => {
    const asked = httpRequest(URL_BASE + path, { agent }, (response) => {
      let text = "";
      response.on("data", (chunk: Buffer) => (text += chunk.toString()));
      response.on("end", () => resolve({ status: response.statusCode!, text, connection: response.headers.connection }));
    });
    asked.on("error", reject);
    asked.end();
  });
}
