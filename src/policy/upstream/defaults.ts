// Every default of a service's upstream settings, each with its reason and with what Envoy and Istio do where nothing is said.
// Nobody else writes one of these numbers; relations between them are checked when this file is loaded.

/** No limit: larger than anything that is counted here, and an exact integer. */
export const UNLIMITED = Number.MAX_SAFE_INTEGER;

// ---- balancing

/** Peak-EWMA. Envoy: round robin; Istio: least request. Neither sees that an endpoint has become slow. */
export const BALANCING_DEFAULT = "peakEwma";
/** Time after which an observation of latency counts for 1/e: long against a request, short against a deployment. linkerd: 10 s. */
export const LATENCY_DECAY_MS = 10_000;
/** Latency of an endpoint when nothing is known of any: only its ratio to others counts, so this is what the first answers are mixed with. */
export const LATENCY_INITIAL_MS = 10;
/** Below this the difference between two endpoints is noise of the scheduler, not a reason to prefer one. */
export const LATENCY_FLOOR_MS = 0.25;
/** Weight of one outcome in an endpoint's share of failures: four in a row make it half as attractive, ten all but unattractive. */
export const FAILURE_WEIGHT = 1 / 4;
/** An endpoint that owes answers counts as slow as its silence is long, up to this multiple: a long poll is not an outage. */
export const SILENCE_FACTOR_MAX = 8;
/** Cost multiple of an endpoint that asked not to be called for a while, or that only fails: used when all others are far worse. */
export const PENALTY_FACTOR = 64;
/** How long a 429 or 503 without Retry-After is held against an endpoint: about one retry of a polite client. */
export const PENALTY_MS = 1_000;
/** Longest time that an endpoint's own Retry-After is believed for balancing: it may be wrong, and may not take itself out for ever. */
export const PENALTY_MAX_MS = 60_000;
/** An endpoint of another zone is preferred only when it is this many times better: keeps traffic near, and spills over when near is busy. */
export const ZONE_PREFERENCE_FACTOR = 2;
/** Share of its weight with which slow start begins. Envoy: 10 %. */
export const SLOW_START_SHARE_MIN = 0.1;
/** Random choices before a whole group is looked through for one that may be used. */
export const SAMPLES_MAX = 8;
/** Points on the smallest ring. Envoy and Istio: 1 024. */
export const RING_SIZE_MIN = 1_024;
/** Largest ring: 12 MB of points. Envoy allows 8 M, which is 64 MB for each. */
export const RING_SIZE_MAX = 1_048_576;
/** Prime, as the algorithm demands, and a hundred times the endpoints of a large service. Envoy and Istio: 65 537. */
export const MAGLEV_TABLE_SIZE = 65_537;
/** Largest table; Envoy: 5 000 011. */
export const MAGLEV_TABLE_SIZE_MAX = 5_000_011;
/** Steps from a key's own endpoint to one that may be used, before another way of choosing is taken. */
export const HASH_STEPS_MAX = 64;
/**
 * A locality with this share of its endpoints usable still takes all its traffic; below, the missing part goes to the next.
 * Envoy's overprovisioning factor of 1.4 is 1 / 0.714.
 */
export const OVERPROVISIONING_FACTOR = 1.4;
/** Share of usable endpoints below which all are used. Envoy: 0.5, Istio: 0. With 0 a broken few are never overwhelmed by our own doing. */
export const PANIC_THRESHOLD = 0;

// ---- ejection

