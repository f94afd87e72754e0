import { describe, expect, test } from "bun:test";
import { codesOf, describeMesh, documents, entry, errorsOf, evaluate, namespace } from "../test-kit.ts";

const service = (spec: string, meta = "name: web, namespace: shop"): string => `apiVersion: v1\nkind: Service\nmetadata: {${meta}}\nspec: ${spec}\n`;
const around = (text: string): string => documents(namespace("shop"), entry("web-1", { spec: "ports: {http: 8080}" }), text);
const line = (spec: string, meta?: string): string => describeMesh(evaluate(around(service(spec, meta)))).find((text) => text.startsWith("service"))!.split(" | ").slice(0, -1).join(" | ");
const errors = (spec: string, meta?: string): string => errorsOf(evaluate(around(service(spec, meta)))).join("\n");
const codes = (spec: string, meta?: string): string[] => codesOf(evaluate(around(service(spec, meta))));
const ON_80 = "selector: {app: web}, ports: [{port: 80}]";

describe("Service: translation", () => {
  test("given addresses are used, both families", () => {
    expect(line(`{${ON_80}, clusterIP: 198.51.100.7, clusterIPs: [198.51.100.7, "2001:db8::7"], ipFamilies: [IPv4, IPv6]}`))
      .toBe("service shop/web.shop.svc.cluster.local | vip 198.51.100.7/32 2001:db8::7/128 | ports :80->80 | standard | dual");
  });
  test("without one it gets one of the first service CIDR, the same each time", () => {
    expect(line(`{${ON_80}}`)).toBe("service shop/web.shop.svc.cluster.local | vip 198.19.14.8/32 | ports :80->80 | standard | automatic");
  });
  test("a family can be asked for, and both", () => {
    expect(line(`{${ON_80}, ipFamilies: [IPv6]}`)).toMatch(/vip 2001:db8:ffff::[0-9a-f]+\/128 .* ipv6$/);
    expect(line(`{${ON_80}, ipFamilyPolicy: RequireDualStack}`)).toMatch(/vip 198\.19\.\d+\.\d+\/32 2001:db8:ffff::[0-9a-f]+\/128 /);
  });
  test("None is headless, with or without ports", () => {
    expect(line("{clusterIP: None, selector: {app: web}}")).toBe("service shop/web.shop.svc.cluster.local | headless | ports  | standard | automatic");
  });
  test("target ports: number, name, default; other protocols are left out", () => {
    const spec = "{selector: {app: web}, clusterIP: 198.51.100.7, ports: [{name: a, port: 80, targetPort: 8080, appProtocol: http2}, {name: b, port: 81, targetPort: http}, {name: c, port: 82}, {name: d, port: 53, protocol: UDP}]}";
    expect(line(spec)).toContain("ports a:80->8080(http2) b:81->0 c:82->82 |");
    expect(codes(spec)).toEqual(["info not_supported spec.ports[3].protocol"]);
  });
  test("balancing", () => {
    expect(line(`{${ON_80}, internalTrafficPolicy: Local}`)).toContain("strict[node]");
    expect(line(`{${ON_80}, trafficDistribution: PreferClose}`)).toContain("failover[network region zone]");
    expect(line(`{${ON_80}, trafficDistribution: PreferSameZone}`)).toContain("failover[network region zone]");
    expect(line(`{${ON_80}, trafficDistribution: PreferSameNode}`)).toContain("failover[network region zone subzone node]");
    expect(line(`{${ON_80}}`, 'name: web, namespace: shop, annotations: {networking.istio.io/traffic-distribution: PreferClose}')).toContain("failover[network region zone]");
    expect(line(`{${ON_80}, publishNotReadyAddresses: true}`)).toContain("standard allowUnhealthy");
  });
  test("what a cluster adds is accepted", () => {
    expect(codes(`{${ON_80}, type: LoadBalancer, clusterIP: 198.51.100.7, externalTrafficPolicy: Cluster, allocateLoadBalancerNodePorts: true, sessionAffinity: None, externalIPs: [198.51.100.9]}`,
      "name: web, namespace: shop, uid: x, resourceVersion: '7', generation: 2, creationTimestamp: '2030-01-01T00:00:00Z', managedFields: [{manager: kubectl}]")).toEqual([]);
  });
});

