// The programs that tests and the demo run inside network namespaces, as `bun test/kit/programs.ts NAME ARGUMENTS`. Each says
// on standard output what it saw, a line at a time, so that whoever started it can wait for words, not for time. A client's last
// word is `ok ...` or `failed ...`, and its exit status says the same.
//
// Here: short conversations. Heavy traffic is in traffic.ts, gRPC in grpc-programs.ts.

import { connect, createServer } from "node:net";
import type { Program } from "./program.ts";

const say = (line: string) => void process.stdout.write(`${line}\n`);
const ANSWER_TIMEOUT_MS = 5_000;

/** On every address where the kernel has IPv6, else on every IPv4 address. */
function everywhere<T>(listen: (hostname: string) => T): T {
  try {
    return listen("::");
  } catch {
    return listen("0.0.0.0");
  }
}

const url = (host: string, port: string): string => `${host.includes(":") ? `[${host}]` : host}:${port}`;

/** Writes all of it, now or as the socket drains; `flush` belongs in the drain handler. */
class Writer {
  #waiting: Uint8Array[] = [];
  #ending = false;

  write(socket: Bun.Socket, bytes: Uint8Array): void {
    const written = this.#waiting.length > 0 ? 0 : socket.write(bytes);
    if (written < bytes.length) this.#waiting.push(bytes.slice(Math.max(written, 0)));
    // Back-pressure: what we cannot send we do not read.
    if (this.#waiting.length > 0) socket.pause();
  }

  end(socket: Bun.Socket): void {
    this.#ending = true;
    this.flush(socket);
  }

  flush(socket: Bun.Socket): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      const written = Math.max(socket.write(next), 0);
      if (written === next.length) continue;
      this.#waiting.unshift(next.subarray(written));
      return;
    }
    socket.resume();
    if (this.#ending) socket.shutdown();
  }
}

