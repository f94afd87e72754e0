// Routes: which requests of which service go where, and what is done to them on the way. One record for every route of
// HTTPRoute, GRPCRoute, TCPRoute, TLSRoute and VirtualService; which kind it was shows in `provenance` alone.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { ExternalAuthorizer } from "./access.ts";
import type { Fault } from "./fault.ts";
import type { RequestMatch, TextPattern } from "./match.ts";

/** What a route is attached to. */
export interface RouteParent {
  readonly service: NamespacedName;
  /** Null for all ports. */
  readonly port: number | null;
  /** Null: for every client (producer route). Else only for clients of this namespace, whom the producer's routes do not reach (consumer route). */
  readonly clientNamespace: string | null;
}

/** Where requests go by weight. A weight of 0 gets none. */
export interface RouteBackend {
  readonly weight: number;
  readonly target: BackendTarget;
  /** Applied to requests that go to this backend, after the rule's own. */
  readonly filters: readonly RouteFilter[];
}

/** An invalid reference keeps its weight and answers 500 for its share, as the Gateway API says. */
export type BackendTarget =
  | { readonly kind: "service"; readonly service: NamespacedName; readonly port: number; /** Name of a DestinationRule subset; null for all endpoints. */ readonly subset: string | null }
  | { readonly kind: "invalid"; readonly reason: string };

export interface HeaderChange {
  readonly set: readonly (readonly [name: string, value: string])[];
  readonly add: readonly (readonly [name: string, value: string])[];
  readonly remove: readonly string[];
}

export type PathChange =
  | { readonly kind: "full"; readonly value: string }
  /** Replaces what the match covered: of a prefix that prefix, of an exact path or a regex the whole, without a path match the `/`. */
  | { readonly kind: "prefix"; readonly value: string }
  /** RE2 substitution over the whole path (VirtualService uriRegexRewrite). */
  | { readonly kind: "regex"; readonly pattern: string; readonly substitution: string };

export interface Redirect {
  readonly scheme: "http" | "https" | null;
  readonly hostname: string | null;
  readonly path: PathChange | null;
  /** Null: the well-known port of a changed scheme, else the port of the request's own listener. */
  readonly port: number | null;
  readonly status: 301 | 302 | 303 | 307 | 308;
}

export interface Mirror {
  readonly target: BackendTarget;
  /** Share of requests that are copied, 0 to 1. */
  readonly fraction: number;
}

export interface Cors {
  readonly allowOrigins: readonly TextPattern[];
  readonly allowMethods: readonly string[];
  readonly allowHeaders: readonly string[];
  readonly exposeHeaders: readonly string[];
  readonly allowCredentials: boolean;
  /** Null: the header is not sent. */
  readonly maxAgeS: number | null;
  /** Preflights of origins that are not allowed: answered here without CORS headers, or passed on. */
  readonly unmatchedPreflight: "answer" | "forward";
}

export type RouteFilter =
  | { readonly kind: "requestHeaders"; readonly change: HeaderChange }
  | { readonly kind: "responseHeaders"; readonly change: HeaderChange }
  | { readonly kind: "redirect"; readonly redirect: Redirect }
  | { readonly kind: "rewrite"; readonly hostname: string | null; readonly path: PathChange | null }
  | { readonly kind: "mirror"; readonly mirror: Mirror }
  | { readonly kind: "cors"; readonly cors: Cors }
  /** Asked before the request goes on (HTTPRoute ExternalAuth). */
  | { readonly kind: "externalAuth"; readonly authorizer: ExternalAuthorizer }
  /** Answers by itself (VirtualService directResponse). */
  | { readonly kind: "respond"; readonly status: number; readonly body: string };

/** Conditions under which an attempt is repeated; each is one that Envoy and Istio users know by name. */
export interface RetryPolicy {
  /** Attempts beyond the first; 0 turns retries off. */
  readonly attempts: number;
  /** HTTP status codes. */
  readonly statuses: readonly number[];
  /** gRPC status codes. */
  readonly grpcStatuses: readonly number[];
  /** The connection could not be made. */
  readonly onConnectFailure: boolean;
  /** Reset, or closed, before any byte of an answer. */
  readonly onReset: boolean;
  /** The peer says that it has not looked at the request (REFUSED_STREAM, GOAWAY below the stream). */
  readonly onRefusedStream: boolean;
  /** Also requests whose method is not idempotent. */
  readonly nonIdempotent: boolean;
  /** Null: no limit of its own beside the request's timeout. */
  readonly perTryTimeoutMs: number | null;
  readonly backoffBaseMs: number;
  readonly backoffMaxMs: number;
}

export interface SessionPersistence {
  readonly kind: "cookie" | "header";
  /** Name of the cookie or header. */
  readonly name: string;
  /** Of the cookie; null: the service's default, `/`. */
  readonly path: string | null;
  /** Null: the session ends with the browser's. */
  readonly absoluteTimeoutMs: number | null;
  readonly idleTimeoutMs: number | null;
}

/** Null fields are inherited: from the service's traffic policy, then from our defaults. 0 switches a limit off. */
export interface RouteTimeouts {
  /** From the last byte of the request's head to the last byte of the answer, retries included. */
  readonly requestMs: number | null;
  /** One attempt. */
  readonly backendRequestMs: number | null;
  /** No byte in either direction. */
  readonly streamIdleMs: number | null;
}

export const INHERITED_TIMEOUTS: RouteTimeouts = { requestMs: null, backendRequestMs: null, streamIdleMs: null };

export interface HttpRule {
  /** Gateway API rule name; null when it has none. */
  readonly name: string | null;
  /** Joined by OR; empty matches every request. */
  readonly matches: readonly RequestMatch[];
  /** Where each of them is written; null: under `fieldPath`, in their order. */
  readonly matchPaths: readonly string[] | null;
  /** In the order in which they are applied. */
  readonly filters: readonly RouteFilter[];
  /** Without any, and without a redirect or an answer of its own, requests get 500. */
  readonly backends: readonly RouteBackend[];
  readonly timeouts: RouteTimeouts;
  readonly retry: RetryPolicy | null;
  readonly sessionPersistence: SessionPersistence | null;
  readonly faults: readonly Fault[];
  /** Kept out of service: the rule's part that could not be enforced; requests that it matches get 500 with this reason. Null when sound. */
  readonly broken: string | null;
  /** e.g. `spec.rules[0]`. */
  readonly fieldPath: string;
}

/** TCPRoute and TLSRoute: connections, not requests. */
export interface ConnectionRule {
  /** SNI host names, `*.` wildcards included; empty for all connections. */
  readonly sni: readonly string[];
  readonly backends: readonly RouteBackend[];
  readonly fieldPath: string;
}

/** Of gRPC a service is the path `/service/` (textPrefix), a service and method `/service/method` (exact), a method alone `/[^/]+/method` (regex). */
export type RouteRules =
  | { readonly protocol: "http" | "grpc"; readonly rules: readonly HttpRule[]; /** `asWritten`: first rule wins (VirtualService). */ readonly precedence: "gatewayApi" | "asWritten" }
  | { readonly protocol: "tls" | "tcp"; readonly rules: readonly ConnectionRule[] };

export interface Route {
  /** `Kind/namespace/name`: unique over all kinds. */
  readonly id: string;
  readonly name: string;
  readonly namespace: string;
  readonly parents: readonly RouteParent[];
  readonly rules: RouteRules;
  /** Of two equal matches the older route wins, then the one whose `namespace/name` sorts first. Milliseconds since 1970. */
  readonly createdMs: number;
  readonly provenance: Provenance;
}
