import { beforeAll, describe, expect, test } from "bun:test";
import { Browser, CookieJar, type Visit } from "../../../test/kit/browser.ts";
import { jwtRule, requestPolicy, condition, TestFields } from "../../../test/kit/http-records.ts";
import { FakeClock, ISSUER, NOW_S, sign, testKey, type TestKey } from "../../../test/kit/issuer.ts";
import { LoginGate, loginPolicy } from "../../../test/kit/login-gate.ts";
import { exact, PRESENCE, provenance } from "../../../test/kit/mesh-records.ts";
import { FakeProvider } from "../../../test/kit/openid-provider.ts";
import { seededRandom } from "../../core/ports.ts";
import type { LoginPolicy, RequestAuthentication } from "../../mesh/l7/access.ts";
import type { AccessSet } from "../../mesh/l7/l7-store.ts";
import { OPENED_MAX, readLoginSession, sessionCookies } from "../../policy/http/login-session.ts";
import { REASON_HEADER } from "../../policy/http/reason-codes.ts";
import { IntrospectionCache } from "../jwt/introspection.ts";
import { JwksCache } from "../jwt/jwks-cache.ts";
import { TokenVerifier } from "../jwt/token-verifier.ts";
import { LoginService } from "./login-service.ts";

let key: TestKey;
let stranger: TestKey;
beforeAll(async () => {
  key = await testKey("a");
  stranger = await testKey("a");
});

const APP = "https://shop.example";
const CALLBACK = `${APP}/.weft/login/callback`;

class World {
  readonly clock = new FakeClock();
  readonly provider: FakeProvider;
  readonly gate: LoginGate;
  readonly service: LoginService;
  readonly jar = new CookieJar(() => this.clock.wallMs());
  readonly browser: Browser;

  constructor(policy: Partial<LoginPolicy> = {}, access: Partial<AccessSet> = {}, signer = key) {
    this.provider = new FakeProvider(signer, this.clock);
    const { fetch } = this.provider;
    const verifier = new TokenVerifier({ keys: new JwksCache({ fetch, clock: this.clock, random: seededRandom(1) }), introspection: new IntrospectionCache({ fetch, clock: this.clock }), clock: this.clock });
    this.service = new LoginService({ fetch, clock: this.clock, verifier });
    this.gate = new LoginGate({ service: this.service, tokens: verifier, access: { policies: [], authentications: [], logins: [loginPolicy(policy)], ...access } });
    this.browser = new Browser(this.gate.fetch, this.jar);
  }

  /** The address to which an unknown browser is sent. */
  async begin(url = `${APP}/`): Promise<string> {
    const visit = await this.browser.one(url);
    expect([visit.status, code(visit)]).toEqual([302, "login_required"]);
    return visit.headers.get("location")!;
  }

  /** Logs in; the answer to the callback. */
  async login(url = `${APP}/`, parameters: Readonly<Record<string, string | undefined>> = {}): Promise<Visit> {
    return this.browser.one(this.provider.authorise(await this.begin(url), parameters));
  }

  async code(visit: Promise<Visit> | Visit): Promise<string> {
    const got = await visit;
    return `${got.status} ${code(got)}`;
  }

  get detail(): string {
    return this.gate.details.at(-1)!;
  }
}

const code = (visit: Visit): string | null => visit.headers.get(REASON_HEADER);
const page = (visit: Visit): { readonly principal: string; readonly claims: Record<string, unknown>; readonly headers: Record<string, string>; readonly path: string } => JSON.parse(visit.body);
const S = 1000;

