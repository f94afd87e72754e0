import { describe, expect, test } from "bun:test";
import { AUTHORIZER, condition, jwtRule, request, type RequestFields, requestMatch, requestPolicy } from "../../../test/kit/http-records.ts";
import { cidr, exact, identity, ip, prefix, PRESENCE, suffix } from "../../../test/kit/mesh-records.ts";
import { formatProvenance } from "../../core/fault.ts";
import type { TrustDomain } from "../../core/spiffe.ts";
import type { ConditionKey, ExternalAuthorizer, RequestPolicy, RequestPolicyAction, RequestPolicyMatch } from "../../mesh/l7/access.ts";
import type { StringMatch } from "../../mesh/records.ts";
import { connectionFacts } from "../connection-facts.ts";
import { type AccessDecision, type AuthorizerAnswer, authoriseRequest, explainAccess } from "./authorise-request.ts";
import type { JsonObject } from "./claims.ts";
import type { RequestFacts } from "./request-rules.ts";
import { processorMs } from "../../../test/kit/fair-time.ts";

const CALLER = identity("shop", "front");

interface Asked extends RequestFields {
  readonly peer?: RequestFacts["request"]["source"]["identity"];
  readonly claims?: JsonObject;
  readonly remoteIp?: string;
  readonly sni?: string;
  readonly trustDomains?: Parameters<typeof connectionFacts>[1];
}

function facts(asked: Asked = {}): RequestFacts {
  const { claims, trustDomains = null } = asked;
  return {
    ...connectionFacts({ peer: asked.peer === undefined ? CALLER : asked.peer, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080 }, trustDomains),
    request: request(asked), remoteIp: ip(asked.remoteIp ?? "198.51.100.7"), sni: asked.sni ?? null,
    token: claims === undefined ? null : { principal: `${String(claims["iss"])}/${String(claims["sub"])}`, payload: claims, rule: jwtRule() },
  };
}
const judge = (policies: readonly RequestPolicy[], asked: Asked = {}): AccessDecision => authoriseRequest({ policies, authentications: [], logins: [] }, facts(asked));
const reason = (policies: readonly RequestPolicy[], asked: Asked = {}): string => {
  const decision = judge(policies, asked);
  return decision.kind === "ask" ? `ask ${decision.provider}` : decision.reason;
};
/** Does an allow policy of this match let the request in; does a deny policy of it keep it out? */
const letsIn = (match: Partial<RequestPolicyMatch>, asked: Asked = {}): boolean => reason([requestPolicy({ name: "a", rules: [match] })], asked) === "allowed by";
const keepsOut = (match: Partial<RequestPolicyMatch>, asked: Asked = {}): boolean => reason([requestPolicy({ name: "d", action: "deny", rules: [match] })], asked) === "denied by";

const ANY = { notPrincipals: [exact("nobody")] };
const NONE = { methods: [exact("NONE")] };
const custom = (provider = "ext", authorizer: ExternalAuthorizer | null = AUTHORIZER): RequestPolicyAction => ({ kind: "custom", provider, authorizer });

