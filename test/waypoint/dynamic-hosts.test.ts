// Out of the mesh to whatever host a request names, under a wildcard with resolution DYNAMIC_DNS: plain, by TLS that the waypoint makes, and
// by the client's own TLS; and where such a name may not lead.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NameServer } from "../kit/name-server.ts";
import { BackendAuthority, type TlsBackend, tlsBackend } from "../kit/tls-backends.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend1 } from "../kit/waypoint.ts";
import { curl, ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [ONE, TWO, INSIDE] = ["198.18.7.3", "198.18.7.4", "198.18.7.5"];
const [PLAIN_PORT, TLS_PORT] = [18_080, 18_443];
/** Where the waypoint serves the wildcard's ports. */
const [PLAIN, ORIGINATED, PASSED, INSIDE_AT] = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8443", "127.0.0.1:8082"];
const CHANGE_MS = 10_000;

const json = (...objects: readonly object[]): string => objects.map((object) => JSON.stringify(object)).join("\n---\n");
const entry = (annotations: object = {}) => ({
  apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "outside", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" }, annotations },
  spec: {
    hosts: ["*.example.com"], location: "MESH_EXTERNAL", resolution: "DYNAMIC_DNS",
    ports: [{ number: 80, name: "http", protocol: "HTTP", targetPort: PLAIN_PORT }, { number: 8443, name: "http-tls", protocol: "HTTP", targetPort: TLS_PORT }, { number: 443, name: "tls", protocol: "TLS", targetPort: TLS_PORT }],
  },
});
const authority = new BackendAuthority();
const TLS_RULE = json(
  { apiVersion: "v1", kind: "Secret", metadata: { name: "roots", namespace: "shop" }, stringData: { "ca.crt": authority.caPem } },
  { apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: "outside", namespace: "shop" }, spec: { host: "*.example.com", trafficPolicy: { portLevelSettings: [{ port: { number: 8443 }, tls: { mode: "SIMPLE", credentialName: "roots" } }] } } },
);
const OWN_ENTRY = json({
  apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "own", namespace: "shop" }, spec: { hosts: ["own.example.com"], resolution: "DNS", ports: [{ number: 80, name: "http", protocol: "HTTP" }] },
});

let directory: string;
let names: NameServer;
const plain: Backend[] = [];
const secure: TlsBackend[] = [];
let inside: Backend;
let waypoint: WaypointProcess;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "weft-dynamic-"));
  ownAddresses([ONE, TWO, INSIDE]);
  names = await NameServer.start(directory);
  for (const [name, addresses] of Object.entries({
    one: [ONE], two: [TWO], "deep.two": [TWO], mixed: ["127.0.0.1", ONE], loopback: ["127.0.0.1"], metadata: ["169.254.169.254"], mesh: [INSIDE], vip: ["198.18.250.5"], private: ["10.1.2.3"], own: [ONE],
  })) names.names.set(`${name}.example.com`, addresses);
  for (const [name, host] of [["one", ONE], ["two", TWO]] as const) {
    plain.push(await backend1((request, response) => {
      const answer = (): void => void response.end(`${name} for ${request.headers.host}`);
      if (request.url === "/slow") release = answer;
      else answer();
    }, host, PLAIN_PORT));
    secure.push(await tlsBackend({ leaf: authority.leaf({ dns: [`${name}.example.com`] }), host, port: TLS_PORT, speaks: "both" }, (_request, response) => response.end(`${name} by TLS`)));
  }
  inside = await backend1((_request, response) => response.end("inside"), INSIDE, PLAIN_PORT);
  writeFileSync(join(directory, "ca.pem"), authority.caPem);
  waypoint = await WaypointProcess.start({
    yaml: { "shop.yaml": [WAYPOINT_YAML, serviceYaml("inside", INSIDE, PLAIN_PORT), OWN_ENTRY, TLS_RULE].join("\n---\n"), "outside.yaml": json(entry()) },
    flags: ["--workers", "1", "--service-cidrs", "198.18.251.0/24", "--serve", `${PLAIN}=shop/*.example.com:80,${ORIGINATED}=shop/*.example.com:8443,${PASSED}=shop/*.example.com:443,${INSIDE_AT}=shop/inside.shop.svc.cluster.local:80`],
  });
});

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  for (const backend of [...plain, ...secure, inside]) await backend[Symbol.asyncDispose]();
  await names[Symbol.asyncDispose]();
  rmSync(directory, { recursive: true, force: true });
});

