import { expect, test } from "bun:test";
import { DEFAULT_SETTINGS, encodeStaticBlock, Http2Connection, type Http2Handler } from "../wire/http2/connection.ts";
import { TunnelTransport } from "./transport.ts";

const RECORD_BYTES = 16 * 1024;
const FRAME_HEADER_BYTES = 9;

const handler = (onOutput: () => void): Http2Handler => ({
  onRequest() {}, onResponse() {}, onInformational() {}, onData() {}, onTrailers() {}, onSendable() {}, onReset() {}, onClosed() {}, onSettings() {}, onGoaway() {}, onPong() {},
  onFatal: (error) => {
    throw new Error(error.message);
  },
  onOutput,
});

/** A tunnel's client end with one stream, whose greeting has been written; `written` is the size of each write after that. */
function tunnel() {
  let transport: TunnelTransport | null = null;
  const h2 = new Http2Connection({ role: "client", settings: DEFAULT_SETTINGS, handler: handler(() => transport?.schedule()), nowMs: () => 0 });
  const peer = new Http2Connection({ role: "server", settings: DEFAULT_SETTINGS, handler: handler(() => {}), nowMs: () => 0 });
  h2.receive(new Uint8Array(peer.output.peek()));
  const written: number[] = [];
  let roomBytes = Infinity;
  transport = new TunnelTransport(h2, 0);
  const stream = h2.request(encodeStaticBlock([":method", "CONNECT", ":authority", "198.18.0.1:80"]), false)!;
  transport.attach({
    write: (_bytes, _offset, length) => {
      const taken = Math.min(length, roomBytes);
      roomBytes -= taken;
      written.push(taken);
      return taken;
    },
  });
  written.length = 0;
  return { transport, h2, send: (bytes: number) => h2.sendData(stream, new Uint8Array(bytes), false), written, limit: (bytes: number) => void (roomBytes = bytes) };
}

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("transport: whole records leave at once, the few bytes more with what follows in the same turn", async () => {
  const { transport, h2, send, written } = tunnel();
  send(4 * RECORD_BYTES);
  transport.flushRecords();
  expect(written).toEqual([4 * RECORD_BYTES]);
  expect(h2.output.pendingBytes).toBe(FRAME_HEADER_BYTES);
  send(4 * RECORD_BYTES);
  transport.flushRecords();
  expect(written).toEqual([4 * RECORD_BYTES, 4 * RECORD_BYTES]);
  await nextTurn();
  expect(written).toEqual([4 * RECORD_BYTES, 4 * RECORD_BYTES, 2 * FRAME_HEADER_BYTES]);
});

test("transport: less than a record waits for the end of the turn, and no longer", async () => {
  const { transport, send, written } = tunnel();
  send(100);
  transport.flushRecords();
  expect(written).toEqual([]);
  await nextTurn();
  expect(written).toEqual([100 + FRAME_HEADER_BYTES]);
});

test("transport: what a full socket did not take leaves when it drains, the bytes beyond a record too", async () => {
  const { transport, h2, send, written, limit } = tunnel();
  limit(RECORD_BYTES);
  send(2 * RECORD_BYTES);
  transport.flushRecords();
  await nextTurn();
  expect(written).toEqual([RECORD_BYTES]);
  limit(Infinity);
  transport.onDrain();
  expect(written).toEqual([RECORD_BYTES, RECORD_BYTES + FRAME_HEADER_BYTES]);
  expect(h2.output.pendingBytes).toBe(0);
});
