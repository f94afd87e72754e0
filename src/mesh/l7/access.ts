// Who may send which request: AuthorizationPolicy with its L7 fields, RequestAuthentication, and LoginPolicy, as a waypoint enforces them.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import type { Cidr } from "../../core/ip.ts";
import type { PolicyMatch, StringMatch } from "../records.ts";

/** Which services of which waypoint a record binds. */
export type AccessTarget =
  | { readonly kind: "service"; readonly service: NamespacedName }
  /** Everything that the waypoint serves. */
  | { readonly kind: "waypoint"; readonly gateway: NamespacedName }
  /** Everything that waypoints of this namespace serve; "" for the whole mesh. */
  | { readonly kind: "namespace"; readonly namespace: string };

/** `{a}` is one segment, `{**}` any number: Istio's path templates. */
export type PathMatch = StringMatch | { readonly kind: "template"; readonly value: string };

export type ConditionKey =
  | { readonly kind: "header"; readonly name: string }
  | { readonly kind: "claim"; readonly path: readonly string[] }
  | { readonly kind: "audiences" | "presenter" | "requestPrincipal" | "sni" }
  /** A key that this version does not know: false in an allow policy, its `not` twin too, and true in any other, so that it opens nothing. */
  | { readonly kind: "unknown"; readonly text: string };

export interface RequestCondition {
  readonly key: ConditionKey;
  readonly values: readonly StringMatch[];
  readonly notValues: readonly StringMatch[];
}

/** As PolicyMatch: AND between fields, OR inside one. */
export interface RequestPolicyMatch extends PolicyMatch {
  readonly requestPrincipals: readonly StringMatch[];
  readonly notRequestPrincipals: readonly StringMatch[];
  readonly remoteIps: readonly Cidr[];
  readonly notRemoteIps: readonly Cidr[];
  readonly hosts: readonly StringMatch[];
  readonly notHosts: readonly StringMatch[];
  readonly methods: readonly StringMatch[];
  readonly notMethods: readonly StringMatch[];
  readonly paths: readonly PathMatch[];
  readonly notPaths: readonly PathMatch[];
  readonly conditions: readonly RequestCondition[];
}

export interface RequestPolicyRule {
  /** Joined by AND; the matches inside one by OR. */
  readonly clauses: readonly { readonly matches: readonly RequestPolicyMatch[] }[];
  readonly fieldPath: string;
}

/** An external authorizer: Envoy's gRPC protocol, or HTTP. */
export interface ExternalAuthorizer {
  readonly protocol: "grpc" | "http";
  readonly service: NamespacedName;
  readonly port: number;
  readonly timeoutMs: number;
  readonly onFailure: "allow" | "deny";
  readonly statusOnError: number;
  /** HTTP only: prefix of the path asked. */
  readonly pathPrefix: string;
  readonly includeRequestHeaders: readonly TextName[];
  readonly includeBodyBytesMax: number;
  readonly allowPartialBody: boolean;
  /** gRPC only: the body always as bytes; else as text where it is UTF-8. */
  readonly bodyAsBytes: boolean;
  /** What the authorizer changes of a request counts when its route is chosen; else the route is that of the request as it came. */
  readonly changesRoute: boolean;
  /** Sent with the question, beside the request's own. */
  readonly additionalHeaders: readonly (readonly [name: string, value: string])[];
  /** Of an answer that allows: what the request gets from it, and what the response to the client gets. */
  readonly headersUpstream: readonly TextName[];
  readonly headersDownstreamOnAllow: readonly TextName[];
  /** Of an answer that denies: what the client gets. */
  readonly headersDownstream: readonly TextName[];
}

/** Name of a header, lower case; `*` at its end stands for any rest. */
export type TextName = string;

export type RequestPolicyAction =
  | { readonly kind: "allow" | "deny" | "audit" }
  | { readonly kind: "custom"; readonly provider: string; /** Null: the provider is not configured, which denies. */ readonly authorizer: ExternalAuthorizer | null };

export interface RequestPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly targets: readonly AccessTarget[];
  readonly action: RequestPolicyAction;
  readonly dryRun: boolean;
  /** Joined by OR; none matches nothing. */
  readonly rules: readonly RequestPolicyRule[];
  readonly provenance: Provenance;
}

export type TokenSource =
  /** `prefix` is cut off, e.g. `Bearer `. */
  | { readonly kind: "header"; readonly name: string; readonly prefix: string }
  | { readonly kind: "query"; readonly name: string }
  | { readonly kind: "cookie"; readonly name: string };

export interface JwtRule {
  readonly issuer: string;
  /** Empty: any audience. */
  readonly audiences: readonly string[];
  /** Where the keys are: given, at a URL, or found by OpenID discovery from the issuer. */
  readonly keys:
    | { readonly kind: "inline"; readonly jwks: string }
    | { readonly kind: "url"; readonly url: string }
    | { readonly kind: "discovery" }
    | { readonly kind: "introspection"; readonly url: string; readonly clientId: string; readonly clientSecret: string }
    /** Something it needs is not there (a Secret): every token of this issuer is refused with this reason. */
    | { readonly kind: "unavailable"; readonly reason: string };
  readonly sources: readonly TokenSource[];
  readonly forwardOriginalToken: boolean;
  /** Header that gets the payload, base64url; null for none. */
  readonly payloadHeader: string | null;
  readonly claimsToHeaders: readonly { readonly header: string; readonly claim: readonly string[] }[];
  /** Text claims that hold a list separated by spaces, e.g. `scope`. */
  readonly spaceDelimitedClaims: readonly string[];
  readonly fetchTimeoutMs: number;
  readonly clockSkewMs: number;
  readonly fieldPath: string;
}

export interface RequestAuthentication {
  readonly name: string;
  readonly namespace: string;
  readonly targets: readonly AccessTarget[];
  readonly rules: readonly JwtRule[];
  readonly provenance: Provenance;
}

/** Browser login by OpenID Connect, authorisation code with PKCE. */
export interface LoginPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly targets: readonly AccessTarget[];
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly scopes: readonly string[];
  /** Ask the userinfo endpoint too: some providers put little into ID tokens. */
  readonly userInfo: boolean;
  /** Path at this host to which the provider sends the browser back. */
  readonly callbackPath: string;
  readonly logoutPath: string;
  readonly cookieName: string;
  /** At least 32 bytes, hex; the first encrypts, all decrypt. */
  readonly cookieKeys: readonly string[];
  readonly sessionMs: number;
  /** What it needs and is not there (a Secret): every request that it covers gets 500 with this reason. Null when sound. */
  readonly broken: string | null;
  readonly provenance: Provenance;
}
