// What a login asks of the world, answered: the provider's addresses, the exchange of a code, the renewal of a session. Renewals are made once
// for each refresh token however many requests bring it; a login is finished once.

import { createHash } from "node:crypto";
import type { Clock } from "../../core/ports.ts";
import { err, ok, unreachable as never } from "../../core/result.ts";
import type { LoginPolicy } from "../../mesh/l7/access.ts";
import type { LoginAsk, LoginContext, LoginDecision, LoginStep } from "../../policy/http/login.ts";
import type { CodeExchange, LoginCrypto, LoginReply, LoginTokens, TokenRefresh } from "../../policy/http/login-port.ts";
import { loginRule } from "../../policy/http/login-token.ts";
import type { FetchPort } from "../jwt/fetch-port.ts";
import type { TokenVerifier } from "../jwt/token-verifier.ts";
import { cookieCrypto } from "./cookie-crypto.ts";
import { idTokenProblem } from "./id-token.ts";
import { CALLS_UNDER_WAY_MAX, FINISHED_KEPT_MS, FINISHED_MAX, RENEWAL_FAILED_MS, RENEWALS_MAX, RENEWED_KEPT_MS, TOKEN_LIFE_MS } from "./limits.ts";
import { type Provider, ProviderCache } from "./provider-cache.ts";
import { askForTokens, askForUserInfo, type TokenAnswer } from "./token-endpoint.ts";

export interface LoginServiceOptions {
  readonly fetch: FetchPort;
  readonly clock: Clock;
  readonly verifier: Pick<TokenVerifier, "verify">;
}

interface Renewal {
  readonly reply: Promise<LoginReply<LoginTokens>>;
  /** Null while it is under way. */
  untilMs: number | null;
}

interface Wanted {
  readonly nonce: string | null;
  readonly subject: string | null;
}

export class LoginService {
  readonly #options: LoginServiceOptions;
  readonly #providers: ProviderCache;
  readonly #cryptos = new WeakMap<LoginPolicy, LoginCrypto>();
  /** Oldest first. */
  readonly #renewals = new Map<string, Renewal>();
  /** Until when each is remembered; oldest first. */
  readonly #finished = new Map<string, number>();
  readonly #closed = new AbortController();
  #underWay = 0;

  constructor(options: LoginServiceOptions) {
    this.#options = options;
    this.#providers = new ProviderCache(options);
  }