const programs: Readonly<Record<string, Program>> = {
  /** http PORT TEXT: answers TEXT and the client's address; /bytes/N answers N bytes, POST answers what it was sent, /ws is a WebSocket that echoes. */
  "http": ([port, text]) => {
    everywhere((hostname) => Bun.serve({
      port: Number(port), hostname,
      fetch(request, server) {
        const { pathname } = new URL(request.url);
        if (pathname === "/ws") return server.upgrade(request) ? undefined : new Response("a WebSocket was expected\n", { status: 400 });
        const bytes = /^\/bytes\/(\d+)$/.exec(pathname);
        if (bytes !== null) return new Response(new Uint8Array(Number(bytes[1])).fill(0x61));
        if (request.method === "POST") return new Response(request.body);
        return new Response(`${text} to ${server.requestIP(request)!.address.replace("::ffff:", "")}\n`);
      },
      websocket: { maxPayloadLength: 16 * 1024 * 1024, message: (socket, message) => void socket.send(message) },
    }));
    say("listening");
  },

  /** echo PORT: sends back what it reads, at the reader's pace, and ends when the other side has. */
  "echo": ([port]) => {
    everywhere((hostname) => Bun.listen<Writer>({
      hostname, port: Number(port), allowHalfOpen: true,
      socket: {
        open: (socket) => void (socket.data = new Writer()),
        data: (socket, bytes) => socket.data.write(socket as unknown as Bun.Socket, bytes),
        drain: (socket) => socket.data.flush(socket as unknown as Bun.Socket),
        end: (socket) => socket.data.end(socket as unknown as Bun.Socket),
        error() {},
      },
    }));
    say("listening");
  },

  /** greeter PORT TEXT: speaks first, then reads to the end. */
  "greeter": ([port, text]) => {
    everywhere((hostname) => Bun.listen({ hostname, port: Number(port), socket: { open: (socket) => void socket.write(`${text}\n`), data() {}, error() {} } }));
    say("listening");
  },

  /** farewell PORT TEXT: says TEXT, ends its own side at once, and reports what it hears afterwards as `heard ...`. */
  "farewell": ([port, text]) => {
    const server = createServer({ allowHalfOpen: true }, (socket) => {
      const heard: Buffer[] = [];
      socket.on("data", (bytes: Buffer) => heard.push(bytes)).on("end", () => say(`heard ${Buffer.concat(heard).toString()}`)).on("error", () => {});
      socket.end(text!);
    });
    server.listen(Number(port), () => say("listening"));
  },

  /** afterwards HOST PORT TEXT: reads to the other side's end, only then says TEXT and ends too. */
  "afterwards": async ([host, port, text]) => {
    const heard: Buffer[] = [];
    const { promise, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(() => resolve(`failed timeout after ${JSON.stringify(Buffer.concat(heard).toString())}`), ANSWER_TIMEOUT_MS);
    const socket = connect({ host: host!, port: Number(port), allowHalfOpen: true });
    socket.on("data", (bytes: Buffer) => heard.push(bytes)).on("error", (error) => resolve(`failed ${error.message}`));
    socket.on("end", () => socket.end(text!, () => resolve(`ok ${Buffer.concat(heard).toString()}`)));
    finish(await promise, timer);
  },

  /** get URL: prints status and body, or the error. */
  "get": async ([address]) => {
    try {
      const answer = await fetch(address!, { signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS), keepalive: false });
      say(`${answer.status} ${(await answer.text()).trimEnd()}`);
    } catch (error) {
      say(`failed ${(error as { code?: string }).code ?? (error as Error).name}`);
      process.exitCode = 1;
    }
  },

  /** post URL: the same with POST. */
  "post": async ([address]) => {
    const answer = await fetch(address!, { method: "POST", signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    say(`${answer.status} ${(await answer.text()).trimEnd()}`);
  },

  /** read HOST PORT: connects, says nothing, prints the first line it hears. */
  "read": async ([host, port]) => {
    const heard = Promise.withResolvers<string>();
    const timer = setTimeout(() => heard.resolve("failed timeout"), ANSWER_TIMEOUT_MS);
    await Bun.connect({
      hostname: host!, port: Number(port),
      socket: {
        data: (_socket, bytes) => heard.resolve(bytes.toString().trimEnd()),
        close: () => heard.resolve("failed closed"),
        error: (_socket, error) => heard.resolve(`failed ${error.message}`),
        connectError: (_socket, error) => heard.resolve(`failed ${error.message}`),
      },
    }).catch((error: Error) => heard.resolve(`failed ${error.message}`));
    finish(await heard.promise, timer);
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
          setTimeout(() => void socket.write(`beat ${++beat}\n`), 50);
        },
        close: () => {
          say("ended");
          process.exit();
        },
        error() {},
      },
    });
  },

  /** websocket HOST PORT COUNT: messages from one byte to a megabyte, text and binary, each of which has to come back. */
  "websocket": async ([host, port, count]) => {
    const socket = new WebSocket(`ws://${url(host!, port!)}/ws`);
    socket.binaryType = "arraybuffer";
    const { promise, resolve } = Promise.withResolvers<string>();
    const timer = setTimeout(() => resolve(`failed timeout after ${answered} of ${count}`), 4 * ANSWER_TIMEOUT_MS);
    let answered = 0;
    const message = (number: number): string | Uint8Array<ArrayBuffer> => {
      const bytes = new Uint8Array(Math.min(2 ** (number % 21), 1 << 20)).fill(0x61 + (number % 26));
      return number % 2 === 0 ? new TextDecoder().decode(bytes) : bytes;
    };
    socket.onopen = () => socket.send(message(0));
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      const sent = message(answered);
      const same = typeof data === "string" ? data === sent : typeof sent !== "string" && Buffer.compare(new Uint8Array(data), sent) === 0;
      if (!same) return resolve(`failed: message ${answered} came back changed`);
      answered++;
      if (answered === Number(count)) resolve(`ok ${answered}`);
      else socket.send(message(answered));
    };
    socket.onclose = ({ code }) => resolve(`failed: closed with ${code} after ${answered}`);
    finish(await promise, timer);
  },
};

function finish(verdict: string, timer: ReturnType<typeof setTimeout>): never {
  clearTimeout(timer);
  say(verdict);
  process.exit(verdict.startsWith("failed") ? 1 : 0);
}

const [name, ...args] = process.argv.slice(2);
const { trafficPrograms } = await import("./traffic.ts");
const found = programs[name ?? ""] ?? trafficPrograms[name ?? ""] ?? (name?.startsWith("grpc") ? (await import("./grpc-programs.ts")).grpcPrograms[name] : undefined);
if (found === undefined) {
  process.stderr.write(`programs: ${[...Object.keys(programs), ...Object.keys(trafficPrograms), "grpc-serve", "grpc-call", "grpc-authorizer", "grpc-rate-limit"].join(", ")}\n`);
  process.exit(64);
}
await found(args);
export {};
