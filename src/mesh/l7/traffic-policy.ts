// How requests to a service are balanced, limited and protected: DestinationRule, XBackendTrafficPolicy, BackendTLSPolicy and our
// TrafficPolicy, merged into one record for each service, port and subset. Null fields mean "not said": src/policy holds the defaults.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { Fault } from "./fault.ts";
import type { RequestMatch } from "./match.ts";
import type { RetryPolicy, RouteTimeouts, SessionPersistence } from "./route.ts";

/** What a consistent hash is taken of. */
export type HashKey =
  | { readonly kind: "header"; readonly name: string }
  /** With a lifetime the cookie is made when it is missing. */
  | { readonly kind: "cookie"; readonly name: string; readonly path: string; readonly ttlMs: number | null }
  | { readonly kind: "query"; readonly name: string }
  | { readonly kind: "sourceIp" };

export type Balancing =
  /** Peak-EWMA with two random choices; the default. */
  | { readonly kind: "peakEwma" }
  | { readonly kind: "leastRequest" }
  | { readonly kind: "roundRobin" }
  | { readonly kind: "random" }
  | { readonly kind: "ringHash"; readonly key: HashKey; readonly ringSizeMin: number }
  | { readonly kind: "maglev"; readonly key: HashKey; readonly tableSize: number }
  /** The original destination. */
  | { readonly kind: "passthrough" };

export interface LocalityFailover {
  /** `strict` uses no other locality; `failover` goes outwards as health falls; `distribute` by given weights. */
  readonly mode: "off" | "failover" | "distribute";
  readonly distribute: readonly { readonly from: string; readonly to: readonly { readonly locality: string; readonly weight: number }[] }[];
  readonly failover: readonly { readonly from: string; readonly to: string }[];
  /** Labels that rank endpoints, most important first. */
  readonly failoverPriority: readonly string[];
}

/** Circuit breaking: past a limit a request is refused at once with 503 and a reason. */
export interface ConnectionLimits {
  readonly connectionsMax: number | null;
  readonly pendingRequestsMax: number | null;
  readonly activeRequestsMax: number | null;
  readonly activeRetriesMax: number | null;
  readonly requestsPerConnectionMax: number | null;
  readonly connectTimeoutMs: number | null;
  readonly idleTimeoutMs: number | null;
  readonly connectionAgeMaxMs: number | null;
  /** HTTP/1.1 requests are sent as HTTP/2 to endpoints. */
  readonly upgradeToHttp2: boolean | null;
}

export interface OutlierDetection {
  readonly consecutive5xx: number | null;
  readonly consecutiveGatewayErrors: number | null;
  readonly consecutiveConnectFailures: number | null;
  /** Connections that could not be made are counted apart, and not among the errors that answers are. */
  readonly splitConnectFailures: boolean | null;
  /** Statuses of answers that count as errors, instead of all from 500 on. */
  readonly errorStatuses: readonly number[] | null;
  readonly successRate: { readonly requestsMin: number; readonly hostsMin: number; readonly stdevFactor: number } | null;
  readonly intervalMs: number | null;
  readonly baseEjectionMs: number | null;
  readonly ejectionMaxMs: number | null;
  /** Largest share of endpoints ejected at once, 0 to 1. */
  readonly ejectedShareMax: number | null;
  /** Below this share of healthy endpoints all are used, 0 to 1. */
  readonly panicThreshold: number | null;
}

export interface HealthCheck {
  readonly probe:
    | { readonly kind: "http"; readonly path: string; readonly host: string | null; readonly statuses: readonly number[]; readonly headers: readonly (readonly [string, string])[] }
    | { readonly kind: "grpc"; readonly service: string }
    | { readonly kind: "tcp" };
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly healthyThreshold: number;
  readonly unhealthyThreshold: number;
  /** Null: the endpoint's own port. */
  readonly port: number | null;
}

export type RateLimitKey =
  | { readonly kind: "identity" }
  | { readonly kind: "header"; readonly name: string }
  | { readonly kind: "path" }
  | { readonly kind: "claim"; readonly path: readonly string[] }
  | { readonly kind: "sourceIp" };

/** Token bucket in this process. Requests that find no token get 429 with RateLimit headers. */
export interface LocalRateLimit {
  readonly name: string;
  readonly requests: number;
  readonly perMs: number;
  readonly burst: number;
  /** One bucket for each combination of values; empty for one bucket in all. */
  readonly keys: readonly RateLimitKey[];
  readonly matches: readonly RequestMatch[];
  readonly fieldPath: string;
}

