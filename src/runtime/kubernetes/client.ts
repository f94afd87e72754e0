// Requests to the Kubernetes API: one at a time with its answer, and watches as lines. Knows HTTP and the API's conventions, no kinds.

import { z } from "zod";
import { RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { type KubernetesAccess, words } from "./access.ts";
import type { Api, ApiFault, ApiFaultCode, ApiRequest, WatchRequest } from "./api.ts";
import { PULSE_TIMES, type PulseTimes, ServerPulse } from "./server-pulse.ts";

export interface ClientTimes extends PulseTimes {
  /** An API server that has not answered by then will not. */
  readonly answerMs: number;
  /** Bookmarks come every minute, of a kind that nobody changes every other one; a watch on which nothing came for this long is dead. */
  readonly silenceMs: number;
}
const CLIENT_TIMES: ClientTimes = { answerMs: 30_000, silenceMs: 150_000, ...PULSE_TIMES };
/** What anybody may ask, and every server answers from memory. */
const PULSE_PATH = "/version";
/** One line of a watch is one object; etcd takes none above 1.5 MiB, as JSON it is no more than a few times that. */
const LINE_CHARS_MAX = 8 * 1024 * 1024;
const RETRY_MS = 1_000;

const statusSchema = z.looseObject({ kind: z.literal("Status"), message: z.string().optional(), reason: z.string().optional(), code: z.number().optional() });

export class KubernetesClient implements Api {
  readonly #access: KubernetesAccess;
  readonly #times: ClientTimes;
  readonly #pulse: ServerPulse;

  constructor(access: KubernetesAccess, times: Partial<ClientTimes> = {}) {
    this.#access = access;
    this.#times = { ...CLIENT_TIMES, ...times };
    this.#pulse = new ServerPulse(async (signal) => {
      const answer = await this.#send({ method: "GET", path: PULSE_PATH }, signal);
      if (answer.ok) await answer.value.body?.cancel();
      else if (answer.error.status === 0) throw new Error(answer.error.message);
    }, this.#times);
  }

  get origin(): string {
    return `${this.#access.server} (${this.#access.origin})`;
  }

  get namespace(): string {
    return this.#access.namespace;
  }

  get(path: string, query: Readonly<Record<string, string>> = {}): Promise<Result<unknown, ApiFault>> {
    return this.request({ method: "GET", path, query });
  }

  async request(request: ApiRequest): Promise<Result<unknown, ApiFault>> {
    const { method, path } = request;
    const limit = AbortSignal.timeout(this.#times.answerMs);
    const sent = await this.#send(request, request.signal === undefined ? limit : AbortSignal.any([limit, request.signal]));
    if (!sent.ok) return sent;
    try {
      const text = await sent.value.text();
      return ok(text === "" ? null : JSON.parse(text));
    } catch (cause) {
      return err(faultOf("api_malformed", sent.value.status, `${method} ${path}: the answer of ${this.origin} is no JSON: ${words(cause)}`));
    }
  }

  async watch(request: WatchRequest, onEvent: (event: unknown) => void): Promise<Result<void, ApiFault>> {
    for await (const event of this.#events(request)) {
      if (!event.ok) return event;
      onEvent(event.value);
    }
    return ok(undefined);
  }

  /** Ends when the server ends the watch; a failure to begin, and a connection that breaks, come as the last element. */
  async *#events({ path, query, accept, timeoutSeconds, signal, onBegun }: WatchRequest): AsyncGenerator<Result<unknown, ApiFault>> {
    const { answerMs, silenceMs } = this.#times;
    const silence = new AbortController();
    let limitMs = answerMs;
    let timer = setTimeout(() => silence.abort(), limitMs);
    let ended = "";
    let pulse: (() => void) | null = null;
    // The answer itself is a sign of life: of a kind that nobody changes nothing else comes before the first bookmark.
    const alive = (): void => {
      clearTimeout(timer);
      limitMs = silenceMs;
      timer = setTimeout(() => silence.abort(), limitMs);
      this.#pulse.heard();
    };
    try {
      const sent = await this.#send({
        method: "GET", path, query: { ...query, watch: "true", allowWatchBookmarks: "true", timeoutSeconds: String(timeoutSeconds) }, ...(accept === undefined ? {} : { accept }),
      }, AbortSignal.any([silence.signal, signal]));
      if (!sent.ok) return yield sent;
      alive();
      pulse = this.#pulse.add((why) => {
        ended = why;
        silence.abort();
      });
      onBegun?.();
      const decoder = new TextDecoder();
      let rest = "";
      for await (const chunk of sent.value.body ?? []) {
        alive();
        rest += decoder.decode(chunk, { stream: true });
        for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
          const line = rest.slice(0, end);
          rest = rest.slice(end + 1);
          if (line !== "") yield ok(JSON.parse(line));
        }
        if (rest.length > LINE_CHARS_MAX) return yield err(faultOf("api_malformed", 0, `watch ${path}: a line of more than ${LINE_CHARS_MAX} characters from ${this.origin}`));
      }
    } catch (cause) {
      const why = ended !== "" ? ended : silence.signal.aborted ? `nothing came for ${limitMs / 1000} s` : words(cause);
      yield err(faultOf("api_unreachable", 0, `watch ${path}: the connection to ${this.origin} broke: ${why}`, cause));
    } finally {
      clearTimeout(timer);
      pulse?.();
      silence.abort();
    }
  }

  async #send({ method, path, query = {}, body, contentType, accept = "application/json" }: ApiRequest, signal: AbortSignal): Promise<Result<Response, ApiFault>> {
    const headers: Record<string, string> = { Accept: accept, "User-Agent": "weft" };
    const search = new URLSearchParams(query).toString();
    let response: Response;
    try {
      const authorization = await this.#access.authorization();
      if (authorization !== null) headers["Authorization"] = authorization;
      if (body !== undefined) headers["Content-Type"] = contentType ?? "application/json";
      response = await fetch(`${this.#access.server}${path}${search === "" ? "" : `?${search}`}`, {
        method, headers, tls: this.#access.tls, timeout: false, redirect: "error", signal, ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      } as RequestInit);
    } catch (cause) {
      return err(faultOf("api_unreachable", 0, `${method} ${path}: no answer from ${this.origin}: ${words(cause)}`, cause));
    }
    this.#pulse.heard();
    if (response.ok) return ok(response);
    let text = "";
    try {
      text = await response.text();
    } catch {
      // The status says enough.
    }
    const { reason, message } = apiWords(text);
    const code = CODES[response.status] ?? "api_failed";
    return err(faultOf(code, response.status, `${method} ${path}: ${this.origin} answered ${response.status}${reason === "" ? "" : ` ${reason}`}: ${message}`));
  }
}

