import { describe, expect, test } from "bun:test";
import { delta, gatewayAt, identity, ip, member, service, serviceName, uid, waypoint, workload } from "../../test/kit/mesh-records.ts";
import { parseSocketAddress } from "../core/ip.ts";
import { seededRandom } from "../core/ports.ts";
import type { MeshDelta, Service, Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { formatAuthority } from "../wire/hbone/authority.ts";
import { Balancer } from "./balance.ts";
import { chooseOutbound, explainOutbound, type OutboundOptions, withAddress } from "./outbound.ts";

const CLIENT = workload({ name: "client", addresses: [ip("198.18.1.1"), ip("2001:db8:9::1")], serviceAccount: "client" });

function choose(dst: string, fields: Partial<MeshDelta>, options: OutboundOptions = {}, source: Workload = CLIENT) {
  const store = new MeshStore();
  store.apply(delta({ ...fields, workloads: [source, ...(fields.workloads ?? [])] }));
  return chooseOutbound(store, new Balancer({ random: seededRandom(1) }), store.workload(source.uid)!, parseSocketAddress(dst)!, 0, options);
}
/** A decision in short, to be compared with. */
function brief(...given: Parameters<typeof choose>): string {
  const d = choose(...given);
  switch (d.kind) {
    case "refuse": return `refuse ${d.code}`;
    case "passthrough": return `passthrough ${d.to.ip}:${d.to.port} ${d.reason}`;
    case "plain": return `plain ${d.to.ip}:${d.to.port} ${d.destination.name}`;
    case "resolve": return `resolve ${d.hostname}:${d.port}`;
    case "tunnel": return `${d.role} ${d.tunnelTo.ip}:${d.tunnelTo.port} for ${formatAuthority(d.authority)} as ${d.destination.name}`;
    default: return d satisfies never;
  }
}
const web = (fields: Parameters<typeof service>[0] extends infer F ? Partial<F> : never = {}): Service => service({ name: "web", vips: ["198.19.0.1", "2001:db8:1::1"], ...fields });
const WEB = serviceName(web());
const endpoint = (name: string, address: string, fields: Partial<Workload> = {}): Workload =>
  workload({ name, addresses: [ip(address)], services: member({ [WEB]: { 80: 8080 } }), serviceAccount: "web", ...fields });
const WAYPOINT_SERVICE = service({ name: "wp", vips: ["198.19.0.9"], ports: [{ servicePort: 15008, targetPort: 15008, name: "mesh", appProtocol: "" }] });
const WP = serviceName(WAYPOINT_SERVICE);
const waypointPod = (name = "wp-1", address = "198.18.2.1", fields: Partial<Workload> = {}): Workload =>
  workload({ name, addresses: [ip(address)], serviceAccount: "wp", services: member({ [WP]: { 15008: 15008 } }), ...fields });

describe("an address nobody knows", () => {
  test("is passed through", () => expect(brief("198.51.100.1:443", {})).toBe("passthrough 198.51.100.1:443 unknown destination"));
  test("loopback is nobody's business", () => expect(brief("127.0.0.1:8080", {})).toBe("passthrough 127.0.0.1:8080 loopback"));
  test.each(["127.0.0.1:15001", "127.0.0.1:15006", "[::1]:15008", "127.0.0.1:15053", "127.0.0.1:15080", "198.18.1.1:15008", "[2001:db8:9::1]:15001", "198.51.100.1:0"])(
    "%s would come back here", (dst) => expect(brief(dst, {})).toBe("refuse own_port"));
  test("our ports elsewhere are somebody else's", () => expect(brief("198.51.100.1:15001", {})).toStartWith("passthrough"));
});

describe("a workload addressed directly", () => {
  test("with HBONE is reached by a tunnel to its own port 15008", () => {
    const d = choose("198.18.0.2:8080", { workloads: [endpoint("w", "198.18.0.2")] });
    expect(d).toMatchObject({ kind: "tunnel", role: "endpoint", tunnelTo: { ip: "198.18.0.2", port: 15008 }, acceptedIdentities: [identity("shop", "web")], service: null, inner: null });
    expect(brief("198.18.0.2:8080", { workloads: [endpoint("w", "198.18.0.2")] })).toBe("endpoint 198.18.0.2:15008 for 198.18.0.2:8080 as w");
    expect(brief("[2001:db8::2]:8080", { workloads: [endpoint("w", "2001:db8::2")] })).toBe("endpoint 2001:db8::2:15008 for [2001:db8::2]:8080 as w");
  });
  test("without HBONE, plainly", () => expect(brief("198.18.0.2:8080", { workloads: [endpoint("w", "198.18.0.2", { tunnelProtocol: "TCP" })] })).toBe("plain 198.18.0.2:8080 w"));
  test("unhealthy or not: who asks for a pod gets the pod", () => expect(brief("198.18.0.2:80", { workloads: [endpoint("w", "198.18.0.2", { status: "unhealthy" })] })).toStartWith("endpoint"));
  test("through its waypoint, which is told the address", () => {
    const bound = endpoint("w", "198.18.0.2", { waypoints: [waypoint(WP)] });
    const mesh = { workloads: [bound, waypointPod()], services: [WAYPOINT_SERVICE] };
    expect(brief("198.18.0.2:8080", mesh)).toBe("waypoint 198.18.2.1:15008 for 198.18.0.2:8080 as wp-1");
    expect(brief("198.18.0.2:8080", mesh, {}, waypointPod("wp-2", "198.18.2.2"))).toStartWith("endpoint 198.18.0.2:15008");
  });
  test("not through its service's waypoint", () => {
    expect(brief("198.18.0.2:8080", { workloads: [endpoint("w", "198.18.0.2"), waypointPod()], services: [web({ waypoints: [waypoint(WP)] }), WAYPOINT_SERVICE] })).toStartWith("endpoint 198.18.0.2");
  });
});

describe("a service", () => {
  test("goes to an endpoint's own port", () => {
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [endpoint("w", "198.18.0.2")] })).toBe("endpoint 198.18.0.2:15008 for 198.18.0.2:8080 as w");
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [endpoint("w", "198.18.0.2", { tunnelProtocol: "TCP" })] })).toBe("plain 198.18.0.2:8080 w");
  });
  test("names the service and its port, for reports", () => {
    expect(choose("198.19.0.1:80", { services: [web()], workloads: [endpoint("w", "198.18.0.2")] })).toMatchObject({ service: { name: "web" }, servicePort: 80, reason: "service endpoint" });
  });
  test("an endpoint that lacks the port uses the service's target port; without one it is no endpoint", () => {
    const bare = endpoint("w", "198.18.0.2", { services: member({ [WEB]: {} }) });
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [bare] })).toContain("198.18.0.2:8080");
    expect(brief("198.19.0.1:80", { services: [web({ ports: [{ servicePort: 80, targetPort: 0, name: "", appProtocol: "" }] })], workloads: [bare] })).toBe("refuse port_not_in_service");
    const tunnelled = { ...bare, applicationTunnel: { protocol: "PROXY", port: 0 } } as Workload;
    expect(brief("198.19.0.1:80", { services: [web({ ports: [{ servicePort: 80, targetPort: 0, name: "", appProtocol: "" }] })], workloads: [tunnelled] })).toContain("198.18.0.2:80");
  });
  test("accepts the names its endpoints may prove", () => {
    const other = identity("elsewhere", "vm");
    expect(choose("198.19.0.1:80", { services: [web({ subjectAltNames: [other] })], workloads: [endpoint("w", "198.18.0.2")] })).toMatchObject({ acceptedIdentities: [identity("shop", "web"), other] });
  });
  test.each([
    ["no endpoint", [], 80, "no_endpoints"], ["a port it does not have", [endpoint("w", "198.18.0.2")], 81, "port_not_in_service"],
    ["none healthy", [endpoint("w", "198.18.0.2", { status: "unhealthy" })], 80, "no_healthy_endpoint"], ["all drained", [endpoint("w", "198.18.0.2", { capacity: 0 })], 80, "no_healthy_endpoint"],
    ["all on another network without a gateway", [endpoint("w", "198.18.0.2", { network: "far" })], 80, "no_network_gateway"],
    ["no address at all", [endpoint("w", "198.18.0.2", { addresses: [] })], 80, "no_endpoint_of_family"],
  ] as const)("with %s is refused, never passed through", (_, workloads, port, code) => expect(brief(`198.19.0.1:${port}`, { services: [web()], workloads })).toBe(`refuse ${code}`));
  test("publishNotReadyAddresses takes unhealthy ones too", () => {
    const all = web({ loadBalancing: { mode: "standard", scopes: [], allowUnhealthy: true } });
    expect(brief("198.19.0.1:80", { services: [all], workloads: [endpoint("w", "198.18.0.2", { status: "unhealthy" })] })).toStartWith("endpoint");
  });
  test("the reason counts what is wrong, and the service is blamed", () => {
    const d = choose("198.19.0.1:80", { services: [web()], workloads: [endpoint("a", "198.18.0.2", { status: "unhealthy" }), endpoint("b", "198.18.0.3", { network: "far" })] });
    expect(explainOutbound(d)).toBe("refused: web.shop.svc.cluster.local:80 has no endpoint to go to: of 2, 1 not healthy, 1 on another network without a gateway to it or without HBONE (Service shop/web)");
  });
  test("a second try goes elsewhere, and a last one says so", () => {
    const mesh = { services: [web()], workloads: [endpoint("a", "198.18.0.2"), endpoint("b", "198.18.0.3")] };
    const [a, b] = mesh.workloads.map((w) => w.uid);
    expect([brief("198.19.0.1:80", mesh, { exclude: new Set([a!]) }), brief("198.19.0.1:80", mesh, { exclude: new Set([b!]) }), brief("198.19.0.1:80", mesh, { exclude: new Set([a!, b!]) })])
      .toEqual(["endpoint 198.18.0.3:15008 for 198.18.0.3:8080 as b", "endpoint 198.18.0.2:15008 for 198.18.0.2:8080 as a", "refuse endpoints_exhausted"]);
  });
  test("an endpoint known by name is resolved, then reached as it would be", () => {
    const byName = endpoint("w", "198.18.0.2", { addresses: [], hostname: "db.example" });
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [byName] })).toBe("resolve db.example:8080");
    const d = choose("[2001:db8:1::1]:80", { services: [web()], workloads: [{ ...byName, tunnelProtocol: "TCP" }] });
    if (d.kind !== "resolve") throw new Error(d.kind);
    expect([d.family, withAddress(d, ip("198.51.100.7"))]).toMatchObject([6, { kind: "plain", to: { ip: "198.51.100.7", port: 8080 } }]);
  });
});

