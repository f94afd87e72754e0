// weft.dev LoginPolicy (browser login by OpenID Connect) and TokenIntrospection (RFC 7662): what Istio leaves to an external authorizer.

import { z } from "zod";
import { admits } from "../admission.ts";
import { collectable } from "../collectable.ts";
import { durationMs, positiveDuration } from "../durations.ts";
import { headerName, pathText } from "../http-values.ts";
import { dnsSubdomain } from "../object-meta.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";
import { ownTargetRefs } from "../targets.ts";
import { httpUrl } from "./request-authentication.ts";

const schemas = collectable(() => {
  /** A key of a Secret of the same namespace. */
  const secretKeyRef = z.strictObject({ name: dnsSubdomain, key: z.string().min(1).max(253).optional() });
  const scope = z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, { error: "expected a scope without spaces and quotes" }).max(256);
  const login = z.strictObject({
      targetRefs: ownTargetRefs, issuer: httpUrl, clientId: z.string().min(1).max(1024), clientSecretRef: secretKeyRef, scopes: z.array(scope).max(64).optional(), userInfo: z.boolean().optional(), callbackPath: pathText.optional(), logoutPath: pathText.optional(),
      cookie: z.strictObject({ name: headerName.optional(), keysRef: secretKeyRef, lifetime: positiveDuration.optional() })
        .meta(admits({ rule: "!has(self.lifetime) || duration(self.lifetime) <= duration('168h')", message: "expected a lifetime of at most 168h" })),
    }).meta(admits({ rule: "!has(self.callbackPath) || !has(self.logoutPath) || self.callbackPath != self.logoutPath", message: "found the same path as callbackPath and logoutPath" }));
  const introspection = z.strictObject({
      targetRefs: ownTargetRefs, issuer: z.string().min(1).max(2048), url: httpUrl, clientId: z.string().min(1).max(1024), clientSecretRef: secretKeyRef, audiences: z.array(z.string().min(1).max(2048)).max(64).optional(),
      fromHeaders: z.array(z.strictObject({ name: headerName, prefix: z.string().max(256).optional() })).max(32).optional(), fromCookies: z.array(z.string().min(1).max(256)).max(32).optional(),
      outputClaimToHeaders: z.array(z.strictObject({ header: headerName, claim: z.string().min(1).max(1024) })).max(64).optional(), forwardOriginalToken: z.boolean().optional(), timeout: positiveDuration.optional(),
    });
  return { login, introspection };
});

/** A session that never ends could not be taken back. */
const SESSION_MS_MAX = 7 * 24 * 3_600_000;

export const loginPolicyKind = defineKind({
  kind: "LoginPolicy",
  group: "weft.dev",
  versions: ["v1alpha1"],
  namespaced: true,
  spec: () => schemas().login,
  check({ spec }, report) {
    if (spec.callbackPath !== undefined && spec.callbackPath === spec.logoutPath) report("error", "conflict", ["spec", "logoutPath"], "found the same path as callbackPath");
    if (spec.cookie.lifetime !== undefined && durationMs(spec.cookie.lifetime) > SESSION_MS_MAX) report("error", "bad_value", ["spec", "cookie", "lifetime"], `found ${spec.cookie.lifetime}, expected at most 168h`);
    if (!spec.issuer.startsWith("https:")) report("warning", "not_enforced", ["spec", "issuer"], "found http: who can change what it answers can log in as anybody");
  },
});
export type LoginPolicyResource = ResourceOfKind<typeof loginPolicyKind>;

export const tokenIntrospectionKind = defineKind({
  kind: "TokenIntrospection",
  group: "weft.dev",
  versions: ["v1alpha1"],
  namespaced: true,
  spec: () => schemas().introspection,
  check() {},
});
export type TokenIntrospectionResource = ResourceOfKind<typeof tokenIntrospectionKind>;