describe("the order of policies", () => {
  const allow = requestPolicy({ name: "allow", rules: [ANY] });
  const deny = requestPolicy({ name: "deny", action: "deny", rules: [ANY] });
  const ask = requestPolicy({ name: "ask", action: custom(), rules: [ANY] });
  test.each([
    ["nothing", [], "no allow policy"], ["a deny that does not match", [requestPolicy({ name: "d", action: "deny", rules: [NONE] })], "no allow policy"], ["an allow that does", [allow], "allowed by"],
    ["an allow that does not", [requestPolicy({ name: "a", rules: [NONE] })], "no allow matched"], ["an allow without rules matches nothing", [requestPolicy({ name: "a" })], "no allow matched"],
    ["deny before allow", [allow, deny], "denied by"], ["custom before deny", [deny, ask], "ask ext"], ["a custom that does not match asks nobody", [requestPolicy({ name: "c", action: custom(), rules: [NONE] }), allow], "allowed by"],
    ["a provider that is not configured denies", [requestPolicy({ name: "c", action: custom("ext", null), rules: [ANY] }), allow], "authorizer not configured"], ["audit decides nothing", [requestPolicy({ name: "u", action: "audit", rules: [ANY] })], "no allow policy"],
  ] as const)("%s", (_, policies, expected) => expect(reason(policies)).toBe(expected));

  test("denials carry their code and status", () => {
    const of = (policies: readonly RequestPolicy[]) => {
      const d = judge(policies);
      return d.kind === "deny" ? [d.code, d.status] : d.kind;
    };
    expect([of([deny]), of([requestPolicy({ name: "a" })]), of([requestPolicy({ name: "c", action: custom("ext", null), rules: [ANY] })])])
      .toEqual([["access_denied", 403], ["access_not_allowed", 403], ["access_policy_unenforceable", 403]]);
  });
  test("the rule that decided is named", () => {
    const d = judge([requestPolicy({ name: "two", rules: [NONE, ANY] })]);
    const none = judge([requestPolicy({ name: "a", rules: [NONE] }), requestPolicy({ name: "rehearsed", dryRun: true }), requestPolicy({ name: "b" })]);
    expect(explainAccess(none)).toBe("denied: none of these ALLOW policies matches: shop/a, shop/b");
    expect([formatProvenance(d.policy!), explainAccess(d)]).toEqual(["AuthorizationPolicy shop/two spec.rules[1]", "allowed by AuthorizationPolicy shop/two spec.rules[1]"]);
  });
  test("audited rules are told with every outcome", () => {
    const audit = requestPolicy({ name: "audit", action: "audit", rules: [ANY] });
    const told = [[audit], [audit, deny], [audit, allow]].map((policies) => {
      const d = judge(policies);
      return d.kind === "ask" ? [] : d.audited.map(formatProvenance);
    });
    expect(told).toEqual([1, 2, 3].map(() => ["AuthorizationPolicy shop/audit spec.rules[0]"]));
  });
});

describe("external authorizers", () => {
  const run = (policies: readonly RequestPolicy[], ...answers: readonly AuthorizerAnswer[]): string => {
    let decision = judge(policies);
    for (const answer of answers) {
      if (decision.kind !== "ask") throw new Error(`nobody asked: ${decision.reason}`);
      decision = decision.answered(answer);
    }
    return decision.kind === "ask" ? `ask ${decision.provider}` : decision.kind === "deny" ? `${decision.reason}: ${decision.code} ${decision.status}` : decision.reason;
  };
  const ask = (provider: string, authorizer: ExternalAuthorizer = AUTHORIZER) => requestPolicy({ name: provider, action: custom(provider, authorizer), rules: [ANY] });
  const deny = requestPolicy({ name: "deny", action: "deny", rules: [ANY] });
  const allowed = { kind: "allowed" } as const;
  test.each([
    ["allowed, then nothing else", [ask("a")], [allowed], "no allow policy"], ["allowed, then denied by a policy", [ask("a"), deny], [allowed], "denied by: access_denied 403"],
    ["refused with its own status", [ask("a")], [{ kind: "denied", status: 401 }], "refused by authorizer: authorizer_denied 401"], ["refused", [ask("a")], [{ kind: "denied", status: null }], "refused by authorizer: authorizer_denied 403"],
    ["failed", [ask("a", { ...AUTHORIZER, statusOnError: 503 })], [{ kind: "failed" }], "authorizer failed: authorizer_failed 503"], ["failed open, as configured", [ask("a", { ...AUTHORIZER, onFailure: "allow" })], [{ kind: "failed" }], "no allow policy"],
    ["several providers, one after the other", [ask("a"), ask("b")], [allowed], "ask b"], ["both allow", [ask("a"), ask("b")], [allowed, allowed], "no allow policy"],
    ["one provider is asked once", [ask("a"), { ...ask("a"), name: "again" }], [allowed], "no allow policy"],
  ] as const)("%s", (_, policies, answers, expected) => expect(run(policies, ...answers)).toBe(expected));
  test("a request goes on by the policies that were in force when it was asked for", () => {
    const decision = judge([ask("a"), deny]);
    // Whatever becomes of the set in the meantime.
    expect(decision.kind === "ask" ? decision.answered(allowed).kind : "").toBe("deny");
  });
});

