// The session of somebody who is logged in: kept by the browser alone, encrypted, in one cookie or a few. Bound to the policy, issuer and
// client that made it; its claims are those of the ID token, which was verified before the session was sealed.

import type { LoginPolicy } from "../../mesh/l7/access.ts";
import { fromBase64Url } from "./base64-url.ts";
import type { JsonObject } from "./claims.ts";
import { clearCookie, COOKIE_BYTES_MAX, cookieBase, cookieNames, setCookie } from "./login-cookies.ts";
import type { LoginCrypto } from "./login-port.ts";
import type { FieldLookup } from "./request.ts";
import { cookieValues } from "./session.ts";

export interface LoginSession {
  /** Of the login; kept when the token is renewed. Milliseconds since 1970, as all here. */
  readonly startedMs: number;
  /** When the token that it rests on was given, and until when it is good. */
  readonly renewedMs: number;
  readonly endsMs: number;
  readonly idToken: string;
  readonly refreshToken: string | null;
  readonly userInfo: JsonObject | null;
  /** Claims of the ID token, and of the userinfo endpoint where the ID token has none of that name. */
  readonly payload: JsonObject;
}

/** More than fits is refused when somebody logs in. Four cookies hold some 11 KB of tokens; servers in front of us allow 16 KB of headers. */
export const SESSION_COOKIES_MAX = 4;

/** Opened sessions that are remembered for each policy: opening one costs some 20 µs, a look-up one. Together at most some 16 MB. */
export const OPENED_MAX = 1_024;
const OPENED_CHARS_MAX = 4_096;

/** Room for attributes: some browsers count them too. */
const ATTRIBUTE_BYTES = 96;

/** A browser has one session; whoever sends several of one name pays for few. */
const SESSIONS_TRIED_MAX = 3;

/** Clocks of waypoints that share a session may be apart by this much. */
export const SESSION_SKEW_MS = 60_000;

/** What is sealed says for whom: nothing of one policy, issuer or client opens at another. */
export function loginOwner({ namespace, name, issuer, clientId }: LoginPolicy): string {
  return JSON.stringify([namespace, name, issuer, clientId]);
}

/** The session that a request brings, if it is ours, whole and not over. The token may be at its end. */
export function readLoginSession(policy: LoginPolicy, fields: FieldLookup, { crypto, secure, nowMs }: { readonly crypto: LoginCrypto; readonly secure: boolean; readonly nowMs: number }): LoginSession | null {
  const base = cookieBase(policy, secure);
  const firsts = cookieValues(fields, base);
  for (let i = 0; i < Math.min(firsts.length, SESSIONS_TRIED_MAX); i++) {
    const sealed = joinParts(firsts[i]!, (part) => {
      const values = cookieValues(fields, `${base}.${part}`);
      return values[i] ?? values[0];
    });
    const session = sealed === null ? null : openSession(policy, sealed, crypto);
    if (session !== null && nowMs < session.startedMs + policy.sessionMs && session.startedMs <= nowMs + SESSION_SKEW_MS) return session;
  }
  return null;
}

/** The `set-cookie` values that keep a session, and clear parts of an older one; null when it is too large for SESSION_COOKIES_MAX. */
export function sessionCookies(
  policy: LoginPolicy, session: LoginSession, fields: FieldLookup, { crypto, secure, nowMs }: { readonly crypto: LoginCrypto; readonly secure: boolean; readonly nowMs: number },
): readonly string[] | null {
  const base = cookieBase(policy, secure);
  const sealed = crypto.seal(encode(session), `session ${loginOwner(policy)}`);
  const partChars = COOKIE_BYTES_MAX - ATTRIBUTE_BYTES - base.length - 8;
  const count = Math.ceil(sealed.length / partChars);
  if (count > SESSION_COOKIES_MAX) return null;
  const lifetimeMs = session.startedMs + policy.sessionMs - nowMs;
  const set = Array.from({ length: count }, (_, part) => {
    const value = sealed.slice(part * partChars, (part + 1) * partChars);
    return part === 0 ? setCookie(base, `${count}.${value}`, { lifetimeMs, secure }) : setCookie(`${base}.${part}`, value, { lifetimeMs, secure });
  });
  return [...set, ...partNames(base, fields).filter(({ part }) => part >= count).map(({ name }) => clearCookie(name, secure))];
}

/** Clears what the request brings of a session. */
export function clearSession(policy: LoginPolicy, fields: FieldLookup, secure: boolean): readonly string[] {
  return partNames(cookieBase(policy, secure), fields).map(({ name }) => clearCookie(name, secure));
}

/** @param idToken verified, or out of a sealed session. */
export function sessionPayload(idToken: string, userInfo: JsonObject | null): JsonObject {
  const claims: JsonObject = JSON.parse(fromBase64Url(idToken.split(".")[1] ?? ""));
  return userInfo === null ? claims : { ...userInfo, ...claims };
}

/** Sessions that were opened, so that a browser's next requests cost a look-up and no decryption; least recently used first. */
const opened = new WeakMap<LoginPolicy, Map<string, LoginSession>>();

function openSession(policy: LoginPolicy, sealed: string, crypto: LoginCrypto): LoginSession | null {
  let known = opened.get(policy);
  if (known === undefined) opened.set(policy, (known = new Map()));
  const before = known.get(sealed);
  if (before !== undefined) {
    known.delete(sealed);
    known.set(sealed, before);
    return before;
  }
  const text = crypto.open(sealed, `session ${loginOwner(policy)}`);
  if (text === null) return null;
  const session = decode(text);
  if (sealed.length > OPENED_CHARS_MAX) return session;
  known.set(sealed, session);
  if (known.size > OPENED_MAX) for (const oldest of known.keys()) {
    known.delete(oldest);
    break;
  }
  return session;
}

function joinParts(first: string, partOf: (part: number) => string | undefined): string | null {
  const head = /^([1-9])\.(.+)$/s.exec(first);
  const count = Number(head?.[1] ?? 0);
  if (head === null || count > SESSION_COOKIES_MAX) return null;
  let sealed = head[2]!;
  for (let part = 1; part < count; part++) {
    const text = partOf(part);
    if (text === undefined) return null;
    sealed += text;
  }
  return sealed;
}

function partNames(base: string, fields: FieldLookup): { readonly name: string; readonly part: number }[] {
  return cookieNames(fields).flatMap((name) => {
    if (name === base) return [{ name, part: 0 }];
    const part = name.startsWith(`${base}.`) ? /^\d$/.exec(name.slice(base.length + 1)) : null;
    return part === null ? [] : [{ name, part: Number(part[0]) }];
  });
}

interface SessionText {
  readonly s: number;
  readonly n: number;
  readonly e: number;
  readonly i: string;
  readonly r?: string;
  readonly u?: JsonObject;
}

function encode({ startedMs, renewedMs, endsMs, idToken, refreshToken, userInfo }: LoginSession): string {
  const text: SessionText = { s: startedMs, n: renewedMs, e: endsMs, i: idToken, ...(refreshToken === null ? {} : { r: refreshToken }), ...(userInfo === null ? {} : { u: userInfo }) };
  return JSON.stringify(text);
}

/** Of a text that only we can have sealed. */
function decode(text: string): LoginSession {
  const { s, n, e, i, r, u }: SessionText = JSON.parse(text);
  return { startedMs: s, renewedMs: n, endsMs: e, idToken: i, refreshToken: r ?? null, userInfo: u ?? null, payload: sessionPayload(i, u ?? null) };
}
