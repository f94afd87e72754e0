// Both HTTP/1 engines between peers that others wrote, over real sockets: Node's client and curl in front, Node's server behind.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { needsProgram, testUnless } from "../kit/skip.ts";
import { type Http1TestProxy, listenHttp1Proxy } from "./http1-proxy.ts";

const TIMEOUT_MS = 60_000;

let proxy: Http1TestProxy;
let upstream: { readonly stdout: ReadableStream<Uint8Array>; kill(): void };

beforeAll(async () => {
  upstream = Bun.spawn(["node", join(import.meta.dir, "node-http1-server.mjs")], { stdout: "pipe", stderr: "inherit" });
  const first = await upstream.stdout.getReader().read();
  proxy = listenHttp1Proxy(Number(Buffer.from(first.value ?? []).toString()));
});
afterAll(() => {
  proxy.stop();
  upstream.kill();
});

async function output(argv: readonly string[], stdin: Uint8Array = new Uint8Array(0)): Promise<Buffer> {
  const child = Bun.spawn([...argv], { stdin, stdout: "pipe", stderr: "inherit" });
  const [bytes, code] = await Promise.all([new Response(child.stdout).arrayBuffer(), child.exited]);
  expect(code).toBe(0);
  return Buffer.from(bytes);
}

test("http1: Node's client and server with both engines between them", async () => {
  const results: unknown = JSON.parse((await output(["node", join(import.meta.dir, "node-http1-client.mjs"), String(proxy.port)])).toString());
  expect(results).toMatchObject([
    { status: 200, body: "", reused: false, headers: { "x-method": "GET", "x-url": "/b?c", "x-hop": "undefined", "x-connection": "undefined" } },
    { status: 200, body: "hello", reused: true },
    { status: 200, body: 3_000_000, reused: true },
    { status: 200, body: "", reused: true, headers: { "content-length": "5" } },
    { status: 204, body: "", reused: true },
    { status: 200, body: "", reused: true, interim: [103] },
    { status: 200, body: "body", reused: true, trailers: { "x-t": "1" } },
    { status: 200, body: "wait", reused: true, interim: [100] },
    { status: 200, body: "to the end", headers: { connection: "close" } },
    { status: 101, body: "ping" },
  ]);
  expect(proxy.faults).toEqual([]);
}, TIMEOUT_MS);

testUnless(needsProgram("curl"))("http1: curl sends 8 MB up and gets them back, in chunks", async () => {
  const body = Buffer.alloc(8_000_000, "0123456789abcdefg");
  const back = await output(["curl", "-sS", "-H", "Transfer-Encoding: chunked", "--data-binary", "@-", `http://127.0.0.1:${proxy.port}/echo`], body);
  expect(back.equals(body)).toBe(true);
  expect(proxy.faults).toEqual([]);
}, TIMEOUT_MS);
