import { beforeAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { jwtRule } from "../../../test/kit/http-records.ts";
import { FakeClock, FakeNetwork, ISSUER, keySet, NOW_S, sign, testKey, type TestKey } from "../../../test/kit/issuer.ts";
import { provenance } from "../../../test/kit/mesh-records.ts";
import { seededRandom } from "../../core/ports.ts";
import type { JwtRule } from "../../mesh/l7/access.ts";
import type { BoundRule, FoundToken, TokenVerdict } from "../../policy/http/tokens.ts";
import { IntrospectionCache } from "./introspection.ts";
import { JwksCache } from "./jwks-cache.ts";
import { VERIFIED_TOKENS_MAX } from "./limits.ts";
import { TokenVerifier } from "./token-verifier.ts";

interface World {
  readonly clock: FakeClock;
  readonly network: FakeNetwork;
  readonly keys: JwksCache;
  verify(token: string, ...rules: readonly Partial<JwtRule>[]): Promise<TokenVerdict>;
  recall(token: string, ...rules: readonly Partial<JwtRule>[]): TokenVerdict | null;
  code(token: string, ...rules: readonly Partial<JwtRule>[]): Promise<string>;
}

function world(): World {
  const clock = new FakeClock();
  const network = new FakeNetwork();
  const keys = new JwksCache({ fetch: network.fetch, clock, random: seededRandom(1) });
  const verifier = new TokenVerifier({ keys, introspection: new IntrospectionCache({ fetch: network.fetch, clock }), clock });
  const bound = new Map<Partial<JwtRule>, BoundRule>();
  const bind = (rule: Partial<JwtRule>): BoundRule => {
    let made = bound.get(rule);
    if (made === undefined) bound.set(rule, (made = { rule: jwtRule({ clockSkewMs: 0, ...rule }), provenance: provenance("RequestAuthentication", "shop", "jwt") }));
    return made;
  };
  const found = (text: string, rules: readonly Partial<JwtRule>[]): FoundToken => ({ text, source: { kind: "header", name: "authorization", prefix: "Bearer " }, rules: rules.map(bind) });
  const verify = (text: string, ...rules: readonly Partial<JwtRule>[]): Promise<TokenVerdict> => verifier.verify(found(text, rules));
  return {
    clock, network, keys, verify,
    recall: (text, ...rules) => verifier.recall(found(text, rules)),
    code: async (token, ...rules) => {
      const verdict = await verify(token, ...rules);
      return verdict.ok ? "ok" : verdict.code;
    },
  };
}

const inline = (...keys: readonly TestKey[]): Partial<JwtRule> => ({ keys: { kind: "inline", jwks: keySet(...keys) } });
let es: TestKey;
let other: TestKey;
beforeAll(async () => {
  es = await testKey("a");
  other = await testKey("b");
});

interface Vectors {
  readonly issuer: string;
  readonly expiresAtMs: number;
  readonly signed: readonly { readonly name: string; readonly jwk: unknown; readonly token: string }[];
  readonly refused: readonly { readonly name: string; readonly jwk: unknown; readonly token: string; readonly code: string }[];
}
const vectors: Vectors = JSON.parse(readFileSync(resolve(import.meta.dir, "../../../test/vectors/jws/rfc7515-appendix-a.json"), "utf8"));

describe("published vectors", () => {
  const at = (ms: number): World => {
    const w = world();
    w.clock.ms = ms - NOW_S * 1000;
    return w;
  };
  const rule = (jwk: unknown): Partial<JwtRule> => ({ issuer: vectors.issuer, keys: { kind: "inline", jwks: JSON.stringify({ keys: [jwk] }) } });
  test.each(vectors.signed.map((v) => [v.name, v] as const))("RFC 7515 %s: accepted until it expires, and not when changed", async (_, { jwk, token }) => {
    const verdict = await at(vectors.expiresAtMs - 1000).verify(token, rule(jwk));
    expect(verdict.ok ? verdict.payload : verdict.detail).toEqual({ iss: "joe", exp: 1300819380, "http://example.com/is_root": true });
    expect(await at(vectors.expiresAtMs).code(token, rule(jwk))).toBe("token_expired");
    const [header, payload, signature] = token.split(".");
    const forged = Buffer.from(JSON.stringify({ iss: "joe", exp: 1300819380, "http://example.com/is_root": false })).toString("base64url");
    expect(await at(0).code(`${header}.${forged}.${signature}`, rule(jwk))).toBe("token_signature");
    expect(await at(0).code(`${header}.${payload}.`, rule(jwk))).toBe("token_signature");
  });
  test.each(vectors.refused.map((v) => [v.name, v] as const))("%s: refused", async (_, { jwk, token, code }) => expect(await at(0).code(token, rule(jwk))).toBe(code));
});

describe("algorithms", () => {
  test.each(["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"])("%s is accepted", async (alg) => {
    const key = await testKey("k", alg);
    expect(await world().code(await sign(key), inline(key))).toBe("ok");
  });
  const unsigned = (header: Record<string, unknown>, signature = ""): string => [header, { iss: ISSUER, exp: NOW_S + 60 }].map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".") + `.${signature}`;
  test.each(["none", "None", "NONE", "nOnE", "HS256", "HS512", "", "RS256 ", "dir", "ES256K"])("%j is not", async (alg) => expect(await world().code(unsigned({ alg }, "AAAA"), inline(es))).toBe("token_algorithm"));
  test("a public key is not taken for a secret", async () => {
    const rsa = await testKey("r", "RS256");
    const hmac = new Bun.CryptoHasher("sha256", JSON.stringify(rsa.jwk));
    const head = unsigned({ alg: "HS256", kid: "r" }).slice(0, -1);
    expect(await world().code(`${head}.${hmac.update(head).digest("base64url")}`, inline(rsa))).toBe("token_algorithm");
  });
  test("a key serves only the algorithm that it names", async () => {
    const rs = await testKey("r", "RS256");
    const ps = { ...rs, alg: "PS256", privateKey: (await testKey("r", "PS256")).privateKey };
    expect(await world().code(await sign(ps), inline(rs))).toBe("token_key_unknown");
  });
  test("short RSA keys are not used", async () => {
    const { publicKey } = generateKeyPairSync("rsa", { modulusLength: 1024 });
    const jwks = JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "s" }] });
    expect(await world().code(unsigned({ alg: "RS256", kid: "s" }, "AAAA"), { keys: { kind: "inline", jwks } })).toBe("token_key_unknown");
  });
});

