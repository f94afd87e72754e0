import { expect, test } from "bun:test";
import { FakePlainSocket } from "../../test/kit/fake-plain-socket.ts";
import { DeadlineQueue } from "../net/deadlines.ts";
import { DEFAULT_SETTINGS, encodeStaticBlock, ErrorCode, Http2Connection, type Http2Handler, type Http2Stream } from "../wire/http2/connection.ts";
import type { CloseCause } from "./close-cause.ts";
import type { TunnelStreamUser } from "./client-tunnel.ts";
import { ByteBudget } from "./byte-budget.ts";
import { StreamRelay } from "./relay.ts";
import { TunnelTransport } from "./transport.ts";

const userHandler = (extra: Partial<Http2Handler>): Http2Handler => {
  const user = (stream: Http2Stream) => stream.user as TunnelStreamUser;
  return {
    onRequest: () => {},
    onResponse: (stream, headers, end) => user(stream).onResponse(200, headers, end),
    onInformational: () => {},
    onData: (stream, chunk, end) => user(stream).onStreamData(chunk, end),
    onTrailers: (stream) => user(stream).onStreamEnd(),
    onSendable: (stream) => user(stream).onSendable(),
    onReset: (stream, code, by) => user(stream).onStreamReset(code, by, { code: "stream_reset", blame: "peer", message: String(code), flags: "-" }),
    onClosed: (stream) => user(stream)?.onStreamClosed(),
    onSettings: () => {},
    onGoaway: () => {},
    onPong: () => {},
    onFatal: (error) => {
      throw new Error(error.message);
    },
    onOutput: () => {},
    ...extra,
  };
};

/** Client application ── relay ══ tunnel ══ relay ── server application, in memory. */
function pair(settings = DEFAULT_SETTINGS, limitBytes = 1 << 30) {
  const shed: string[] = [];
  const budget = new ByteBudget(limitBytes, { pressed: () => {}, relieved: () => {}, shedding: (why) => void shed.push(why) });
  const clock = { ms: 0 };
  const nowMs = () => clock.ms;
  let accepted: Http2Stream | null = null;
  const client = new Http2Connection({ role: "client", settings, handler: userHandler({}), nowMs });
  const server = new Http2Connection({ role: "server", settings, handler: userHandler({ onRequest: (stream) => void (accepted = stream) }), nowMs });
  const carry = () => {
    for (let moved = true; moved; ) {
      moved = false;
      for (const [from, to] of [[client, server], [server, client]] as const) {
        while (from.output.pendingBytes > 0) {
          const bytes = new Uint8Array(from.output.peek());
          from.output.consume(bytes.length);
          to.receive(bytes);
          moved = true;
        }
      }
    }
  };
  const noUser: TunnelStreamUser = { onResponse() {}, onStreamData() {}, onStreamEnd() {}, onStreamReset() {}, onSendable() {}, onStreamClosed() {} };
  const stream = client.request(encodeStaticBlock([":method", "CONNECT", ":authority", "198.18.0.1:80"]), false)!;
  stream.user = noUser;
  carry();
  server.respond(accepted!, encodeStaticBlock([":status", "200"]), false);
  (accepted! as Http2Stream).user = noUser;
  carry();
  const halfCloseIdle = new DeadlineQueue(1000);
  const end = (h2: Http2Connection, side: Http2Stream) => {
    const socket = new FakePlainSocket();
    const causes: CloseCause[] = [];
    const meter = { in: 0, out: 0, fromSocket: (n: number) => void (meter.in += n), toSocket: (n: number) => void (meter.out += n) };
    const relay = new StreamRelay({
      transport: new TunnelTransport(h2, 0), stream: side, socket: socket.plain, meter,
      place: { deadlines: { halfClose: halfCloseIdle }, nowMs, budget },
      owner: { relayFinished: (cause) => void causes.push(cause) },
    });
    side.user = relay;
    relay.start([], false, false);
    return { socket, relay, causes, meter };
  };
  return { client: end(client, stream), server: end(server, accepted!), carry, halfCloseIdle, clock, budget, shed };
}

const bytes = (text: string) => new TextEncoder().encode(text);

test("relay: carries bytes both ways and counts them", () => {
  const { client, server, carry } = pair();
  client.relay.onData(bytes("ping"));
  carry();
  server.relay.onData(bytes("pong!"));
  carry();
  expect(server.socket.text).toBe("ping");
  expect(client.socket.text).toBe("pong!");
  expect([client.meter.in, client.meter.out, server.meter.in, server.meter.out]).toEqual([4, 5, 5, 4]);
});

for (const first of ["client", "server"] as const) {
  test(`relay: half-close, ${first} first: the other direction goes on, and both end clean`, () => {
    const ends = pair();
    const [a, b] = first === "client" ? [ends.client, ends.server] : [ends.server, ends.client];
    a.relay.onEnd();
    ends.carry();
    expect(b.socket.shut).toBe(true);
    expect(a.socket.shut).toBe(false);
    b.relay.onData(bytes("still here"));
    ends.carry();
    expect(a.socket.text).toBe("still here");
    b.relay.onEnd();
    ends.carry();
    expect(a.socket.shut).toBe(true);
    expect([...a.causes, ...b.causes].map((cause) => cause.code)).toEqual(["clean", "clean"]);
  });
}

test("relay: a peer's FIN that comes as a plain close after ours still ends clean", () => {
  const { client, server, carry } = pair();
  server.relay.onEnd();
  carry();
  expect(client.socket.shut).toBe(true);
  client.relay.onClose(null);
  carry();
  expect(client.causes.map((cause) => cause.code)).toEqual(["clean"]);
  expect(server.causes.map((cause) => cause.code)).toEqual(["clean"]);
});

