import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DIAGNOSTICS_MAX, FILE_BYTES_MAX } from "./limits.ts";
import { deepEqual, isEmptyDelta } from "./mesh-delta.ts";
import { type Evaluation, ResourceSet } from "./resource-set.ts";
import { codesOf, describeDiagnostic, describeMesh, documents, entry, errorsOf, evaluate, namespace, peer, policy, readingsOf, testOptions } from "./test-kit.ts";

const NS = namespace("shop");
const WEB = entry("web-1");
const DENY = policy("deny", "{action: DENY, rules: [{}]}");
const GOOD = { "ns.yaml": NS, "web.yaml": WEB, "deny.yaml": DENY };

class Directory {
  readonly set = new ResourceSet(testOptions);
  update(texts: Readonly<Record<string, string>>): Evaluation {
    return this.set.update(readingsOf(texts));
  }
}
const started = (texts: Readonly<Record<string, string>> = GOOD): Directory => {
  const directory = new Directory();
  expect(errorsOf(directory.update(texts))).toEqual([]);
  return directory;
};
const names = (evaluation: Evaluation): string[] => [...evaluation.mesh.workloads.values()].map((w) => w.name).concat([...evaluation.mesh.policies.values()].map((p) => p.name));

describe("last good state", () => {
  test("a broken document keeps the version before; everything else applies", () => {
    const evaluation = started().update({ ...GOOD, "deny.yaml": DENY.replace("action", "axtion"), "web.yaml": WEB.replace("198.18.0.1", "198.18.0.9") });
    expect(errorsOf(evaluation)).toEqual(["deny.yaml:4:8 error unknown_field AuthorizationPolicy shop/deny spec.axtion: unknown field; did you mean action?; its last good version stays in force"]);
    expect(names(evaluation)).toEqual(["web-1", "deny"]);
    expect(evaluation.delta.workloads.map((w) => w.addresses)).toEqual([["198.18.0.9"] as never]);
    expect(evaluation.delta.policies).toEqual([]);
  });
  test("text that is no YAML keeps all that its file had", () => {
    const evaluation = started({ ...GOOD, "two.yaml": documents(policy("a", "{}"), policy("b", "{}")) }).update({ ...GOOD, "two.yaml": "{[" });
    expect(names(evaluation).sort()).toEqual(["a", "b", "deny", "web-1"]);
    expect(codesOf(evaluation)).toContain("warning restored ");
  });
  for (const [what, text] of [["half written", DENY.slice(0, 30)], ["empty", ""], ["blank", "\n\n"], ["not YAML", "\u0000"], ["renamed while broken", DENY.replace("name: deny", "name: other").replace("DENY", "DNY")],
    ["of a kind that is misspelt", DENY.replace("AuthorizationPolicy", "AuthorizatonPolicy")], ["moved to a namespace that is not there", DENY.replace("namespace: shop", "namespace: shpo")], ["without its kind", DENY.replace(/kind.*\n/, "")]] as const) {
    test(`a file that is ${what} keeps what it had`, () => {
      const evaluation = started().update({ ...GOOD, "deny.yaml": text });
      expect(names(evaluation)).toEqual(["web-1", "deny"]);
      expect(errorsOf(evaluation)).not.toEqual([]);
      expect(isEmptyDelta(evaluation.delta)).toBe(true);
    });
  }
  test("a file that cannot be read keeps what it had", () => {
    const directory = started();
    const evaluation = directory.set.update([...readingsOf({ "ns.yaml": NS, "web.yaml": WEB }), { kind: "unreadable", path: "deny.yaml", code: "file_unreadable", reason: "cannot be read: EACCES" }]);
    expect(names(evaluation)).toEqual(["web-1", "deny"]);
    expect(errorsOf(evaluation)).toEqual(["deny.yaml:1:1 error file_unreadable : cannot be read: EACCES; what was read from it before stays in force"]);
  });
  test("a file that is deleted takes its resources with it", () => {
    const evaluation = started().update({ "ns.yaml": NS, "web.yaml": WEB });
    expect(evaluation.delta.removedPolicies).toEqual(["shop/deny" as never]);
    expect(evaluation.diagnostics).toEqual([]);
  });
  test("a document that is deleted from a good file goes, comments alone are a good file", () => {
    expect(names(started().update({ ...GOOD, "deny.yaml": "# nothing any more\n" }))).toEqual(["web-1"]);
  });
  test("a resource moves from one file to another", () => {
    const directory = started();
    expect(codesOf(directory.update({ ...GOOD, "new.yaml": DENY }))).toEqual(["error duplicate_resource metadata.name", "error duplicate_resource metadata.name"]);
    const evaluation = directory.update({ "ns.yaml": NS, "web.yaml": WEB, "new.yaml": DENY });
    expect(evaluation.diagnostics).toEqual([]);
    expect(evaluation.mesh.policies.get("shop/deny" as never)?.provenance.source).toBe("new.yaml:1");
  });
  test("when it is good again the new version is in force", () => {
    const directory = started();
    directory.update({ ...GOOD, "deny.yaml": "{[" });
    const evaluation = directory.update({ ...GOOD, "deny.yaml": DENY.replace("[{}]", "[{to: [{operation: {ports: ['1']}}]}]") });
    expect(evaluation.delta.policies).toHaveLength(1);
    expect(evaluation.diagnostics).toEqual([]);
  });
});

