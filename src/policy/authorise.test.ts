import { describe, expect, test } from "bun:test";
import { cidr, delta, exact, identity, ip, match, policy, prefix, PRESENCE, RandomMesh, suffix, workload } from "../../test/kit/mesh-records.ts";
import { MeshModel } from "../../test/kit/mesh-model.ts";
import type { NamespacedName } from "../core/brand.ts";
import { formatProvenance } from "../core/fault.ts";
import { seededRandom } from "../core/ports.ts";
import type { TrustDomain } from "../core/spiffe.ts";
import type { AuthorizationPolicy, PolicyMatch, Workload } from "../mesh/records.ts";
import { MeshStore } from "../mesh/store.ts";
import { authorise, explainAuthorisation } from "./authorise.ts";
import type { AuthorisationSubject, TrustDomainAliases } from "./connection-facts.ts";
import { processorMs } from "../../test/kit/fair-time.ts";

const WEB = identity("shop", "web");
const facts = (fields: Partial<AuthorisationSubject> = {}): AuthorisationSubject => ({
  peer: WEB, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080, ...fields,
});

function judge(policies: readonly AuthorizationPolicy[], subject = facts(), fields: Partial<Workload> = {}, trustDomains: TrustDomainAliases | null = null) {
  const store = new MeshStore();
  const w = workload({ name: "target", ...fields });
  store.apply(delta({ workloads: [w], policies }));
  return authorise(store, store.workload(w.uid)!, subject, trustDomains);
}
const outcome = (policies: readonly AuthorizationPolicy[], subject = facts(), fields: Partial<Workload> = {}): string => judge(policies, subject, fields).reason;
/** Does one match let the subject in? */
const matches = (fields: Partial<PolicyMatch>, subject = facts()): boolean => judge([policy({ name: "p", rules: [[[match(fields)]]] })], subject).allowed;

const ANY = [[]];

describe("the order of policies", () => {
  const allow = policy({ name: "allow", rules: ANY });
  const deny = policy({ name: "deny", action: "deny", rules: ANY });
  const allowNobody = policy({ name: "nobody" });
  const denyNobody = policy({ name: "deny-nobody", action: "deny" });
  const lost: Partial<Workload> = { authorizationPolicies: ["shop/lost" as NamespacedName] };
  test.each([
    ["nothing allows", [], {}, "no allow policy"],
    ["a deny that does not match leaves the default", [denyNobody], {}, "no allow policy"],
    ["an allow that matches allows", [allow], {}, "allowed by"],
    ["an allow without rules matches nothing", [allowNobody], {}, "no allow matched"],
    ["one matching allow is enough", [allowNobody, allow], {}, "allowed by"],
    ["deny beats allow", [allow, deny], {}, "denied by"],
    ["a policy not delivered denies", [], lost, "policy not delivered"],
    ["even beside one that allows", [allow], lost, "policy not delivered"],
    ["a deny is named before one that is missing", [deny], lost, "denied by"],
  ] as const)("%s", (_, policies, fields, reason) => expect<string>(outcome(policies, facts(), fields)).toBe(reason));

  test("only what allows, allows", () => {
    expect([judge([]), judge([allow]), judge([deny]), judge([allowNobody]), judge([], facts(), lost)].map((d) => d.allowed)).toEqual([true, true, false, false, false]);
  });

  test("the rule that decided is named", () => {
    const two = policy({ name: "two", rules: [[[match({ destinationPorts: [1] })]], [[match({ destinationPorts: [8080] })]]] });
    const decision = judge([two]);
    expect(formatProvenance(decision.policy!)).toBe("AuthorizationPolicy shop/two spec.rules[1]");
    expect(explainAuthorisation(decision)).toBe("allowed by AuthorizationPolicy shop/two spec.rules[1]");
    expect(judge([], facts(), lost).missing).toEqual(["shop/lost" as NamespacedName]);
    expect(explainAuthorisation(judge([], facts(), lost))).toContain("shop/lost");
  });

  test("where none matches, those that could have are named: three, then their number; not those in dry run, nor denials", () => {
    const nobody = (name: string, dryRun = false) => policy({ name, dryRun });
    const explained = (...policies: readonly AuthorizationPolicy[]) => explainAuthorisation(judge(policies));
    expect(explained(nobody("web-from-front"))).toBe("denied: none of these ALLOW policies matches: shop/web-from-front");
    expect(explained(nobody("b"), denyNobody, nobody("rehearsed", true), nobody("a"))).toBe("denied: none of these ALLOW policies matches: shop/a, shop/b");
    expect(explained(...["a", "b", "c", "d", "e"].map((name) => nobody(name)))).toBe("denied: none of these ALLOW policies matches: shop/a, shop/b, shop/c and 2 more");
    expect(judge([nobody("a")]).unmatched.map(formatProvenance)).toEqual(["AuthorizationPolicy shop/a"]);
    expect(judge([nobody("a"), allow]).unmatched).toEqual([]);
  });
});

