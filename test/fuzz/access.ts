// Access policies against their definition: every policy, rule and match tried one by one. What a header that comes twice, an unknown key
// or a lost field means is written out here once more, from the point of view of what it may open.

import { strictEqual as equal } from "node:assert/strict";
import type { ConditionKey, RequestCondition, RequestPolicy, RequestPolicyMatch } from "../../src/mesh/l7/access.ts";
import type { StringMatch } from "../../src/mesh/records.ts";
import { type AccessDecision, authoriseRequest } from "../../src/policy/http/authorise-request.ts";
import { connectionFacts } from "../../src/policy/connection-facts.ts";
import type { RequestFacts } from "../../src/policy/http/request-rules.ts";
import { AUTHORIZER, jwtRule, NO_REQUEST_FIELDS, request, requestPolicy } from "../kit/http-records.ts";
import { cidr, identity, ip } from "../kit/mesh-records.ts";
import { Dice } from "./random-text.ts";

export const name = "access";

const REQUESTS_PER_SET = 20;
const TEXTS = ["a", "b", "ab", "/a", "/a/b", "", "GET", "POST", "web", "api.example"];
const ACCOUNTS = ["a", "b"];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  let policies: readonly RequestPolicy[] = [];
  let set = { policies, authentications: [], logins: [] };
  for (let i = 0; i < iterations; i++) {
    if (i % REQUESTS_PER_SET === 0) {
      policies = dice.some(5, () => randomPolicy(dice)).map((policy, n) => ({ ...policy, name: `p${n}` }));
      set = { policies, authentications: [], logins: [] };
    }
    const facts = randomFacts(dice);
    let decision: AccessDecision = authoriseRequest(set, facts);
    const asked: string[] = [];
    while (decision.kind === "ask") {
      asked.push(decision.provider);
      decision = decision.answered({ kind: "allowed" });
    }
    equal(`${asked.join(" ")} ${decision.reason}`, expected(policies, facts), `seed ${seed}, iteration ${i}: ${JSON.stringify(facts)} under ${JSON.stringify(policies)}`);
  }
  return { iterations };
}

// ---- the definition

function expected(policies: readonly RequestPolicy[], facts: RequestFacts): string {
  const enforced = policies.filter(({ dryRun }) => !dryRun);
  const matching = enforced.filter((policy) => policyMatches(policy, facts));
  const providers = [...new Set(enforced.flatMap(({ action }) => (action.kind === "custom" ? [action.provider] : [])))];
  const asked: string[] = [];
  for (const provider of providers) {
    const own = (list: readonly RequestPolicy[]) => list.flatMap(({ action }) => (action.kind === "custom" && action.provider === provider ? [action] : []));
    if (own(matching).length === 0) continue;
    if (own(enforced).some(({ authorizer }) => authorizer === null)) return `${asked.join(" ")} authorizer not configured`;
    asked.push(provider);
  }
  const of = (list: readonly RequestPolicy[], kind: string): boolean => list.some(({ action }) => action.kind === kind);
  const reason = of(matching, "deny") ? "denied by" : !of(enforced, "allow") ? "no allow policy" : of(matching, "allow") ? "allowed by" : "no allow matched";
  return `${asked.join(" ")} ${reason}`;
}

function policyMatches({ rules, action }: RequestPolicy, facts: RequestFacts): boolean {
  const opens = action.kind === "allow";
  return rules.some(({ clauses }) => clauses.every(({ matches }) => matches.length === 0 || matches.some((match) => holds(match, facts, opens))));
}

function holds(match: RequestPolicyMatch, facts: RequestFacts, opens: boolean): boolean {
  if (Object.values(match).every((list: readonly unknown[]) => list.length === 0)) return !opens;
  const { request: asked } = facts;
  const one = (values: readonly StringMatch[], notValues: readonly StringMatch[], text: string | null): boolean =>
    (values.length === 0 || text !== null && values.some((v) => textIs(v, text))) && !(text !== null && notValues.some((v) => textIs(v, text)));
  const plain = (list: RequestPolicyMatch["paths"]): readonly StringMatch[] => list.filter((each) => each.kind !== "template");
  return one(match.principals, match.notPrincipals, facts.principals[0] ?? null) && one(match.namespaces, match.notNamespaces, facts.namespace)
    && (match.destinationPorts.length === 0 || match.destinationPorts.includes(facts.destinationPort)) && !match.notDestinationPorts.includes(facts.destinationPort)
    && (match.remoteIps.length === 0 || facts.remoteIp === "198.51.100.7") && !(match.notRemoteIps.length > 0 && facts.remoteIp === "198.51.100.7")
    && one(match.methods, match.notMethods, asked.method) && one(plain(match.paths), plain(match.notPaths), asked.path) && one(match.hosts, match.notHosts, asked.host)
    && one(match.requestPrincipals, match.notRequestPrincipals, facts.token?.principal ?? null)
    && match.conditions.every((condition) => conditionHolds(condition, facts, opens));
}