describe("duplicates", () => {
  test("the version before stays in force; both places are named at both", () => {
    const evaluation = started().update({ ...GOOD, "z.yaml": documents("# x\n", DENY.replace("DENY", "ALLOW")) });
    expect(errorsOf(evaluation)).toEqual([
      "deny.yaml:1:1 error duplicate_resource AuthorizationPolicy shop/deny metadata.name: found again at z.yaml:3, expected each resource once; its last good version stays in force",
      "z.yaml:3:1 error duplicate_resource AuthorizationPolicy shop/deny metadata.name: found again at deny.yaml:1, expected each resource once; its last good version stays in force",
    ]);
    expect(evaluation.mesh.policies.get("shop/deny" as never)?.action).toBe("deny");
  });
  test("in one file, and one of them broken", () => {
    expect(codesOf(started().update({ ...GOOD, "deny.yaml": documents(DENY, DENY.replace("DENY", "DNY")) })).filter((code) => code.includes("duplicate_resource"))).toHaveLength(2);
  });
  test("two that were never in force apart: neither is", () => {
    const evaluation = evaluate({ ...GOOD, "web2.yaml": WEB });
    expect(names(evaluation)).toEqual(["deny"]);
  });
  test("the same name in another namespace or kind is another resource", () => expect(errorsOf(evaluate(documents(NS, namespace("b"), WEB, entry("web-1", { namespace: "b" }), policy("web-1", "{}"))))).toEqual([]));
});

describe("dangling references", () => {
  test("a namespace that nobody declares", () => {
    const evaluation = evaluate({ "a.yaml": WEB });
    expect(errorsOf(evaluation)).toEqual(['a.yaml:3:36 error unknown_namespace WorkloadEntry shop/web-1 metadata.namespace: found "shop", which no Namespace of the directory is called; nothing of it is in force']);
    expect(evaluation.mesh.workloads.size).toBe(0);
  });
  test("default and the root namespace need no declaration", () => expect(errorsOf(evaluate(documents(entry("a", { namespace: "default" }), policy("p", "{}", { namespace: "istio-system" }))))).toEqual([]));
  test("a broken Namespace is declared all the same: one error, not one for each resource in it", () => {
    expect(errorsOf(evaluate({ ...GOOD, "ns.yaml": NS.replace("ambient", "amb") }))).toHaveLength(1);
  });
  test("when its Namespace goes, a resource stays as it was, in error", () => {
    const evaluation = started().update({ "web.yaml": WEB, "deny.yaml": DENY });
    expect(names(evaluation)).toEqual(["web-1", "deny"]);
    expect(codesOf(evaluation)).toEqual(["error unknown_namespace metadata.namespace", "error unknown_namespace metadata.namespace"]);
  });
});

