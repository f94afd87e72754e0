// Out of the mesh through `weft waypoint`: servers that are known by name, by TLS, checked and limited, as YAML says it.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../kit/until.ts";
import { NameServer } from "../kit/name-server.ts";
import { BackendAuthority, type TlsBackend, tlsBackend } from "../kit/tls-backends.ts";
import { curl, ownAddresses, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [ONE, TWO] = ["198.18.7.3", "198.18.7.4"];
const PORT = 18_443;
const API = "api.example.com";
const URL_BASE = "http://127.0.0.1:8080";
/** What a change may take to be in force, on a machine that is busy. */
const CHANGE_MS = 10_000;

const json = (...objects: readonly object[]): string => objects.map((object) => JSON.stringify(object)).join("\n---\n");

const ENTRY = {
  apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "api", namespace: "shop" },
  spec: { hosts: [API], location: "MESH_EXTERNAL", resolution: "DNS", ports: [{ number: 80, name: "http", protocol: "HTTP", targetPort: PORT }] },
};
const authority = new BackendAuthority();
const CA = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "api-ca", namespace: "shop" }, data: { "ca.crt": authority.caPem } };
const backendTls = (validation: object = {}) => ({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "BackendTLSPolicy", metadata: { name: "api", namespace: "shop" },
  spec: { targetRefs: [{ group: "networking.istio.io", kind: "ServiceEntry", name: "api" }], validation: { hostname: API, caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "api-ca" }], ...validation } },
});
const destinationRule = (trafficPolicy: object) => ({ apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: "api", namespace: "shop" }, spec: { host: API, trafficPolicy } });
const trafficPolicy = (spec: object) => ({ apiVersion: "weft.dev/v1alpha1", kind: "TrafficPolicy", metadata: { name: "api", namespace: "shop" }, spec: { targetRefs: [{ group: "networking.istio.io", kind: "ServiceEntry", name: "api" }], ...spec } });

let directory: string;
let names: NameServer;
let one: TlsBackend;
let two: TlsBackend;
let waypoint: WaypointProcess;
const wells = { one: true, two: true };

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "weft-egress-"));
  ownAddresses([ONE, TWO]);
  names = await NameServer.start(directory);
  names.names.set(API, [ONE, TWO]);
  const leaf = authority.leaf({ dns: [API] });
  const serve = (name: "one" | "two", host: string): Promise<TlsBackend> => tlsBackend({ leaf, host, port: PORT, speaks: "both" }, (request, response) => {
    if (request.url === "/healthz") response.statusCode = wells[name] ? 200 : 503;
    response.end(name);
  });
  [one, two] = await Promise.all([serve("one", ONE), serve("two", TWO)]);
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": `${WAYPOINT_YAML}\n---\n${json(ENTRY, CA)}`, "tls.yaml": json(backendTls()) },
    flags: ["--workers", "1", "--serve", `127.0.0.1:8080=shop/${API}:80`],
  });
});

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  for (const backend of [one, two]) await backend[Symbol.asyncDispose]();
  await names[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

const status = (): Promise<string> => curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", URL_BASE);
/** Who answered, of some requests at once. */
async function answers(count = 8): Promise<string> {
  return [...new Set(await Promise.all(Array.from({ length: count }, () => curl(URL_BASE))))].sort().join();
}
const becomes = (what: string, wanted: string, seen: () => Promise<string>): Promise<unknown> => {
  let last = "";
  return until(`${what} (${last})`, CHANGE_MS, async () => (last = await seen()) === wanted || null).catch((error: unknown) => {
    throw new Error(`${String(error)}: saw ${last}, wanted ${wanted}\n${waypoint.log.split("\n").filter((line) => !line.includes('"access"')).slice(-20).join("\n")}`);
  });
};

async function under(yaml: string, body: () => Promise<void>): Promise<void> {
  waypoint.write("more.yaml", yaml);
  try {
    await body();
  } finally {
    waypoint.remove("more.yaml");
  }
}

describe("a server that is known by name", () => {
  test("is reached at all its addresses, by TLS, as HTTP/2 where the client speaks it", async () => {
    await becomes("both to answer", "one,two", answers);
    expect(one.seen[0]).toMatchObject({ sni: API, version: "1.1" });
    const before = one.seen.length + two.seen.length;
    expect(await curl("--http2-prior-knowledge", URL_BASE)).toMatch(/^(one|two)$/);
    expect([...one.seen, ...two.seen].filter(({ version }) => version === "2.0").length).toBe(1);
    expect(one.seen.length + two.seen.length).toBe(before + 1);
    const dump = (await waypoint.dump()) as { threads: { clusters: { name: string; endpoints: { address: string }[] }[] }[] };
    expect(dump.threads[0]!.clusters.find(({ name }) => name === `shop/${API}:80`)!.endpoints.map(({ address }) => address)).toEqual([`${ONE}:${PORT}`, `${TWO}:${PORT}`]);
  });

  test("follows its name, and goes on while the name cannot be resolved", async () => {
    // In turns: the default would go on to the quicker of two, and eight answers would not tell whether the other is still there.
    await under(json(destinationRule({ loadBalancer: { simple: "ROUND_ROBIN" } })), async () => {
      names.names.set(API, [TWO]);
      await until("the one address", 15_000, async () => (await answers()) === "two");
      names.silent = true;
      const asked = names.questions;
      names.names.set(API, [ONE]);
      expect(await answers()).toBe("two");
      names.silent = false;
      await until("the other address", 15_000, async () => (await answers()) === "one");
      expect(names.questions).toBeGreaterThan(asked);
      names.names.delete(API);
      expect(await answers()).toBe("one");
      names.names.set(API, [ONE, TWO]);
      await until("both", 15_000, async () => (await answers()) === "one,two");
    });
  });

  test("that does not exist is told by its name", async () => {
    const entry = { ...ENTRY, metadata: { name: "other", namespace: "shop" }, spec: { ...ENTRY.spec, hosts: ["no.example.com"] } };
    const route = { apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "other", namespace: "shop" }, spec: {
      parentRefs: [{ group: "networking.istio.io", kind: "ServiceEntry", name: "api" }], rules: [{ backendRefs: [{ group: "networking.istio.io", kind: "Hostname", name: "no.example.com", port: 80 }] }],
    } };
    await under(json(entry, route), async () => {
      await becomes("the refusal", "503 connect_failed", status);
      await until("its line", 3_000, () => waypoint.lines.some((line) => String(line["details"] ?? JSON.stringify(line)).includes("the name no.example.com has no address")) || null);
    });
    await becomes("the end of it", "200 ", status);
  });
});

