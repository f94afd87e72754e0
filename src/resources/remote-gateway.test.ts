import { describe, expect, test } from "bun:test";
import { codesOf, describeMesh, documents, entry, errorsOf, evaluate, namespace } from "./test-kit.ts";

const gateway = (over: { name?: string; labels?: string; annotations?: string; spec?: string; class?: string } = {}): string => `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ${over.name ?? "to-n2"}, namespace: istio-system, labels: ${over.labels ?? "{topology.istio.io/network: n2}"}, annotations: ${over.annotations ?? "{}"}}
spec: {gatewayClassName: ${over.class ?? "istio-remote"}, ${over.spec ?? "addresses: [{value: 198.51.100.9}], listeners: [{name: cross-network, port: 15108, protocol: HBONE}]"}}
`;
const remote = entry("far", { spec: "network: n2", labels: "{app: far, istio.io/dataplane-mode: ambient}" });
const lines = (...texts: readonly string[]): string[] => describeMesh(evaluate(documents(namespace("shop"), ...texts)));

describe("a remote gateway", () => {
  test("is a workload of its network, and the way to every other one there", () => {
    expect(lines(gateway(), remote)).toEqual([
      expect.stringMatching(/^workload Kubernetes\/gateway\.networking\.k8s\.io\/Gateway\/istio-system\/to-n2 \| HBONE native \| 198\.51\.100\.9 \| sa to-n2-istio-remote \| node  \| net "n2"/),
      expect.stringMatching(/\/far \| HBONE .* through Kubernetes\/gateway\.networking\.k8s\.io\/Gateway\/istio-system\/to-n2:15108 \|/),
    ]);
  });
  test("has the service account and trust domain of its annotations", () => {
    const [line] = lines(gateway({ annotations: "{gateway.istio.io/service-account: east-west, gateway.istio.io/trust-domain: other.example}" }));
    expect(line).toContain("| sa east-west |");
    expect([...evaluate(gateway({ annotations: "{gateway.istio.io/trust-domain: other.example}" })).mesh.workloads.values()][0]!.trustDomain as string).toBe("other.example");
  });
  test("may be known by a name only", () => expect(lines(gateway({ spec: "addresses: [{type: Hostname, value: gw.example}], listeners: [{name: h, port: 15008, protocol: HBONE}]" }))[0]).toContain("| gw.example |"));
  test("changes what was translated before, when it comes and goes", () => {
    const without = lines(remote);
    expect(without.join()).not.toContain("through");
    expect(lines(remote, gateway()).join()).toContain("through");
  });
  test("to our own network is for the others", () =>
    expect(describeMesh(evaluate(documents(namespace("shop"), gateway(), remote), { network: "n2" })).join()).not.toContain("Gateway"));
  test("that comes second to a network is not used, and told so", () => {
    const evaluation = evaluate(documents(gateway({ name: "b" }), gateway({ name: "a" })));
    expect([...evaluation.mesh.workloads.values()].map(({ name }) => name)).toEqual(["a"]);
    expect(codesOf(evaluation)).toEqual(['warning conflict metadata.labels["topology.istio.io/network"]']);
  });
  test("of another class is nothing yet, which is said", () => {
    const evaluation = evaluate(gateway({ class: "nginx" }));
    expect(evaluation.mesh.workloads.size).toBe(0);
    expect(codesOf(evaluation)).toEqual(["warning unsupported_kind spec.gatewayClassName"]);
  });

  const listeners = "listeners: [{name: h, port: 15008, protocol: HBONE}]";
  for (const [what, text, expected] of [
    ["without a network", gateway({ labels: "{}" }), "expected the name of the network that this gateway leads to"],
    ["without an address", gateway({ spec: listeners }), "spec.addresses: found none"],
    ["with a bad address", gateway({ spec: `addresses: [{value: "198.51.100.9:1"}], ${listeners}` }), "spec.addresses[0].value: found \"198.51.100.9:1\", expected an IP address or a DNS name"],
    ["without HBONE", gateway({ spec: "addresses: [{value: 198.51.100.9}], listeners: [{name: tls, port: 15443, protocol: TLS}]" }), "found no listener with protocol HBONE"],
    ["with a bad trust domain", gateway({ annotations: "{gateway.istio.io/trust-domain: Not/One}" }), "expected a trust domain"],
    ["with an unknown field", gateway({ spec: `${listeners}, adresses: []` }), "unknown field"],
  ] as const) test(`${what} is refused`, () => expect(errorsOf(evaluate(text)).join("\n")).toContain(expected));
});

describe("the inbound binding of a workload", () => {
  const bound = (value: string): string => entry("a", { annotations: `{ambient.istio.io/waypoint-inbound-binding: "${value}"}` });
  test("is PROXY, with a port or without", () => {
    expect(lines(bound("PROXY/15088")).join()).toContain("| binding PROXY/15088 |");
    expect(lines(bound("PROXY")).join()).toContain("| binding PROXY/0 |");
    expect(lines(bound("NONE/8080")).join()).toContain("| binding NONE/8080 |");
  });
  for (const value of ["proxy", "PROXY/", "PROXY/0", "PROXY/70000", "PROXY/80/1", ""]) {
    test(`${JSON.stringify(value)} is refused`, () => expect(errorsOf(evaluate(documents(namespace("shop"), bound(value)))).join()).toContain("PROXY/15088"));
  }
});
