// Browser login by OpenID Connect: the authorisation code flow with PKCE, sessions in encrypted cookies, renewal and logout. Pure: where the
// provider has to be asked the step says what, and goes on with the answer.
//
//   request ── callback path ──▶ state? ──▶ issuer? ──▶ exchange ──▶ session, back to where it began
//      │────── logout path ────▶ cookies cleared, on to the provider's own logout
//      └── session? ── good ──▶ pass    near its end ──▶ refresh ──▶ pass
//             └── none ──▶ page: redirect to the provider    anything else: 401

import { formatProvenance, type Provenance } from "../../core/fault.ts";
import type { LoginPolicy } from "../../mesh/l7/access.ts";
import { clearFlow, flowCookies, flowNames, type LoginFlow, readFlow, RETURN_CHARS_MAX } from "./login-flow.ts";
import { clearCookie } from "./login-cookies.ts";
import type { CodeExchange, LoginCrypto, LoginFault, LoginProvider, LoginReply, LoginTokens, TokenRefresh } from "./login-port.ts";
import { externalScheme, isFromOtherSite, isNavigation, isPreflight, originOf } from "./login-request.ts";
import { clearSession, type LoginSession, readLoginSession, SESSION_COOKIES_MAX, sessionCookies, sessionPayload } from "./login-session.ts";
import { queryValue } from "./query.ts";
import type { ReasonCode } from "./reason-codes.ts";
import type { RequestView } from "./request.ts";

/** Goes on to the application, without the login's own cookies (`withoutLoginCookies`). */
export interface LoginPass {
  readonly kind: "pass";
  readonly session: LoginSession;
  /** `set-cookie` values for the response: the session was renewed. */
  readonly cookies: readonly string[];
  readonly provenance: Provenance;
}

export interface LoginAnswer {
  readonly kind: "answer";
  readonly code: Extract<ReasonCode, `login_${string}` | "logged_out" | "rule_broken">;
  /** Null: the code's own. */
  readonly status: number | null;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Null: the code's own. */
  readonly body: string | null;
  readonly detail: string;
  readonly provenance: Provenance;
}

/** A CORS preflight, which never carries a session. A rule may answer it; if none does, `otherwise` is the answer: no backend sees it. */
export interface LoginPreflight {
  readonly kind: "preflight";
  readonly otherwise: LoginAnswer;
}

export type LoginDecision = LoginPass | LoginAnswer | LoginPreflight;

export type LoginAsk = { readonly kind: "ask"; readonly policy: LoginPolicy } & (
  | { readonly about: "provider"; answered(reply: LoginReply<LoginProvider>): LoginStep }
  | { readonly about: "exchange"; readonly exchange: CodeExchange; answered(reply: LoginReply<LoginTokens>): LoginStep }
  | { readonly about: "refresh"; readonly refresh: TokenRefresh; answered(reply: LoginReply<LoginTokens>): LoginStep }
);

export type LoginStep = LoginDecision | LoginAsk;

export interface LoginContext {
  readonly cryptoOf: (policy: LoginPolicy) => LoginCrypto;
  /** Milliseconds since 1970. */
  readonly nowMs: number;
}

/** Before its end a token is renewed: this long, or this share of its life if that is shorter. */
export const RENEW_AHEAD_MS = 60_000;
export const RENEW_AHEAD_SHARE = 0.2;

/** What a provider says in its answer is shown in logs, cut to this. */
const ERROR_CHARS_MAX = 200;
/** A longer ID token does not fit into the address of a logout; the provider then asks the user. */
const HINT_CHARS_MAX = 3_000;

/** Callback and logout: the login's own, whatever else the request carries. Null when it is neither. */
export function loginEndpoint(policies: readonly LoginPolicy[], request: RequestView, context: LoginContext): LoginStep | null {
  const [policy] = policies;
  if (policy === undefined || request.path !== policy.callbackPath && request.path !== policy.logoutPath) return null;
  const login = loginOf(policies, request, context);
  if (!(login instanceof Login)) return login;
  return request.path === policy.callbackPath ? login.callback() : login.logout();
}

/**
 * May a request that no token speaks for pass? Ask `loginEndpoint` first.
 * @param policies those that cover the service, at least one.
 */
export function requireLogin(policies: readonly LoginPolicy[], request: RequestView, context: LoginContext): LoginStep {
  const login = loginOf(policies, request, context);
  return login instanceof Login ? login.require() : login;
}

