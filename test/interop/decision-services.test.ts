// Services of others that a waypoint asks: Envoy's own rate limit service with Redis behind it, and the external authoriser of Istio's samples by
// gRPC and by HTTP, configured by the YAML that a user writes. ENVOY_RATELIMIT and ISTIO_EXTAUTHZ name the two where they are not in the path.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../kit/box.ts";
import { freePorts, takesConnections } from "../kit/ports.ts";
import { describeUnless, firstReason, needsProgram, type SkipReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend1 } from "../kit/waypoint.ts";
import { curl, ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const RATELIMIT = process.env["ENVOY_RATELIMIT"] ?? "envoy-ratelimit";
const EXTAUTHZ = process.env["ISTIO_EXTAUTHZ"] ?? "istio-extauthz";
const missing = (program: string, what: string, variable: string): SkipReason => (Bun.which(program) === null ? `needs ${what}: ${program} in the path, or ${variable}` : null);

/** On the loopback of this box. */
const [SERVER, ASKED] = ["198.18.7.41", "198.18.7.42"];
const PORT = 8080;
const URL_BASE = `http://127.0.0.1:${PORT}`;
const STARTED_MS = 20_000;
/** As much as a command line bears. */
const BODY_BYTES = 100_000;
const CHANGE_MS = 10_000;

const status = (...args: readonly string[]): Promise<string> => curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", ...args);
const object = (apiVersion: string, kind: string, name: string, spec: object, namespace = "shop"): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace }, spec });
const targetRefs = [{ group: "", kind: "Service", name: "web" }];

let server: Backend;

beforeAll(async () => {
  ownAddresses([SERVER, ASKED]);
  server = await backend1((request, response) => response.end(`seen ${request.url}`), SERVER);
});
afterAll(async () => await server?.[Symbol.asyncDispose]());

const flags = ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"];