describe("Service: waypoints", () => {
  const at = (labels: string): string => line(`{${ON_80}, clusterIP: 198.51.100.7}`, `name: web, namespace: shop, labels: ${labels}`);
  test("its own label binds it", () => expect(at("{istio.io/use-waypoint: wp}")).toContain("waypoint shop/wp.shop.svc.cluster.local:15008 weight 1"));
  describe("another namespace's waypoint", () => {
    const gateway = (allowed: string): string => `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: infra}
spec: {gatewayClassName: weft-waypoint, listeners: [{name: other, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}, {name: mesh, port: 15008, protocol: HBONE${allowed}}]}
`;
    const where = (allowed: string, labels = "{team: a, stage: live}"): string => evaluate(documents(namespace("shop", labels), namespace("infra"), gateway(allowed), service(`{${ON_80}, clusterIP: 198.51.100.7}`, "name: web, namespace: shop, labels: {istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}")))
      .mesh.services.get("shop/web.shop.svc.cluster.local" as never)!.waypoints.map(({ gateway: { destination } }) => (destination.kind === "hostname" ? String(destination.service) : "")).join();
    const from = (text: string): string => `, allowedRoutes: {namespaces: {${text}}}`;
    const [bound, refused] = ["infra/wp.infra.svc.cluster.local", "infra/wp.not-allowed.invalid"];

    test.each([
      ["says nothing", "", refused], ["takes its own", from("from: Same"), refused], ["takes none", from("from: None"), refused], ["takes all", from("from: All"), bound],
      ["takes those with a label", from("from: Selector, selector: {matchLabels: {team: a}}"), bound], ["takes those with another", from("from: Selector, selector: {matchLabels: {team: b}}"), refused],
      ["takes those by expressions", from("from: Selector, selector: {matchExpressions: [{key: stage, operator: In, values: [live, next]}, {key: old, operator: DoesNotExist}, {key: team, operator: Exists}, {key: team, operator: NotIn, values: [b]}]}"), bound],
      ["has an expression that fails", from("from: Selector, selector: {matchLabels: {team: a}, matchExpressions: [{key: stage, operator: NotIn, values: [live]}]}"), refused],
      ["takes by an empty selector all", from("from: Selector, selector: {}"), bound], ["names no selector", from("from: Selector"), refused],
    ])("that %s", (_, allowed, wanted) => expect(where(allowed)).toBe(wanted));

    test("where there is none by that name has nobody to let anyone in", () => {
      expect(at("{istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: infra}")).toContain("waypoint infra/wp.not-allowed.invalid:15008");
    });
    test("a namespace that loses the label loses the waypoint", () => expect(where(from("from: Selector, selector: {matchLabels: {team: a}}"), "{}")).toBe(refused));
  });
  test("a waypoint that is not there is a warning", () => {
    expect(codes(`{${ON_80}}`, "name: web, namespace: shop, labels: {istio.io/use-waypoint: wp}")).toEqual(['warning missing_waypoint metadata.labels["istio.io/use-waypoint"]']);
  });
  test("the namespace's label binds its services, but not the waypoint's own, nor one that says none", () => {
    const { mesh } = evaluate(documents(namespace("shop", "{istio.io/use-waypoint: wp}"), entry("web-1"), entry("wp-1", { labels: "{app: wp}" }), service(`{${ON_80}}`),
      service("{selector: {app: wp}, ports: [{port: 80}]}", "name: wp, namespace: shop"), service(`{${ON_80}}`, "name: off, namespace: shop, labels: {istio.io/use-waypoint: none}")));
    expect([...mesh.services.values()].map((s) => [s.name, s.waypoints.length])).toEqual([["web", 1], ["wp", 0], ["off", 0]]);
    expect([...mesh.workloads.values()].map((w) => [w.name, w.waypoints.length])).toEqual([["web-1", 0], ["wp-1", 0]]);
  });
  test("a waypoint for workloads binds the namespace's workloads in place of its services", () => {
    const { mesh } = evaluate(documents(namespace("shop", "{istio.io/use-waypoint: wp}"), entry("web-1"), entry("wp-1", { labels: "{app: wp}" }), service(`{${ON_80}}`),
      service("{selector: {app: wp}, ports: [{port: 80}]}", "name: wp, namespace: shop, labels: {istio.io/waypoint-for: workload}")));
    expect([...mesh.services.values()].map((s) => [s.name, s.waypoints.length])).toEqual([["web", 0], ["wp", 0]]);
    expect([...mesh.workloads.values()].map((w) => [w.name, w.waypoints.length])).toEqual([["web-1", 1], ["wp-1", 0]]);
  });
});

