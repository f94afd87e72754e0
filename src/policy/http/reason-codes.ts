// Every answer that this mesh makes by itself, by a stable code: it stands in the response header, in the access log, in metrics, and in
// docs/response-codes.md, which a test holds to this table. Flags are Envoy's, so that dashboards and habits keep working.

/** gRPC status codes, by the names of the gRPC specification. */
export const GRPC_STATUS = {
  OK: 0, CANCELLED: 1, UNKNOWN: 2, INVALID_ARGUMENT: 3, DEADLINE_EXCEEDED: 4, NOT_FOUND: 5, PERMISSION_DENIED: 7, RESOURCE_EXHAUSTED: 8, UNIMPLEMENTED: 12, INTERNAL: 13,
  UNAVAILABLE: 14, UNAUTHENTICATED: 16,
} as const;
export type GrpcStatusName = keyof typeof GRPC_STATUS;

/** The response header that carries the code. */
export const REASON_HEADER = "x-weft-reason";

export interface ReasonCodeEntry {
  /** Null: given by the rule that answers. */
  readonly status: number | null;
  /** Null: the answer is no error, or has no form in gRPC. */
  readonly grpc: GrpcStatusName | null;
  /** Envoy's response flag; "" where Envoy has none. */
  readonly flag: string;
  readonly meaning: string;
  readonly action: string;
}