describe("logging in", () => {
  test("a page leads to the provider and back to the page", async () => {
    const w = new World();
    const to = new URL(await w.begin(`${APP}/cart?item=1&x=%2F`));
    expect(to.origin + to.pathname).toBe(`${ISSUER}/authorize`);
    expect(Object.fromEntries(to.searchParams)).toEqual({
      tenant: "1", response_type: "code", client_id: "shop", redirect_uri: CALLBACK, scope: "openid email", state: expect.stringMatching(/^[\w-]{43}$/), nonce: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/), code_challenge_method: "S256",
    });
    const back = await w.browser.one(w.provider.authorise(to.href));
    expect([back.status, code(back), back.headers.get("location")]).toEqual([302, "login_done", `${APP}/cart?item=1&x=%2F`]);
    const seen = page(await w.browser.open(`${APP}/cart`));
    expect(seen).toMatchObject({ path: "/cart", principal: `${ISSUER}/bob`, claims: { sub: "bob", aud: "shop" } });
    expect(seen.headers["cookie"]).toBeUndefined();
    expect([w.jar.names("shop.example"), w.jar.refused, w.provider.problems]).toEqual([["__Host-weft-login"], [], []]);
  });
  test("cookies: only for this host, over https, not for scripts, not from other sites", async () => {
    const w = new World({ sessionMs: 3_600_000 });
    const sent = await w.browser.one(`${APP}/`);
    expect(sent.headers.getSetCookie()).toEqual([expect.stringMatching(/^__Host-weft-login-flow-[\w-]{12}=[\w-]+; Path=\/; Max-Age=600; HttpOnly; SameSite=Lax; Secure$/)]);
    const back = await w.browser.one(w.provider.authorise(sent.headers.get("location")!));
    expect(back.headers.getSetCookie()).toEqual([
      expect.stringMatching(/^__Host-weft-login=1\.[\w-]+; Path=\/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure$/), expect.stringMatching(/^__Host-weft-login-flow-[\w-]{12}=; Path=\/; Max-Age=0; HttpOnly; SameSite=Lax; Secure$/),
    ]);
    expect([back.headers.get("cache-control"), back.headers.get("referrer-policy")]).toEqual(["no-store", "no-referrer"]);
  });
  test("over plain http without what needs https", async () => {
    const w = new World({ cookieName: "__Host-who" });
    const callback = await w.browser.one(w.provider.authorise(await w.begin("http://localhost:8080/")));
    expect(callback.headers.get("location")).toBe("http://localhost:8080/");
    expect(w.jar.names("localhost")).toEqual(["who"]);
    expect(page(await w.browser.open("http://localhost:8080/")).principal).toBe(`${ISSUER}/bob`);
  });
  test("several tabs at once, and the oldest of too many gives way", async () => {
    const w = new World();
    const tabs: string[] = [];
    for (let i = 0; i < 7; i++) {
      tabs.push(await w.begin(`${APP}/${i}`));
      w.clock.ms += S;
    }
    expect(w.jar.names("shop.example")).toHaveLength(5);
    const ends: (string | null)[] = [];
    for (const tab of tabs) ends.push((await w.browser.one(w.provider.authorise(tab))).headers.get("location"));
    expect(ends.slice(2)).toEqual([2, 3, 4, 5, 6].map((i) => `${APP}/${i}`));
    expect(w.jar.names("shop.example")).toEqual(["__Host-weft-login"]);
  });
  test("what the backend and policies see when the userinfo endpoint is asked", async () => {
    const w = new World({ userInfo: true });
    w.provider.userInfo = { sub: "bob", groups: ["admins"], aud: "somebody" };
    await w.login();
    expect(page(await w.browser.open(`${APP}/`)).claims).toMatchObject({ groups: ["admins"], aud: "shop" });
    const other = new World({ userInfo: true });
    other.provider.userInfo = { sub: "eve", groups: ["admins"] };
    expect(await other.code(other.login())).toBe("403 login_failed");
    expect(other.detail).toBe(`${ISSUER}/userinfo answered about "eve", asked was "bob"`);
  });
  test("a provider that wants the secret in the body gets it there", async () => {
    const w = new World();
    w.provider.metadata = { token_endpoint_auth_methods_supported: ["private_key_jwt", "client_secret_post"] };
    expect(await w.code(w.login())).toBe("302 login_done");
    expect(w.provider.asked.find(({ method }) => method === "POST")!.headers["authorization"]).toBeUndefined();
  });
  test("one that can do neither is named", async () => {
    const w = new World();
    w.provider.metadata = { token_endpoint_auth_methods_supported: ["private_key_jwt"] };
    expect(await w.code(w.browser.one(`${APP}/`))).toBe("503 login_unavailable");
    expect(w.detail).toContain("we can client_secret_basic and client_secret_post");
  });
  test("a provider that is down", async () => {
    const w = new World();
    w.provider.down = true;
    expect(await w.code(w.browser.one(`${APP}/`))).toBe("503 login_unavailable");
    expect(w.detail).toContain("/.well-known/openid-configuration: connection refused");
    w.provider.down = false;
    w.clock.ms += 2 * S;
    expect(await w.code(w.login())).toBe("302 login_done");
  });
  test("one that fails between page and callback: the login can begin again", async () => {
    const w = new World();
    const to = await w.begin();
    w.provider.down = true;
    expect(await w.code(w.browser.one(w.provider.authorise(to)))).toBe("503 login_unavailable");
    expect(w.jar.names("shop.example")).toEqual([]);
  });
});

