import { describe, expect, test } from "bun:test";
import { codesOf, describePolicy, documents, entry, errorsOf, evaluate, namespace, policy } from "../test-kit.ts";

const shop = documents(namespace("shop"), entry("web-1"));

/** The policy as lines, without its head. */
function rules(spec: string): string[] {
  const { mesh } = evaluate(documents(shop, policy("p", spec)));
  return describePolicy([...mesh.policies.values()][0]!).map((line) => line.trim());
}
const head = (spec: string, over = {}): string => rulesOf(spec, over)[0]!;
function rulesOf(spec: string, over: { namespace?: string; annotations?: string }): string[] {
  return describePolicy([...evaluate(documents(shop, policy("p", spec, over))).mesh.policies.values()][0]!);
}
const codes = (spec: string): string[] => codesOf(evaluate(documents(shop, policy("p", spec)), {}));
const errors = (spec: string): string[] => errorsOf(evaluate(documents(shop, policy("p", spec))));

describe("AuthorizationPolicy: translation", () => {
  test("no rules: an ALLOW policy that allows nothing", () => expect(rules("{}")).toEqual(["policy shop/p namespace allow @AuthorizationPolicy a.yaml:10"]));
  test("no spec: the same", () => expect(rules("null")).toHaveLength(1));
  test("one empty rule matches everything", () => expect(rules("{rules: [{}]}")[1]).toBe("spec.rules[0]: always"));
  test("a null rule, as `- ` leaves it, is an empty one", () => expect(rules("{rules: [null]}")[1]).toBe("spec.rules[0]: always"));
  test("DENY without rules denies nothing", () => expect(rules("{action: DENY}")).toHaveLength(1));

  test("fields of a source are joined by AND, sources by OR, from, to and when by AND", () => {
    expect(rules(`{rules: [{from: [{source: {principals: [td/ns/a/sa/b, "td/*", "*/sa/c", "*"], notPrincipals: [x]}}, {source: {namespaces: [a, "b*"], notNamespaces: ["*c"]}}],
      to: [{operation: {ports: ["80", "443"], notPorts: ["81"]}}, {operation: {ports: ["9"]}}],
      when: [{key: source.ip, values: [198.18.0.1], notValues: ["198.18.0.0/16"]}, {key: destination.ip, values: ["2001:db8::/32"]}, {key: destination.port, notValues: ["22"]}]}]}`)[1])
      .toBe("spec.rules[0]: {principals=td/ns/a/sa/b,td/*,*/sa/c,* notPrincipals=x} or {namespaces=a,b* notNamespaces=*c} AND {destinationPorts=80,443 notDestinationPorts=81} or {destinationPorts=9}"
        + " AND {sourceIps=198.18.0.1/32 notSourceIps=198.18.0.0/16} AND {destinationIps=2001:db8::/32} AND {notDestinationPorts=22}");
  });
  test("conditions on namespace and principal", () => {
    expect(rules('{rules: [{when: [{key: source.namespace, values: ["*"]}, {key: source.principal, notValues: ["*"]}]}]}')[1]).toBe("spec.rules[0]: {namespaces=*} AND {notPrincipals=*}");
  });
  test("a service account without namespace is one of the policy's own", () => {
    expect(rules("{rules: [{from: [{source: {serviceAccounts: [web, other/web], notServiceAccounts: [x]}}]}]}")[1]).toBe("spec.rules[0]: {serviceAccounts=shop/web,other/web notServiceAccounts=shop/x}");
  });
  test("a CIDR with host bits set means its network", () => expect(rules("{rules: [{from: [{source: {ipBlocks: [198.18.5.6/24]}}]}]}")[1]).toBe("spec.rules[0]: {sourceIps=198.18.5.0/24}"));
  test("rules keep their number when an earlier one is left out", () => {
    expect(rules('{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ["1"]}}]}]}').slice(1)).toEqual(["spec.rules[1]: {destinationPorts=1}"]);
  });

  test("scope: a selector binds to workloads, the root namespace to the mesh", () => {
    expect(head("{selector: {matchLabels: {app: web}}}")).toContain("shop/p workload allow");
    expect(head("{selector: {matchLabels: {}}}")).toContain("shop/p namespace allow");
    expect(head("{}", { namespace: "istio-system" })).toContain("istio-system/p global allow");
    expect(head("{selector: {matchLabels: {app: web}}}", { namespace: "istio-system" })).toContain("istio-system/p workload allow");
  });
  test("a selector attaches the policy to the workloads it selects, from the root namespace to those of every namespace", () => {
    const { mesh } = evaluate(documents(shop, namespace("b"), entry("b-1", { namespace: "b", address: "198.18.0.2" }), entry("db", { labels: "{app: db}", address: "198.18.0.3" }),
      policy("own", "{selector: {matchLabels: {app: web}}}"), policy("root", "{selector: {matchLabels: {app: web}}}", { namespace: "istio-system" }), policy("all", "{}")));
    expect([...mesh.workloads.values()].map((w) => [w.name, w.authorizationPolicies.join(" ")])).toEqual([
      ["web-1", "istio-system/root shop/own"], ["db", ""], ["b-1", "istio-system/root"],
    ]);
  });
  test("dry-run is carried", () => expect(head("{}", { annotations: '{istio.io/dry-run: "true"}' })).toContain("allow dryRun"));
});

