// Session persistence: which backend and endpoint a client was given, written into a cookie or header that it sends back. The text means
// nothing to the client, carries a signature over all of it, and is bound to the rule that made it. Gateway API, GEP-1619.

import type { SessionPersistence } from "../../mesh/l7/route.ts";
import { isToken } from "../../wire/http/field-bytes.ts";
import { fromBase64Url, toBase64Url } from "./base64-url.ts";
import type { FieldLookup } from "./request.ts";

export interface Session {
  /** Service, port and subset: whichever of the rule's backends this is. */
  readonly backend: string;
  /** Workload UID. */
  readonly endpoint: string;
  /** Milliseconds since 1970. */
  readonly startedMs: number;
  readonly lastUsedMs: number;
}

/** Signs with a key that all instances of a waypoint share: base64url of an HMAC. Given in, so that no key lives here. */
export interface SessionSigner {
  sign(text: string): string;
}

/** Longer texts are not ours. */
export const SESSION_CHARS_MAX = 2048;

/** A client has one; each text that it sends costs a signature. */
const SESSIONS_TRIED_MAX = 4;

/** The idle time is kept in the text, which is renewed when this share of it is gone: not with each answer. */
const RENEW_AFTER_IDLE_SHARE = 0.25;

export interface SessionScope {
  readonly persistence: SessionPersistence;
  /** What the session belongs to, e.g. the rule's provenance: a text made for another is not accepted. */
  readonly owner: string;
  readonly signer: SessionSigner;
}

/** What would break the header that it is written into. */
export function sessionProblems({ name, path }: SessionPersistence): string[] {
  return [
    ...(isToken(name) ? [] : [`session persistence: ${JSON.stringify(name)} is no name of a cookie or header`]),
    ...(path === null || /^[\x20-\x3a\x3c-\x7e]*$/.test(path) ? [] : [`session persistence: ${JSON.stringify(path)} is no path of a cookie`]),
  ];
}

/** The session that the request brings; null without one, or when it is not ours, not whole, or over. */
export function readSession(fields: FieldLookup, scope: SessionScope, nowMs: number): Session | null {
  const { persistence, signer, owner } = scope;
  const texts = persistence.kind === "header" ? fields.values(persistence.name.toLowerCase()) : cookieValues(fields, persistence.name);
  for (const text of texts.slice(0, SESSIONS_TRIED_MAX)) {
    const session = decode(text, signer, owner);
    if (session !== null && isAlive(session, persistence, nowMs)) return session;
  }
  return null;
}

/**
 * The header of the response that tells the client its session; null when what it has is still good.
 * @param current what the request brought.
 */
export function sessionHeader(
  scope: SessionScope, { backend, endpoint, current, nowMs, secure }: {
    readonly backend: string; readonly endpoint: string; readonly current: Session | null; readonly nowMs: number; readonly secure: boolean;
  },
): { readonly name: string; readonly value: string } | null {
  const { persistence } = scope;
  const kept = current !== null && current.backend === backend && current.endpoint === endpoint ? current : null;
  const { idleTimeoutMs, absoluteTimeoutMs } = persistence;
  if (kept !== null && (idleTimeoutMs === null || nowMs - kept.lastUsedMs < idleTimeoutMs * RENEW_AFTER_IDLE_SHARE)) return null;
  const startedMs = kept?.startedMs ?? nowMs;
  const text = encode({ backend, endpoint, startedMs, lastUsedMs: nowMs }, scope.signer, scope.owner);
  if (persistence.kind === "header") return { name: persistence.name.toLowerCase(), value: text };
  const lifetime = absoluteTimeoutMs === null ? "" : `; Max-Age=${Math.max(0, Math.ceil((startedMs + absoluteTimeoutMs - nowMs) / 1000))}`;
  return { name: "set-cookie", value: `${persistence.name}=${text}; Path=${persistence.path ?? "/"}${lifetime}; HttpOnly; SameSite=Lax${secure ? "; Secure" : ""}` };
}

/** Every value of a cookie, in order: a client may send several of one name. */
export function cookieValues(fields: FieldLookup, name: string): string[] {
  const found: string[] = [];
  for (const line of fields.values("cookie")) {
    for (const pair of line.split(";")) {
      const equals = pair.indexOf("=");
      if (equals < 0 || pair.slice(0, equals).trim() !== name) continue;
      const value = pair.slice(equals + 1).trim();
      found.push(value.length >= 2 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value);
    }
  }
  return found;
}

/** The cookie header without one cookie; "" when nothing is left. */
export function withoutCookie(line: string, name: string): string {
  return line.split(";").map((pair) => pair.trim()).filter((pair) => pair !== "" && pair.split("=", 1)[0]!.trim() !== name).join("; ");
}

function isAlive(session: Session, { absoluteTimeoutMs, idleTimeoutMs }: SessionPersistence, nowMs: number): boolean {
  if (absoluteTimeoutMs !== null && nowMs - session.startedMs >= absoluteTimeoutMs) return false;
  return idleTimeoutMs === null || nowMs - session.lastUsedMs < idleTimeoutMs;
}

const VERSION = "1";

function encode(session: Session, signer: SessionSigner, owner: string): string {
  const fields = [session.backend, session.endpoint, session.startedMs.toString(36), session.lastUsedMs.toString(36)].join("\n");
  const body = toBase64Url(fields);
  return `${VERSION}.${body}.${signer.sign(signedText(body, owner))}`;
}

function decode(text: string, signer: SessionSigner, owner: string): Session | null {
  if (text.length > SESSION_CHARS_MAX) return null;
  const [version, body, signature, ...more] = text.split(".");
  if (version !== VERSION || body === undefined || signature === undefined || more.length > 0) return null;
  if (!equalsInConstantTime(signature, signer.sign(signedText(body, owner)))) return null;
  const [backend, endpoint, started, used] = fromBase64Url(body).split("\n");
  if (backend === undefined || endpoint === undefined || started === undefined || used === undefined) return null;
  return { backend, endpoint, startedMs: parseInt(started, 36), lastUsedMs: parseInt(used, 36) };
}

const signedText = (body: string, owner: string): string => `weft session ${VERSION}\n${owner}\n${body}`;

export function equalsInConstantTime(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return difference === 0;
}
