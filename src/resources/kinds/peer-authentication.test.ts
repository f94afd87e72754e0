import { describe, expect, test } from "bun:test";
import { codesOf, describePolicy, documents, entry, errorsOf, evaluate, namespace, peer } from "../test-kit.ts";

const shop = documents(namespace("shop"), entry("web-1"), entry("db-1", { labels: "{app: db}", address: "198.18.0.2" }));
const WEB = "selector: {matchLabels: {app: web}}";
const PREFIX = "converted_peer_authentication_";

/** For web-1 and db-1: the policies attached, and what they say. */
function effect(...peers: readonly string[]): { web: string[]; db: string[] } {
  const { mesh } = evaluate(documents(shop, ...peers));
  const of = (name: string): string[] => [...mesh.workloads.values()].find((w) => w.name === name)!.authorizationPolicies.flatMap((key) => {
    const [first, rule] = describePolicy(mesh.policies.get(key)!);
    return `${first!.split(" ")[1]!.replace(PREFIX, "")} ${rule!.slice(rule!.indexOf("{"))}`;
  });
  return { web: of("web-1"), db: of("db-1") };
}

const STRICT = "{notPrincipals=*}";

describe("PeerAuthentication", () => {
  test("STRICT in a namespace denies every connection without a principal, and says which resource did", () => {
    expect(effect(peer("default", "{mtls: {mode: STRICT}}"))).toEqual({ web: [`shop/default ${STRICT}`], db: [`shop/default ${STRICT}`] });
    const { mesh } = evaluate(documents(shop, peer("default", "{mtls: {mode: STRICT}}")));
    expect(mesh.policies.get(`shop/${PREFIX}default` as never)?.provenance).toMatchObject({ kind: "PeerAuthentication", namespace: "shop", name: "default", fieldPath: "spec.mtls" });
  });
  for (const mode of ["PERMISSIVE", "DISABLE", "UNSET"]) test(`${mode} attaches nothing`, () => expect(effect(peer("p", `{mtls: {mode: ${mode}}}`))).toEqual({ web: [], db: [] }));

  describe("precedence: mesh, then namespace, then workload; UNSET inherits", () => {
    const mesh = (mode: string): string => peer("mesh", `{mtls: {mode: ${mode}}}`, "istio-system");
    const ns = (mode: string): string => peer("ns", `{mtls: {mode: ${mode}}}`);
    const web = (mode: string): string => peer("web", `{${WEB}, mtls: {mode: ${mode}}}`);
    const cases: readonly [peers: string[], webFrom: string | null, dbFrom: string | null][] = [
      [[mesh("STRICT")], "istio-system/mesh", "istio-system/mesh"],
      [[mesh("STRICT"), ns("PERMISSIVE")], null, null],
      [[mesh("STRICT"), ns("UNSET")], "istio-system/mesh", "istio-system/mesh"],
      [[mesh("PERMISSIVE"), ns("STRICT")], "shop/ns", "shop/ns"],
      [[mesh("STRICT"), ns("PERMISSIVE"), web("STRICT")], "shop/web", null],
      [[mesh("STRICT"), web("DISABLE")], null, "istio-system/mesh"],
      [[ns("STRICT"), web("UNSET")], "shop/ns", "shop/ns"],
      [[mesh("STRICT"), ns("UNSET"), web("UNSET")], "istio-system/mesh", "istio-system/mesh"],
    ];
    for (const [index, [peers, webFrom, dbFrom]] of cases.entries()) {
      test(`case ${index}`, () => {
        const expected = (from: string | null): string[] => (from === null ? [] : [`${from} ${STRICT}`]);
        expect(effect(...peers)).toEqual({ web: expected(webFrom), db: expected(dbFrom) });
      });
    }
  });

  describe("ports", () => {
    const ports = (mode: string, levels: string): string => peer("web", `{${WEB}, mtls: {mode: ${mode}}, portLevelMtls: ${levels}}`);
    test("STRICT with exceptions: denies without a principal except there", () => {
      expect(effect(ports("STRICT", "{9090: {mode: PERMISSIVE}, 9091: {mode: DISABLE}, 9092: {mode: STRICT}, 9093: {mode: UNSET}}")).web).toEqual(["shop/web {notPrincipals=* notDestinationPorts=9090,9091}"]);
    });
    test("PERMISSIVE with strict ports: denies without a principal there", () => {
      expect(effect(ports("PERMISSIVE", "{9090: {mode: STRICT}, 9091: {mode: PERMISSIVE}}")).web).toEqual(["shop/web {notPrincipals=* destinationPorts=9090}"]);
    });
    test("UNSET takes what holds otherwise, and excepts from that", () => {
      expect(effect(peer("ns", "{mtls: {mode: STRICT}}"), ports("UNSET", "{80: {mode: DISABLE}}"))).toEqual({ web: ["shop/web {notPrincipals=* notDestinationPorts=80}"], db: [`shop/ns ${STRICT}`] });
      expect(effect(ports("UNSET", "{80: {mode: STRICT}}")).web).toEqual(["shop/web {notPrincipals=* destinationPorts=80}"]);
    });
    test("ports that say the same as the whole change nothing", () => {
      expect(effect(peer("ns", "{mtls: {mode: STRICT}}"), ports("UNSET", "{80: {mode: STRICT}}")).web).toEqual([`shop/ns ${STRICT}`]);
      expect(effect(ports("PERMISSIVE", "{80: {mode: DISABLE}}")).web).toEqual([]);
    });
    test("without a selector they are refused", () => expect(errorsOf(evaluate(documents(shop, peer("p", "{portLevelMtls: {80: {mode: STRICT}}}")))).join()).toContain("spec.portLevelMtls: found ports without a selector"));
    test("a port that is none is refused", () => expect(errorsOf(evaluate(documents(shop, peer("p", `{${WEB}, portLevelMtls: {http: {mode: STRICT}}}`)))).join()).toContain('found the key "http"'));
  });

  test("of two for the same workloads the older is in force, which is said at the other", () => {
    const peers = [peer("a", "{mtls: {mode: PERMISSIVE}}", "shop", "2030-01-02T00:00:00Z"), peer("b", "{mtls: {mode: STRICT}}", "shop", "2030-01-01T00:00:00Z")];
    expect(effect(...peers).web).toEqual([`shop/b ${STRICT}`]);
    expect(codesOf(evaluate(documents(shop, ...peers)))).toEqual(["warning conflict metadata.name"]);
  });
  test("DISABLE is said to be PERMISSIVE", () => expect(codesOf(evaluate(documents(shop, peer("p", "{mtls: {mode: DISABLE}}"))))).toEqual(["warning not_supported spec.mtls.mode"]));
  test("one that selects nothing is a warning", () => expect(codesOf(evaluate(documents(shop, peer("p", "{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}}"))))).toEqual(["warning selects_nothing spec.selector"]));
});
