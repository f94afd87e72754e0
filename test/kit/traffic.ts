// Heavy traffic for programs.ts: one long stream, many short connections, requests without end. Everything that comes back is
// compared with what was sent: a proxy that loses, repeats or mixes up a byte is found out.

import { Agent, get } from "node:http";
import { decodeMessage } from "../../src/wire/dns/decode.ts";
import { encodeMessage } from "../../src/wire/dns/encode.ts";
import { RecordClass, RecordType } from "../../src/wire/dns/types.ts";
import { frame } from "../../src/ztunnel/dns/tcp-frames.ts";
import type { Program } from "./program.ts";

const say = (line: string) => void process.stdout.write(`${line}\n`);

/** The pattern repeats after a prime number of bytes, so that a shift by any power of two shows. */
const BLOCK_BYTES = 1_048_573;
const CHUNK_BYTES = 256 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;
/** Connections under way at one time: few enough for a listen queue. */
const HOLD_OPENING_MAX = 64;

/** Two periods in a row: a chunk from any offset is one view. */
function pattern(): Uint8Array {
  const once = new Uint8Array(BLOCK_BYTES);
  let state = 0x9e3779b9;
  for (let i = 0; i < once.length; i++) {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x6d2b79f5) >>> 0;
    once[i] = state >>> 24;
  }
  return new Uint8Array(Buffer.concat([once, once]));
}

interface Exchange {
  readonly host: string;
  readonly port: number;
  readonly message: Uint8Array;
  /** What is wrong with all that came back; null for nothing. */
  readonly fault: (heard: Buffer) => string | null;
}

