// HTTP/1 requests: the same bytes in any cut mean the same, a refusal is one answer and the end, every exchange ends once, and whatever
// Node's parser reads too, it reads as the same requests: method, target, version, fields, body, trailers, and where each ends.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { ListFields } from "../../src/wire/http/fields.ts";
import type { HeaderList } from "../../src/wire/http/header-list.ts";
import type { Http1Error } from "../../src/wire/http1/errors.ts";
import { Http1ServerConnection, type Http1ServerHandler, type ServerExchange } from "../../src/wire/http1/server-connection.ts";
import { below } from "./choices.ts";
import { endToEnd, must, pieces, requests } from "./http1-grammar.ts";
import { askReference, type ReferenceMessage } from "./reference-http.ts";

export const name = "http1-request";

const NO_FIELDS = ListFields.of([]);
const OK = { status: 200, fields: NO_FIELDS, contentLength: 0 };

interface Message {
  readonly method: string;
  readonly url: string;
  readonly minor: number;
  readonly fields: readonly string[];
  body: string;
  trailers: readonly string[];
  done: boolean;
  aborted: boolean;
  readonly tunnel: boolean;
}

interface Reading {
  readonly messages: readonly Message[];
  readonly error: Http1Error | null;
  readonly finished: boolean;
  readonly output: string;
}

export async function run(options: { seed: number; iterations: number }): Promise<{ iterations: number }> {
  const random = seededRandom(options.seed);
  const inputs: string[] = [];
  const readings: Reading[] = [];
  for (let i = 0; i < options.iterations; i++) {
    const input = requests(random);
    inputs.push(input);
    try {
      const whole = read([Buffer.from(input, "latin1")], null);
      const cut = read(pieces(random, input), random);
      must(JSON.stringify(cut) === JSON.stringify(whole), `in pieces it reads\n  ${JSON.stringify(cut)}\nand whole\n  ${JSON.stringify(whole)}`);
      checkOutput(whole);
      readings.push(whole);
    } catch (error) {
      throw failure(options.seed, i, input, error);
    }
  }
  const opinions = await askReference("request", inputs.map((bytes) => ({ bytes, isHead: false })));
  for (const [i, opinion] of opinions.entries()) {
    try {
      compare(readings[i]!, opinion.messages, opinion.error);
    } catch (error) {
      throw failure(options.seed, i, inputs[i]!, error);
    }
  }
  return { iterations: options.iterations };
}

function failure(seed: number, i: number, input: string, cause: unknown): Error {
  return new Error(`http1-request fuzz: seed ${seed}, iteration ${i}: ${cause instanceof Error ? cause.message : String(cause)}\ninput ${JSON.stringify(input)}`, { cause });
}

