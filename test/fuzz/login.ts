// Requests to a service with a login, changed at random around a genuine login and a genuine session: nothing passes without the session that
// was sealed, no code is exchanged without the login that this browser began, nobody is sent anywhere but to the provider or back to this
// host, and no answer has a header that breaks.

import { ok as holds } from "node:assert/strict";
import { cookieCrypto } from "../../src/identity/oidc/cookie-crypto.ts";
import { loginEndpoint, type LoginStep, requireLogin } from "../../src/policy/http/login.ts";
import { withoutLoginCookies } from "../../src/policy/http/login-cookies.ts";
import type { LoginCrypto } from "../../src/policy/http/login-port.ts";
import { sessionCookies } from "../../src/policy/http/login-session.ts";
import { queryValue } from "../../src/policy/http/query.ts";
import { isValue } from "../../src/wire/http/field-bytes.ts";
import { request, TestFields } from "../kit/http-records.ts";
import { loginPolicy } from "../kit/login-gate.ts";
import { Dice } from "./random-text.ts";

export const name = "login";

const NOW_MS = 1_700_000_000_000;
const HOST = "shop.example";
const PROVIDER = { authorizationEndpoint: "https://issuer.example/authorize", endSessionEndpoint: "https://issuer.example/logout", namesItself: false };
const ALPHABET = [..."ABab019-_.=;,/ %&?+\\", "; ", "__Host-", "weft-login", "-flow-", ".1=", "1.", "2.", "state=", "code=", "iss=", "%2f", "//", "é"];
const METHODS = ["GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "CONNECT"];
const HEADERS: readonly Readonly<Record<string, string>>[] = [
  { accept: "text/html" }, { accept: "*/*" }, { "sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site" }, { origin: "https://a.example", "access-control-request-method": "PUT" }, { "content-type": "application/grpc" }, {},
];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  const policy = loginPolicy();
  const crypto = cookieCrypto(policy.cookieKeys);
  const context = { cryptoOf: (): LoginCrypto => crypto, nowMs: NOW_MS };
  const session = setBy(sessionCookies(policy, {
    startedMs: NOW_MS, renewedMs: NOW_MS, endsMs: NOW_MS + 3_600_000, idToken: `e30.${Buffer.from('{"sub":"bob"}').toString("base64url")}.AA`, refreshToken: null, userInfo: null, payload: {},
  }, new TestFields({}), { crypto, secure: true, nowMs: NOW_MS })![0]!);
  const begun = settled(requireLogin([policy], request({ host: HOST, scheme: "https", url: "/a?b=c", headers: { accept: "text/html" } }), context), () => undefined);
  const flow = setBy(headersOf(begun).find(([header]) => header === "set-cookie")![1]);
  const state = new URL(headersOf(begun).find(([header]) => header === "location")![1]).searchParams.get("state")!;
  for (let i = 0; i < iterations; i++) {
    const maybe = (text: string): string => (dice.chance(0.5) ? text : dice.mutate(text, ALPHABET));
    const cookie = maybe(dice.of([`a=b; ${session}`, flow, `${flow}; ${session}`, `${session}; ${session}`, ""]));
    const url = maybe(dice.of([`${policy.callbackPath}?code=x&state=${state}`, `${policy.callbackPath}?code=x&state=${state}&iss=${policy.issuer}`, policy.logoutPath, "/", "/a/b?c=d", "//evil.example/x"]));
    const view = request({ host: HOST, scheme: "https", method: dice.of(METHODS), url, headers: { ...dice.of(HEADERS), ...(cookie === "" ? {} : { cookie }) } });
    const why = `seed ${seed}, iteration ${i}: ${view.method} ${url} with ${JSON.stringify(cookie)}`;
    let exchanged = false;
    const step = settled(loginEndpoint([policy], view, context) ?? requireLogin([policy], view, context), () => (exchanged = true));
    holds(step.kind !== "pass" || brings(cookie, session), `${why}: passed`);
    holds(!exchanged || brings(cookie, flow) && queryValue(view.query, "state") === state && view.path === policy.callbackPath && view.method === "GET", `${why}: a code was exchanged`);
    for (const [header, value] of headersOf(step)) {
      holds(isValue(value), `${why}: the header ${header} is ${JSON.stringify(value)}`);
      holds(header !== "location" || [`${PROVIDER.authorizationEndpoint}?`, `${PROVIDER.endSessionEndpoint}?`, `https://${HOST}/`].some((start) => value.startsWith(start)), `${why}: sent to ${value}`);
    }
    for (const operation of withoutLoginCookies(policy, view.fields)) holds(operation.kind === "remove" || isValue(operation.value) && !/(?:^|; )__Host-weft-login(?:=|\.\d+=|-flow-)/.test(operation.value), `${why}: the backend sees ${JSON.stringify(operation)}`);
  }
  return { iterations };
}

/** The provider says who it is, and refuses every code. */
function settled(first: LoginStep, exchanged: () => unknown): Exclude<LoginStep, { kind: "ask" }> {
  let step = first;
  while (step.kind === "ask") {
    if (step.about === "provider") step = step.answered({ ok: true, value: PROVIDER });
    else {
      exchanged();
      step = step.answered({ ok: false, error: { kind: "refused", detail: "no" } });
    }
  }
  return step;
}

function headersOf(step: Exclude<LoginStep, { kind: "ask" }>): readonly (readonly [name: string, value: string])[] {
  return step.kind === "answer" ? step.headers : step.kind === "preflight" ? step.otherwise.headers : [];
}

const setBy = (line: string): string => line.split(";")[0]!;

/** By its bytes: the last character of base64url has bits that mean nothing. */
function brings(cookie: string, pair: string): boolean {
  const bytes = (text: string): string => Buffer.from(text.slice(text.indexOf("=") + 1).trim().replace(/^1\./, ""), "base64url").toString("hex");
  return cookie.split(";").some((part) => bytes(part.trim().replaceAll('"', "")) === bytes(pair));
}