  /** For one request. */
  context(): LoginContext {
    return { cryptoOf: (policy) => this.#cryptoOf(policy), nowMs: this.#options.clock.wallMs() };
  }

  /** Asks what has to be asked until the login is decided. */
  async settle(step: LoginStep): Promise<LoginDecision> {
    let present = step;
    while (present.kind === "ask") present = await this.#answer(present);
    return present;
  }

  /** Forgets providers that no policy names any more. */
  retain(policies: readonly LoginPolicy[]): void {
    this.#providers.retain(policies.map(({ issuer }) => issuer));
  }

  /** Ends what is under way; idempotent. */
  destroy(): void {
    this.#closed.abort();
    this.#providers.destroy();
    this.#renewals.clear();
    this.#finished.clear();
  }

  async #answer(ask: LoginAsk): Promise<LoginStep> {
    switch (ask.about) {
      case "provider": return ask.answered(await this.#provider(ask.policy));
      case "exchange": return ask.answered(await this.#exchange(ask.policy, ask.exchange));
      case "refresh": return ask.answered(await this.#renew(ask.policy, ask.refresh));
      default: return never(ask);
    }
  }

  #cryptoOf(policy: LoginPolicy): LoginCrypto {
    let crypto = this.#cryptos.get(policy);
    if (crypto === undefined) this.#cryptos.set(policy, (crypto = cookieCrypto(policy.cookieKeys)));
    return crypto;
  }

  async #provider({ issuer }: LoginPolicy): Promise<LoginReply<Provider>> {
    const found = await this.#providers.find(issuer);
    return found.ok ? found : err({ kind: "unreachable", detail: found.error });
  }

  async #exchange(policy: LoginPolicy, { code, verifier, nonce, redirectUri, flow }: CodeExchange): Promise<LoginReply<LoginTokens>> {
    // A code that comes twice makes providers take back what they gave for it the first time (RFC 6749, section 4.1.2).
    if (!this.#finish(flow)) return err({ kind: "refused", detail: "this login was finished already" });
    return this.#limited(() => this.#tokens(policy, { grant_type: "authorization_code", code, redirect_uri: redirectUri, code_verifier: verifier }, { nonce, subject: null }));
  }

  async #renew(policy: LoginPolicy, { refreshToken, subject }: TokenRefresh): Promise<LoginReply<LoginTokens>> {
    const { clock } = this.#options;
    const key = createHash("sha256").update(JSON.stringify([policy.issuer, policy.clientId, subject, refreshToken])).digest("base64");
    const known = this.#renewals.get(key);
    if (known !== undefined && (known.untilMs === null || clock.monotonicMs() < known.untilMs)) return known.reply;
    const renewal: Renewal = { reply: this.#limited(() => this.#tokens(policy, { grant_type: "refresh_token", refresh_token: refreshToken }, { nonce: null, subject })), untilMs: null };
    this.#renewals.delete(key);
    this.#renewals.set(key, renewal);
    forgetOldest(this.#renewals, RENEWALS_MAX);
    let keptMs = 0;
    try {
      const reply = await renewal.reply;
      keptMs = reply.ok ? RENEWED_KEPT_MS : RENEWAL_FAILED_MS;
      return reply;
    } finally {
      renewal.untilMs = clock.monotonicMs() + keptMs;
    }
  }

  async #tokens(policy: LoginPolicy, grant: Readonly<Record<string, string>>, wanted: Wanted): Promise<LoginReply<LoginTokens>> {
    const { fetch, clock } = this.#options;
    const provider = await this.#provider(policy);
    if (!provider.ok) return provider;
    const answer = await askForTokens(fetch, provider.value, policy, { grant, signal: this.#closed.signal });
    if (!answer.ok) return answer;
    const { idToken, lifeMs, refreshToken } = answer.value;
    if (idToken === null) {
      if (wanted.subject === null) return err({ kind: "refused", detail: `${provider.value.tokenEndpoint} answered without an ID token` });
      return ok({ idToken, userInfo: null, refreshToken, endsMs: clock.wallMs() + (lifeMs ?? TOKEN_LIFE_MS) });
    }
    return this.#verified(policy, provider.value, { ...answer.value, idToken }, wanted);
  }

  async #verified(policy: LoginPolicy, provider: Provider, { idToken, accessToken, refreshToken }: TokenAnswer & { readonly idToken: string }, wanted: Wanted): Promise<LoginReply<LoginTokens>> {
    const { fetch, clock, verifier } = this.#options;
    const bound = loginRule(policy);
    const { clockSkewMs } = bound.rule;
    const verdict = await verifier.verify({ text: idToken, source: bound.rule.sources[0]!, rules: [bound] });
    if (!verdict.ok) return err({ kind: verdict.code === "token_keys_unavailable" ? "unreachable" : "refused", detail: `the ID token of ${policy.issuer}: ${verdict.detail} (${verdict.code})` });
    const { payload } = verdict;
    const problem = idTokenProblem(idToken, payload, { clientId: policy.clientId, ...wanted, accessToken, clockSkewMs, nowMs: clock.wallMs() });
    if (problem !== null) return err({ kind: "refused", detail: `${policy.issuer}: ${problem}` });
    const { sub: subject, exp } = payload;
    if (typeof subject !== "string" || typeof exp !== "number") throw new Error("an ID token without sub or exp was accepted");
    const tokens = { idToken, refreshToken, endsMs: endOf(exp * 1000, clock.wallMs(), clockSkewMs) };
    if (!policy.userInfo) return ok({ ...tokens, userInfo: null });
    const userInfo = await askForUserInfo(fetch, provider, { accessToken, subject, signal: this.#closed.signal });
    return userInfo.ok ? ok({ ...tokens, userInfo: userInfo.value }) : userInfo;
  }

  async #limited(call: () => Promise<LoginReply<LoginTokens>>): Promise<LoginReply<LoginTokens>> {
    if (this.#underWay >= CALLS_UNDER_WAY_MAX) return err({ kind: "unreachable", detail: `${this.#underWay} calls to identity providers are under way already` });
    this.#underWay++;
    try {
      return await call();
    } finally {
      this.#underWay--;
    }
  }

  /** False when it was before. */
  #finish(flow: string): boolean {
    const nowMs = this.#options.clock.monotonicMs();
    for (const [known, untilMs] of this.#finished) {
      if (untilMs > nowMs) break;
      this.#finished.delete(known);
    }
    if (this.#finished.has(flow)) return false;
    this.#finished.set(flow, nowMs + FINISHED_KEPT_MS);
    forgetOldest(this.#finished, FINISHED_MAX);
    return true;
  }
}

/** The token's own end; one that clocks apart bring to its end at once is good for the skew, or browsers would go to and fro for ever. */
function endOf(expiresMs: number, nowMs: number, skewMs: number): number {
  return Math.min(expiresMs + skewMs, Math.max(expiresMs, nowMs + skewMs));
}

function forgetOldest(map: Map<string, unknown>, sizeMax: number): void {
  for (const key of map.keys()) {
    if (map.size <= sizeMax) return;
    map.delete(key);
  }
}