describe("AuthorizationPolicy: what L4 cannot decide fails closed", () => {
  test("an ALLOW rule with an HTTP field is left out; the policy stays and so denies", () => {
    expect(rules("{rules: [{from: [{source: {principals: [a]}}], to: [{operation: {methods: [GET]}}]}]}")).toEqual(["policy shop/p namespace allow @AuthorizationPolicy a.yaml:10"]);
    expect(codes("{rules: [{from: [{source: {principals: [a]}}], to: [{operation: {methods: [GET]}}]}]}")).toEqual(["warning enforced_stricter spec.rules[0].to[0].operation.methods"]);
  });
  test("a DENY rule with an HTTP field denies all that its L4 fields match", () => {
    expect(rules("{action: DENY, rules: [{from: [{source: {namespaces: [a]}}], to: [{operation: {methods: [GET], ports: ['80']}}]}]}")[1]).toBe("spec.rules[0]: {namespaces=a} AND {destinationPorts=80}");
  });
  test("a DENY rule of HTTP fields alone denies everything", () => expect(rules("{action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}")[1]).toBe("spec.rules[0]: always"));
  test("a DENY alternative of HTTP fields alone makes its whole clause true", () => {
    expect(rules("{action: DENY, rules: [{from: [{source: {principals: [a]}}, {source: {requestPrincipals: [b]}}], to: [{operation: {ports: ['1']}}]}]}")[1]).toBe("spec.rules[0]: {destinationPorts=1}");
  });
  test("negated HTTP fields do not open a DENY rule", () => expect(rules("{action: DENY, rules: [{to: [{operation: {notMethods: [GET]}}]}]}")[1]).toBe("spec.rules[0]: always"));
  for (const key of ["request.headers[x-a]", "request.auth.claims[a][b]", "request.auth.principal", "remote.ip", "connection.sni"]) {
    test(`a condition on ${key} drops an ALLOW rule and widens a DENY rule`, () => {
      expect(rules(`{rules: [{when: [{key: "${key}", values: [a]}]}]}`)).toHaveLength(1);
      expect(rules(`{action: DENY, rules: [{when: [{key: "${key}", values: [a]}]}]}`)[1]).toBe("spec.rules[0]: always");
    });
  }
  for (const field of ["requestPrincipals: [a]", "notRequestPrincipals: [a]", "remoteIpBlocks: [198.18.0.1]", "notRemoteIpBlocks: [198.18.0.1]"]) {
    test(`source ${field} drops an ALLOW rule`, () => expect(rules(`{rules: [{from: [{source: {${field}}}]}]}`)).toHaveLength(1));
  }
  test("CUSTOM denies what it matches, as an error", () => {
    expect(rules("{action: CUSTOM, provider: {name: x}, rules: [{to: [{operation: {ports: ['80'], paths: [/a]}}]}]}")).toEqual([
      "policy shop/p namespace deny @AuthorizationPolicy a.yaml:10", "spec.rules[0]: {destinationPorts=80}",
    ]);
    expect(codes("{action: CUSTOM, provider: {name: x}, rules: [{}]}")).toEqual(["error fail_closed spec.action"]);
  });
  test("AUDIT decides nothing and is said not to", () => expect(codes("{action: AUDIT, rules: [{}]}")).toEqual(["warning not_supported spec.action"]));
  test("targetRefs are for a waypoint: no policy of L4, and a target without one is told", () => {
    const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";
    const evaluation = evaluate(documents(shop, service, policy("p", "{targetRefs: [{kind: Service, group: '', name: web}], action: DENY, rules: [{}]}")));
    expect(evaluation.mesh.policies.size).toBe(0);
    expect(codesOf(evaluation)).toEqual(["warning missing_waypoint spec.targetRefs[0].name"]);
  });
});