describe("fields", () => {
  const claims = { iss: "https://issuer.example", sub: "bob", aud: ["a", "b"], azp: "cli", role: "admin", n: 7, ok: true, nested: { groups: ["x", "y"], deep: { k: "v" } }, scope: "read write", list: [1, "two", null, { z: 1 }], obj: {}, nil: null } satisfies JsonObject;
  const key = (kind: Exclude<ConditionKey["kind"], "header" | "claim" | "unknown">): ConditionKey => ({ kind });
  const claim = (...path: readonly string[]): ConditionKey => ({ kind: "claim", path });
  const header = (name: string): ConditionKey => ({ kind: "header", name });
  test.each([
    ["principals", { principals: [exact("cluster.local/ns/shop/sa/front")] }, {}, true], ["principals, another", { principals: [exact("cluster.local/ns/shop/sa/else")] }, {}, false], ["namespaces", { namespaces: [exact("shop")] }, {}, true],
    ["destination ports", { destinationPorts: [8080] }, {}, true], ["source addresses", { sourceIps: [cidr("198.18.0.0/24")] }, {}, true],
    ["remote addresses", { remoteIps: [cidr("198.51.100.0/24")] }, {}, true], ["remote addresses, elsewhere", { remoteIps: [cidr("198.51.100.0/24")] }, { remoteIp: "2001:db8::1" }, false], ["notRemoteIps", { notRemoteIps: [cidr("198.51.100.7")] }, {}, false],
    ["methods", { methods: [exact("GET")] }, {}, true], ["methods have case", { methods: [exact("get")] }, {}, false], ["methods by prefix", { methods: [prefix("P")] }, { method: "PATCH" }, true], ["notMethods", { notMethods: [exact("GET")] }, {}, false],
    ["hosts", { hosts: [exact("Web")] }, {}, true], ["hosts by suffix", { hosts: [suffix(".example")] }, { host: "a.example" }, true], ["hosts with port", { hosts: [exact("web:80")] }, { authorityPort: 80 }, true],
    ["the destination's port where the request names none", { hosts: [exact("web:8080")] }, {}, true], ["any port", { hosts: [prefix("web:")] }, { authorityPort: 99 }, true], ["another port", { hosts: [exact("web:80")] }, { authorityPort: 81 }, false], ["notHosts", { notHosts: [exact("web")] }, {}, false],
    ["paths", { paths: [exact("/a")] }, { url: "/a?x=1" }, true], ["paths by prefix", { paths: [prefix("/a")] }, { url: "/ab" }, true], ["paths by suffix", { paths: [suffix("/info")] }, { url: "/a/info" }, true], ["paths have case", { paths: [exact("/A")] }, { url: "/a" }, false],
    ["notPaths", { notPaths: [exact("/a")] }, { url: "/a" }, false], ["path templates", { paths: [{ kind: "template", value: "/a/{*}/c" }] }, { url: "/a/b/c" }, true], ["path templates, more segments", { paths: [{ kind: "template", value: "/a/{*}/c" }] }, { url: "/a/b/b/c" }, false],
    ["templates among notPaths", { notPaths: [{ kind: "template", value: "/a/{**}" }] }, { url: "/a/b/c" }, false],
    ["request principals", { requestPrincipals: [exact("https://issuer.example/bob")] }, { claims }, true], ["any request principal", { requestPrincipals: [PRESENCE] }, { claims }, true], ["any request principal, without a token", { requestPrincipals: [PRESENCE] }, {}, false],
    ["notRequestPrincipals, without a token", { notRequestPrincipals: [PRESENCE] }, {}, true], ["request principals by prefix", { requestPrincipals: [prefix("https://issuer.example/")] }, { claims }, true],
    ["condition: request principal", condition(key("requestPrincipal"), [suffix("/bob")]), { claims }, true],
    ["condition: audiences, any of them", condition(key("audiences"), [exact("b")]), { claims }, true], ["condition: presenter", condition(key("presenter"), [exact("cli")]), { claims }, true], ["condition: presenter, without a token", condition(key("presenter"), [], [exact("cli")]), {}, true],
    ["condition: SNI", condition(key("sni"), [suffix(".example")]), { sni: "a.example" }, true], ["condition: SNI, without TLS", condition(key("sni"), [PRESENCE]), {}, false],
    ["claim, text", condition(claim("role"), [exact("admin")]), { claims }, true], ["claim, number", condition(claim("n"), [exact("7")]), { claims }, true], ["claim, truth value", condition(claim("ok"), [exact("true")]), { claims }, true],
    ["claim, nested list", condition(claim("nested", "groups"), [exact("y")]), { claims }, true], ["claim, deep", condition(claim("nested", "deep", "k"), [exact("v")]), { claims }, true], ["claim, mixed list", condition(claim("list"), [exact("1")]), { claims }, true],
    ["claim, separated by spaces", condition(claim("scope"), [exact("write")]), { claims }, true], ["claim, as a whole no more", condition(claim("scope"), [exact("read write")]), { claims }, false], ["claim, an object is no value", condition(claim("obj"), [PRESENCE]), { claims }, false],
    ["claim, null is no value", condition(claim("nil"), [PRESENCE]), { claims }, false], ["claim, inherited from nobody", condition(claim("constructor", "name"), [PRESENCE]), { claims }, false], ["claim, absent", condition(claim("none"), [PRESENCE]), { claims }, false],
    ["claim, below a text", condition(claim("role", "0"), [PRESENCE]), { claims }, false], ["claim, unwanted", condition(claim("nested", "groups"), [], [exact("x")]), { claims }, false], ["claim, wanted and unwanted", condition(claim("nested", "groups"), [exact("y")], [exact("z")]), { claims }, true],
    ["header", condition(header("x-a"), [exact("1")]), { headers: { "X-A": "1" } }, true], ["header by prefix", condition(header("x-a"), [prefix("1")]), { headers: { "x-a": "12" } }, true], ["header, absent", condition(header("x-a"), [PRESENCE]), {}, false],
    ["header, unwanted and absent", condition(header("x-a"), [], [PRESENCE]), {}, true], ["header, two conditions", { conditions: [...condition(header("a"), [exact("1")]).conditions!, ...condition(header("b"), [exact("2")]).conditions!] }, { headers: { a: "1" } }, false],
    ["all fields joined by AND", { methods: [exact("GET")], paths: [exact("/b")] }, { url: "/a" }, false], ["values by OR", { methods: [exact("PUT"), exact("GET")] }, {}, true],
  ] as const)("%s", (_, match, asked, expected) => {
    expect(letsIn(match, asked)).toBe(expected);
    expect(keepsOut(match, asked)).toBe(expected);
  });

  test("the caller's identity under each alias of its trust domain", () => {
    const trustDomains = { own: "cluster.local" as TrustDomain, aliases: ["old.example" as TrustDomain] };
    expect(letsIn({ principals: [exact("old.example/ns/shop/sa/front")] }, { trustDomains })).toBe(true);
  });
});