/** Answers the slow request that is under way. */
let release = (): void => {};
/** Its status, once it has one. */
const rawRequest = (host: string, path: string) => (): Promise<string> => curl("-o", "/dev/null", "-w", "%{http_code}", "-H", `Host: ${host}`, `http://${PLAIN}${path}`);
const get = (host: string, at = PLAIN): Promise<string> => curl("-H", `Host: ${host}`, `http://${at}/`);
const reason = (host: string, at = PLAIN): Promise<string> => curl("-o", "/dev/null", "-w", "%{http_code} %header{x-weft-reason}", "-H", `Host: ${host}`, `http://${at}/`);
const detailOf = (host: string): Promise<string> => until(`the line of ${host}`, 5_000, () => {
  const line = waypoint.lines.find(({ authority: named, reason: code }) => named === host && code !== undefined);
  return line === undefined ? null : String(line["detail"]);
});

describe("a host under the wildcard", () => {
  test("is reached by the name in the request, each by its own address", async () => {
    expect([await get("one.example.com"), await get("TWO.example.com:80"), await get("deep.two.example.com")]).toEqual(["one for one.example.com", "two for two.example.com:80", "two for deep.two.example.com"]);
    const line = await until("its line", 5_000, () => waypoint.lines.find(({ authority: named }) => named === "one.example.com"));
    expect(line).toMatchObject({ upstream_cluster: "shop/one.example.com:80", response_code: 200 });
    const dump = (await waypoint.dump()) as { threads: { clusters: { name: string; endpoints: { address: string }[] }[] }[] };
    await until("its address", 5_000, () => dump.threads[0]!.clusters.find(({ name }) => name === "shop/one.example.com:80")!.endpoints.some(({ address }) => address.endsWith(`:${PLAIN_PORT}`)));
  });

  test("by TLS that the waypoint makes: asked for by its name, and held to it", async () => {
    expect(await get("one.example.com", ORIGINATED)).toBe("one by TLS");
    expect(secure[0]!.seen.at(-1)).toMatchObject({ sni: "one.example.com" });
    // Its certificate is for two.example.com.
    expect(await reason("deep.two.example.com", ORIGINATED)).toBe("503 tls_failed");
  });

  test("by the client's own TLS: the server name says which", async () => {
    const https = (host: string): Promise<string> => curl("--connect-to", `::${PASSED}`, "--cacert", join(directory, "ca.pem"), `https://${host}/`);
    expect([await https("one.example.com"), await https("two.example.com")]).toEqual(["one by TLS", "two by TLS"]);
    // An address is no server name.
    const { exitCode } = Bun.spawnSync(["curl", "-sk", "--max-time", "5", `https://${PASSED}/`]);
    expect(exitCode).not.toBe(0);
    await until("its line", 5_000, () => waypoint.lines.some(({ error }) => String(error).includes("names no host, expected one under *.example.com")));
  });

  test("whose name leads to a bad address and to a good one is reached at the good one", async () => {
    for (let i = 0; i < 4; i++) expect(await get("mixed.example.com")).toBe("one for mixed.example.com");
  });
});

describe("no way in", () => {
  test.each(["example.org", "example.com", "one.example.com.evil.org", "evilexample.com", "198.18.7.3", "web.shop.svc.cluster.local"])("by a name that is not under it: %s", async (host) => {
    expect(await reason(host)).toBe("404 host_not_covered");
  });

  test("by one that has a service of its own", async () => {
    expect(await reason("own.example.com")).toBe("404 host_not_covered");
    expect(await detailOf("own.example.com")).toContain("own.example.com has a service of its own in the configuration");
  });

  test.each([
    ["loopback", "is loopback, link-local, multicast or unspecified"], ["metadata", "169.254.169.254 is loopback, link-local"], ["mesh", "198.18.7.5 is the workload shop/inside"], ["vip", "198.18.250.5 is the service shop/inside.shop.svc.cluster.local"], ["private", "10.1.2.3 is a private address"],
  ])("by one that leads to %s", async (name, why) => {
    expect(await reason(`${name}.example.com`)).toBe("403 address_refused");
    expect(await detailOf(`${name}.example.com`)).toContain(why);
    // Again, from what is known of the name by now.
    expect(await reason(`${name}.example.com`)).toBe("403 address_refused");
    expect(inside.seen.length).toBe(0);
  });

  test("by one that does not exist", async () => {
    expect(await reason("nobody.example.com")).toBe("503 connect_failed");
    expect(await detailOf("nobody.example.com")).toContain("the name nobody.example.com has no address");
  });
});

