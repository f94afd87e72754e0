// Schemas of src/mesh/l7/route.ts and waypoint.ts.

import { z } from "zod";
import type {
  BackendTarget, ConnectionRule, Cors, HeaderChange, HttpRule, Mirror, PathChange, Redirect, RetryPolicy, Route, RouteBackend, RouteFilter, RouteParent, RouteRules, RouteTimeouts, SessionPersistence,
} from "../../mesh/l7/route.ts";
import type { ClientCertificate, Waypoint } from "../../mesh/l7/waypoint.ts";
import { externalAuthorizer } from "./access.ts";
import { fault, requestMatch, textPattern } from "./match.ts";
import { exactly, list, name, nullable, number, pairs, port, provenance, share, text } from "./values.ts";

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
  name: nullable(text), matches: list(requestMatch), matchPaths: nullable(list(text)), filters: list(filter), backends: list(backend), timeouts: routeTimeouts, retry: nullable(retryPolicy),
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

export const waypoint = exactly<Waypoint>()(z.strictObject({ name: text, namespace: text, service: name, serves: z.enum(["service", "workload", "all", "none"]), clientCertificate: nullable(clientCertificate), provenance }));
