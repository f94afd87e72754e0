// Objects of our own kinds, sound ones and ones with one thing wrong, each with what an API server is to say of it. The control plane's own
// check and the API server are held to the same list.

type Json = Readonly<Record<string, unknown>>;

export interface WrongSample {
  /** Fields by their path from `spec`, with what stands there; undefined takes a field away. */
  readonly set: Readonly<Record<string, unknown>>;
  /** Part of what the API server says. */
  readonly says: string;
  /** `api`: the control plane takes an object that is stored like this, and tells of it in another way. */
  readonly by?: "api";
}

export interface Samples {
  readonly kind: string;
  readonly sound: readonly Json[];
  /** Made of the first sound one. */
  readonly wrong: readonly WrongSample[];
}

const targetRefs = [{ kind: "Service", name: "web" }, { group: "networking.istio.io", kind: "ServiceEntry", name: "out" }, { group: "gateway.networking.k8s.io", kind: "Gateway", name: "waypoint" }];
const many = <T>(count: number, of: (index: number) => T): T[] => Array.from({ length: count }, (_, index) => of(index));
const record = (count: number, value: unknown): Json => Object.fromEntries(many(count, (index) => [`x-${index}`, value]));
const local = { name: "per-caller", requests: 100, per: "1s", burst: 50, keys: [{ identity: {} }, { header: "x-user" }], matches: [{ path: { regex: "/items/[0-9]+" }, method: "GET", headers: { "x-chaos": { exact: "yes" } }, queryParams: { q: {} }, sourceLabels: { "app.kubernetes.io/name": "web" } }] };
const global = { name: "shared", service: { name: "cart", port: 9090 }, domain: "shop", descriptors: [[{ key: "caller", identity: {} }, { key: "kind", value: "fixed" }]] };

