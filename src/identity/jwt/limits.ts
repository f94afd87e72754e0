// What issuers may cost us, and how long what they said is believed. One place, with reasons.

/** A key set of some hundred keys; real ones have two to ten. */
export const KEY_SET_BYTES_MAX = 256 * 1024;
export const KEYS_MAX = 200;
/** Keys that fit a token by name and algorithm and are tried in turn: each costs a signature check. */
export const KEYS_TRIED_MAX = 8;
/** Shorter RSA keys can be broken. RFC 7518, section 3.3. */
export const RSA_BITS_MIN = 2048;
/** Checking a signature grows with the square of the key's length. */
export const RSA_BITS_MAX = 8192;

export const DISCOVERY_BYTES_MAX = 64 * 1024;
export const INTROSPECTION_BYTES_MAX = 64 * 1024;
export const REDIRECTS_MAX = 3;

/** Key sets are asked for again after this time, unless the issuer's Cache-Control says another one between the bounds. Istio's 20 minutes. */
export const REFRESH_MS = 20 * 60_000;
export const REFRESH_MS_MIN = 60_000;
export const REFRESH_MS_MAX = 60 * 60_000;
/** Spread, so that many waypoints do not ask in the same second. */
export const REFRESH_JITTER = 0.1;

/** After a failure, doubling from the first to the last. Until then the failure itself is the answer. */
export const RETRY_MS_FIRST = 1_000;
export const RETRY_MS_LAST = 60_000;

/** How often at most a token with an unknown key makes us ask the issuer: anyone can write such a token. */
export const UNKNOWN_KEY_REFETCH_MS = 10_000;

/** With the issuer down, its last keys are good for this long; then they may have been withdrawn for long. */
export const KEYS_STALE_MAX_MS = 24 * 60 * 60_000;

/** Verified tokens that are remembered until they expire: a signature costs some 50 µs, a look-up less than one. Together at most some 16 MB. */
export const VERIFIED_TOKENS_MAX = 4_096;
export const VERIFIED_TOKEN_CHARS_MAX = 4_096;

/** An introspected token is believed for this long, so that one that is withdrawn does not live on; a refused one for less. */
export const INTROSPECTION_ACTIVE_MS = 30_000;
export const INTROSPECTION_INACTIVE_MS = 10_000;
/** After a call that failed the same token is not asked about again at once. */
export const INTROSPECTION_FAILED_MS = 1_000;
export const INTROSPECTIONS_MAX = 10_000;
/** Calls under way for one endpoint; more than these wait for nobody and fail. */
export const INTROSPECTIONS_UNDER_WAY_MAX = 256;

if (REFRESH_MS < REFRESH_MS_MIN || REFRESH_MS > REFRESH_MS_MAX || RETRY_MS_LAST > REFRESH_MS_MIN || KEYS_STALE_MAX_MS <= REFRESH_MS_MAX) {
  throw new Error("jwt limits: a retry comes before a refresh, a refresh before keys are too old");
}
