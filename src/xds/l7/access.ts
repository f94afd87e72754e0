// Schemas of src/mesh/l7/access.ts.

import { z } from "zod";
import type {
  AccessTarget, ConditionKey, ExternalAuthorizer, JwtRule, LoginPolicy, PathMatch, RequestAuthentication, RequestCondition, RequestPolicy, RequestPolicyAction, RequestPolicyMatch, RequestPolicyRule,
  TokenSource,
} from "../../mesh/l7/access.ts";
import type { ServiceAccountMatch, StringMatch } from "../../mesh/records.ts";
import { cidr, exactly, list, name, nullable, number, pairs, port, provenance, text } from "./values.ts";

export const accessTarget = exactly<AccessTarget>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("service"), service: name }),
  z.strictObject({ kind: z.literal("waypoint"), gateway: name }),
  z.strictObject({ kind: z.literal("namespace"), namespace: text }),
]));

const stringMatches = [
  z.strictObject({ kind: z.literal("exact"), value: text }),
  z.strictObject({ kind: z.literal("prefix"), value: text }),
  z.strictObject({ kind: z.literal("suffix"), value: text }),
  z.strictObject({ kind: z.literal("presence") }),
] as const;
const stringMatch = exactly<StringMatch>()(z.discriminatedUnion("kind", stringMatches));
const pathMatch = exactly<PathMatch>()(z.discriminatedUnion("kind", [...stringMatches, z.strictObject({ kind: z.literal("template"), value: text })]));

const conditionKey = exactly<ConditionKey>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("header"), name: text }),
  z.strictObject({ kind: z.literal("claim"), path: list(text) }),
  z.strictObject({ kind: z.enum(["audiences", "presenter", "requestPrincipal", "sni"]) }),
  z.strictObject({ kind: z.literal("unknown"), text }),
]));

const condition = exactly<RequestCondition>()(z.strictObject({ key: conditionKey, values: list(stringMatch), notValues: list(stringMatch) }));
const account = exactly<ServiceAccountMatch>()(z.strictObject({ namespace: text, serviceAccount: text }));

const requestPolicyMatch = exactly<RequestPolicyMatch>()(z.strictObject({
  namespaces: list(stringMatch), notNamespaces: list(stringMatch), serviceAccounts: list(account), notServiceAccounts: list(account), principals: list(stringMatch), notPrincipals: list(stringMatch),
  sourceIps: list(cidr), notSourceIps: list(cidr), destinationIps: list(cidr), notDestinationIps: list(cidr), destinationPorts: list(port), notDestinationPorts: list(port),
  requestPrincipals: list(stringMatch), notRequestPrincipals: list(stringMatch), remoteIps: list(cidr), notRemoteIps: list(cidr), hosts: list(stringMatch), notHosts: list(stringMatch),
  methods: list(stringMatch), notMethods: list(stringMatch), paths: list(pathMatch), notPaths: list(pathMatch), conditions: list(condition),
}));

const rule = exactly<RequestPolicyRule>()(z.strictObject({ clauses: list(z.strictObject({ matches: list(requestPolicyMatch) })), fieldPath: text }));

export const externalAuthorizer = exactly<ExternalAuthorizer>()(z.strictObject({
  protocol: z.enum(["grpc", "http"]), service: name, port, timeoutMs: number, onFailure: z.enum(["allow", "deny"]), statusOnError: number, pathPrefix: text, includeRequestHeaders: list(text),
  includeBodyBytesMax: number, allowPartialBody: z.boolean(), bodyAsBytes: z.boolean(), changesRoute: z.boolean(), additionalHeaders: pairs, headersUpstream: list(text), headersDownstreamOnAllow: list(text), headersDownstream: list(text),
}));

const action = exactly<RequestPolicyAction>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.enum(["allow", "deny", "audit"]) }),
  z.strictObject({ kind: z.literal("custom"), provider: text, authorizer: nullable(externalAuthorizer) }),
]));

export const requestPolicy = exactly<RequestPolicy>()(z.strictObject({
  name: text, namespace: text, targets: list(accessTarget), action, dryRun: z.boolean(), rules: list(rule), provenance,
}));

const tokenSource = exactly<TokenSource>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("header"), name: text, prefix: text }),
  z.strictObject({ kind: z.literal("query"), name: text }),
  z.strictObject({ kind: z.literal("cookie"), name: text }),
]));

const jwtRule = exactly<JwtRule>()(z.strictObject({
  issuer: text, audiences: list(text),
  keys: z.discriminatedUnion("kind", [
    z.strictObject({ kind: z.literal("inline"), jwks: text }),
    z.strictObject({ kind: z.literal("url"), url: text }),
    z.strictObject({ kind: z.literal("discovery") }),
    z.strictObject({ kind: z.literal("introspection"), url: text, clientId: text, clientSecret: text }),
    z.strictObject({ kind: z.literal("unavailable"), reason: text }),
  ]),
  sources: list(tokenSource), forwardOriginalToken: z.boolean(), payloadHeader: nullable(text), claimsToHeaders: list(z.strictObject({ header: text, claim: list(text) })),
  spaceDelimitedClaims: list(text), fetchTimeoutMs: number, clockSkewMs: number, fieldPath: text,
}));

export const requestAuthentication = exactly<RequestAuthentication>()(z.strictObject({ name: text, namespace: text, targets: list(accessTarget), rules: list(jwtRule), provenance }));

export const loginPolicy = exactly<LoginPolicy>()(z.strictObject({
  name: text, namespace: text, targets: list(accessTarget), issuer: text, clientId: text, clientSecret: text, scopes: list(text), userInfo: z.boolean(), callbackPath: text, logoutPath: text,
  cookieName: text, cookieKeys: list(text), sessionMs: number, broken: nullable(text), provenance,
}));