export const SAMPLES: readonly Samples[] = [
  {
    kind: "TrafficPolicy",
    sound: [
      {
        targetRefs, port: 80, balancing: { type: "RingHash", hash: { cookie: { name: "id", path: "/", ttl: "0s" } }, minimumRingSize: 1024 }, slowStart: "30s", limits: { connections: 100, idleTimeout: "1h30m" },
        outlierDetection: { consecutive5xx: 5, successRate: { stdevFactor: 1.9 }, maxEjectionPercent: 50 }, healthCheck: { http: { path: "/healthz", statuses: [200] }, interval: "5s", timeout: "1s" },
        rateLimits: { local: [local], global: [global] }, adaptiveConcurrency: { minimum: 10, maximum: 500, priorityHeader: "x-priority", priorities: ["high", "low"] }, hedging: { after: "200ms" },
        retry: { attempts: 2, retryOn: "5xx, connect-failure,409", backoff: { base: "25ms", max: "250ms" } }, timeouts: { request: "15s", backendRequest: "5s" },
        faults: [{ percent: 1, bandwidth: { bytesPerSecond: 10_000 } }, { abort: { grpcStatus: "UNAVAILABLE" } }, { reset: {} }],
      },
      { targetRefs: [{ group: "core", kind: "Service", name: "web" }], balancing: { type: "Maglev", hash: { header: "x-user" }, tableSize: 65_537 }, healthCheck: { tcp: {} }, timeouts: { request: "0s", backendRequest: "5s" } },
      { targetRefs: targetRefs.slice(0, 1), balancing: { type: "PeakEwma" }, rateLimits: { global: [{ ...global, service: { host: "limits.example", port: 80 } }] } },
    ],
    wrong: [
      { set: { targetRefs: undefined }, says: "spec.targetRefs: Required value" },
      { set: { targetRefs: [] }, says: "spec.targetRefs" },
      { set: { targetRefs: many(17, (i) => ({ kind: "Service", name: `s${i}` })) }, says: "Too many: 17: must have at most 16 items" },
      { set: { "targetRefs.0": { kind: "Pod", name: "web" } }, says: "expected a Service, a ServiceEntry (group networking.istio.io), or a Gateway", by: "api" },
      { set: { "targetRefs.0": { kind: "Gateway", name: "waypoint" } }, says: "expected a Service, a ServiceEntry (group networking.istio.io), or a Gateway", by: "api" },
      { set: { "targetRefs.0.namespace": "Not A Namespace" }, says: "spec.targetRefs[0].namespace" },
      { set: { port: 0 }, says: "spec.port" },
      { set: { port: "80" }, says: "must be of type integer" },
      { set: { surprise: true }, says: 'unknown field "spec.surprise"' },
      { set: { "balancing.hsh": {} }, says: 'unknown field "spec.balancing.hsh"' },
      { set: { "balancing.type": "Best" }, says: 'supported values: "PeakEwma", "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"' },
      { set: { "balancing.type": "RoundRobin" }, says: "expected a hash with RingHash and Maglev, and with no other type" },
      { set: { "balancing.hash": undefined }, says: "expected a hash with RingHash and Maglev, and with no other type" },
      { set: { "balancing.type": "Maglev" }, says: "found minimumRingSize beside another type than RingHash" },
      { set: { "balancing.tableSize": 7 }, says: "found tableSize beside another type than Maglev" },
      { set: { "balancing.hash": { header: "x-user", sourceIp: {} } }, says: "expected exactly one of header, cookie, query and sourceIp" },
      { set: { "balancing.hash": {} }, says: "expected exactly one of header, cookie, query and sourceIp" },
      { set: { "balancing.hash.cookie.path": "no-slash" }, says: "expected a path that begins with /" },
      { set: { slowStart: "soon" }, says: "expected a duration of at least 1ms" },
      { set: { slowStart: "0s" }, says: "expected a duration of at least 1ms" },
      { set: { slowStart: "600h" }, says: "expected a duration of at least 1ms" },
      { set: { slowStart: 30 }, says: "must be of type string" },
      { set: { "limits.connections": 0 }, says: "should be greater than or equal to 1" },
      { set: { "outlierDetection.maxEjectionPercent": 101 }, says: "should be less than or equal to 100" },
      { set: { "healthCheck.timeout": "6s" }, says: "expected timeout at most interval" },
      { set: { "healthCheck.tcp": {} }, says: "expected exactly one of http, grpc and tcp" },
      { set: { "healthCheck.http.path": "/a/../b" }, says: "expected a path without //, /./, /../ and %2F" },
      { set: { "healthCheck.http.path": "/a b" }, says: "spec.healthCheck.http.path" },
      { set: { "healthCheck.http.host": "Not A Host" }, says: "spec.healthCheck.http.host" },
      { set: { "healthCheck.http.headers": { "not a header": "x" } }, says: "expected names of headers" },
      { set: { "healthCheck.http.headers": { "x-a": " padded" } }, says: "spec.healthCheck.http.headers" },
      { set: { "rateLimits.local": [local, local] }, says: "Duplicate value" },
      { set: { "rateLimits.local": many(33, (i) => ({ ...local, name: `n${i}` })) }, says: "must have at most 32 items" },
      { set: { "rateLimits.local.0.keys.0": { identity: {}, claim: "sub" } }, says: "expected exactly one of identity, header, path, claim and sourceIp" },
      { set: { "rateLimits.local.0.matches": many(17, () => ({})) }, says: "must have at most 16 items" },
      { set: { "rateLimits.local.0.matches.0.path": { regex: "(" } }, says: "missing closing" },
      { set: { "rateLimits.local.0.matches.0.path": { regex: "a".repeat(1025) } }, says: "may not be more than 1024" },
      { set: { "rateLimits.local.0.matches.0.path": { regex: "a", exact: "/a" } }, says: "expected exactly one of exact, prefix and regex" },
      { set: { "rateLimits.local.0.matches.0.headers": { "x-a": { exact: "1", prefix: "2" } } }, says: "expected at most one of exact, prefix and regex" },
      { set: { "rateLimits.local.0.matches.0.headers": record(17, {}) }, says: "must have at most 16 items" },
      { set: { "rateLimits.local.0.matches.0.headers": { "x a": {} } }, says: "expected names of headers" },
      { set: { "rateLimits.local.0.matches.0.queryParams": { ["q".repeat(257)]: {} } }, says: "expected names of at most 256 characters" },
      { set: { "rateLimits.local.0.matches.0.sourceLabels": { "/": "x" } }, says: "expected names of labels" },
      { set: { "rateLimits.local.0.matches.0.sourceLabels": { app: "not a label" } }, says: "sourceLabels" },
      { set: { "rateLimits.local.0.matches.0.method": "LOOK" }, says: "Unsupported value" },
      { set: { "rateLimits.global.0.service": { port: 80 } }, says: "expected name (with namespace) or host" },
      { set: { "rateLimits.global.0.descriptors.0.0": { key: "a" } }, says: "expected exactly one of identity, header, path, claim, sourceIp and value" },
      { set: { "adaptiveConcurrency.minimum": 501 }, says: "expected minimum at most maximum" },
      { set: { "adaptiveConcurrency.priorityHeader": undefined }, says: "found priorities without priorityHeader" },
      { set: { "retry.attempts": 11 }, says: "should be less than or equal to 10" },
      { set: { "retry.retryOn": "5xx,whenever" }, says: "expected conditions such as 5xx" },
      { set: { "retry.backoff.base": "1s" }, says: "expected base at most max" },
      { set: { "timeouts.backendRequest": "16s" }, says: "expected backendRequest at most request" },
      { set: { "faults.0.delay": "1s" }, says: "expected exactly one of delay, abort, reset and bandwidth" },
      { set: { "faults.1.abort": { httpStatus: 503, grpcStatus: "OK" } }, says: "expected exactly one of httpStatus and grpcStatus" },
      { set: { "faults.1.abort": { grpcStatus: "WORSE" } }, says: "Unsupported value" },
    ],
  },
  {
    kind: "LoginPolicy",
    sound: [
      { targetRefs, issuer: "https://login.example", clientId: "shop", clientSecretRef: { name: "login" }, scopes: ["email"], callbackPath: "/callback", logoutPath: "/logout", cookie: { keysRef: { name: "login", key: "keys" }, lifetime: "8h" } },
      { targetRefs, issuer: "http://login.example:8080/realm", clientId: "shop", clientSecretRef: { name: "login" }, cookie: { name: "session", keysRef: { name: "login" }, lifetime: "168h" } },
    ],
    wrong: [
      { set: { issuer: "login.example" }, says: "expected an http:// or https:// URL" },
      { set: { issuer: "ftp://login.example" }, says: "expected an http:// or https:// URL" },
      { set: { issuer: undefined }, says: "spec.issuer: Required value" },
      { set: { clientSecretRef: { name: "Not A Secret" } }, says: "spec.clientSecretRef.name" },
      { set: { logoutPath: "/callback" }, says: "found the same path as callbackPath and logoutPath" },
      { set: { callbackPath: "/a//b" }, says: "expected a path without //" },
      { set: { "cookie.lifetime": "169h" }, says: "expected a lifetime of at most 168h" },
      { set: { "cookie.name": "a b" }, says: "spec.cookie.name" },
      { set: { scopes: ["two words"] }, says: "spec.scopes[0]" },
      { set: { "cookie.keysRef": undefined }, says: "spec.cookie.keysRef: Required value" },
    ],
  },
  {
    kind: "TokenIntrospection",
    sound: [{ targetRefs, issuer: "opaque", url: "https://login.example/introspect", clientId: "shop", clientSecretRef: { name: "login" }, audiences: ["shop"], fromHeaders: [{ name: "x-token", prefix: "Bearer " }], outputClaimToHeaders: [{ header: "x-sub", claim: "sub" }], timeout: "2s" }],
    wrong: [
      { set: { url: "introspect" }, says: "expected an http:// or https:// URL" },
      { set: { audiences: many(65, String) }, says: "must have at most 64 items" },
      { set: { timeout: "0s" }, says: "expected a duration of at least 1ms" },
      { set: { fromHeaders: [{ name: "" }] }, says: "spec.fromHeaders[0].name" },
    ],
  },
  {
    kind: "MeshConfig",
    sound: [{
      extensionProviders: [
        { name: "opa", envoyExtAuthzGrpc: { service: "opa.istio-system.svc.cluster.local", port: 9191, timeout: "250ms", statusOnError: "503" } },
        { name: "check", envoyExtAuthzHttp: { service: "shop/check.example", port: 8000, statusOnError: 403, includeRequestHeadersInCheck: ["x-*"], includeAdditionalHeadersInCheck: { "x-from": "mesh" } } },
        { name: "otel", opentelemetry: { service: "otel.example", port: 4317, grpc: { timeout: "1s" } } }, { name: "lines", envoyFileAccessLog: { path: "/dev/stdout", logFormat: { labels: { path: "%REQ(:PATH)%" } } } },
      ],
      defaultProviders: { tracing: ["otel"], accessLogging: ["lines", "envoy"], metrics: ["prometheus"] },
    }, {}],
    wrong: [
      { set: { "extensionProviders.1.name": "opa" }, says: "Duplicate value" },
      { set: { "extensionProviders.1.name": "prometheus" }, says: "found a name that is taken" },
      { set: { "extensionProviders.0.opentelemetry": { service: "a", port: 1 } }, says: "expected exactly one of envoyExtAuthzGrpc" },
      { set: { "extensionProviders.0": { name: "none" } }, says: "expected exactly one of envoyExtAuthzGrpc" },
      { set: { "extensionProviders.0.envoyExtAuthzGrpc.statusOnError": "99" }, says: "statusOnError" },
      { set: { "extensionProviders.1.envoyExtAuthzHttp.statusOnError": 600 }, says: "should be less than or equal to 599" },
      { set: { "extensionProviders.1.envoyExtAuthzHttp.includeRequestHeadersInCheck": ["x y"] }, says: "includeRequestHeadersInCheck[0]" },
      { set: { "extensionProviders.1.envoyExtAuthzHttp.includeAdditionalHeadersInCheck": { "x y": "z" } }, says: "expected names of headers" },
      { set: { "extensionProviders.2.opentelemetry.http": { path: "/v1/traces" } }, says: "found http beside grpc" },
      { set: { "extensionProviders.3.envoyFileAccessLog.path": "/var/log/mesh" }, says: 'supported values: "/dev/stdout"' },
      { set: { "extensionProviders.3.envoyFileAccessLog.logFormat.text": "%PROTOCOL%" }, says: "expected text or labels" },
      { set: { "defaultProviders.tracing": ["absent"] }, says: "found a name in defaultProviders.tracing which none of extensionProviders is called" },
    ],
  },
];

export function withSet(spec: Json, set: WrongSample["set"]): Json {
  const copy = structuredClone(spec) as Record<string, unknown>;
  for (const [path, value] of Object.entries(set)) {
    const steps = path.split(".");
    let at: object = copy;
    for (const step of steps.slice(0, -1)) at = Reflect.get(at, step) as object;
    if (value === undefined) Reflect.deleteProperty(at, steps.at(-1)!);
    else Reflect.set(at, steps.at(-1)!, value);
  }
  return copy;
}
