// Tokens of the corpus by name: signed anew for every run, since neither side lets a test set its clock.

import { keySet, sign, testKey } from "../kit/issuer.ts";

export const ISSUER = "https://issuer.example";
const OTHER_ISSUER = "https://other.example";
const HOUR_S = 3600;

export interface Tokens {
  readonly jwks: string;
  readonly byName: ReadonlyMap<string, string>;
}

export async function makeTokens(nowS: number): Promise<Tokens> {
  const key = await testKey("k1");
  const other = await testKey("k2");
  const claims = { iss: ISSUER, sub: "ann", iat: nowS - 10, exp: nowS + HOUR_S, aud: ["web"], role: "reader", groups: ["staff", "eu"], level: 7 };
  const good = await sign(key, claims);
  const [head, payload, signature] = good.split(".");
  const unsigned = `${Buffer.from(JSON.stringify({ alg: "none" })).toString("base64url")}.${payload}.`;
  const byName = new Map([
    ["good", good], ["bob", await sign(key, { ...claims, sub: "bob", role: "writer", groups: "staff" })], ["expired", await sign(key, { ...claims, exp: nowS - HOUR_S })],
    ["early", await sign(key, { ...claims, nbf: nowS + HOUR_S })], ["foreign-issuer", await sign(key, { ...claims, iss: OTHER_ISSUER })], ["foreign-audience", await sign(key, { ...claims, aud: "other" })],
    ["no-audience", await sign(key, { ...claims, aud: undefined })], ["foreign-key", await sign(other, claims)], ["no-kid", await sign(key, claims, { kid: undefined })], ["unsigned", unsigned],
    ["changed", `${head}.${Buffer.from(JSON.stringify({ ...claims, sub: "root" })).toString("base64url")}.${signature}`], ["no-subject", await sign(key, { ...claims, sub: undefined })],
  ]);
  return { jwks: keySet(key), byName };
}

/** Replaces `{token NAME}`. */
export function withTokens(text: string, { byName }: Tokens): string {
  return text.replace(/\{token ([a-z-]+)\}/g, (_, name: string) => {
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