function loginOf(policies: readonly LoginPolicy[], request: RequestView, { cryptoOf, nowMs }: LoginContext): Login | LoginAnswer {
  const policy = policies[0]!;
  const origin = originOf(request);
  const broken = policies.find((each) => each.broken !== null);
  const refuse = (code: LoginAnswer["code"], status: number | null, detail: string, { provenance }: LoginPolicy): LoginAnswer =>
    ({ kind: "answer", code, status, headers: [["cache-control", "no-store"]], body: null, detail, provenance });
  if (broken !== undefined) return refuse("rule_broken", null, `${formatProvenance(broken.provenance)}: ${broken.broken}`, broken);
  // Which provider would count is a guess, and a session of one does not open the other.
  if (policies.length > 1) return refuse("rule_broken", null, `several policies ask for a login at this service, leave one: ${policies.map(({ provenance }) => formatProvenance(provenance)).join(", ")}`, policy);
  if (origin === null) return refuse("login_required", 401, "the request names no host to which a browser could be sent back", policy);
  return new Login(policy, request, { crypto: cryptoOf(policy), nowMs, secure: externalScheme(request) === "https" }, origin);
}

class Login {
  readonly #policy: LoginPolicy;
  readonly #request: RequestView;
  readonly #context: { readonly crypto: LoginCrypto; readonly nowMs: number; readonly secure: boolean };
  readonly #origin: string;

  constructor(policy: LoginPolicy, request: RequestView, context: { readonly crypto: LoginCrypto; readonly nowMs: number; readonly secure: boolean }, origin: string) {
    this.#policy = policy;
    this.#request = request;
    this.#context = context;
    this.#origin = origin;
  }

  // ── Any request ───────────────────────────────────────────────────────────────────────────────────────────────────────────