/** In a row; Istio: 5 once outlier detection is configured. Off without configuration: an application's 500 is its own affair. */
export const CONSECUTIVE_5XX = 5;
/** Connections that could not be made, in a row. On by default, as for connections (../ejection.ts): nothing listens there. */
export const CONSECUTIVE_CONNECT_FAILURES = 3;
/** Time between two looks at success rates. Envoy and Istio: 10 s. */
export const OUTLIER_INTERVAL_MS = 10_000;
/** First ejection; each following one in the same trouble is twice as long. Envoy and Istio: 30 s, growing by as much each time. */
export const BASE_EJECTION_MS = 30_000;
/** Without configuration ejection is for endpoints that refuse connections, and 10 s is a restart. */
export const BASE_EJECTION_UNCONFIGURED_MS = 10_000;
/** The longest that a recovered endpoint goes unnoticed. Envoy: 5 min. */
export const EJECTION_MAX_MS = 300_000;
/** Added to an ejection, up to this share, so that those ejected together do not return together. */
export const EJECTION_JITTER = 0.2;
/** Largest share out at once. Envoy and Istio: 10 %, which for a service of nine endpoints is none; half is what connections allow too. */
export const EJECTED_SHARE_MAX = 0.5;
/** A probe of which nothing is heard is given up after this time, and another may be sent. */
export const PROBE_MS = 15_000;
/** A probe waits this long for a request that may be repeated should it fail; then any request will do. */
export const PROBE_GRACE_MS = 2_000;
/** Intervals without failure after which a former ejection no longer makes the next one longer. */
export const EJECTION_FORGIVEN_INTERVALS = 6;

// ---- health checks

/** First probe of a new endpoint comes within this time, not after a whole interval. */
export const HEALTH_FIRST_MS = 250;
/** While an endpoint is about to change sides it is asked again after this share of the interval. */
export const HEALTH_EDGE_SHARE = 1 / 3;
/** Least time between two probes of one endpoint, whatever is configured. */
export const HEALTH_INTERVAL_MIN_MS = 100;
/** Intervals vary by this share, so that probes of many waypoints do not fall together. */
export const HEALTH_JITTER = 0.1;

/** Probes of one thread under way at once: more would be a storm of their own when a node with a thousand endpoints falls silent. */
export const HEALTH_PROBES_MAX = 64;
/** A probe that finds no place is tried again after so long. */
export const HEALTH_WAIT_MS = 50;

// ---- retries, timeouts, hedging

/** Istio: 2; Envoy: 1 once a policy is there. */
export const RETRY_ATTEMPTS = 2;
/** Upper bound of what configuration may ask for: each attempt holds the request's body. */
export const RETRY_ATTEMPTS_MAX = 10;
/** gRPC statuses retried without configuration: CANCELLED and UNAVAILABLE, as Istio does. HTTP statuses are not: Istio dropped 503. */
export const RETRY_GRPC_STATUSES: readonly number[] = [1, 14];
/** Envoy and Istio: 25 ms. */
export const BACKOFF_BASE_MS = 25;
/** Ten times the base, as Envoy. */
export const BACKOFF_MAX_MS = 250;
/** Longer waits asked for by Retry-After end the retries: holding the request would only add load. */
export const RETRY_AFTER_MAX_MS = 5_000;
/** Share of requests that may be retries. Envoy and the Gateway API: 20 %. */
export const RETRY_BUDGET_FRACTION = 0.2;
/** Gateway API: 10 s. */
export const RETRY_BUDGET_INTERVAL_MS = 10_000;
/** Retries in one interval that are allowed whatever the share, so that a service with few requests has retries too. */
export const RETRIES_MIN = 30;
export const RETRIES_MIN_PER_MS = RETRY_BUDGET_INTERVAL_MS;
/** None, as Istio. A stream may be long; what ends it is silence. Envoy: 15 s, which cuts downloads. */
export const REQUEST_TIMEOUT_MS = 0;
export const BACKEND_REQUEST_TIMEOUT_MS = 0;
/** Envoy and Istio: 5 min without a byte in either direction. */
export const STREAM_IDLE_TIMEOUT_MS = 300_000;
/** Attempts of one hedged request, whatever is configured. */
export const HEDGE_ATTEMPTS_MAX = 4;

// ---- circuit breaking

