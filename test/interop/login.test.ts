// Logins at a provider that we did not write, by a browser with a cookie jar and by Chromium.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import type { LoginPolicy } from "../../src/mesh/l7/access.ts";
import { systemClock, systemRandom, type Clock } from "../../src/core/ports.ts";
import { httpFetch } from "../../src/identity/jwt/http-fetch.ts";
import { IntrospectionCache } from "../../src/identity/jwt/introspection.ts";
import { JwksCache } from "../../src/identity/jwt/jwks-cache.ts";
import { TokenVerifier } from "../../src/identity/jwt/token-verifier.ts";
import { LoginService } from "../../src/identity/oidc/login-service.ts";
import { REASON_HEADER } from "../../src/policy/http/reason-codes.ts";
import { selfSigned } from "../kit/certificates.ts";
import { Chromium } from "../kit/chromium.ts";
import { Browser, CookieJar, type Visit } from "../kit/browser.ts";
import { condition, requestPolicy } from "../kit/http-records.ts";
import { LoginGate, loginPolicy } from "../kit/login-gate.ts";
import { exact } from "../kit/mesh-records.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { CLIENT, type RealProvider, type RealProviderOptions, startRealProvider } from "../kit/real-provider.ts";

/** The system's clock, moved. */
class MovedClock implements Clock {
  aheadMs = 0;
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.aheadMs;
  }
  wallMs(): number {
    return systemClock.wallMs() + this.aheadMs;
  }
}

class Shop implements AsyncDisposable {
  readonly clock = new MovedClock();
  readonly provider: RealProvider;
  readonly gate: LoginGate;
  readonly url: string;
  readonly browser = new Browser(fetch, new CookieJar(() => this.clock.wallMs()));
  readonly #server: Bun.Server<undefined>;
  readonly #service: LoginService;

