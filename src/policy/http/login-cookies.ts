// Cookies of a login: their attributes, how they are set and cleared, and how they are taken out of what a backend sees.

import type { LoginPolicy } from "../../mesh/l7/access.ts";
import type { HeaderOperation } from "./header-change.ts";
import type { FieldLookup } from "./request.ts";

/** What RFC 6265bis has every browser keep, of name and value together. */
export const COOKIE_BYTES_MAX = 4_096;

/** Over https browsers take these names only from the host itself: no neighbour under the same domain can plant one. */
const HOST_PREFIX = "__Host-";

export function cookieBase({ cookieName }: LoginPolicy, secure: boolean): string {
  return secure ? `${HOST_PREFIX}${bareName(cookieName)}` : bareName(cookieName);
}

function bareName(name: string): string {
  return name.startsWith(HOST_PREFIX) ? name.slice(HOST_PREFIX.length) : name;
}

/** A `set-cookie` value. Lax: a link from elsewhere arrives logged in, a form or script of another site does not. */
export function setCookie(name: string, value: string, { lifetimeMs, secure }: { readonly lifetimeMs: number; readonly secure: boolean }): string {
  return `${name}=${value}; Path=/; Max-Age=${Math.max(0, Math.ceil(lifetimeMs / 1000))}; HttpOnly; SameSite=Lax${secure ? "; Secure" : ""}`;
}

export function clearCookie(name: string, secure: boolean): string {
  return setCookie(name, "", { lifetimeMs: 0, secure });
}

/** The names of the cookies that a request brings, each once. */
export function cookieNames(fields: FieldLookup): readonly string[] {
  return [...new Set(fields.values("cookie").flatMap((line) => line.split(";").map((pair) => pair.split("=", 1)[0]!.trim())).filter((name) => name !== ""))];
}

/** Session, its further parts and flows, with and without the prefix. */
function isOurs(name: string, { cookieName }: LoginPolicy): boolean {
  const [bare, own] = [bareName(name), bareName(cookieName)];
  return bare.startsWith(own) && /^(?:$|\.\d+$|-flow-)/.test(bare.slice(own.length));
}

/**
 * For whatever passes to a service with a login: a backend has no use for the session, and one that had it could use it at another.
 * @param fields after other changes: what this gives is the whole header anew.
 */
export function withoutLoginCookies(policy: LoginPolicy, fields: FieldLookup): readonly HeaderOperation[] {
  const lines = fields.values("cookie");
  if (lines.length === 0) return [];
  const pairs = lines.flatMap((line) => line.split(";").map((pair) => pair.trim())).filter((pair) => pair !== "");
  const kept = pairs.filter((pair) => !isOurs(pair.split("=", 1)[0]!.trim(), policy));
  if (kept.length === pairs.length) return [];
  return [kept.length === 0 ? { kind: "remove", name: "cookie" } : { kind: "set", name: "cookie", value: kept.join("; ") }];
}
