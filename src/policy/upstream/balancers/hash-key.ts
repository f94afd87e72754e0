// What a consistent hash is taken of, read out of a request. A request without the key is balanced at random; a cookie that has a
// lifetime is made for the next one.

import type { HashKey } from "../../../mesh/l7/traffic-policy.ts";
import type { Random } from "../../../core/ports.ts";
import type { RequestFacts } from "../request-facts.ts";
import { hashText } from "./hash.ts";

export interface HashCookie {
  readonly name: string;
  readonly value: string;
  readonly path: string;
  readonly ttlMs: number;
}

export type KeyedHash =
  | { readonly kind: "found"; readonly hash: number }
  /** Random hash: the request has no key. */
  | { readonly kind: "absent"; readonly hash: number }
  /** Random value for a cookie to set on the answer, and its hash. */
  | { readonly kind: "newCookie"; readonly hash: number; readonly cookie: HashCookie };

export function hashOfRequest(key: HashKey, request: RequestFacts, random: Random): KeyedHash {
  const value = valueOf(key, request);
  if (value !== null) return { kind: "found", hash: hashText(value) };
  if (key.kind !== "cookie" || key.ttlMs === null) return { kind: "absent", hash: randomBits(random) };
  const made = [0, 0, 0, 0].map(() => randomBits(random).toString(16).padStart(8, "0")).join("");
  return { kind: "newCookie", hash: hashText(made), cookie: { name: key.name, value: made, path: key.path, ttlMs: key.ttlMs } };
}

/** The value of a `set-cookie`. A lifetime of 0 lasts as long as the browser does, as Istio has it. */
export function hashCookieText({ name, value, path, ttlMs }: HashCookie, secure: boolean): string {
  return `${name}=${value}; Path=${path.replaceAll(";", "%3B")}${ttlMs === 0 ? "" : `; Max-Age=${Math.ceil(ttlMs / 1000)}`}; HttpOnly${secure ? "; Secure" : ""}`;
}

function valueOf(key: HashKey, request: RequestFacts): string | null {
  switch (key.kind) {
    case "header": return request.header(key.name);
    case "cookie": return request.cookie(key.name);
    case "query": return request.query(key.name);
    case "sourceIp": return request.sourceIp;
    default: return key satisfies never;
  }
}

function randomBits(random: Random): number {
  return Math.floor(random.next() * 0x1_0000_0000);
}
