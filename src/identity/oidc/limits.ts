// What identity providers and browsers may cost us. One place, with reasons.

/** Tokens with some hundred groups; real answers have a few kilobytes. */
export const TOKEN_ANSWER_BYTES_MAX = 256 * 1024;
export const USER_INFO_BYTES_MAX = 64 * 1024;
/** Of one call. A person is waiting. */
export const PROVIDER_TIMEOUT_MS = 5_000;

/** Calls under way to all providers; more than these wait for nobody and fail. */
export const CALLS_UNDER_WAY_MAX = 256;

/**
 * A renewed session is given to every request that still brings the old one for this long: browsers send several at once, and many
 * providers take a refresh token that comes twice for stolen.
 */
export const RENEWED_KEPT_MS = 30_000;
/** After a call that failed the same refresh token is not sent again at once. */
export const RENEWAL_FAILED_MS = 5_000;
export const RENEWALS_MAX = 10_000;

/** Logins that were finished: their states are not taken again. Longer than a flow lives, the skew of clocks with it. */
export const FINISHED_KEPT_MS = 15 * 60_000;
export const FINISHED_MAX = 20_000;

/** Without `expires_in` and without an ID token nothing says how long an answer is good. */
export const TOKEN_LIFE_MS = 5 * 60_000;
/** What comes with a longer `expires_in` is believed for this long: a week, as the longest session. */
export const TOKEN_LIFE_MS_MAX = 7 * 24 * 3_600_000;

/** Keys of a policy that are tried; each costs a decryption. */
export const COOKIE_KEYS_MAX = 8;
