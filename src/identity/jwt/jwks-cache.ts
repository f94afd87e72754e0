// The keys of issuers, kept fresh: given, fetched from a URL, or found through OpenID discovery. Fetched before they are old, once
// however many ask, and not sooner than a failure allows; an issuer that is down is survived with the keys that it last gave.
// Owns no timer: `refreshDue` is called from outside, and every look-up sees to its own set too.

import type { Clock, Random } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { JwtRule } from "../../mesh/l7/access.ts";
import { discover } from "./discovery.ts";
import type { FetchPort } from "./fetch-port.ts";
import { getFollowing } from "./follow.ts";
import { type KeySet, parseKeySet } from "./key-set.ts";
import {
  KEY_SET_BYTES_MAX, KEYS_STALE_MAX_MS, REFRESH_JITTER, REFRESH_MS, REFRESH_MS_MAX, REFRESH_MS_MIN, RETRY_MS_FIRST, RETRY_MS_LAST, UNKNOWN_KEY_REFETCH_MS,
} from "./limits.ts";

/** A rule whose tokens are checked by keys. */
export type KeyedRule = Pick<JwtRule, "issuer" | "fetchTimeoutMs"> & { readonly keys: Extract<JwtRule["keys"], { kind: "inline" | "url" | "discovery" }> };

export function isKeyed(rule: JwtRule): rule is JwtRule & KeyedRule {
  return rule.keys.kind === "inline" || rule.keys.kind === "url" || rule.keys.kind === "discovery";
}

export interface JwksCacheOptions {
  readonly fetch: FetchPort;
  readonly clock: Clock;
  readonly random: Random;
}

export interface JwksStatus {
  readonly source: string;
  readonly keys: number | null;
  /** Milliseconds since 1970; null when never. */
  readonly fetchedAtMs: number | null;
  readonly failures: number;
  /** What the last attempt failed of; null when it did not. */
  readonly fault: string | null;
}

interface Entry {
  readonly source: string;
  readonly rule: KeyedRule;
  keys: KeySet | null;
  fetchedMs: number;
  fetchedAtMs: number | null;
  attemptedMs: number;
  /** Not before this time again, of its own. */
  nextMs: number;
  failures: number;
  fault: string | null;
  underWay: Promise<void> | null;
}

export class JwksCache {
  readonly #options: JwksCacheOptions;
  readonly #entries = new Map<string, Entry>();
  /** The same by rule: a source may be a long text. */
  #byRule = new WeakMap<KeyedRule, Entry>();
  readonly #closed = new AbortController();

  constructor(options: JwksCacheOptions) {
    this.#options = options;
  }

  /** The keys of a rule's issuer as they are at hand; null when there are none. Fetches nothing: look-ups and `refreshDue` do. */
  present(rule: KeyedRule): KeySet | null {
    const entry = this.#byRule.get(rule);
    return entry === undefined ? null : this.#usable(entry);
  }

  /** The keys of a rule's issuer; waits only when there are none yet. The error says why there are none. */
  async keysFor(rule: KeyedRule): Promise<Result<KeySet, string>> {
    const entry = this.#entryOf(rule);
    const nowMs = this.#options.clock.monotonicMs();
    if (nowMs >= entry.nextMs) void this.#refresh(entry);
    const usable = this.#usable(entry);
    if (usable !== null) return ok(usable);
    if (entry.underWay !== null) await entry.underWay;
    const fetched = this.#usable(entry);
    return fetched !== null ? ok(fetched) : err(entry.fault ?? `${entry.source} has not been fetched`);
  }

