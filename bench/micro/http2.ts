// What the HTTP/2 engine itself costs: two engines in memory, no sockets. `bun bench/micro/http2.ts`
//
// Figures are nanoseconds of CPU time in user mode, both ends together: steadier than the clock on a busy machine. The collector's and
// the compiler's threads are in them. Compare only runs of the same machine.

import { DEFAULT_SETTINGS, encodeStaticBlock, Http2Connection, type Http2Handler, type Http2Stream } from "../../src/wire/http2/connection.ts";
import { HpackDecoder } from "../../src/wire/http2/hpack-decoder.ts";
import { HpackEncoder } from "../../src/wire/http2/hpack-encoder.ts";

const ROUND_MS = 300;
const ROUNDS = 5;

class Pair {
  readonly client: Http2Connection;
  readonly server: Http2Connection;
  serverStream: Http2Stream | null = null;
  responses = 0;
  receivedBytes = 0;

  constructor() {
    const ok = encodeStaticBlock([":status", "200"]);
    const nothing = (): void => {};
    const base: Http2Handler = {
      onRequest: nothing, onResponse: nothing, onInformational: nothing, onData: nothing, onTrailers: nothing, onSendable: nothing, onReset: nothing,
      onClosed: nothing, onSettings: nothing, onGoaway: nothing, onPong: nothing, onFatal: (e) => { throw new Error(e.message); }, onOutput: nothing,
    };
    const nowMs = (): number => performance.now();
    this.server = new Http2Connection({
      role: "server",
      settings: DEFAULT_SETTINGS,
      nowMs,
      handler: {
        ...base,
        onRequest: (stream) => {
          this.serverStream = stream;
          this.server.respond(stream, ok, false);
        },
        onData: (stream, chunk, endStream) => {
          this.receivedBytes += chunk.length;
          this.server.consumed(stream, chunk.length);
          if (endStream) this.server.endStream(stream);
        },
      },
    });
    this.client = new Http2Connection({ role: "client", settings: DEFAULT_SETTINGS, nowMs, handler: { ...base, onResponse: () => void this.responses++ } });
    for (let i = 0; i < 3; i++) this.exchange();
  }

  exchange(): void {
    move(this.client, this.server);
    move(this.server, this.client);
  }
}

function move(from: Http2Connection, to: Http2Connection): void {
  const output = from.output;
  if (output.pendingBytes === 0) return;
  to.receive(output.peek());
  output.consume(output.pendingBytes);
}

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

const CONNECT_FIELDS = [":method", "CONNECT", ":authority", "198.18.10.1:8080", "baggage", "k8s.cluster.name=one,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1", "forwarded", 'for="198.18.20.1:41234"'];

function open(pair: Pair): Http2Stream {
  const stream = pair.client.request(encodeStaticBlock(CONNECT_FIELDS), false);
  if (stream === null) throw new Error("no stream");
  pair.exchange();
  return stream;
}

for (const size of [100, 16_384, 65_536]) {
  const pair = new Pair();
  const stream = open(pair);
  const chunk = new Uint8Array(size);
  const batch = size === 100 ? 16 : 1;
  measure(`DATA frame of ${size} bytes, sent, received, consumed (${batch} a write)`, batch * 16, () => {
    for (let turn = 0; turn < 16; turn++) {
      for (let i = 0; i < batch; i++) if (pair.client.sendData(stream, chunk, false) !== size) throw new Error("short");
      pair.exchange();
    }
  });
}

{
  const pair = new Pair();
  const stream = open(pair);
  const chunk = new Uint8Array(100);
  measure("DATA frame of 100 bytes, sent alone: peek and consume each", 16, () => {
    for (let i = 0; i < 16; i++) {
      pair.client.sendData(stream, chunk, false);
      pair.exchange();
    }
  });
}

for (const [name, block] of [
  ["fixed block", (_: Http2Connection) => encodeStaticBlock(CONNECT_FIELDS)],
  ["dynamic table", (c: Http2Connection) => c.encode(CONNECT_FIELDS)],
] as const) {
  const pair = new Pair();
  const fin = new Uint8Array(0);
  measure(`CONNECT, 200, both halves ended (${name})`, 16, () => {
    for (let i = 0; i < 16; i++) {
      const stream = pair.client.request(block(pair.client), false);
      if (stream === null) throw new Error("no stream");
      pair.exchange();
      pair.client.sendData(stream, fin, true);
      pair.exchange();
    }
  });
}

{
  const fields = [
    ":method", "POST", ":scheme", "https", ":path", "/shop.Cart/Add?x=1", ":authority", "cart.shop.svc.cluster.local:8080", "content-type", "application/grpc", "te", "trailers",
    "user-agent", "grpc-go/1.60.0", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x-request-id", "9b8c1f1e-6f2a-4b47-9d38-6c1c0fd0a111", "accept-encoding", "gzip",
  ];
  const encoder = new HpackEncoder();
  encoder.encode(fields);
  measure("HPACK encode, ten fields, table warm", 1, () => void encoder.encode(fields));
  const decoder = new HpackDecoder(65_536);
  const other = new HpackEncoder();
  const first = other.encode(fields).slice();
  decoder.decode(first, 0, first.length);
  const bytes = other.encode(fields).slice();
  measure(`HPACK decode, the same (${bytes.length} bytes)`, 1, () => void decoder.decode(bytes, 0, bytes.length));
  const cold = encodeStaticBlock(fields).bytes!;
  measure(`HPACK decode, plain literals (${cold.length} bytes)`, 1, () => void decoder.decode(cold, 0, cold.length));
}
