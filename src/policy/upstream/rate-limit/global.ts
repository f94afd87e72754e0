// Rate limits counted elsewhere, by a service that speaks envoy.service.ratelimit.v3: what it is asked about a request, and what its
// answer, or its silence, means. Sending is done by others.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GlobalRateLimit } from "../../../mesh/l7/traffic-policy.ts";
import type { RateLimitRequestSchema, RateLimitResponse, RateLimitResponse_DescriptorStatus } from "../../../wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";
import { ANSWER_BODY_BYTES_MAX } from "../defaults.ts";
import type { RequestFacts } from "../request-facts.ts";
import { checkHeaders, type AnswerHeader, type SentHeader } from "../service-answer.ts";
import type { RateLimitState } from "./headers.ts";
import { valueOfKey } from "./keys.ts";

export type GlobalRateLimitReason =
  | "withinLimit"
  | "overLimit"
  /** The service did not answer, or not usably; the limit's `onFailure` decided. */
  | "serviceFailed";

export interface GlobalRateLimitVerdict {
  readonly allowed: boolean;
  readonly reason: GlobalRateLimitReason;
  /** 429, or 500 when the service failed and the limit says deny, as Envoy answers. */
  readonly status: number;
  readonly requestHeaders: readonly AnswerHeader[];
  readonly responseHeaders: readonly AnswerHeader[];
  readonly body: Uint8Array;
  /** The descriptor nearest to its limit, when the service tells. */
  readonly state: RateLimitState | null;
  /** For the log: what failed, or which limit was exceeded. */
  readonly message: string;
}

const STATUS_OVER_LIMIT = 429;
const STATUS_FAILED = 500;
const CODE_OK = 1;
const CODE_OVER_LIMIT = 2;
/** Of one request, whatever its header says. */
const HITS_MAX = 1_000_000;
const NO_BODY = new Uint8Array(0);
const MS_OF_UNIT: Readonly<Record<number, number>> = { 1: 1_000, 2: 60_000, 3: 3_600_000, 4: 86_400_000, 5: 2_592_000_000, 6: 31_536_000_000, 7: 604_800_000 };

/**
 * The question for one limit. A descriptor of which the request lacks a value is left out, as Envoy does: services are configured for
 * whole descriptors. Null when none is left: then the limit does not apply.
 */
export function rateLimitRequest(limit: GlobalRateLimit, request: RequestFacts): MessageInitShape<typeof RateLimitRequestSchema> | null {
  const descriptors = limit.descriptors.flatMap((entries) => {
    const filled: { key: string; value: string }[] = [];
    for (const { key, value } of entries) {
      const text = value.kind === "literal" ? value.text : valueOfKey(value, request);
      if (text === null) return [];
      filled.push({ key, value: text });
    }
    return filled.length === 0 ? [] : [{ entries: filled }];
  });
  return descriptors.length === 0 ? null : { domain: limit.domain, descriptors, hitsAddend: hitsOf(limit, request) };
}

/** 0 is how the protocol says one. A header counts only as a whole number of at least one: leaving it out, or nonsense in it, buys nothing. */
function hitsOf({ hits, hitsHeader }: GlobalRateLimit, request: RequestFacts): number {
  const said = hitsHeader === null ? null : request.header(hitsHeader);
  const wanted = said !== null && /^[1-9][0-9]{0,6}$/.test(said) ? Number(said) : hits;
  return wanted === 1 ? 0 : Math.min(wanted, HITS_MAX);
}

export function judgeRateLimitResponse(limit: GlobalRateLimit, response: RateLimitResponse): GlobalRateLimitVerdict {
  const { overallCode } = response;
  if (overallCode !== CODE_OK && overallCode !== CODE_OVER_LIMIT) return rateLimitFailed(limit, `it answered with code ${overallCode}, wanted 1 (OK) or 2 (OVER_LIMIT)`);
  const requestHeaders = checkHeaders(response.requestHeadersToAdd.map(toSent));
  if (!requestHeaders.ok) return rateLimitFailed(limit, `it answered with ${requestHeaders.error}`);
  const responseHeaders = checkHeaders(response.responseHeadersToAdd.map(toSent));
  if (!responseHeaders.ok) return rateLimitFailed(limit, `it answered with ${responseHeaders.error}`);
  const allowed = overallCode === CODE_OK;
  const tightest = nearestToLimit(response.statuses);
  const body = response.rawBody.length <= ANSWER_BODY_BYTES_MAX ? response.rawBody : NO_BODY;
  return {
    allowed, reason: allowed ? "withinLimit" : "overLimit", status: allowed ? 200 : STATUS_OVER_LIMIT,
    requestHeaders: requestHeaders.value, responseHeaders: responseHeaders.value, body: allowed ? NO_BODY : body,
    state: tightest === null ? null : stateOf(tightest, allowed),
    message: allowed ? "" : `over the rate limit ${limit.name}${tightest?.currentLimit?.name ? ` (${tightest.currentLimit.name})` : ""}`,
  };
}

/** The verdict when the service could not be asked. `why` for a person: `no answer in 20 ms`. */
export function rateLimitFailed(limit: GlobalRateLimit, why: string): GlobalRateLimitVerdict {
  const allowed = limit.onFailure === "allow";
  return {
    allowed, reason: "serviceFailed", status: allowed ? 200 : STATUS_FAILED, requestHeaders: [], responseHeaders: [], body: NO_BODY, state: null,
    message: `rate limit ${limit.name}: asked ${limit.service} port ${limit.port}: ${why}; ${allowed ? "let through" : "denied"} (onFailure: ${limit.onFailure})`,
  };
}

/** The status that refuses, else the one with the fewest requests left; null when none tells of a limit. */
function nearestToLimit(statuses: readonly RateLimitResponse_DescriptorStatus[]): RateLimitResponse_DescriptorStatus | null {
  let nearest: RateLimitResponse_DescriptorStatus | null = null;
  for (const status of statuses) {
    if (status.currentLimit === undefined) continue;
    if (nearest === null || Number(status.code === CODE_OVER_LIMIT) > Number(nearest.code === CODE_OVER_LIMIT) || (status.code === nearest.code && status.limitRemaining < nearest.limitRemaining)) nearest = status;
  }
  return nearest;
}

function stateOf(status: RateLimitResponse_DescriptorStatus, allowed: boolean): RateLimitState {
  const { currentLimit, durationUntilReset } = status;
  const windowMs = MS_OF_UNIT[currentLimit?.unit ?? 0] ?? 0;
  const resetMs = durationUntilReset === undefined ? windowMs : Math.max(0, Number(durationUntilReset.seconds) * 1000 + durationUntilReset.nanos / 1e6);
  return {
    name: currentLimit?.name || "global", quota: currentLimit?.requestsPerUnit ?? 0, windowMs, remaining: allowed ? status.limitRemaining : 0, resetMs, retryAfterMs: allowed ? 0 : resetMs,
  };
}

function toSent(header: { readonly key: string; readonly value: string; readonly rawValue: Uint8Array }): SentHeader {
  return { action: "append", name: header.key, text: header.value, raw: header.rawValue };
}
