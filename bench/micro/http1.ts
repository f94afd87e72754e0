// What the HTTP/1.1 engine itself costs: no sockets. `bun bench/micro/http1.ts`
//
// Figures are nanoseconds of CPU time in user mode: steadier than the clock on a busy machine. The collector's and the compiler's threads
// are in them. Compare only runs of the same machine. The head is the one of the design notes: 479 bytes, ten fields.

import { ListFields } from "../../src/wire/http/fields.ts";
import { parseHost } from "../../src/wire/http/host.ts";
import type { OutputBuffer } from "../../src/wire/http/output-buffer.ts";
import { normalisePath } from "../../src/wire/http/path.ts";
import { BodyDecoder } from "../../src/wire/http1/body-decoder.ts";
import { type ClientExchange, Http1ClientConnection, type IncomingResponse, outgoingRequest } from "../../src/wire/http1/client-connection.ts";
import { HeadOf, HeadParser, Parsed } from "../../src/wire/http1/head-parser.ts";
import { DEFAULT_LIMITS } from "../../src/wire/http1/limits.ts";
import { Http1ServerConnection, type Http1ServerHandler, type ServerExchange } from "../../src/wire/http1/server-connection.ts";

const ROUND_MS = 300;
const ROUNDS = 5;
const HEAD_BYTES = 479;

/** Runs `body`, which does `perCall` operations, and prints the median of some rounds. */
function measure(name: string, perCall: number, body: () => void): void {
  const cpuMs = (): number => process.cpuUsage().user / 1000;
  let calls = 0;
  for (const end = cpuMs() + ROUND_MS; cpuMs() < end; calls++) body();
  const perRound = calls;
  const rounds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = cpuMs();
    for (let i = 0; i < perRound; i++) body();
    rounds.push(((cpuMs() - start) * 1e6) / (perRound * perCall));
  }
  rounds.sort((a, b) => a - b);
  console.log(`${name.padEnd(66)} ${rounds[ROUNDS >> 1]!.toFixed(0).padStart(8)} ns`);
}

function requestHead(): Buffer {
  const start = [
    "GET /api/v1/products/12345?currency=EUR&page=2 HTTP/1.1", "Host: cart.shop.svc.cluster.local:8080", "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
    "Accept: application/json, text/plain, */*", "Accept-Encoding: gzip, deflate, br", "Accept-Language: en-GB,en;q=0.8",
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-Id: 9b8c1f1e-6f2a-4b47-9d38-6c1c0fd0a111", "Content-Type: application/json",
    "Connection: keep-alive",
  ].join("\r\n");
  const last = "\r\nCookie: ";
  return Buffer.from(`${start}${last}${"c".repeat(HEAD_BYTES - start.length - last.length - 4)}\r\n\r\n`);
}

const head = requestHead();
if (head.length !== HEAD_BYTES) throw new Error(`the head has ${head.length} bytes`);

{
  const parser = new HeadParser(DEFAULT_LIMITS);
  measure("request head, ten fields, offsets only", 100, () => {
    for (let i = 0; i < 100; i++) {
      parser.reset(HeadOf.request);
      if (parser.parse(head, 0, head.length) !== Parsed.complete) throw new Error(parser.faultMessage);
    }
  });
  measure("the same in two chunks", 100, () => {
    for (let i = 0; i < 100; i++) {
      parser.reset(HeadOf.request);
      parser.parse(head, 0, 200);
      if (parser.parse(head, 200, head.length) !== Parsed.complete) throw new Error(parser.faultMessage);
    }
  });
}

/** Takes what an engine has to say; nothing is kept. */
function drop(output: OutputBuffer): void {
  if (output.pendingBytes > 0) output.consume(output.pendingBytes);
}

const nothing = (): void => {};
const transport = { onOutput: nothing, onWantsInput: nothing, onFinished: nothing };

const refuse = (error: { readonly message: string }): never => {
  throw new Error(error.message);
};

const serverOf = (onRequest: Http1ServerHandler["onRequest"]): Http1ServerConnection => {
  return new Http1ServerConnection({ handler: { ...transport, onRequest, onBody: nothing, onRequestEnd: nothing, onSendable: nothing, onAborted: nothing, onClosed: nothing, onError: refuse } });
};

{
  const fields = ListFields.of(["content-type", "application/json", "date", "Tue, 15 Nov 1994 08:12:31 GMT", "server", "x"]);
  const body = Buffer.alloc(1024, "a");
  const server: Http1ServerConnection = serverOf((exchange) => {
    server.respond(exchange, { status: 200, fields, contentLength: body.length }, false);
    server.sendBody(exchange, body);
    server.endBody(exchange);
  });
  measure("server: that request read, answered with 1 KiB and three fields", 100, () => {
    for (let i = 0; i < 100; i++) {
      server.receive(head);
      drop(server.output);
    }
  });
}

{
  const body = Buffer.alloc(1024, "a");
  const response = Buffer.concat([
    Buffer.from("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nServer: x\r\nContent-Length: 1024\r\n\r\n"), body,
  ]);
  let asked: ServerExchange | null = null;
  const server: Http1ServerConnection = serverOf((exchange) => {
    asked = exchange;
    exchange.fields.set("x-request-id", "9b8c1f1e-6f2a-4b47-9d38-6c1c0fd0a111");
    upstream.request(outgoingRequest(exchange), true);
  });
  const upstream = new Http1ClientConnection({
    handler: {
      ...transport,
      onInformational: nothing,
      onResponse: (_: ClientExchange, incoming: IncomingResponse, endStream: boolean) => server.respond(asked!, incoming, endStream),
      onBody: (_: ClientExchange, bytes: Uint8Array) => void server.sendBody(asked!, bytes),
      onResponseEnd: () => server.endBody(asked!),
      onSendable: nothing,
      onAborted: nothing,
      onClosed: nothing,
      onError: refuse,
    },
  });
  measure("proxy: that request to an upstream and 1 KiB back, both engines", 100, () => {
    for (let i = 0; i < 100; i++) {
      server.receive(head);
      drop(upstream.output);
      upstream.receive(response);
      drop(server.output);
    }
  });
}

for (const path of ["/api/v1/products/12345", "/api/../v1/%7Eproducts/12345"]) {
  measure(`path normalised: ${path}`, 100, () => {
    for (let i = 0; i < 100; i++) if (!normalisePath(path, "base").ok) throw new Error(path);
  });
}
measure("host read: cart.shop.svc.cluster.local:8080", 100, () => {
  for (let i = 0; i < 100; i++) if (!parseHost("cart.shop.svc.cluster.local:8080").ok) throw new Error("host");
});

{
  const decoder = new BodyDecoder(DEFAULT_LIMITS);
  const chunked = Buffer.from(`${"400\r\n"}${"a".repeat(1024)}\r\n`.repeat(16) + "0\r\n\r\n");
  const sink = { onBodyBytes: (): boolean => true };
  measure("chunk of 1 KiB decoded (sixteen a read)", 16, () => {
    decoder.beginChunked();
    decoder.decode(chunked, 0, chunked.length, sink);
  });
}