describe("answers that are not believed", () => {
  const callbacks: readonly (readonly [string, (w: World) => Promise<Visit>, string])[] = [
    ["no state", (w) => w.login(`${APP}/`, { state: undefined }), "no state, or several"],
    ["another state", (w) => w.login(`${APP}/`, { state: "x".repeat(43) }), "has not begun a login"],
    ["an issuer that was not asked (mix-up, RFC 9207)", (w) => w.login(`${APP}/`, { iss: "https://evil.example" }), 'of the issuer "https://evil.example"'],
    ["no issuer, of a provider that names itself", (w) => w.login(`${APP}/`, { iss: undefined }), "of the issuer null"],
    ["a refusal", (w) => w.login(`${APP}/`, { code: undefined, error: "access_denied", error_description: "not today" }), 'answered "access_denied": "not today"'],
    ["a refusal together with a code", (w) => w.login(`${APP}/`, { error: "access_denied" }), "access_denied"],
    ["no code", (w) => w.login(`${APP}/`, { code: undefined }), "no code, or several"],
    ["an invented code", (w) => w.login(`${APP}/`, { code: "invented" }), "invalid_grant"],
    ["by POST", async (w) => w.browser.one(w.provider.authorise(await w.begin()), { accept: "text/html" }, "POST"), "answers by GET"],
    ["two states", async (w) => w.browser.one(`${w.provider.authorise(await w.begin())}&state=other`), "no state, or several"],
    ["two codes", async (w) => w.browser.one(`${w.provider.authorise(await w.begin())}&code=other`), "no code, or several"],
    ["two issuers", async (w) => w.browser.one(`${w.provider.authorise(await w.begin())}&iss=https://evil.example`), "of the issuer null"],
  ];
  test.each(callbacks)("%s", async (_, visit, detail) => {
    const w = new World();
    expect(await w.code(visit(w))).toBe("403 login_failed");
    expect(w.detail).toContain(detail);
    expect(w.jar.names("shop.example")).not.toContain("__Host-weft-login");
    expect(await w.code(w.browser.one(`${APP}/`))).toBe("302 login_required");
  });

  const tokens: readonly (readonly [string, Readonly<Record<string, unknown>>, string])[] = [
    ["the nonce of another login", { nonce: "other" }, "nonce is not the one of this login"], ["no nonce", { nonce: undefined }, "nonce is not the one of this login"],
    ["of another issuer", { iss: "https://evil.example" }, "token_issuer"], ["for another client", { aud: "other" }, "token_audience"],
    ["for several, and made for another", { aud: ["shop", "other"], azp: "other" }, "azp is"], ["for several, and for nobody", { aud: ["shop", "other"] }, "no azp"], ["made for another", { azp: "other" }, "azp is"],
    ["the hash of another access token", { at_hash: "AAAAAAAAAAAAAAAAAAAAAA" }, "at_hash is not of"], ["of nobody", { sub: undefined }, "sub is null"], ["of no text", { sub: 7 }, "sub"],
    ["without an end", { exp: undefined }, "no exp"], ["without a beginning", { iat: undefined }, "no iat"], ["over", { exp: NOW_S - 61 }, "token_expired"], ["not begun", { nbf: NOW_S + 61 }, "token_not_yet_valid"],
    ["from a clock that is far ahead", { iat: NOW_S + 61, exp: NOW_S + 4000 }, "61 s ahead: compare the clocks"],
  ];
  test.each(tokens)("an ID token: %s", async (_, claims, detail) => {
    const w = new World();
    w.provider.claims = claims;
    expect(await w.code(w.login())).toBe("403 login_failed");
    expect(w.detail).toContain(detail);
    expect(w.jar.names("shop.example")).toEqual([]);
  });
  test("an ID token that somebody else signed", async () => {
    const w = new World({}, {}, key);
    w.provider.answer = { id_token: await sign(stranger, { aud: "shop" }) };
    expect(await w.code(w.login())).toBe("403 login_failed");
    expect(w.detail).toContain("token_signature");
  });
  test.each([["no ID token", { id_token: undefined }, "without an ID token"], ["no access token", { access_token: undefined }, "without an access token"], ["tokens of another type", { token_type: "DPoP" }, 'the type "DPoP"']] as const)(
    "an answer with %s", async (_, answer, detail) => {
      const w = new World();
      w.provider.answer = answer;
      expect(await w.code(w.login())).toBe("403 login_failed");
      expect(w.detail).toContain(detail);
    });
  test("clocks that are apart by less than the skew are borne, without going to and fro", async () => {
    const w = new World();
    w.provider.claims = { iat: NOW_S + 50, nbf: NOW_S + 50 };
    expect(await w.code(w.login())).toBe("302 login_done");
    const late = new World();
    late.provider.claims = { iat: NOW_S - 3650, exp: NOW_S - 50 };
    expect(await late.code(late.login())).toBe("302 login_done");
    expect(await late.code(late.browser.one(`${APP}/`))).toBe("200 null");
  });
  test("a wrong secret is the operator's to mend, and named", async () => {
    const w = new World({ clientSecret: "wrong" });
    expect(await w.code(w.login())).toBe("403 login_failed");
    expect(w.detail).toContain(`${ISSUER}/token answered 401 "invalid_client"`);
  });
});

