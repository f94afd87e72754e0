// Schemas of src/mesh/l7/route.ts and waypoint.ts.

import { z } from "zod";
import type {
  BackendTarget, ConnectionRule, Cors, HeaderChange, HttpRule, Mirror, PathChange, Redirect, RetryPolicy, Route, RouteBackend, RouteFilter, RouteParent, RouteRules, RouteTimeouts, SessionPersistence,
} from "../../mesh/l7/route.ts";
import type { ClientCertificate, Waypoint } from "../../mesh/l7/waypoint.ts";
import { externalAuthorizer } from "./access.ts";
import { fault, requestMatch, textPattern } from "./match.ts";
import { exactly, ITEMS_MAX, later, list, name, nullable, number, pairs, port, provenance, share, text } from "./values.ts";

const parent = exactly<RouteParent>()(z.strictObject({ service: name, port: nullable(port), clientNamespace: nullable(text) }));

const target = exactly<BackendTarget>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("service"), service: name, port, subset: nullable(text) }),
  z.strictObject({ kind: z.literal("invalid"), reason: text }),
]));

const headerChange = exactly<HeaderChange>()(z.strictObject({ set: pairs, add: pairs, remove: list(text) }));

const pathChange = exactly<PathChange>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("full"), value: text }),
  z.strictObject({ kind: z.literal("prefix"), value: text }),
  z.strictObject({ kind: z.literal("regex"), pattern: text, substitution: text }),
]));

const redirect = exactly<Redirect>()(z.strictObject({
  scheme: nullable(z.enum(["http", "https"])), hostname: nullable(text), path: nullable(pathChange), port: nullable(port), status: z.literal([301, 302, 303, 307, 308]),
}));

const mirror = exactly<Mirror>()(z.strictObject({ target, fraction: share }));

const cors = exactly<Cors>()(z.strictObject({
  allowOrigins: list(textPattern), allowMethods: list(text), allowHeaders: list(text), exposeHeaders: list(text), allowCredentials: z.boolean(), maxAgeS: nullable(number),
  unmatchedPreflight: z.enum(["answer", "forward"]),
}));

const filter = exactly<RouteFilter>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("requestHeaders"), change: headerChange }),
  z.strictObject({ kind: z.literal("responseHeaders"), change: headerChange }),
  z.strictObject({ kind: z.literal("redirect"), redirect }),
  z.strictObject({ kind: z.literal("rewrite"), hostname: nullable(text), path: nullable(pathChange) }),
  z.strictObject({ kind: z.literal("mirror"), mirror }),
  z.strictObject({ kind: z.literal("cors"), cors }),
  z.strictObject({ kind: z.literal("externalAuth"), authorizer: externalAuthorizer }),
  z.strictObject({ kind: z.literal("respond"), status: number, body: text }),
]));

const backend = exactly<RouteBackend>()(z.strictObject({ weight: number, target, filters: list(filter) }));

export const retryPolicy = exactly<RetryPolicy>()(z.strictObject({
  attempts: number, statuses: list(number), grpcStatuses: list(number), onConnectFailure: z.boolean(), onReset: z.boolean(), onRefusedStream: z.boolean(), nonIdempotent: z.boolean(),
  perTryTimeoutMs: nullable(number), backoffBaseMs: number, backoffMaxMs: number,
}));

export const sessionPersistence = exactly<SessionPersistence>()(z.strictObject({
  kind: z.enum(["cookie", "header"]), name: text, path: nullable(text), absoluteTimeoutMs: nullable(number), idleTimeoutMs: nullable(number),
}));

export const routeTimeouts = exactly<RouteTimeouts>()(z.strictObject({ requestMs: nullable(number), backendRequestMs: nullable(number), streamIdleMs: nullable(number) }));

const httpRule = exactly<HttpRule>()(z.strictObject({
  name: nullable(text), matches: list(requestMatch), matchPaths: later(nullable(list(text)), null), filters: list(filter), backends: list(backend), timeouts: routeTimeouts, retry: nullable(retryPolicy),
  sessionPersistence: nullable(sessionPersistence), faults: list(fault), broken: nullable(text), fieldPath: text,
}));

const connectionRule = exactly<ConnectionRule>()(z.strictObject({ sni: list(text), backends: list(backend), fieldPath: text }));

const rules = exactly<RouteRules>()(z.discriminatedUnion("protocol", [
  z.strictObject({ protocol: z.enum(["http", "grpc"]), rules: list(httpRule), precedence: z.enum(["gatewayApi", "asWritten"]) }),
  z.strictObject({ protocol: z.enum(["tls", "tcp"]), rules: list(connectionRule) }),
]));

export const route = exactly<Route>()(z.strictObject({ id: text, name: text, namespace: text, parents: list(parent), rules, createdMs: number, provenance }));

const clientCertificate = exactly<ClientCertificate>()(z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("given"), certificatePem: text, keyPem: text }),
  z.strictObject({ kind: z.literal("broken"), reason: text }),
]));

export const waypoint = exactly<Waypoint>()(z.strictObject({ name: text, namespace: text, service: name, serves: z.enum(["service", "workload", "all", "none"]), clientCertificate: later(nullable(clientCertificate), null), provenance }));

/** Characters: an answer and a log line name the first of what is not known, not a whole rule. */
const UNREAD_CHARS_MAX = 512;
/** Faults of what is not known; something that is missing, or of another type, is none of a newer version. */
const UNKNOWN: ReadonlySet<string> = new Set(["unrecognized_keys", "invalid_union", "invalid_value"]);
const nothingSet = { requestMs: null, backendRequestMs: null, streamIdleMs: null };
const ruledRoute = z.looseObject({ rules: z.looseObject({ protocol: z.enum(["http", "grpc"]), rules: z.array(z.record(z.string(), z.unknown())).max(ITEMS_MAX) }) });
/** What says which requests a rule is about. */
const ruleHead = z.object({ name: nullable(text), matches: list(requestMatch), matchPaths: later(nullable(list(text)), null), fieldPath: text });

/**
 * A route of a newer control plane: rules that say something we do not know in what they do answer 500, each alone, with the reason. Which
 * requests a rule is about must be known in full: one that is about others than it seems would let another rule have them.
 * @returns the JSON of such a route; null when it is none.
 */
export function withUnreadRules(json: unknown): unknown {
  const read = ruledRoute.safeParse(json);
  if (!read.success) return null;
  const rules: unknown[] = [];
  for (const one of read.data.rules.rules) {
    const whole = z.safeDecode(httpRule, one);
    if (whole.success) {
      rules.push(one);
      continue;
    }
    if (!whole.error.issues.every(({ code }) => UNKNOWN.has(code)) || !ruleHead.safeParse(one).success) return null;
    const reason = `the control plane is newer than this waypoint, which does not know all of this rule: ${z.prettifyError(whole.error).replaceAll("\n", "; ").slice(0, UNREAD_CHARS_MAX)}`;
    rules.push({ name: one["name"], matches: one["matches"], matchPaths: one["matchPaths"], filters: [], backends: [], timeouts: nothingSet, retry: null, sessionPersistence: null, faults: [], broken: reason, fieldPath: one["fieldPath"] });
  }
  return { ...read.data, rules: { ...read.data.rules, rules } };
}