describe("which policies apply", () => {
  const deny = (fields: Partial<AuthorizationPolicy>) => policy({ name: "d", action: "deny", ...fields, rules: ANY });
  test("mesh-wide, the namespace's own, and those the workload names", () => {
    expect(outcome([deny({ scope: "global", namespace: "istio-system" })])).toBe("denied by");
    expect(outcome([deny({ scope: "namespace" })])).toBe("denied by");
    expect(outcome([deny({ scope: "namespace", namespace: "bank" })])).toBe("no allow policy");
    expect(outcome([deny({ scope: "workload" })])).toBe("no allow policy");
    expect(outcome([deny({ scope: "workload" })], facts(), { authorizationPolicies: ["shop/d" as NamespacedName] })).toBe("denied by");
    expect(outcome([deny({ scope: "workload", namespace: "istio-system" })], facts(), { authorizationPolicies: ["istio-system/d" as NamespacedName] })).toBe("denied by");
  });
});

describe("fields", () => {
  const nobody = facts({ peer: null });
  test.each([
    ["namespaces", { namespaces: [exact("shop")] }, true], ["namespaces, another", { namespaces: [exact("bank")] }, false], ["namespaces by prefix", { namespaces: [prefix("sh")] }, true],
    ["namespaces by suffix", { namespaces: [suffix("op")] }, true], ["any namespace", { namespaces: [PRESENCE] }, true], ["one of several", { namespaces: [exact("bank"), exact("shop")] }, true],
    ["notNamespaces", { notNamespaces: [exact("shop")] }, false], ["notNamespaces, another", { notNamespaces: [exact("bank")] }, true], ["none of several", { notNamespaces: [exact("bank"), exact("shop")] }, false],
    ["service accounts", { serviceAccounts: [{ namespace: "shop", serviceAccount: "web" }] }, true], ["service account of another namespace", { serviceAccounts: [{ namespace: "bank", serviceAccount: "web" }] }, false],
    ["notServiceAccounts", { notServiceAccounts: [{ namespace: "shop", serviceAccount: "web" }] }, false],
    ["principals", { principals: [exact("cluster.local/ns/shop/sa/web")] }, true], ["principals keep no scheme", { principals: [exact("spiffe://cluster.local/ns/shop/sa/web")] }, false],
    ["principals by prefix", { principals: [prefix("cluster.local/ns/shop/")] }, true], ["principals by suffix", { principals: [suffix("/sa/web")] }, true], ["any principal", { principals: [PRESENCE] }, true],
    ["notPrincipals", { notPrincipals: [exact("cluster.local/ns/shop/sa/web")] }, false], ["notPrincipals, any", { notPrincipals: [PRESENCE] }, false],
    ["sourceIps", { sourceIps: [cidr("198.18.0.0/24")] }, true], ["sourceIps, elsewhere", { sourceIps: [cidr("198.19.0.0/24")] }, false], ["sourceIps, IPv6", { sourceIps: [cidr("::/0")] }, false],
    ["notSourceIps", { notSourceIps: [cidr("198.18.0.9")] }, false], ["many sourceIps", { sourceIps: [1, 2, 3, 4, 5, 6, 9].map((n) => cidr(`198.18.0.${n}`)) }, true],
    ["many sourceIps, elsewhere", { sourceIps: [1, 2, 3, 4, 5, 6].map((n) => cidr(`198.18.0.${n}`)) }, false],
    ["destinationIps", { destinationIps: [cidr("198.18.0.1")] }, true], ["notDestinationIps", { notDestinationIps: [cidr("198.18.0.1")] }, false],
    ["destinationPorts", { destinationPorts: [8080] }, true], ["destinationPorts, others", { destinationPorts: [80, 443] }, false], ["notDestinationPorts", { notDestinationPorts: [8080] }, false],
    ["all fields joined by AND", { namespaces: [exact("shop")], destinationPorts: [80] }, false], ["all of them true", { namespaces: [exact("shop")], destinationPorts: [8080], notSourceIps: [cidr("::/0")] }, true],
  ] as const)("%s", (_, fields, expected) => expect(matches(fields)).toBe(expected));

  test.each([
    ["namespaces", { namespaces: [PRESENCE] }, false], ["serviceAccounts", { serviceAccounts: [{ namespace: "shop", serviceAccount: "web" }] }, false], ["principals", { principals: [PRESENCE] }, false],
    ["notNamespaces", { notNamespaces: [PRESENCE] }, true], ["notServiceAccounts", { notServiceAccounts: [{ namespace: "shop", serviceAccount: "web" }] }, true], ["notPrincipals", { notPrincipals: [PRESENCE] }, true],
    ["destinationPorts", { destinationPorts: [8080] }, true],
  ] as const)("%s of a peer without identity", (_, fields, expected) => expect(matches(fields, nobody)).toBe(expected));

  test("strict mutual TLS, as Istio writes it: plain text is denied, on all ports but the excepted", () => {
    const strict = policy({ name: "strict", action: "deny", rules: [[[match({ notPrincipals: [PRESENCE] })], [match({ notDestinationPorts: [9000] })]]] });
    expect([outcome([strict], nobody), outcome([strict]), outcome([strict], facts({ peer: null, destinationPort: 9000 }))]).toEqual(["denied by", "no allow policy", "no allow policy"]);
  });
});