describe("who finishes a login", () => {
  test("only the browser that began it: an attacker's answer logs nobody in (login fixation, CSRF)", async () => {
    const w = new World();
    const attackers = w.provider.authorise(await w.begin());
    const victim = new Browser(w.gate.fetch, new CookieJar(() => w.clock.wallMs()));
    expect(await w.code(victim.one(attackers))).toBe("403 login_failed");
    expect(victim.jar.names("shop.example")).toEqual([]);
    expect(w.provider.count("/token")).toBe(0);
  });
  test("nor does it change whom a browser is logged in as", async () => {
    const w = new World();
    const attackers = w.provider.authorise(await w.begin());
    const victim = new World();
    await victim.login();
    const before = victim.jar.steal("shop.example");
    expect(await victim.code(victim.browser.one(attackers))).toBe("302 login_done");
    expect([victim.jar.steal("shop.example"), victim.provider.count("/token")]).toEqual([before, 1]);
    expect(await victim.code(victim.browser.one(attackers, { accept: "text/html", "sec-fetch-site": "cross-site" }))).toBe("403 login_failed");
  });
  test("once: with the cookie kept and the code tried again the provider is not asked", async () => {
    const w = new World();
    const back = w.provider.authorise(await w.begin());
    const cookie = w.jar.steal("shop.example");
    const headers = { accept: "text/html", cookie };
    const thief = (): Promise<Visit> => new Browser(w.gate.fetch).one(back, headers);
    expect(await w.code(thief())).toBe("302 login_done");
    expect(await w.code(thief())).toBe("403 login_failed");
    expect([w.detail, w.provider.count("/token"), w.provider.problems]).toEqual(["this login was finished already", 1, []]);
  });
  test("in time", async () => {
    const w = new World();
    const back = w.provider.authorise(await w.begin());
    const cookie = w.jar.steal("shop.example");
    w.clock.ms += 10 * 60 * S;
    expect(await w.code(new Browser(w.gate.fetch).one(back, { accept: "text/html", cookie }))).toBe("403 login_failed");
    expect(w.detail).toBe("the login was begun too long ago");
  });
  test("a flow of one policy is none of another", async () => {
    const [one, two] = [new World(), new World({ name: "other" })];
    const back = one.provider.authorise(await one.begin());
    expect(await two.code(new Browser(two.gate.fetch).one(back, { accept: "text/html", cookie: one.jar.steal("shop.example") }))).toBe("403 login_failed");
  });
});