describe("address families", () => {
  const dual = endpoint("w", "198.18.0.2", { addresses: [ip("198.18.0.2"), ip("2001:db8::2")] });
  test.each([
    ["automatic", "198.19.0.1:80", "198.18.0.2"], ["automatic", "[2001:db8:1::1]:80", "2001:db8::2"], ["dual", "[2001:db8:1::1]:80", "2001:db8::2"],
    ["ipv4", "[2001:db8:1::1]:80", "198.18.0.2"], ["ipv6", "198.19.0.1:80", "2001:db8::2"],
  ] as const)("%s, asked for %s, uses %s", (ipFamilies, dst, expected) => expect(choose(dst, { services: [web({ ipFamilies })], workloads: [dual] })).toMatchObject({ tunnelTo: { ip: expected } }));
  test("the other family is used when it is all there is, unless the service forbids it", () => {
    expect(choose("[2001:db8:1::1]:80", { services: [web()], workloads: [endpoint("w", "198.18.0.2")] })).toMatchObject({ tunnelTo: { ip: "198.18.0.2" } });
    expect(brief("[2001:db8:1::1]:80", { services: [web({ ipFamilies: "ipv6" })], workloads: [endpoint("w", "198.18.0.2")] })).toBe("refuse no_endpoint_of_family");
  });
});