describeUnless(firstReason(unsealed, missing(RATELIMIT, "Envoy's rate limit service", "ENVOY_RATELIMIT"), needsProgram("redis-server")))("Envoy's rate limit service", () => {
  /** By hours: no test is so slow that a count begins anew. */
  const LIMITS = `
domain: shop
descriptors:
- { key: user, rate_limit: { unit: hour, requests_per_unit: 3 } }
- { key: user, value: gold, rate_limit: { unit: hour, requests_per_unit: 100 } }
- { key: user, value: shadow, rate_limit: { unit: hour, requests_per_unit: 1 }, shadow_mode: true }
- { key: user, value: free, rate_limit: { unlimited: true } }
- key: tenant
  descriptors:
  - { key: path, rate_limit: { unit: hour, requests_per_unit: 2 } }
`;
  const policy = (onFailure: string): string => object("weft.dev/v1alpha1", "TrafficPolicy", "web", {
    targetRefs,
    rateLimits: {
      global: [{
        name: "quota", service: { name: "limits", namespace: "shop", port: 8081 }, domain: "shop", timeout: "2s", onFailure, hitsHeader: "x-hits",
        descriptors: [[{ key: "user", header: "x-user" }], [{ key: "tenant", header: "x-tenant" }, { key: "path", path: {} }]],
      }],
    },
  });

  let directory: string;
  let waypoint: WaypointProcess;
  let redisPort: number;
  let grpcPort: number;
  let ports: number[];
  let redis: Bun.Subprocess;
  let limits: Bun.Subprocess;

  const startRedis = async (): Promise<void> => {
    redis = Bun.spawn(["redis-server", "--port", `${redisPort}`, "--bind", "127.0.0.1", "--save", "", "--dir", directory], { stdout: "ignore", stderr: "inherit" });
    await until("Redis to listen", STARTED_MS, () => takesConnections(redisPort));
  };
  const startLimits = async (): Promise<void> => {
    limits = Bun.spawn([RATELIMIT], {
      stdout: "ignore", stderr: "ignore",
      env: {
        ...process.env, USE_STATSD: "false", LOG_LEVEL: "error", REDIS_SOCKET_TYPE: "tcp", REDIS_URL: `127.0.0.1:${redisPort}`, RUNTIME_ROOT: directory, RUNTIME_SUBDIRECTORY: "ratelimit", RUNTIME_WATCH_ROOT: "false",
        GRPC_HOST: ASKED, GRPC_PORT: `${grpcPort}`, HOST: "127.0.0.1", PORT: `${ports[0]}`, DEBUG_HOST: "127.0.0.1", DEBUG_PORT: `${ports[1]}`,
      },
    });
    const ready = (): Promise<boolean> => fetch(`http://127.0.0.1:${ports[0]}/healthcheck`).then(({ ok }) => ok, () => false);
    await until("the rate limit service to be ready", STARTED_MS, ready);
  };

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), "weft-ratelimit-"));
    mkdirSync(join(directory, "ratelimit/config"), { recursive: true });
    writeFileSync(join(directory, "ratelimit/config/shop.yaml"), LIMITS);
    [redisPort, grpcPort, ...ports] = (await freePorts(4)) as [number, number, ...number[]];
    await startRedis();
    await startLimits();
    waypoint = await WaypointProcess.start({
      yaml: { "shop.yaml": [WAYPOINT_YAML, serviceYaml("web", SERVER, server.port), serviceYaml("limits", ASKED, grpcPort, 8081).replace('"name":"http"', '"name":"grpc"'), policy("Deny")].join("\n---\n") }, flags,
    });
    await until(() => `it to be asked; the log:\n${waypoint.log.slice(-3000)}`, CHANGE_MS, async () => (await status("-H", "x-user: free", URL_BASE)) === "200 ");
  });
  afterAll(async () => {
    await waypoint?.[Symbol.asyncDispose]();
    for (const each of [limits, redis]) {
      each?.kill("SIGKILL");
      await each?.exited;
    }
    rmSync(directory, { recursive: true, force: true });
  });

  const answers = async (count: number, ...args: readonly string[]): Promise<string[]> => {
    const all = [];
    for (let i = 0; i < count; i++) all.push(await status(...args));
    return all;
  };

  test("counts by what the descriptors say, each value for itself", async () => {
    expect(await answers(5, "-H", "x-user: anna", URL_BASE)).toEqual(["200 ", "200 ", "200 ", "429 rate_limited", "429 rate_limited"]);
    expect(await answers(4, "-H", "x-user: bert", URL_BASE)).toEqual(["200 ", "200 ", "200 ", "429 rate_limited"]);
    expect(await answers(5, "-H", "x-user: gold", URL_BASE)).toEqual(Array(5).fill("200 "));
    expect(await answers(3, "-H", "x-tenant: a", `${URL_BASE}/cart`)).toEqual(["200 ", "200 ", "429 rate_limited"]);
    expect(await status("-H", "x-tenant: a", `${URL_BASE}/other`)).toBe("200 ");
  });

  test("what it only watches goes on, and what it does not limit too", async () => {
    expect(await answers(4, "-H", "x-user: shadow", URL_BASE)).toEqual(Array(4).fill("200 "));
    expect(await answers(4, "-H", "x-user: free", URL_BASE)).toEqual(Array(4).fill("200 "));
    expect(await answers(4, URL_BASE)).toEqual(Array(4).fill("200 "));
  });

  test("clients are told the limit, what is left and when to come back", async () => {
    const heads = await curl("-D", "-", "-o", "/dev/null", "-H", "x-user: carl", URL_BASE);
    expect(heads).toMatch(/^ratelimit: "global";r=2;t=\d+\r$/im);
    expect(heads).toMatch(/^ratelimit-policy: .*q=3;w=3600/im);
    expect(heads).toMatch(/^x-ratelimit-remaining: 2\r$/im);
    await answers(2, "-H", "x-user: carl", URL_BASE);
    expect(await curl("-D", "-", "-o", "/dev/null", "-H", "x-user: carl", URL_BASE)).toMatch(/^retry-after: [1-9]\d*\r$/im);
  });

  test("a request may count for several", async () => {
    expect(await answers(2, "-H", "x-user: dora", "-H", "x-hits: 3", URL_BASE)).toEqual(["200 ", "429 rate_limited"]);
  });

  test("the count is the service's and Redis's: a waypoint that starts anew goes on from there", async () => {
    expect(await answers(2, "-H", "x-user: emil", URL_BASE)).toEqual(["200 ", "200 "]);
    waypoint.process.kill("SIGTERM");
    expect(await waypoint.process.exited).toBe(0);
    waypoint.spawn();
    await waypoint.ready();
    await until("it to be asked", CHANGE_MS, async () => (await status("-H", "x-user: free", URL_BASE)) === "200 ");
    expect(await answers(2, "-H", "x-user: emil", URL_BASE)).toEqual(["200 ", "429 rate_limited"]);
  });

  test("without its Redis, and without it, onFailure decides; both are survived", async () => {
    redis.kill("SIGKILL");
    await redis.exited;
    expect(await status("-H", "x-user: gold", URL_BASE)).toBe("500 rate_limit_failed");
    await until("its line", CHANGE_MS, () => waypoint.lines.some(({ reason }) => reason === "rate_limit_failed"));
    await startRedis();
    await until("it to count again", CHANGE_MS, async () => (await status("-H", "x-user: gold", URL_BASE)) === "200 ");
    limits.kill("SIGKILL");
    await limits.exited;
    expect(await status("-H", "x-user: gold", URL_BASE)).toBe("500 rate_limit_failed");
    waypoint.write("shop.yaml", [WAYPOINT_YAML, serviceYaml("web", SERVER, server.port), serviceYaml("limits", ASKED, grpcPort, 8081).replace('"name":"http"', '"name":"grpc"'), policy("Allow")].join("\n---\n"));
    await until("requests to go on without it", CHANGE_MS, async () => (await status("-H", "x-user: anna", URL_BASE)) === "200 ");
    await startLimits();
    await until("it to be asked again", CHANGE_MS, async () => (await status("-H", "x-user: fritz", "-H", "x-hits: 4", URL_BASE)) === "429 rate_limited");
  });
});

