// An OpenID provider in memory: strict about what the specification lets a provider be strict about (redirect address, PKCE, codes and
// refresh tokens that come twice, who the client is), and able to lie in each way that a client has to notice.

import { createHash, randomBytes } from "node:crypto";
import { err, ok, type Result } from "../../src/core/result.ts";
import type { FetchPort, IssuerRequest, IssuerResponse } from "../../src/identity/jwt/fetch-port.ts";
import { type FakeClock, ISSUER, keySet, sign, type TestKey } from "./issuer.ts";

interface Grant {
  readonly redirectUri: string;
  readonly challenge: string;
  readonly nonce: string;
}

export class FakeProvider {
  readonly asked: IssuerRequest[] = [];
  /** Members of the discovery document, beside the usual ones; undefined leaves one out. */
  metadata: Readonly<Record<string, unknown>> = {};
  /** Claims of the next ID tokens; undefined leaves one out. */
  claims: Readonly<Record<string, unknown>> = {};
  /** Of the token endpoint's answer. */
  answer: Readonly<Record<string, unknown>> = {};
  userInfo: Readonly<Record<string, unknown>> = { sub: "bob" };
  lifeS = 3600;
  givesRefreshTokens = true;
  /** On renewal. */
  givesIdTokens = true;
  /** Answers nothing any more. */
  down = false;
  /** Calls of the token endpoint wait for it. */
  gate: Promise<void> = Promise.resolve();
  readonly problems: string[] = [];
  readonly #key: TestKey;
  readonly #clock: FakeClock;
  readonly #codes = new Map<string, Grant>();
  readonly #refreshTokens = new Set<string>();

  constructor(key: TestKey, clock: FakeClock) {
    this.#key = key;
    this.#clock = clock;
  }

  readonly fetch: FetchPort = async (request) => {
    this.asked.push(request);
    if (this.down) return err(`${request.method} ${request.url}: connection refused`);
    const { pathname } = new URL(request.url);
    switch (pathname) {
      case "/.well-known/openid-configuration": return this.#json(200, this.#document());
      case "/keys": return ok({ status: 200, location: null, cacheControl: null, body: keySet(this.#key) });
      case "/token": return this.#token(request);
      case "/userinfo": return this.#json(200, this.userInfo);
      default: return err(`${request.url}: connection refused`);
    }
  };

  count(path: string): number {
    return this.asked.filter(({ url }) => new URL(url).pathname === path).length;
  }

  /** The user agrees. Gives the address to which the browser is sent; `parameters` are added or, as undefined, left out. */
  authorise(address: string, parameters: Readonly<Record<string, string | undefined>> = {}): string {
    const asked = new URL(address).searchParams;
    const code = randomBytes(16).toString("base64url");
    this.#codes.set(code, { redirectUri: asked.get("redirect_uri")!, challenge: asked.get("code_challenge")!, nonce: asked.get("nonce")! });
    const back = new URL(asked.get("redirect_uri")!);
    for (const [name, value] of Object.entries({ code, state: asked.get("state")!, iss: ISSUER, ...parameters })) if (value !== undefined) back.searchParams.set(name, value);
    return back.href;
  }

  #document(): Readonly<Record<string, unknown>> {
    return {
      issuer: ISSUER, authorization_endpoint: `${ISSUER}/authorize?tenant=1`, token_endpoint: `${ISSUER}/token`, userinfo_endpoint: `${ISSUER}/userinfo`, jwks_uri: `${ISSUER}/keys`,
      end_session_endpoint: `${ISSUER}/logout`, authorization_response_iss_parameter_supported: true, ...this.metadata,
    };
  }

  async #token({ headers, body }: IssuerRequest): Promise<Result<IssuerResponse, string>> {
    await this.gate;
    const form = new URLSearchParams(body ?? "");
    if (headers["authorization"] !== `Basic ${btoa("shop:s3cret")}` && !(form.get("client_id") === "shop" && form.get("client_secret") === "s3cret")) return this.#json(401, { error: "invalid_client" });
    if (form.get("grant_type") === "refresh_token") return this.#refresh(form.get("refresh_token")!);
    const grant = this.#codes.get(form.get("code")!);
    if (grant === undefined) return this.#wrong("a code that is not known, or comes twice");
    this.#codes.delete(form.get("code")!);
    if (grant.redirectUri !== form.get("redirect_uri")) return this.#wrong("another redirect_uri");
    if (grant.challenge !== createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url")) return this.#wrong("PKCE");
    return this.#tokens({ nonce: grant.nonce }, true);
  }

  #refresh(token: string): Promise<Result<IssuerResponse, string>> {
    if (!this.#refreshTokens.delete(token)) return this.#wrong("a refresh token that is not known, or comes twice");
    return this.#tokens({}, this.givesIdTokens);
  }

  async #tokens(claims: Readonly<Record<string, unknown>>, withIdToken: boolean): Promise<Result<IssuerResponse, string>> {
    const nowS = Math.floor(this.#clock.wallMs() / 1000);
    const accessToken = randomBytes(16).toString("base64url");
    const atHash = createHash("sha256").update(accessToken).digest().subarray(0, 16).toString("base64url");
    const idToken = await sign(this.#key, { aud: "shop", iat: nowS, exp: nowS + this.lifeS, at_hash: atHash, ...claims, ...this.claims });
    const refreshToken = randomBytes(16).toString("base64url");
    if (this.givesRefreshTokens) this.#refreshTokens.add(refreshToken);
    return this.#json(200, {
      access_token: accessToken, token_type: "Bearer", expires_in: this.lifeS, ...(withIdToken ? { id_token: idToken } : {}), ...(this.givesRefreshTokens ? { refresh_token: refreshToken } : {}), ...this.answer,
    });
  }

  async #wrong(problem: string): Promise<Result<IssuerResponse, string>> {
    this.problems.push(problem);
    return this.#json(400, { error: "invalid_grant", error_description: problem });
  }

  #json(status: number, value: unknown): Result<IssuerResponse, string> {
    return ok({ status, location: null, cacheControl: null, body: JSON.stringify(value) });
  }
}