/** Counted by a service that speaks envoy.service.ratelimit.v3. */
export interface GlobalRateLimit {
  readonly name: string;
  readonly service: NamespacedName;
  readonly port: number;
  readonly domain: string;
  readonly descriptors: readonly (readonly { readonly key: string; readonly value: RateLimitKey | { readonly kind: "literal"; readonly text: string } }[])[];
  /** What one request counts: so many hits, or as many as its header says where it says a number. */
  readonly hits: number;
  readonly hitsHeader: string | null;
  readonly timeoutMs: number;
  /** What happens when the service does not answer. */
  readonly onFailure: "allow" | "deny";
  readonly matches: readonly RequestMatch[];
  readonly fieldPath: string;
}

export interface AdaptiveConcurrency {
  readonly limitMin: number;
  readonly limitMax: number;
  /** Requests of the lowest classes are shed first: header that names the class, and the classes from highest to lowest. */
  readonly priorityHeader: string | null;
  readonly priorities: readonly string[];
}

export interface Hedging {
  /** Idempotent requests only: another attempt after this time without an answer. */
  readonly afterMs: number;
  readonly attemptsMax: number;
}

/** How many retries a service can bear: a share of its requests, and a few whatever the share. */
export type RetryBudget =
  /** Of the requests and retries of the last interval; the few are counted over one of their own. */
  | { readonly kind: "overTime"; /** 0 to 1. */ readonly fraction: number; readonly intervalMs: number; readonly retriesMin: number; readonly retriesMinPerMs: number }
  /** Of those that are under way at the moment. */
  | { readonly kind: "underWay"; readonly fraction: number; readonly retriesMin: number };

/** A name that a server's certificate may show. */
export interface CertificateName {
  /** `any`: whichever kind of name it is. */
  readonly type: "any" | "dns" | "uri";
  /** A host name in lower case, for `dns` perhaps with `*` as its first label; a URI; an address. */
  readonly value: string;
}

/** The service is a wildcard, and each request says which host under it it is for. */
export interface DynamicHosts {
  /** Names may lead to private addresses. */
  readonly allowPrivate: boolean;
}

/** TLS that the mesh originates towards a backend, beside its own mutual TLS. */
export type BackendTls =
  | { readonly mode: "off" }
  /** The mesh's own mutual TLS: a tunnel has it in any case, and to an endpoint that is reached without one it is made. */
  | { readonly mode: "mesh" }
  | {
    readonly mode: "simple" | "mutual";
    /** Null: the service's own host name. */
    readonly sni: string | null;
    /** One of them must be in the certificate; empty: the name that was asked for by SNI. */
    readonly subjectAltNames: readonly CertificateName[];
    /** PEM; null for the system's roots. */
    readonly caPem: string | null;
    /** Lists of revoked certificates, signed by authorities of `caPem` (PEM); null for none. */
    readonly crlPem: string | null;
    readonly certificate: { readonly certificatePem: string; readonly keyPem: string } | null;
    /** Without one of its own, the waypoint's (Gateway, spec.tls.backend) is shown where that has one. */
    readonly gatewayCertificate: boolean;
    /** False: neither chain nor names are looked at (insecureSkipVerify). */
    readonly verify: boolean;
  }
  /** What was asked for could not be had: requests get 500 with this reason, never go out unprotected. */
  | { readonly mode: "broken"; readonly reason: string };

export interface Subset {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface TrafficPolicy {
  /** The service, and what part of it: the most specific record wins field by field. */
  readonly service: NamespacedName;
  readonly port: number | null;
  readonly subset: Subset | null;
  /** Client namespace to which it is limited (a DestinationRule beside the client); null for all. */
  readonly clientNamespace: string | null;
  readonly balancing: Balancing | null;
  readonly locality: LocalityFailover | null;
  /** New endpoints get a growing share over this time. */
  readonly slowStartMs: number | null;
  readonly limits: ConnectionLimits | null;
  readonly outliers: OutlierDetection | null;
  readonly healthCheck: HealthCheck | null;
  readonly localRateLimits: readonly LocalRateLimit[];
  readonly globalRateLimits: readonly GlobalRateLimit[];
  readonly adaptiveConcurrency: AdaptiveConcurrency | null;
  readonly hedging: Hedging | null;
  readonly retry: RetryPolicy | null;
  readonly retryBudget: RetryBudget | null;
  readonly timeouts: RouteTimeouts | null;
  readonly sessionPersistence: SessionPersistence | null;
  readonly tls: BackendTls | null;
  /** Null: its endpoints are the configuration's. */
  readonly dynamicHosts: DynamicHosts | null;
  readonly faults: readonly Fault[];
  /** Field name (as above) to where it came from; also of each rate limit (`localRateLimits.NAME`) and timeout (`timeouts.requestMs`). */
  readonly provenance: Readonly<Record<string, Provenance>>;
}