describeUnless(firstReason(unsealed, missing(EXTAUTHZ, "the external authoriser of Istio's samples", "ISTIO_EXTAUTHZ")))("the external authoriser of Istio's samples", () => {
  let waypoint: WaypointProcess;
  let authorizer: Bun.Subprocess;
  let httpPort: number;
  let grpcPort: number;

  const start = async (): Promise<void> => {
    authorizer = Bun.spawn([EXTAUTHZ, "-http", `${httpPort}`, "-grpc", `${grpcPort}`], { stdout: "ignore", stderr: "ignore" });
    await until("it to listen", STARTED_MS, async () => (await takesConnections(httpPort)) && (await takesConnections(grpcPort)));
  };

  beforeAll(async () => {
    [httpPort, grpcPort] = (await freePorts(2)) as [number, number];
    await start();
    const custom = (name: string): string => object("security.istio.io/v1", "AuthorizationPolicy", name, { targetRefs, action: "CUSTOM", provider: { name: `ext-authz-${name}` }, rules: [{ to: [{ operation: { paths: [`/${name}*`] } }] }] });
    waypoint = await WaypointProcess.start({
      yaml: {
        "shop.yaml": [
          WAYPOINT_YAML, serviceYaml("web", SERVER, server.port), serviceYaml("by-http", ASKED, httpPort, 8000), serviceYaml("by-grpc", "198.18.7.42", grpcPort, 9000).replaceAll("198.18.250.42", "198.18.250.43").replace('"name":"http"', '"name":"grpc"'),
          custom("grpc"), custom("http"),
          // As Istio's page on external authorisation has it.
          object("weft.dev/v1alpha1", "MeshConfig", "mesh", {
            extensionProviders: [
              { name: "ext-authz-grpc", envoyExtAuthzGrpc: { service: "by-grpc.shop.svc.cluster.local", port: "9000", timeout: "5s" } },
              {
                name: "ext-authz-http",
                envoyExtAuthzHttp: {
                  service: "by-http.shop.svc.cluster.local", port: "8000", timeout: "5s", includeRequestHeadersInCheck: ["x-ext-authz"], headersToUpstreamOnAllow: ["x-ext-authz-*"], headersToDownstreamOnDeny: ["x-ext-authz-*"],
                  includeAdditionalHeadersInCheck: { "x-ext-authz-additional-header-override": "from the mesh" },
                },
              },
            ],
          }, "istio-system"),
        ].join("\n---\n"),
      },
      flags,
    });
    await until(() => `it to be asked; the log:\n${waypoint.log.slice(0, 3000)}`, CHANGE_MS, async () => (await status(`${URL_BASE}/grpc`)) === "403 authorizer_denied" && (await status(`${URL_BASE}/http`)) === "403 authorizer_denied");
  });
  afterAll(async () => {
    await waypoint?.[Symbol.asyncDispose]();
    authorizer?.kill("SIGKILL");
    await authorizer?.exited;
  });

  describe.each(["grpc", "http"])("by %s", (how) => {
    test("refuses with its own words, and the server hears nothing", async () => {
      const seen = server.seen.length;
      const answer = await curl("-D", "-", "-H", "x-ext-authz: deny", `${URL_BASE}/${how}/x`);
      expect(answer).toMatch(/^HTTP\/1\.1 403 /);
      expect(answer).toMatch(/^x-ext-authz-check-result: denied\r$/im);
      expect(answer).toContain("denied by ext_authz for not found header `x-ext-authz: allow` in the request");
      expect(server.seen.length).toBe(seen);
    });

    test("lets through, and the server hears what it says", async () => {
      expect(await curl("-H", "x-ext-authz: allow", "-H", "x-ext-authz-check-result: forged", `${URL_BASE}/${how}/x`)).toBe(`seen /${how}/x`);
      const { headers } = server.seen.at(-1)!;
      expect(headers["x-ext-authz-check-result"]).toBe("allowed");
      if (how === "http") expect(headers["x-ext-authz-additional-header-override"]).toBe("from the mesh");
    });

    test("is not asked about other paths", async () => expect(await curl(`${URL_BASE}/open/${how}`)).toBe(`seen /open/${how}`));

    test("a body goes on whole", async () => {
      expect(await status("-X", "POST", "--data-binary", "x".repeat(BODY_BYTES), "-H", "x-ext-authz: allow", `${URL_BASE}/${how}`)).toBe("200 ");
      expect(server.seen.at(-1)!.headers["content-length"]).toBe(`${BODY_BYTES}`);
    });
  });

  test("nothing is remarked of a configuration that is right", () => expect(waypoint.log).not.toMatch(/"level":"(warn|error)"[^\n]*"scope":"config"/));

  test("gone, it denies; back, it is asked again", async () => {
    authorizer.kill("SIGKILL");
    await authorizer.exited;
    for (const how of ["grpc", "http"]) expect(await status("-H", "x-ext-authz: allow", `${URL_BASE}/${how}`)).toBe("403 authorizer_failed");
    expect(await status(`${URL_BASE}/open`)).toBe("200 ");
    await start();
    for (const how of ["grpc", "http"]) await until(`${how} to be asked`, CHANGE_MS, async () => (await status("-H", "x-ext-authz: allow", `${URL_BASE}/${how}`)) === "200 ");
  });
});