const CODES: Readonly<Record<number, ApiFaultCode>> = { 401: "api_unauthenticated", 403: "api_forbidden", 404: "api_not_found", 409: "api_conflict", 410: "api_gone", 400: "api_invalid", 422: "api_invalid", 429: "api_busy" };

function faultOf(code: ApiFaultCode, status: number, message: string, cause?: unknown): ApiFault {
  const again = status === 0 || status === 409 || status === 429 || status >= 500;
  return {
    code, status, message, blame: status === 0 || status >= 500 || code === "api_malformed" ? "peer" : "operator", dies: "nothing",
    retry: again ? { kind: "after", afterMs: RETRY_MS } : RETRY_NEVER, ...(cause === undefined ? {} : { cause }),
  };
}

const MESSAGE_CHARS_MAX = 500;

/** What a refusal says of itself: a Status object, or whatever stands there. */
function apiWords(text: string): { reason: string; message: string } {
  try {
    const status = statusSchema.safeParse(JSON.parse(text));
    if (status.success) return { reason: status.data.reason ?? "", message: (status.data.message ?? "").slice(0, MESSAGE_CHARS_MAX) };
  } catch {
    // No JSON: something between us and the API answered.
  }
  return { reason: "", message: text.slice(0, MESSAGE_CHARS_MAX) };
}