describe("what can be read in two ways opens nothing", () => {
  const X: ConditionKey = { kind: "header", name: "x-role" };
  const wanted = (...values: readonly StringMatch[]) => condition(X, values);
  const unwanted = (...values: readonly StringMatch[]) => condition(X, [], values);
  const twice = { headers: { "x-role": ["user", "admin"] } };
  const listed = { headers: { "x-role": "user,admin" } };
  test.each([
    ["one of two fields does not let in", wanted(exact("user")), twice, false, true], ["nor by prefix of the first", wanted(prefix("us")), twice, false, true], ["all of them do", wanted(exact("user"), exact("admin")), twice, true, true],
    ["their text as a whole does", wanted(exact("user, admin")), twice, true, true], ["and joined without a space", wanted(exact("user,admin")), twice, true, true],
    ["one unwanted of two is found", unwanted(exact("admin")), twice, false, true], ["also inside one field", unwanted(exact("admin")), listed, false, true], ["a part of one field keeps out", wanted(exact("admin")), listed, false, true],
    ["there and empty: does not let in by presence, keeps out", wanted(PRESENCE), { headers: { "x-role": "" } }, false, true],
  ] as const)("%s", (_, match, asked, allow, deny) => expect([letsIn(match, asked), keepsOut(match, asked)]).toEqual([allow, deny]));

  test.each([
    ["a key that is not known", condition({ kind: "unknown", text: "experimental.x" }, [PRESENCE])], ["its opposite", condition({ kind: "unknown", text: "experimental.x" }, [], [PRESENCE])],
    ["a template that cannot be read", { paths: [{ kind: "template", value: "/a/{**}/{**}" }] }], ["one among notPaths", { notPaths: [{ kind: "template", value: "/a{*}" }] }], ["a match that lost all its fields", {}],
  ] as const)("%s", (_, match) => expect([letsIn(match), keepsOut(match)]).toEqual([false, true]));
  test("a custom policy with an unknown key asks", () => expect(reason([requestPolicy({ name: "c", action: custom(), rules: [condition({ kind: "unknown", text: "x" }, [PRESENCE])] })])).toBe("ask ext"));
  test("a rule without clauses, or with an empty one, is true", () => {
    const clauses = (list: readonly (readonly RequestPolicyMatch[])[]): RequestPolicy => ({ ...requestPolicy({ name: "a" }), rules: [{ clauses: list.map((matches) => ({ matches })), fieldPath: "spec.rules[0]" }] });
    expect([reason([clauses([])]), reason([clauses([[]])]), reason([clauses([[requestMatch(NONE)], []])]), reason([clauses([[requestMatch(NONE), requestMatch(ANY)]])])]).toEqual(["allowed by", "allowed by", "no allow matched", "allowed by"]);
  });
  test("a peer without identity", () => {
    expect([letsIn({ principals: [PRESENCE] }, { peer: null }), letsIn({ namespaces: [PRESENCE] }, { peer: null }), keepsOut({ notPrincipals: [PRESENCE] }, { peer: null })]).toEqual([false, false, true]);
  });
});

