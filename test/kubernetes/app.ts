// What runs in the pods of the cluster tests: `serve PORT,...`, `tcp PORT`, `get URL...`, `ask HOST:PORT` and `load URL`. Each says in lines on standard output what it saw, so
// that a test reads it from the pod's log. Compiled to one binary (npm run build:test-app), as the images there have nothing else.

import { Resolver } from "node:dns/promises";

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const REQUEST_MS = 5_000;
/** A new connection each time; the kept one goes on as fast as it is answered, but not faster. */
const LOAD_EVERY_MS = 25;
const REPORT_EVERY_MS = 500;
const NAME_MS = 3_000;

/** HTTP: who answers and from where it was asked; `/healthz` counts and says nothing. */
function serve(port: number): void {
  let probes = 0;
  Bun.serve({
    port, hostname: "0.0.0.0", idleTimeout: 0,
    fetch(request, server) {
      const { pathname } = new URL(request.url);
      if (pathname === "/healthz") {
        probes++;
        return new Response("ok\n");
      }
      if (pathname === "/probes") return new Response(`${probes}\n`);
      return new Response(`${process.env["POD_NAME"] ?? "?"} saw ${server.requestIP(request)?.address ?? "?"}\n`);
    },
  });
  say(`serving ${port}`);
}

/** TCP without a protocol: the server speaks first. */
function tcp(port: number): void {
  Bun.listen({ hostname: "0.0.0.0", port, socket: { open: (socket) => void socket.end(`${process.env["POD_NAME"] ?? "?"} greets\n`), data: () => {} } });
  say(`serving ${port}`);
}

async function ask(at: string): Promise<number> {
  const [host = "", port = ""] = at.split(":");
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

async function get(url: string): Promise<number> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_MS), keepalive: false });
    say(`got ${response.status} ${(await response.text()).trim()}`);
    return 0;
  } catch (cause) {
    say(`failed ${cause instanceof Error ? cause.message : String(cause)}`);
    return 1;
  }
}

/** New connections, one that is kept, and the name looked up anew, until it is ended. Every failure is a line; so is how far it has come. */
async function load(url: string): Promise<void> {
  const count = { fresh: 0, kept: 0, names: 0, failed: 0 };
  // One question, asked once: no resolver's patience hides one that is lost.
  const resolver = new Resolver({ timeout: NAME_MS, tries: 1 });
  const name = async (): Promise<void> => {
    try {
      await resolver.resolve4(new URL(url).hostname);
      count.names++;
    } catch (cause) {
      count.failed++;
      say(`failed ${new Date().toISOString()} name ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  };
  const one = async (kind: "fresh" | "kept"): Promise<void> => {
    try {
      const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_MS), keepalive: kind === "kept", headers: kind === "kept" ? {} : { Connection: "close" } });
      await response.text();
      if (response.ok) count[kind]++;
      else throw new Error(`status ${response.status}`);
    } catch (cause) {
      count.failed++;
      say(`failed ${new Date().toISOString()} ${kind} ${cause instanceof Error ? cause.message : String(cause)}`);
    }
  };
  setInterval(() => say(`done fresh=${count.fresh} kept=${count.kept} names=${count.names} failed=${count.failed}`), REPORT_EVERY_MS);
  const endless = async (kind: "fresh" | "kept" | "name"): Promise<never> => {
    for (;;) {
      await (kind === "name" ? name() : one(kind));
      await Bun.sleep(LOAD_EVERY_MS);
    }
  };
  await Promise.all([endless("fresh"), endless("kept"), endless("name")]);
}

const [mode, ...rest] = process.argv.slice(2);
const [first = ""] = rest;
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
if (mode === "serve") for (const port of first.split(",")) serve(Number(port));
else if (mode === "tcp") tcp(Number(first));
else if (mode === "ask") process.exit(await ask(first));
else if (mode === "get") {
  let status = 0;
  for (const url of rest) status = Math.max(status, await get(url));
  process.exit(status);
} else if (mode === "load") await load(first);
else {
  say("usage: serve PORT,... | tcp PORT | get URL... | ask HOST:PORT | load URL");
  process.exit(64);
}