test("private addresses are allowed by the ServiceEntry's annotation, loopback is not", async () => {
  waypoint.write("outside.yaml", json(entry({ "weft.dev/egress-private-addresses": "true" })));
  // Nobody is there: the address is tried.
  await until("the change", CHANGE_MS, async () => (await reason("private.example.com")).startsWith("503 connect_failed") || null);
  expect(await reason("loopback.example.com")).toBe("403 address_refused");
});

test("limits of the wildcard hold for all of its hosts together, and what one of them leaves idle another one gets", async () => {
  const write = (connectionPool: object): void => waypoint.write("few.yaml", json({ apiVersion: "networking.istio.io/v1", kind: "DestinationRule", metadata: { name: "few", namespace: "shop" }, spec: { host: "*.example.com", trafficPolicy: { portLevelSettings: [{ port: { number: 80 }, connectionPool }] } } }));
  write({ http: { maxRequestsPerConnection: 1 } });
  await until("the connections of before to be gone", CHANGE_MS, async () => {
    for (const name of ["one", "two", "deep.two", "mixed"]) await get(`${name}.example.com`);
    const { threads } = (await waypoint.dump()) as { threads: { clusters: { name: string; limits: { resource: string; inUse: number }[] }[] }[] };
    return threads[0]!.clusters.find(({ name }) => name === "shop/*.example.com:80")!.limits.find(({ resource }) => resource === "connections")!.inUse === 0 || null;
  });
  write({ tcp: { maxConnections: 1 } });
  const [slow, quick] = [rawRequest("one.example.com", "/slow"), () => reason("two.example.com")];
  // With two connections nobody is refused.
  await until("the limit to be in force", CHANGE_MS, async () => {
    const started = plain[0]!.seen.length;
    const answer = slow();
    await until("the slow request to be at its server", 5_000, () => plain[0]!.seen.length > started || null);
    const refused = (await quick()) === "503 circuit_open";
    release();
    expect(await answer).toBe("200");
    return refused || null;
  });
  expect(await detailOf("two.example.com")).toContain("1 connections open of all hosts of shop/*.example.com:80, which is the limit (connectionsMax)");
  // One connection is open to one.example.com, and nobody uses it.
  for (let i = 0; i < 4; i++) expect([await get("two.example.com"), await get("one.example.com")]).toEqual(["two for two.example.com", "one for one.example.com"]);
  waypoint.remove("few.yaml");
});

test("a copy to the wildcard goes to the host that the request names, and to none that is not under it", async () => {
  const route = {
    apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: "copied", namespace: "shop" },
    spec: {
      parentRefs: [{ group: "", kind: "Service", name: "inside" }],
      rules: [{ filters: [{ type: "RequestMirror", requestMirror: { backendRef: { group: "networking.istio.io", kind: "Hostname", name: "*.example.com", port: 80 } } }], backendRefs: [{ name: "inside", port: 80 }] }],
    },
  };
  waypoint.write("copied.yaml", json(route));
  const copies = (path: string): number => plain[1]!.seen.filter(({ url }) => url === path).length;
  await until("a copy", CHANGE_MS, async () => {
    expect(await curl("-H", "Host: two.example.com", `http://${INSIDE_AT}/copied`)).toBe("inside");
    return copies("/copied") > 0 || null;
  });
  expect(plain[1]!.seen.find(({ url }) => url === "/copied")).toMatchObject({ headers: { host: "two.example.com" } });
  expect(await curl("-H", "Host: elsewhere.example", `http://${INSIDE_AT}/not-covered`)).toBe("inside");
  expect(await curl("-H", "Host: two.example.com", `http://${INSIDE_AT}/after`)).toBe("inside");
  await until("the copy after it", 5_000, () => copies("/after") > 0 || null);
  expect(plain.flatMap(({ seen }) => seen).filter(({ url }) => url === "/not-covered")).toEqual([]);
});