  /** Fetches again because a token names a key that is not in the set, if that was not done a moment ago. True when the set may have changed. */
  async refetchForUnknownKey(rule: KeyedRule): Promise<boolean> {
    const entry = this.#entryOf(rule);
    if (entry.rule.keys.kind === "inline") return false;
    const before = entry.keys;
    if (entry.underWay === null && this.#options.clock.monotonicMs() - entry.attemptedMs < UNKNOWN_KEY_REFETCH_MS) return false;
    await this.#refresh(entry);
    return entry.keys !== before;
  }

  /** Starts what is due. Call it every few seconds; resolves when what it started is done. */
  async refreshDue(): Promise<void> {
    const nowMs = this.#options.clock.monotonicMs();
    await Promise.all([...this.#entries.values()].filter(({ nextMs }) => nowMs >= nextMs).map((entry) => this.#refresh(entry)));
  }

  /** Forgets issuers that no rule names any more. */
  retain(rules: readonly KeyedRule[]): void {
    const kept = new Set(rules.map(sourceOf));
    for (const source of this.#entries.keys()) if (!kept.has(source)) this.#entries.delete(source);
    this.#byRule = new WeakMap();
  }

  status(): readonly JwksStatus[] {
    return [...this.#entries.values()].map(({ source, keys, fetchedAtMs, failures, fault }) => ({ source: source.startsWith("inline ") ? "inline" : source, keys: keys?.size ?? null, fetchedAtMs, failures, fault }));
  }

  /** Ends what is under way; idempotent. */
  destroy(): void {
    this.#closed.abort();
    this.#entries.clear();
    this.#byRule = new WeakMap();
  }

  #usable({ keys, rule, fetchedMs }: Entry): KeySet | null {
    return keys !== null && (rule.keys.kind === "inline" || this.#options.clock.monotonicMs() - fetchedMs < KEYS_STALE_MAX_MS) ? keys : null;
  }

  #entryOf(rule: KeyedRule): Entry {
    const known = this.#byRule.get(rule);
    if (known !== undefined) return known;
    const entry = this.#entryOfSource(rule);
    this.#byRule.set(rule, entry);
    return entry;
  }

  #entryOfSource(rule: KeyedRule): Entry {
    const source = sourceOf(rule);
    let entry = this.#entries.get(source);
    if (entry === undefined) {
      entry = { source, rule, keys: null, fetchedMs: 0, fetchedAtMs: null, attemptedMs: -Infinity, nextMs: -Infinity, failures: 0, fault: null, underWay: null };
      this.#entries.set(source, entry);
      if (rule.keys.kind === "inline") this.#readInline(entry, rule.keys.jwks);
    }
    return entry;
  }

  #readInline(entry: Entry, jwks: string): void {
    const keys = parseKeySet(jwks);
    entry.nextMs = Infinity;
    if (keys.ok) entry.keys = keys.value;
    else entry.fault = keys.error;
  }

  /** One at a time for each issuer: whoever comes meanwhile waits for the same. */
  #refresh(entry: Entry): Promise<void> {
    entry.underWay ??= this.#fetchInto(entry).finally(() => {
      entry.underWay = null;
    });
    return entry.underWay;
  }

  async #fetchInto(entry: Entry): Promise<void> {
    const { clock } = this.#options;
    entry.attemptedMs = clock.monotonicMs();
    const fetched = await this.#fetchKeys(entry.rule);
    const nowMs = clock.monotonicMs();
    if (!fetched.ok) {
      entry.failures++;
      entry.fault = fetched.error;
      entry.nextMs = nowMs + this.#jittered(Math.min(RETRY_MS_LAST, RETRY_MS_FIRST * 2 ** Math.min(entry.failures - 1, 30)));
      return;
    }
    entry.keys = fetched.value.keys;
    entry.fetchedMs = nowMs;
    entry.fetchedAtMs = clock.wallMs();
    entry.failures = 0;
    entry.fault = null;
    entry.nextMs = nowMs + this.#jittered(fetched.value.refreshMs);
  }

  async #fetchKeys(rule: KeyedRule): Promise<Result<{ readonly keys: KeySet; readonly refreshMs: number }, string>> {
    const url = rule.keys.kind === "url" ? ok(rule.keys.url) : await this.#discover(rule);
    if (!url.ok) return url;
    const answer = await this.#get(rule, url.value, KEY_SET_BYTES_MAX);
    if (!answer.ok) return answer;
    const keys = parseKeySet(answer.value.body);
    return keys.ok ? ok({ keys: keys.value, refreshMs: refreshMsOf(answer.value.cacheControl) }) : err(`${url.value}: ${keys.error}`);
  }

  async #discover(rule: KeyedRule): Promise<Result<string, string>> {
    const found = await discover(this.#options.fetch, { issuer: rule.issuer, timeoutMs: rule.fetchTimeoutMs, signal: this.#closed.signal });
    return found.ok ? found.value.endpoint("jwks_uri") : found;
  }

  async #get(rule: KeyedRule, url: string, bodyBytesMax: number): Promise<Result<{ readonly body: string; readonly cacheControl: string | null }, string>> {
    const answer = await getFollowing(this.#options.fetch, { url, headers: { accept: "application/json" }, timeoutMs: rule.fetchTimeoutMs, bodyBytesMax, signal: this.#closed.signal });
    if (!answer.ok) return answer;
    return answer.value.status === 200 ? ok(answer.value) : err(`${url} answered ${answer.value.status}, wanted 200`);
  }

  #jittered(ms: number): number {
    return ms * (1 + REFRESH_JITTER * (2 * this.#options.random.next() - 1));
  }
}

function sourceOf({ keys, issuer }: KeyedRule): string {
  switch (keys.kind) {
    case "inline": return `inline ${keys.jwks}`;
    case "url": return keys.url;
    case "discovery": return `discovery ${issuer}`;
    default: return keys satisfies never;
  }
}

function refreshMsOf(cacheControl: string | null): number {
  const maxAge = cacheControl === null ? null : /(?:^|[\s,])max-age=(\d{1,9})(?:$|[\s,;])/i.exec(cacheControl);
  return maxAge === null ? REFRESH_MS : Math.min(REFRESH_MS_MAX, Math.max(REFRESH_MS_MIN, Number(maxAge[1]) * 1000));
}
