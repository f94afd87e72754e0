// May this connection, whose bytes nobody reads, go to this service? The policies of a waypoint that speak of requests too, held to a
// connection: what asks for a request (method, path, host, header, token) lets nobody in and keeps everybody out, as with Istio. CUSTOM
// policies cannot be asked about connections, and a login cannot be made on one: both refuse.

import { formatNoneMatched, formatProvenance, type Provenance } from "../../core/fault.ts";
import type { IpAddress } from "../../core/ip.ts";
import type { RequestPolicy, RequestPolicyMatch } from "../../mesh/l7/access.ts";
import type { AccessSet } from "../../mesh/l7/l7-store.ts";
import type { ConnectionFacts } from "../connection-facts.ts";
import { type CompiledRules, findMatch, type FurtherTest, RuleCompiler } from "../rules.ts";
import { allOf } from "./all-of.ts";
import { policiesByUse } from "./policies-by-use.ts";
import { fieldTests, remoteIpTests } from "./request-rules.ts";

export interface PassthroughFacts extends ConnectionFacts {
  readonly remoteIp: IpAddress;
  /** Server name that the client's TLS asks for; null without TLS, or where nobody looked. */
  readonly sni: string | null;
}

export type PassthroughDecision =
  | { readonly kind: "allow"; readonly policy: Provenance | null }
  | { readonly kind: "deny"; readonly policy: Provenance | null; /** For a person. */ readonly why: string };

type Test = FurtherTest<PassthroughFacts>;
type Rules = CompiledRules<PassthroughFacts>;

interface CompiledAccess {
  readonly custom: Rules;
  readonly deny: Rules;
  readonly allow: Rules;
  readonly allowing: readonly Provenance[];
  readonly asksForName: boolean;
}

const ALLOWED: PassthroughDecision = Object.freeze({ kind: "allow", policy: null });

const passthroughRules = new RuleCompiler<RequestPolicy, RequestPolicyMatch, PassthroughFacts>({
  opens: ({ action }) => action.kind === "allow",
  further: (match, opens) => allOf(testsOf(match, opens)),
});

/** Compiled once for each set; the store hands out a new set when any policy in it changes. */
const compiledSets = new WeakMap<AccessSet, CompiledAccess>();

export function authorisePassthrough(set: AccessSet, facts: PassthroughFacts): PassthroughDecision {
  const login = set.logins[0];
  if (login !== undefined) return { kind: "deny", policy: login.provenance, why: `${formatProvenance(login.provenance)} wants a login, which only requests can have` };
  if (set.policies.length === 0) return ALLOWED;
  const { custom, deny, allow, allowing } = compile(set);
  const asked = findMatch(custom, facts);
  if (asked !== null) return { kind: "deny", policy: asked, why: `${formatProvenance(asked)} asks an external authorizer, which judges requests and not connections` };
  const denied = findMatch(deny, facts);
  if (denied !== null) return { kind: "deny", policy: denied, why: `denied by ${formatProvenance(denied)}` };
  if (allowing.length === 0) return ALLOWED;
  const allowed = findMatch(allow, facts);
  return allowed === null ? { kind: "deny", policy: null, why: `${formatNoneMatched(allowing)}; what rules ask of requests no connection has` } : { kind: "allow", policy: allowed };
}

/** Some policy looks at the name that the client's TLS asks for: it must be read before anything is decided. */
export function asksForServerName(set: AccessSet): boolean {
  return set.policies.length > 0 && compile(set).asksForName;
}

function compile(set: AccessSet): CompiledAccess {
  const known = compiledSets.get(set);
  if (known !== undefined) return known;
  const { custom, deny, allow } = policiesByUse(set.policies);
  const compiled: CompiledAccess = {
    custom: passthroughRules.compile(custom), deny: passthroughRules.compile(deny), allow: passthroughRules.compile(allow), allowing: allow.map(({ provenance }) => provenance),
    asksForName: [...custom, ...deny, ...allow].some(({ rules }) => rules.some(({ clauses }) => clauses.some(({ matches }) => matches.some(({ conditions }) => conditions.some(({ key }) => key.kind === "sni"))))),
  };
  compiledSets.set(set, compiled);
  return compiled;
}

function testsOf(match: RequestPolicyMatch, opens: boolean): Test[] {
  const ofRequests = [
    match.methods, match.notMethods, match.paths, match.notPaths, match.hosts, match.notHosts, match.requestPrincipals, match.notRequestPrincipals,
    match.conditions.filter(({ key }) => key.kind !== "sni"),
  ];
  const tests: Test[] = [...match.conditions.flatMap(({ key, values, notValues }) => (key.kind === "sni" ? fieldTests(values, notValues, ({ sni }: PassthroughFacts) => sni) : [])), ...remoteIpTests(match)];
  // A rule that opens fails; one that keeps out holds whatever else a request would have had.
  if (opens && ofRequests.some((fields) => fields.length > 0)) tests.push(() => false);
  return tests;
}