describe("a policy that could never be read", () => {
  const broken = { ...GOOD, "deny.yaml": DENY.replace("DENY", "DNY") };
  test("at the first start, with no last good state, it denies everything it may cover", () => {
    const evaluation = evaluate(broken);
    expect(describeMesh(evaluation).filter((line) => line.startsWith("policy") || line.startsWith(" "))).toEqual(["policy shop/deny namespace deny @AuthorizationPolicy deny.yaml:1", "  spec.rules[0]: always"]);
    expect(errorsOf(evaluation)[0]).toEndWith("until it can be read everything it may cover is denied");
  });
  test("a PeerAuthentication takes no plain text", () => {
    const evaluation = evaluate({ ...GOOD, "p.yaml": peer("p", "{mtls: {mode: STRIKT}}") });
    expect([...evaluation.mesh.workloads.values()][0]!.authorizationPolicies).toEqual(["shop/converted_peer_authentication_p" as never]);
  });
  test("added while running it is refused, and nothing changes", () => {
    const evaluation = started({ "ns.yaml": NS, "web.yaml": WEB }).update(broken);
    expect(isEmptyDelta(evaluation.delta)).toBe(true);
    expect(errorsOf(evaluation)[0]).toEndWith("nothing of it is in force");
  });
  test("it goes on denying over a restart, until it is mended or deleted", () => {
    const first = evaluate(broken);
    const restarted = new ResourceSet(testOptions);
    restarted.restore(structuredClone(first.lastGood));
    expect(names(restarted.update(readingsOf(broken)))).toEqual(["web-1", "deny"]);
    expect(restarted.update(readingsOf(GOOD)).diagnostics).toEqual([]);
    const deleted = new ResourceSet(testOptions);
    deleted.restore(structuredClone(first.lastGood));
    expect(names(deleted.update(readingsOf({ "ns.yaml": NS, "web.yaml": WEB })))).toEqual(["web-1"]);
  });
});

describe("restart", () => {
  const list = `apiVersion: v1\nkind: List\nitems:\n${[policy("a", "{}"), policy("b", "{}")].map((text) => text.trim().replace(/^/gm, "  ").replace(/^ {2}/, "- ")).join("\n")}\n`;
  test("broken files keep what the last run had, lists included", () => {
    const before = evaluate({ ...GOOD, "list.yaml": list });
    expect(errorsOf(before)).toEqual([]);
    const restarted = new ResourceSet(testOptions);
    restarted.restore(JSON.parse(JSON.stringify(before.lastGood)) as Evaluation["lastGood"]);
    const evaluation = restarted.update(readingsOf({ "ns.yaml": NS, "web.yaml": "{[", "deny.yaml": DENY.replace("DENY", "DNY"), "list.yaml": "" }));
    expect(describeMesh(evaluation)).toEqual(describeMesh(before));
  });
  test("good files give what they give without a last run", () => {
    const restarted = new ResourceSet(testOptions);
    restarted.restore(evaluate({ ...GOOD, "gone.yaml": policy("gone", "{}") }).lastGood);
    const evaluation = restarted.update(readingsOf(GOOD));
    expect(describeMesh(evaluation)).toEqual(describeMesh(evaluate(GOOD)));
    expect(evaluation.delta.policies).toHaveLength(1);
  });
  test("a last good text that no longer parses is left out", () => {
    const restarted = new ResourceSet(testOptions);
    restarted.restore(evaluate(GOOD).lastGood.map((file) => ({ ...file, documents: file.documents.map((d) => ({ ...d, text: d.text.replace("spec", "spek") })) })));
    expect(names(restarted.update(readingsOf({ "ns.yaml": NS, "web.yaml": "{[" })))).toEqual([]);
  });
  test("files that did not change have the same last good object, so that they are not written again", () => {
    const directory = started();
    const first = directory.update(GOOD).lastGood;
    const second = directory.update({ ...GOOD, "deny.yaml": DENY.replace("DENY", "ALLOW") }).lastGood;
    expect(second.map((file, i) => file === first[i])).toEqual([false, true, true]);
  });
});

