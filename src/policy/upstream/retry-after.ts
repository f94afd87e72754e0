// When a server wants to be asked again: Retry-After in seconds or as a date (RFC 9110, section 10.2.3), and gRPC's pushback.

/** Nothing was asked for. */
export const NO_RETRY_AFTER = -1;
/** The server asks not to be asked again at all (a negative gRPC pushback). */
export const RETRY_NEVER_AGAIN = -2;

/** Digits that are surely less than 2^53 ms; more is as good as for ever. */
const SECONDS_DIGITS_MAX = 10;
const IMF_FIXDATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT$/;

/**
 * @param wallMs milliseconds since 1970, for dates
 * @returns milliseconds from now, 0 for a date that is past, NO_RETRY_AFTER for a value that is neither form
 */
export function parseRetryAfter(text: string, wallMs: number): number {
  const trimmed = text.trim();
  if (/^[0-9]+$/.test(trimmed)) return trimmed.length > SECONDS_DIGITS_MAX ? Infinity : Number(trimmed) * 1000;
  if (!IMF_FIXDATE.test(trimmed)) return NO_RETRY_AFTER;
  const at = Date.parse(trimmed);
  return Number.isNaN(at) ? NO_RETRY_AFTER : Math.max(0, at - wallMs);
}

/** grpc-retry-pushback-ms. What is no number means the same as a negative one (gRFC A6). */
export function parseGrpcPushback(text: string): number {
  const trimmed = text.trim();
  return /^[0-9]{1,10}$/.test(trimmed) ? Number(trimmed) : RETRY_NEVER_AGAIN;
}
