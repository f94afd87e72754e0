// What people send through a mesh: servers that speak first, WebSocket, HTTP/2, gRPC, half-closed connections, and the programs of
// others where they are on this machine. Each once to the same node and once across, and by both families where the program can.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { unsealed } from "../kit/box.ts";
import { ask, program, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { addressOf, ECHO_PORT, GREETER_PORT, GREETING, HTTP_PORT, SERVICE_ECHO, SERVICE_HTTP, Shop, urlOf, VIP, VIP6 } from "../kit/shop.ts";
import { describeUnless, firstReason, needsProgram, testUnless } from "../kit/skip.ts";

const FAREWELL_PORT = 9200;
const GRPC_PORT = 9300;
const NODE_HTTP2_PORT = 9400;
const SSH_PORT = 2222;
const IPERF_PORT = 5201;
/** Several times what eight streams may have on their way at once, in the buffers of every socket and tunnel between. */
const IPERF_BYTES = 400_000_000;
const TEST_MS = 120_000;

const NODE_HTTP2_SERVER = `
import { createServer } from "node:http2";
const server = createServer();
server.on("stream", (stream, headers) => {
  stream.on("error", () => {});
  stream.respond({ ":status": 200, "x-method": headers[":method"] }, { waitForTrailers: true });
  stream.on("wantTrailers", () => stream.sendTrailers({ "x-end": "yes" }));
  if (headers[":method"] === "POST") stream.pipe(stream); else stream.end("an answer by HTTP/2");
});
server.listen(${NODE_HTTP2_PORT});
`;

/** Twenty POSTs at once on one connection, each of which has to come back whole, trailers included. */
const NODE_HTTP2_CLIENT = `
import { connect } from "node:http2";
const session = connect(process.argv[2]);
const post = (number) => new Promise((resolve, reject) => {
  const body = Buffer.alloc(100_000 + number, number);
  const stream = session.request({ ":method": "POST", ":path": "/" });
  const parts = [];
  let trailers;
  stream.on("trailers", (fields) => (trailers = fields["x-end"]));
  stream.on("data", (part) => parts.push(part));
  stream.on("end", () => (Buffer.concat(parts).equals(body) && trailers === "yes" ? resolve() : reject(new Error("answer " + number + " differs"))));
  stream.on("error", reject);
  stream.end(body);
});
await Promise.all(Array.from({ length: 20 }, (_, number) => post(number)));
session.close();
console.log("ok 20");
`;

describeUnless(unsealed)("protocols", () => {
  let shop: Shop;
  let folder: string;
  let servers: readonly Workload[];

  beforeAll(async () => {
    shop = await Shop.open();
    servers = [shop.near, shop.far];
    folder = mkdtempSync(join(tmpdir(), "weft-protocols-"));
    writeFileSync(join(folder, "server.mjs"), NODE_HTTP2_SERVER);
    writeFileSync(join(folder, "client.mjs"), NODE_HTTP2_CLIENT);
  }, 60_000);

  afterAll(async () => {
    await shop?.[Symbol.asyncDispose]();
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
  });

  /** By address and family to both servers, with the name of each for a message. */
  const destinations = (): { readonly name: string; readonly host: string }[] =>
    servers.flatMap((server) => ([4, 6] as const).map((family) => ({ name: `${server.name} over IPv${family}`, host: addressOf(server, family) })));

  test("a server that speaks first is heard by a client that says nothing", async () => {
    for (const { host } of destinations()) expect(await ask(shop.client, "read", host, GREETER_PORT)).toBe(GREETING);
    for (const server of servers) expect(await ask(shop.stranger, "read", server.ipv4, GREETER_PORT)).toBe(GREETING);
    for (const server of [shop.legacy, shop.faraway]) expect(await ask(shop.client, "read", server.ipv4, GREETER_PORT)).toBe(GREETING);
  }, TEST_MS);

  test("half-close, client first: the answer comes whole after the client's end", async () => {
    for (const { host } of destinations()) expect(await shop.ok(shop.client, "storm", host, ECHO_PORT, 20, 4)).toBe("ok 20");
    expect(await shop.ok(shop.client, "storm", VIP, SERVICE_ECHO, 20, 4)).toBe("ok 20");
    expect(await shop.ok(shop.stranger, "storm", shop.far.ipv4, ECHO_PORT, 20, 4)).toBe("ok 20");
  }, TEST_MS);

  test("half-close, server first: what the client says after the server's end arrives", async () => {
    for (const server of [...servers, shop.faraway]) {
      const app = server.exec(program("farewell", FAREWELL_PORT, "that is all"), { stderr: "inherit" });
      await server.listening(FAREWELL_PORT);
      let heard = "";
      const reading = (async () => {
        for await (const chunk of app.stdout as ReadableStream<Uint8Array>) heard += Buffer.from(chunk).toString();
      })();
      for (const from of [shop.client, shop.stranger]) {
        expect(await shop.ok(from, "afterwards", server.ipv4, FAREWELL_PORT, `thanks from ${from.name}`)).toBe("ok that is all");
        await until(`${server.name} to hear ${from.name}`, 5_000, () => heard.includes(`heard thanks from ${from.name}\n`));
      }
      app.kill();
      await reading;
    }
  }, TEST_MS);

  test("WebSocket: text and binary messages of up to a megabyte, there and back", async () => {
    for (const { host } of destinations()) expect(await shop.ok(shop.client, "websocket", host, HTTP_PORT, 63)).toBe("ok 63");
    for (const vip of [VIP, VIP6]) expect(await shop.ok(shop.client, "websocket", vip, SERVICE_HTTP, 21)).toBe("ok 21");
  }, TEST_MS);

  test("gRPC: four hundred calls at once on one connection, and an error with its status", async () => {
    await Promise.all(servers.map((server) => serve(server, "grpc-serve", GRPC_PORT)));
    for (const { host } of destinations()) expect(await shop.ok(shop.client, "grpc-call", host, GRPC_PORT, 400)).toBe("ok 400");
  }, TEST_MS);

  const node = needsProgram("node");
  testUnless(node)("HTTP/2 by Node: twenty requests at once on one connection, with bodies and trailers both ways", async () => {
    for (const server of servers) {
      server.exec(["node", join(folder, "server.mjs")], { stdout: "ignore", stderr: "inherit" });
      await server.listening(NODE_HTTP2_PORT);
    }
    for (const { name, host } of destinations()) {
      const { stdout, stderr } = await shop.client.run(["node", join(folder, "client.mjs"), urlOf(host, NODE_HTTP2_PORT)]);
      expect(`${name}: ${stdout}${stderr}`).toBe(`${name}: ok 20\n`);
    }
  }, TEST_MS);

  testUnless(firstReason(node, needsProgram("curl")))("HTTP/2 by curl, with prior knowledge", async () => {
    for (const { host } of destinations()) {
      const { stdout } = await shop.client.run(["curl", "-sS", "-m", "10", "--http2-prior-knowledge", "-w", " %{http_version}", urlOf(host, NODE_HTTP2_PORT)]);
      expect(stdout).toBe("an answer by HTTP/2 2");
    }
  }, TEST_MS);

  testUnless(firstReason(node, needsProgram("h2load")))("h2load: two thousand requests on twenty connections, none fails", async () => {
    for (const server of servers) {
      const { stdout } = await shop.client.run(["h2load", "-n", "2000", "-c", "20", "-m", "10", "-t", "1", urlOf(server.ipv4, NODE_HTTP2_PORT)]);
      expect(stdout).toContain("2000 succeeded, 0 failed, 0 errored, 0 timeout");
    }
  }, TEST_MS);

  testUnless(firstReason(needsProgram("sshd"), needsProgram("ssh-keyscan"), needsProgram("ssh-keygen")))("SSH: the key exchange of a real client with a real server", async () => {
    const key = join(folder, "host-key");
    expect((await shop.client.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key])).exitCode).toBe(0);
    const wanted = (await Bun.file(`${key}.pub`).text()).split(" ").slice(0, 2).join(" ");
    // sshd gives up privileges that a box does not have, unless it has none: a user namespace of its own makes it an ordinary user.
    const sshd = ["unshare", "--user", "--map-user=65534", "--", Bun.which("sshd")!, "-D", "-e", "-p", `${SSH_PORT}`, "-h", key, "-f", "/dev/null", "-o", "PidFile=none"];
    for (const server of servers) {
      server.exec(sshd, { stdout: "ignore", stderr: "ignore" });
      await server.listening(SSH_PORT);
      const { stdout } = await shop.client.run(["ssh-keyscan", "-T", "10", "-t", "ed25519", "-p", `${SSH_PORT}`, server.ipv4]);
      expect(stdout.trim()).toBe(`[${server.ipv4}]:${SSH_PORT} ${wanted}`);
    }
  }, TEST_MS);

  testUnless(needsProgram("iperf3"))("iperf3: one stream, eight streams, and backwards", async () => {
    for (const server of servers) {
      server.exec(["iperf3", "-s", "-p", `${IPERF_PORT}`], { stdout: "ignore", stderr: "ignore" });
      await server.listening(IPERF_PORT);
      for (const flags of [[], ["-P", "8"], ["-R"]]) {
        // So many bytes, however long they take. What is still on its way when the last one was sent, iperf3 does not count.
        const { exitCode, stdout } = await shop.client.run(["iperf3", "-c", server.ipv4, "-p", `${IPERF_PORT}`, "-n", `${IPERF_BYTES}`, "-J", ...flags]);
        const report = JSON.parse(stdout) as { error?: string; end?: { sum_received?: { bytes: number } } };
        expect({ exitCode, error: report.error }).toEqual({ exitCode: 0, error: undefined });
        expect(report.end!.sum_received!.bytes).toBeGreaterThan(IPERF_BYTES / 2);
      }
    }
  }, TEST_MS);

  testUnless(needsProgram("wrk"))("wrk: keep-alive and a connection for each request, none fails", async () => {
    for (const url of [urlOf(shop.near.ipv4, HTTP_PORT), urlOf(shop.far.ipv4, HTTP_PORT), urlOf(VIP, SERVICE_HTTP)]) {
      for (const flags of [[], ["-H", "Connection: close"]]) {
        const { stdout } = await shop.client.run(["wrk", "-t", "1", "-c", "32", "-d", "1s", ...flags, url]);
        // wrk counts the end of a connection that was to be closed as a read error, on a direct connection too.
        expect(stdout).not.toMatch(flags.length === 0 ? /Socket errors|Non-2xx/ : /connect [1-9]|write [1-9]|timeout [1-9]|Non-2xx/);
        expect(Number(/(\d+) requests in/.exec(stdout)?.[1])).toBeGreaterThan(100);
      }
    }
  }, TEST_MS);
});