describe("deltas", () => {
  test("equality looks into maps", () => {
    expect(deepEqual(new Map([["a", { b: 1 }]]), new Map([["a", { b: 1 }]]))).toBe(true);
    for (const other of [new Map([["a", { b: 2 }]]), new Map([["c", { b: 1 }]]), new Map(), {}, { a: { b: 1 } }]) expect(deepEqual(new Map([["a", { b: 1 }]]), other)).toBe(false);
  });
  test("nothing changed, nothing told", () => expect(isEmptyDelta(started().update(GOOD).delta)).toBe(true));
  test("a comment, or a line above, is no change of a workload; a policy's line is told", () => {
    const evaluation = started().update({ ...GOOD, "web.yaml": `# a comment\n\n---\n${WEB}`, "deny.yaml": `${DENY}# after` });
    expect(evaluation.delta).toMatchObject({ workloads: [], policies: [] });
    const below = started().update({ ...GOOD, "deny.yaml": `# x\n---\n${DENY}` });
    expect(below.delta.policies.map((p) => p.provenance.source)).toEqual(["deny.yaml:3"]);
  });
  test("one workload of many is told alone", () => {
    const many = documents(NS, ...Array.from({ length: 50 }, (_, i) => entry(`w${i}`, { address: `198.18.1.${i}` })));
    const evaluation = started({ "a.yaml": many }).update({ "a.yaml": many.replace('"198.18.1.7"', '"198.18.2.7"') });
    expect(evaluation.delta).toMatchObject({ services: [], policies: [], removedWorkloads: [] });
    expect(evaluation.delta.workloads.map((w) => w.name)).toEqual(["w7"]);
  });
  test("opting a namespace out tells its workloads", () => {
    const annotated = entry("web-1", { annotations: "{weft.dev/node: node-a, weft.dev/netns: host}" });
    const evaluation = started({ "ns.yaml": NS, "web.yaml": annotated }).update({ "ns.yaml": namespace("shop", "{}"), "web.yaml": annotated });
    expect(evaluation.delta.workloads.map((w) => w.tunnelProtocol)).toEqual(["TCP"]);
    expect(evaluation.localWorkloads.map((w) => w.captured)).toEqual([false]);
  });
});

describe("documents and files", () => {
  const only = (text: string): string[] => evaluate({ "a.yaml": text }).diagnostics.map(describeDiagnostic);
  test("a kind that is known and not supported is a warning", () => {
    expect(only("apiVersion: gateway.networking.k8s.io/v1\nkind: UDPRoute\nmetadata: {name: a}\n")).toEqual(["a.yaml:2:7 warning unsupported_kind  kind: UDPRoute is not supported by this role yet, nothing was applied from it"]);
  });
  test("an unknown kind is an error, with the nearest named", () => {
    expect(only("apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n")[0]).toContain('kind: found "Servce" of "v1", did you mean Service of v1?');
    expect(only("apiVersion: networking.istio.io/v1\nkind: AuthorizationPolicy\n")[0]).toContain("did you mean AuthorizationPolicy of security.istio.io/v1, security.istio.io/v1beta1?");
  });
  for (const [what, text, expected] of [
    ["a scalar", "hello\n", 'not_an_object : found "hello", expected a map'], ["a list", "- a\n", "not_an_object : found a list of 1"], ["no apiVersion", "kind: Service\n", "missing_field  apiVersion"],
    ["no name", "apiVersion: v1\nkind: Service\nmetadata: {}\nspec: {clusterIP: None}\n", "metadata.name: missing, expected text"], ["no metadata", "apiVersion: v1\nkind: Namespace\n", "metadata: missing, expected a map"],
    ["a namespace on a Namespace", NS.replace("name: shop", "name: shop, namespace: x"), "metadata.namespace: found \"x\"; a Namespace is in no namespace"],
    ["a list with a broken item", "apiVersion: v1\nkind: List\nitems: [1]\n", "items[0]: found 1, expected a map"], ["a list with an unknown field", "apiVersion: v1\nkind: List\nitems: []\nitem: 1\n", "item: unknown field; did you mean items?"],
  ] as const) test(`${what} is refused`, () => expect(only(text)[0]).toContain(expected));
  test("JSON, and lists of every name", () => {
    const list = { apiVersion: "v1", kind: "NamespaceList", metadata: {}, items: [{ apiVersion: "v1", kind: "Namespace", metadata: { name: "a" } }] };
    expect(evaluate({ "a.json": JSON.stringify(list, null, 2) })).toMatchObject({ resourceCount: 1, diagnostics: [] });
  });
  test("a file that is too large is refused", () => expect(only(`# ${"x".repeat(FILE_BYTES_MAX)}`)[0]).toContain("file_too_large"));
  test("diagnostics are bounded, and errors come before warnings", () => {
    const evaluation = evaluate({ "a.yaml": documents(NS, ...Array.from({ length: DIAGNOSTICS_MAX }, (_, i) => policy(`p${i}`, "{selector: {matchLabels: {a: b}}}")), ...Array.from({ length: 30 }, () => "kind: X\n")) });
    expect(evaluation.diagnostics).toHaveLength(DIAGNOSTICS_MAX + 1);
    expect(errorsOf(evaluation)).toHaveLength(30);
    expect(evaluation.diagnostics.at(-1)?.code).toBe("more_diagnostics");
  });
});

