// What runs in the pods of the cluster tests: USAGE has the modes. Each says in lines on standard output what it saw, so that a test reads it
// from the pod's log. Compiled to one binary (npm run build:test-app), as the images there have nothing else. The gRPC service is one whose
// messages are in this repository already; nobody signs anything.

import { Resolver } from "node:dns/promises";
import { createServer } from "node:http2";
import { createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { IstioCertificateService } from "../../src/wire/protobuf/istio/v1/auth/ca_pb.ts";

const USAGE = "usage: serve PORT,... [GRPC-PORT] | tcp PORT | get URL... | ask HOST:PORT | call HOST:PORT COUNT | load URL [HOST:PORT of gRPC]";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const REQUEST_MS = 5_000;
/** A new connection each time; the kept one goes on as fast as it is answered, but not faster. */
const LOAD_EVERY_MS = 25;
const REPORT_EVERY_MS = 500;
const NAME_MS = 3_000;
/** As long as a connection is kept: servers set such an age, so that their clients spread. */
const CONNECTION_AGE_MS = 10_000;

/** On every address of both families, or of IPv4 where the kernel has no other. */
function everywhere<T>(listen: (hostname: string) => T): T {
  try {
    return listen("::");
  } catch {
    return listen("0.0.0.0");
  }
}

/** HTTP: who answers and from where it was asked; `/healthz` counts and says nothing; `/ask?method=&url=` asks another and says what that answered. */
function serve(port: number): void {
  let probes = 0;
  everywhere((hostname) => Bun.serve({
    port, hostname, idleTimeout: 0,
    async fetch(request, server) {
      const { pathname, searchParams } = new URL(request.url);
      if (pathname === "/healthz") {
        probes++;
        return new Response("ok\n");
      }
      if (pathname === "/probes") return new Response(`${probes}\n`);
      if (pathname === "/ask") return new Response(await outcome(searchParams.get("url") ?? "", searchParams.get("method") ?? "GET"));
      return new Response(`${process.env["POD_NAME"] ?? "?"} saw ${server.requestIP(request)?.address.replace("::ffff:", "") ?? "?"}\n`);
    },
  }));
  say(`serving ${port}`);
}

/** TCP without a protocol: the server speaks first. */
function tcp(port: number): void {
  everywhere((hostname) => Bun.listen({ hostname, port, socket: { open: (socket) => void socket.end(`${process.env["POD_NAME"] ?? "?"} greets\n`), data: () => {} } }));
  say(`serving ${port}`);
}

/** Unary calls over plain HTTP/2: answers with what it was asked, and who answers. */
function grpc(port: number): void {
  const adapter = connectNodeAdapter({
    routes: (router) => router.service(IstioCertificateService, { createCertificate: ({ csr }) => ({ certChain: [csr, process.env["POD_NAME"] ?? "?"] }) }),
  });
  createServer(adapter).listen(port, () => say(`serving ${port}`));
}

/** One connection. @returns asks once, and says who answered; throws when nobody did. */
function grpcClient(at: string): { call(question: string): Promise<string>; end(): void } {
  const sessionManager = new Http2SessionManager(`http://${at}`);
  const client = createClient(IstioCertificateService, createGrpcTransport({ baseUrl: `http://${at}`, sessionManager, defaultTimeoutMs: REQUEST_MS }));
  return {
    async call(question) {
      const [heard, who = "?"] = (await client.createCertificate({ csr: question })).certChain;
      if (heard !== question) throw new Error(`asked ${question}, the answer is to ${heard}`);
      return who;
    },
    end: () => sessionManager.abort(),
  };
}

async function call(at: string, count: number): Promise<number> {
  const client = grpcClient(at);
  let status = 0;
  for (let i = 0; i < count; i++) {
    await client.call(`question ${i}`).then((who) => say(`got ${who}`), (cause: unknown) => {
      say(`failed ${String(cause)}`);
      status = 1;
    });
  }
  client.end();
  return status;
}

async function ask(at: string): Promise<number> {
  const [, host = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(at) ?? [];
  const answer = Promise.withResolvers<string>();
  let heard = "";
  try {
    await Bun.connect({
      hostname: host, port: Number(port),
      socket: { data: (_, bytes) => void (heard += bytes.toString()), close: () => answer.resolve(heard), end: (socket) => void socket.end(), error: (_, cause) => answer.reject(cause), connectError: (_, cause) => answer.reject(cause) },
    });
    const timer = setTimeout(() => answer.reject(new Error(`nothing in ${REQUEST_MS} ms`)), REQUEST_MS);
    const text = (await answer.promise).trim();
    clearTimeout(timer);
    say(text === "" ? "failed: it closed without a word" : `got ${text}`);
    return text === "" ? 1 : 0;
  } catch (cause) {
    say(`failed ${cause instanceof Error ? cause.message : String(cause)}`);
    return 1;
  }
}

/** One request on a connection of its own. */
async function outcome(url: string, method: string): Promise<string> {
  try {
    const response = await fetch(url, { method, signal: AbortSignal.timeout(REQUEST_MS), keepalive: false });
    return `got ${response.status} ${(await response.text()).trim()}`;
  } catch (cause) {
    return `failed ${cause instanceof Error ? cause.message : String(cause)}`;
  }
}

async function get(url: string): Promise<number> {
  const line = await outcome(url, "GET");
  say(line);
  return line.startsWith("got") ? 0 : 1;
}

/** One connection of HTTP/1.1 by hand: fetch would ask again on another when this one is lost, and nobody would hear of it. */
class KeptConnection {
  readonly #url: URL;
  #socket: Bun.Socket | null = null;
  #heard = "";
  #changed = Promise.withResolvers<void>();
  #ended: string | null = null;

  constructor(url: string) {
    this.#url = new URL(url);
  }

  async get(): Promise<void> {
    const { hostname, port, host, pathname } = this.#url;
    this.#socket ??= await Bun.connect({
      hostname, port: Number(port || "80"),
      socket: {
        data: (_, bytes) => this.#hears(() => (this.#heard += bytes.toString("latin1"))),
        close: () => this.#hears(() => (this.#ended ??= "the connection was closed")),
        error: (_, cause) => this.#hears(() => (this.#ended ??= cause.message)),
      },
    });
    this.#heard = "";
    this.#socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    const late = setTimeout(() => this.#hears(() => (this.#ended ??= `no answer in ${REQUEST_MS} ms`)), REQUEST_MS);
    try {
      while (!this.#isComplete()) {
        if (this.#ended !== null) throw new Error(this.#ended);
        await this.#changed.promise;
      }
    } finally {
      clearTimeout(late);
    }
  }

  end(): void {
    this.#socket?.end();
  }

  #hears(what: () => void): void {
    what();
    this.#changed.resolve();
    this.#changed = Promise.withResolvers();
  }

  #isComplete(): boolean {
    const end = this.#heard.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const length = /^HTTP\/1\.1 200 [^]*\r\ncontent-length: *(\d+)\r\n/i.exec(this.#heard.slice(0, end + 2))?.[1];
    if (length === undefined) throw new Error(`answered with ${this.#heard.slice(0, end)}`);
    return this.#heard.length >= end + 4 + Number(length);
  }
}

