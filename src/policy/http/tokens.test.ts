import { describe, expect, test } from "bun:test";
import { jwtRule, request, type RequestFields } from "../../../test/kit/http-records.ts";
import { provenance } from "../../../test/kit/mesh-records.ts";
import type { JwtRule, RequestAuthentication } from "../../mesh/l7/access.ts";
import type { JsonObject } from "./claims.ts";
import { type AuthenticationDecision, bindRules, decideAuthentication, findTokens, headerOperations, strippedQuery, type TokenVerdict } from "./tokens.ts";

const bound = (...rules: readonly Partial<JwtRule>[]) => bindRules([{
  name: "jwt", namespace: "shop", targets: [], provenance: provenance("RequestAuthentication", "shop", "jwt"), rules: rules.map((rule, i) => jwtRule({ fieldPath: `spec.jwtRules[${i}]`, ...rule })),
} satisfies RequestAuthentication]);
type Rules = ReturnType<typeof bound>;
const texts = (rules: Rules, asked: RequestFields): readonly string[] | string => {
  const found = findTokens(rules, request(asked));
  return "kind" in found ? found.code : found.map(({ text, rules: own }) => `${text} ${own.length}`);
};
const CLAIMS: JsonObject = { iss: "https://issuer.example", sub: "bob" };
/** Decides with a verdict for each token, made from its text. */
function decide(rules: Rules, asked: RequestFields, verdict: (text: string, rules: Rules) => TokenVerdict = (_, own) => ({ ok: true, payload: CLAIMS, bound: own[0]! })): AuthenticationDecision {
  const found = findTokens(rules, request(asked));
  return "kind" in found ? found : decideAuthentication(rules, found, found.map((token) => verdict(token.text, token.rules)));
}
const bearer = (token: string): RequestFields => ({ headers: { authorization: `Bearer ${token}` } });

describe("where tokens are", () => {
  test.each([
    ["none", {}, []], ["in the header", bearer("t"), ["t 1"]], ["the scheme has no case", { headers: { authorization: "bEARER t" } }, ["t 1"]], ["another scheme is no token", { headers: { authorization: "Basic dXNlcg==" } }, []],
    ["in the query", { url: "/?a=1&access_token=t" }, ["t 1"]], ["in both", { ...bearer("t"), url: "/?access_token=u" }, ["t 1", "u 1"]], ["two headers", { headers: { authorization: ["Bearer a", "Bearer b"] } }, "token_several"],
    ["the same twice", { headers: { authorization: ["Bearer a", "Bearer a"] } }, ["a 1"]], ["two parameters", { url: "/?access_token=a&access_token=b" }, "token_several"], ["the third of three", { url: "/?access_token=a&access_token=a&access_token=b" }, "token_several"],
    ["nothing after the scheme is a bad token, not none", { headers: { authorization: "Bearer " } }, [" 1"]], ["too long", bearer("x".repeat(20_000)), "token_malformed"], ["an escaped name", { url: "/?access%5ftoken=t" }, ["t 1"]],
  ] as const)("%s", (_, asked, expected) => expect(texts(bound({}), asked)).toEqual(expected as string));
  test("places of a rule's own", () => {
    const rules = bound({ sources: [{ kind: "header", name: "X-Token", prefix: "" }, { kind: "cookie", name: "session" }, { kind: "query", name: "jwt" }] });
    expect(texts(rules, { url: "/?jwt=q", headers: { "x-token": "h", cookie: "a=b; session=c", authorization: "Bearer no" } })).toEqual(["h 1", "c 1", "q 1"]);
    expect(texts(rules, { headers: { cookie: ["session=a", "session=b"] } })).toBe("token_several");
  });
  test("rules that share a place share the token", () => expect(texts(bound({}, { issuer: "https://other.example" }), bearer("t"))).toEqual(["t 2"]));
});

