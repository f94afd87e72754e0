// The little programs that tests and the demo run inside network namespaces, as `bun test/kit/programs.ts NAME ARGUMENTS`.
// Each says on standard output what it saw, one line each, so that whoever started it can wait for words, not for time.

type Program = (args: readonly string[]) => Promise<void> | void;

const say = (line: string) => void process.stdout.write(`${line}\n`);

const programs: Readonly<Record<string, Program>> = {
  /** http PORT TEXT: answers TEXT and the client's address. */
  "http": ([port, text]) => {
    for (const hostname of ["::", "0.0.0.0"]) {
      try {
        Bun.serve({ port: Number(port), hostname, fetch: (request, server) => new Response(`${text} to ${server.requestIP(request)!.address.replace("::ffff:", "")}\n`) });
        break;
      } catch (error) {
        if (hostname === "0.0.0.0") throw error;
      }
    }
    say("listening");
  },
  /** echo PORT: sends back what it reads. */
  "echo": ([port]) => {
    Bun.listen({
      hostname: "0.0.0.0", port: Number(port), allowHalfOpen: true,
      socket: { data: (socket, bytes) => void socket.write(bytes), end: (socket) => void socket.end(), drain() {}, error() {} },
    });
    say("listening");
  },
  /** greeter PORT TEXT: speaks first, then reads to the end. */
  "greeter": ([port, text]) => {
    Bun.listen({ hostname: "0.0.0.0", port: Number(port), socket: { open: (socket) => void socket.write(`${text}\n`), data() {}, error() {} } });
    say("listening");
  },
  /** get URL: prints status and body, or the error. */
  "get": async ([url]) => {
    try {
      const answer = await fetch(url!, { signal: AbortSignal.timeout(5_000), keepalive: false });
      say(`${answer.status} ${(await answer.text()).trimEnd()}`);
    } catch (error) {
      say(`failed ${(error as { code?: string }).code ?? (error as Error).name}`);
      process.exitCode = 1;
    }
  },
  /** post URL: the same with POST. */
  "post": async ([url]) => {
    const answer = await fetch(url!, { method: "POST", signal: AbortSignal.timeout(5_000) });
    say(`${answer.status} ${(await answer.text()).trimEnd()}`);
  },
  /** read HOST PORT: connects, says nothing, prints the first line it hears. */
  "read": async ([host, port]) => {
    const heard = Promise.withResolvers<string>();
    const timer = setTimeout(() => heard.resolve("failed timeout"), 5_000);
    await Bun.connect({
      hostname: host!, port: Number(port),
      socket: {
        data: (_socket, bytes) => heard.resolve(bytes.toString().trimEnd()),
        close: () => heard.resolve("failed closed"),
        error: (_socket, error) => heard.resolve(`failed ${error.message}`),
        connectError: (_socket, error) => heard.resolve(`failed ${error.message}`),
      },
    }).catch((error: Error) => heard.resolve(`failed ${error.message}`));
    say(await heard.promise);
    clearTimeout(timer);
    process.exit();
  },
  /** talk HOST PORT: keeps one connection to an echo server open; prints `beat N` for each answered message, `ended` when it is cut. */
  "talk": async ([host, port]) => {
    let beat = 0;
    await Bun.connect({
      hostname: host!, port: Number(port),
      socket: {
        open: (socket) => void socket.write(`beat ${++beat}\n`),
        data: (socket, bytes) => {
          say(bytes.toString().trimEnd());
          setTimeout(() => void socket.write(`beat ${++beat}\n`), 100);
        },
        close: () => {
          say("ended");
          process.exit();
        },
        error() {},
      },
    });
  },
};

const [name, ...args] = process.argv.slice(2);
const program = programs[name ?? ""];
if (program === undefined) {
  process.stderr.write(`programs: ${Object.keys(programs).join(", ")}\n`);
  process.exit(64);
}
await program(args);
export {};