describe("what owns an address", () => {
  const range = (fields = {}) => service({ name: "range", vips: ["198.18.0.0/16"], ports: [], loadBalancing: { mode: "passthrough", scopes: [], allowUnhealthy: false }, ...fields });
  test("an exact service address before a workload, a workload before a range", () => {
    const clash = endpoint("w", "198.19.0.1");
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [clash, endpoint("x", "198.18.0.2")] })).not.toContain("for 198.19.0.1:80");
    expect(brief("198.18.0.2:80", { services: [range()], workloads: [endpoint("w", "198.18.0.2")] })).toContain("198.18.0.2:15008");
    expect(brief("198.18.0.3:99", { services: [range()] })).toBe("passthrough 198.18.0.3:99 service passthrough");
  });
  test("a passthrough service keeps the address and still uses its waypoint", () => {
    const own = service({ name: "p", vips: ["198.51.100.1"], loadBalancing: { mode: "passthrough", scopes: [], allowUnhealthy: false } });
    expect(brief("198.51.100.1:443", { services: [own] })).toBe("passthrough 198.51.100.1:443 service passthrough");
    expect(brief("198.51.100.1:443", { services: [{ ...own, waypoints: [waypoint(WP)] }, WAYPOINT_SERVICE], workloads: [waypointPod()] })).toBe("waypoint 198.18.2.1:15008 for 198.51.100.1:443 as wp-1");
  });
});