export const REASON_CODES = {
  // ---- the request itself
  bad_request: { status: 400, grpc: "INTERNAL", flag: "DPE", meaning: "The request breaks HTTP: its framing, a header, its path or its host can be read in more than one way.", action: "Look at the detail in the access log and mend the client; such requests are how smuggling works." },
  headers_too_large: { status: 431, grpc: "RESOURCE_EXHAUSTED", flag: "DPE", meaning: "The head of the request is larger than the limit; of an HTTP/1 request line, 414 is answered.", action: "Send fewer or shorter headers; often a cookie has grown." },
  body_too_large: { status: 413, grpc: "RESOURCE_EXHAUSTED", flag: "", meaning: "The body is larger than a rule allows it to be held.", action: "Send less, or raise the limit of the rule that is named." },
  request_timeout_reading: { status: 408, grpc: "CANCELLED", flag: "DT", meaning: "The client did not send its request in time.", action: "Look at the client or at the network before it." },
  // ---- routes
  route_not_found: { status: 404, grpc: "UNIMPLEMENTED", flag: "NR", meaning: "Routes are attached to the service, and none matches the request.", action: "Compare method, path and headers with the routes of this service and port, or add a rule that matches everything." },
  rule_broken: { status: 500, grpc: "INTERNAL", flag: "", meaning: "The rule that matches has a part that cannot be enforced, so it serves nothing.", action: "Mend the rule that is named; its status says what is wrong with it." },
  no_backend: { status: 500, grpc: "UNAVAILABLE", flag: "NC", meaning: "The rule that matches has no backend, no redirect and no answer of its own.", action: "Give the rule a backend." },
  weights_all_zero: { status: 500, grpc: "UNAVAILABLE", flag: "NC", meaning: "Every backend of the rule has weight 0.", action: "Give one backend a weight above 0." },
  backend_invalid: { status: 500, grpc: "UNAVAILABLE", flag: "NC", meaning: "The backend that was chosen by weight cannot be used: it does not exist, is of an unknown kind, or may not be used from another namespace.", action: "Mend the reference that is named, or allow it with a ReferenceGrant." },
  redirect: { status: null, grpc: null, flag: "", meaning: "A rule redirects the request.", action: "Nothing: this is what the rule says." },
  direct_response: { status: null, grpc: null, flag: "", meaning: "A rule answers the request by itself.", action: "Nothing: this is what the rule says." },
  cors_preflight: { status: 204, grpc: null, flag: "", meaning: "A browser asked before a cross-origin request, and may send it.", action: "Nothing." },
  cors_preflight_denied: { status: 204, grpc: null, flag: "", meaning: "A browser asked before a cross-origin request from an origin that no rule allows; without CORS headers it will not send it.", action: "Add the origin to the rule that is named, if it should be allowed." },
  // ---- faults on purpose
  fault_abort: { status: null, grpc: null, flag: "FI", meaning: "A fault rule ended the request on purpose.", action: "Remove the fault when the experiment is over." },
  fault_reset: { status: 503, grpc: "UNAVAILABLE", flag: "FI", meaning: "A fault rule reset the connection or stream on purpose; nothing is answered.", action: "Remove the fault when the experiment is over." },
  // ---- who is asking
  token_missing: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The service needs a token and the request has none.", action: "Send a token of one of the issuers that the policy names." },
  token_malformed: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "What stands where a token belongs is no token.", action: "Send the token as the policy expects it, e.g. after `Bearer `." },
  token_several: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "One place of the request holds several tokens; which one counts would be a guess.", action: "Send one token in each place." },
  token_algorithm: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token is not signed by an asymmetric algorithm that is accepted; `none` and the HS family never are.", action: "Let the issuer sign with RS256, PS256, ES256, EdDSA or their longer forms." },
  token_issuer: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token comes from an issuer that no rule names.", action: "Use an issuer of the policy, or add this one." },
  token_audience: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token was issued for somebody else.", action: "Ask the issuer for a token with one of the audiences that the policy names." },
  token_expired: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token's time is over.", action: "Ask for a new token; if that is new, compare the clocks." },
  token_not_yet_valid: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token's time has not begun.", action: "Compare the clocks of the issuer and of this node." },
  token_signature: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "No key of the issuer made this signature.", action: "Check that the token was not changed, and that the policy names the issuer's present keys." },
  token_key_unknown: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The token names a key that the issuer does not publish, even after asking again.", action: "Check that issuer and key set belong together." },
  token_inactive: { status: 401, grpc: "UNAUTHENTICATED", flag: "", meaning: "The issuer was asked and says that the token is not, or no longer, active.", action: "Log in again." },
  token_keys_unavailable: { status: 503, grpc: "UNAVAILABLE", flag: "", meaning: "The issuer's keys could not be fetched and none are held from before, so that no token can be checked.", action: "Look at the issuer's address and at the path to it; the detail says what was tried." },
  access_denied: { status: 403, grpc: "PERMISSION_DENIED", flag: "", meaning: "A DENY policy matches the request.", action: "The policy and its rule are named in the log; change it if the request should pass." },
  access_not_allowed: { status: 403, grpc: "PERMISSION_DENIED", flag: "", meaning: "ALLOW policies apply, and none matches the request.", action: "Add a rule that allows this caller, method and path." },
  access_policy_unenforceable: { status: 403, grpc: "PERMISSION_DENIED", flag: "", meaning: "A policy that applies cannot be enforced, e.g. its external authorizer is not configured. It denies rather than being skipped.", action: "Mend the policy that is named." },
  authorizer_denied: { status: 403, grpc: "PERMISSION_DENIED", flag: "UAEX", meaning: "The external authorizer refused the request.", action: "Ask the authorizer's log." },
  authorizer_failed: { status: 403, grpc: "PERMISSION_DENIED", flag: "UAEX", meaning: "The external authorizer did not answer, and its failures deny.", action: "Look at the authorizer's health; the provider's settings say what a failure means." },
  login_required: { status: 302, grpc: "UNAUTHENTICATED", flag: "", meaning: "The request has no session. A browser that opens a page is sent to log in; anything else gets 401.", action: "Open the page in a browser and log in; programs send a token instead." },
  login_failed: { status: 403, grpc: "PERMISSION_DENIED", flag: "", meaning: "The answer of the identity provider could not be accepted.", action: "Begin again; the detail says which step failed." },
  login_unavailable: { status: 503, grpc: "UNAVAILABLE", flag: "", meaning: "The identity provider could not be asked, so that nobody can log in.", action: "Look at the provider and at the path to it; the detail says what was tried." },
  login_done: { status: 302, grpc: null, flag: "", meaning: "A browser has logged in and is sent back to where it began.", action: "Nothing." },
  logged_out: { status: null, grpc: null, flag: "", meaning: "A browser was logged out: told so, or sent on to the identity provider's own logout.", action: "Nothing." },
  // ---- limits
  rate_limited: { status: 429, grpc: "RESOURCE_EXHAUSTED", flag: "RL", meaning: "A rate limit is used up.", action: "Try again after the time in the RateLimit headers, or raise the limit that is named." },
  rate_limit_failed: { status: 500, grpc: "UNAVAILABLE", flag: "RLSE", meaning: "The rate limit service did not answer, and its failures deny.", action: "Look at the rate limit service." },
  overloaded: { status: 503, grpc: "UNAVAILABLE", flag: "OM", meaning: "This proxy sheds load before it runs out of memory or time.", action: "Add waypoint instances, or lower the load." },
  concurrency_limited: { status: 503, grpc: "UNAVAILABLE", flag: "UO", meaning: "The service answers more slowly than it is asked; requests of this priority are shed.", action: "Add endpoints to the service, or give the request a higher priority." },
  circuit_open: { status: 503, grpc: "UNAVAILABLE", flag: "UO", meaning: "A limit on connections, pending or active requests is reached.", action: "Raise the limit that is named, or add endpoints." },
  // ---- endpoints
  service_unknown: { status: 503, grpc: "UNAVAILABLE", flag: "NC", meaning: "The service that the request is for is not known.", action: "Check the host that the client uses and the Service." },
  host_not_covered: { status: 404, grpc: "UNIMPLEMENTED", flag: "NR", meaning: "The service stands for every host under a wildcard, and the request names none of them.", action: "Send the host's own name in Host, or as the server name of TLS; a host that has a service of its own is reached by that." },
  hosts_exhausted: { status: 503, grpc: "UNAVAILABLE", flag: "UO", meaning: "As many hosts under wildcards as may be in use at once are in use.", action: "Give the hosts that are used most a ServiceEntry of their own, or wait until some are idle." },
  address_refused: { status: 403, grpc: "PERMISSION_DENIED", flag: "UF", meaning: "The name of the request leads to an address that a name from outside may not lead to: loopback, link-local, one of the mesh's own, or a private one.", action: "The detail names the address. What is in the mesh is reached by its service; private addresses are allowed by an annotation of the ServiceEntry." },
  no_endpoints: { status: 503, grpc: "UNAVAILABLE", flag: "UH", meaning: "The service has no endpoints.", action: "Check its selector and that its workloads run." },
  no_healthy_endpoint: { status: 503, grpc: "UNAVAILABLE", flag: "UH", meaning: "The service has endpoints, and none is healthy.", action: "Look at the workloads' readiness and at ejections and health checks in the log." },
  connect_failed: { status: 503, grpc: "UNAVAILABLE", flag: "UF", meaning: "No connection to the endpoint could be made.", action: "The detail says which step failed: the address, the certificate or the application." },
  tls_failed: { status: 503, grpc: "UNAVAILABLE", flag: "UF", meaning: "The endpoint was reached, and TLS with it failed: it did not prove to be who was meant, did not accept us, or nothing was agreed on.", action: "The detail says what was seen and what was wanted: mend the server's certificate, or the names, authority or client certificate of the BackendTLSPolicy or DestinationRule." },
  endpoint_denied: { status: 503, grpc: "UNAVAILABLE", flag: "UF", meaning: "A policy at the endpoint denies this waypoint the connection.", action: "Allow the waypoint's identity in the AuthorizationPolicy of the workload; the log of the endpoint's node names the policy." },
  upstream_reset: { status: 503, grpc: "UNAVAILABLE", flag: "UC", meaning: "The endpoint closed the connection before it answered.", action: "Look at the application's log; a crash or a short idle timeout are usual." },
  upstream_protocol: { status: 502, grpc: "UNAVAILABLE", flag: "UPE", meaning: "The endpoint's answer breaks HTTP.", action: "Check that the port speaks the protocol that it is declared with." },
  tls_broken: { status: 500, grpc: "UNAVAILABLE", flag: "UF", meaning: "TLS towards the backend, or another setting of its connections, was asked for and cannot be had, so nothing is sent.", action: "Mend the BackendTLSPolicy or DestinationRule that the detail names." },
  request_timeout: { status: 504, grpc: "DEADLINE_EXCEEDED", flag: "UT", meaning: "The request's time was over before an answer was complete.", action: "Raise the timeout that is named, or find out why the service is slow." },
  per_try_timeout: { status: 504, grpc: "DEADLINE_EXCEEDED", flag: "UPT", meaning: "An attempt took longer than one may, and no other was left.", action: "Raise the timeout that is named, or find out why the service is slow." },
  stream_idle_timeout: { status: 504, grpc: "DEADLINE_EXCEEDED", flag: "SI", meaning: "No byte moved in either direction for longer than allowed.", action: "Raise the idle timeout, or let the application send keepalives." },
  draining: { status: 503, grpc: "UNAVAILABLE", flag: "", meaning: "This proxy is shutting down.", action: "Repeat the request; another instance takes it." },
  upgrade_refused: { status: 403, grpc: null, flag: "", meaning: "The request asks for a protocol that may not be changed to here.", action: "Check the protocol's name and the rule's upgrades." },
} as const satisfies Readonly<Record<string, ReasonCodeEntry>>;

export type ReasonCode = keyof typeof REASON_CODES;

export function reasonEntry(code: ReasonCode): ReasonCodeEntry {
  return REASON_CODES[code];
}

/** The gRPC status that stands for an HTTP status where no code says better (the gRPC project's own mapping). */
export function grpcStatusOf(httpStatus: number): number {
  switch (httpStatus) {
    case 400: return GRPC_STATUS.INTERNAL;
    case 401: return GRPC_STATUS.UNAUTHENTICATED;
    case 403: return GRPC_STATUS.PERMISSION_DENIED;
    case 404: return GRPC_STATUS.UNIMPLEMENTED;
    case 429: case 502: case 503: case 504: return GRPC_STATUS.UNAVAILABLE;
    default: return GRPC_STATUS.UNKNOWN;
  }
}
