// Where identity providers are to be asked, by their discovery documents: fetched once however many ask, fetched anew before they are old,
// and not sooner after a failure than it allows. A provider that is down is survived with what it last said.

import type { Clock } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { LoginProvider } from "../../policy/http/login-port.ts";
import { type Discovered, discover } from "../jwt/discovery.ts";
import type { FetchPort } from "../jwt/fetch-port.ts";
import { KEYS_STALE_MAX_MS, REFRESH_MS, RETRY_MS_FIRST, RETRY_MS_LAST } from "../jwt/limits.ts";
import { PROVIDER_TIMEOUT_MS } from "./limits.ts";

export interface Provider extends LoginProvider {
  readonly issuer: string;
  readonly tokenEndpoint: string;
  readonly userInfoEndpoint: string | null;
  readonly clientAuthentication: "basic" | "post";
}

interface Entry {
  provider: Provider | null;
  fetchedMs: number;
  nextMs: number;
  failures: number;
  fault: string;
  underWay: Promise<void> | null;
}

export class ProviderCache {
  readonly #fetch: FetchPort;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #closed = new AbortController();

  constructor({ fetch, clock }: { readonly fetch: FetchPort; readonly clock: Clock }) {
    this.#fetch = fetch;
    this.#clock = clock;
  }

  /** Waits only when nothing is known yet. The error says why. */
  async find(issuer: string): Promise<Result<Provider, string>> {
    let entry = this.#entries.get(issuer);
    if (entry === undefined) this.#entries.set(issuer, (entry = { provider: null, fetchedMs: 0, nextMs: -Infinity, failures: 0, fault: "", underWay: null }));
    if (this.#clock.monotonicMs() >= entry.nextMs) this.#refresh(issuer, entry);
    const known = this.#usable(entry);
    if (known !== null) return ok(known);
    if (entry.underWay !== null) await entry.underWay;
    const fetched = this.#usable(entry);
    return fetched === null ? err(entry.fault) : ok(fetched);
  }

  /** Forgets providers that no policy names any more. */
  retain(issuers: readonly string[]): void {
    const kept = new Set(issuers);
    for (const issuer of this.#entries.keys()) if (!kept.has(issuer)) this.#entries.delete(issuer);
  }

  destroy(): void {
    this.#closed.abort();
    this.#entries.clear();
  }

  #usable({ provider, fetchedMs }: Entry): Provider | null {
    return provider !== null && this.#clock.monotonicMs() - fetchedMs < KEYS_STALE_MAX_MS ? provider : null;
  }

  #refresh(issuer: string, entry: Entry): void {
    entry.underWay ??= this.#fetchInto(issuer, entry).finally(() => {
      entry.underWay = null;
    });
  }

  async #fetchInto(issuer: string, entry: Entry): Promise<void> {
    const found = await discover(this.#fetch, { issuer, timeoutMs: PROVIDER_TIMEOUT_MS, signal: this.#closed.signal });
    const read = found.ok ? readProvider(issuer, found.value) : found;
    const nowMs = this.#clock.monotonicMs();
    if (!read.ok) {
      entry.failures++;
      entry.fault = read.error;
      entry.nextMs = nowMs + Math.min(RETRY_MS_LAST, RETRY_MS_FIRST * 2 ** Math.min(entry.failures - 1, 30));
      return;
    }
    entry.provider = read.value;
    entry.fetchedMs = nowMs;
    entry.nextMs = nowMs + REFRESH_MS;
    entry.failures = 0;
  }
}

function readProvider(issuer: string, document: Discovered): Result<Provider, string> {
  const authorization = document.endpoint("authorization_endpoint");
  if (!authorization.ok) return authorization;
  const token = document.endpoint("token_endpoint");
  if (!token.ok) return token;
  const userInfo = document.optionalEndpoint("userinfo_endpoint");
  if (!userInfo.ok) return userInfo;
  const endSession = document.optionalEndpoint("end_session_endpoint");
  if (!endSession.ok) return endSession;
  // The specification's default; providers that take both are asked in the way that puts no secret into a body.
  const methods = document.list("token_endpoint_auth_methods_supported") ?? ["client_secret_basic"];
  const clientAuthentication = methods.includes("client_secret_basic") ? "basic" : methods.includes("client_secret_post") ? "post" : null;
  if (clientAuthentication === null) return err(`${issuer} authenticates clients by ${methods.join(", ")}, we can client_secret_basic and client_secret_post`);
  const challenges = document.list("code_challenge_methods_supported");
  if (challenges !== null && !challenges.includes("S256")) return err(`${issuer} takes the code challenges ${challenges.join(", ")}, wanted S256`);
  return ok({
    issuer, authorizationEndpoint: authorization.value, tokenEndpoint: token.value, userInfoEndpoint: userInfo.value, endSessionEndpoint: endSession.value, clientAuthentication,
    namesItself: document.isTrue("authorization_response_iss_parameter_supported"),
  });
}
