// The conditions of `retryOn`, as Envoy and Istio name them, into those of a retry policy.

import type { RetryPolicy } from "../mesh/l7/route.ts";

export type RetryConditions = Pick<RetryPolicy, "statuses" | "grpcStatuses" | "onConnectFailure" | "onReset" | "onRefusedStream">;

export interface ParsedRetryOn {
  readonly conditions: RetryConditions;
  /** Conditions that nobody knows. */
  readonly unknown: readonly string[];
  /** Conditions that are known and cannot be had here. */
  readonly unsupported: readonly string[];
}

const BY_US = ["connect-failure", "reset-before-request", "reset", "refused-stream"];
const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const STATUSES: Readonly<Record<string, readonly number[]>> = { "5xx": range(500, 599), "gateway-error": [502, 503, 504], "retriable-4xx": [409], "envoy-ratelimited": [429] };
const GRPC: Readonly<Record<string, number>> = { "cancelled": 1, "deadline-exceeded": 4, "resource-exhausted": 8, "internal": 13, "unavailable": 14 };
const UNSUPPORTED: readonly string[] = ["retriable-headers", "http3-post-connect-failure"];
const FOLLOWED_BY_CODES = "retriable-status-codes";
/** 5xx and gateway-error cover an upstream that gives no answer at all. */
const NO_ANSWER = new Set(["5xx", "gateway-error"]);

/** The same names as a rule of an API server's. */
export const RETRY_ON_RULE = `self.split(',').all(part, part.trim() == '' || part.trim().matches('^[1-5][0-9]{2}$') || part.trim() in [${[...Object.keys(STATUSES), ...Object.keys(GRPC), ...BY_US, ...UNSUPPORTED, FOLLOWED_BY_CODES].map((name) => `'${name}'`).join(", ")}])`;

export function parseRetryOn(text: string): ParsedRetryOn {
  const statuses = new Set<number>();
  const grpcStatuses = new Set<number>();
  const unknown: string[] = [];
  const unsupported: string[] = [];
  let [onConnectFailure, onReset, onRefusedStream] = [false, false, false];
  for (const token of text.split(",").map((part) => part.trim()).filter((part) => part !== "")) {
    if (Object.hasOwn(STATUSES, token)) for (const status of STATUSES[token]!) statuses.add(status);
    else if (Object.hasOwn(GRPC, token)) grpcStatuses.add(GRPC[token]!);
    else if (/^[1-5][0-9]{2}$/.test(token)) statuses.add(Number(token));
    else if (token === "connect-failure" || token === "reset-before-request") onConnectFailure = true;
    else if (token === "reset") onReset = onConnectFailure = true;
    else if (token === "refused-stream") onRefusedStream = true;
    // Status codes follow it as tokens of their own.
    else if (UNSUPPORTED.includes(token)) unsupported.push(token);
    else if (token !== FOLLOWED_BY_CODES) unknown.push(token);
    if (NO_ANSWER.has(token)) onReset = onConnectFailure = onRefusedStream = true;
  }
  const ascending = (all: ReadonlySet<number>): number[] => [...all].sort((a, b) => a - b);
  return { conditions: { statuses: ascending(statuses), grpcStatuses: ascending(grpcStatuses), onConnectFailure, onReset, onRefusedStream }, unknown, unsupported };
}