describe("TLS as the configuration asks for it", () => {
  test("a server that proves to be another gets nothing", async () => {
    waypoint.write("tls.yaml", json(backendTls({ subjectAltNames: [{ type: "Hostname", hostname: "other.example.com" }] })));
    await becomes("the refusal", "503 tls_failed", status);
    await until("its line", 3_000, () => waypoint.log.includes("its certificate is for api.example.com, wanted other.example.com") || null);
    waypoint.write("tls.yaml", json(backendTls({ subjectAltNames: [{ type: "Hostname", hostname: "*.example.com" }] })));
    await becomes("the server to be believed", "200 ", status);
  });

  test("an authority that is not there breaks it before anything is sent", async () => {
    waypoint.write("tls.yaml", json(backendTls({ caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "missing" }] })));
    await becomes("the refusal", "500 tls_broken", status);
    waypoint.write("tls.yaml", json(backendTls({ caCertificateRefs: undefined, wellKnownCACertificates: "System" })));
    await becomes("the refusal by the system's roots", "503 tls_failed", status);
    waypoint.remove("tls.yaml");
    // Without any policy it is plain HTTP, which this server takes for a broken handshake.
    await until("plain HTTP", CHANGE_MS, async () => !(await status()).includes("tls_"));
  });

  test("DestinationRule: SIMPLE with the authority of a Secret, MUTUAL with a certificate, insecureSkipVerify", async () => {
    const secret = (data: Record<string, string>) => ({ apiVersion: "v1", kind: "Secret", metadata: { name: "api-tls", namespace: "shop" }, stringData: data });
    await under(json(secret({ "ca.crt": authority.caPem }), destinationRule({ tls: { mode: "SIMPLE", credentialName: "api-tls" } })), async () => becomes("SIMPLE", "200 ", status).then(() => {}));
    await under(json(destinationRule({ tls: { mode: "SIMPLE", sni: "x.test", subjectAltNames: [API] } })), async () => becomes("the system's roots", "503 tls_failed", status).then(() => {}));
    await under(json(destinationRule({ tls: { mode: "SIMPLE", insecureSkipVerify: true } })), async () => becomes("anyone", "200 ", status).then(() => {}));
    const leaf = authority.leaf({ uris: ["spiffe://td/waypoint"] });
    await under(json(secret({ "ca.crt": authority.caPem, "tls.crt": leaf.certificatePem, "tls.key": leaf.keyPem }), destinationRule({ tls: { mode: "MUTUAL", credentialName: "api-tls", sni: API } })), async () => {
      await becomes("MUTUAL", "200 ", status);
    });
    waypoint.write("tls.yaml", json(backendTls()));
    await becomes("the policy", "200 ", status);
  });
});

describe("health checks", () => {
  test("an endpoint that fails leaves and comes back; log and metrics tell", async () => {
    const check = trafficPolicy({ balancing: { type: "RoundRobin" }, healthCheck: { http: { path: "/healthz" }, interval: "1s", timeout: "1s", unhealthyThreshold: 2, healthyThreshold: 1 } });
    await under(json(check), async () => {
      await until("the first checks", CHANGE_MS, async () => {
        await curl(URL_BASE);
        return (await waypoint.metric("weft_upstream_health_checks_total", { result: "passed" })) >= 2;
      });
      wells.one = false;
      await becomes("it to leave", "two", answers);
      expect(await waypoint.metric("weft_upstream_endpoints", { health: "unhealthy", destination_service_name: "api" })).toBe(1);
      // What a data thread says reaches the log in batches.
      await until("the word about it", 3_000, () => waypoint.log.includes(`the endpoint ${ONE}:${PORT} is unhealthy: failed 2 in a row: HTTP 503, wanted 200`));
      wells.one = true;
      await becomes("it to come back", "one,two", answers);
      await until("the word about it", 3_000, () => waypoint.log.includes(`the endpoint ${ONE}:${PORT} is healthy: passed 1 in a row`));
    });
  });
});
