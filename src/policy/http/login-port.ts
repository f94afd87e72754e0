// What the decisions about logins need of the world and do not do themselves: secrets and encryption, which are at hand, and the identity
// provider, which has to be asked. Real ones are in src/identity/oidc.

import type { Result } from "../../core/result.ts";
import type { JsonObject } from "./claims.ts";

/** Under the keys of one LoginPolicy. */
export interface LoginCrypto {
  /** Authenticated encryption into characters that a cookie may have. @param purpose opens only what was sealed for the same. */
  seal(text: string, purpose: string): string;
  /** Null when no key of the policy sealed it for this purpose. */
  open(sealed: string, purpose: string): string | null;
  /** 256 random bits that nobody can guess, base64url. */
  secret(): string;
  /** base64url. */
  sha256(text: string): string;
}

/** What a provider says of itself, as far as browsers are concerned (OpenID Connect Discovery 1.0). */
export interface LoginProvider {
  readonly authorizationEndpoint: string;
  /** Null when it has no logout of its own. */
  readonly endSessionEndpoint: string | null;
  /** Its answers name their issuer (RFC 9207): one that does not is not its own. */
  readonly namesItself: boolean;
}

/** What the token endpoint gave, verified. */
export interface LoginTokens {
  /** Null when a refresh brought none: what is known of the user stays. */
  readonly idToken: string | null;
  /** Claims of the userinfo endpoint; null when it was not asked. */
  readonly userInfo: JsonObject | null;
  /** Null when it gave none; after a refresh: the old one stays. */
  readonly refreshToken: string | null;
  /** Milliseconds since 1970 until which this is good. */
  readonly endsMs: number;
}

export interface LoginFault {
  /** `refused`: the answer is no, or is not to be believed. `unreachable`: there was no answer. */
  readonly kind: "refused" | "unreachable";
  /** What was tried, with whom, what was seen and what was wanted. */
  readonly detail: string;
}

export interface CodeExchange {
  readonly code: string;
  readonly verifier: string;
  readonly nonce: string;
  readonly redirectUri: string;
  /** Names the login that is finished: each is, once. */
  readonly flow: string;
}

export interface TokenRefresh {
  readonly refreshToken: string;
  /** Whom the new token must be of. */
  readonly subject: string;
}

export type LoginReply<T> = Result<T, LoginFault>;
