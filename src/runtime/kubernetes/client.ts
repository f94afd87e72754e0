// Requests to the Kubernetes API: one at a time with its answer, and watches as lines. Knows HTTP and the API's conventions, no kinds.

import { z } from "zod";
import { type Fault, RETRY_NEVER } from "../../core/fault.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { type KubernetesAccess, words } from "./access.ts";

export type KubernetesFault = Fault<"kubernetes_unreachable" | "kubernetes_refused" | "kubernetes_malformed"> & {
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  /** The API's own word for it: `NotFound`, `Expired`, `Conflict`; empty when it said none. */
  readonly reason: string;
};

export type PatchType = "application/merge-patch+json" | "application/apply-patch+yaml" | "application/json-patch+json";

export interface RequestOptions {
  /** JSON (an apply patch too: JSON is YAML). */
  readonly body?: unknown;
  readonly contentType?: PatchType | "application/json";
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

/** An API server that has not answered by then will not. */
const REQUEST_LIMIT_MS = 30_000;
/** One line of a watch is one object; etcd takes none above 1.5 MiB, as JSON it is no more than a few times that. */
const LINE_BYTES_MAX = 8 * 1024 * 1024;
/** A watch ends by itself after its time-out; one that is there for this long beyond it is dead. */
const WATCH_SILENCE_MS = 30_000;

const statusSchema = z.looseObject({ kind: z.literal("Status"), message: z.string().optional(), reason: z.string().optional(), code: z.number().optional() });

export class KubernetesClient {
  readonly #access: KubernetesAccess;

  constructor(access: KubernetesAccess) {
    this.#access = access;
  }

  get origin(): string {
    return `${this.#access.server} (${this.#access.origin})`;
  }

  get namespace(): string {
    return this.#access.namespace;
  }

  get(path: string, options: RequestOptions = {}): Promise<Result<unknown, KubernetesFault>> {
    return this.request("GET", path, options);
  }

  /** @param path below the server, with its query: `/api/v1/namespaces/shop/pods?limit=500`. */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<Result<unknown, KubernetesFault>> {
    const limit = AbortSignal.timeout(REQUEST_LIMIT_MS);
    const signal = options.signal === undefined ? limit : AbortSignal.any([limit, options.signal]);
    const sent = await this.#send(method, path, { ...options, signal });
    if (!sent.ok) return sent;
    try {
      const text = await sent.value.text();
      return ok(text === "" ? null : JSON.parse(text));
    } catch (cause) {
      return this.#fault("kubernetes_malformed", `${method} ${path}: the answer of ${this.origin} is no JSON: ${words(cause)}`, { status: sent.value.status });
    }
  }

  /**
   * The events of a watch, each the JSON of one line. Ends when the server ends it, with `timeoutSeconds` of the path at the latest;
   * a failure to begin, and a connection that breaks, come as the last element.
   */
  async *watch(path: string, timeoutSeconds: number, options: RequestOptions = {}): AsyncGenerator<Result<unknown, KubernetesFault>> {
    const silence = new AbortController();
    const signal = options.signal === undefined ? silence.signal : AbortSignal.any([silence.signal, options.signal]);
    let timer = setTimeout(() => silence.abort(), REQUEST_LIMIT_MS);
    try {
      const sent = await this.#send("GET", `${path}${path.includes("?") ? "&" : "?"}watch=true&allowWatchBookmarks=true&timeoutSeconds=${timeoutSeconds}`, { ...options, signal });
      if (!sent.ok) {
        yield sent;
        return;
      }
      // A quiet watch is no dead one: its end comes with its time-out.
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), timeoutSeconds * 1000 + WATCH_SILENCE_MS);
      const decoder = new TextDecoder();
      let rest = "";
      for await (const chunk of sent.value.body ?? []) {
        rest += decoder.decode(chunk, { stream: true });
        if (rest.length > LINE_BYTES_MAX && !rest.includes("\n")) {
          yield this.#fault("kubernetes_malformed", `watch ${path}: a line of more than ${LINE_BYTES_MAX} bytes`, { status: 200 });
          return;
        }
        for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
          const line = rest.slice(0, end);
          rest = rest.slice(end + 1);
          if (line !== "") yield ok(JSON.parse(line));
        }
      }
    } catch (cause) {
      if (options.signal?.aborted === true) return;
      yield this.#fault("kubernetes_unreachable", `watch ${path}: the connection to ${this.origin} broke: ${words(cause)}`, { status: 0 });
    } finally {
      clearTimeout(timer);
      silence.abort();
    }
  }

  async #send(method: string, path: string, { body, contentType = "application/json", accept = "application/json", signal }: RequestOptions): Promise<Result<Response, KubernetesFault>> {
    const headers: Record<string, string> = { Accept: accept, "User-Agent": "weft" };
    let response: Response;
    try {
      const authorization = await this.#access.authorization();
      if (authorization !== null) headers["Authorization"] = authorization;
      if (body !== undefined) headers["Content-Type"] = contentType;
      response = await fetch(`${this.#access.server}${path}`, {
        method, headers, tls: this.#access.tls, timeout: false, redirect: "error",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }), ...(signal === undefined ? {} : { signal }),
      } as RequestInit);
    } catch (cause) {
      return this.#fault("kubernetes_unreachable", `${method} ${path}: no answer from ${this.origin}: ${words(cause)}`, { status: 0, cause });
    }
    if (response.ok) return ok(response);
    let text = "";
    try {
      text = await response.text();
    } catch {
      // The status says enough.
    }
    const { reason, message } = apiWords(text);
    return this.#fault("kubernetes_refused", `${method} ${path}: ${this.origin} answered ${response.status}${reason === "" ? "" : ` ${reason}`}: ${message}`, { status: response.status, reason });
  }

  #fault(code: KubernetesFault["code"], message: string, more: { readonly status: number; readonly reason?: string; readonly cause?: unknown }): { ok: false; error: KubernetesFault } {
    const blame = more.status === 401 || more.status === 403 ? "operator" : "peer";
    return err({ code, message, blame, dies: "nothing", retry: RETRY_NEVER, status: more.status, reason: more.reason ?? "", ...(more.cause === undefined ? {} : { cause: more.cause }) });
  }
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