describe("what follows", () => {
  test("no token, no principal", () => expect(decide(bound({}), {}).kind).toBe("anonymous"));
  test("a good one: issuer and subject", () => {
    const d = decide(bound({}), bearer("t"));
    expect(d.kind === "authenticated" ? d.token.principal : d.kind).toBe("https://issuer.example/bob");
  });
  test("one without a subject names nobody", () => {
    for (const sub of [undefined, "", 7]) {
      const d = decide(bound({}), bearer("t"), (_, own) => ({ ok: true, payload: { iss: "https://issuer.example", ...(sub === undefined ? {} : { sub }) }, bound: own[0]! }));
      expect(d.kind === "authenticated" ? d.token.principal : d.kind).toBeNull();
    }
  });
  test("a bad one is refused with 401, its reason, its rule and a challenge", () => {
    const d = decide(bound({}), bearer("t"), (_, own) => ({ ok: false, code: "token_expired", detail: "expired at 12:00", bound: own[0]! }));
    expect(d).toMatchObject({ kind: "rejected", code: "token_expired", status: 401, headers: [["www-authenticate", 'Bearer error="invalid_token"']] });
    expect(d.kind === "rejected" ? d.detail : "").toBe("the token in the header authorization: expired at 12:00 (RequestAuthentication shop/jwt spec.jwtRules[0])");
  });
  test("keys that cannot be had are 503, and still refuse", () => expect(decide(bound({}), bearer("t"), () => ({ ok: false, code: "token_keys_unavailable", detail: "", bound: null }))).toMatchObject({ kind: "rejected", status: 503, headers: [] }));
  test("one bad token of two refuses", () => {
    const rules = bound({}, { sources: [{ kind: "header", name: "x-token", prefix: "" }] });
    const d = decide(rules, { headers: { authorization: "Bearer good", "x-token": "bad" } }, (text, own) => (text === "good" ? { ok: true, payload: CLAIMS, bound: own[0]! } : { ok: false, code: "token_signature", detail: "", bound: null }));
    expect(d.kind).toBe("rejected");
  });
  test("of two good ones the earlier rule's speaks, wherever the client put it", () => {
    const rules = bound({ sources: [{ kind: "query", name: "jwt" }] }, {});
    const d = decide(rules, { ...bearer("second"), url: "/?jwt=first" }, (text, own) => ({ ok: true, payload: { ...CLAIMS, sub: text }, bound: own[0]! }));
    expect(d.kind === "authenticated" ? d.token.principal : d.kind).toBe("https://issuer.example/first");
  });
  test("the rule that accepted it counts, where several share a place", () => {
    const rules = bound({}, { issuer: "https://other.example" });
    const d = decide(rules, bearer("t"), (_, own) => ({ ok: true, payload: { iss: "https://other.example", sub: "x" }, bound: own[1]! }));
    expect(d.kind === "authenticated" ? d.provenance.fieldPath : d.kind).toBe("spec.jwtRules[1]");
  });
  test("verdicts have to be one for each token", () => expect(() => decideAuthentication(bound({}), [], [{ ok: false, code: "token_expired", detail: "", bound: null }])).toThrow("0 tokens and 1 verdicts"));
});

describe("what the backend sees", () => {
  const operations = (rules: Rules, asked: RequestFields, payload: JsonObject = CLAIMS) => {
    const d = decide(rules, asked, (_, own) => ({ ok: true, payload, bound: own[0]! }));
    if (d.kind === "rejected") throw new Error(d.detail);
    return { headers: headerOperations(d.changes, request(asked).fields), query: strippedQuery(request(asked).query, d.changes) };
  };
  test("the token is taken out, or passed on", () => {
    expect(operations(bound({}), bearer("t")).headers).toEqual([{ kind: "remove", name: "authorization" }]);
    expect(operations(bound({ forwardOriginalToken: true }), bearer("t")).headers).toEqual([]);
    expect(operations(bound({}), { url: "/?a=1&access_token=t&b=2" }).query).toBe("?a=1&b=2");
    expect(operations(bound({}), { url: "/?access_token=t" }).query).toBe("");
    const cookie = bound({ sources: [{ kind: "cookie", name: "s" }] });
    expect(operations(cookie, { headers: { cookie: "a=1; s=t; b=2" } }).headers).toEqual([{ kind: "set", name: "cookie", value: "a=1; b=2" }]);
    expect(operations(cookie, { headers: { cookie: "s=t" } }).headers).toEqual([{ kind: "remove", name: "cookie" }]);
  });
  const filling = bound({ forwardOriginalToken: true, payloadHeader: "X-Payload", claimsToHeaders: [{ header: "X-Sub", claim: ["sub"] }, { header: "x-groups", claim: ["nested", "groups"] }, { header: "x-obj", claim: ["nested"] }] });
  test("claims are written into headers", () => {
    const got = operations(filling, bearer("t"), { ...CLAIMS, nested: { groups: ["a", 1, true] } }).headers.filter(({ kind }) => kind === "set");
    expect(got).toEqual([
      { kind: "set", name: "x-payload", value: Buffer.from(JSON.stringify({ ...CLAIMS, nested: { groups: ["a", 1, true] } })).toString("base64url") }, { kind: "set", name: "x-sub", value: "bob" }, { kind: "set", name: "x-groups", value: "a,1,true" },
      { kind: "set", name: "x-obj", value: Buffer.from('{"groups":["a",1,true]}').toString("base64") },
    ]);
  });
  test("what a client wrote there itself is gone, with a token and without", () => {
    const removed = ["x-payload", "x-sub", "x-groups", "x-obj"];
    for (const asked of [{ headers: { "x-sub": "root" } }, { headers: { authorization: "Bearer t", "x-sub": "root" } }]) {
      expect(operations(filling, asked, { iss: "i" }).headers.filter(({ kind }) => kind === "remove").map(({ name }) => name)).toEqual(removed);
    }
  });
  test.each(["a\r\nx: y", "a\u0000", " a", "\u007f"])("a claim that cannot stand in a header is left out: %j", (sub) => expect(operations(filling, bearer("t"), { sub }).headers.some(({ kind, name }) => kind === "set" && name === "x-sub")).toBe(false));
  test("more than ASCII goes as UTF-8", () => expect(operations(filling, bearer("t"), { sub: "é" }).headers).toContainEqual({ kind: "set", name: "x-sub", value: "\u00c3\u00a9" }));
  test("a member with a comma does not become two", () => expect(operations(filling, bearer("t"), { nested: { groups: ["a,b"] } }).headers).toContainEqual({ kind: "set", name: "x-groups", value: Buffer.from('["a,b"]').toString("base64") }));
});
