// Requests to the Kubernetes API over fetch. The official client brings its own HTTP library, of which this runtime puts its own in the
// place, without the certificates of the cluster; and 50 MB of classes of which a mesh needs ten.

import { RETRY_NEVER, type Fault } from "../../core/fault.ts";
import type { Clock } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { ApiAccess } from "./api-access.ts";

/** An answer takes this long at most; a page of a list is the largest. */
const REQUEST_TIMEOUT_MS = 30_000;
/** A page of 500 objects of 100 KiB each; an object has 1.5 MiB at most. */
const ANSWER_BYTES_MAX = 64 * 1024 * 1024;
/** One event of a watch is one object with a few words around it. */
const LINE_CHARS_MAX = 8 * 1024 * 1024;
/** Silence of a watch after which it is taken for dead: bookmarks come every minute. */
const WATCH_SILENCE_MS = 150_000;
const MESSAGE_CHARS_MAX = 500;

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
  readonly contentType?: string;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

/** What the parts of a control plane may ask of the API. */
export interface Api {
  request(request: ApiRequest): Promise<Result<unknown, ApiFault>>;
  /** Calls `onEvent` for each line, until the server ends the watch (ok) or it fails. */
  watch(request: Pick<ApiRequest, "path" | "query" | "accept"> & { readonly signal: AbortSignal }, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>>;
}

export class ApiClient implements Api {
  readonly #access: ApiAccess;
  readonly #clock: Clock;

  constructor(access: ApiAccess, clock: Clock) {
    this.#access = access;
    this.#clock = clock;
  }

  async request(request: ApiRequest): Promise<Result<unknown, ApiFault>> {
    const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout]);
    try {
      const response = await this.#fetch(request, signal);
      const text = await readBounded(response, ANSWER_BYTES_MAX);
      if (text === null) return err(fault(request, 0, `the answer has more than ${ANSWER_BYTES_MAX} bytes`));
      if (!response.ok) return err(fault(request, response.status, messageOf(text)));
      return ok(text === "" ? null : JSON.parse(text));
    } catch (cause) {
      return err(fault(request, 0, describe(cause), cause));
    }
  }

  async watch(request: Pick<ApiRequest, "path" | "query" | "accept"> & { readonly signal: AbortSignal }, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>> {
    const asked: ApiRequest = { ...request, method: "GET" };
    const silence = new AbortController();
    let silent = this.#silenceTimer(silence);
    try {
      const response = await this.#fetch(asked, AbortSignal.any([request.signal, silence.signal]));
      if (!response.ok) return err(fault(asked, response.status, messageOf((await readBounded(response, ANSWER_BYTES_MAX)) ?? "")));
      const decoder = new TextDecoder();
      let rest = "";
      for await (const chunk of response.body ?? []) {
        clearTimeout(silent);
        silent = this.#silenceTimer(silence);
        rest += decoder.decode(chunk, { stream: true });
        let start = 0;
        for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n", start)) {
          if (end > start) onEvent(JSON.parse(rest.slice(start, end)));
          start = end + 1;
        }
        rest = start === 0 ? rest : rest.slice(start);
        if (rest.length > LINE_CHARS_MAX) return err(fault(asked, 0, `an event has more than ${LINE_CHARS_MAX} characters`));
      }
      return ok(undefined);
    } catch (cause) {
      return err(fault(asked, 0, silence.signal.aborted ? `nothing came for ${WATCH_SILENCE_MS / 1000} s` : describe(cause), cause));
    } finally {
      clearTimeout(silent);
    }
  }

  #silenceTimer(silence: AbortController): NodeJS.Timeout {
    return setTimeout(() => silence.abort(), WATCH_SILENCE_MS);
  }

  #fetch({ method, path, query, body, contentType, accept }: ApiRequest, signal: AbortSignal): Promise<Response> {
    const { server, ca, serverName, clientCertificate } = this.#access;
    const token = this.#access.token(this.#clock.monotonicMs());
    const search = query === undefined ? "" : `?${new URLSearchParams(query).toString()}`;
    return fetch(`${server}${path}${search}`, {
      method, signal, redirect: "error",
      headers: {
        "Accept": accept ?? "application/json", "User-Agent": "weft",
        ...(token === null ? {} : { Authorization: `Bearer ${token}` }), ...(body === undefined ? {} : { "Content-Type": contentType ?? "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      tls: { ...(ca === null ? {} : { ca }), ...(serverName === null ? {} : { serverName }), ...(clientCertificate ?? {}) },
      // A watch is silent for longer than the library's own limit.
      timeout: false,
    } as RequestInit);
  }
}

async function readBounded(response: Response, bytesMax: number): Promise<string | null> {
  const declared = Number(response.headers.get("content-length") ?? "0");
  if (declared > bytesMax) return null;
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > bytesMax) return null;
    text += decoder.decode(chunk, { stream: true });
  }
  return text + decoder.decode();
}

/** The API answers a failure with a Status that has a message. */
function messageOf(text: string): string {
  try {
    const parsed: unknown = JSON.parse(text);
    if (parsed !== null && typeof parsed === "object" && "message" in parsed && typeof parsed.message === "string") return parsed.message.slice(0, MESSAGE_CHARS_MAX);
  } catch {
    // Not a Status: shown as it is.
  }
  return text.slice(0, MESSAGE_CHARS_MAX).trim();
}

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));

const CODES: Readonly<Record<number, ApiFaultCode>> = { 401: "api_unauthenticated", 403: "api_forbidden", 404: "api_not_found", 409: "api_conflict", 410: "api_gone", 400: "api_invalid", 422: "api_invalid", 429: "api_busy" };

function fault({ method, path }: Pick<ApiRequest, "method" | "path">, status: number, seen: string, cause?: unknown): ApiFault {
  const code = status === 0 ? "api_unreachable" : (CODES[status] ?? "api_failed");
  const again = status === 0 || status === 429 || status >= 500 || status === 409;
  return {
    code, status, blame: status === 0 || status >= 500 ? "peer" : "operator", dies: "nothing", retry: again ? { kind: "after", afterMs: 1000 } : RETRY_NEVER,
    message: `${method} ${path} of the Kubernetes API: ${status === 0 ? "" : `status ${status}: `}${seen}`, ...(cause === undefined ? {} : { cause }),
  };
}
