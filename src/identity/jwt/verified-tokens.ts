// Tokens whose signature was checked, until they expire, their keys change or others need the room. Time is judged again at each look-up.

import type { JsonObject } from "../../policy/http/claims.ts";
import type { BoundRule } from "../../policy/http/tokens.ts";
import type { KeySet } from "./key-set.ts";
import { VERIFIED_TOKEN_CHARS_MAX, VERIFIED_TOKENS_MAX } from "./limits.ts";

interface Verified {
  /** Of another set than the present one the signature has to be checked again: its key may have been withdrawn. */
  readonly keys: KeySet;
  readonly bound: BoundRule;
  readonly payload: JsonObject;
}

export class VerifiedTokens {
  /** Least recently used first. */
  readonly #known = new Map<string, Verified>();

  /** The claims of a token that these keys have verified for this rule, if it is still in time. */
  find(text: string, keys: KeySet, bound: BoundRule, nowMs: number): JsonObject | null {
    const known = this.#known.get(text);
    if (known === undefined) return null;
    this.#known.delete(text);
    if (known.keys !== keys || known.bound.rule !== bound.rule || !isInTime(known.payload, bound.rule.clockSkewMs, nowMs)) return null;
    this.#known.set(text, known);
    return known.payload;
  }

  remember(text: string, verified: Verified): void {
    if (text.length > VERIFIED_TOKEN_CHARS_MAX) return;
    this.#known.delete(text);
    this.#known.set(text, verified);
    if (this.#known.size <= VERIFIED_TOKENS_MAX) return;
    for (const oldest of this.#known.keys()) {
      this.#known.delete(oldest);
      return;
    }
  }
}

/** As jose judges it: the present second, the skew on both sides. */
function isInTime({ exp, nbf }: JsonObject, clockSkewMs: number, nowMs: number): boolean {
  const now = Math.floor(nowMs / 1000);
  const skew = clockSkewMs / 1000;
  return (typeof exp !== "number" || exp > now - skew) && (typeof nbf !== "number" || nbf <= now + skew);
}