/** Connections to one service: below the 28 000 ports that one address has towards another. Envoy: 1 024, Istio: none. */
export const CONNECTIONS_MAX = 16_384;
/** Requests that wait for a connection: more would wait longer than their clients do. Envoy: 1 024, Istio: none. */
export const PENDING_REQUESTS_MAX = 4_096;
/** Requests under way to one service: each holds some 10 KB, so this is 160 MB at worst. Envoy: 1 024, Istio: none. */
export const ACTIVE_REQUESTS_MAX = 16_384;
/** The budget bounds retries; this one only when configured. Envoy: 3, Istio: none. */
export const ACTIVE_RETRIES_MAX = UNLIMITED;
export const REQUESTS_PER_CONNECTION_MAX = UNLIMITED;
/** Istio: 10 s; Envoy: 5 s. An endpoint in the same network that does not answer a SYN in 5 s is gone. */
export const CONNECT_TIMEOUT_MS = 5_000;
/** Envoy and Istio: 1 h. A pooled connection that is not used for 10 min saves nobody anything. */
export const IDLE_TIMEOUT_MS = 600_000;
/** Connections live as long as they are used. */
export const CONNECTION_AGE_MAX_MS = UNLIMITED;

// ---- rate limits

/** Buckets of one keyed limit: 100 bytes each. When all are in use the one with the least debt makes room. */
export const RATE_LIMIT_KEYS_MAX = 65_536;
/** Longest key; longer ones are cut and marked, so that nobody makes us hold megabytes. */
export const RATE_LIMIT_KEY_CHARS_MAX = 1_024;
/** Oldest buckets that are looked at to find the one that makes room. */
export const RATE_LIMIT_EVICTION_LOOKS = 8;

// ---- answers of rate-limit and authorisation services

/** Headers that one answer may set or remove; Envoy has no limit, and a broken service must not fill our memory. */
export const ANSWER_HEADERS_MAX = 128;
export const ANSWER_HEADER_BYTES_MAX = 16_384;
/** Body of a refusal. */
export const ANSWER_BODY_BYTES_MAX = 65_536;

// ---- adaptive concurrency

/** Where a limit starts: enough to measure with, too few to hurt. */
export const CONCURRENCY_INITIAL = 16;
/** Answers that make up one measurement. */
export const CONCURRENCY_WINDOW_SAMPLES = 50;
/** Shortest and longest time of one measurement. */
export const CONCURRENCY_WINDOW_MIN_MS = 100;
export const CONCURRENCY_WINDOW_MAX_MS = 2_000;
/** Latency may rise by this share over its base before the limit is lowered. */
export const CONCURRENCY_TOLERANCE = 1.25;
/** Share of the way to the new limit that is gone in one window, when it is higher. */
export const CONCURRENCY_SMOOTHING = 0.3;
/** Windows between two measurements of the base latency with half the load. */
export const CONCURRENCY_BASE_WINDOWS = 60;
/** The limit after a window in which requests timed out. */
export const CONCURRENCY_BACKOFF = 0.8;
/** Share of the limit that the lowest class of requests may use; the highest may use all. */
export const LOWEST_PRIORITY_SHARE = 0.5;

const relations: readonly (readonly [holds: boolean, what: string])[] = [
  [BASE_EJECTION_MS <= EJECTION_MAX_MS, "an ejection is no longer than the longest"],
  [BACKOFF_BASE_MS <= BACKOFF_MAX_MS, "back-off grows"],
  [RING_SIZE_MIN <= RING_SIZE_MAX, "the smallest ring fits"],
  [MAGLEV_TABLE_SIZE <= MAGLEV_TABLE_SIZE_MAX, "the table fits"],
  [RETRY_ATTEMPTS <= RETRY_ATTEMPTS_MAX, "default attempts are allowed"],
  [PENALTY_MS <= PENALTY_MAX_MS, "a penalty is no longer than the longest"],
  [PROBE_GRACE_MS < PROBE_MS, "a probe is sent before it would be given up"],
  [CONCURRENCY_WINDOW_MIN_MS <= CONCURRENCY_WINDOW_MAX_MS, "a window ends"],
];
for (const [holds, what] of relations) if (!holds) throw new Error(`src/policy/upstream/defaults.ts: broken relation: ${what}`);
