// Tokens changed at random: none is accepted but one that says what was signed, under the signature that was made. Key sets changed at
// random: never an exception, never more keys than there were.

import { ok as holds, strictEqual as equal } from "node:assert/strict";
import { seededRandom } from "../../src/core/ports.ts";
import { IntrospectionCache } from "../../src/identity/jwt/introspection.ts";
import { JwksCache } from "../../src/identity/jwt/jwks-cache.ts";
import { parseKeySet } from "../../src/identity/jwt/key-set.ts";
import { TokenVerifier } from "../../src/identity/jwt/token-verifier.ts";
import { jwtRule } from "../kit/http-records.ts";
import { FakeClock, FakeNetwork, keySet, sign, testKey, type TestKey } from "../kit/issuer.ts";
import { provenance } from "../kit/mesh-records.ts";
import { Dice } from "./random-text.ts";

export const name = "jwt";

/** Key sets are parsed once for this many tokens. */
const TOKENS_PER_KEY_SET = 20;

const ALPHABET = [..."ABCabc019-_.=+/ \n", "eyJ", "..", "e30", "\u0000", "é"];
const ALGORITHMS = ["none", "None", "HS256", "HS512", "RS256", "ES256", "EdDSA", "Ed25519", "", null, 1, ["EdDSA"], { a: 1 }];
const KIDS = ["a", "b", "", "../a", null, 1, {}, undefined];

export async function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): Promise<{ iterations: number }> {
  const dice = new Dice(seed);
  const keys = [await testKey("a", "EdDSA"), await testKey("b", "ES256")];
  const stranger = await testKey("a", "EdDSA");
  const tokens = await Promise.all(keys.map((key) => sign(key)));
  const bound = { rule: jwtRule({ keys: { kind: "inline", jwks: keySet(...keys) } }), provenance: provenance("RequestAuthentication", "shop", "jwt") };
  const network = new FakeNetwork();
  const clock = new FakeClock();
  const verifier = new TokenVerifier({ clock, keys: new JwksCache({ fetch: network.fetch, clock, random: seededRandom(seed) }), introspection: new IntrospectionCache({ fetch: network.fetch, clock }) });
  const genuine = new Set(tokens.map(meaning));
  for (let i = 0; i < iterations; i++) {
    const text = await changed(dice, tokens, stranger);
    const verdict = await verifier.verify({ text, source: { kind: "header", name: "authorization", prefix: "Bearer " }, rules: [bound] });
    equal(verdict.ok, genuine.has(meaning(text)), `seed ${seed}, iteration ${i}: ${JSON.stringify(text)} was ${verdict.ok ? "accepted" : `refused: ${verdict.detail}`}`);
    if (i % TOKENS_PER_KEY_SET === 0) {
      const set = parseKeySet(dice.mutate(keySet(...keys), ['"', "{", "}", "[", "]", ",", "null", "1", ...ALPHABET]));
      holds(!set.ok || set.value.size <= keys.length, `seed ${seed}, iteration ${i}: more keys than there were`);
    }
  }
  equal(network.asked.length, 0, "a token made us ask somebody");
  return { iterations };
}

/** What was signed, and the bytes of the signature: two spellings of one signature mean the same. */
function meaning(token: string): string {
  const parts = token.split(".");
  const [header, payload, signature] = parts;
  const strict = parts.length === 3 && /^[A-Za-z0-9_-]+$/.test(signature ?? "") && (signature ?? "").length % 4 !== 1;
  return strict ? `${header}.${payload}.${Buffer.from(signature!, "base64url").toString("hex")}` : `not a token: ${token}`;
}

async function changed(dice: Dice, tokens: readonly string[], stranger: TestKey): Promise<string> {
  const token = dice.of(tokens);
  const parts = token.split(".");
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  switch (dice.below(8)) {
    case 0: return token;
    case 1: return dice.of(tokens).split(".").map((part, i) => (dice.chance(0.5) ? part : parts[i]!)).join(".");
    case 2: return [encode({ alg: dice.of(ALGORITHMS), kid: dice.of(KIDS), ...(dice.chance(0.3) ? { jwk: stranger.jwk, jku: "https://evil.example", crit: dice.of([["b64"], [], null]), b64: false } : {}) }), parts[1]!, dice.chance(0.3) ? "" : parts[2]!].join(".");
    case 3: return [parts[0]!, encode({ iss: "https://issuer.example", sub: dice.of(["bob", "root"]), exp: dice.of([9e9, "x", null, -1]) }), parts[2]!].join(".");
    case 4: return dice.chance(0.2) ? sign(stranger, { sub: "root" }) : `${parts[0]}.${parts[1]}.${dice.mutate(parts[2]!, ALPHABET)}`;
    case 5: return `${dice.mutate(parts[0]!, ALPHABET)}.${parts[1]}.${parts[2]}`;
    case 6: return `${parts[0]}.${dice.mutate(parts[1]!, ALPHABET)}.${parts[2]}`;
    default: return dice.mutate(token, ALPHABET);
  }
}
