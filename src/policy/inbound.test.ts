import { describe, expect, test } from "bun:test";
import { delta, gatewayAt, identity, ip, member, service, serviceName, waypoint, workload } from "../../test/kit/mesh-records.ts";
import { parseSocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { MeshDelta, Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { parseAuthority } from "../wire/hbone/authority.ts";
import { type InboundDecision, type InboundOptions, judgeInbound, judgePlaintext, serviceSaid } from "./inbound.ts";
import { isNeverRemote } from "./ports.ts";

const POD = "198.18.0.1";
const PEER = identity("shop", "client");

interface Case {
  readonly pod?: Partial<Workload>;
  readonly mesh?: Partial<MeshDelta>;
  readonly peer?: SpiffeId | null;
  readonly options?: InboundOptions;
  readonly localIp?: string;
}

function storeFor({ pod = {}, mesh = {} }: Case): { store: MeshStore; destination: Workload } {
  const store = new MeshStore();
  const w = workload({ name: "pod", addresses: [ip(POD), ip("2001:db8::1")], ...pod });
  store.apply(delta({ ...mesh, workloads: [w, ...(mesh.workloads ?? [])] }));
  return { store, destination: store.workload(w.uid)! };
}

function judge(authority: string, given: Case = {}): InboundDecision {
  const { store, destination } = storeFor(given);
  const parsed = parseAuthority(authority);
  if (!parsed.ok) throw new Error(parsed.error);
  return judgeInbound(store, destination, { authority: parsed.value, localIp: ip(given.localIp ?? POD), peer: given.peer === undefined ? PEER : given.peer }, given.options);
}
function brief(authority: string, given: Case = {}): string {
  const d = judge(authority, given);
  return d.kind === "deliver" ? `${d.to.ip}:${d.to.port}` : `${d.status} ${d.code}`;
}

const WEB_SERVICE = service({ name: "web", vips: ["2001:db8:1::1", "198.19.0.1"] });
const WEB = serviceName(WEB_SERVICE);
const HOST = WEB_SERVICE.hostname;
const WP_SERVICE = service({ name: "wp" });
const WP = serviceName(WP_SERVICE);
const WP_POD = workload({ name: "wp-1", addresses: [ip("198.18.2.1")], serviceAccount: "wp", services: member({ [WP]: { 15008: 15008 } }) });
const WP_ID = identity("shop", "wp");

describe("an address", () => {
  test.each([[`${POD}:8080`, `${POD}:8080`], [`[::ffff:${POD}]:8080`, `${POD}:8080`], ["[2001:db8::1]:8080", "2001:db8::1:8080"]])("%s of the workload is delivered", (authority, to) => expect(brief(authority)).toBe(to));
  test("the tunnel's own local address is the workload's, also when the configuration says otherwise", () => expect(brief("198.18.0.77:80", { localIp: "198.18.0.77" })).toBe("198.18.0.77:80"));
  test.each(["15001", "15006", "15008", "15053", "15080"])("port %s would come back here", (port) => expect(brief(`${POD}:${port}`)).toBe("503 own_port"));
  test("port 0 is refused, should a caller not have", () => {
    const { store, destination } = storeFor({});
    expect(judgeInbound(store, destination, { authority: { kind: "address", address: { ip: ip(POD), port: 0 } }, localIp: ip(POD) })).toMatchObject({ kind: "reject", code: "own_port" });
  });
  test.each(["127.0.0.1:80", "127.8.8.8:80", "[::1]:80", "0.0.0.0:80", "[::]:80", "169.254.169.254:80", "[fd00:ec2::254]:80", "[fe80::1]:80", "224.0.0.1:80", "[ff02::1]:80", "255.255.255.255:80", "[::ffff:127.0.0.1]:80"])(
    "%s is nobody's to ask for", (authority) => {
      expect(brief(authority)).toBe("400 forbidden_address");
      expect(brief(authority, { pod: { applicationTunnel: { protocol: "PROXY", port: 15088 } } })).toBe("400 forbidden_address");
    });
  test.each(["198.18.0.2:80", "198.19.0.1:80", "198.51.100.1:80"])("%s is not this workload's", (authority) => expect(brief(authority, { mesh: { services: [WEB_SERVICE] }, pod: { services: member({ [WEB]: { 80: 8080 } }) } })).toBe("400 not_this_workload"));
});

describe("a hostname", () => {
  const member1: Case = { mesh: { services: [WEB_SERVICE] }, pod: { services: member({ [WEB]: { 80: 9090 } }) } };
  test("of a service of this workload goes to the endpoint's port, else the service's", () => {
    expect(brief(`${HOST}:80`, member1)).toBe(`${POD}:9090`);
    expect(brief(`${HOST.toUpperCase()}:80`, member1)).toBe(`${POD}:9090`);
    expect(brief(`${HOST}:80`, { ...member1, pod: { services: member({ [WEB]: {} }) } })).toBe(`${POD}:8080`);
    expect(judge(`${HOST}:80`, member1)).toMatchObject({ service: { name: "web" }, proxyDestination: null });
  });
  test.each([
    ["nobody has", "none.example:80", {}, "503 unknown_hostname"], ["of a service without this workload", `${HOST}:80`, { mesh: { services: [WEB_SERVICE] } }, "503 unknown_hostname"],
    ["with a port nobody has", `${HOST}:81`, member1, "503 port_not_in_service"], ["that leads to a port of the mesh", `${HOST}:80`, { ...member1, pod: { services: member({ [WEB]: { 80: 15006 } }) } }, "503 own_port"],
  ] as const)("%s is refused", (_, authority, given, expected) => expect(brief(authority, given)).toBe(expected));
  test("shared by two namespaces means the one this workload serves", () => {
    const twin = service({ name: "twin", namespace: "bank", hostname: HOST });
    expect(judge(`${HOST}:80`, { mesh: { services: [WEB_SERVICE, twin] }, pod: { services: member({ [serviceName(twin)]: { 80: 7 } }) } })).toMatchObject({ to: { port: 7 }, service: { namespace: "bank" } });
  });
});

describe("a waypoint", () => {
  const behind: Case = { mesh: { services: [WP_SERVICE], workloads: [WP_POD] }, pod: { waypoints: [waypoint(WP)] } };
  test("guards the workload bound to it: nobody else comes in, by tunnel or plainly", () => {
    expect(brief(`${POD}:80`, { ...behind, peer: WP_ID })).toBe(`${POD}:80`);
    expect([brief(`${POD}:80`, behind), brief(`${POD}:80`, { ...behind, peer: null })]).toEqual(["401 waypoint_required", "401 waypoint_required"]);
    const { store, destination } = storeFor(behind);
    expect(judgePlaintext(store, destination, parseSocketAddress(`${POD}:80`)!)).toMatchObject({ kind: "reject", code: "waypoint_required" });
  });
  test("that is unknown guards it against everybody", () => expect(brief(`${POD}:80`, { ...behind, mesh: {}, peer: WP_ID })).toBe("401 waypoint_required"));
  test("given by address is known by the identity of what is there", () => {
    const at: Case = { ...behind, pod: { waypoints: [{ gateway: gatewayAt("", "198.18.2.1"), weight: 1 }] } };
    expect([brief(`${POD}:80`, { ...at, peer: WP_ID }), brief(`${POD}:80`, at)]).toEqual([`${POD}:80`, "401 waypoint_required"]);
  });
  test("of a pair, either may come in", () => {
    const pair: Case = { ...behind, pod: { waypoints: [waypoint("shop/old.example"), waypoint(WP)] } };
    expect(brief(`${POD}:80`, { ...pair, peer: WP_ID })).toBe(`${POD}:80`);
  });
  test("may have more names than that of its account", () => {
    const other = identity("mesh", "far-waypoint");
    expect(brief(`${POD}:80`, { ...behind, mesh: { services: [{ ...WP_SERVICE, subjectAltNames: [other] }] }, peer: other })).toBe(`${POD}:80`);
  });
  test("guards a service's name, not the pods behind it", () => {
    const given: Case = { mesh: { services: [{ ...WEB_SERVICE, waypoints: [waypoint(WP)] }, WP_SERVICE], workloads: [WP_POD] }, pod: { services: member({ [WEB]: { 80: 8080 } }) } };
    expect([brief(`${HOST}:80`, given), brief(`${HOST}:80`, { ...given, peer: WP_ID }), brief(`${POD}:8080`, given)]).toEqual(["401 waypoint_required", `${POD}:8080`, `${POD}:8080`]);
  });
  test("is not required when the operator turned that off", () => expect(brief(`${POD}:80`, { ...behind, options: { requireWaypoint: false } })).toBe(`${POD}:80`));
  test("takes what is addressed to those behind it, and nothing else", () => {
    const bound = service({ name: "bound", vips: ["198.19.0.1", "198.51.100.0/24"], waypoints: [waypoint(WP)] });
    const guarded = workload({ name: "guarded", addresses: [ip("198.18.0.5")], waypoints: [waypoint(WP)] });
    const given: Case = { pod: { services: member({ [WP]: { 15008: 15008 } }) }, mesh: { services: [bound, service({ name: "free", vips: ["198.19.0.2"] })], workloads: [guarded] } };
    expect(["198.19.0.1:80", "198.18.0.5:81", "198.51.100.7:82", `${bound.hostname}:83`, "198.19.0.2:80", "free.shop.svc.cluster.local:80"].map((authority) => brief(authority, given)))
      .toEqual([`${POD}:80`, `${POD}:81`, `${POD}:82`, `${POD}:83`, "400 not_this_workload", "503 unknown_hostname"]);
  });
  test("in the scope it guards is reached itself", () => expect(brief(`${POD}:8080`, { pod: { services: member({ [WP]: {} }), waypoints: [waypoint(WP)] }, mesh: { services: [WP_SERVICE] } })).toBe(`${POD}:8080`));
});

describe("an application tunnel", () => {
  const tunnel = (protocol: "PROXY" | "NONE", port: number): Case => ({ pod: { applicationTunnel: { protocol, port } }, mesh: { services: [WEB_SERVICE] } });
  test("takes any destination to loopback, and its PROXY header names it; policy still sees the workload", () => {
    expect(judge("198.51.100.1:80", tunnel("PROXY", 15088))).toEqual({
      kind: "deliver", to: { ip: ip("127.0.0.1"), port: 15088 }, policyDestination: { ip: ip(POD), port: 80 }, proxyDestination: { ip: ip("198.51.100.1"), port: 80 }, service: null,
    });
    expect(judge("198.19.0.1:80", tunnel("PROXY", 0))).toMatchObject({ to: { ip: "127.0.0.1", port: 80 }, service: { name: "web" } });
    expect(brief("[2001:db8::1]:80", { ...tunnel("NONE", 9), localIp: "2001:db8::1" })).toBe("::1:9");
    expect(judge(`${POD}:80`, tunnel("NONE", 9))).toMatchObject({ proxyDestination: null });
  });
  test("may be told to keep the workload's address", () => expect(brief(`${POD}:80`, { ...tunnel("PROXY", 9), options: { applicationTunnelToLoopback: false } })).toBe(`${POD}:9`));
  test("never leads to a port of the mesh", () => expect(brief(`${POD}:80`, tunnel("PROXY", 15008))).toBe("503 own_port"));
  test("a hostname becomes the service's address in the header: of this network first, IPv4 first", () => {
    const given = { ...tunnel("PROXY", 9), pod: { ...tunnel("PROXY", 9).pod, services: member({ [WEB]: { 80: 8080 } }) } };
    expect(judge(`${HOST}:80`, given)).toMatchObject({ to: { ip: "127.0.0.1", port: 9 }, proxyDestination: { ip: "198.19.0.1", port: 80 }, policyDestination: { port: 8080 } });
  });
});

test("the service that a peer says it addressed is believed when this workload is an endpoint of it", () => {
  const other = service({ name: "other" });
  const { store, destination } = storeFor({ pod: { services: member({ [serviceName(WEB_SERVICE)]: { 80: 8080 } }) }, mesh: { services: [WEB_SERVICE, other] } });
  const said = (hostname: string | null) => serviceSaid(store, destination, hostname)?.name ?? null;
  expect([said("web.shop.svc.cluster.local"), said("WEB.shop.svc.cluster.local"), said("other.shop.svc.cluster.local"), said("none.example"), said(null)]).toEqual(["web", "web", null, null, null]);
});

describe("plain TCP", () => {
  test("goes where it was going, except to ports of the mesh", () => {
    const { store, destination } = storeFor({});
    expect(judgePlaintext(store, destination, parseSocketAddress(`${POD}:80`)!)).toMatchObject({ kind: "deliver", to: { ip: POD, port: 80 } });
    for (const port of [15001, 15006, 15008, 15053, 15080]) expect(judgePlaintext(store, destination, { ip: ip(POD), port })).toMatchObject({ code: "own_port" });
  });
});

test("a refusal says what was seen and of which workload", () => {
  expect(judge("198.18.0.2:80")).toMatchObject({
    status: 400, reason: "authority 198.18.0.2:80 came to 198.18.0.1, which is Kubernetes//Pod/shop/pod: neither its address nor one it is the waypoint of", provenance: { kind: "Pod", namespace: "shop", name: "pod" },
  });
});

test("ordinary addresses are not taken for special ones", () => {
  for (const address of ["1.2.3.4", "198.18.0.1", "223.255.255.255", "240.0.0.1", "2001:db8::1", "fd00::1", "fec0::1", "f::1", "ff0::1", "64:ff9b::1"]) expect(isNeverRemote(ip(address))).toBe(false);
});
