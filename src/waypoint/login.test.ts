// Logins through the whole of a waypoint's HTTP, between real sockets; the provider is in memory.

import { beforeAll, describe, expect, test } from "bun:test";
import { Browser, CookieJar, type Visit } from "../../test/kit/browser.ts";
import { backend, condition, is, jwtRule, requestPolicy, route, rule, WEB } from "../../test/kit/http-records.ts";
import { FakeClock, ISSUER, sign, testKey, type TestKey } from "../../test/kit/issuer.ts";
import { loginPolicy } from "../../test/kit/login-gate.ts";
import { exact, identity, provenance } from "../../test/kit/mesh-records.ts";
import { FakeProvider } from "../../test/kit/openid-provider.ts";
import { backend1, backend2, WaypointFixture } from "../../test/kit/waypoint.ts";
import { seededRandom } from "../core/ports.ts";
import { IntrospectionCache } from "../identity/jwt/introspection.ts";
import { JwksCache } from "../identity/jwt/jwks-cache.ts";
import { TokenVerifier } from "../identity/jwt/token-verifier.ts";
import { LoginService } from "../identity/oidc/login-service.ts";
import type { RequestAuthentication } from "../mesh/l7/access.ts";
import type { L7Delta } from "../mesh/l7/delta.ts";

let key: TestKey;
beforeAll(async () => {
  key = await testKey("a");
});

const AUTHENTICATION: RequestAuthentication = {
  name: "jwt", namespace: "shop", targets: [{ kind: "service", service: WEB }], provenance: provenance("RequestAuthentication", "shop", "jwt"),
  rules: [jwtRule({ keys: { kind: "discovery" }, audiences: ["shop"], claimsToHeaders: [{ header: "x-user", claim: ["sub"] }] })],
};

interface Shop extends AsyncDisposable {
  readonly clock: FakeClock;
  readonly provider: FakeProvider;
  readonly waypoint: WaypointFixture;
  /** Over a gateway of the mesh that ends TLS. */
  readonly browser: Browser;
  readonly url: string;
}

function shop(endpoint: { readonly port: number }, l7: Partial<L7Delta> = {}): Shop {
  const clock = new FakeClock();
  const provider = new FakeProvider(key, clock);
  const { fetch: ask } = provider;
  const tokens = new TokenVerifier({ keys: new JwksCache({ fetch: ask, clock, random: seededRandom(1) }), introspection: new IntrospectionCache({ fetch: ask, clock }), clock });
  const logins = new LoginService({ fetch: ask, clock, verifier: tokens });
  const waypoint = new WaypointFixture({ endpoints: [endpoint], tokens, logins, source: { identity: identity("shop", "gateway") }, l7: { loginPolicies: [loginPolicy()], ...l7 } });
  const viaGateway = (request: Request): Promise<Response> => {
    request.headers.set("x-forwarded-proto", "https");
    return fetch(request.url.replace("https:", "http:"), { method: request.method, headers: request.headers, redirect: "manual", ...(request.body === null ? {} : { body: request.body }) });
  };
  return {
    clock, provider, waypoint, browser: new Browser(viaGateway, new CookieJar(() => clock.wallMs())), url: waypoint.url.replace("http:", "https:"),
    [Symbol.asyncDispose]: async () => {
      logins.destroy();
      await waypoint[Symbol.asyncDispose]();
    },
  };
}

async function login({ browser, provider, url }: Shop, path = "/"): Promise<Visit> {
  const sent = await browser.one(url + path);
  return browser.one(provider.authorise(sent.headers.get("location")!));
}

const answer = ({ status, headers }: Visit): string => `${status} ${headers.get("x-weft-reason")}`;

