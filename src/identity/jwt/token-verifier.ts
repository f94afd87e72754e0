// Is this text a token of one of these rules, whole, in time and signed by its issuer? Verification is jose's; this file chooses rule and
// keys, says what is wrong in our codes, and remembers what it verified. No member of a token's header leads anywhere: keys come from the
// rule alone, whatever `jku`, `x5u`, `jwk` or a path in `kid` say.

import { errors, jwtVerify } from "jose";
import type { Clock } from "../../core/ports.ts";
import type { JsonObject } from "../../policy/http/claims.ts";
import type { BoundRule, FoundToken, TokenFailure, TokenVerdict } from "../../policy/http/tokens.ts";
import type { IntrospectionCache } from "./introspection.ts";
import { isKeyed, type JwksCache } from "./jwks-cache.ts";
import { type Algorithm, ALGORITHMS, isAlgorithm, isRecord, type KeySet } from "./key-set.ts";
import { VerifiedTokens, verdictOf } from "./verified-tokens.ts";

export interface TokenVerifierOptions {
  readonly keys: JwksCache;
  readonly introspection: IntrospectionCache;
  readonly clock: Clock;
}

interface Shape {
  readonly algorithm: string;
  readonly kid: string | null;
  readonly issuer: string | null;
}

type Failed = Extract<TokenVerdict, { ok: false }>;
const failed = (code: TokenFailure, detail: string, bound: BoundRule | null): Failed => ({ ok: false, code, detail, bound });

export class TokenVerifier {
  readonly #options: TokenVerifierOptions;
  readonly #verified = new VerifiedTokens();

  constructor(options: TokenVerifierOptions) {
    this.#options = options;
  }