  require(): LoginStep {
    if (isPreflight(this.#request)) return { kind: "preflight", otherwise: this.#unauthorised("a CORS preflight, and no rule answers it") };
    const session = readLoginSession(this.#policy, this.#request.fields, this.#context);
    if (session === null) return this.#begin("it brings no session that is good here");
    const { nowMs } = this.#context;
    const isOver = nowMs >= session.endsMs;
    const aheadMs = Math.min(RENEW_AHEAD_MS, (session.endsMs - session.renewedMs) * RENEW_AHEAD_SHARE);
    if (!isOver && (session.refreshToken === null || nowMs < session.endsMs - aheadMs)) return this.#pass(session, []);
    if (session.refreshToken === null) return this.#begin("the token of its session is at its end, and there is no refresh token");
    const { refreshToken, payload } = session;
    return {
      kind: "ask", policy: this.#policy, about: "refresh", refresh: { refreshToken, subject: typeof payload["sub"] === "string" ? payload["sub"] : "" },
      answered: (reply) => (reply.ok ? this.#renewed(session, reply.value) : isOver ? this.#notRenewed(reply.error) : this.#pass(session, [])),
    };
  }

  #renewed(session: LoginSession, tokens: LoginTokens): LoginStep {
    const { nowMs } = this.#context;
    const idToken = tokens.idToken ?? session.idToken;
    const userInfo = tokens.userInfo ?? session.userInfo;
    const renewed: LoginSession = {
      startedMs: session.startedMs, renewedMs: nowMs, endsMs: tokens.endsMs, idToken, refreshToken: tokens.refreshToken ?? session.refreshToken, userInfo, payload: sessionPayload(idToken, userInfo),
    };
    const cookies = sessionCookies(this.#policy, renewed, this.#request.fields, this.#context);
    if (cookies === null) return this.#failed(`the renewed session does not fit into ${SESSION_COOKIES_MAX} cookies: let the provider put less into its tokens`, clearSession(this.#policy, this.#request.fields, this.#context.secure));
    return this.#pass(renewed, cookies);
  }

  #notRenewed(fault: LoginFault): LoginStep {
    if (fault.kind === "unreachable") return this.#unavailable(`the session could not be renewed: ${fault.detail}`, []);
    return this.#begin(`the provider does not renew the session: ${fault.detail}`);
  }

  #pass(session: LoginSession, cookies: readonly string[]): LoginPass {
    return { kind: "pass", session, cookies, provenance: this.#policy.provenance };
  }

  // ── To the provider ───────────────────────────────────────────────────────────────────────────────────────────────────────

  #begin(why: string): LoginStep {
    if (!isNavigation(this.#request)) return this.#unauthorised(why);
    return {
      kind: "ask", policy: this.#policy, about: "provider",
      answered: (reply) => (reply.ok ? this.#redirect(reply.value, why) : this.#unavailable(reply.error.detail, [])),
    };
  }

  #redirect({ authorizationEndpoint }: LoginProvider, why: string): LoginAnswer {
    const policy = this.#policy;
    const { crypto, nowMs } = this.#context;
    const { path, query, fields } = this.#request;
    const returnTo = path.startsWith("/") && path.length + query.length <= RETURN_CHARS_MAX ? path + query : "/";
    const flow: LoginFlow = { state: crypto.secret(), nonce: crypto.secret(), verifier: crypto.secret(), returnTo, startedMs: nowMs };
    const url = new URL(authorizationEndpoint);
    const parameters = {
      response_type: "code", client_id: policy.clientId, redirect_uri: this.#origin + policy.callbackPath, scope: policy.scopes.join(" "), state: flow.state, nonce: flow.nonce,
      code_challenge: crypto.sha256(flow.verifier), code_challenge_method: "S256",
    };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    return this.#send("login_required", url.href, flowCookies(policy, flow, fields, this.#context), why);
  }

  // ── From the provider ─────────────────────────────────────────────────────────────────────────────────────────────────────

  callback(): LoginStep {
    const { query, fields, method } = this.#request;
    if (method !== "GET") return this.#failed(`the provider answers by GET, this is ${method}`, []);
    const state = onlyValue(query, "state");
    if (state === null) return this.#failed("the answer has no state, or several", []);
    const flow = readFlow(this.#policy, state, fields, this.#context);
    if (flow === null) {
      // The browser's back button; whatever the answer is, it changes nothing.
      const session = readLoginSession(this.#policy, fields, this.#context);
      if (session !== null && this.#context.nowMs < session.endsMs && !isFromOtherSite(this.#request)) return this.#send("login_done", `${this.#origin}/`, [], "the browser is logged in already; this answer was not looked at");
      return this.#failed("this browser has not begun a login with this state here, has finished it already, or keeps no cookies", []);
    }
    const done = [clearFlow(this.#policy, state, this.#context)];
    if (flow === "expired") return this.#failed("the login was begun too long ago", done);
    return {
      kind: "ask", policy: this.#policy, about: "provider",
      answered: (reply) => (reply.ok ? this.#answered(reply.value, flow, done) : this.#unavailable(reply.error.detail, done)),
    };
  }

  /** The browser's own flow, and the provider is known. */
  #answered({ namesItself }: LoginProvider, flow: LoginFlow, done: readonly string[]): LoginStep {
    const { query } = this.#request;
    const { issuer, callbackPath } = this.#policy;
    const named = onlyValue(query, "iss");
    if (named === null ? namesItself || queryValue(query, "iss") !== undefined : named !== issuer) {
      return this.#failed(`the answer is of the issuer ${JSON.stringify(named)}, asked was ${JSON.stringify(issuer)} (RFC 9207)`, done);
    }
    const error = queryValue(query, "error");
    if (error !== undefined) return this.#failed(`the provider answered ${shown(error)}${described(query)}`, done);
    const code = onlyValue(query, "code");
    if (code === null) return this.#failed("the answer has no code, or several", done);
    return {
      kind: "ask", policy: this.#policy, about: "exchange",
      exchange: { code, verifier: flow.verifier, nonce: flow.nonce, redirectUri: this.#origin + callbackPath, flow: this.#context.crypto.sha256(flow.state) },
      answered: (reply) => {
        if (reply.ok) return this.#loggedIn(reply.value, flow, done);
        return reply.error.kind === "unreachable" ? this.#unavailable(reply.error.detail, done) : this.#failed(reply.error.detail, done);
      },
    };
  }

  #loggedIn({ idToken, userInfo, refreshToken, endsMs }: LoginTokens, flow: LoginFlow, done: readonly string[]): LoginAnswer {
    if (idToken === null) return this.#failed("the provider gave no ID token: is the scope openid among those that the client may have?", done);
    const { nowMs } = this.#context;
    const { fields } = this.#request;
    const session: LoginSession = { startedMs: nowMs, renewedMs: nowMs, endsMs, idToken, refreshToken, userInfo, payload: sessionPayload(idToken, userInfo) };
    // Better one that cannot be renewed than none.
    const cookies = sessionCookies(this.#policy, session, fields, this.#context) ?? sessionCookies(this.#policy, { ...session, refreshToken: null }, fields, this.#context);
    if (cookies === null) return this.#failed(`the session does not fit into ${SESSION_COOKIES_MAX} cookies (the ID token has ${idToken.length} characters): ask for fewer scopes, or let the provider put less into it`, done);
    return this.#send("login_done", this.#origin + flow.returnTo, [...cookies, ...done], "");
  }

  // ── Logout ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

  logout(): LoginStep {
    const { fields, method } = this.#request;
    if (isFromOtherSite(this.#request)) return this.#failed("another site asked for the logout: it is not done", []);
    if (method !== "GET" && method !== "POST") return this.#failed(`logout is asked for by GET or POST, this is ${method}`, []);
    const { secure } = this.#context;
    const cookies = [...clearSession(this.#policy, fields, secure), ...flowNames(this.#policy, fields, secure).map((name) => clearCookie(name, secure))];
    const session = readLoginSession(this.#policy, fields, this.#context);
    if (session === null) return this.#loggedOut(cookies, "");
    return {
      kind: "ask", policy: this.#policy, about: "provider",
      answered: (reply) => {
        if (!reply.ok) return this.#loggedOut(cookies, `here only, the provider could not be asked: ${reply.error.detail}`);
        const { endSessionEndpoint } = reply.value;
        if (endSessionEndpoint === null || method === "GET" && !isNavigation(this.#request)) return this.#loggedOut(cookies, "here only");
        const url = new URL(endSessionEndpoint);
        url.searchParams.set("client_id", this.#policy.clientId);
        if (session.idToken.length <= HINT_CHARS_MAX) url.searchParams.set("id_token_hint", session.idToken);
        return { ...this.#send("logged_out", url.href, cookies, "here, and on to the provider"), status: 303 };
      },
    };
  }

  #loggedOut(cookies: readonly string[], detail: string): LoginAnswer {
    return this.#answer("logged_out", { status: 200, headers: headersOf(cookies), body: "You are logged out.\n", detail });
  }

  // ── Answers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  #unauthorised(detail: string): LoginAnswer {
    return this.#answer("login_required", { status: 401, headers: [...headersOf([]), ["www-authenticate", "Bearer"]], body: null, detail });
  }

  #failed(detail: string, cookies: readonly string[]): LoginAnswer {
    return this.#answer("login_failed", { status: null, headers: headersOf(cookies), body: null, detail });
  }

  #unavailable(detail: string, cookies: readonly string[]): LoginAnswer {
    return this.#answer("login_unavailable", { status: null, headers: headersOf(cookies), body: null, detail });
  }

  /** @param url absolute: a path alone that begins with two slashes would be another host. */
  #send(code: LoginAnswer["code"], url: string, cookies: readonly string[], detail: string): LoginAnswer {
    return this.#answer(code, { status: 302, headers: [["location", url], ...headersOf(cookies)], body: null, detail });
  }

  #answer(code: LoginAnswer["code"], fields: Pick<LoginAnswer, "status" | "headers" | "body" | "detail">): LoginAnswer {
    return { kind: "answer", code, provenance: this.#policy.provenance, ...fields };
  }
}

/** Nobody keeps them, and the address, which may hold a code, is told to nobody. */
function headersOf(cookies: readonly string[]): LoginAnswer["headers"] {
  return [["cache-control", "no-store"], ["referrer-policy", "no-referrer"], ...cookies.map((cookie) => ["set-cookie", cookie] as const)];
}

/** Null without a value, and with more than one: which counts would be a guess. */
function onlyValue(query: string, name: string): string | null {
  const values = query.slice(1).split("&").map((part) => queryValue(part, name)).filter((value) => value !== undefined);
  return values.length === 1 && values[0] !== "" ? values[0]! : null;
}

function shown(text: string): string {
  return JSON.stringify(text.slice(0, ERROR_CHARS_MAX));
}

function described(query: string): string {
  const text = queryValue(query, "error_description");
  return text === undefined ? "" : `: ${shown(text.replaceAll("+", " "))}`;
}