describe("hostile headers lead nowhere", () => {
  test.each([
    ["a key of its own", async () => ({ jwk: other.jwk })], ["an address of keys", async () => ({ jku: "https://evil.example/keys" })], ["an address of a certificate", async () => ({ x5u: "https://evil.example/cert" })],
    ["a certificate of its own", async () => ({ x5c: ["MIIB"] })],
  ] as const)("%s", async (_, header) => {
    const w = world();
    w.network.answer("https://evil.example/keys", keySet(other));
    expect(await w.code(await sign({ ...other, kid: "a" }, {}, await header()), inline(es))).toBe("token_signature");
    expect(w.network.asked).toEqual([]);
  });
  test.each(["../../../dev/null", "/etc/passwd", "a' OR '1'='1", "https://evil.example", "\u0000", "x".repeat(4000), "__proto__", "constructor"])("kid %j is a name, nothing else", async (kid) => {
    const w = world();
    expect(await w.code(await sign(es, {}, { kid }), inline(es))).toBe("token_key_unknown");
    expect(w.network.asked).toEqual([]);
  });
  test("a critical extension that is not known is refused", async () => {
    const header = Buffer.from(JSON.stringify({ alg: "ES256", kid: "a", crit: ["exp"], exp: 1 })).toString("base64url");
    const [, payload, signature] = (await sign(es)).split(".");
    expect(await world().code(`${header}.${payload}.${signature}`, inline(es))).toBe("token_malformed");
  });
});

