// Bodies. Hostile: a chunked body in any cut reads the same, never hands out more than it was given, and once faulty says nothing more.
// Pair: two engines in memory with random bodies, trailers, cuts, pauses and full sockets; every byte arrives once and in order, every
// exchange ends, no side finds fault with the other, and nothing is left behind.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { LENGTH_UNKNOWN } from "../../src/wire/http/content-length.ts";
import { ListFields } from "../../src/wire/http/fields.ts";
import { BodyDecoder } from "../../src/wire/http1/body-decoder.ts";
import { type ClientExchange, Http1ClientConnection, type Http1ClientHandler } from "../../src/wire/http1/client-connection.ts";
import { DEFAULT_LIMITS, type Http1Limits } from "../../src/wire/http1/limits.ts";
import { Http1ServerConnection, type Http1ServerHandler, type ServerExchange } from "../../src/wire/http1/server-connection.ts";
import type { TransportSide } from "../../src/wire/http1/transport-side.ts";
import { below, pick } from "./choices.ts";
import { chunkedBody, must, mutate, pieces } from "./http1-grammar.ts";

export const name = "http1-chunked";

/** One pair costs some twenty hostile bodies. */
const PAIR_EVERY = 8;
const PAIR_TURNS_MAX = 100_000;
const TIGHT: Http1Limits = { ...DEFAULT_LIMITS, chunkExtensionBytesMax: 12, trailerBytesMax: 30, trailersMax: 2, chunkSizeDigitsMax: 8 };

