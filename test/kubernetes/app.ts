// What runs in the pods of the cluster tests: `serve PORT`, `get URL` and `load URL`. Each says in lines on standard output what it saw, so
// that a test reads it from the pod's log. Compiled to one binary (npm run build:test-app), as the images there have nothing else.

const say = (line: string): void => void process.stdout.write(`${line}\n`);

const REQUEST_MS = 5_000;
/** A new connection each time; the kept one goes on as fast as it is answered, but not faster. */
const LOAD_EVERY_MS = 25;
const REPORT_EVERY_MS = 500;

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

/** New connections and one that is kept, until it is ended. Every failure is a line; so is how far it has come. */
async function load(url: string): Promise<void> {
  const count = { fresh: 0, kept: 0, failed: 0 };
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
  setInterval(() => say(`done fresh=${count.fresh} kept=${count.kept} failed=${count.failed}`), REPORT_EVERY_MS);
  const endless = async (kind: "fresh" | "kept"): Promise<never> => {
    for (;;) {
      await one(kind);
      await Bun.sleep(LOAD_EVERY_MS);
    }
  };
  await Promise.all([endless("fresh"), endless("kept")]);
}

export {};
const [mode, argument = ""] = process.argv.slice(2);
for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => process.exit(0));
if (mode === "serve") serve(Number(argument));
else if (mode === "get") process.exit(await get(argument));
else if (mode === "load") await load(argument);
else {
  say("usage: serve PORT | get URL | load URL");
  process.exit(64);
}
