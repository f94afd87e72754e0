import { describe, expect, test } from "bun:test";
import { FakeClock, FakeNetwork, ISSUER } from "../../../test/kit/issuer.ts";
import { loginPolicy } from "../../../test/kit/login-gate.ts";
import { httpFetch } from "../jwt/http-fetch.ts";
import { type Provider, ProviderCache } from "./provider-cache.ts";
import { askForTokens, askForUserInfo } from "./token-endpoint.ts";

const DOCUMENT = `${ISSUER}/.well-known/openid-configuration`;
const MEMBERS = { issuer: ISSUER, authorization_endpoint: `${ISSUER}/authorize`, token_endpoint: `${ISSUER}/token` };
const signal = new AbortController().signal;

function world(): { readonly clock: FakeClock; readonly network: FakeNetwork; readonly cache: ProviderCache; readonly say: (members: Record<string, unknown>) => void; readonly find: () => Promise<unknown> } {
  const [clock, network] = [new FakeClock(), new FakeNetwork()];
  const cache = new ProviderCache({ fetch: network.fetch, clock });
  return {
    clock, network, cache, say: (members) => network.answer(DOCUMENT, JSON.stringify({ ...MEMBERS, ...members })),
    find: async () => {
      const found = await cache.find(ISSUER);
      return found.ok ? found.value : found.error;
    },
  };
}

describe("what a provider says of itself", () => {
  test("the least, and the most that we read", async () => {
    const w = world();
    w.say({});
    expect(await w.find()).toEqual({ issuer: ISSUER, authorizationEndpoint: `${ISSUER}/authorize`, tokenEndpoint: `${ISSUER}/token`, userInfoEndpoint: null, endSessionEndpoint: null, clientAuthentication: "basic", namesItself: false });
    const more = world();
    more.say({
      userinfo_endpoint: "https://api.example/me", end_session_endpoint: `${ISSUER}/out`, authorization_response_iss_parameter_supported: true, token_endpoint_auth_methods_supported: ["client_secret_post"], code_challenge_methods_supported: ["plain", "S256"],
    });
    expect(await more.find()).toMatchObject({ userInfoEndpoint: "https://api.example/me", endSessionEndpoint: `${ISSUER}/out`, clientAuthentication: "post", namesItself: true });
  });
  test.each<readonly [string, Record<string, unknown>, string]>([
    ["speaks for another", { issuer: "https://evil.example" }, 'speaks for the issuer "https://evil.example"'], ["no authorization endpoint", { authorization_endpoint: undefined }, "has no authorization_endpoint"], ["no token endpoint", { token_endpoint: 7 }, "has no token_endpoint"],
    ["a script in place of an address", { authorization_endpoint: "javascript:alert(1)" }, "no http or https URL"], ["credentials in an address", { token_endpoint: "https://a:b@issuer.example/token" }, "no http or https URL"], ["a token endpoint without TLS", { token_endpoint: "http://issuer.example/token" }, "from https to something else"],
    ["a logout without TLS", { end_session_endpoint: "http://issuer.example/out" }, "from https to something else"], ["only plain challenges", { code_challenge_methods_supported: ["plain"] }, "wanted S256"], ["no way for a client with a secret", { token_endpoint_auth_methods_supported: ["private_key_jwt", "none"] }, "private_key_jwt, none"],
  ])("refused: %s", async (_, members, why) => {
    const w = world();
    w.say(members);
    expect(await w.find()).toContain(why);
  });
  test("is asked for once, kept, asked for anew before it is old, and survives the provider for a day", async () => {
    const w = world();
    w.say({});
    await Promise.all(Array.from({ length: 10 }, w.find));
    w.clock.ms += 19 * 60_000;
    await w.find();
    expect(w.network.count(DOCUMENT)).toBe(1);
    w.network.down(DOCUMENT);
    w.clock.ms += 60_000;
    expect(await w.find()).toMatchObject({ issuer: ISSUER });
    expect(w.network.count(DOCUMENT)).toBe(2);
    w.clock.ms += 24 * 3_600_000;
    expect(await w.find()).toContain("connection refused");
  });
  test("after a failure not at once again", async () => {
    const w = world();
    expect(await w.find()).toContain("connection refused");
    w.say({});
    expect(await w.find()).toContain("connection refused");
    expect(w.network.count(DOCUMENT)).toBe(1);
    w.clock.ms += 1_000;
    expect(await w.find()).toMatchObject({ issuer: ISSUER });
  });
  test("a provider that no policy names any more is forgotten", async () => {
    const w = world();
    w.say({});
    await w.find();
    w.cache.retain([]);
    await w.find();
    expect(w.network.count(DOCUMENT)).toBe(2);
  });
});

