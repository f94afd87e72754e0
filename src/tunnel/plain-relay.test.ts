import { expect, test } from "bun:test";
import { FakePlainSocket } from "../../test/kit/fake-plain-socket.ts";
import { ByteBudget } from "./byte-budget.ts";
import { DeadlineQueue } from "../net/deadlines.ts";
import type { CloseCause } from "./close-cause.ts";
import { PlainRelay } from "./plain-relay.ts";

function setUp(early: Uint8Array[] = [], ended = false) {
  const client = new FakePlainSocket();
  const server = new FakePlainSocket();
  const causes: CloseCause[] = [];
  const counted = { sent: 0, received: 0 };
  const clock = { ms: 0 };
  const halfCloseIdle = new DeadlineQueue(1000);
  const budget = new ByteBudget(1 << 30, { pressed: () => {}, relieved: () => {}, shedding: () => {} });
  const relay = new PlainRelay({
    budget,
    client: client.plain, server: server.plain, halfCloseIdle, nowMs: () => clock.ms,
    meter: { toServer: (n) => void (counted.sent += n), toClient: (n) => void (counted.received += n) },
    onFinished: (cause) => void causes.push(cause),
  });
  relay.start(early, ended, false);
  return { client, server, causes, counted, relay, halfCloseIdle, clock, budget };
}

const bytes = (text: string) => new TextEncoder().encode(text);

test("plain relay: carries both ways, early bytes first, and counts by direction", () => {
  const { client, server, counted } = setUp([bytes("GET ")]);
  client.data.onData(bytes("/"));
  server.data.onData(bytes("200"));
  expect(server.text).toBe("GET /");
  expect(client.text).toBe("200");
  expect(counted).toEqual({ sent: 5, received: 3 });
});

test("plain relay: a full socket pauses the other one and resumes it when drained, in order", () => {
  const { client, server } = setUp();
  server.room = 3;
  client.data.onData(bytes("hello"));
  expect(client.paused).toBe(true);
  client.data.onData(bytes(" world")); // read before the pause took hold
  server.room = 4;
  server.data.onDrain();
  expect(client.paused).toBe(true);
  server.room = 100;
  server.data.onDrain();
  expect(client.paused).toBe(false);
  expect(server.text).toBe("hello world");
});

test("plain relay: FIN waits for the bytes before it", () => {
  const { client, server, causes } = setUp();
  server.room = 0;
  client.data.onData(bytes("x"));
  client.data.onEnd();
  expect(server.shut).toBe(false);
  server.room = 10;
  server.data.onDrain();
  expect(server.shut).toBe(true);
  server.data.onData(bytes("answer"));
  server.data.onEnd();
  expect(client.text).toBe("answer");
  expect(client.shut).toBe(true);
  expect(causes.map((cause) => cause.code)).toEqual(["clean"]);
});

test("plain relay: a client that had already ended when the server was reached", () => {
  const { server, client, causes } = setUp([bytes("q")], true);
  expect(server.text).toBe("q");
  expect(server.shut).toBe(true);
  server.data.onEnd();
  expect(client.shut).toBe(true);
  expect(causes.map((cause) => cause.code)).toEqual(["clean"]);
});

test("plain relay: after our FIN the peer's comes as a close without an end", () => {
  const { client, server, causes } = setUp();
  client.data.onEnd();
  server.data.onClose(null);
  expect(client.shut).toBe(true);
  expect(causes.map((cause) => cause.code)).toEqual(["clean"]);
});

test("plain relay: a reset on one side resets the other", () => {
  const { client, server, causes } = setUp();
  server.data.onClose(Object.assign(new Error("r"), { code: "ECONNRESET" }));
  expect(client.terminated).toBe(true);
  expect(causes[0]!.code).toBe("socket_reset");
});

test("plain relay: idle after a half-close ends; bytes in between give it more time", () => {
  const { client, server, causes, halfCloseIdle, clock } = setUp();
  client.data.onEnd();
  server.data.onData(bytes("x"));
  halfCloseIdle.tick((clock.ms = 1000));
  expect(causes).toEqual([]);
  halfCloseIdle.tick((clock.ms = 2000));
  expect(causes.map((cause) => cause.code)).toEqual(["half_close_idle"]);
});

test("plain relay: what waits is counted, and no longer when it was read or the connection ended", () => {
  const { client, server, relay, budget } = setUp();
  server.room = 10;
  client.data.onData(new Uint8Array(100));
  client.data.onData(new Uint8Array(50));
  expect([budget.heldBytes, relay.heldBytes, budget.holderCount]).toEqual([140, 140, 1]);
  server.room = 120;
  server.data.onDrain();
  expect([budget.heldBytes, budget.holderCount]).toEqual([20, 1]);
  server.room = 1_000;
  server.data.onDrain();
  expect([budget.heldBytes, budget.holderCount, server.bytes]).toEqual([0, 0, 150]);
  client.room = 0;
  server.data.onData(new Uint8Array(77));
  expect(budget.heldBytes).toBe(77);
  relay.shed();
  expect([budget.heldBytes, budget.holderCount, client.terminated, server.terminated]).toEqual([0, 0, true, true]);
});
