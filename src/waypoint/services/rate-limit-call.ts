// Asks the service that counts one global rate limit about one request. What is asked and what an answer means is decided in
// policy/upstream/rate-limit/global.ts; this sends it.

import type { GlobalRateLimit } from "../../mesh/l7/traffic-policy.ts";
import { type GlobalRateLimitVerdict, judgeRateLimitResponse, rateLimitFailed, rateLimitRequest } from "../../policy/upstream/rate-limit/global.ts";
import type { RequestFacts } from "../../policy/upstream/request-facts.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import { callGrpc } from "./grpc-call.ts";
import { type PendingAnswer, withMessages } from "./message-loader.ts";
import type { CallHost } from "./service-call.ts";

const SHOULD_RATE_LIMIT_PATH = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/**
 * @param metadata sent with the question for traces: name, value, ….
 * @param done once, never before this returned, not after `cancel`.
 * @returns null when the request has none of the limit's descriptors: then the limit does not hold for it, and `done` is not called.
 */
export function askRateLimit(host: CallHost, limit: GlobalRateLimit, facts: RequestFacts, metadata: HeaderList, done: (verdict: GlobalRateLimitVerdict) => void): PendingAnswer | null {
  const request = rateLimitRequest(limit, facts);
  if (request === null) return null;
  const { service, port, timeoutMs } = limit;
  // One that was counted must not be counted again: only what surely was not read is asked twice.
  return withMessages(({ encodeRateLimit, decodeRateLimit }) => callGrpc(host, { service, port, path: SHOULD_RATE_LIMIT_PATH, message: encodeRateLimit(request), timeoutMs, repeatable: false, metadata }, (answer) => {
    if (!answer.ok) return done(rateLimitFailed(limit, answer.error));
    const response = decodeRateLimit(answer.value);
    done(response === null ? rateLimitFailed(limit, "its answer is no RateLimitResponse") : judgeRateLimitResponse(limit, response));
  }));
}
