// What the parts of a control plane may ask of the Kubernetes API, and how a failure is called. A test plays the server; the rest of the
// time it is src/runtime/kubernetes.

import { type Fault, RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { KubernetesClient, KubernetesFault, PatchType } from "../../runtime/kubernetes/client.ts";

/** Bookmarks come every minute; a watch on which nothing came for this long is dead. */
const WATCH_SILENCE_MS = 150_000;

export type ApiFaultCode = "api_unreachable" | "api_unauthenticated" | "api_forbidden" | "api_not_found" | "api_conflict" | "api_gone" | "api_invalid" | "api_busy" | "api_failed";
export interface ApiFault extends Fault<ApiFaultCode> {
  /** 0 without an answer. */
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
  readonly body?: unknown;
  /** Of the body; JSON by default. */
  readonly contentType?: PatchType;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

export interface WatchRequest {
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  /** After which the server ends it. */
  readonly timeoutSeconds: number;
  readonly signal: AbortSignal;
}

export interface Api {
  request(request: ApiRequest): Promise<Result<unknown, ApiFault>>;
  /** Calls `onEvent` for each event, bookmarks among them, until the server ends the watch (ok) or it fails. */
  watch(request: WatchRequest, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>>;
}

/** The API behind a client. */
export function apiOf(client: KubernetesClient): Api {
  return {
    async request({ method, path, query, body, contentType, accept, signal }) {
      const answer = await client.request(method, pathOf(path, query), {
        ...(body === undefined ? {} : { body }), ...(contentType === undefined ? {} : { contentType }), ...(accept === undefined ? {} : { accept }), ...(signal === undefined ? {} : { signal }),
      });
      return answer.ok ? answer : err(apiFault(answer.error));
    },
    async watch({ path, query, timeoutSeconds, signal }, onEvent) {
      const silence = new AbortController();
      const listen = (): NodeJS.Timeout => setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
      let timer = listen();
      try {
        for await (const event of client.watch(pathOf(path, query), timeoutSeconds, { signal: AbortSignal.any([signal, silence.signal]) })) {
          if (!event.ok) return err(apiFault(event.error));
          clearTimeout(timer);
          timer = listen();
          onEvent(event.value);
        }
        return silence.signal.aborted ? err(fault("api_unreachable", 0, `watch ${path}: nothing came for ${WATCH_SILENCE_MS / 1000} s`)) : ok(undefined);
      } finally {
        clearTimeout(timer);
      }
    },
  };
}

function pathOf(path: string, query: Readonly<Record<string, string>> | undefined): string {
  return query === undefined || Object.keys(query).length === 0 ? path : `${path}?${new URLSearchParams(query).toString()}`;
}

const CODES: Readonly<Record<number, ApiFaultCode>> = { 0: "api_unreachable", 401: "api_unauthenticated", 403: "api_forbidden", 404: "api_not_found", 409: "api_conflict", 410: "api_gone", 400: "api_invalid", 422: "api_invalid", 429: "api_busy" };

function apiFault({ status, message, cause }: KubernetesFault): ApiFault {
  return fault(CODES[status] ?? "api_failed", status, message, cause);
}

function fault(code: ApiFaultCode, status: number, message: string, cause?: unknown): ApiFault {
  const again = status === 0 || status === 429 || status >= 500 || status === 409;
  return { code, status, message, blame: status === 0 || status >= 500 ? "peer" : "operator", dies: "nothing", retry: again ? { kind: "after", afterMs: 1000 } : RETRY_NEVER, ...(cause === undefined ? {} : { cause }) };
}