export function run(options: { seed: number; iterations: number }): { iterations: number } {
  const random = seededRandom(options.seed);
  for (let i = 0; i < options.iterations; i++) {
    try {
      if (i % PAIR_EVERY === PAIR_EVERY - 1) pair(random);
      else hostile(random);
    } catch (error) {
      throw new Error(`http1-chunked fuzz: seed ${options.seed}, iteration ${i}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
  return { iterations: options.iterations };
}

// ── Hostile ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function hostile(random: Random): void {
  let input = chunkedBody(random) + (random.next() < 0.5 ? "GET / HTTP/1.1" : "");
  if (random.next() < 0.5) input = mutate(random, input);
  const limits = random.next() < 0.3 ? TIGHT : DEFAULT_LIMITS;
  const whole = decodeAll([Buffer.from(input, "latin1")], limits, null);
  const cut = decodeAll(pieces(random, input), limits, random);
  must(cut === whole, `${JSON.stringify(input)} in pieces\n  ${cut}\nand whole\n  ${whole}`);
}

function decodeAll(parts: readonly Uint8Array[], limits: Http1Limits, random: Random | null): string {
  const decoder = new BodyDecoder(limits);
  decoder.beginChunked();
  let body = "";
  let given = 0;
  let taken = 0;
  const sink = {
    onBodyBytes: (bytes: Uint8Array): boolean => {
      body += Buffer.from(bytes).toString("latin1");
      return random === null || below(random, 3) > 0;
    },
  };
  for (const part of parts) {
    given += part.length;
    let at = 0;
    while (at < part.length && !decoder.isDone && !decoder.isFaulty) {
      const next = decoder.decode(part, at, part.length, sink);
      must(next >= at && next <= part.length, `went from ${at} to ${next} of ${part.length}`);
      at = next;
    }
    if (decoder.isFaulty) must(decoder.decode(part, 0, part.length, sink) === 0, "a faulty body was read on");
    taken += at;
    part.fill(0x58);
    if (decoder.isDone || decoder.isFaulty) break;
  }
  must(body.length <= given && decoder.receivedBytes === body.length, "more body than bytes");
  return JSON.stringify([body, decoder.isFaulty ? decoder.faultCode : decoder.isDone ? [taken, decoder.trailers] : "more"]);
}

// ── Pair ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What one side says in one exchange. */
interface Speech {
  readonly body: Buffer;
  readonly lengthKnown: boolean;
  readonly trailers: readonly string[];
}

interface Ear {
  heard: string;
  trailers: readonly string[];
  ended: boolean;
}

function speech(random: Random): Speech {
  const body = Buffer.alloc(pick(random, [0, 0, 1, 5, 300, 5000]));
  for (let i = 0; i < body.length; i++) body[i] = below(random, 256);
  const lengthKnown = body.length > 0 && below(random, 2) === 0;
  return { body, lengthKnown, trailers: !lengthKnown && body.length > 0 && below(random, 3) === 0 ? ["x-t", String(below(random, 9)), "x-u", ""] : [] };
}

class Mouth {
  private at = 0;
  private readonly words: Speech;
  private done = false;
  constructor(words: Speech) {
    this.words = words;
  }

  /** Says a little more. `send` takes all or nothing. */
  speak(random: Random, send: (bytes: Uint8Array) => number, end: (trailers: readonly string[]) => void): void {
    if (this.done) return;
    if (this.at === this.words.body.length) {
      this.done = true;
      end(this.words.trailers);
      return;
    }
    const bytes = this.words.body.subarray(this.at, this.at + 1 + below(random, 2000));
    this.at += send(bytes);
  }
}

function pair(random: Random): void {
  const limits: Http1Limits = { ...DEFAULT_LIMITS, outputDataBytesMax: pick(random, [100, 3000, 1 << 20]) };
  const exchanges = 1 + below(random, 4);
  let served = 0;
  let request: Speech = speech(random);
  let response: Speech = speech(random);
  let clientMouth = new Mouth(request);
  const answer: { mouth: Mouth | null; exchange: ServerExchange | null } = { mouth: null, exchange: null };
  let clientExchange: ClientExchange | null = null;
  const atServer: Ear = { heard: "", trailers: [], ended: false };
  const atClient: Ear = { heard: "", trailers: [], ended: false };
  const never = (what: string) => (): never => {
    throw new Error(what);
  };
  const hear = (ear: Ear, side: () => TransportSide) => (_: unknown, bytes: Uint8Array): void => {
    ear.heard += Buffer.from(bytes).toString("latin1");
    if (below(random, 4) === 0) side().pause();
  };
  const respond = (exchange: ServerExchange): void => {
    const { body, lengthKnown } = response;
    server.respond(exchange, { status: 200, fields: ListFields.of(["x-a", "b"]), contentLength: lengthKnown ? body.length : LENGTH_UNKNOWN }, body.length === 0);
    if (body.length > 0) answer.mouth = new Mouth(response);
  };
  const quiet = { onSendable: (): void => {}, onOutput: (): void => {}, onWantsInput: (): void => {} };
  const serverHandler: Http1ServerHandler = {
    ...quiet,
    onRequest: (exchange) => {
      answer.exchange = exchange;
      if (exchange.hasBody && (response.body.length === 0 || below(random, 2) === 0)) return;
      if (!exchange.hasBody) atServer.ended = true;
      respond(exchange);
    },
    onBody: hear(atServer, () => server),
    onRequestEnd: (exchange, trailers) => {
      atServer.ended = true;
      atServer.trailers = trailers;
      if (!exchange.responseStarted) respond(exchange);
    },
    onClosed: () => void served++,
    onAborted: never("server: aborted"),
    onError: (error) => never(`server: ${error.code}`)(),
    onFinished: never("server: finished"),
  };
  const clientHandler: Http1ClientHandler = {
    ...quiet,
    onInformational: never("client: interim"),
    onResponse: (_, incoming, endStream) => {
      must(incoming.status === 200 && incoming.fields.value("x-a") === "b", "another response");
      if (endStream) atClient.ended = true;
    },
    onBody: hear(atClient, () => client),
    onResponseEnd: (_, trailers) => {
      atClient.ended = true;
      atClient.trailers = trailers;
    },
    onClosed: () => void (clientExchange = null),
    onAborted: never("client: aborted"),
    onError: (error) => never(`client: ${error.code}`)(),
    onFinished: () => {},
  };
  const server: Http1ServerConnection = new Http1ServerConnection({ handler: serverHandler, limits });
  const client: Http1ClientConnection = new Http1ClientConnection({ handler: clientHandler, limits });

  let sent = 0;
  for (let turn = 0; ; turn++) {
    must(turn < PAIR_TURNS_MAX, `stalled after ${sent} exchanges`);
    if (clientExchange === null) {
      if (sent > 0) {
        // With a known length the client has all before the server has said that it is through.
        const { mouth, exchange } = answer;
        if (served < sent && mouth !== null && exchange !== null) mouth.speak(random, (bytes) => server.sendBody(exchange, bytes), (trailers) => server.endBody(exchange, trailers));
        must(served === sent, "the server has not ended the exchange");
        must(atServer.ended && atClient.ended, "an exchange closed before both were through");
        must(atServer.heard === request.body.toString("latin1") && atClient.heard === response.body.toString("latin1"), "bytes were lost, doubled or changed");
        must(atServer.trailers.join() === request.trailers.join() && atClient.trailers.join() === response.trailers.join(), "trailers were lost or changed");
      }
      if (sent === exchanges) break;
      must(client.reusable, "a clean exchange left the connection spent");
      request = speech(random);
      response = speech(random);
      clientMouth = new Mouth(request);
      answer.mouth = null;
      for (const ear of [atServer, atClient]) Object.assign(ear, { heard: "", trailers: [], ended: false });
      const { body, lengthKnown } = request;
      clientExchange = client.request({
        method: "POST", target: "/", host: "web", fields: ListFields.of([]), contentLength: lengthKnown ? body.length : LENGTH_UNKNOWN, acceptsTrailers: true, expectsContinue: false, upgrade: null,
      }, body.length === 0);
      sent++;
    }
    const asking: ClientExchange | null = clientExchange;
    // The server speaks only when it has heard all, so that no answer is early: those are tried by hand in the unit tests.
    if (asking !== null && request.body.length > 0) clientMouth.speak(random, (bytes) => client.sendBody(asking, bytes), (trailers) => client.endBody(asking, trailers));
    const { mouth, exchange: answering } = answer;
    if (mouth !== null && answering !== null && atServer.ended) mouth.speak(random, (bytes) => server.sendBody(answering, bytes), (trailers) => server.endBody(answering, trailers));
    move(random, client, server);
    move(random, server, client);
    if (below(random, 2) === 0) server.resume();
    if (below(random, 2) === 0) client.resume();
  }
  must(served === exchanges, `${served} of ${exchanges} exchanges closed at the server`);
  must(server.output.pendingBytes === 0 && client.output.pendingBytes === 0 && server.wantsInput && client.wantsInput, "something is left behind");
}

function move(random: Random, from: TransportSide, to: TransportSide): void {
  const bytes = Math.min(from.output.pendingBytes, 1 + below(random, 1500));
  if (bytes === 0 || !to.wantsInput) return;
  const chunk = new Uint8Array(from.output.peek().subarray(0, bytes));
  from.output.consume(bytes);
  to.receive(chunk);
  chunk.fill(0x58);
}