describe("where a login leads", () => {
  test.each([
    ["//evil.example/x", "https://shop.example//evil.example/x"], ["/\\evil.example", "https://shop.example//evil.example"], ["/a?next=https://evil.example", "https://shop.example/a?next=https://evil.example"],
    [`/${"x".repeat(1600)}`, "https://shop.example/"],
  ])("%s: back to this host alone", async (path, expected) => {
    const w = new World();
    expect((await w.login(APP + path)).headers.get("location")).toBe(expected);
  });
  test("nothing that the provider's answer says changes it", async () => {
    const w = new World();
    expect((await w.login(`${APP}/here`, { redirect: "https://evil.example", return_to: "//evil.example" })).headers.get("location")).toBe(`${APP}/here`);
  });
});

describe("sessions", () => {
  const open = (w: World): Promise<string> => w.code(w.browser.one(`${APP}/`));
  test("one that was changed, cut or made up is none", async () => {
    const w = new World();
    await w.login();
    const [name, value] = w.jar.steal("shop.example").split("=") as [string, string];
    const other = new Browser(w.gate.fetch);
    const tries = [value.slice(0, -2), `${value.slice(0, 40)}${value[40] === "A" ? "B" : "A"}${value.slice(41)}`, "1.AAAA", "2." + value.slice(2), "9.x", "", "1." + "A".repeat(200), value.slice(2), `${value}=`, `1.${value}`];
    for (const text of tries) expect(await w.code(other.one(`${APP}/`, { accept: "text/html", cookie: `${name}=${text}` }))).toBe("302 login_required");
    expect(await w.code(other.one(`${APP}/`, { accept: "text/html", cookie: `${name}=${value}` }))).toBe("200 null");
    // A neighbour's cookie of the same name comes first, or last.
    expect(await w.code(other.one(`${APP}/`, { accept: "text/html", cookie: `${name}=1.AAAA; ${name}=${value}` }))).toBe("200 null");
    expect(await w.code(other.one(`${APP}/`, { accept: "text/html", cookie: `${name}=${value}; ${name}=1.AAAA` }))).toBe("200 null");
  });
  test.each([["name", { name: "other" }], ["issuer", { issuer: "https://other.example" }], ["client", { clientId: "other" }], ["key", { cookieKeys: ["cd".repeat(32)] }]])("of another %s are none here", async (_, fields) => {
    const w = new World();
    await w.login();
    const other = new World(fields);
    other.provider.metadata = { issuer: "https://other.example" };
    const visit = await new Browser(other.gate.fetch).one(`${APP}/`, { cookie: w.jar.steal("shop.example") });
    expect([visit.status, code(visit)]).toEqual([401, "login_required"]);
  });
  test("a flow's cookie is no session, nor a session's a flow", async () => {
    const w = new World();
    const to = await w.begin();
    const [flow] = w.jar.of("shop.example");
    expect(await w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "text/html", cookie: `__Host-weft-login=1.${flow!.value}` }))).toBe("302 login_required");
    await w.browser.one(w.provider.authorise(to));
    const session = w.jar.of("shop.example").find(({ name }) => name === "__Host-weft-login")!;
    expect(await w.code(new Browser(w.gate.fetch).one(w.provider.authorise(to), { accept: "text/html", cookie: `${flow!.name}=${session.value.slice(2)}` }))).toBe("403 login_failed");
  });
  test("keys are rotated by putting a new one in front", async () => {
    const [old, fresh] = ["ab".repeat(32), "cd".repeat(40)];
    const w = new World({ cookieKeys: [old] });
    await w.login();
    const cookie = w.jar.steal("shop.example");
    const withKeys = (...cookieKeys: string[]): LoginPolicy => loginPolicy({ cookieKeys });
    const use = async (policy: LoginPolicy): Promise<string> => {
      w.gate.access = { policies: [], authentications: [], logins: [policy] };
      return w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "text/html", cookie }));
    };
    expect([await use(withKeys(fresh, old)), await use(withKeys(fresh))]).toEqual(["200 null", "302 login_required"]);
  });
  test("large ones are kept in several cookies, and parts of an older one are cleared", async () => {
    const w = new World();
    w.provider.claims = { groups: Array.from({ length: 200 }, (_, i) => `a-group-of-some-length-${i}`) };
    await w.login();
    expect(w.jar.names("shop.example").length).toBeGreaterThan(2);
    const seen = page(await w.browser.open(`${APP}/`));
    expect([seen.claims["groups"], seen.headers["cookie"]]).toEqual([expect.arrayContaining(["a-group-of-some-length-199"]), undefined]);
    w.provider.claims = {};
    w.clock.ms += 3600 * S;
    await w.browser.open(`${APP}/`);
    expect([w.jar.names("shop.example"), w.jar.refused]).toEqual([["__Host-weft-login"], []]);
    expect(await open(w)).toBe("200 null");
  });
  test("one with a part missing, or a part of another, is none", async () => {
    const w = new World();
    w.provider.claims = { text: "x".repeat(6000) };
    await w.login();
    const parts = w.jar.of("shop.example").map(({ name, value }) => `${name}=${value}`);
    expect(parts.length).toBeGreaterThan(2);
    for (let i = 0; i < parts.length; i++) expect(await w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "text/html", cookie: parts.filter((_, at) => at !== i).join("; ") }))).toBe("302 login_required");
    const swapped = parts.map((part) => part.replace(/\.1=/, ".9=").replace(/\.2=/, ".1=").replace(/\.9=/, ".2="));
    expect(await w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "text/html", cookie: swapped.join("; ") }))).toBe("302 login_required");
  });
  test("one that does not fit is refused, with its size; without its refresh token if that helps", async () => {
    const w = new World();
    w.provider.claims = { text: "x".repeat(20_000) };
    expect(await w.code(w.login())).toBe("403 login_failed");
    expect(w.detail).toMatch(/does not fit into 4 cookies \(the ID token has \d{5} characters\)/);
    const tight = new World();
    tight.provider.answer = { refresh_token: "r".repeat(12_000) };
    expect(await tight.code(tight.login())).toBe("302 login_done");
    expect(await open(tight)).toBe("200 null");
  });
  test("those that were opened are remembered, and only so many", async () => {
    const w = new World();
    const policy = loginPolicy();
    const real = w.service.context().cryptoOf(policy);
    let openings = 0;
    const context = { crypto: { ...real, open: (text: string, purpose: string) => (openings++, real.open(text, purpose)) }, secure: true, nowMs: w.clock.wallMs() };
    const idToken = await sign(key, { aud: "shop" });
    const cookieOf = (i: number): string => sessionCookies(policy, { startedMs: context.nowMs, renewedMs: i, endsMs: context.nowMs + S, idToken, refreshToken: null, userInfo: null, payload: {} }, new TestFields({}), context)![0]!.split(";")[0]!;
    const cookies = Array.from({ length: OPENED_MAX + 1 }, (_, i) => cookieOf(i));
    const read = (i: number, nowMs = context.nowMs): number | null => readLoginSession(policy, new TestFields({ cookie: cookies[i]! }), { ...context, nowMs })?.renewedMs ?? null;
    for (let i = 0; i < OPENED_MAX; i++) read(i);
    expect([read(0), openings]).toEqual([0, OPENED_MAX]);
    expect(read(0, context.nowMs + policy.sessionMs)).toBeNull();
    read(OPENED_MAX);
    expect([read(0), openings, read(1)]).toEqual([0, OPENED_MAX + 1, 1]);
    expect(openings).toBe(OPENED_MAX + 2);
  });
  test("end with their time, whatever the provider renews", async () => {
    const w = new World({ sessionMs: 2 * 3_600_000 });
    w.provider.lifeS = 6 * 3600;
    await w.login();
    w.clock.ms += 2 * 3_600_000 - S;
    const cookie = w.jar.steal("shop.example");
    expect(await open(w)).toBe("200 null");
    w.clock.ms += S;
    expect(w.jar.names("shop.example")).toEqual([]);
    expect(await w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "text/html", cookie }))).toBe("302 login_required");
  });
});

