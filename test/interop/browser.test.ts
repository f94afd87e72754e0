// Chromium in front of `weft waypoint`: pages of another site by CORS, events that a server sends, WebSockets, and a login at a provider that we
// did not write, all by the YAML that a user writes.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { HALF_CLOSED_MS } from "../../src/waypoint/downstream/downstream.ts";
import { unsealed } from "../kit/box.ts";
import { Chromium } from "../kit/chromium.ts";
import { CLIENT, type RealProvider, startRealProvider } from "../kit/real-provider.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

/** On the loopback of this box. */
const SERVER = "198.18.7.51";
const PORT = 8080;
const SHOP = `http://localhost:${PORT}`;
const KEYS = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

const object = (apiVersion: string, kind: string, name: string, spec: object): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop" }, spec });
const path = (value: string): object[] => [{ path: { type: "PathPrefix", value } }];
const to = [{ name: "web", port: 80 }];

describeUnless(firstReason(unsealed, needsProgram("chromium")))("Chromium in front of a waypoint", () => {
  const seen: string[] = [];
  /** Sends an event of `/events`, once somebody listens. */
  let send: ((text: string) => void) | null = null;
  let server: Bun.Server<undefined>;
  let other: Bun.Server<undefined>;
  let provider: RealProvider;
  let waypoint: WaypointProcess;
  let chromium: Chromium;

  beforeAll(async () => {
    ownAddresses([SERVER]);
    server = Bun.serve({
      hostname: SERVER, port: 0, idleTimeout: 0,
      fetch(request, self) {
        const { pathname } = new URL(request.url);
        seen.push(`${request.method} ${pathname}`);
        if (pathname === "/ws") return self.upgrade(request) ? undefined : new Response(null, { status: 400 });
        if (pathname === "/events") {
          const stream = new ReadableStream<string>({ start: (controller) => void (send = (text) => controller.enqueue(`data: ${text}\n\n`)) });
          request.signal.addEventListener("abort", () => void (send = null));
          return new Response(stream, { headers: { "content-type": "text/event-stream", "cache-control": "no-store" } });
        }
        if (pathname.startsWith("/who")) return Response.json(Object.fromEntries(request.headers));
        return new Response(`${request.method} ${pathname}`, { headers: { "x-total": "7" } });
      },
      websocket: { message: (socket, message) => void socket.send(message) },
    });
    // A page of another site.
    other = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("<title>other</title>", { headers: { "content-type": "text/html" } }) });
    provider = await startRealProvider({ redirectUris: [`${SHOP}/.weft/login/callback`], claimsInIdToken: true });
    waypoint = await WaypointProcess.start({
      yaml: {
        "shop.yaml": [
          WAYPOINT_YAML, serviceYaml("web", SERVER, server.port!),
          object("gateway.networking.k8s.io/v1", "HTTPRoute", "web", {
            parentRefs: [{ group: "", kind: "Service", name: "web" }],
            rules: [
              { matches: path("/open"), filters: [{ type: "CORS", cors: { allowOrigins: [`http://127.0.0.1:${other.port}`], allowMethods: ["GET", "PUT"], allowHeaders: ["x-token"], exposeHeaders: ["x-total"], allowCredentials: true, maxAge: 60 } }], backendRefs: to },
              { matches: path("/elsewhere"), filters: [{ type: "CORS", cors: { allowOrigins: ["https://elsewhere.example"], allowMethods: ["GET", "PUT"] } }], backendRefs: to },
              { backendRefs: to },
            ],
          }),
        ].join("\n---\n"),
      },
      flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
    });
    chromium = await Chromium.start();
  });

  afterAll(async () => {
    await chromium?.[Symbol.asyncDispose]();
    await waypoint?.[Symbol.asyncDispose]();
    await provider?.[Symbol.asyncDispose]();
    await Promise.all([server?.stop(true), other?.stop(true)]);
  });

  describe("a page of another site", () => {
    beforeAll(() => chromium.open(`http://127.0.0.1:${other.port}/`));
    /** What the page's script gets: the body and the header that it may see, or the error. */
    const fetched = (target: string, init = "{}"): Promise<unknown> =>
      chromium.evaluate(`fetch("${SHOP}${target}", ${init}).then(async (answer) => [await answer.text(), answer.headers.get("x-total")], (error) => [error.name, null])`);

    test("reads what a rule lets it read, with cookies too", async () => {
      expect(await fetched("/open/a")).toEqual(["GET /open/a", "7"]);
      expect(await fetched("/open/b", `{ credentials: "include" }`)).toEqual(["GET /open/b", "7"]);
    });
    test("asks first where a request is not simple: the waypoint answers, and the server gets the request alone", async () => {
      const from = seen.length;
      expect(await fetched("/open/c", `{ method: "PUT", headers: { "x-token": "1" }, body: "x" }`)).toEqual(["PUT /open/c", "7"]);
      expect(seen.slice(from)).toEqual(["PUT /open/c"]);
      await until("the line of the preflight", 5_000, () => waypoint.lines.some(({ method, reason }) => method === "OPTIONS" && reason === "cors_preflight"));
    });
    test("with another method, another header or from a site that is not named it does not come through", async () => {
      const from = seen.length;
      expect(await fetched("/open/d", `{ method: "DELETE" }`)).toEqual(["TypeError", null]);
      expect(await fetched("/open/e", `{ headers: { "x-other": "1" } }`)).toEqual(["TypeError", null]);
      expect(await fetched("/elsewhere/f", `{ method: "PUT", body: "x" }`)).toEqual(["TypeError", null]);
      expect(seen.slice(from)).toEqual([]);
      // A simple request is sent and answered; the browser keeps the answer from the page.
      expect(await fetched("/elsewhere/g")).toEqual(["TypeError", null]);
    });
  });

  describe("a page of the service's own", () => {
    beforeAll(() => chromium.open(`${SHOP}/page`));

    test("hears each event when it is sent, and the server learns that it left", async () => {
      await chromium.evaluate(`globalThis.heard = []; globalThis.source = new EventSource("/events"); source.onmessage = ({ data }) => heard.push(data); true`);
      await until("somebody to listen", 10_000, () => send !== null);
      for (const text of ["one", "two", "three"]) {
        send!(text);
        await until(`the event ${text}`, 10_000, async () => String(await chromium.evaluate("heard.at(-1)")) === text);
      }
      expect(await chromium.evaluate("heard.join()")).toBe("one,two,three");
      await chromium.evaluate("source.close()");
      await until("the server to learn it", 3 * HALF_CLOSED_MS, () => send === null);
    });
    test("talks by WebSocket: text, a megabyte, and the end", async () => {
      const talk = `new Promise((done, fail) => {
        const socket = new WebSocket("ws://localhost:${PORT}/ws"), sizes = [];
        socket.onopen = () => { socket.send("text"); socket.send("x".repeat(1 << 20)); };
        socket.onmessage = ({ data }) => { sizes.push(data.length); if (sizes.length === 2) socket.close(1000, "enough"); };
        socket.onclose = ({ code, wasClean }) => done([...sizes, code, wasClean]);
      })`;
      expect(await chromium.evaluate(talk)).toEqual([4, 1 << 20, 1000, true]);
    });
  });

  describe("a login", () => {
    beforeAll(async () => {
      waypoint.write("login.yaml", [
        object("weft.dev/v1alpha1", "LoginPolicy", "web", { targetRefs: [{ kind: "Service", name: "web" }], issuer: provider.issuer, clientId: CLIENT.clientId, clientSecretRef: { name: "login" }, scopes: ["email", "groups"], cookie: { keysRef: { name: "login" } } }),
        JSON.stringify({ apiVersion: "v1", kind: "Secret", metadata: { name: "login", namespace: "shop" }, stringData: { clientSecret: CLIENT.clientSecret, keys: KEYS } }),
        object("security.istio.io/v1", "RequestAuthentication", "web", { targetRefs: [{ group: "", kind: "Service", name: "web" }], jwtRules: [{ issuer: provider.issuer, audiences: [CLIENT.clientId], outputClaimToHeaders: [{ header: "x-user", claim: "sub" }] }] }),
        object("security.istio.io/v1", "AuthorizationPolicy", "admins", { targetRefs: [{ group: "", kind: "Service", name: "web" }], action: "DENY", rules: [{ to: [{ operation: { paths: ["/who/admin"] } }], when: [{ key: "request.auth.claims[groups]", notValues: ["admins"] }] }] }),
      ].join("\n---\n"));
      const asked = (): Promise<number> => fetch(`${SHOP}/who`, { headers: { accept: "application/json" } }).then(({ status }) => status);
      await until(() => `the policy to be in force; the log:\n${waypoint.log.slice(-2000)}`, 10_000, async () => (await asked()) === 401);
    });

    const submit = (fields: string): string => `${fields}; document.querySelector("form").requestSubmit()`;

    test("leads to the provider and back to the page; the server hears who it is", async () => {
      await chromium.open(`${SHOP}/who?item=1`);
      expect(await chromium.address()).toStartWith(`${provider.issuer}/interaction/`);
      await chromium.leave(submit(`document.querySelector("[name=login]").value = "bob"; document.querySelector("[name=password]").value = "secret"`));
      await chromium.leave(submit(""));
      expect(await chromium.address()).toBe(`${SHOP}/who?item=1`);
      const headers = JSON.parse(await chromium.text()) as Record<string, string>;
      expect(headers["x-user"]).toBe("bob");
      expect(headers["cookie"]).toBeUndefined();
    });
    test("what is for admins is closed to her", async () => {
      expect(await chromium.evaluate(`fetch("/who/admin").then(({ status, headers }) => status + " " + headers.get("x-weft-reason"))`)).toBe("403 access_denied");
      expect(await chromium.evaluate(`fetch("/who").then(({ status }) => status)`)).toBe(200);
    });
    test("ends with the logout", async () => {
      await chromium.leave(`location.href = "/.weft/login/logout"`);
      expect(await chromium.address()).toStartWith(`${provider.issuer}/session/end`);
      await chromium.open(`${SHOP}/.weft/login/logout`);
      expect(await chromium.evaluate(`fetch("/who").then(({ status }) => status)`)).toBe(401);
    });
  });
});
