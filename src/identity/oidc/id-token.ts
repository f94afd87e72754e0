// What an ID token must say beyond what every token must (src/identity/jwt checks signature, issuer, audience and time): that it answers
// this login, was made for this client, and belongs to the access token. OpenID Connect Core 1.0, sections 3.1.3.6, 3.1.3.7 and 12.2.

import { createHash } from "node:crypto";
import type { JsonObject } from "../../policy/http/claims.ts";
import { equalsInConstantTime } from "../../policy/http/session.ts";

export interface IdTokenWanted {
  readonly clientId: string;
  /** Of the login; null for a renewed token, which need not repeat it. */
  readonly nonce: string | null;
  /** Of a renewed token: whose it must be. */
  readonly subject: string | null;
  readonly accessToken: string;
  readonly clockSkewMs: number;
  readonly nowMs: number;
}

/** The hash that belongs to a signature's: by its length in bits. Ed25519 signs over SHA-512. */
const HASH_BY_BITS: Readonly<Record<string, string>> = { "256": "sha256", "384": "sha384", "512": "sha512" };

/** What is wrong with it; null when nothing is. @param payload of `text`, which is verified already. */
export function idTokenProblem(text: string, payload: JsonObject, wanted: IdTokenWanted): string | null {
  const { sub, aud, azp, nonce, exp, iat, at_hash: atHash } = payload;
  if (typeof sub !== "string" || sub === "") return `the ID token's sub is ${JSON.stringify(sub ?? null)}, wanted a text`;
  if (wanted.subject !== null && sub !== wanted.subject) return `the renewed ID token is of ${JSON.stringify(sub)}, the session is of ${JSON.stringify(wanted.subject)}`;
  if (typeof exp !== "number") return "the ID token has no exp";
  if (typeof iat !== "number") return "the ID token has no iat";
  if (iat * 1000 > wanted.nowMs + wanted.clockSkewMs) return `the ID token's iat is ${Math.round(iat - wanted.nowMs / 1000)} s ahead: compare the clocks`;
  if (azp !== undefined && azp !== wanted.clientId) return `the ID token's azp is ${JSON.stringify(azp)}, wanted ${JSON.stringify(wanted.clientId)}`;
  if (Array.isArray(aud) && aud.length > 1 && azp === undefined) return `the ID token has ${aud.length} audiences and no azp: it may be meant for another`;
  if (wanted.nonce !== null && !(typeof nonce === "string" && equalsInConstantTime(nonce, wanted.nonce))) return "the ID token's nonce is not the one of this login: it answers another";
  if (atHash !== undefined && atHash !== accessTokenHash(text, wanted.accessToken)) return "the ID token's at_hash is not of the access token that came with it";
  return null;
}

/** The left half of the hash, base64url. */
function accessTokenHash(idToken: string, accessToken: string): string | null {
  const { alg }: { readonly alg?: unknown } = JSON.parse(Buffer.from(idToken.split(".")[0] ?? "", "base64url").toString("utf8"));
  const hash = typeof alg !== "string" ? undefined : alg === "EdDSA" || alg === "Ed25519" ? "sha512" : HASH_BY_BITS[alg.slice(-3)];
  if (hash === undefined) return null;
  const digest = createHash(hash).update(accessToken).digest();
  return digest.subarray(0, digest.length / 2).toString("base64url");
}