describe("renewal", () => {
  const open = (w: World): Promise<string> => w.code(w.browser.one(`${APP}/`));
  test("near its end a token is renewed, and the login stays as old as it is", async () => {
    const w = new World();
    await w.login();
    w.clock.ms += 3539 * S;
    await open(w);
    expect(w.provider.count("/token")).toBe(1);
    w.provider.claims = { groups: ["new"] };
    w.clock.ms += 2 * S;
    const visit = await w.browser.one(`${APP}/`);
    expect([page(visit).claims["groups"], visit.headers.getSetCookie()[0]]).toEqual([["new"], expect.stringContaining(`Max-Age=${8 * 3600 - 3541};`)]);
    w.clock.ms += 1800 * S;
    expect([await open(w), w.provider.count("/token"), w.provider.problems]).toEqual(["200 null", 2, []]);
  });
  test("once, however many requests bring it, those that are late too", async () => {
    const w = new World();
    await w.login();
    w.clock.ms += 3600 * S;
    const cookie = w.jar.steal("shop.example");
    const held = Promise.withResolvers<void>();
    w.provider.gate = held.promise;
    const ask = (): Promise<string> => w.code(new Browser(w.gate.fetch).one(`${APP}/`, { accept: "*/*", cookie }));
    const asked = Array.from({ length: 20 }, ask);
    held.resolve();
    expect(new Set(await Promise.all(asked))).toEqual(new Set(["200 null"]));
    w.clock.ms += 10 * S;
    expect([await ask(), w.provider.count("/token"), w.provider.problems]).toEqual(["200 null", 2, []]);
  });
  test("a provider that is down: the old token to its end, then 503, then again", async () => {
    const w = new World();
    await w.login();
    w.clock.ms += 3550 * S;
    w.provider.down = true;
    expect(await open(w)).toBe("200 null");
    w.clock.ms += 60 * S;
    expect(await open(w)).toBe("503 login_unavailable");
    w.provider.down = false;
    w.clock.ms += 10 * S;
    expect(await open(w)).toBe("200 null");
  });
  test("a provider that refuses: log in again", async () => {
    const w = new World();
    await w.login();
    w.clock.ms += 3600 * S;
    w.provider.claims = { sub: "eve" };
    expect(await open(w)).toBe("302 login_required");
    expect(w.detail).toContain('the renewed ID token is of "eve", the session is of "bob"');
    expect(await w.code(w.browser.one(`${APP}/`, { accept: "*/*" }))).toBe("401 login_required");
  });
  test("without a refresh token the session ends with its token", async () => {
    const w = new World();
    w.provider.givesRefreshTokens = false;
    await w.login();
    w.clock.ms += 3599 * S;
    expect(await open(w)).toBe("200 null");
    w.clock.ms += S;
    expect(await open(w)).toBe("302 login_required");
  });
  test("a renewal without an ID token keeps what is known of the user", async () => {
    const w = new World();
    w.provider.claims = { groups: ["a"] };
    w.provider.givesIdTokens = false;
    await w.login();
    w.clock.ms += 3600 * S;
    expect(page(await w.browser.one(`${APP}/`)).claims).toMatchObject({ sub: "bob", groups: ["a"] });
    w.clock.ms += 1800 * S;
    expect([await open(w), w.provider.count("/token")]).toEqual(["200 null", 2]);
  });
  test("calls to the provider are bounded", async () => {
    const w = new World();
    await w.login();
    const held = Promise.withResolvers<void>();
    w.provider.gate = held.promise;
    const policy = loginPolicy();
    const settle = (i: number): Promise<string> =>
      new Promise((done) => void w.service.settle({ kind: "ask", policy, about: "refresh", refresh: { refreshToken: `r${i}`, subject: "bob" }, answered: (reply) => {
        done(reply.ok ? "ok" : reply.error.detail);
        return { kind: "answer", code: "login_failed", status: null, headers: [], body: null, detail: "", provenance: policy.provenance };
      } }));
    const calls = Array.from({ length: 257 }, (_, i) => settle(i));
    expect(await calls[256]).toBe("256 calls to identity providers are under way already");
    held.resolve();
    expect((await Promise.all(calls.slice(0, 256))).every((text) => text.includes("invalid_grant"))).toBe(true);
  });
});

