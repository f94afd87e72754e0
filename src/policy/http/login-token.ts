// Who a session speaks for: its claims as those of a verified token, so that AuthorizationPolicy reads them and the rules of a
// RequestAuthentication for the same issuer write them into headers, as for any other token.

import type { LoginPolicy } from "../../mesh/l7/access.ts";
import type { LoginSession } from "./login-session.ts";
import { type AuthenticationDecision, type BoundRule, decideAuthentication } from "./tokens.ts";

/** As for tokens of a RequestAuthentication. */
const CLOCK_SKEW_MS = 60_000;
const FETCH_TIMEOUT_MS = 5_000;

/** The same object for the same policy: what is remembered of verified tokens is bound to it. */
const rules = new WeakMap<LoginPolicy, BoundRule>();

/** By which ID tokens of the policy's issuer are verified. */
export function loginRule(policy: LoginPolicy): BoundRule {
  let bound = rules.get(policy);
  if (bound === undefined) {
    bound = {
      rule: {
        issuer: policy.issuer, audiences: [policy.clientId], keys: { kind: "discovery" }, sources: [{ kind: "cookie", name: policy.cookieName }], forwardOriginalToken: false, payloadHeader: null,
        claimsToHeaders: [], spaceDelimitedClaims: ["scope", "permission"], fetchTimeoutMs: FETCH_TIMEOUT_MS, clockSkewMs: CLOCK_SKEW_MS, fieldPath: "spec.issuer",
      },
      provenance: { ...policy.provenance, fieldPath: "spec.issuer" },
    };
    rules.set(policy, bound);
  }
  return bound;
}

/** @param tokenRules of the service's RequestAuthentications: the first for this issuer and client says what the backend gets. */
export function authenticateSession(tokenRules: readonly BoundRule[], policy: LoginPolicy, { payload, idToken }: LoginSession): Extract<AuthenticationDecision, { kind: "authenticated" }> {
  const own = loginRule(policy);
  const bound = tokenRules.find(({ rule }) => rule.issuer === policy.issuer && (rule.audiences.length === 0 || rule.audiences.includes(policy.clientId))) ?? own;
  const source = own.rule.sources[0]!;
  const decision = decideAuthentication([...tokenRules, own], [{ text: idToken, source, rules: [bound] }], [{ ok: true, payload, bound }]);
  if (decision.kind !== "authenticated") throw new Error(`a session is ${decision.kind}`);
  const { changes } = decision;
  if (!bound.rule.forwardOriginalToken) return decision;
  return { ...decision, changes: { ...changes, requestHeaders: [...changes.requestHeaders, { kind: "set", name: "authorization", value: `Bearer ${idToken}` }] } };
}