/** With `random` the reader pauses now and then. */
function read(parts: readonly Uint8Array[], random: Random | null): Reading {
  const messages: Message[] = [];
  const open = new Map<ServerExchange, Message>();
  let error: Http1Error | null = null;
  let finishes = 0;
  let pausing = false;
  const answer = (exchange: ServerExchange): void => {
    // One that asks for a tunnel stays unanswered: what follows it is nobody's request.
    if (!exchange.mayBecomeTunnel) connection.respond(exchange, OK, true);
  };
  const handler: Http1ServerHandler = {
    onRequest: (exchange) => {
      const fields: HeaderList = [];
      exchange.fields.appendTo(fields);
      const message: Message = {
        method: exchange.method, url: exchange.fields.target(), minor: 10 + exchange.minor, fields, body: "", trailers: [], done: !exchange.hasBody, aborted: false,
        tunnel: exchange.mayBecomeTunnel,
      };
      messages.push(message);
      open.set(exchange, message);
      must(exchange.target.path === "" || exchange.target.path === "*" || exchange.target.path.startsWith("/"), "a path without its slash");
      if (!exchange.hasBody) answer(exchange);
    },
    onBody: (exchange, bytes) => {
      const message = open.get(exchange);
      must(message !== undefined && !message.done && bytes.length > 0, "body out of place");
      message!.body += Buffer.from(bytes).toString("latin1");
      if (random !== null && below(random, 4) === 0) {
        connection.pause();
        pausing = true;
      }
    },
    onRequestEnd: (exchange, trailers) => {
      const message = open.get(exchange);
      must(message !== undefined && !message.done, "two ends");
      message!.done = true;
      message!.trailers = [...trailers];
      answer(exchange);
    },
    onSendable: () => {},
    onAborted: (exchange, cause) => {
      const message = open.get(exchange);
      must(message !== undefined, "aborted after its end");
      message!.aborted = cause !== null;
    },
    onClosed: (exchange) => must(open.delete(exchange), "closed twice"),
    onError: (found) => {
      must(error === null, "two faults");
      error = found;
    },
    onOutput: () => {},
    onWantsInput: () => {},
    onFinished: () => void finishes++,
  };
  const connection = new Http1ServerConnection({ handler });
  const goOn = (): void => {
    while (pausing) {
      pausing = false;
      connection.resume();
    }
  };
  for (const part of parts) {
    connection.receive(part);
    goOn();
    // The chunk was borrowed.
    part.fill(0x58);
  }
  must(finishes <= 1, "finished twice");
  const output = Buffer.from(connection.output.peek()).toString("latin1");
  const finished = connection.finished;
  connection.transportClosed();
  must(open.size === 0, "an exchange that never closed");
  return { messages: messages.filter((message) => message.done || !message.aborted), error, finished, output };
}

/** Every answer is one we meant, in order, and a refusal is the last. */
function checkOutput(reading: Reading): void {
  const statuses = [...reading.output.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
  const refusals = statuses.filter((status) => status !== 200);
  must(refusals.length === (reading.error === null ? 0 : 1), `${refusals.length} refusals for fault ${reading.error?.code ?? "none"}`);
  if (reading.error !== null) must(statuses.at(-1) !== 200 && reading.finished, "the refusal is not the end");
  must(statuses.length - refusals.length === reading.messages.filter((message) => message.done && !message.tunnel).length, "not one answer for each request");
}

function compare(ours: Reading, theirs: readonly ReferenceMessage[], theirError: string | null): void {
  for (const [i, message] of ours.messages.entries()) {
    const other = theirs[i];
    if (other === undefined || (theirError !== null && i === theirs.length - 1 && !other.done)) {
      must(theirError !== null, `request ${i} is none for Node, which waits: ${JSON.stringify(message)}`);
      return;
    }
    const named = (m: Message | ReferenceMessage): string => `${m.method} ${m.url} ${m.minor}`;
    must(named(message) === named(other), `request ${i} is ${named(message)}, for Node ${named(other)}`);
    const fields = endToEnd(other.fields);
    must(JSON.stringify(message.fields) === JSON.stringify(fields), `request ${i} has fields ${JSON.stringify(message.fields)}, for Node ${JSON.stringify(fields)}`);
    if (message.tunnel) return;
    if (other.upgrade) return;
    must(message.done === other.done, `request ${i} is ${message.done ? "" : "not "}complete, for Node it is${other.done ? "" : " not"}`);
    if (!message.done) return;
    must(message.body === other.body, `request ${i} has body ${JSON.stringify(message.body)}, for Node ${JSON.stringify(other.body)}`);
    const trailers = other.trailers.map((text, at) => (at % 2 === 0 ? text.toLowerCase() : text));
    must(JSON.stringify(message.trailers) === JSON.stringify(trailers), `request ${i} has trailers ${JSON.stringify(message.trailers)}, for Node ${JSON.stringify(trailers)}`);
  }
  if (ours.error === null && !ours.finished && theirs.length > ours.messages.length) {
    must(theirError !== null && theirs.length === ours.messages.length + 1 && !theirs.at(-1)!.done, `Node sees ${theirs.length} requests where there are ${ours.messages.length}`);
  }
}