describe("rules, clauses, matches", () => {
  const yes = match({ destinationPorts: [8080] });
  const no = match({ destinationPorts: [1] });
  const empty = match({});
  test.each([
    ["no rules", [], false], ["a rule without clauses", [[]], true], ["an empty clause", [[[]]], true], ["rules are joined by OR", [[[no]], [[yes]]], true], ["clauses by AND", [[[yes], [no]]], false],
    ["matches by OR", [[[no, yes]]], true], ["an empty clause beside a false one", [[[], [no]]], false],
  ] as const)("%s", (_, rules, expected) => {
    expect(judge([policy({ name: "p", rules })]).allowed).toBe(expected);
    expect(judge([policy({ name: "p", action: "deny", rules })]).allowed).toBe(!expected);
  });

  test("a match without fields opens nothing: false to an allow policy, true to a deny policy", () => {
    expect(judge([policy({ name: "p", rules: [[[empty]]] })]).reason).toBe("no allow matched");
    expect(judge([policy({ name: "p", rules: [[[empty, yes]]] })]).reason).toBe("allowed by");
    expect(judge([policy({ name: "p", action: "deny", rules: [[[empty]]] })]).reason).toBe("denied by");
  });
});

describe("trust domain aliases", () => {
  const own: TrustDomainAliases = { own: "new.example" as TrustDomain, aliases: ["old.example" as TrustDomain] };
  const written = (domain: string) => policy({ name: "p", rules: [[[match({ principals: [exact(`${domain}/ns/shop/sa/web`)] })]]] });
  const as = (domain: string) => facts({ peer: identity("shop", "web", domain) });
  test.each([
    ["old.example", "new.example", true], ["new.example", "old.example", true], ["old.example", "old.example", true], ["new.example", "else.example", false], ["else.example", "new.example", false],
  ] as const)("a policy for %s, a peer of %s", (rule, peer, allowed) => expect(judge([written(rule)], as(peer), {}, own).allowed).toBe(allowed));
  test("without aliases nothing is folded", () => expect(judge([written("old.example")], as("new.example")).allowed).toBe(false));
  test("a denied alias is denied", () => {
    const deny = policy({ name: "d", rules: [[[match({ notPrincipals: [exact("old.example/ns/shop/sa/web")] })]]] });
    expect(judge([deny], as("new.example"), {}, own).allowed).toBe(false);
  });
});