/**
 * New connections, one that is kept, the name looked up anew, and calls of gRPC where `grpcAt` says where, until it is ended. Every failure
 * is a line; so is how far it has come.
 */
async function load(url: string, grpcAt: string): Promise<void> {
  const count = { fresh: 0, kept: 0, names: 0, calls: 0, failed: 0 };
  // One question, asked once: no resolver's patience hides one that is lost.
  const resolver = new Resolver({ timeout: NAME_MS, tries: 1 });
  const fresh = async (): Promise<void> => {
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_MS), keepalive: false });
    await response.text();
    if (!response.ok) throw new Error(`status ${response.status}`);
  };
  let connection = new KeptConnection(url);
  let client = grpcClient(grpcAt);
  const since = { kept: performance.now(), calls: performance.now() };
  const isOld = (kind: keyof typeof since): boolean => {
    if (performance.now() - since[kind] < CONNECTION_AGE_MS) return false;
    since[kind] = performance.now();
    return true;
  };
  const works: Readonly<Record<"fresh" | "kept" | "names" | "calls", () => Promise<unknown>>> = {
    fresh, names: () => resolver.resolve4(new URL(url).hostname),
    kept: async () => {
      if (isOld("kept")) {
        connection.end();
        connection = new KeptConnection(url);
      }
      await connection.get().catch((cause: unknown) => {
        connection.end();
        connection = new KeptConnection(url);
        throw cause;
      });
    },
    calls: async () => {
      if (isOld("calls")) {
        client.end();
        client = grpcClient(grpcAt);
      }
      await client.call(`question ${count.calls}`);
    },
  };
  setInterval(() => say(`done fresh=${count.fresh} kept=${count.kept} names=${count.names} calls=${count.calls} failed=${count.failed}`), REPORT_EVERY_MS);
  const endless = async (kind: keyof typeof works): Promise<never> => {
    for (;;) {
      try {
        await works[kind]();
        count[kind]++;
      } catch (cause) {
        count.failed++;
        say(`failed ${new Date().toISOString()} ${kind} ${cause instanceof Error ? cause.message : String(cause)}`);
      }
      await Bun.sleep(LOAD_EVERY_MS);
    }
  };
  await Promise.all([endless("fresh"), endless("kept"), endless("names"), ...(grpcAt === "" ? [] : [endless("calls")])]);
}

const [mode, ...rest] = process.argv.slice(2);
const [first = "", second = ""] = rest;
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
if (mode === "serve") {
  for (const port of first.split(",")) serve(Number(port));
  if (second !== "") grpc(Number(second));
} else if (mode === "tcp") tcp(Number(first));
else if (mode === "ask") process.exit(await ask(first));
else if (mode === "get") {
  let status = 0;
  for (const url of rest) status = Math.max(status, await get(url));
  process.exit(status);
} else if (mode === "call") process.exit(await call(first, Number(second)));
else if (mode === "load") await load(first, second);
else {
  say(USAGE);
  process.exit(64);
}