function conditionHolds({ key, values, notValues }: RequestCondition, facts: RequestFacts, opens: boolean): boolean {
  if (key.kind === "unknown") return !opens;
  if (key.kind !== "header") {
    const groups = facts.token?.payload["groups"];
    const texts = key.kind === "sni" ? (facts.sni === null ? [] : [facts.sni]) : Array.isArray(groups) ? groups.map(String) : [];
    const any = (list: readonly StringMatch[]): boolean => texts.some((text) => list.some((v) => textIs(v, text)));
    return (values.length === 0 || any(values)) && !any(notValues);
  }
  const fields = facts.request.fields.values(key.name);
  const wholes = [fields.join(", "), fields.join(",")];
  const strictly = (list: readonly StringMatch[]): boolean =>
    fields.length > 0 && (list.some((v) => v.kind === "exact" && wholes.includes(v.value)) || fields.every((field) => list.some((v) => textIs(v, field))));
  const loosely = (list: readonly StringMatch[]): boolean =>
    fields.length > 0 && [...wholes, ...fields, ...fields.flatMap((field) => (field.includes(",") ? field.split(",").map((part) => part.trim()) : []))].some((text) => list.some((v) => v.kind === "presence" || textIs(v, text)));
  return opens ? (values.length === 0 || strictly(values)) && !loosely(notValues) : (values.length === 0 || loosely(values)) && !strictly(notValues);
}

function textIs(match: StringMatch, text: string): boolean {
  switch (match.kind) {
    case "exact": return text === match.value;
    case "prefix": return text.startsWith(match.value);
    case "suffix": return text.endsWith(match.value);
    case "presence": return text !== "";
    default: return match satisfies never;
  }
}

// ---- a small world

const randomText = (dice: Dice): StringMatch => (dice.chance(0.1) ? { kind: "presence" } : { kind: dice.of(["exact", "exact", "prefix", "suffix"] as const), value: dice.of(TEXTS) });
const principal = (dice: Dice): StringMatch => (dice.chance(0.3) ? randomText(dice) : { kind: "exact", value: `cluster.local/ns/shop/sa/${dice.of(ACCOUNTS)}` });

function randomMatch(dice: Dice): RequestPolicyMatch {
  let match = NO_REQUEST_FIELDS;
  for (let n = dice.below(4); n > 0; n--) {
    const texts = dice.some(2, () => randomText(dice));
    const key = dice.of<ConditionKey>([{ kind: "header", name: "x" }, { kind: "claim", path: ["groups"] }, { kind: "sni" }, { kind: "unknown", text: "?" }]);
    match = {
      ...match,
      ...dice.of<Partial<RequestPolicyMatch>>([
        { principals: [principal(dice)] }, { notPrincipals: [principal(dice)] }, { namespaces: [{ kind: "exact", value: dice.of(["shop", "bank"]) }] }, { methods: texts }, { notMethods: texts }, { paths: texts }, { notPaths: texts }, { hosts: texts }, { notHosts: texts },
        { requestPrincipals: texts }, { notRequestPrincipals: texts }, { destinationPorts: [dice.of([80, 8080])] }, { remoteIps: [cidr("198.51.100.7")] }, { notRemoteIps: [cidr("198.51.100.7")] },
        { conditions: [{ key, values: texts, notValues: dice.chance(0.3) || texts.length === 0 ? [randomText(dice)] : [] }] },
      ]),
    };
  }
  return match;
}

function randomPolicy(dice: Dice): RequestPolicy {
  const kind = dice.of(["allow", "allow", "deny", "audit", "custom"] as const);
  const policy = requestPolicy({ name: "p", dryRun: dice.chance(0.1), action: kind === "custom" ? { kind, provider: dice.of(["e", "f"]), authorizer: dice.chance(0.2) ? null : AUTHORIZER } : kind });
  return { ...policy, rules: dice.some(2, () => ({ clauses: dice.some(2, () => ({ matches: dice.some(2, () => randomMatch(dice)) })), fieldPath: "spec.rules[0]" })) };
}

function randomFacts(dice: Dice): RequestFacts {
  const peer = dice.chance(0.3) ? null : identity("shop", dice.of(ACCOUNTS));
  const x = dice.some(3, () => dice.of(["a", "b", "ab", "", "a,b", "a, b"]));
  return {
    ...connectionFacts({ peer, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: dice.of([80, 8080]) }, null),
    request: request({ method: dice.of(["GET", "POST", "a"]), url: dice.of(["/a", "/a/b", "/"]), host: dice.of(["web", "api.example", "a"]), headers: x.length === 0 ? {} : { x } }),
    remoteIp: ip(dice.of(["198.51.100.7", "198.51.100.8"])), sni: dice.of([null, "a", "api.example"]),
    token: dice.chance(0.5) ? null : { principal: dice.of(["a", "ab"]), payload: { iss: "a", groups: dice.some(2, () => dice.of(["a", "b", "ab"])) }, rule: jwtRule() },
  };
}