describe("a waypoint with a login", () => {
  test("to the provider, back, and to the application, which sees who it is and no cookie", async () => {
    await using server = await backend1((request, response) => response.end(`hello ${request.headers["x-user"]}`));
    await using w = shop(server, { requestAuthentications: [AUTHENTICATION] });
    const sent = await w.browser.one(`${w.url}/cart?item=1`);
    expect([answer(sent), server.seen.length]).toEqual(["302 login_required", 0]);
    const back = await w.browser.one(w.provider.authorise(sent.headers.get("location")!));
    expect([answer(back), back.headers.get("location"), w.browser.jar.names("127.0.0.1")]).toEqual(["302 login_done", `${w.url}/cart?item=1`, ["__Host-weft-login"]]);
    const visit = await w.browser.one(back.headers.get("location")!, { accept: "text/html", "x-user": "root" });
    expect(visit.body).toBe("hello bob");
    expect(server.seen.map(({ url, headers }) => [url, headers["x-user"], headers["cookie"]])).toEqual([["/cart?item=1", "bob", undefined]]);
    expect(await w.waypoint.ended(2)).toMatchObject({ path: "/.weft/login/callback", status: 302, code: "login_done", provenance: "LoginPolicy shop/login" });
    expect(answer(await w.browser.one(`${w.url}/.weft/login/logout`))).toBe("303 logged_out");
    expect(answer(await w.browser.one(`${w.url}/data`, { accept: "*/*" }))).toBe("401 login_required");
  });
  test("policies judge the session's claims, as soon as they are there", async () => {
    await using server = await backend1((_, response) => response.end("in"));
    await using w = shop(server);
    w.provider.claims = { groups: ["staff"] };
    await login(w);
    expect((await w.browser.one(`${w.url}/`)).body).toBe("in");
    w.waypoint.change({ requestPolicies: [requestPolicy({ name: "admins", rules: [condition({ kind: "claim", path: ["groups"] }, [exact("admins")])] })] });
    expect(answer(await w.browser.one(`${w.url}/`))).toBe("403 access_not_allowed");
  });
  test("a renewed session reaches the browser with the application's answer, or with ours", async () => {
    await using server = await backend1((_, response) => response.setHeader("set-cookie", "own=1").end("in"));
    await using w = shop(server);
    await login(w);
    w.clock.ms += 3_600_000;
    const visit = await w.browser.one(`${w.url}/`);
    expect(visit.headers.getSetCookie().map((line) => line.split("=", 1)[0])).toEqual(["own", "__Host-weft-login"]);
    w.waypoint.change({ requestPolicies: [requestPolicy({ name: "nobody" })] });
    w.clock.ms += 3_600_000;
    const denied = await w.browser.one(`${w.url}/`);
    expect([answer(denied), denied.headers.getSetCookie().length]).toEqual(["403 access_not_allowed", 1]);
  });
  test("a body waits for the renewal, whole", async () => {
    await using server = await backend1((request, response) => request.pipe(response));
    await using w = shop(server);
    await login(w);
    w.clock.ms += 3_600_000;
    const held = Promise.withResolvers<void>();
    w.provider.gate = held.promise;
    const body = "x".repeat(300_000);
    const answered = fetch(`${w.waypoint.url}/`, { method: "POST", body, headers: { cookie: w.browser.jar.steal("127.0.0.1"), "x-forwarded-proto": "https" } });
    held.resolve();
    expect(await (await answered).text()).toBe(body);
  });
  test("a program with a token needs no session; its other cookies stay", async () => {
    await using server = await backend1((request, response) => response.end(`${request.headers["x-user"]} ${request.headers["cookie"]}`));
    await using w = shop(server, { requestAuthentications: [AUTHENTICATION] });
    const visit = await w.browser.one(`${w.url}/`, { authorization: `Bearer ${await sign(key, { aud: "shop", sub: "robot", iat: undefined })}`, cookie: "a=b; __Host-weft-login=1.x" });
    expect(visit.body).toBe("robot a=b");
  });
  test("a CORS preflight is answered by a rule, or by nobody", async () => {
    await using server = await backend1((_, response) => response.end("reached"));
    await using w = shop(server);
    const headers = { origin: "https://app.example", "access-control-request-method": "PUT" };
    expect(answer(await w.browser.one(`${w.url}/`, headers, "OPTIONS"))).toBe("401 login_required");
    w.waypoint.change({ routes: [route({ rules: [rule({ backends: [backend("web")], filters: [{ kind: "cors", cors: { allowOrigins: [is("https://app.example")], allowMethods: ["PUT"], allowHeaders: [], exposeHeaders: [], maxAgeS: 5, allowCredentials: true, unmatchedPreflight: "answer" } }] })] })] });
    expect(answer(await w.browser.one(`${w.url}/`, headers, "OPTIONS"))).toBe("204 cors_preflight");
    expect(server.seen).toEqual([]);
  });
  test("gRPC learns it in its own way", async () => {
    await using server = await backend2((stream) => stream.end());
    await using w = shop(server);
    const got = await fetch(`${w.waypoint.url}/shop.Cart/Get`, { method: "POST", headers: { "content-type": "application/grpc" }, body: "" });
    expect([got.status, got.headers.get("grpc-status"), got.headers.get("x-weft-reason")]).toEqual([200, "16", "login_required"]);
  });
  test("a policy that is broken closes the service", async () => {
    await using server = await backend1((_, response) => response.end("reached"));
    await using w = shop(server, { loginPolicies: [loginPolicy({ broken: "the Secret shop/s is not there", cookieKeys: [] })] });
    expect([answer(await w.browser.one(`${w.url}/`)), server.seen.length]).toEqual(["500 rule_broken", 0]);
    expect(await w.waypoint.ended()).toMatchObject({ detail: "LoginPolicy shop/login: the Secret shop/s is not there" });
  });
  test("a provider that is down", async () => {
    await using server = await backend1((_, response) => response.end("reached"));
    await using w = shop(server);
    w.provider.down = true;
    expect(answer(await w.browser.one(`${w.url}/`))).toBe("503 login_unavailable");
    expect((await w.waypoint.ended()).detail).toContain(`${ISSUER}/.well-known/openid-configuration: connection refused`);
  });
});
