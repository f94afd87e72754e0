import { afterAll, describe, expect, test } from "bun:test";
import type { lookup } from "node:dns";
import type { IssuerRequest } from "./fetch-port.ts";
import { httpFetch } from "./http-fetch.ts";

const forever = Promise.withResolvers<Response>();
const server = Bun.serve({
  port: 0, hostname: "127.0.0.1",
  fetch: async (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/redirect") return new Response("", { status: 302, headers: { location: "/keys" } });
    if (pathname === "/large") return new Response("x".repeat(100_000));
    if (pathname === "/silent") return forever.promise;
    if (request.method === "POST") return new Response(`${request.headers.get("authorization")} ${await request.text()}`);
    return new Response(`keys for ${request.headers.get("host")}`, { headers: { "cache-control": "max-age=60" } });
  },
});
afterAll(async () => {
  forever.resolve(new Response(""));
  await server.stop(true);
});

const ask = (path: string, fields: Partial<IssuerRequest> = {}, fetch = httpFetch()) =>
  fetch({ method: "GET", url: `http://127.0.0.1:${server.port}${path}`, headers: {}, body: null, timeoutMs: 5_000, bodyBytesMax: 1_000, publicOnly: false, signal: new AbortController().signal, ...fields });
/** A resolver that says what the test wants. */
const resolver = (...addresses: readonly string[]): typeof lookup =>
  Object.assign((_host: string, _options: unknown, done: (error: null, found: unknown) => void) => done(null, addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 }))), { __promisify__: null }) as unknown as typeof lookup;

describe("asking an issuer", () => {
  test("an answer comes with what decides how long it is kept", async () => {
    expect(await ask("/keys")).toEqual({ ok: true, value: { status: 200, location: null, cacheControl: "max-age=60", body: `keys for 127.0.0.1:${server.port}` } });
  });
  test("a redirect is told, not followed", async () => expect(await ask("/redirect")).toMatchObject({ value: { status: 302, location: "/keys" } }));
  test("what is sent", async () => expect(await ask("/x", { method: "POST", body: "token=t", headers: { authorization: "Basic x" } })).toMatchObject({ value: { body: "Basic x token=t" } }));
  test("an answer that is too long is a fault", async () => expect(await ask("/large")).toEqual({ ok: false, error: `GET http://127.0.0.1:${server.port}/large: the answer is longer than 1000 bytes` }));
  test("silence ends with the time", async () => expect(await ask("/silent", { timeoutMs: 50 })).toMatchObject({ ok: false, error: expect.stringContaining("no answer in 50 ms") }));
  test("a shutdown ends it at once", async () => {
    const stop = new AbortController();
    const asked = ask("/silent", { signal: stop.signal });
    stop.abort();
    expect(await asked).toMatchObject({ ok: false, error: expect.stringContaining("shutting down") });
  });
  test("nobody there", async () => expect(await ask("/", { url: "http://127.0.0.1:1/" })).toMatchObject({ ok: false, error: expect.stringContaining("GET http://127.0.0.1:1/") }));
});

describe("where a stranger chose the address", () => {
  const to = (...addresses: readonly string[]) => ask("/keys", { publicOnly: true, url: `http://cdn.example:${server.port}/keys` }, httpFetch({ resolve: resolver(...addresses) }));
  test.each([["a literal", "http://10.0.0.1/"], ["the metadata address", "http://169.254.169.254/"], ["IPv6 loopback", "http://[::1]/"]])("%s is not connected to", async (_, url) =>
    expect(await ask("/", { publicOnly: true, url })).toMatchObject({ ok: false, error: expect.stringContaining("private address: not connected to") }));
  test.each([[["127.0.0.1"]], [["198.51.100.1", "10.0.0.1"]], [["fd00::1"]]])("nor a name that resolves to %p", async (addresses) =>
    expect(await to(...addresses)).toMatchObject({ ok: false, error: expect.stringContaining("cdn.example is the private address") }));
  test("a name of the operator's may", async () => {
    const got = await ask("/keys", { url: `http://issuer.example:${server.port}/keys` }, httpFetch({ resolve: resolver("127.0.0.1") }));
    expect(got).toMatchObject({ ok: true, value: { body: `keys for issuer.example:${server.port}` } });
  });
});

describe("where whoever may write resources chose the address", () => {
  const to = (address: string) => ask("/keys", { method: "POST", url: `http://issuer.example:${server.port}/keys` }, httpFetch({ remoteOnly: true, resolve: resolver(address) }));
  test.each(["http://127.0.0.1:15000/quitquitquit", "http://[::1]:15000/", "http://[::ffff:127.0.0.1]/", "http://0x7f.1/", "http://0.0.0.0/", "http://169.254.169.254/"])("%s is not connected to", async (url) =>
    expect(await ask("/", { method: "POST", url }, httpFetch({ remoteOnly: true }))).toMatchObject({ ok: false, error: expect.stringContaining("loopback or link-local address: not connected to") }));
  test.each(["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254"])("nor a name that resolves to %s", async (address) =>
    expect(await to(address)).toMatchObject({ ok: false, error: expect.stringContaining("issuer.example is the loopback or link-local address") }));
  test("an issuer elsewhere is asked", async () => expect(await ask("/", { url: "http://issuer.example:1/", timeoutMs: 50 }, httpFetch({ remoteOnly: true, resolve: resolver("198.51.100.1") }))).not.toMatchObject({ error: expect.stringContaining("not connected to") }));
});