/** That many connections, so many at one time, each with an exchange of its own; our side ends as soon as it has spoken. */
async function manyExchanges(count: number, concurrency: number, exchange: (number: number) => Exchange): Promise<void> {
  let next = 0;
  const faults: string[] = [];
  const one = async (number: number): Promise<void> => {
    const { host, port, message, fault } = exchange(number);
    const { promise, resolve } = Promise.withResolvers<string | null>();
    const timer = setTimeout(() => resolve("timeout"), 6 * REQUEST_TIMEOUT_MS);
    const parts: Buffer[] = [];
    const whole = () => fault(Buffer.concat(parts));
    const opened = await Bun.connect({
      hostname: host, port, allowHalfOpen: true,
      socket: {
        open(socket) {
          if (socket.write(message) === message.length) socket.shutdown();
          else resolve("short write");
        },
        data: (_socket, chunk) => void parts.push(Buffer.from(chunk)),
        end(socket) {
          resolve(whole());
          socket.end();
        },
        close: () => resolve(whole()),
        error: (_socket, error) => resolve(error.message),
      },
    }).catch((error: Error) => void resolve(error.message));
    const found = await promise;
    clearTimeout(timer);
    opened?.terminate();
    if (found !== null) faults.push(`connection ${number}: ${found}`);
  };
  const worker = async (): Promise<void> => {
    while (next < count) await one(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
  end(faults.length === 0 ? `ok ${count}` : `failed ${faults.length} of ${count}: ${faults.slice(0, 3).join("; ")}`);
}

export const trafficPrograms: Readonly<Record<string, Program>> = {
  /** hold HOST PORT COUNT: opens that many connections through an echo server, a byte there and back on each, says `holds COUNT`, and keeps them until it is killed. */
  "hold": async ([host, port, count]) => {
    let opened = 0;
    let answered = 0;
    const open = (): void => {
      if (opened === Number(count)) return;
      opened++;
      const failed = (error: unknown): never => {
        say(`failed: ${error} after ${answered} of ${count}`);
        process.exit(1);
      };
      Bun.connect({
        hostname: host!, port: Number(port),
        socket: {
          open: (socket) => void socket.write("x"),
          data() {
            answered++;
            if (answered === Number(count)) say(`holds ${count}`);
            else open();
          },
          close: () => void failed("a connection ended"),
          error: (_socket, error) => void failed(error),
        },
      }).catch(failed);
    };
    for (let i = 0; i < HOLD_OPENING_MAX; i++) open();
  },

  /** stream HOST PORT BYTES: through an echo server and back, both directions at once, ends with a half-close. Prints `ok BYTES SECONDS`. */
  "stream": async ([host, port, size]) => {
    const total = Number(size);
    const bytes = pattern();
    const startedMs = performance.now();
    const { promise, resolve } = Promise.withResolvers<string>();
    let sent = 0;
    let received = 0;
    const verdict = (how: string): string => received === total
      ? `ok ${received} ${((performance.now() - startedMs) / 1000).toFixed(2)}`
      : `failed: ${how} after ${received} of ${total} bytes (sent ${sent})`;
    const pump = (socket: Bun.Socket): void => {
      while (sent < total) {
        const from = sent % BLOCK_BYTES;
        const wanted = Math.min(CHUNK_BYTES, total - sent);
        const written = socket.write(bytes.subarray(from, from + wanted));
        if (written <= 0) return;
        sent += written;
        if (written < wanted) return;
      }
      socket.shutdown();
    };
    await Bun.connect({
      hostname: host!, port: Number(port), allowHalfOpen: true,
      socket: {
        open: pump,
        drain: (socket) => void (sent < total && pump(socket)),
        data(_socket, chunk) {
          for (let at = 0; at < chunk.length; ) {
            const from = (received + at) % BLOCK_BYTES;
            const length = Math.min(chunk.length - at, BLOCK_BYTES);
            if (Buffer.compare(chunk.subarray(at, at + length), bytes.subarray(from, from + length)) !== 0) {
              return resolve(`failed: bytes after ${received + at} came back changed`);
            }
            at += length;
          }
          received += chunk.length;
        },
        end: () => resolve(verdict("ended")),
        // Both sides have ended: the runtime may say so with `close` alone.
        close: (_socket, error) => resolve(error == null ? verdict("closed") : `failed: ${error.message} after ${received} of ${total} bytes`),
        error: (_socket, error) => resolve(`failed: ${error.message} after ${received} of ${total} bytes`),
      },
    }).catch((error: Error) => resolve(`failed: ${error.message}`));
    end(await promise);
  },

  /** storm HOST PORT COUNT CONCURRENCY: that many connections to an echo server, each with a message of its own, half-closed by us. Prints `ok COUNT`. */
  "storm": async ([host, port, count, concurrency]) =>
    await manyExchanges(Number(count), Number(concurrency), (number) => {
      const message = Buffer.from(`${number}:`.repeat(1 + ((number * 7919) % 500)));
      return { host: host!, port: Number(port), message, fault: (heard) => (Buffer.compare(heard, message) === 0 ? null : `answer differs: ${heard.length} of ${message.length} bytes`) };
    }),

  /** questions NAME COUNT CONCURRENCY RESOLVER...: that many DNS questions for the A records of a name, each by TCP on a connection of its own, to the resolvers in turn. Prints `ok COUNT`. */
  "questions": async ([name, count, concurrency, ...resolvers]) =>
    await manyExchanges(Number(count), Number(concurrency), (number) => {
      const id = number & 0xffff;
      const question = encodeMessage({
        id, response: false, opcode: 0, authoritative: false, truncated: false, recursionDesired: true, recursionAvailable: false, authenticData: false, checkingDisabled: false, rcode: 0,
        questions: [{ name: name!, type: RecordType.A, class: RecordClass.IN }], answers: [], authorities: [], additionals: [], edns: null,
      });
      return {
        host: resolvers[number % resolvers.length]!, port: 53, message: frame(question),
        fault: (heard) => {
          const answer = decodeMessage(heard.subarray(2));
          if (!answer.ok) return `${heard.length} bytes in answer: ${answer.error}`;
          return answer.value.id === id && answer.value.answers.length > 0 ? null : `id ${answer.value.id} for ${id}, ${answer.value.answers.length} records, code ${answer.value.rcode}`;
        },
      };
    }),

  /** load URL CLIENTS: GET after GET, on a new connection each, until SIGTERM. Says `going` after the first; ends with `ok COUNT` or `failed ...`. */
  "load": async ([address, clients]) => {
    let stopping = false;
    process.on("SIGTERM", () => void (stopping = true));
    let answered = 0;
    const faults: string[] = [];
    const worker = async (): Promise<void> => {
      while (!stopping) {
        try {
          const answer = await fetch(address!, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS), keepalive: false, headers: { connection: "close" } });
          const text = await answer.text();
          if (answer.status !== 200 || text === "") faults.push(`status ${answer.status}`);
          if (++answered === 1) say("going");
        } catch (error) {
          faults.push(`after ${answered}: ${(error as { code?: string }).code ?? (error as Error).name}`);
        }
      }
    };
    await Promise.all(Array.from({ length: Number(clients) }, worker));
    end(faults.length === 0 ? `ok ${answered}` : `failed ${faults.length} of ${answered + faults.length}: ${faults.slice(0, 5).join("; ")}`);
  },

  /** load-kept URL CLIENTS: the same over connections that are kept as long as the server keeps them. Nothing is asked twice. */
  "load-kept": async ([address, clients]) => {
    let stopping = false;
    process.on("SIGTERM", () => void (stopping = true));
    let answered = 0;
    const faults: string[] = [];
    const agent = new Agent({ keepAlive: true, maxSockets: Number(clients), timeout: REQUEST_TIMEOUT_MS });
    const ask = (): Promise<string | null> => new Promise((resolve) => {
      const asked = get(address!, { agent }, (answer) => {
        answer.on("error", (error) => resolve(error.message));
        answer.on("end", () => resolve(answer.statusCode === 200 ? null : `status ${answer.statusCode}`));
        answer.resume();
      });
      asked.on("timeout", () => asked.destroy(new Error("timeout")));
      asked.on("error", (error) => resolve(`${(error as { code?: string }).code ?? error.message}${asked.reusedSocket ? " over a kept connection" : ""}`));
    });
    const worker = async (): Promise<void> => {
      while (!stopping) {
        const fault = await ask();
        if (fault !== null) faults.push(`after ${answered}: ${fault}`);
        else if (++answered === 1) say("going");
      }
    };
    await Promise.all(Array.from({ length: Number(clients) }, worker));
    end(faults.length === 0 ? `ok ${answered}` : `failed ${faults.length} of ${answered + faults.length}: ${faults.slice(0, 5).join("; ")}`);
  },
};

function end(verdict: string): never {
  say(verdict);
  process.exit(verdict.startsWith("failed") ? 1 : 0);
}