describe("what is no token", () => {
  test.each(["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "e30.e30.", "bnVsbA.bnVsbA.AA", "{}.{}.{}", "x".repeat(10_000), "W10.e30.AA", " a.b.c", "\u0000"])("%j", async (text) => expect(await world().code(text, inline(es))).toBe("token_malformed"));
  test("deep nesting is refused, not suffered", async () => {
    const payload = Buffer.from(`{"iss":"${ISSUER}","a":${"[".repeat(5000)}${"]".repeat(5000)}}`).toString("base64url");
    const header = Buffer.from('{"alg":"ES256","kid":"a"}').toString("base64url");
    expect(await world().code(`${header}.${payload}.AAAA`, inline(es))).toMatch(/^token_(malformed|signature)$/);
  });
  test("a signature in another encoding of the same bytes, or cut", async () => {
    const token = await sign(es);
    for (const changed of [`${token}=`, `${token}A`, token.slice(0, -2), token.replaceAll(".", ".\n"), `${token} `]) expect(await world().code(changed, inline(es))).not.toBe("ok");
  });
});

describe("claims", () => {
  test.each([
    ["good", {}, {}, "ok"], ["expired", { exp: NOW_S - 1 }, {}, "token_expired"], ["expired this second", { exp: NOW_S }, {}, "token_expired"], ["inside the skew", { exp: NOW_S - 30 }, { clockSkewMs: 60_000 }, "ok"], ["outside the skew", { exp: NOW_S - 61 }, { clockSkewMs: 60_000 }, "token_expired"],
    ["not yet valid", { nbf: NOW_S + 10 }, {}, "token_not_yet_valid"], ["nearly valid", { nbf: NOW_S + 10 }, { clockSkewMs: 10_000 }, "ok"], ["without an end", { exp: undefined }, {}, "ok"], ["an end that is text", { exp: "tomorrow" }, {}, "token_malformed"],
    ["one audience", { aud: "me" }, { audiences: ["me"] }, "ok"], ["one of several", { aud: ["x", "me"] }, { audiences: ["you", "me"] }, "ok"], ["somebody else's", { aud: "them" }, { audiences: ["me"] }, "token_audience"], ["none, and one is wanted", {}, { audiences: ["me"] }, "token_audience"],
    ["a part of one", { aud: "me2" }, { audiences: ["me"] }, "token_audience"], ["another issuer", { iss: "https://evil.example" }, {}, "token_issuer"], ["the issuer with a slash", { iss: `${ISSUER}/` }, {}, "token_issuer"], ["no issuer", { iss: undefined }, {}, "token_issuer"], ["a list of issuers", { iss: [ISSUER] }, {}, "token_issuer"],
  ] as const)("%s", async (_, claims, rule, expected) => expect(await world().code(await sign(es, claims), { ...inline(es), ...rule })).toBe(expected));
  test("what is wrong is said", async () => {
    const verdict = await world().verify(await sign(es, { iss: "https://evil.example" }), inline(es));
    expect(verdict.ok ? "" : verdict.detail).toBe('its issuer is "https://evil.example", the rules name https://issuer.example');
  });
});

describe("several rules", () => {
  test("by issuer", async () => {
    const mine = inline(es);
    const theirs: Partial<JwtRule> = { ...inline(other), issuer: "https://other.example" };
    const w = world();
    expect([await w.code(await sign(es), mine, theirs), await w.code(await sign(other, { iss: "https://other.example" }), mine, theirs)]).toEqual(["ok", "ok"]);
    expect(await w.code(await sign(other), mine, theirs)).toBe("token_key_unknown");
  });
  test("of one issuer, by audience: the one that accepts is told", async () => {
    const w = world();
    const second: Partial<JwtRule> = { ...inline(es), audiences: ["b"], fieldPath: "spec.jwtRules[1]" };
    const verdict = await w.verify(await sign(es, { aud: "b" }), { ...inline(es), audiences: ["a"] }, second);
    expect(verdict.ok ? verdict.bound.rule.fieldPath : verdict.code).toBe("spec.jwtRules[1]");
  });
  test("keys that are not there refuse, with the reason", async () => {
    const verdict = await world().verify(await sign(es), { keys: { kind: "unavailable", reason: "Secret shop/keys does not exist" } });
    expect(verdict).toMatchObject({ ok: false, code: "token_keys_unavailable", detail: "Secret shop/keys does not exist" });
  });
});

describe("keys of one set", () => {
  test("one without a name fits any token, and any key fits a token without a name", async () => {
    const nameless = { ...es, jwk: { ...es.jwk } };
    delete nameless.jwk.kid;
    expect(await world().code(await sign(es, {}, { kid: "whatever" }), inline(other, nameless))).toBe("ok");
    expect(await world().code(await sign(es, {}, { kid: undefined }), inline(other, es))).toBe("ok");
  });
  test("two of one name are both tried", async () => expect(await world().code(await sign(es), inline({ ...other, jwk: { ...other.jwk, kid: "a" } }, es))).toBe("ok"));
  test("no more than eight", async () => {
    const decoys = Array.from({ length: 8 }, () => ({ ...other, jwk: { ...other.jwk, kid: "a" } }));
    expect(await world().code(await sign(es), inline(...decoys, es))).toBe("token_signature");
  });
  test.each([
    ["for encryption", { use: "enc" }], ["for signing only", { key_ops: ["sign"] }], ["of another type", { kty: "oct" }], ["of an unknown curve", { crv: "P-999" }],
  ])("a key %s is left out", async (_, change) => expect(await world().code(await sign(es), inline({ ...es, jwk: { ...es.jwk, ...change } }))).toBe("token_key_unknown"));
  test("a private key in the set is used as the public one that it contains", async () => {
    const { exportJWK } = await import("jose");
    expect(await world().code(await sign(es), inline({ ...es, jwk: { ...(await exportJWK(es.privateKey)), kid: "a" } }))).toBe("ok");
  });
  test.each(["", "{", "[]", "null", '{"keys":{}}', "{}", JSON.stringify({ keys: Array.from({ length: 201 }, () => ({})) }), " ".repeat(300_000)])("what is no key set: %p", async (jwks) => {
    expect(await world().code(await sign(es), { keys: { kind: "inline", jwks } })).toBe("token_keys_unavailable");
  });
  test("keys that make no sense do not spoil the others", async () => {
    const jwks = JSON.stringify({ keys: [null, 1, {}, { kty: "EC", crv: "P-256", x: "!!", y: "!!", kid: "a" }, { kty: "RSA", n: 5 }, es.jwk] });
    expect(await world().code(await sign(es), { keys: { kind: "inline", jwks } })).toBe("ok");
  });
});

describe("rotation", () => {
  const URL = "https://issuer.example/keys";
  const byUrl: Partial<JwtRule> = { keys: { kind: "url", url: URL } };
  test("a key that is not known is asked for once, then not again for a while", async () => {
    const w = world();
    w.network.answer(URL, keySet(es));
    expect(await w.code(await sign(es), byUrl)).toBe("ok");
    w.clock.ms += 20_000;
    w.network.answer(URL, keySet(es, other));
    expect(await w.code(await sign(other), byUrl)).toBe("ok");
    expect(w.network.count(URL)).toBe(2);
    for (let i = 0; i < 50; i++) expect(await w.code(await sign(es, {}, { kid: `made-up-${i}` }), byUrl)).toBe("token_key_unknown");
    expect(w.network.count(URL)).toBe(2);
  });
  test("a key that is withdrawn takes its tokens along, remembered ones too", async () => {
    const w = world();
    w.network.answer(URL, keySet(es));
    const token = await sign(es);
    expect(await w.code(token, byUrl)).toBe("ok");
    w.network.answer(URL, keySet(other));
    w.clock.ms += 25 * 60_000;
    await w.keys.refreshDue();
    expect(await w.code(token, byUrl)).toBe("token_key_unknown");
  });
  test("a new key under an old name is found", async () => {
    const w = world();
    w.network.answer(URL, keySet(es));
    await w.code(await sign(es), byUrl);
    const renewed = await testKey("a");
    w.network.answer(URL, keySet(renewed));
    w.clock.ms += 20_000;
    expect(await w.code(await sign(renewed), byUrl)).toBe("ok");
  });
});

describe("a remembered token", () => {
  test("is not checked twice, and expires in time", async () => {
    const w = world();
    const rule = inline(es);
    const token = await sign(es, { exp: NOW_S + 100 });
    const first = await w.verify(token, rule);
    const second = await w.verify(token, rule);
    expect(first.ok && second.ok && first.payload === second.payload).toBe(true);
    w.clock.ms = 100_000;
    expect(await w.code(token, rule)).toBe("token_expired");
  });
  test("is recalled at once: the same verdict, while it is in time", async () => {
    const w = world();
    const rule = inline(es);
    const token = await sign(es, { exp: NOW_S + 100 });
    expect(w.recall(token, rule)).toBeNull();
    const verified = await w.verify(token, rule);
    expect(w.recall(token, rule)).toBe(verified);
    expect(w.recall(`${token}x`, rule)).toBeNull();
    w.clock.ms = 100_000;
    expect(w.recall(token, rule)).toBeNull();
  });
  test("is not recalled once its keys are others, or for another rule", async () => {
    const w = world();
    const byUrl: Partial<JwtRule> = { keys: { kind: "url", url: "https://issuer.example/keys" } };
    w.network.answer("https://issuer.example/keys", keySet(es));
    const token = await sign(es);
    await w.verify(token, byUrl);
    expect(w.recall(token, byUrl)?.ok).toBe(true);
    expect(w.recall(token, { ...byUrl, audiences: ["b"] })).toBeNull();
    w.network.answer("https://issuer.example/keys", keySet(other));
    w.clock.ms += 25 * 60_000;
    await w.keys.refreshDue();
    expect(w.recall(token, byUrl)).toBeNull();
    w.keys.retain([]);
    expect(w.recall(token, byUrl)).toBeNull();
  });
  test("is not recalled past a rule of the same issuer that comes before", async () => {
    const w = world();
    const [strict, lax] = [{ ...inline(es), audiences: ["b"] }, inline(es)];
    const token = await sign(es, { aud: "a" });
    expect((await w.verify(token, strict, lax)).ok).toBe(true);
    expect([w.recall(token, strict, lax), w.recall(token, lax, strict)?.ok]).toEqual([null, true]);
  });
  test("more tokens than are remembered: the last ones used are", async () => {
    const w = world();
    const rule = inline(es);
    const [kept, left] = [await sign(es, { sub: "kept" }), await sign(es, { sub: "left" })];
    await w.verify(kept, rule);
    await w.verify(left, rule);
    for (let i = 0; i < VERIFIED_TOKENS_MAX; i++) {
      await w.verify(await sign(es, { sub: `${i}` }), rule);
      expect(w.recall(kept, rule)?.ok).toBe(true);
    }
    expect(w.recall(left, rule)).toBeNull();
  }, 30_000);
  test("is judged anew for another rule", async () => {
    const w = world();
    const token = await sign(es, { aud: "a" });
    expect([await w.code(token, { ...inline(es), audiences: ["a"] }), await w.code(token, { ...inline(es), audiences: ["b"] })]).toEqual(["ok", "token_audience"]);
  });
});

describe("introspection (RFC 7662)", () => {
  const URL = "https://issuer.example/introspect";
  const rule: Partial<JwtRule> = { keys: { kind: "introspection", url: URL, clientId: "me:x", clientSecret: "s/%" } };
  const answering = (body: unknown, fields: Partial<Parameters<FakeNetwork["answer"]>[2] & object> = {}): World => {
    const w = world();
    w.network.answer(URL, typeof body === "string" ? body : JSON.stringify(body), fields);
    return w;
  };
  test("active: its claims, and the issuer's name", async () => {
    const w = answering({ active: true, sub: "bob", scope: "read" });
    const verdict = await w.verify("opaque", rule);
    expect(verdict.ok ? verdict.payload : verdict.code).toEqual({ active: true, sub: "bob", scope: "read", iss: ISSUER });
    const [asked] = w.network.asked;
    expect([asked!.method, asked!.body, asked!.headers["authorization"]]).toEqual(["POST", "token=opaque&token_type_hint=access_token", `Basic ${Buffer.from("me%3Ax:s%2F%25").toString("base64")}`]);
  });
  test.each([
    ["not active", { active: false }, {}, "token_inactive"], ["of another issuer", { active: true, iss: "https://evil.example" }, {}, "token_issuer"], ["expired all the same", { active: true, exp: NOW_S }, {}, "token_expired"], ["not yet valid", { active: true, nbf: NOW_S + 5 }, {}, "token_not_yet_valid"],
    ["for somebody else", { active: true, aud: "them" }, { audiences: ["me"] }, "token_audience"], ["for us", { active: true, aud: ["me"] }, { audiences: ["me"] }, "ok"], ["active as text", { active: "true" }, {}, "token_keys_unavailable"], ["no JSON", "<html>", {}, "token_keys_unavailable"], ["a list", [true], {}, "token_keys_unavailable"],
  ] as const)("%s", async (_, body, fields, expected) => expect(await answering(body).code("opaque", { ...rule, ...fields })).toBe(expected));
  test.each([[302], [401], [500]])("status %d is no answer, and no redirect is followed", async (status) => {
    const w = answering({ active: true }, { status, location: "https://evil.example" });
    expect(await w.code("opaque", rule)).toBe("token_keys_unavailable");
    expect(w.network.asked.length).toBe(1);
  });
  test("answers are remembered for a while: good ones, bad ones and faults", async () => {
    for (const [body, beyondMs] of [[{ active: true }, 31_000], [{ active: false }, 11_000], ["x", 1_100]] as const) {
      const w = answering(body);
      await Promise.all([w.verify("t", rule), w.verify("t", rule)]);
      await w.verify("t", rule);
      expect(w.network.count(URL)).toBe(1);
      w.clock.ms += beyondMs;
      await w.verify("t", rule);
      await w.verify("another", rule);
      expect(w.network.count(URL)).toBe(3);
    }
  });
  test("a token of an issuer with keys is not shown to another", async () => {
    const w = answering({ active: true });
    expect(await w.code(await sign(other, {}, { kid: "a" }), inline(es), { ...rule, issuer: "https://third.example" })).toBe("token_signature");
    expect(w.network.asked).toEqual([]);
  });
  test("what is under way is bounded", async () => {
    const w = world();
    const held = w.network.hold(URL, '{"active":true}');
    const all = Array.from({ length: 300 }, (_, i) => w.code(`t${i}`, rule));
    held.release();
    const codes = await Promise.all(all);
    expect([codes.filter((code) => code === "ok").length, codes.filter((code) => code === "token_keys_unavailable").length]).toEqual([256, 44]);
  });
});
