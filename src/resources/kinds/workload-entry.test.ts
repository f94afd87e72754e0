import { describe, expect, test } from "bun:test";
import { codesOf, describeMesh, documents, entry, errorsOf, evaluate, namespace } from "../test-kit.ts";

const HERE = "weft.dev/node: node-a, weft.dev/netns: /run/netns/web";
const around = (text: string, labels?: string): string => documents(namespace("shop", labels), text);
const lines = (text: string, labels?: string): string[] => describeMesh(evaluate(around(text, labels)));
const errors = (text: string): string => errorsOf(evaluate(around(text))).join("\n");
const protocol = (text: string, labels?: string): string => lines(text, labels)[0]!.split(" | ")[1]!;

describe("WorkloadEntry: the record", () => {
  test("everything given", () => {
    expect(lines(entry("web-1", { annotations: `{${HERE}, weft.dev/addresses: "2001:db8::1, 198.18.0.9"}`, labels: "{app: web, version: v2}", spec: "network: n1, locality: r/z/s, weight: 3, serviceAccount: web, ports: {http: 8080}" }))[0])
      .toBe('workload Kubernetes/networking.istio.io/WorkloadEntry/shop/web-1 | HBONE | 198.18.0.1 2001:db8::1 198.18.0.9 | sa web | node node-a | net "n1" | canonical web/v2 | locality r/z/s | capacity 3 | policies  | @a.yaml:5');
  });
  test("defaults", () => {
    expect(lines(entry("web-1", { labels: "{}" }))[0])
      .toBe('workload Kubernetes/networking.istio.io/WorkloadEntry/shop/web-1 | TCP | 198.18.0.1 | sa default | node  | net "" | canonical web-1/latest | locality // | capacity 1 | policies  | @a.yaml:5');
  });
  test("a DNS name is resolved on demand", () => expect(lines(entry("db", { address: "db.example" }))[0]).toContain("| db.example |"));
  test("addresses are in one form", () => expect(lines(entry("db", { address: "2001:DB8:0::1" }))[0]).toContain("| 2001:db8::1 |"));
  test("every version of the kind", () => {
    for (const version of ["v1", "v1beta1", "v1alpha3"]) expect(errors(entry("a").replace("/v1", `/${version}`))).toBe("");
    expect(errors(entry("a").replace("/v1", "/v2"))).toContain('apiVersion: found "networking.istio.io/v2", expected networking.istio.io/v1 or networking.istio.io/v1beta1 or networking.istio.io/v1alpha3');
  });
  test("labels of the metadata and of the spec are merged, the metadata's win", () => {
    const text = entry("a", { labels: "{app: inner, version: v1}" }).replace("name: a,", "name: a, labels: {app: outer},");
    expect(lines(text)[0]).toContain("canonical outer/v1");
  });
  test("services select it; a named target port is its own", () => {
    const service = (name: string, target: string): string => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop}\nspec: {selector: {app: web}, clusterIP: None, ports: [{port: 80, targetPort: ${target}}]}\n`;
    const evaluation = evaluate(documents(around(entry("web-1", { spec: "ports: {http: 8080}" })), service("b", "http"), service("a", "9"), service("c", "grpc")));
    expect(describeMesh(evaluation).find((line) => line.startsWith("workload"))).toContain("in shop/a.shop.svc.cluster.local 80->9 | in shop/b.shop.svc.cluster.local 80->8080 | in shop/c.shop.svc.cluster.local  |");
    expect(codesOf(evaluation)).toEqual(["warning missing_port spec.ports"]);
  });
});

describe("WorkloadEntry: who is reached by HBONE", () => {
  const AMBIENT = "{istio.io/dataplane-mode: ambient}";
  test("captured on its node, when the namespace is opted in", () => {
    expect(protocol(entry("a", { annotations: `{${HERE}}` }), AMBIENT)).toBe("HBONE");
    expect(protocol(entry("a", { annotations: `{${HERE}}` }), "{}")).toBe("TCP");
    expect(protocol(entry("a", { annotations: `{${HERE}}` }), "{istio.io/dataplane-mode: none}")).toBe("TCP");
  });
  test("its own label wins over the namespace's", () => {
    expect(protocol(entry("a", { annotations: `{${HERE}}`, labels: "{istio.io/dataplane-mode: none}" }), AMBIENT)).toBe("TCP");
    expect(protocol(entry("a", { annotations: `{${HERE}}`, labels: AMBIENT }), "{}")).toBe("HBONE");
  });
  test("a machine on no node is not behind a proxy because its namespace is opted in", () => expect(protocol(entry("a"), AMBIENT)).toBe("TCP"));
  test("one that says it is captured elsewhere, or ends HBONE itself", () => {
    expect(protocol(entry("a", { annotations: "{ambient.istio.io/redirection: enabled}" }), "{}")).toBe("HBONE");
    expect(protocol(entry("a", { labels: AMBIENT }), "{}")).toBe("HBONE");
    expect(protocol(entry("a", { labels: "{networking.istio.io/tunnel: http}" }), "{}")).toBe("HBONE native");
    expect(protocol(entry("a", { annotations: "{ambient.istio.io/redirection: enabled}", labels: "{istio.io/dataplane-mode: none}" }), "{}")).toBe("TCP");
  });
});

describe("WorkloadEntry: workloads of this node", () => {
  const local = (annotations: string, labels?: string): string | undefined => lines(entry("a", { annotations: `{${annotations}}` }), labels).find((line) => line.startsWith("local"));
  test("in a namespace of its own, captured", () => expect(local(HERE)).toBe("local shop/a | /run/netns/web | captured | inbound true | dns null | exclude out  in  to  uids  cgroups "));
  test("on the host, with what is left alone", () => {
    expect(local(`weft.dev/node: node-a, weft.dev/netns: host, traffic.sidecar.istio.io/excludeOutboundPorts: "22, 53", traffic.sidecar.istio.io/excludeInboundPorts: "22",
      traffic.sidecar.istio.io/excludeOutboundIPRanges: "198.51.100.0/24,2001:db8::/64", weft.dev/exclude-uids: "0,1000-1999", weft.dev/exclude-cgroups: "/system.slice/a.service, b",
      ambient.istio.io/dns-capture: "false", ambient.istio.io/bypass-inbound-capture: "true"`))
      .toBe("local shop/a | host | captured | inbound false | dns false | exclude out 22 53 in 22 to 198.51.100.0/24 2001:db8::/64 uids 0-0 1000-1999 cgroups system.slice/a.service b");
  });
  test("not opted in: known, and left alone", () => expect(local(HERE, "{}")).toContain("left alone"));
  test("another node's is not ours", () => expect(local("weft.dev/node: node-b, weft.dev/netns: host")).toBeUndefined());
  test("two in one namespace: the second is an error and not captured", () => {
    const evaluation = evaluate(documents(around(entry("a", { annotations: `{${HERE}}` })), entry("b", { annotations: `{${HERE}}`, address: "198.18.0.2" })));
    expect(evaluation.localWorkloads.map(({ name }) => name)).toEqual(["a"]);
    expect(codesOf(evaluation)).toEqual(['error conflict metadata.annotations["weft.dev/netns"]']);
    expect([...evaluation.mesh.workloads.values()].map((w) => w.tunnelProtocol)).toEqual(["HBONE", "HBONE"]);
  });
});

describe("WorkloadEntry: refused, and said where and why", () => {
  const annotated = (annotations: string): string => entry("a", { annotations: `{${annotations}}` });
  const cases: readonly [what: string, text: string, expected: string][] = [
    ["no address", entry("a").replace('address: "198.18.0.1", ', ""), "spec.address: found no address"],
    ["a socket", entry("a", { address: "unix:///run/a" }), 'spec.address: found "unix:///run/a", expected an IPv4 or IPv6 address, or a DNS name'],
    ["loopback", entry("a", { address: "127.0.0.1" }), "names no one workload"],
    ["loopback of IPv6", entry("a", { address: "::1" }), "names no one workload"],
    ["multicast", entry("a", { address: "224.0.0.1" }), "names no one workload"],
    ["a zone", entry("a", { address: "fe80::1%eth0" }), "expected an IPv4 or IPv6 address"],
    ["weight 0", entry("a", { spec: "weight: 0" }), "spec.weight: found 0, expected at least 1"],
    ["a bad locality", entry("a", { spec: "locality: r//s" }), "expected REGION, REGION/ZONE or REGION/ZONE/SUBZONE"],
    ["a port out of range", entry("a", { spec: "ports: {http: 70000}" }), "spec.ports.http: found 70000, expected at most 65535"],
    ["an unknown field", entry("a", { spec: "adress: x" }), "spec.adress: unknown field; did you mean address?"],
    ["a node without a namespace", annotated("weft.dev/node: node-a"), "found weft.dev/node without weft.dev/netns"],
    ["a namespace without a node", annotated("weft.dev/netns: host"), "found weft.dev/netns without weft.dev/node"],
    ["a path that climbs", annotated("weft.dev/node: node-a, weft.dev/netns: /run/netns/../x"), "expected an absolute path"],
    ["a relative path", annotated("weft.dev/node: node-a, weft.dev/netns: run/netns/x"), "expected an absolute path"],
    ["a captured workload known by name only", entry("a", { annotations: `{${HERE}}`, address: "a.example" }), "found no IP address; a workload that is captured needs one"],
    ["a bad port list", annotated('traffic.sidecar.istio.io/excludeOutboundPorts: "22,http"'), 'found "22,http", expected a comma-separated list of ports 1..65535'],
    ["a bad user range", annotated('weft.dev/exclude-uids: "20-10"'), "expected a comma-separated list of user ids or ranges"],
    ["a user out of range", annotated('weft.dev/exclude-uids: "4294967296"'), "expected a comma-separated list of user ids"],
    ["a bad CIDR", annotated('traffic.sidecar.istio.io/excludeOutboundIPRanges: "*"'), "expected a comma-separated list of IP addresses or CIDRs"],
    ["a cgroup that climbs", annotated('weft.dev/exclude-cgroups: "a/../b"'), "expected a comma-separated list of cgroup paths"],
    ["a flag that is neither", annotated('ambient.istio.io/dns-capture: "yes"'), 'expected "true" or "false"'],
    ["a flag that is no text", annotated("ambient.istio.io/dns-capture: true"), "found true, expected text (quote it if it looks like a number)"],
    ["a misspelt mode", entry("a", { labels: "{istio.io/dataplane-mode: Ambient}" }), 'spec.labels["istio.io/dataplane-mode"]: found "Ambient", expected ambient or none'],
    ["an upper-case service account", entry("a", { spec: "serviceAccount: Web" }), "spec.serviceAccount"],
  ];
  for (const [what, text, expected] of cases) test(what, () => expect(errors(text)).toContain(expected));
  test("a misspelt mode on a namespace", () => expect(errorsOf(evaluate(namespace("shop", "{istio.io/dataplane-mode: on-please}"))).join()).toContain("expected ambient or none"));
});
