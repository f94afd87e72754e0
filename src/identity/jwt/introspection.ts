// Tokens that only their issuer can read: asked about by RFC 7662, and remembered for a short while. Keyed by a hash, so that no token
// lies about in memory longer than its request.

import { createHash } from "node:crypto";
import type { Clock } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { JwtRule } from "../../mesh/l7/access.ts";
import type { JsonObject } from "../../policy/http/claims.ts";
import { basicAuthorization } from "./basic-authorization.ts";
import type { FetchPort } from "./fetch-port.ts";
import { isRecord } from "./key-set.ts";
import {
  INTROSPECTION_ACTIVE_MS, INTROSPECTION_BYTES_MAX, INTROSPECTION_FAILED_MS, INTROSPECTION_INACTIVE_MS, INTROSPECTIONS_MAX, INTROSPECTIONS_UNDER_WAY_MAX,
} from "./limits.ts";

export type IntrospectedRule = Pick<JwtRule, "fetchTimeoutMs"> & { readonly keys: Extract<JwtRule["keys"], { kind: "introspection" }> };

/** Null: the issuer says that the token is not active. */
export type Introspected = Result<JsonObject | null, string>;

interface Remembered {
  readonly answer: Promise<Introspected>;
  /** Null while it is under way. */
  untilMs: number | null;
}

export class IntrospectionCache {
  readonly #fetch: FetchPort;
  readonly #clock: Clock;
  /** Oldest first. */
  readonly #known = new Map<string, Remembered>();
  readonly #closed = new AbortController();
  #underWay = 0;

  constructor({ fetch, clock }: { readonly fetch: FetchPort; readonly clock: Clock }) {
    this.#fetch = fetch;
    this.#clock = clock;
  }

  /** What the issuer says of a token: its claims, or null. The error says why it could not be asked. */
  async introspect(rule: IntrospectedRule, token: string): Promise<Introspected> {
    const key = createHash("sha256").update(JSON.stringify([rule.keys.url, rule.keys.clientId, token])).digest("base64");
    const known = this.#known.get(key);
    if (known !== undefined && (known.untilMs === null || this.#clock.monotonicMs() < known.untilMs)) return known.answer;
    if (this.#underWay >= INTROSPECTIONS_UNDER_WAY_MAX) return err(`${rule.keys.url}: ${this.#underWay} questions are under way already`);
    const entry: Remembered = { answer: this.#ask(rule, token), untilMs: null };
    this.#known.delete(key);
    this.#known.set(key, entry);
    this.#forgetOldest();
    const answer = await entry.answer;
    entry.untilMs = this.#clock.monotonicMs() + (answer.ok ? (answer.value === null ? INTROSPECTION_INACTIVE_MS : INTROSPECTION_ACTIVE_MS) : INTROSPECTION_FAILED_MS);
    return answer;
  }

  get size(): number {
    return this.#known.size;
  }

  destroy(): void {
    this.#closed.abort();
    this.#known.clear();
  }

  #forgetOldest(): void {
    for (const key of this.#known.keys()) {
      if (this.#known.size <= INTROSPECTIONS_MAX) return;
      this.#known.delete(key);
    }
  }

  async #ask({ keys, fetchTimeoutMs }: IntrospectedRule, token: string): Promise<Introspected> {
    this.#underWay++;
    try {
      const answer = await this.#fetch({
        method: "POST", url: keys.url, timeoutMs: fetchTimeoutMs, bodyBytesMax: INTROSPECTION_BYTES_MAX, publicOnly: false, signal: this.#closed.signal,
        body: new URLSearchParams({ token, token_type_hint: "access_token" }).toString(),
        headers: { accept: "application/json", "content-type": "application/x-www-form-urlencoded", authorization: basicAuthorization(keys.clientId, keys.clientSecret) },
      });
      if (!answer.ok) return answer;
      // A redirect is not followed: it would carry the token and our secret elsewhere.
      return answer.value.status === 200 ? readAnswer(keys.url, answer.value.body) : err(`${keys.url} answered ${answer.value.status}, wanted 200`);
    } finally {
      this.#underWay--;
    }
  }
}

function readAnswer(url: string, body: string): Introspected {
  let document: unknown;
  try {
    document = JSON.parse(body);
  } catch {
    return err(`${url} answered something that is no JSON`);
  }
  if (!isRecord(document) || typeof document["active"] !== "boolean") return err(`${url} answered without saying whether the token is active`);
  return ok(document["active"] ? (document as JsonObject) : null);
}
