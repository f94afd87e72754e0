// security.istio.io RequestAuthentication: which tokens are accepted, of whom, and where they are found.

import { z } from "zod";
import { admits } from "../admission.ts";
import { collectable } from "../collectable.ts";
import { positiveDuration } from "../durations.ts";
import { show } from "../diagnostic.ts";
import { headerName } from "../http-values.ts";
import { LIST_MAX } from "../limits.ts";
import { attachment, checkAttachment } from "../targets.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

/** A key set that is written out: dozens of keys fit. */
const JWKS_CHARS_MAX = 256 * 1024;
const RULES_MAX = 256;

const httpUrl = z.string().max(2048).refine((text) => URL.canParse(text) && /^https?:$/.test(new URL(text).protocol), { error: "expected an http:// or https:// URL" })
  .meta(admits({ rule: "isURL(self) && url(self).getScheme() in ['http', 'https']", message: "expected an http:// or https:// URL" }));
export { httpUrl };

const spec = collectable(() => {
  const jwtRule = z.strictObject({
    issuer: z.string().min(1).max(2048),
    audiences: z.array(z.string().min(1).max(2048)).max(LIST_MAX).optional(),
    jwksUri: httpUrl.optional(), jwks_uri: httpUrl.optional(), jwks: z.string().max(JWKS_CHARS_MAX).optional(),
    fromHeaders: z.array(z.strictObject({ name: headerName, prefix: z.string().max(256).optional() })).max(32).optional(),
    fromParams: z.array(z.string().min(1).max(256)).max(32).optional(),
    fromCookies: z.array(z.string().min(1).max(256)).max(32).optional(),
    outputPayloadToHeader: headerName.optional(),
    forwardOriginalToken: z.boolean().optional(),
    outputClaimToHeaders: z.array(z.strictObject({ header: headerName.regex(/^[-_A-Za-z0-9]+$/, { error: "expected letters, digits, - and _" }), claim: z.string().min(1).max(1024) })).max(64).optional(),
    timeout: positiveDuration.optional(),
    spaceDelimitedClaims: z.array(z.string().min(1).max(1024)).max(64).optional(),
  });
  return z.strictObject({ ...attachment, jwtRules: z.array(jwtRule).max(RULES_MAX).nullish() }).nullish();
});

export const requestAuthenticationKind = defineKind({
  kind: "RequestAuthentication",
  group: "security.istio.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check({ spec }, report) {
    checkAttachment(spec, report);
    (spec?.jwtRules ?? []).forEach((rule, index) => {
      const at = ["spec", "jwtRules", index];
      const given = (["jwks", "jwksUri", "jwks_uri"] as const).filter((field) => rule[field] !== undefined);
      if (given.length > 1) report("error", "conflict", [...at, given[1]!], `found ${given.join(" and ")}, expected one of them`);
      const fault = rule.jwks === undefined ? null : jwksFault(rule.jwks);
      if (fault !== null) report("error", "bad_value", [...at, "jwks"], fault);
      if (given.length === 0 && !httpUrl.safeParse(rule.issuer).success) report("error", "missing_field", [...at, "jwksUri"], `found none, and the issuer ${show(rule.issuer)} is no URL at which keys could be discovered`);
    });
  },
});

export type RequestAuthenticationResource = ResourceOfKind<typeof requestAuthenticationKind>;
export type JwtRuleSpec = NonNullable<NonNullable<RequestAuthenticationResource["spec"]>["jwtRules"]>[number];

const jwkSet = z.object({ keys: z.array(z.object({ kty: z.string() })).min(1).max(256) });

function jwksFault(text: string): string | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return "found text that is not JSON, expected a JSON Web Key Set";
  }
  if (!jwkSet.safeParse(value).success) return 'expected a JSON Web Key Set: {"keys": [...]} with at least one key';
  const secret = (value as { keys: { kty: string }[] }).keys.some(({ kty }) => kty === "oct");
  return secret ? "found a symmetric key, which whoever can read it can sign with; expected public keys" : null;
}