describe("AuthorizationPolicy: refused, and said where and why", () => {
  const cases: readonly [what: string, spec: string, expected: string][] = [
    ["an unknown field", "{rule: []}", "a.yaml:13:8 error unknown_field AuthorizationPolicy shop/p spec.rule: unknown field; did you mean rules?"],
    ["an unknown action", "{action: PERMIT}", 'a.yaml:13:16 error bad_value AuthorizationPolicy shop/p spec.action: found "PERMIT", expected "ALLOW" or "DENY" or "AUDIT" or "CUSTOM"'],
    ["an empty list, which would match everything", "{rules: [{from: [{source: {principals: []}}]}]}", "spec.rules[0].from[0].source.principals: found an empty list, which would match everything"],
    ["an empty source", "{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source: found no field"],
    ["a bad CIDR", "{rules: [{from: [{source: {ipBlocks: [198.18.0.0/33]}}]}]}", 'spec.rules[0].from[0].source.ipBlocks[0]: found "198.18.0.0/33", expected an IP address or a CIDR'],
    ["a port as a number", "{rules: [{to: [{operation: {ports: [80]}}]}]}", "spec.rules[0].to[0].operation.ports[0]: found 80, expected text"],
    ["a port out of range", "{rules: [{to: [{operation: {ports: ['65536']}}]}]}", 'found "65536", expected a port number in quotes'],
    ["port 0", "{rules: [{to: [{operation: {ports: ['0']}}]}]}", 'found "0", expected a port number in quotes'],
    ["a star in the middle", "{rules: [{from: [{source: {principals: ['a*b']}}]}]}", 'found "a*b", expected an exact value, prefix*, *suffix or *'],
    ["stars at both ends", "{rules: [{from: [{source: {principals: ['*b*']}}]}]}", 'found "*b*", expected an exact value, prefix*, *suffix or *'],
    ["a principal with its scheme", "{rules: [{from: [{source: {principals: ['spiffe://td/ns/a/sa/b']}}]}]}", "expected a principal without spiffe://"],
    ["a wildcard service account", "{rules: [{from: [{source: {serviceAccounts: ['a/*']}}]}]}", "expected SERVICE_ACCOUNT or NAMESPACE/SERVICE_ACCOUNT"],
    ["service accounts beside principals", "{rules: [{from: [{source: {serviceAccounts: [a], principals: [b]}}]}]}", "found principals beside serviceAccounts"],
    ["an unknown condition", "{rules: [{when: [{key: source.ipp, values: [a]}]}]}", 'spec.rules[0].when[0].key: found "source.ipp", expected one of source.ip'],
    ["a condition with a value of another type", "{rules: [{when: [{key: destination.port, values: ['1', x]}]}]}", 'spec.rules[0].when[0].values[1]: found "x", expected a port number'],
    ["a condition without values", "{rules: [{when: [{key: source.ip}]}]}", "expected values or notValues"],
    ["a selector beside targetRefs", "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}", "found a selector beside targetRefs"],
    ["CUSTOM without provider", "{action: CUSTOM, rules: [{}]}", "spec.provider: found no provider"],
  ];
  for (const [what, spec, expected] of cases) test(what, () => expect(errors(spec).join("\n")).toContain(expected));

  test("a bad dry-run value", () => {
    expect(errorsOf(evaluate(documents(shop, policy("p", "{}", { annotations: '{istio.io/dry-run: "yes"}' })))).join()).toContain('metadata.annotations["istio.io/dry-run"]: found "yes", expected "true" or "false"');
  });
  test("a policy that selects nothing is a warning", () => expect(codes("{selector: {matchLabels: {app: nobody}}}")).toEqual(["warning selects_nothing spec.selector"]));
});
