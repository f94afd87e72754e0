// Tokens whose signature was checked, until they expire, their keys change or others need the room. Time is judged again at each look-up.

import type { JsonObject } from "../../policy/http/claims.ts";
import type { BoundRule, TokenVerdict } from "../../policy/http/tokens.ts";
import type { KeySet } from "./key-set.ts";
import { VERIFIED_TOKEN_CHARS_MAX, VERIFIED_TOKENS_MAX } from "./limits.ts";

/** A verdict, made once however often it is given. */
export interface VerifiedToken {
  /** Of another set than the present one the signature has to be checked again: its key may have been withdrawn. */
  readonly keys: KeySet;
  readonly verdict: Extract<TokenVerdict, { ok: true }>;
}

/**
 * Two generations: the newer one is filled, the older one is only read from, and forgotten when the newer one is full. What is used comes
 * over and stays; a look-up hashes its long text once, where keeping an order of use would do so three times.
 */
const GENERATION_TOKENS_MAX = VERIFIED_TOKENS_MAX / 2;

export class VerifiedTokens {
  #newer = new Map<string, VerifiedToken>();
  #older = new Map<string, VerifiedToken>();

  /** The last verification of this text. Whether it still counts `verdictOf` says. */
  find(text: string): VerifiedToken | null {
    const known = this.#newer.get(text);
    if (known !== undefined) return known;
    const older = this.#older.get(text);
    if (older === undefined) return null;
    this.#add(text, older);
    return older;
  }

  remember(text: string, verified: VerifiedToken): void {
    if (text.length <= VERIFIED_TOKEN_CHARS_MAX) this.#add(text, verified);
  }

  #add(text: string, verified: VerifiedToken): void {
    this.#newer.set(text, verified);
    if (this.#newer.size < GENERATION_TOKENS_MAX) return;
    this.#older = this.#newer;
    this.#newer = new Map();
  }
}

/** Null when it is not these keys that verified it for this rule, or it is out of time. */
export function verdictOf({ keys, verdict }: VerifiedToken, present: KeySet, bound: BoundRule, nowMs: number): TokenVerdict | null {
  const { rule } = bound;
  if (keys !== present || verdict.bound.rule !== rule || !isInTime(verdict.payload, rule.clockSkewMs, nowMs)) return null;
  // The same rule may apply to several services, each of which bound it.
  return verdict.bound === bound ? verdict : { ...verdict, bound };
}

/** As jose judges it: the present second, the skew on both sides. */
function isInTime({ exp, nbf }: JsonObject, clockSkewMs: number, nowMs: number): boolean {
  const now = Math.floor(nowMs / 1000);
  const skew = clockSkewMs / 1000;
  return (typeof exp !== "number" || exp > now - skew) && (typeof nbf !== "number" || nbf <= now + skew);
}
