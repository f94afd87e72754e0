// What may be asked of the Kubernetes API, and how a failure is called. KubernetesClient is the one behind which a server is; a test plays
// the server by being one itself.

import type { Fault } from "../../core/fault.ts";
import type { Result } from "../../core/result.ts";

export type ApiFaultCode = "api_unreachable" | "api_unauthenticated" | "api_forbidden" | "api_not_found" | "api_conflict" | "api_gone" | "api_invalid" | "api_busy" | "api_malformed" | "api_failed";
export interface ApiFault extends Fault<ApiFaultCode> {
  /** HTTP status; 0 without an answer. */
  readonly status: number;
}

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
export const MERGE_PATCH = "application/merge-patch+json";
export const APPLY_PATCH = "application/apply-patch+yaml";

export interface ApiRequest {
  readonly method: Method;
  /** From the root of the server, e.g. `/api/v1/pods`. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Sent as JSON (an apply patch too: JSON is YAML). */
  readonly body?: unknown;
  /** Of the body; JSON by default. */
  readonly contentType?: typeof MERGE_PATCH | typeof APPLY_PATCH;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

export interface WatchRequest {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly accept?: string;
  /** After which the server ends it. */
  readonly timeoutSeconds: number;
  readonly signal: AbortSignal;
  /** The server has taken it: what changes from now on will come. */
  readonly onBegun?: () => void;
}

export interface Api {
  request(request: ApiRequest): Promise<Result<unknown, ApiFault>>;
  /** Calls `onEvent` for each event, bookmarks among them, until the server ends the watch (ok) or it fails. */
  watch(request: WatchRequest, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>>;
}