describe("Service: refused, and said where and why", () => {
  const cases: readonly [what: string, spec: string, expected: string, meta?: string][] = [
    ["ExternalName", "{type: ExternalName, externalName: a.example}", "spec.type: found ExternalName: it is an alias in DNS that carries no identity"],
    ["no port", "{selector: {app: web}}", "spec.ports: found no port"],
    ["a port out of range", "{ports: [{port: 0}]}", "spec.ports[0].port: found 0, expected at least 1"],
    ["a port as text", "{ports: [{port: '80'}]}", 'spec.ports[0].port: found "80", expected a number'],
    ["a fraction", "{ports: [{port: 1.5}]}", "spec.ports[0].port: found 1.5, expected a whole number"],
    ["a target port of no kind", "{ports: [{port: 80, targetPort: Web_Port}]}", 'found "Web_Port", expected a port number 1..65535 or the name'],
    ["the same port twice", "{ports: [{name: a, port: 80}, {name: b, port: 80}]}", "spec.ports[1].port: found TCP/80 twice"],
    ["two ports without names", "{ports: [{port: 80}, {port: 81}]}", "spec.ports[0].name: found no name"],
    ["the same name twice", "{ports: [{name: a, port: 80}, {name: a, port: 81}]}", 'spec.ports[1].name: found "a" twice'],
    ["a bad address", "{ports: [{port: 80}], clusterIP: 198.51.100.256}", 'spec.clusterIP: found "198.51.100.256", expected an IP address, or "None"'],
    ["an address with a leading zero", "{ports: [{port: 80}], clusterIP: 198.051.100.6}", "expected an IP address"],
    ["clusterIP and clusterIPs that differ", "{ports: [{port: 80}], clusterIP: 198.51.100.1, clusterIPs: [198.51.100.2]}", "spec.clusterIPs[0]: found \"198.51.100.2\", expected the same as clusterIP"],
    ["two addresses of one family", "{ports: [{port: 80}], clusterIPs: [198.51.100.1, 198.51.100.2]}", "found two addresses of one family"],
    ["an address of a family that is not listed", "{ports: [{port: 80}], clusterIP: 198.51.100.1, ipFamilies: [IPv6]}", "found an IPv4 address, but ipFamilies does not list IPv4"],
    ["a dotted name", "{ports: [{port: 80}]}", 'metadata.name: found "a.b", expected an RFC 1123 label', "name: a.b, namespace: shop"],
    ["an upper-case name", "{ports: [{port: 80}]}", 'bad_name  metadata.name: found "Web", expected an RFC 1123 name', "name: Web, namespace: shop"],
    ["a bad label", "{ports: [{port: 80}], selector: {app: 'a b'}}", 'spec.selector.app: found "a b", expected a label value'],
    ["a label that is no text", "{ports: [{port: 80}], selector: {app: 1}}", "spec.selector.app: found 1, expected text (quote it if it looks like a number)"],
    ["a bad label key", "{ports: [{port: 80}], selector: {'-a': b}}", 'found the key "-a", expected a label or annotation key'],
    ["no spec", "null", "spec: found null, expected a map"],
  ];
  for (const [what, spec, expected, meta] of cases) test(what, () => expect(errors(spec, meta)).toContain(expected));
  test("an address that another has is a warning at the second", () => {
    const both = documents(around(service(`{${ON_80}, clusterIP: 198.51.100.7}`)), service(`{${ON_80}, clusterIP: 198.51.100.7}`, "name: zoo, namespace: shop"));
    expect(codesOf(evaluate(both))).toEqual(["warning conflict spec.clusterIP"]);
  });
  test("nothing selected, and no selector, are warnings", () => {
    expect(codes("{selector: {app: nobody}, ports: [{port: 80}]}")).toEqual(["warning selects_nothing spec.selector"]);
    expect(codes("{ports: [{port: 80}]}")).toEqual(["warning selects_nothing spec"]);
  });
  test("source ranges and affinity are said not to be enforced", () => {
    expect(codes(`{${ON_80}, sessionAffinity: ClientIP, loadBalancerSourceRanges: [198.18.0.0/16]}`).sort()).toEqual(["warning not_enforced spec.loadBalancerSourceRanges", "warning not_supported spec.sessionAffinity"]);
  });
});