describe("dry run", () => {
  const told = (policies: readonly RequestPolicy[]) => {
    const d = judge(policies);
    return d.kind === "ask" ? [] : [d.reason, d.dryRun.map(({ policy, wouldAllow }) => [policy.name, wouldAllow])];
  };
  test.each([
    ["a deny that matches", [requestPolicy({ name: "d", action: "deny", dryRun: true, rules: [ANY] })], ["no allow policy", [["d", false]]]], ["a deny that does not", [requestPolicy({ name: "d", action: "deny", dryRun: true, rules: [NONE] })], ["no allow policy", []]],
    ["an allow that would shut others out", [requestPolicy({ name: "a", dryRun: true, rules: [NONE] })], ["no allow policy", [["a", false]]]], ["an allow that would let in", [requestPolicy({ name: "none" }), requestPolicy({ name: "a", dryRun: true, rules: [ANY] })], ["no allow matched", [["a", true]]]],
    ["a custom that could not ask", [requestPolicy({ name: "c", action: custom("e", null), dryRun: true, rules: [ANY] })], ["no allow policy", [["c", false]]]], ["a custom that could", [requestPolicy({ name: "c", action: custom(), dryRun: true, rules: [ANY] })], ["no allow policy", []]],
    ["an audit", [requestPolicy({ name: "u", action: "audit", dryRun: true, rules: [ANY] })], ["no allow policy", []]],
  ] as const)("%s", (_, policies, expected) => expect(told(policies) as unknown).toEqual(expected));
});

test("5 000 policies told apart by principal cost little more than 50", () => {
  const time = (count: number): number => {
    const policies = Array.from({ length: count }, (_, i) => requestPolicy({ name: `p${i}`, rules: [{ principals: [exact(`cluster.local/ns/n${i}/sa/a`)], methods: [exact("GET")], paths: [prefix("/")] }] }));
    const set = { policies, authentications: [], logins: [] };
    const subject = facts({ peer: identity(`n${count - 1}`, "a") });
    let best = Infinity;
    for (let round = 0; round < 10; round++) {
      best = Math.min(best, processorMs(() => {
        for (let i = 0; i < 1000; i++) if (authoriseRequest(set, subject).kind !== "allow") throw new Error("not allowed");
      }));
    }
    return best;
  };
  time(50);
  expect(time(5000) / time(50)).toBeLessThan(10);
});
