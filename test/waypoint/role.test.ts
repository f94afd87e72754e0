// `weft waypoint` as a process: a directory of YAML, real clients, a change in force within a second, the end by SIGTERM.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { until } from "../kit/mesh.ts";
import { ip } from "../kit/mesh-records.ts";
import { backend1, type Backend } from "../kit/waypoint.ts";

const ROOT = join(import.meta.dir, "../..");
const directory = mkdtempSync(join(tmpdir(), "weft-waypoint-"));
const config = join(directory, "config");
/** On the loopback of this box. */
const [ONE, TWO] = ["198.18.7.1", "198.18.7.2"];
const URL_BASE = "http://127.0.0.1:8080";

const entry = (name: string, address: string, port: number, version: string): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop }
spec:
  address: ${address}
  labels: { app: ${name}, version: ${version} }
  serviceAccount: web
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec:
  clusterIP: 198.18.250.${address.slice(-1)}
  selector: { app: ${name} }
  ports: [{ name: http, port: 80, targetPort: ${port} }]
`;

const ROUTE = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: one }]
  rules:
    - name: canary
      matches: [{ headers: [{ name: x-canary, value: "yes" }] }]
      backendRefs: [{ name: two, port: 80 }]
    - backendRefs: [{ name: one, port: 80 }]
`;

const DENY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: no-delete, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: one }]
  action: DENY
  rules: [{ to: [{ operation: { methods: ["DELETE"], paths: ["/admin*"] } }] }]
`;

const GATEWAY = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: shop }
spec:
  gatewayClassName: weft-waypoint
  listeners: [{ name: mesh, port: 15008, protocol: HBONE }]
`;

function write(name: string, yaml: string): void {
  writeFileSync(join(directory, name), yaml);
  renameSync(join(directory, name), join(config, name));
}

let one: Backend;
let two: Backend;
let waypoint: Bun.Subprocess;
const log = (): string => readFileSync(join(directory, "log"), "utf8");

beforeAll(async () => {
  mkdirSync(config);
  using links = must(NamespaceLinks.open(null));
  for (const address of [ONE, TWO]) must(links.addAddress(must(links.loopback()), ip(address), 32));
  one = await backend1((request, response) => {
    if (request.url === "/slow") setTimeout(() => response.end("slow one"), 600);
    else response.end(`one ${request.method} ${request.url}`);
  }, ONE);
  two = await backend1((_request, response) => response.end("two"), TWO);
  write("services.yaml", `apiVersion: v1\nkind: Namespace\nmetadata: { name: shop }\n---${entry("one", ONE, one.port, "v1")}---${entry("two", TWO, two.port, "v2")}---${GATEWAY}---${ROUTE}`);
  waypoint = Bun.spawn(
    [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", config, "--state", join(directory, "state"), "--gateway", "shop/waypoint", "--workers", "2", "--log-format", "json",
      "--serve", "127.0.0.1:8080=shop/one.shop.svc.cluster.local:80"],
    { stdout: "ignore", stderr: Bun.file(join(directory, "log")) },
  );
  await until("the waypoint to be ready", 20_000, () => fetch("http://127.0.0.1:15021/healthz/ready").then(({ ok }) => ok, () => false)).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${log()}`);
  });
}, 30_000);

afterAll(async () => {
  waypoint.kill("SIGKILL");
  await waypoint.exited;
  await one[Symbol.asyncDispose]();
  await two[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

const curl = async (...args: string[]): Promise<string> => new Response(Bun.spawn(["curl", "-sS", "--max-time", "5", ...args], { stderr: "inherit" }).stdout).text();

describe("weft waypoint", () => {
  test("routes by header, over HTTP/1.1 and over HTTP/2 with prior knowledge", async () => {
    expect(await curl(`${URL_BASE}/a`)).toBe("one GET /a");
    expect(await curl("-H", "x-canary: yes", `${URL_BASE}/a`)).toBe("two");
    expect(await curl("-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--http2-prior-knowledge", "-X", "POST", "-d", "x", `${URL_BASE}/a`)).toMatch(/^2 /);
  });

  test("a policy is in force within a second and says so; taken away it is not", async () => {
    expect(await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).toBe("one DELETE /admin/x");
    write("deny.yaml", DENY);
    const startedMs = performance.now();
    await until("the denial", 3_000, async () => (await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).startsWith("RBAC"));
    expect(performance.now() - startedMs).toBeLessThan(1_500);
    expect(await curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", "-X", "DELETE", `${URL_BASE}/admin/x`)).toBe("403 access_denied");
    expect(await curl("-X", "DELETE", `${URL_BASE}/other`)).toBe("one DELETE /other");
    rmSync(join(config, "deny.yaml"));
    await until("the end of the denial", 3_000, async () => (await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).startsWith("one"));
  });

  test("each request has a line with route, rule, reason and endpoint", async () => {
    const lines = await until("the lines", 3_000, () => {
      const found = log().split("\n").filter((line) => line.includes('"scope":"access"')).map((line) => JSON.parse(line) as Record<string, unknown>);
      return found.some(({ reason }) => reason === "access_denied") ? found : null;
    });
    expect(lines.find(({ reason }) => reason === "access_denied")).toMatchObject({ method: "DELETE", path: "/admin/x", response_code: 403, response_code_details: "access_denied", rule: "AuthorizationPolicy shop/no-delete spec.rules[0]" });
    expect(lines.find(({ rule }) => rule === "HTTPRoute shop/web spec.rules[0].matches[0]")).toMatchObject({ response_code: 200, upstream_host: `${TWO}:${two.port}`, attempts: 1 });
  });

  test("the configuration in force, and what each thread has, can be read", async () => {
    const dump = (await (await fetch("http://127.0.0.1:15000/config_dump")).json()) as { routes: { id: string }[]; threads: { clusters: { name: string }[] }[] };
    expect(dump.routes.map(({ id }) => id)).toEqual(["HTTPRoute/shop/web"]);
    expect(dump.threads).toHaveLength(2);
    expect(dump.threads.flatMap(({ clusters }) => clusters.map(({ name }) => name))).toContain("shop/one.shop.svc.cluster.local:80");
    const metrics = await (await fetch("http://127.0.0.1:15020/metrics")).text();
    expect(metrics).toContain("weft_configuration_changes_total");
    expect(metrics).toMatch(/istio_requests_total\{[^}]*response_code="403"[^}]*\} [1-9]/);
  });

  test("wrk and h2load get every answer", async () => {
    const wrk = await new Response(Bun.spawn(["wrk", "-t1", "-c32", "-d1s", `${URL_BASE}/load`]).stdout).text();
    expect(wrk).toMatch(/[1-9]\d* requests in/);
    expect(wrk).not.toMatch(/Non-2xx|Socket errors/);
    const h2load = await new Response(Bun.spawn(["h2load", "-n", "500", "-c", "4", "-m", "10", "--header=x-canary: no", `${URL_BASE}/load`]).stdout).text();
    expect(h2load).toMatch(/500 total, 500 started, 500 done/);
  });

  test("SIGTERM: what is under way ends by itself, nothing new is taken", async () => {
    const slow = curl(`${URL_BASE}/slow`);
    await until("the slow request to arrive", 5_000, () => one.seen.some(({ url }) => url === "/slow") || null);
    waypoint.kill("SIGTERM");
    expect(await slow).toBe("slow one");
    expect(await waypoint.exited).toBe(0);
    expect(log()).toContain('"closed_by_force":0');
  });
});
