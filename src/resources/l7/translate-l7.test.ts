import { describe, expect, test } from "bun:test";
import type { L7Delta, L7Snapshot } from "../../mesh/l7/delta.ts";
import { L7Store } from "../../mesh/l7/l7-store.ts";
import { namespacedName } from "../../core/brand.ts";
import { Router } from "../../policy/http/router.ts";
import { request } from "../../../test/kit/http-records.ts";
import type { Resource } from "../kinds.ts";
import { parseResources } from "../parse-resources.ts";
import type { Placed } from "../resource.ts";
import { type Evaluation, ResourceSet } from "../resource-set.ts";
import { codesOf, documents, entry, errorsOf, evaluate, namespace, policy, readingsOf, testOptions } from "../test-kit.ts";
import { isEmptyL7Delta } from "./l7-delta.ts";
import { describeL7 } from "./test-kit.ts";
import { L7Translator } from "./translate-l7.ts";

const service = (name: string, ports = "[{port: 80}]", meta = ""): string => `apiVersion: v1\nkind: Service\nmetadata: {name: ${name}, namespace: shop${meta}}\nspec: {selector: {app: web}, ports: ${ports}}\n`;
const route = (name: string, parent: string, backend: string, over: { created?: string; kind?: string; namespace?: string } = {}): string => `apiVersion: gateway.networking.k8s.io/v1
kind: ${over.kind ?? "HTTPRoute"}
metadata: {name: ${name}, namespace: ${over.namespace ?? "shop"}${over.created === undefined ? "" : `, creationTimestamp: "${over.created}"`}}
spec: {parentRefs: [{group: "", kind: Service, name: ${parent}, namespace: shop}], rules: [{backendRefs: [{name: ${backend}, namespace: shop, port: 80}]}]}
`;
const place = (text: string): Placed<Resource> => {
  const [item] = parseResources(text);
  if (item?.content.is !== "resource") throw new Error(`not a resource: ${text} ${JSON.stringify(item?.diagnostics)}`);
  return { resource: item.content.resource, file: "a.yaml", line: 1, document: { text, line: 1 }, path: [] };
};
const waypoint = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: wp, namespace: shop}\nspec: {gatewayClassName: weft-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n";
const base = documents(namespace("shop", "{istio.io/use-waypoint: wp}"), namespace("team"), waypoint, entry("web-1"), service("a"), service("b"));
const web = namespacedName("shop", "a.shop.svc.cluster.local");

class Directory {
  readonly set = new ResourceSet(testOptions);
  update(texts: Readonly<Record<string, string>>): Evaluation {
    return this.set.update(readingsOf(texts));
  }
}

test("a port of a provider may be in quotes, as Istio's pages have it", () => {
  const config = (port: string): string => `apiVersion: weft.dev/v1alpha1
kind: MeshConfig
metadata: {name: mesh, namespace: istio-system}
spec: {extensionProviders: [{name: who, envoyExtAuthzGrpc: {service: authz.shop.svc.cluster.local, port: ${port}}}]}
`;
  const ask = policy("ask", '{targetRefs: [{group: "", kind: Service, name: authz}], action: CUSTOM, provider: {name: who}, rules: [{}]}');
  const policyOf = (port: string) => JSON.stringify([...evaluate(documents(namespace("shop"), entry("web"), config(port), service("authz", "[{name: grpc, port: 9000}]"), ask)).l7.requestPolicies.values()]);
  expect(policyOf('"9000"')).toContain('"port":9000');
  expect(policyOf('"9000"')).toBe(policyOf("9000"));
});

test("a policy for a service that a waypoint serves at a port of its own is not said to hold nowhere", () => {
  const texts = documents(namespace("shop"), entry("web"), service("web", "[{name: http, port: 80}]"), policy("deny", '{targetRefs: [{group: "", kind: Service, name: web}], action: DENY, rules: [{}]}'));
  expect(codesOf(evaluate(texts))).toEqual(["warning missing_waypoint spec.targetRefs[0].name"]);
  expect(codesOf(evaluate(texts, { servedHosts: ["web.shop.svc.cluster.local"] }))).toEqual([]);
});

test("what a waypoint is for is what its Gateway says, whatever its Service does", () => {
  const texts = documents(base, service("wp", "[{port: 15008}]", ", labels: {istio.io/waypoint-for: workload}"), route("one", "a", "a"));
  const { mesh, diagnostics } = evaluate(texts);
  expect(mesh.services.get(web)!.waypoints).toHaveLength(1);
  expect(diagnostics.map(({ code }) => code)).not.toContain("missing_waypoint");
});

describe("only what changed is translated again", () => {
  test("a route, when it or a service that it names changed", () => {
    const placed = (texts: Readonly<Record<string, string>>, set: ResourceSet) => set.update(readingsOf(texts));
    const texts = { "base.yaml": base, "one.yaml": route("one", "a", "a"), "two.yaml": route("two", "b", "b") };
    const directory = new Directory();
    const first = directory.update(texts);
    const touched = directory.update({ ...texts, "one.yaml": route("one", "a", "b") });
    expect(touched.l7Delta.routes.map(({ name }) => name)).toEqual(["one"]);
    expect(touched.l7.routes.get("HTTPRoute/shop/two")).toBe(first.l7.routes.get("HTTPRoute/shop/two")!);
    const port = placed({ ...texts, "base.yaml": base.replace("{name: b, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}", "{name: b, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 81}]}") }, directory.set);
    expect(port.l7Delta.routes.map(({ name, rules }) => [name, JSON.stringify(rules).includes("invalid")])).toEqual([["one", false], ["two", true]]);
  });
  test("2 000 routes: one of them", () => {
    const texts = [...base.split("---\n"), ...Array.from({ length: 2000 }, (_, i) => route(`r${i}`, "a", "a"))];
    const resources = texts.map(place);
    const translator = new L7Translator(testOptions);
    translator.translate(resources);
    expect(translator.translationCount).toBe(2001);
    const again = translator.translate(resources.with(-7, place(route("r1993", "b", "a"))));
    expect(translator.translationCount).toBe(2002);
    expect(again.snapshot.routes.get("HTTPRoute/shop/r1993")?.parents[0]?.service).toBe(namespacedName("shop", "b.shop.svc.cluster.local"));
    // The same service written anew is another answer to all that asked for it.
    translator.translate(resources.with(4, place(service("a", "[{name: x, port: 80}]"))));
    expect(translator.translationCount).toBeGreaterThan(4000);
  }, 60_000);
  test("20 namespaces of 50 routes: those that a change can touch are looked at", () => {
    const at = (text: string, name: string): string => text.replaceAll("namespace: shop", `namespace: ${name}`);
    const spaces = Array.from({ length: 20 }, (_, i) => `team-${i}`);
    const texts = new Map([["namespace", namespace("other")], ...spaces.flatMap((name) => [[`${name}/a`, at(service("a"), name)] as const, ...Array.from({ length: 50 }, (_, i) => [`${name}/r${i}`, at(route(`r${i}`, "a", "a"), name)] as const)])]);
    const placed = new Map([...texts].map(([key, text]) => [key, place(text)]));
    const translator = new L7Translator(testOptions);
    const lookedAt = (): number => {
      const before = translator.lookCount;
      translator.translate([...placed.values()]);
      return translator.lookCount - before;
    };
    expect(lookedAt()).toBe(1000);
    expect(lookedAt()).toBe(0);
    placed.set("team-3/r7", place(at(route("r7", "a", "b"), "team-3")));
    expect(lookedAt()).toBe(1);
    placed.set("team-3/a", place(at(service("a", "[{port: 81}]"), "team-3")));
    expect(lookedAt()).toBe(50);
    placed.set("rule", place("apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d, namespace: team-4}\nspec: {host: a.team-4.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n"));
    expect(lookedAt()).toBe(1);
  });
  test("a line more at the top of a file is no change of a route; nothing changed is nothing told", () => {
    const directory = new Directory();
    directory.update({ "base.yaml": base, "one.yaml": route("one", "a", "a") });
    expect(isEmptyL7Delta(directory.update({ "base.yaml": base, "one.yaml": `# a comment\n---\n${route("one", "a", "a")}` }).l7Delta)).toBe(true);
  });
});

describe("deltas", () => {
  const rule = (name: string, spec: string): string => `apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ${name}, namespace: shop}\nspec: ${spec}\n`;
  const policy = `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: a}], action: DENY, rules: [{}]}\n`;
  const states: readonly Readonly<Record<string, string>>[] = [
    { "base.yaml": base },
    { "base.yaml": base, "r.yaml": route("one", "a", "a"), "d.yaml": rule("d", "{host: a, subsets: [{name: v1}]}"), "p.yaml": policy },
    { "base.yaml": base, "r.yaml": route("one", "b", "a"), "d.yaml": rule("d", "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"), "p.yaml": policy.replace("DENY", "ALLOW") },
    { "base.yaml": base, "d.yaml": documents(rule("d", "{host: b, trafficPolicy: {loadBalancer: {simple: RANDOM}}}"), rule("e", "{host: b, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}")) },
    { "base.yaml": documents(namespace("shop", "{istio.io/use-waypoint: wp}"), waypoint, entry("web-1"), service("b")), "r.yaml": route("one", "b", "a") },
  ];
  test("add up to the state, whatever the way to it, and the store agrees", () => {
    for (const way of [[0, 1, 2, 3, 4], [4, 3, 2, 1], [1, 4, 1], [2, 0], [3, 1, 3, 2]]) {
      const directory = new Directory();
      const seen = { routes: new Map<string, unknown>(), traffic: new Map<string, unknown>(), policies: new Map<string, unknown>() };
      const store = new L7Store();
      let last: Evaluation | null = null;
      for (const index of way) {
        last = directory.update(states[index]!);
        accumulate(seen, last.l7Delta);
        store.apply(last.l7Delta);
      }
      const fresh = evaluate(states[way.at(-1)!]!);
      expect(describeL7(last!)).toEqual(describeL7(fresh));
      expect(sizes(seen)).toEqual(snapshotSizes(fresh.l7));
      expect(store.routes(web, 80, null).routes.map(({ id }) => id)).toEqual([...fresh.l7.routes.values()].filter(({ parents }) => parents.some((parent) => parent.service === web)).map(({ id }) => id));
    }
  });
  const accumulate = (seen: { routes: Map<string, unknown>; traffic: Map<string, unknown>; policies: Map<string, unknown> }, delta: L7Delta): void => {
    for (const one of delta.routes) seen.routes.set(one.id, one);
    for (const one of delta.trafficPolicies) seen.traffic.set(one.service, one.policies);
    for (const one of delta.requestPolicies) seen.policies.set(`${one.namespace}/${one.name}`, one);
    for (const name of delta.removedRoutes) expect(seen.routes.delete(name)).toBe(true);
    for (const name of delta.removedTrafficPolicies) expect(seen.traffic.delete(name)).toBe(true);
    for (const name of delta.removedRequestPolicies) expect(seen.policies.delete(name)).toBe(true);
  };
  const sizes = (seen: { routes: Map<string, unknown>; traffic: Map<string, unknown>; policies: Map<string, unknown> }): unknown => [[...seen.routes.keys()].sort(), [...seen.traffic.keys()].sort(), [...seen.policies.keys()].sort()];
  const snapshotSizes = (l7: L7Snapshot): unknown => [[...l7.routes.keys()].sort(), [...l7.trafficPolicies.keys()].sort(), [...l7.requestPolicies.keys()].sort()];
});

describe("conflicts", () => {
  test("of two policies the older wins, the younger is told with both names", () => {
    const rule = (name: string, simple: string, created: string): string => `apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ${name}, namespace: shop, creationTimestamp: "${created}"}\nspec: {host: a, trafficPolicy: {loadBalancer: {simple: ${simple}}}}\n`;
    const evaluation = evaluate(documents(base, rule("young", "RANDOM", "2031-01-01T00:00:00Z"), rule("old", "ROUND_ROBIN", "2030-01-01T00:00:00Z")));
    expect(evaluation.l7.trafficPolicies.get(web)?.[0]?.balancing).toEqual({ kind: "roundRobin" });
    expect(evaluation.diagnostics.map(({ resource, code, message }) => [resource, code, message])).toEqual([
      ["DestinationRule shop/young", "conflict", expect.stringMatching(/^not in force \(balancing\): DestinationRule shop\/old \(a\.yaml:\d+\) says otherwise/)],
    ]);
  });
  test("of two kinds of routes the lower one's status says so", () => {
    const evaluation = evaluate(documents(base, route("tcp", "a", "a", { kind: "TCPRoute" }), route("http", "a", "a")));
    expect(evaluation.statuses.filter(({ parents }) => parents.length > 0).map(({ kind, parents }) => [kind, parents[0]?.conditions[0]])).toEqual([
      ["TCPRoute", expect.objectContaining({ type: "Accepted", status: false, reason: "Conflicted" })], ["HTTPRoute", expect.objectContaining({ type: "Accepted", status: true })],
    ]);
  });
  test("of two VirtualServices for one host the younger is told that its rules come later", () => {
    const vs = (name: string, created: string): string => `apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ${name}, namespace: shop, creationTimestamp: "${created}"}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}}]}]}\n`;
    const evaluation = evaluate(documents(base, vs("young", "2031-01-01T00:00:00Z"), vs("old", "2030-01-01T00:00:00Z")));
    expect(evaluation.diagnostics.map(({ resource, message }) => [resource, message.replace(/ \(.*?\)/, "")])).toEqual([["VirtualService shop/young", "VirtualService shop/old holds for shop/a.shop.svc.cluster.local too and is older: its rules are tried first"]]);
    const store = new L7Store();
    store.apply(evaluation.l7Delta);
    expect(store.routes(web, 80, null).routes.map(({ name }) => name)).toEqual(["old", "young"]);
  });
  test("a VirtualService sets the host like a header, and writes a percent sign as two", () => {
    const vs = (headers: string): string => `apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\nspec: {hosts: [a], http: [{route: [{destination: {host: a}, headers: ${headers}}], headers: ${headers}, rewrite: {authority: "else.example:8443"}}]}\n`;
    for (const name of ["Host", '":authority"']) {
      const evaluation = evaluate(documents(base, vs(`{request: {set: {${name}: "b.example:8080", x-share: "100%%"}}}`)));
      expect(evaluation.diagnostics).toEqual([]);
      const { rules } = [...evaluation.l7.routes.values()][0]!;
      if (rules.protocol !== "http") throw new Error("no HTTP");
      const [{ filters, backends }] = rules.rules as [(typeof rules.rules)[number]];
      const change = { kind: "requestHeaders", change: { set: [[name.replaceAll('"', "").toLowerCase(), "b.example:8080"], ["x-share", "100%"]], add: [], remove: [] } };
      expect(filters).toMatchObject([change, { kind: "rewrite", hostname: "else.example:8443" }]);
      expect(backends[0]!.filters).toMatchObject([change]);
    }
    // A command of Envoy's formatter is no text that anybody wants.
    expect(codesOf(evaluate(documents(base, vs('{response: {add: {x-from: "%DOWNSTREAM_REMOTE_ADDRESS%"}}}'))))).toEqual([
      "warning not_supported spec.http[0].route[0].headers.response.add.x-from", "warning not_supported spec.http[0].headers.response.add.x-from",
    ]);
    expect(codesOf(evaluate(documents(base, vs('{response: {add: {x-from: "%%A%%, 50% B%"}}}'))))).toEqual([]);
  });
  test("a match of a VirtualService keeps its place, whatever is left out before it", () => {
    const vs = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: places, namespace: shop}
spec:
  hosts: [two]
  http:
  - match: [{gateways: [edge]}, {port: 81, uri: {prefix: /a}}, {port: 80, uri: {prefix: /b}}, {uri: {prefix: /c}}]
    route: [{destination: {host: a}}]
  - match: [{gateways: [edge]}, {uri: {prefix: /d}}]
    delegate: {name: leaf}
  - match: [{uri: {prefix: /e}}]
    route: [{destination: {host: a}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: leaf, namespace: shop}
spec: {http: [{match: [{port: 80, uri: {prefix: /d/1}}, {uri: {prefix: /d/2}}], route: [{destination: {host: a}}]}, {route: [{destination: {host: a}}]}]}
`;
    const evaluation = evaluate(documents(base, service("two", "[{name: http, port: 80}, {name: web, port: 81}]"), vs));
    const routes = [...evaluation.l7.routes.values()];
    const decidedBy = (port: number, path: string): string => {
      const result = new Router(routes.filter(({ parents }) => parents.some((parent) => parent.port === port))).match(request({ url: path }));
      return result.kind === "matched" ? result.provenance.fieldPath : result.kind;
    };
    expect([80, 81].map((port) => ["/a", "/b", "/c", "/d/1", "/d/2", "/d/3", "/e"].map((path) => decidedBy(port, path)))).toEqual([
      ["unmatched", "spec.http[0].match[2]", "spec.http[0].match[3]", "spec.http[1].delegate.http[0].match[0]", "spec.http[1].delegate.http[0].match[1]", "spec.http[1].match[1]", "spec.http[2].match[0]"],
      ["spec.http[0].match[1]", "unmatched", "spec.http[0].match[3]", "spec.http[1].match[1]", "spec.http[1].delegate.http[0].match[1]", "spec.http[1].match[1]", "spec.http[2].match[0]"],
    ]);
  });
  test("a rule for every service covers them, one by one", () => {
    const rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: all, namespace: istio-system}\nspec: {host: '*.cluster.local', trafficPolicy: {loadBalancer: {simple: RANDOM}}}\n";
    const services = Array.from({ length: 1500 }, (_, i) => service(`s${i}`));
    expect(evaluate(documents(base, ...services, rule)).l7.trafficPolicies.size).toBe(1503);
  }, 60_000);
  test("a service without a waypoint is told: nothing reads its requests", () => {
    expect(codesOf(evaluate(documents(base.replace("{istio.io/use-waypoint: wp}", "{}"), route("one", "a", "a"))))).toEqual(["warning missing_waypoint spec.parentRefs[0]"]);
  });
  test("a consumer's routes and the producer's do not meet", () => {
    expect(codesOf(evaluate(documents(base, route("tcp", "a", "a", { kind: "TCPRoute", namespace: "team" }), route("http", "a", "a"))))).toEqual([]);
  });
});

describe("revoked certificates of a server (DestinationRule)", () => {
  const rule = (tls: string): string => `apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: a, namespace: shop}\nspec: {host: a, trafficPolicy: {tls: {mode: SIMPLE, ${tls}}}}\n`;
  const secret = (text: string): string => `apiVersion: v1\nkind: Secret\nmetadata: {name: roots, namespace: shop}\nstringData: {${text}}\n`;
  const tlsOf = (evaluation: Evaluation) => evaluation.l7.trafficPolicies.get(web)![0]!.tls;
  test("are taken from the Secret", () => {
    expect(tlsOf(evaluate(documents(base, rule("credentialName: roots"), secret("ca.crt: roots, ca.crl: list"))))).toMatchObject({ mode: "simple", caPem: "roots", crlPem: "list" });
  });
  test.each([
    ["a list without the authorities that signed it", "credentialName: roots", "ca.crl: list", "with ca.crl and no ca.crt"],
    ["a list in a file of the proxy", "credentialName: roots, caCrl: /etc/crl.pem", "ca.crt: roots", "found caCrl, a file of the proxy; give credentialName, a Secret of shop with ca.crl"],
  ])("%s breaks it", (_, tls, text, reason) => expect(tlsOf(evaluate(documents(base, rule(tls), secret(text))))).toMatchObject({ mode: "broken", reason: expect.stringContaining(reason) }));
});

describe("the client certificate of a waypoint's Gateway", () => {
  const gatewayWith = (spec: string): string => base.replace("spec: {gatewayClassName: weft-waypoint,", `spec: {${spec}, gatewayClassName: weft-waypoint,`);
  const secret = 'apiVersion: v1\nkind: Secret\nmetadata: {name: client, namespace: shop}\nstringData: {tls.crt: certificate, tls.key: key}\n';
  const shown = (evaluation: Evaluation) => [...evaluation.l7.waypoints.values()].map(({ clientCertificate }) => clientCertificate)[0];
  test("is taken from its Secret, in the newer and in the older form", () => {
    for (const spec of ["tls: {backend: {clientCertificateRef: {name: client}}}", "backendTLS: {clientCertificateRef: {group: '', kind: Secret, name: client, namespace: shop}}"]) {
      const evaluation = evaluate(documents(gatewayWith(spec), secret));
      expect(codesOf(evaluation)).toEqual([]);
      expect(shown(evaluation)).toEqual({ kind: "given", certificatePem: "certificate", keyPem: "key" });
    }
    expect(shown(evaluate(documents(base)))).toBeNull();
  });
  test.each([
    ["a Secret that is not there", "{name: other}", "found the Secret shop/other, which is not there"],
    ["another kind", "{kind: ConfigMap, name: client}", "found the kind ConfigMap"],
  ])("with %s breaks what needs it, and says so in the status", (_, ref, reason) => {
    const evaluation = evaluate(documents(gatewayWith(`tls: {backend: {clientCertificateRef: ${ref}}}`), secret));
    expect(errorsOf(evaluation).join()).toContain(`${reason}`);
    expect(shown(evaluation)).toMatchObject({ kind: "broken", reason: expect.stringContaining(reason) });
    expect(evaluation.statuses.find(({ kind }) => kind === "Gateway")!.conditions).toContainEqual(expect.objectContaining({ type: "ResolvedRefs", status: false, reason: "InvalidClientCertificateRef" }));
  });

  const elsewhere = gatewayWith("tls: {backend: {clientCertificateRef: {name: client, namespace: team}}}");
  const ofTeam = secret.replace("namespace: shop", "namespace: team");
  const grant = (from: string, to: string): string => `apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {name: grant, namespace: team}\nspec: {from: [${from}], to: [${to}]}\n`;
  const GATEWAYS = "{group: gateway.networking.k8s.io, kind: Gateway, namespace: shop}";
  test("of another namespace is taken where a ReferenceGrant there allows it", () => {
    for (const to of ["{group: '', kind: Secret}", "{group: '', kind: Secret, name: other}, {group: '', kind: Secret, name: client}"]) {
      const evaluation = evaluate(documents(elsewhere, ofTeam, grant(GATEWAYS, to)));
      expect(codesOf(evaluation)).toEqual([]);
      expect(shown(evaluation)).toEqual({ kind: "given", certificatePem: "certificate", keyPem: "key" });
      expect(evaluation.statuses.find(({ kind }) => kind === "Gateway")!.conditions).toContainEqual(expect.objectContaining({ type: "ResolvedRefs", status: true }));
    }
    // In another namespace than the Secret's it says nothing.
    expect(shown(evaluate(documents(elsewhere, ofTeam, grant(GATEWAYS, "{group: '', kind: Secret}").replace("namespace: team", "namespace: shop"))))).toMatchObject({ kind: "broken" });
  });
  test.each([
    ["no ReferenceGrant", ""],
    ["one for other namespaces", grant(GATEWAYS.replace("shop", "other"), "{group: '', kind: Secret}")],
    ["one for another kind of object", grant(GATEWAYS.replace("Gateway,", "HTTPRoute,"), "{group: '', kind: Secret}")],
    ["one for another Secret", grant(GATEWAYS, "{group: '', kind: Secret, name: other}")],
    ["one for another kind of thing", grant(GATEWAYS, "{group: '', kind: Service, name: client}")],
  ])("of another namespace with %s is not, nor is it looked for", (_, granted) => {
    const [withSecret, without] = [[ofTeam], []].map((secrets) => evaluate(documents(elsewhere, ...secrets, ...(granted === "" ? [] : [granted]))));
    for (const evaluation of [withSecret!, without!]) {
      expect(shown(evaluation)).toMatchObject({ kind: "broken", reason: expect.stringContaining("no ReferenceGrant there that lets Gateways of shop name it") });
      expect(evaluation.statuses.find(({ kind }) => kind === "Gateway")!.conditions).toContainEqual(expect.objectContaining({ type: "ResolvedRefs", status: false, reason: "RefNotPermitted" }));
    }
    expect(errorsOf(withSecret!)).toEqual(errorsOf(without!));
  });
});

describe("hosts under a wildcard (DYNAMIC_DNS)", () => {
  const entryOf = (spec: string, metadata = "labels: {istio.io/use-waypoint: wp}"): string => `apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: out, namespace: shop, ${metadata}}\nspec: {resolution: DYNAMIC_DNS, ${spec}}\n`;
  const sound = 'hosts: ["*.example.com"], ports: [{number: 80, name: http, protocol: HTTP}]';
  const wildcard = namespacedName("shop", "*.example.com");

  test("are told to the waypoint, with a virtual address of each family and what the annotation says", () => {
    for (const [metadata, allowPrivate] of [["labels: {istio.io/use-waypoint: wp}", false], ['labels: {istio.io/use-waypoint: wp}, annotations: {weft.dev/egress-private-addresses: "true"}', true]] as const) {
      const evaluation = evaluate(documents(base, entryOf(sound, metadata)));
      expect(codesOf(evaluation)).toEqual([]);
      expect(evaluation.l7.trafficPolicies.get(wildcard)?.map(({ dynamicHosts, provenance }) => [dynamicHosts, provenance["dynamicHosts"]?.fieldPath])).toEqual([[{ allowPrivate }, "spec.resolution"]]);
      expect(evaluation.mesh.services.get(wildcard)?.addresses.length).toBe(2);
    }
  });
  test("are no authoriser and no service that counts: which of them would be asked?", () => {
    const wildcardRef = "{group: networking.istio.io, kind: Hostname, name: '*.example.com', port: 80}";
    const route = `apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: asked, namespace: shop}\nspec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: ${wildcardRef}}}], backendRefs: [{name: a, port: 80}]}]}\n`;
    const limit = "apiVersion: weft.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: counted, namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: a}], rateLimits: {global: [{name: all, service: {host: '*.example.com', port: 80}, domain: d, descriptors: [[{key: a, value: b}]]}]}}\n";
    const evaluation = evaluate(documents(base, entryOf(sound), route, limit));
    expect(errorsOf(evaluation).join("\n")).toContain("*.example.com stands for many hosts, and an authorizer is one; requests that this rule matches get 500");
    expect(errorsOf(evaluation).join("\n")).toContain("*.example.com:80, which stands for many hosts, and the service that counts is one; requests are not limited until it is there");
    expect([...evaluation.l7.routes.values()].flatMap(({ rules: of }) => (of.protocol === "http" ? of.rules.map(({ broken }) => broken) : []))).toEqual([expect.stringContaining("stands for many hosts")]);
    expect(evaluation.statuses.find(({ kind }) => kind === "HTTPRoute")!.parents[0]!.conditions).toContainEqual(expect.objectContaining({ type: "ResolvedRefs", status: false }));
  });
  test.each([
    ["a host that is named", 'hosts: [api.example.com], ports: [{number: 80, name: http, protocol: HTTP}]', "expected a wildcard such as *.example.com"],
    ["a port whose clients name no host", 'hosts: ["*.example.com"], ports: [{number: 80, name: tcp, protocol: TCP}]', "found TCP with resolution DYNAMIC_DNS, expected one whose clients say a name"],
    ["a port that declares nothing", 'hosts: ["*.example.com"], ports: [{number: 80, name: any}]', "found none with resolution DYNAMIC_DNS"],
    ["endpoints", `${sound}, endpoints: [{address: 198.18.0.1}]`, "which goes where the name of the request leads"],
  ])("refuses %s", (_, spec, message) => expect(errorsOf(evaluate(documents(base, entryOf(spec)))).join()).toContain(message));
  test("one that no waypoint serves is told: nobody else resolves its names", () => {
    expect(codesOf(evaluate(documents(base.replace("{istio.io/use-waypoint: wp}", "{}"), entryOf(sound, "labels: {}"))))).toEqual(["warning missing_waypoint spec.hosts[0]"]);
  });
});

describe("fail closed", () => {
  const login = `apiVersion: weft.dev/v1alpha1\nkind: LoginPolicy\nmetadata: {name: l, namespace: shop}\nspec: {targetRefs: [{kind: Service, name: a}], issuer: "https://a.example", clientId: x, clientSecretRef: {name: s}, cookie: {keysRef: {name: s}}}\n`;
  test("a login policy that could never be read closes the services of its namespace", () => {
    const evaluation = evaluate(documents(base, login.replace("issuer", "isuer")));
    expect([...evaluation.l7.loginPolicies.values()].map(({ broken, targets }) => [broken, targets.length])).toEqual([["the LoginPolicy shop/l cannot be read", 3]]);
    expect(errorsOf(evaluation)[0]).toContain("until it can be read requests to the services of its namespace get 500");
  });
  test("a BackendTLSPolicy that could never be read: nothing goes out without the TLS that it asked for", () => {
    const policy = `apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {name: t, namespace: shop}\nspec: {targetRefs: [{group: "", kind: Service, name: a}], validation: {hostnam: a.example}}\n`;
    const off = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: off, namespace: shop}\nspec: {host: a, trafficPolicy: {tls: {mode: DISABLE}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}}\n";
    const evaluation = evaluate(documents(base, policy, off));
    expect(evaluation.l7.trafficPolicies.get(web)?.map(({ tls }) => tls)).toEqual(Array.from({ length: 2 }, () => ({ mode: "broken", reason: "the BackendTLSPolicy shop/t cannot be read" })));
    expect(errorsOf(evaluation)[0]).toContain("until it can be read requests to the services of its namespace get 500");
  });
  test("added while running, it changes nothing", () => {
    const directory = new Directory();
    directory.update({ "base.yaml": base });
    expect(directory.update({ "base.yaml": base, "l.yaml": login.replace("issuer", "isuer") }).l7.loginPolicies.size).toBe(0);
  });
  test("a Secret that comes mends it, one that goes breaks it", () => {
    const secret = `apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData: {clientSecret: x, keys: ${"ab".repeat(32)}}\n`;
    const directory = new Directory();
    const broken = (texts: Readonly<Record<string, string>>): (string | null)[] => [...directory.update(texts).l7.loginPolicies.values()].map((one) => one.broken);
    expect(broken({ "base.yaml": base, "l.yaml": login })[0]).toContain("the Secret shop/s is not there");
    expect(broken({ "base.yaml": base, "l.yaml": login, "s.yaml": secret })).toEqual([null]);
    expect(broken({ "base.yaml": base, "l.yaml": login, "s.yaml": secret.replace("ab".repeat(32), '" , "') })[0]).toContain("not at least 32 bytes");
    expect(broken({ "base.yaml": base, "l.yaml": login })[0]).toContain("the Secret shop/s is not there");
  });
  test("last good: a route that no longer parses stays as it was", () => {
    const directory = new Directory();
    directory.update({ "base.yaml": base, "r.yaml": route("one", "a", "a") });
    const evaluation = directory.update({ "base.yaml": base, "r.yaml": route("one", "a", "a").replace("rules", "rulez") });
    expect([...evaluation.l7.routes.keys()]).toEqual(["HTTPRoute/shop/one"]);
    expect(isEmptyL7Delta(evaluation.l7Delta)).toBe(true);
    expect(errorsOf(evaluation)[0]).toContain("its last good version stays in force");
  });
});
