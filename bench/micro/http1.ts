// What the HTTP/1.1 engine itself costs: no sockets. `bun bench/micro/http1.ts`
//
// Figures are nanoseconds of CPU time in user mode: steadier than the clock on a busy machine. The collector's and the compiler's threads
// are in them. Compare only runs of the same machine. The head is the one of the design notes: 479 bytes, ten fields.

import { HeadOf, HeadParser, Parsed } from "../../src/wire/http1/head-parser.ts";
import { DEFAULT_LIMITS } from "../../src/wire/http1/limits.ts";

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