test("relay: a full application socket stops the sender at the stream's window, and loses nothing", () => {
  const { client, server, carry } = pair();
  server.socket.room = 1000;
  const chunk = new Uint8Array(512 * 1024).fill(7);
  let sent = 0;
  while (!client.socket.paused && sent < 64 * 1024 * 1024) {
    client.relay.onData(chunk);
    sent += chunk.length;
    carry();
  }
  expect(client.socket.paused).toBe(true);
  expect(sent).toBeLessThanOrEqual(DEFAULT_SETTINGS.initialWindowBytes + 2 * chunk.length);
  server.socket.room = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 100 && (client.socket.paused || server.socket.bytes < sent); i++) {
    server.relay.onDrain();
    carry();
  }
  expect(client.socket.paused).toBe(false);
  expect(server.socket.bytes).toBe(sent);
});

test("relay: FIN behind blocked bytes reaches the other side after them", () => {
  const { client, server, carry } = pair();
  server.socket.room = 0;
  const chunk = new Uint8Array(6 * 1024 * 1024).fill(1);
  client.relay.onData(chunk);
  client.relay.onEnd();
  carry();
  expect(server.socket.shut).toBe(false);
  server.socket.room = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 20; i++) {
    server.relay.onDrain();
    carry();
  }
  expect(server.socket.bytes).toBe(chunk.length);
  expect(server.socket.shut).toBe(true);
});

test("relay: a reset application socket resets the other application's socket too", () => {
  const { client, server, carry } = pair();
  client.relay.onClose(Object.assign(new Error("reset"), { code: "ECONNRESET" }));
  carry();
  expect(server.socket.terminated).toBe(true);
  expect(client.causes[0]!.code).toBe("socket_reset");
  expect(client.causes[0]!.message).toContain("ECONNRESET");
  expect(server.causes.map((cause) => cause.code)).toEqual(["stream_reset"]);
});

test("relay: CANCEL from the peer reads as its end: buffered bytes are delivered first", () => {
  const { client, server, carry } = pair();
  server.socket.room = 0;
  client.relay.onData(bytes("last words"));
  carry();
  server.relay.onStreamReset(ErrorCode.cancel, "peer", { code: "stream_reset", blame: "peer", message: "", flags: "-" });
  expect(server.causes).toEqual([]);
  server.socket.room = 100;
  server.relay.onDrain();
  expect(server.socket.text).toBe("last words");
  expect(server.socket.ended).toBe(true);
  expect(server.socket.terminated).toBe(false);
});

test("relay: half-closed and idle for too long ends; traffic in the open direction keeps it alive", () => {
  const { client, server, carry, halfCloseIdle, clock } = pair();
  client.relay.onEnd();
  carry();
  server.relay.onData(bytes("x"));
  carry();
  halfCloseIdle.tick((clock.ms = 1000));
  expect(server.causes).toEqual([]);
  halfCloseIdle.tick((clock.ms = 5000));
  expect(client.causes[0]!.code).toBe("half_close_idle");
});

test("relay: finishes once, with the first cause", () => {
  const { client } = pair();
  client.relay.destroy({ code: "policy_changed", blame: "operator", message: "why", flags: "DENY" });
  client.relay.onClose(Object.assign(new Error("x"), { code: "ECONNRESET" }));
  client.relay.onEnd();
  expect(client.causes.map((cause) => cause.code)).toEqual(["policy_changed"]);
});

test("relay: what waits for a slow application is counted, a byte at a time too, and gone from the count when it was read", () => {
  const { client, server, carry, budget } = pair();
  server.socket.room = 10;
  for (let i = 0; i < 2_000; i++) {
    client.relay.onData(bytes("x"));
    carry();
  }
  expect(server.relay.heldBytes).toBeGreaterThanOrEqual(1_990);
  expect(server.relay.heldBytes).toBeLessThan(10_000);
  expect(budget.heldBytes).toBe(server.relay.heldBytes);
  server.socket.room = Number.POSITIVE_INFINITY;
  server.relay.onDrain();
  expect([server.socket.bytes, budget.heldBytes, budget.holderCount]).toEqual([2_000, 0, 0]);
});

test("relay: what waits for a window is counted, and let go of when the connection ends", () => {
  const { client, budget } = pair({ ...DEFAULT_SETTINGS, initialWindowBytes: 65_535, connectionWindowBytes: 65_535 });
  client.relay.onData(new Uint8Array(300_000));
  expect(client.socket.paused).toBe(true);
  expect(budget.heldBytes).toBe(300_000 - 65_535);
  client.relay.destroy({ code: "drained", blame: "operator", message: "", flags: "-" });
  expect([budget.heldBytes, budget.holderCount]).toEqual([0, 0]);
});

test("relay: at the limit the connection whose reader stopped is ended at both ends, and says why", () => {
  const { client, server, carry, budget, shed } = pair(DEFAULT_SETTINGS, 256 * 1024);
  server.socket.room = 0;
  client.relay.onData(new Uint8Array(300_000));
  carry();
  expect(budget.full).toBe(true);
  budget.endOfTurn();
  carry();
  expect(shed).toEqual(["limit"]);
  expect([server.socket.terminated, client.socket.terminated]).toEqual([true, true]);
  expect(server.causes.map(({ code, message }) => [code, message])).toEqual([["limit", expect.stringContaining("300000 bytes waited for a reader that did not take them") as unknown as string]]);
  expect(client.causes.map(({ code, message }) => [code, message])).toEqual([["stream_reset", "11"]]);
  expect([budget.heldBytes, budget.holderCount]).toEqual([0, 0]);
});
