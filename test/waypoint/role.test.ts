// `weft waypoint` as a process: a directory of YAML, real clients, a change in force within a second, the end by SIGTERM.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { promised } from "../kit/fair-time.ts";
import { until } from "../kit/until.ts";
import { backend1, type Backend } from "../kit/waypoint.ts";
import { curl, ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

/** On the loopback of this box. */
const [ONE, TWO] = ["198.18.7.1", "198.18.7.2"];
/** A change is in force within a second; curl takes its time too. */
const CHANGE_MS = 1_500;
const AT_ONCE_MS = 1_500;
const URL_BASE = "http://127.0.0.1:8080";

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
    - matches: [{ headers: [{ name: x-mesh, value: "yes" }] }]
      backendRefs: [{ name: meshed, port: 80 }]
    - backendRefs: [{ name: one, port: 80 }]
`;

/** A workload that is reached by tunnel only, and the record that gives the waypoint an identity. */
const MESHED = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: meshed, namespace: shop, labels: { networking.istio.io/tunnel: http } }
spec: { address: 198.18.7.1, labels: { app: meshed }, serviceAccount: meshed }
---
apiVersion: v1
kind: Service
metadata: { name: meshed, namespace: shop }
spec: { clusterIP: 198.18.250.30, selector: { app: meshed }, ports: [{ name: http, port: 80 }] }
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: waypoint-1, namespace: shop, labels: { networking.istio.io/tunnel: http, gateway.networking.k8s.io/gateway-name: waypoint } }
spec: { address: 198.18.7.9, serviceAccount: waypoint }
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

let one: Backend;
let two: Backend;
let waypoint: WaypointProcess;

beforeAll(async () => {
  ownAddresses([ONE, TWO]);
  one = await backend1((request, response) => {
    if (request.url === "/slow") setTimeout(() => response.end("slow one"), 600);
    else response.end(`one ${request.method} ${request.url}`);
  }, ONE);
  two = await backend1((_request, response) => response.end("two"), TWO);
  waypoint = await WaypointProcess.start({
    yaml: { "services.yaml": [WAYPOINT_YAML, serviceYaml("one", ONE, one.port), serviceYaml("two", TWO, two.port), ROUTE, MESHED].join("\n---\n") },
    flags: ["--serve", "127.0.0.1:8080=shop/one.shop.svc.cluster.local:80", "--workers", "2", "--path-normalization", "MERGE_SLASHES"],
  });
}, 60_000);

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  await one[Symbol.asyncDispose]();
  await two[Symbol.asyncDispose]();
});


describe("weft waypoint", () => {
  test("routes by header, over HTTP/1.1 and over HTTP/2 with prior knowledge", async () => {
    expect(await curl(`${URL_BASE}/a`)).toBe("one GET /a");
    expect(await curl("-H", "x-canary: yes", `${URL_BASE}/a`)).toBe("two");
    expect(await curl("-o", "/dev/null", "-w", "%{http_version} %{http_code}", "--http2-prior-knowledge", "-X", "POST", "-d", "x", `${URL_BASE}/a`)).toBe("2 200");
  });

  test("a policy is in force within a second and says so; taken away it is not", async () => {
    expect(await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).toBe("one DELETE /admin/x");
    expect(await curl("--path-as-is", "-X", "DELETE", `${URL_BASE}//admin//x`)).toBe("one DELETE /admin/x");
    waypoint.write("deny.yaml", DENY);
    await promised("the denial", CHANGE_MS, async () => (await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).startsWith("RBAC"));
    expect(await curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", "-X", "DELETE", `${URL_BASE}/admin/x`)).toBe("403 access_denied");
    expect(await curl("--path-as-is", "-X", "DELETE", `${URL_BASE}//admin//x`)).toStartWith("RBAC");
    expect(await curl("-X", "DELETE", `${URL_BASE}/other`)).toBe("one DELETE /other");
    waypoint.remove("deny.yaml");
    await until("the end of the denial", 3_000, async () => (await curl("-X", "DELETE", `${URL_BASE}/admin/x`)).startsWith("one"));
  });

  test("without a CA it says so, and what is reached by tunnel only fails at once with that reason", async () => {
    expect(waypoint.log).toContain("without --ca-address requests to workloads in the mesh are answered 503");
    await promised("503 at once", AT_ONCE_MS, async () => (await curl("-H", "x-mesh: yes", "-o", "/dev/null", "-w", "%{http_code}", `${URL_BASE}/meshed`)) === "503");
    const line = await until("its line", 5_000, () => waypoint.lines.find(({ path }) => path === "/meshed") ?? null);
    expect(JSON.stringify(line)).toContain("give --ca-address");
  });

  test("each request has a line with route, rule, reason and endpoint", async () => {
    const lines = await until("the lines", 3_000, () => {
      const found = waypoint.lines;
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
    expect(h2load).toMatch(/500 total, 500 started, 500 done, 500 succeeded/);
    expect(h2load).toMatch(/status codes: 500 2xx/);
  });

  test("SIGTERM: what is under way ends by itself, nothing new is taken", async () => {
    const slow = curl(`${URL_BASE}/slow`);
    await until("the slow request to arrive", 5_000, () => one.seen.some(({ url }) => url === "/slow") || null);
    waypoint.process.kill("SIGTERM");
    expect(await slow).toBe("slow one");
    expect(await waypoint.process.exited).toBe(0);
    expect(waypoint.log).toContain('"closed_by_force":0');
  });
});
