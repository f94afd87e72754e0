// Dex, a provider that many run, behind the YAML that a user writes: logins by a browser with a cookie jar, tokens of programs, new keys and
// a provider that is down. Runs where DEX_BIN names its program.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { unsealed } from "../kit/box.ts";
import { Browser, type Visit } from "../kit/browser.ts";
import { Dex, DEX_CLIENT, DEX_ISSUER, DEX_PASSWORD, needsDex } from "../kit/dex.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend1 } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const SERVER = "198.18.7.52";
const PORT = 8080;
const SHOP = `http://localhost:${PORT}`;
const KEYS = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const object = (apiVersion: string, kind: string, name: string, spec: object): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop" }, spec });
const targetRefs = [{ group: "", kind: "Service", name: "web" }];

const cannot = firstReason(unsealed, needsDex);
if (cannot === null) beforeAll(() => ownAddresses([SERVER]));

for (const algorithm of ["RS256", "ES256"] as const) {
  describeUnless(cannot)(`Dex, ${algorithm}`, () => {
    let server: Backend;
    let dex: Dex;
    let waypoint: WaypointProcess;
    let browser: Browser;

    beforeAll(async () => {
      server = await backend1((request, response) => response.end(JSON.stringify({ path: request.url, user: request.headers["x-user"] ?? null, groups: request.headers["x-groups"] ?? null, cookie: request.headers.cookie ?? null })), SERVER);
      dex = await Dex.start({ redirectUris: [`${SHOP}/.weft/login/callback`], users: { alice: ["staff", "admins"], bob: ["staff"] }, algorithm });
      waypoint = await WaypointProcess.start({
        yaml: {
          "shop.yaml": [
            WAYPOINT_YAML, serviceYaml("web", SERVER, server.port),
            object("weft.dev/v1alpha1", "LoginPolicy", "web", { targetRefs, issuer: DEX_ISSUER, clientId: DEX_CLIENT.clientId, clientSecretRef: { name: "login" }, scopes: ["email", "groups", "offline_access"], cookie: { keysRef: { name: "login" } } }),
            JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name: "login", namespace: "shop" }, stringData: { clientSecret: DEX_CLIENT.clientSecret, keys: KEYS } }),
            object("security.istio.io/v1", "RequestAuthentication", "web", { targetRefs, jwtRules: [{ issuer: DEX_ISSUER, audiences: [DEX_CLIENT.clientId], outputClaimToHeaders: [{ header: "x-user", claim: "email" }, { header: "x-groups", claim: "groups" }] }] }),
            object("security.istio.io/v1", "AuthorizationPolicy", "admins", { targetRefs, action: "DENY", rules: [{ to: [{ operation: { paths: ["/admin*"] } }], when: [{ key: "request.auth.claims[groups]", notValues: ["admins"] }] }] }),
          ].join("\n---\n"),
        },
        flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
      });
      browser = new Browser(fetch);
    });

    afterAll(async () => {
      await waypoint?.[Symbol.asyncDispose]();
      await dex?.[Symbol.asyncDispose]();
      await server?.[Symbol.asyncDispose]();
    });

    const told = (visit: Visit): string => `${visit.status} at ${visit.url.href}: ${visit.body}\n${waypoint.log.slice(-1500)}\n${dex.log.slice(-1500)}`;
    const page = (visit: Visit): unknown => {
      expect(visit.status, told(visit)).toBe(200);
      return JSON.parse(visit.body);
    };
    /** From the page over Dex's form and its question whether the shop may know, to the page again. */
    async function login(by: Browser, user: string, path: string): Promise<Visit> {
      const form = await by.open(SHOP + path);
      expect(form.url.href, told(form)).toStartWith(`${DEX_ISSUER}/auth/local/login`);
      const consent = await by.submit(form, { login: `${user}@shop.example`, password: DEX_PASSWORD });
      expect(consent.body, told(consent)).toContain("Grant Access");
      return await by.submit(consent, {});
    }

    test("a page, the login, the question, the page again; the server hears who it is, and no cookie of ours", async () => {
      expect(page(await login(browser, "alice", "/cart?item=1"))).toEqual({ path: "/cart?item=1", user: "alice@shop.example", groups: "staff,admins", cookie: null });
      expect(browser.jar.refused).toEqual([]);
    });

    test("groups decide", async () => {
      expect(page(await browser.open(`${SHOP}/admin`))).toMatchObject({ path: "/admin" });
      const other = new Browser(fetch);
      expect(page(await login(other, "bob", "/"))).toMatchObject({ user: "bob@shop.example", groups: "staff" });
      const refused = await other.open(`${SHOP}/admin`);
      expect([refused.status, refused.headers.get("x-weft-reason")]).toEqual([403, "access_denied"]);
    });

    test("a program shows a token instead; one that was changed is refused", async () => {
      const token = await dex.token("bob");
      const ask = (shown: string): Promise<Response> => fetch(`${SHOP}/who`, { headers: { authorization: `Bearer ${shown}` } });
      expect(await (await ask(token)).json()).toMatchObject({ user: "bob@shop.example", groups: "staff" });
      const [head, payload, signature] = token.split(".");
      const changed = await ask(`${head}.${payload}.${signature!.slice(0, -8)}AAAAAAAA`);
      expect([changed.status, changed.headers.get("x-weft-reason")]).toEqual([401, "token_signature"]);
    });

    test("sessions and tokens outlive a provider that is down; its new keys are found", async () => {
      const token = await dex.token("bob");
      await dex.stop();
      expect(page(await browser.open(`${SHOP}/still`))).toMatchObject({ user: "alice@shop.example" });
      expect((await fetch(`${SHOP}/still`, { headers: { authorization: `Bearer ${token}` } })).status).toBe(200);
      await dex.start();
      // Asked at once for a key that is not known, but every ten seconds at most.
      await until(() => `the new keys to be known; the log:\n${waypoint.log.slice(-2000)}`, 30_000, async () => {
        const answer = await fetch(`${SHOP}/again`, { headers: { authorization: `Bearer ${await dex.token("alice")}` } });
        return answer.status === 200;
      });
      expect(page(await login(new Browser(fetch), "alice", "/again"))).toMatchObject({ user: "alice@shop.example" });
    });

    test("logging out ends the session here; the next page asks again", async () => {
      const out = await browser.open(`${SHOP}/.weft/login/logout`);
      expect(out.status, told(out)).toBe(200);
      expect(browser.jar.names("localhost")).toEqual([]);
      expect((await browser.open(`${SHOP}/`)).url.href).toStartWith(DEX_ISSUER);
    });
  });
}
