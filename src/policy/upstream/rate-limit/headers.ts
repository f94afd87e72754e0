// What a client is told of its rate limit: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers, from version 8 on),
// X-RateLimit-* as Envoy writes them, and Retry-After on a refusal.

/** One limit as seen by one client. Times in milliseconds. */
export interface RateLimitState {
  readonly name: string;
  /** Requests in a window, and its length. */
  readonly quota: number;
  readonly windowMs: number;
  readonly remaining: number;
  /** Until the whole quota is there again. */
  readonly resetMs: number;
  /** Until one more request will be let through; 0 when one would be now. */
  readonly retryAfterMs: number;
}

/** Names in lower case, with values, one after the other. */
export function rateLimitHeaders(state: RateLimitState): string[] {
  const name = structuredString(state.name);
  const windowS = Math.max(1, Math.ceil(state.windowMs / 1000));
  const resetS = Math.ceil(state.resetMs / 1000);
  const headers = [
    "ratelimit-policy", `${name};q=${state.quota};w=${windowS}`,
    "ratelimit", `${name};r=${state.remaining};t=${resetS}`,
    "x-ratelimit-limit", `${state.quota}, ${state.quota};w=${windowS};name=${name}`,
    "x-ratelimit-remaining", `${state.remaining}`,
    "x-ratelimit-reset", `${resetS}`,
  ];
  if (state.retryAfterMs > 0) headers.push("retry-after", `${Math.max(1, Math.ceil(state.retryAfterMs / 1000))}`);
  return headers;
}

/** A string of RFC 9651: printable ASCII in quotes; anything else becomes `?`. */
function structuredString(text: string): string {
  return `"${text.replace(/[^\x20-\x7e]/g, "?").replace(/["\\]/g, "\\$&")}"`;
}