  /**
   * The verdict on a token that is remembered, as `verify` would give it; null when that has to be asked. Only where the rule that it was
   * verified for is the first for its issuer: another one before it may accept it by now.
   */
  recall({ text, rules }: FoundToken): TokenVerdict | null {
    const known = this.#verified.find(text);
    if (known === null) return null;
    const { rule } = known.verdict.bound;
    const first = rules.find((other) => isKeyed(other.rule) && other.rule.issuer === rule.issuer);
    if (first === undefined || !isKeyed(rule)) return null;
    const present = this.#options.keys.present(rule);
    return present === null ? null : verdictOf(known, present, first, this.#options.clock.wallMs());
  }

  /** One verdict: by the first rule that accepts the token, or the last one's reason. */
  async verify({ text, rules }: FoundToken): Promise<TokenVerdict> {
    const opaque = rules.filter(({ rule }) => rule.keys.kind === "introspection");
    const shape = readShape(text);
    if (shape === null && opaque.length === 0) return failed("token_malformed", "it is no JSON web token", rules[0] ?? null);
    const own = shape === null ? [] : rules.filter(({ rule }) => rule.keys.kind !== "introspection" && rule.issuer === shape.issuer);
    let verdict: TokenVerdict | null = null;
    if (shape !== null) {
      for (const bound of own) {
        verdict = await this.#byKeys(text, shape, bound);
        if (verdict.ok) return verdict;
      }
    }
    // A token of an issuer with keys is not shown to another issuer.
    if (own.length === 0) {
      for (const bound of opaque) {
        verdict = await this.#byIssuer(text, bound);
        if (verdict.ok) return verdict;
      }
    }
    return verdict ?? failed("token_issuer", `its issuer is ${JSON.stringify(shape?.issuer ?? null)}, the rules name ${[...new Set(rules.map(({ rule }) => rule.issuer))].join(", ")}`, null);
  }

  async #byKeys(text: string, shape: Shape, bound: BoundRule): Promise<TokenVerdict> {
    const { rule } = bound;
    if (rule.keys.kind === "unavailable") return failed("token_keys_unavailable", rule.keys.reason, bound);
    if (!isKeyed(rule)) return failed("token_issuer", "its issuer is asked about it", bound);
    if (!isAlgorithm(shape.algorithm)) return failed("token_algorithm", `it is signed with ${JSON.stringify(shape.algorithm)}, accepted are ${ALGORITHMS.join(", ")}`, bound);
    const keys = await this.#options.keys.keysFor(rule);
    if (!keys.ok) return failed("token_keys_unavailable", keys.error, bound);
    const known = this.#verified.find(text);
    const remembered = known === null ? null : verdictOf(known, keys.value, bound, this.#options.clock.wallMs());
    if (remembered !== null) return remembered;
    const verdict = await this.#tryKeys(text, shape, shape.algorithm, keys.value, bound);
    // Keys are rotated: one that is not known may have been published a moment ago, under a new name or the same.
    if (verdict.ok || verdict.code !== "token_key_unknown" && verdict.code !== "token_signature" || !(await this.#options.keys.refetchForUnknownKey(rule))) return verdict;
    const again = await this.#options.keys.keysFor(rule);
    return again.ok ? this.#tryKeys(text, shape, shape.algorithm, again.value, bound) : verdict;
  }

  async #tryKeys(text: string, { kid }: Shape, algorithm: Algorithm, set: KeySet, bound: BoundRule): Promise<TokenVerdict> {
    const candidates = await set.candidates(algorithm, kid);
    let verdict = failed("token_key_unknown", `none of the ${set.size} keys of ${bound.rule.issuer} is named ${JSON.stringify(kid)} and fits ${algorithm}`, bound);
    const nowMs = this.#options.clock.wallMs();
    for (const key of candidates) {
      try {
        const { payload } = await jwtVerify(text, key, {
          algorithms: [...ALGORITHMS], issuer: bound.rule.issuer, clockTolerance: bound.rule.clockSkewMs / 1000, currentDate: new Date(nowMs),
          ...(bound.rule.audiences.length === 0 ? {} : { audience: [...bound.rule.audiences] }),
        });
        const accepted = { ok: true, payload: payload as JsonObject, bound } as const;
        this.#verified.remember(text, { keys: set, verdict: accepted });
        return accepted;
      } catch (error) {
        verdict = failed(codeOf(error), error instanceof Error ? error.message : String(error), bound);
        // Only a wrong signature can come of a wrong key.
        if (verdict.code !== "token_signature") return verdict;
      }
    }
    return verdict;
  }

  async #byIssuer(text: string, bound: BoundRule): Promise<TokenVerdict> {
    const { rule } = bound;
    if (rule.keys.kind !== "introspection") return failed("token_issuer", "its issuer cannot be asked", bound);
    const said = await this.#options.introspection.introspect({ keys: rule.keys, fetchTimeoutMs: rule.fetchTimeoutMs }, text);
    if (!said.ok) return failed("token_keys_unavailable", said.error, bound);
    if (said.value === null) return failed("token_inactive", `${rule.keys.url} says that it is not active`, bound);
    const wrong = checkClaims(said.value, bound, this.#options.clock.wallMs());
    // The issuer has answered for it, whether or not it names itself.
    return wrong ?? { ok: true, payload: Object.hasOwn(said.value, "iss") ? said.value : { ...said.value, iss: rule.issuer }, bound };
  }
}

/** What an issuer answers is bound by the rule as a signed token is. */
function checkClaims(claims: JsonObject, bound: BoundRule, nowMs: number): Failed | null {
  const { issuer, audiences, clockSkewMs } = bound.rule;
  const { iss, aud, exp, nbf } = claims;
  if (iss !== undefined && iss !== issuer) return failed("token_issuer", `its issuer is ${JSON.stringify(iss)}, wanted ${JSON.stringify(issuer)}`, bound);
  const given = Array.isArray(aud) ? aud : [aud];
  if (audiences.length > 0 && !audiences.some((audience) => given.includes(audience))) return failed("token_audience", `its audience is ${JSON.stringify(aud)}, wanted one of ${audiences.join(", ")}`, bound);
  if (exp !== undefined && (typeof exp !== "number" || exp * 1000 + clockSkewMs <= nowMs)) return failed("token_expired", `its exp is ${JSON.stringify(exp)}`, bound);
  if (nbf !== undefined && (typeof nbf !== "number" || nbf * 1000 - clockSkewMs > nowMs)) return failed("token_not_yet_valid", `its nbf is ${JSON.stringify(nbf)}`, bound);
  return null;
}

/** What a token says of itself before anything is checked: only to choose rule and keys. Null when it is not three parts of base64url JSON. */
function readShape(text: string): Shape | null {
  const parts = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)$/.exec(text);
  const header = parts === null ? null : readPart(parts[1]!);
  const payload = parts === null ? null : readPart(parts[2]!);
  if (header === null || payload === null || typeof header["alg"] !== "string") return null;
  const { kid } = header;
  const { iss } = payload;
  return { algorithm: header["alg"], kid: typeof kid === "string" ? kid : null, issuer: typeof iss === "string" ? iss : null };
}

function readPart(part: string): Readonly<Record<string, unknown>> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(part, "base64url").toString("utf8"));
    return isRecord(value) ? value : null;
  } catch {
    return null;
  }
}

function codeOf(error: unknown): TokenFailure {
  if (error instanceof errors.JWTExpired) return "token_expired";
  if (error instanceof errors.JWTClaimValidationFailed) {
    return error.claim === "aud" ? "token_audience" : error.claim === "iss" ? "token_issuer" : error.claim === "nbf" ? "token_not_yet_valid" : "token_malformed";
  }
  if (error instanceof errors.JWSSignatureVerificationFailed) return "token_signature";
  if (error instanceof errors.JOSEAlgNotAllowed) return "token_algorithm";
  return "token_malformed";
}