  private constructor(server: Bun.Server<undefined>, provider: RealProvider, policy: Partial<LoginPolicy>) {
    this.#server = server;
    this.provider = provider;
    this.url = server.url.origin;
    const clock = this.clock;
    const verifier = new TokenVerifier({ keys: new JwksCache({ fetch: httpFetch(), clock, random: systemRandom }), introspection: new IntrospectionCache({ fetch: httpFetch(), clock }), clock });
    this.#service = new LoginService({ fetch: httpFetch(), clock, verifier });
    const login = loginPolicy({ issuer: provider.issuer, ...CLIENT, scopes: ["openid", "email", "groups"], ...policy });
    const admins = requestPolicy({ name: "admins", action: "deny", rules: [{ paths: [exact("/admin")], ...condition({ kind: "claim", path: ["groups"] }, [], [exact("admins")]) }] });
    this.gate = new LoginGate({ service: this.#service, tokens: verifier, access: { policies: [admins], authentications: [], logins: [login] } });
    server.reload({ fetch: this.gate.fetch });
  }

  static async open(options: Partial<RealProviderOptions> = {}, policy: Partial<LoginPolicy> = {}, tls: { readonly cert: string; readonly key: string } | null = null): Promise<Shop> {
    const server = Bun.serve({ port: 0, hostname: "localhost", fetch: () => new Response("not yet", { status: 503 }), ...(tls === null ? {} : { tls }) });
    const provider = await startRealProvider({ redirectUris: [`${server.url.origin}/.weft/login/callback`], claimsInIdToken: true, ...options });
    return new Shop(server, provider, policy);
  }

  /** From the shop's page over the provider's to the shop's again. */
  async login(user: string, path = "/"): Promise<Visit> {
    const form = await this.browser.open(this.url + path);
    const consent = await this.browser.submit(form, { login: user, password: "secret" });
    return this.browser.submit(consent, {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#service.destroy();
    await this.#server.stop(true);
    await this.provider[Symbol.asyncDispose]();
  }
}

const page = ({ body }: Visit): { readonly principal: string; readonly claims: Record<string, unknown>; readonly path: string; readonly query: string } => JSON.parse(body);
const answer = ({ status, headers }: Visit): string => `${status} ${headers.get(REASON_HEADER)}`;

describe.each<readonly [string, Partial<RealProviderOptions>, Partial<LoginPolicy>]>([
  ["claims in the ID token, ES256", {}, {}], ["claims from the userinfo endpoint, RS256, secret in the body", { claimsInIdToken: false, algorithm: "RS256", clientAuthentication: "client_secret_post" }, { userInfo: true }], ["EdDSA", { algorithm: "EdDSA" }, {}],
])("a real provider: %s", (_, options, policy) => {
  let shop: Shop;
  beforeAll(async () => {
    shop = await Shop.open(options, policy);
  });
  afterAll(() => shop[Symbol.asyncDispose]());

  test("a page, the provider's login and consent, the page again", async () => {
    const visit = await shop.login("alice", "/cart?item=1");
    expect(visit.status, visit.body + shop.gate.details.join()).toBe(200);
    expect(page(visit)).toMatchObject({ path: "/cart", query: "?item=1", principal: `${shop.provider.issuer}/alice`, claims: { sub: "alice", email: "alice@shop.example", groups: ["staff", "admins"] } });
    expect([shop.browser.jar.names("localhost"), shop.browser.jar.refused]).toEqual([["weft-login"], []]);
  });
  test("her groups open what is for admins", async () => expect((await shop.browser.open(`${shop.url}/admin`)).status).toBe(200));
  test("near its end the token is renewed at the provider", async () => {
    const before = shop.provider.asked.filter((text) => text === "POST /token").length;
    shop.clock.aheadMs = 3_590_000;
    expect((await shop.browser.open(`${shop.url}/`)).status).toBe(200);
    expect(shop.provider.asked.filter((text) => text === "POST /token").length).toBe(before + 1);
    shop.clock.aheadMs = 0;
  });
  test("logging out leads to the provider, which knows who it is", async () => {
    const confirm = await shop.browser.open(`${shop.url}/.weft/login/logout`);
    expect([confirm.url.origin, confirm.url.pathname, confirm.status]).toEqual([shop.provider.issuer, "/session/end", 200]);
    expect(shop.browser.jar.names("localhost")).toEqual([]);
    const done = await shop.browser.submit(confirm, { logout: "yes" });
    expect(done.status).toBe(200);
    expect((await shop.browser.open(`${shop.url}/`)).body).toContain("Sign-in");
  });
  test("somebody else is no admin", async () => {
    expect(page(await shop.login("bob")).principal).toBe(`${shop.provider.issuer}/bob`);
    expect(answer(await shop.browser.open(`${shop.url}/admin`))).toBe("403 access_denied");
  });
});

describe("a real provider, and what goes wrong", () => {
  test("the user refuses", async () => {
    await using shop = await Shop.open();
    const form = await shop.browser.open(`${shop.url}/`);
    const abort = /href="([^"]+\/abort)"/.exec(form.body)![1]!;
    expect(answer(await shop.browser.open(new URL(abort, form.url).href))).toBe("403 login_failed");
    expect(shop.gate.details.at(-1)).toContain('the provider answered "access_denied"');
  });
  test("a code that comes twice", async () => {
    await using shop = await Shop.open();
    const visit = await shop.login("alice");
    const callback = visit.trail.find((url) => url.includes("/callback?"))!;
    expect(answer(await new Browser(fetch).open(callback))).toBe("403 login_failed");
    expect((await shop.browser.open(callback)).url.href).toBe(`${shop.url}/`);
    expect(shop.provider.asked.filter((text) => text === "POST /token")).toHaveLength(1);
  });
  test("a wrong secret", async () => {
    await using shop = await Shop.open({}, { clientSecret: "wrong" });
    expect(answer(await shop.login("alice"))).toBe("403 login_failed");
    expect(shop.gate.details.at(-1)).toContain('/token answered 401 "invalid_client');
  });
  test("a redirect address that the provider does not know stays there", async () => {
    await using shop = await Shop.open({ redirectUris: ["http://localhost:1/.weft/login/callback"] });
    const visit = await shop.browser.open(`${shop.url}/`);
    expect([visit.status, visit.url.origin]).toEqual([400, shop.provider.issuer]);
    expect(visit.body).toContain("redirect_uri");
  });
  test("one who is logged in at the provider needs no password again", async () => {
    await using shop = await Shop.open({}, { sessionMs: 60_000 });
    await shop.login("alice");
    shop.clock.aheadMs = 61_000;
    const visit = await shop.browser.open(`${shop.url}/again`);
    expect(page(visit)).toMatchObject({ path: "/again", principal: `${shop.provider.issuer}/alice` });
    expect(visit.trail.some((url) => url.startsWith(`${shop.provider.issuer}/auth`))).toBe(true);
  });
});

describeUnless(firstReason(needsProgram("chromium"), needsProgram("openssl")))("Chromium over https", () => {
  let shop: Shop;
  let chromium: Chromium;
  beforeAll(async () => {
    shop = await Shop.open({}, {}, selfSigned("localhost"));
    chromium = await Chromium.start();
  }, 60_000);
  afterAll(async () => {
    await chromium[Symbol.asyncDispose]();
    await shop[Symbol.asyncDispose]();
  });

  const status = (path: string, init = "{}"): Promise<unknown> => chromium.evaluate(`fetch("${path}", ${init}).then(({ status, redirected }) => [status, redirected])`);

  test("logs in on the provider's pages and comes back to where it was", async () => {
    await chromium.open(`${shop.url}/cart?item=1#top`);
    expect(await chromium.address()).toStartWith(`${shop.provider.issuer}/interaction/`);
    await chromium.leave(`document.querySelector("[name=login]").value = "alice"; document.querySelector("[name=password]").value = "secret"; document.querySelector("form").requestSubmit()`);
    await chromium.leave(`document.querySelector("form").requestSubmit()`);
    expect(await chromium.address()).toStartWith(`${shop.url}/cart?item=1`);
    expect(JSON.parse(await chromium.text())).toMatchObject({ path: "/cart", claims: { sub: "alice", groups: ["staff", "admins"] } });
  });
  test("keeps one cookie, which no script and no other site gets", async () => {
    expect(await chromium.cookies("localhost")).toEqual([expect.objectContaining({ name: "__Host-weft-login", path: "/", httpOnly: true, secure: true, sameSite: "Lax" })]);
    expect(await chromium.evaluate("document.cookie")).toBe("");
    expect(await status("/data")).toEqual([200, false]);
    expect(await status("/data", `{ method: "POST", body: "x" }`)).toEqual([200, false]);
  });
  test("another site can neither send a form in her name nor log her out", async () => {
    await chromium.open(`${shop.provider.issuer}/.well-known/openid-configuration`);
    await chromium.evaluate(`fetch("${shop.url}/.weft/login/logout", { mode: "no-cors", credentials: "include" }).then(() => true)`);
    await chromium.leave(`const form = document.createElement("form"); form.method = "post"; form.action = "${shop.url}/order"; document.body.append(form); form.submit()`);
    expect([await chromium.address(), await chromium.text()]).toEqual([`${shop.url}/order`, expect.stringContaining("The request has no session")]);
    await chromium.open(`${shop.provider.issuer}/.well-known/openid-configuration`);
    await chromium.leave(`location.href = "${shop.url}/.weft/login/logout"`);
    expect(await chromium.text()).toContain("could not be accepted");
    await chromium.leave(`location.href = "${shop.url}/cart"`);
    expect(JSON.parse(await chromium.text())).toMatchObject({ path: "/cart", claims: { sub: "alice" } });
  });
  test("logs out, here and at the provider; scripts are told so, pages lead to the login", async () => {
    await chromium.leave(`location.href = "/.weft/login/logout"`);
    expect(await chromium.address()).toStartWith(`${shop.provider.issuer}/session/end`);
    expect(await chromium.cookies("localhost")).toEqual([]);
    await chromium.leave(`document.querySelector("button[name=logout]").click()`);
    await chromium.open(`${shop.url}/.weft/login/logout`);
    expect((await chromium.text()).trim()).toBe("You are logged out.");
    expect(await status("/data")).toEqual([401, false]);
    expect(await status("/data", `{ method: "POST", body: "x" }`)).toEqual([401, false]);
    await chromium.open(`${shop.url}/cart`);
    expect(await chromium.text()).toContain("Sign-in");
  });
});