describe("a service's waypoint", () => {
  const bound = web({ waypoints: [waypoint(WP)] });
  const mesh = { services: [bound, WAYPOINT_SERVICE], workloads: [endpoint("w", "198.18.0.2"), waypointPod()] };
  test("is told the service's address", () => {
    expect(choose("198.19.0.1:80", mesh)).toMatchObject({ role: "waypoint", tunnelTo: { ip: "198.18.2.1", port: 15008 }, acceptedIdentities: [identity("shop", "wp")], service: { name: "web" }, destination: { name: "wp-1" } });
    expect(brief("198.19.0.1:80", mesh)).toContain("for 198.19.0.1:80");
  });
  test("calls its endpoints itself without going through itself", () => expect(brief("198.19.0.1:80", mesh, {}, waypointPod("wp-2", "198.18.2.2"))).toBe("endpoint 198.18.0.2:15008 for 198.18.0.2:8080 as w"));
  test("that is unknown, or has no healthy instance, or none left to try, is not gone around", () => {
    expect(brief("198.19.0.1:80", { services: [bound], workloads: mesh.workloads })).toBe("refuse unknown_waypoint");
    expect(brief("198.19.0.1:80", { ...mesh, workloads: [endpoint("w", "198.18.0.2")] })).toBe("refuse no_healthy_waypoint");
    expect(brief("198.19.0.1:80", { ...mesh, workloads: [endpoint("w", "198.18.0.2"), waypointPod("wp-1", "198.18.2.1", { status: "unhealthy" })] })).toBe("refuse no_healthy_waypoint");
    expect(brief("198.19.0.1:80", mesh, { exclude: new Set([uid("Kubernetes//Pod/shop/wp-1")]) })).toBe("refuse endpoints_exhausted");
  });
  test("may be given by the address of its service or of itself, on a port of its own", () => {
    const at = (address: string) => ({ ...mesh, services: [web({ waypoints: [{ gateway: gatewayAt("", address, 15108), weight: 1 }] }), { ...WAYPOINT_SERVICE, visibility: "namespace" } as Service] });
    expect(brief("198.19.0.1:80", at("198.18.2.1"))).toBe("waypoint 198.18.2.1:15108 for 198.19.0.1:80 as wp-1");
    // Bound, so found, however hidden its service is from this client.
    expect(brief("198.19.0.1:80", at("198.19.0.9"), {}, { ...CLIENT, namespace: "elsewhere" })).toBe("waypoint 198.18.2.1:15108 for 198.19.0.1:80 as wp-1");
    expect(brief("198.19.0.1:80", at("198.18.7.7"))).toBe("refuse unknown_waypoint");
  });
  test("of two by weight gets its share of connections", () => {
    const other = service({ name: "canary", vips: ["198.19.0.8"], ports: WAYPOINT_SERVICE.ports });
    const store = new MeshStore();
    store.apply(delta({
      services: [web({ waypoints: [waypoint(WP, 3), waypoint(serviceName(other), 1)] }), WAYPOINT_SERVICE, other],
      workloads: [CLIENT, waypointPod(), workload({ name: "canary-1", addresses: [ip("198.18.2.9")], services: member({ [serviceName(other)]: { 15008: 15008 } }) })],
    }));
    const balancer = new Balancer({ random: seededRandom(3) });
    let canary = 0;
    for (let i = 0; i < 4000; i++) {
      const d = chooseOutbound(store, balancer, CLIENT, { ip: ip("198.19.0.1"), port: 80 }, 0);
      if (d.kind === "tunnel" && d.destination.name === "canary-1") canary++;
    }
    expect(Math.abs(canary / 4000 - 0.25)).toBeLessThan(0.03);
  });
});

