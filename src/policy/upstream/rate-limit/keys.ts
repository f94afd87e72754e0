// What is counted apart: the values that a rate limit's keys have in a request.

import type { RateLimitKey } from "../../../mesh/l7/traffic-policy.ts";
import { hashText } from "../balancers/hash.ts";
import { RATE_LIMIT_KEY_CHARS_MAX } from "../defaults.ts";
import type { RequestFacts } from "../request-facts.ts";

const SEPARATOR = "\0";
/** Stands for a value that is missing. Such requests share a bucket: leaving a header out must not leave a limit out. */
const ABSENT = "\x01";
const CUT = "\x02";

/** Null when the request has no such thing. */
export function valueOfKey(key: RateLimitKey, request: RequestFacts): string | null {
  switch (key.kind) {
    case "identity": return request.identity;
    case "header": return request.header(key.name);
    case "path": return request.path;
    case "claim": return request.claim(key.path);
    case "sourceIp": return request.sourceIp;
    default: return key satisfies never;
  }
}

/** One text for the values of all keys; a very long one is cut and told apart by its hash. */
export function bucketKey(keys: readonly RateLimitKey[], request: RequestFacts): string {
  let text = "";
  for (let i = 0; i < keys.length; i++) {
    const value = valueOfKey(keys[i]!, request) ?? ABSENT;
    text = i === 0 ? value : text + SEPARATOR + value;
  }
  return text.length <= RATE_LIMIT_KEY_CHARS_MAX ? text : text.slice(0, RATE_LIMIT_KEY_CHARS_MAX) + CUT + hashText(text).toString(36);
}