describe("a provider's endpoints", () => {
  const policy = loginPolicy({ clientId: "sh op", clientSecret: "s:é&" });
  const at = (tokenEndpoint: string, fields: Partial<Provider> = {}): Provider => ({
    issuer: "https://issuer.example", tokenEndpoint, authorizationEndpoint: `${ISSUER}/authorize`, userInfoEndpoint: null, endSessionEndpoint: null, clientAuthentication: "basic", namesItself: false, ...fields,
  });
  const grant = { grant_type: "authorization_code", code: "a&b" };
  test("the client's halves are form-encoded before they are joined (RFC 6749, section 2.3.1)", async () => {
    const network = new FakeNetwork();
    await askForTokens(network.fetch, at(`${ISSUER}/token`), policy, { grant, signal });
    expect(network.asked[0]).toMatchObject({ method: "POST", body: "grant_type=authorization_code&code=a%26b", publicOnly: false, headers: { authorization: `Basic ${btoa("sh+op:s%3A%C3%A9%26")}` } });
  });
  test("in the body when the provider wants that", async () => {
    const network = new FakeNetwork();
    await askForTokens(network.fetch, at(`${ISSUER}/token`, { clientAuthentication: "post" }), policy, { grant, signal });
    expect(network.asked[0]!.body).toBe("grant_type=authorization_code&code=a%26b&client_id=sh+op&client_secret=s%3A%C3%A9%26");
  });
  test.each(["http://169.254.169.254/latest", "http://127.0.0.1:1/token", "http://[::1]/token", "http://10.0.0.1/"])("elsewhere than the operator wrote, %s is not connected to", async (url) => {
    const provider = at(url, { userInfoEndpoint: url });
    expect(await askForTokens(httpFetch(), provider, policy, { grant, signal })).toMatchObject({ ok: false, error: { kind: "unreachable", detail: expect.stringContaining("private address: not connected to") } });
    expect(await askForUserInfo(httpFetch(), provider, { accessToken: "a", subject: "bob", signal })).toMatchObject({ ok: false, error: { detail: expect.stringContaining("private address: not connected to") } });
  });
  test.each<readonly [string, number, string, string, string]>([
    ["a redirect", 307, "", "refused", "answered 307, wanted 200"], ["too many requests", 429, "", "unreachable", "answered 429"], ["a fault of its own", 502, "<html>", "unreachable", "answered 502"],
    ["no JSON", 200, "<html>", "refused", "no JSON object"], ["a list", 200, "[]", "refused", "no JSON object"], ["a refusal", 400, '{"error":"invalid_grant","error_description":"too old"}', "refused", 'answered 400 "invalid_grant: too old"'],
    ["a refusal that is long", 400, JSON.stringify({ error: "x".repeat(5000) }), "refused", `"${"x".repeat(300)}"`],
  ])("%s", async (_, status, body, kind, detail) => {
    const network = new FakeNetwork();
    network.answer(`${ISSUER}/token`, body, { status });
    expect(await askForTokens(network.fetch, at(`${ISSUER}/token`), policy, { grant, signal })).toMatchObject({ ok: false, error: { kind, detail: expect.stringContaining(detail) } });
    expect(network.asked).toHaveLength(1);
  });
  test.each([[60, 60_000], ["60", 60_000], [0, null], [-1, null], ["soon", null], [undefined, null], [1e12, 7 * 24 * 3_600_000]])("expires_in %p is %p ms", async (seconds, lifeMs) => {
    const network = new FakeNetwork();
    network.answer(`${ISSUER}/token`, JSON.stringify({ access_token: "a", token_type: "bearer", expires_in: seconds }));
    expect(await askForTokens(network.fetch, at(`${ISSUER}/token`), policy, { grant, signal })).toEqual({ ok: true, value: { accessToken: "a", idToken: null, refreshToken: null, lifeMs: lifeMs as number | null } });
  });
  test("userinfo that is not there is said", async () => {
    expect(await askForUserInfo(new FakeNetwork().fetch, at(`${ISSUER}/token`), { accessToken: "a", subject: "bob", signal })).toMatchObject({ error: { detail: "https://issuer.example has no userinfo endpoint, and the policy asks for it" } });
  });
});