describe("dry run", () => {
  const port = (p: number) => [[[match({ destinationPorts: [p] })]]];
  const verdicts = (policies: readonly AuthorizationPolicy[], fields: Partial<Workload> = {}) => {
    const decision = judge(policies, facts(), fields);
    return [decision.reason, decision.dryRun.map((v) => [v.policy.name, v.wouldAllow])] as const;
  };
  const dry = (name: string, action: "allow" | "deny", p: number) => policy({ name, action, dryRun: true, rules: port(p) });
  test.each([
    ["a deny that matches", [dry("d", "deny", 8080)], "no allow policy", [["d", false]]],
    ["a deny that does not", [dry("d", "deny", 1)], "no allow policy", []],
    ["an allow that matches", [dry("a", "allow", 8080)], "no allow policy", [["a", true]]],
    ["an allow that would shut everyone else out", [dry("a", "allow", 1)], "no allow policy", [["a", false]]],
    ["an allow that would let in who is refused", [policy({ name: "none" }), dry("a", "allow", 8080)], "no allow matched", [["a", true]]],
    ["an allow beside one that already allows", [policy({ name: "ok", rules: ANY }), dry("a", "allow", 1)], "allowed by", []],
    ["an allow does not undo a denial", [policy({ name: "no", action: "deny", rules: ANY }), dry("a", "allow", 8080)], "denied by", [["a", false]]],
  ] as const)("%s", (_, policies, reason, expected) => expect(verdicts(policies)).toEqual([reason, expected] as never));
});

describe("the compiled form", () => {
  test("decides as the definition does, over random policies", () => {
    const mesh = new RandomMesh(seededRandom(4));
    for (let i = 0; i < 400; i++) {
      const model = new MeshModel();
      const store = new MeshStore();
      const names = mesh.some(4, mesh.policyName);
      const w = workload({ name: "target", namespace: mesh.namespace(), authorizationPolicies: names });
      const change = delta({ workloads: [w], policies: mesh.some(10, () => mesh.policy()) });
      model.apply(change);
      store.apply(change);
      for (let k = 0; k < 20; k++) {
        const subject = { peer: mesh.chance(0.2) ? null : mesh.identity(), sourceIp: mesh.anyAddress(), destinationIp: mesh.anyAddress(), destinationPort: mesh.port() };
        const { allowed, reason } = authorise(store, store.workload(w.uid)!, subject);
        const expected = model.authorise(w, subject, []);
        expect<unknown>({ allowed, reason }).toEqual({ allowed: expected.allowed, reason: expected.reason });
      }
    }
  });

  test.each([
    ["principals", (i: number) => ({ principals: [exact(`cluster.local/ns/n${i}/sa/a`)] })], ["namespaces", (i: number) => ({ namespaces: [exact(`n${i}`)] })],
    ["service accounts", (i: number) => ({ serviceAccounts: [{ namespace: `n${i}`, serviceAccount: "a" }] })], ["ports", (i: number) => ({ destinationPorts: [20_000 + i] })],
  ] as const)("with 5 000 policies told apart by %s, costs little more than with 50", (_, fields) => {
    const time = (count: number): number => {
      const store = new MeshStore();
      const w = workload({ name: "target" });
      store.apply(delta({ workloads: [w], policies: Array.from({ length: count }, (__, i) => policy({ name: `p${i}`, rules: [[[match(fields(i))]]] })) }));
      const target = store.workload(w.uid)!;
      const subject = facts({ peer: identity(`n${count - 1}`, "a"), destinationPort: 20_000 + count - 1 });
      let best = Infinity;
      for (let round = 0; round < 10; round++) {
        best = Math.min(best, processorMs(() => {
          for (let i = 0; i < 500; i++) if (!authorise(store, target, subject).allowed) throw new Error("not allowed");
        }));
      }
      return best;
    };
    time(50);
    expect(time(5000) / time(50)).toBeLessThan(10);
  });

  test("a live connection judged again sees the change", () => {
    const store = new MeshStore();
    const w = workload({ name: "target" });
    store.apply(delta({ workloads: [w] }));
    const again = (): boolean => authorise(store, store.workload(w.uid)!, facts()).allowed;
    const steps = [again()];
    store.apply(delta({ policies: [policy({ name: "d", action: "deny", rules: [[[match({ destinationPorts: [8080] })]]] })] }));
    steps.push(again());
    store.apply(delta({ policies: [policy({ name: "d", action: "deny", rules: [[[match({ destinationPorts: [1] })]]] })] }));
    steps.push(again());
    store.apply(delta({ workloads: [{ ...w, authorizationPolicies: ["shop/new" as NamespacedName] }] }));
    steps.push(again());
    store.apply(delta({ policies: [policy({ name: "new", scope: "workload", rules: ANY })] }));
    steps.push(again());
    expect(steps).toEqual([true, false, true, false, true]);
  });
});