describe("logging out", () => {
  const LOGOUT = `${APP}/.weft/login/logout`;
  test("here and at the provider", async () => {
    const w = new World();
    w.provider.claims = { text: "x".repeat(1000) };
    await w.login();
    await new Browser(w.gate.fetch, w.jar).one(`${APP}/elsewhere`, { accept: "text/html", cookie: "" });
    const visit = await w.browser.one(LOGOUT);
    const to = new URL(visit.headers.get("location")!);
    expect([visit.status, code(visit), to.origin + to.pathname, to.searchParams.get("client_id"), to.searchParams.get("id_token_hint")?.split(".").length]).toEqual([303, "logged_out", `${ISSUER}/logout`, "shop", 3]);
    expect(w.jar.names("shop.example")).toEqual([]);
    expect(await w.code(w.browser.one(`${APP}/`))).toBe("302 login_required");
  });
  test("here only, when the provider has no logout, is down, or there was no session", async () => {
    const w = new World();
    w.provider.metadata = { end_session_endpoint: undefined };
    await w.login();
    const visit = await w.browser.one(LOGOUT);
    expect([visit.status, visit.body, w.jar.names("shop.example")]).toEqual([200, "You are logged out.\n", []]);
    expect(await w.code(w.browser.one(LOGOUT))).toBe("200 logged_out");
  });
  test("not for another site", async () => {
    const w = new World();
    await w.login();
    expect(await w.code(w.browser.one(LOGOUT, { accept: "text/html", "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }))).toBe("403 login_failed");
    expect(w.jar.names("shop.example")).toEqual(["__Host-weft-login"]);
    expect(await w.code(w.browser.one(LOGOUT, { accept: "text/html", "sec-fetch-site": "same-origin" }, "POST"))).toBe("303 logged_out");
  });
});

describe("beside tokens and policies", () => {
  const authentication = (fields: Parameters<typeof jwtRule>[0] = {}): RequestAuthentication => ({
    name: "jwt", namespace: "shop", targets: [], provenance: provenance("RequestAuthentication", "shop", "jwt"),
    rules: [jwtRule({ keys: { kind: "discovery" }, audiences: ["shop"], claimsToHeaders: [{ header: "x-user", claim: ["sub"] }, { header: "x-groups", claim: ["groups"] }], ...fields })],
  });
  const admins = { policies: [requestPolicy({ name: "admins", rules: [{ requestPrincipals: [PRESENCE], ...condition({ kind: "claim", path: ["groups"] }, [exact("admins")]) }] })] };

  test("access by groups in claims", async () => {
    const as = async (groups: unknown): Promise<string> => {
      const w = new World({}, admins);
      w.provider.claims = { groups };
      await w.login();
      return w.code(w.browser.one(`${APP}/`));
    };
    expect([await as(["users", "admins"]), await as("admins"), await as(["users"]), await as(undefined), await as([])]).toEqual(["200 null", "200 null", "403 access_not_allowed", "403 access_not_allowed", "403 access_not_allowed"]);
  });
  test("rules for the same issuer write a session's claims into headers, which a browser cannot do itself", async () => {
    const w = new World({}, { authentications: [authentication()] });
    w.provider.claims = { groups: ["a", "b"] };
    await w.login();
    const { headers } = page(await w.browser.one(`${APP}/`, { accept: "text/html", "x-user": "root" }));
    expect([headers["x-user"], headers["x-groups"], headers["authorization"]]).toEqual(["bob", "a,b", undefined]);
  });
  test("and pass the ID token on where they say so", async () => {
    const w = new World({}, { authentications: [authentication({ forwardOriginalToken: true })] });
    await w.login();
    expect(page(await w.browser.one(`${APP}/`)).headers["authorization"]).toMatch(/^Bearer [\w-]+\.[\w-]+\.[\w-]+$/);
  });
  test("rules for another client or issuer are not the session's", async () => {
    const w = new World({}, { authentications: [authentication({ audiences: ["other"] }), authentication({ issuer: "https://other.example" })] });
    await w.login();
    expect(page(await w.browser.one(`${APP}/`, { accept: "text/html", "x-user": "root" })).headers["x-user"]).toBeUndefined();
  });
  test("a program with a token needs no login, one with a bad token gets none", async () => {
    const w = new World({}, { authentications: [authentication()] });
    const ask = (token: string): Promise<Visit> => w.browser.one(`${APP}/`, { authorization: `Bearer ${token}`, cookie: "__Host-weft-login=1.x; a=b" });
    const good = await ask(await sign(key, { aud: "shop", sub: "robot" }));
    expect([page(good).principal, page(good).headers["cookie"]]).toEqual([`${ISSUER}/robot`, "a=b"]);
    expect(await w.code(ask(await sign(stranger, { aud: "shop" })))).toBe("401 token_signature");
    expect(await w.code(w.browser.one(`${APP}/`, { accept: "*/*" }))).toBe("401 login_required");
  });
});