describe("another network", () => {
  const gate = workload({ name: "gate", uid: uid("gate"), network: "far", addresses: [ip("198.51.100.9")], namespace: "istio-system", serviceAccount: "gate" });
  const far = endpoint("far-w", "198.18.0.2", { network: "far", networkGateway: gatewayAt("far", "198.51.100.9") });
  const SAN = identity("shop", "web-far");
  test("is reached through its gateway, by the service's name, end to end with the service's identities", () => {
    const d = choose("198.19.0.1:80", { services: [web({ subjectAltNames: [SAN] })], workloads: [far, gate] });
    const authority = { kind: "hostname", hostname: "web.shop.svc.cluster.local", port: 80 };
    expect(d).toMatchObject({
      kind: "tunnel", role: "gateway", tunnelTo: { ip: "198.51.100.9", port: 15008 }, acceptedIdentities: [identity("istio-system", "gate")], authority,
      inner: { authority, acceptedIdentities: [SAN] }, destination: { name: "gate" },
    });
    expect(choose("198.19.0.1:80", { services: [web()], workloads: [far, gate] })).toMatchObject({ inner: { acceptedIdentities: [identity("shop", "web")] } });
  });
  test("any endpoint of that network may answer, but none of ours, where the service names no identities", () => {
    const others = [endpoint("far-x", "198.18.0.3", { network: "far", networkGateway: gatewayAt("far", "198.51.100.9"), serviceAccount: "other" }), endpoint("w", "198.18.0.4", { serviceAccount: "near", status: "unhealthy" })];
    expect(choose("198.19.0.1:80", { services: [web()], workloads: [far, gate, ...others] })).toMatchObject({ inner: { acceptedIdentities: [identity("shop", "other"), identity("shop", "web")] } });
  });
  test("is not reached where the endpoint has no HBONE", () =>
    expect(brief("198.19.0.1:80", { services: [web()], workloads: [{ ...far, tunnelProtocol: "TCP" }, gate] })).toBe("refuse no_network_gateway"));
  test("whose gateway is unknown is refused", () => expect(brief("198.19.0.1:80", { services: [web()], workloads: [far] })).toBe("refuse unknown_gateway"));
  test("whose gateway has a name only, is resolved first", () => {
    const d = choose("198.19.0.1:80", {
      services: [web(), service({ name: "gw", namespace: "istio-system" })],
      workloads: [
        endpoint("far-w", "198.18.0.2", { network: "far", networkGateway: { destination: { kind: "hostname", service: "istio-system/gw.istio-system.svc.cluster.local" as never }, hboneMtlsPort: 15008 } }),
        { ...gate, addresses: [], hostname: "lb.example", services: member({ "istio-system/gw.istio-system.svc.cluster.local": {} }) },
      ],
    });
    if (d.kind !== "resolve") throw new Error(explainOutbound(d));
    expect([d.hostname, d.port, withAddress(d, ip("198.51.100.3"))]).toMatchObject(["lb.example", 15008, { role: "gateway", tunnelTo: { ip: "198.51.100.3", port: 15008 }, inner: { authority: { port: 80 } } }]);
  });
  test("holds a waypoint: through the gateway, for services only", () => {
    const remote = waypointPod("wp-far", "198.18.2.1", { network: "far", networkGateway: gatewayAt("far", "198.51.100.9") });
    expect(choose("198.19.0.1:80", { services: [web({ waypoints: [waypoint(WP)] }), WAYPOINT_SERVICE], workloads: [remote, gate] }))
      .toMatchObject({ role: "gateway", reason: "waypoint on another network", inner: { acceptedIdentities: [identity("shop", "wp")] } });
    expect(brief("198.18.0.2:80", { services: [WAYPOINT_SERVICE], workloads: [remote, gate, endpoint("w", "198.18.0.2", { waypoints: [waypoint(WP)] })] })).toBe("refuse no_network_gateway");
  });
  test("near endpoints are preferred where the service says so", () => {
    const near = web({ loadBalancing: { mode: "failover", scopes: ["network", "region", "zone"], allowUnhealthy: false } });
    expect(brief("198.19.0.1:80", { services: [near], workloads: [far, gate, endpoint("near", "198.18.0.3", { locality: { region: "r9", zone: "", subzone: "" } })] })).toContain("as near");
  });
});

test("every decision explains itself with where it comes from", () => {
  expect(explainOutbound(choose("198.19.0.1:80", { services: [web()], workloads: [endpoint("w", "198.18.0.2")] })))
    .toBe("HBONE to the endpoint Kubernetes//Pod/shop/w at 198.18.0.2:15008 for 198.18.0.2:8080: service endpoint (Service shop/web)");
  expect(explainOutbound(choose("198.51.100.1:1", {}))).toBe("passed through to 198.51.100.1:1: unknown destination");
});
