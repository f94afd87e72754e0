// Tokens of the corpus by name: signed anew for every run, since neither side lets a test set its clock.

import { createHmac } from "node:crypto";
import { keySet, sign, type TestKey, testKey } from "../kit/issuer.ts";

export const ISSUER = "https://issuer.example";
export const OTHER_ISSUER = "https://other.example";
const HOUR_S = 3600;

export interface Tokens {
  readonly jwks: string;
  readonly byName: ReadonlyMap<string, string>;
}

export async function makeTokens(nowS: number): Promise<Tokens> {
  const key = await testKey("k1");
  const other = await testKey("k2");
  const others = await Promise.all(OTHER_KEYS.map(({ alg }) => testKey(alg, alg)));
  const claims = { iss: ISSUER, sub: "ann", iat: nowS - 10, exp: nowS + HOUR_S, aud: ["web"], role: "reader", groups: ["staff", "eu"], level: 7 };
  const good = await sign(key, claims);
  const [head, payload, signature] = good.split(".");
  const unsigned = `${Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url")}.${payload}.`;
  const byName = new Map([
    ["good", good], ["bob", await sign(key, { ...claims, sub: "bob", role: "writer", groups: "staff" })], ["expired", await sign(key, { ...claims, exp: nowS - HOUR_S })],
    ["early", await sign(key, { ...claims, nbf: nowS + HOUR_S })], ["foreign-issuer", await sign(key, { ...claims, iss: OTHER_ISSUER })], ["foreign-audience", await sign(key, { ...claims, aud: "other" })],
    ["no-audience", await sign(key, { ...claims, aud: undefined })], ["foreign-key", await sign(other, claims)], ["no-kid", await sign(key, claims, { kid: undefined })], ["unsigned", unsigned],
    ...await kinds(key, claims, nowS), ...await Promise.all(OTHER_KEYS.map(async ({ name }, i) => [name, await sign(others[i]!, claims)] as const)),
    ["changed", `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: "root" })).toString("base64url")}.${signature}`], ["no-subject", await sign(key, { ...claims, sub: undefined })],
  ]);
  return { jwks: keySet(key, ...others), byName };
}

/** Keys of the same issuer, by other algorithms. */
const OTHER_KEYS = [
  { name: "rs256", alg: "RS256" }, { name: "rs512", alg: "RS512" }, { name: "ps256", alg: "PS256" }, { name: "es384", alg: "ES384" }, { name: "es512", alg: "ES512" }, { name: "eddsa", alg: "EdDSA" },
];

/** Tokens that are odd in one way each. */
async function kinds(key: TestKey, claims: Readonly<Record<string, unknown>>, nowS: number): Promise<(readonly [string, string])[]> {
  const encoded = (part: object): string => Buffer.from(JSON.stringify(part)).toString("base64url");
  const signed = `${encoded({ alg: "HS256", kid: key.kid })}.${encoded(claims)}`;
  const byClaims = async (name: string, more: Readonly<Record<string, unknown>>) => [name, await sign(key, { ...claims, ...more })] as const;
  const byHeader = async (name: string, more: Readonly<Record<string, unknown>>) => [name, await sign(key, claims, more)] as const;
  const critical = `${encoded({ alg: "ES256", kid: key.kid, crit: ["exp2"], exp2: 1 })}.${encoded(claims)}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key.privateKey, Buffer.from(critical));
  return [
    ["critical", `${critical}.${Buffer.from(signature).toString("base64url")}`],
    // Signed by what everybody knows: the public key.
    ["hs256", `${signed}.${createHmac("sha256", JSON.stringify(key.jwk)).update(signed).digest("base64url")}`],
    ...await Promise.all([
      byClaims("two-audiences", { aud: ["other", "mobile"] }), byClaims("no-expiry", { exp: undefined }), byClaims("expiry-as-text", { exp: String(nowS + HOUR_S) }), byClaims("expiry-as-fraction", { exp: nowS + HOUR_S + 0.5 }),
      byClaims("soon-valid", { nbf: nowS + 20 }), byClaims("issuer-with-slash", { iss: `${ISSUER}/` }), byClaims("claims", { aud: ["web", "other"], admin: true, realm: { roles: ["admin", "user", "~~~???"] }, city: "Köln", org: { id: "o1" }, groups: [] }),
      byHeader("other-kid", { kid: "k9" }), byHeader("with-jku", { jku: "https://evil.example/keys" }), byHeader("typed", { typ: "at+jwt" }), byHeader("type-text", { typ: "JOSE" }),
    ]),
  ];
}

/** Replaces `{token NAME}`. */
export function withTokens(text: string, { byName }: Tokens): string {
  return text.replace(/\{token ([a-z0-9-]+)\}/g, (_, name: string) => {
    const token = byName.get(name);
    if (token === undefined) throw new Error(`the corpus names a token that nobody makes: ${name}`);
    return token;
  });
}

/** What was seen, with tokens by their names again. */
export function withoutTokens(text: string, { byName }: Tokens): string {
  let out = text;
  for (const [name, token] of byName) out = out.replaceAll(token, `{token ${name}}`);
  return out;
}