describe("what is in force", () => {
  test("with good files it depends on the last state alone, whatever came before, and the deltas add up to it", () => {
    const pieces: Readonly<Record<string, string>> = {
      "ns.yaml": NS, "web.yaml": WEB, "db.yaml": entry("db", { labels: "{app: db}", address: "198.18.0.2" }), "deny.yaml": DENY, "one.yaml": policy("one", "{selector: {matchLabels: {app: web}}}"),
      "mesh.yaml": peer("mesh", "{mtls: {mode: STRICT}}", "istio-system"), "root.yaml": policy("root", "{selector: {matchLabels: {app: db}}, action: DENY}", { namespace: "istio-system" }),
      "svc.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n",
      "wp.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: all}}\nspec: {selector: {app: wp}, ports: [{port: 80}]}\n",
    };
    const variants: Readonly<Record<string, string>> = {
      "ns.yaml": namespace("shop", "{istio.io/use-waypoint: wp}"), "web.yaml": entry("web-1", { labels: "{app: db}" }), "deny.yaml": DENY.replace("DENY", "ALLOW"), "mesh.yaml": peer("mesh", "{mtls: {mode: PERMISSIVE}}", "istio-system"),
      "svc.yaml": pieces["svc.yaml"]!.replace("app: web", "app: db"), "web2.yaml": "", "wp.yaml": pieces["wp.yaml"]!.replace("all", "service"), "one.yaml": "# none\n", "db.yaml": "{[",
    };
    const state = fc.uniqueArray(fc.tuple(fc.constantFrom(...Object.keys(pieces)), fc.integer({ min: 0, max: 2 })), { selector: ([path]) => path, maxLength: 9 });
    fc.assert(fc.property(fc.array(state, { minLength: 1, maxLength: 5 }), state, (path, last) => {
      const texts = (of: readonly (readonly [string, number])[], good: boolean): Record<string, string> =>
        Object.fromEntries([["ns.yaml", NS], ...of.map(([name, which]) => [name, which === 0 || (good && (variants[name] ?? "{[") === "{[") ? pieces[name]! : (variants[name] ?? pieces[name]!)])]) as Record<string, string>;
      const directory = new Directory();
      const seen = { workloads: new Map<string, unknown>(), services: new Map<string, unknown>(), policies: new Map<string, unknown>() };
      let evaluation: Evaluation | null = null;
      for (const step of [...path.map((one) => texts(one, false)), texts(last, true)]) {
        evaluation = directory.update(step);
        const { delta } = evaluation;
        for (const uid of delta.removedWorkloads) expect(seen.workloads.delete(uid)).toBe(true);
        for (const key of delta.removedServices) expect(seen.services.delete(key)).toBe(true);
        for (const key of delta.removedPolicies) expect(seen.policies.delete(key)).toBe(true);
        for (const w of delta.workloads) seen.workloads.set(w.uid, w);
        for (const s of delta.services) seen.services.set(`${s.namespace}/${s.hostname}`, s);
        for (const p of delta.policies) seen.policies.set(`${p.namespace}/${p.name}`, p);
      }
      const fresh = evaluate(texts(last, true));
      expect(describeMesh(evaluation!).sort()).toEqual(describeMesh(fresh).sort());
      expect(describeMesh({ mesh: seen as never, localWorkloads: [] }).sort()).toEqual(describeMesh({ mesh: fresh.mesh, localWorkloads: [] }).sort());
    }), { numRuns: 120 });
  });
});
