// An issuer's keys (RFC 7517), those among them that can check a signature. Symmetric keys are left out: with one of those whoever can
// check a token can also make one, and a public key used as a secret is how algorithms are confused.

import { type CryptoKey, importJWK, type JWK } from "jose";
import { err, ok, type Result } from "../../core/result.ts";
import { KEY_SET_BYTES_MAX, KEYS_MAX, KEYS_TRIED_MAX, RSA_BITS_MAX, RSA_BITS_MIN } from "./limits.ts";

/** What tokens may be signed with; `none` and the HS family are not in it. RFC 7518, RFC 8037, RFC 9864. */
export const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"] as const;
export type Algorithm = (typeof ALGORITHMS)[number];

export function isAlgorithm(text: string): text is Algorithm {
  return ALGORITHMS.some((algorithm) => algorithm === text);
}

const CURVE_OF: Partial<Readonly<Record<Algorithm, string>>> = { ES256: "P-256", ES384: "P-384", ES512: "P-521", EdDSA: "Ed25519", Ed25519: "Ed25519" };

interface Key {
  readonly kid: string | null;
  /** Only what is public of it. */
  readonly jwk: JWK;
  readonly imported: Map<Algorithm, Promise<CryptoKey | null>>;
}

export class KeySet {
  readonly #keys: readonly Key[];

  constructor(keys: readonly Key[]) {
    this.#keys = keys;
  }

  get size(): number {
    return this.#keys.length;
  }

  /**
   * The keys that may have made a signature: of the algorithm's type, and of that name. A key without a name fits any, and any key
   * fits a token that names none.
   */
  async candidates(algorithm: Algorithm, kid: string | null): Promise<CryptoKey[]> {
    const fitting = this.#keys.filter((key) => (kid === null || key.kid === null || key.kid === kid) && fits(key.jwk, algorithm));
    // The ones that are named first.
    fitting.sort((a, b) => Number(b.kid === kid) - Number(a.kid === kid));
    const keys = await Promise.all(fitting.slice(0, KEYS_TRIED_MAX).map((key) => importOnce(key, algorithm)));
    return keys.filter((key) => key !== null);
  }
}

/** Keys that are not for us (encryption, symmetric, too short, unknown) are left out; a document that is no key set is an error. */
export function parseKeySet(text: string): Result<KeySet, string> {
  if (text.length > KEY_SET_BYTES_MAX) return err(`the key set has ${text.length} characters, at most ${KEY_SET_BYTES_MAX} are read`);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    return err(`the key set is no JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isRecord(document) || !Array.isArray(document["keys"])) return err("the key set has no list named keys");
  const list: readonly unknown[] = document["keys"];
  if (list.length > KEYS_MAX) return err(`the key set has ${list.length} keys, at most ${KEYS_MAX} are read`);
  return ok(new KeySet(list.map(readKey).filter((key) => key !== null)));
}

function readKey(value: unknown): Key | null {
  if (!isRecord(value)) return null;
  const text = (name: string): string | null => {
    const member = value[name];
    return typeof member === "string" ? member : null;
  };
  const use = text("use");
  const operations = value["key_ops"];
  if (use !== null && use !== "sig" || Array.isArray(operations) && !operations.includes("verify")) return null;
  const jwk = publicPart(text);
  if (jwk === null) return null;
  const alg = text("alg");
  return { kid: text("kid"), jwk: alg === null ? jwk : { ...jwk, alg }, imported: new Map() };
}

function publicPart(text: (name: string) => string | null): JWK | null {
  const [kty, crv, n, e, x, y] = [text("kty"), text("crv"), text("n"), text("e"), text("x"), text("y")];
  switch (kty) {
    case "RSA": {
      if (n === null || e === null) return null;
      const bits = Math.floor((n.replace(/^A+(?=.)/, "").length * 6) / 8) * 8;
      return bits < RSA_BITS_MIN - 8 || bits > RSA_BITS_MAX + 8 ? null : { kty, n, e };
    }
    case "EC": return crv === null || x === null || y === null ? null : { kty, crv, x, y };
    case "OKP": return crv === null || x === null ? null : { kty, crv, x };
    default: return null;
  }
}

/** A key says at most one algorithm, and then only that one. */
function fits(jwk: JWK, algorithm: Algorithm): boolean {
  if (jwk.alg !== undefined && jwk.alg !== algorithm && !(isEdwards(jwk.alg) && isEdwards(algorithm))) return false;
  const curve = CURVE_OF[algorithm];
  return curve === undefined ? jwk.kty === "RSA" : jwk.crv === curve && jwk.kty === (curve === "Ed25519" ? "OKP" : "EC");
}

const isEdwards = (algorithm: string): boolean => algorithm === "EdDSA" || algorithm === "Ed25519";

function importOnce(key: Key, algorithm: Algorithm): Promise<CryptoKey | null> {
  let imported = key.imported.get(algorithm);
  if (imported === undefined) {
    // A key that cannot be imported fits nothing; the others of the set are not to blame.
    imported = importJWK(key.jwk, algorithm).then((made) => (made instanceof Uint8Array ? null : made), () => null);
    key.imported.set(algorithm, imported);
  }
  return imported;
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
