import { expect, test } from "bun:test";
import { tcpPair } from "../../test/kit/tcp-pair.ts";
import { close, MSG_DONTWAIT, MSG_NOSIGNAL, recv, send } from "../net/libc.ts";
import { DeadlineQueue } from "../net/deadlines.ts";
import { ByteBudget } from "./byte-budget.ts";
import type { CloseCause } from "./close-cause.ts";
import { adoptSocket, type PlainEnd, type PlainSocket } from "./endpoint-socket.ts";
import { PlainRelay } from "./plain-relay.ts";

const BYTES = 48 * 1024 * 1024;
const pattern = new Uint8Array(BYTES).map((_, i) => (i * 31 + (i >>> 11)) & 0xff);

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The runtime's socket over a descriptor. */
function adopted(fd: number): Promise<PlainSocket> {
  return new Promise((resolve) => {
    const end: PlainEnd = { onOpen: resolve, onDrain() {}, onData() {}, onEnd() {}, onClose() {} };
    adoptSocket(fd, end);
  });
}

/** Client ── relay ── server over real sockets; counts the bytes and the calls that counted them. */
async function setUp() {
  const [client, relayClient] = tcpPair();
  const [relayServer, server] = tcpPair();
  const causes: CloseCause[] = [];
  const counted = { toServer: 0, toClient: 0 };
  const relay = new PlainRelay({
    client: await adopted(relayClient), server: await adopted(relayServer),
    meter: { toServer: (n) => void (counted.toServer += n), toClient: (n) => void (counted.toClient += n) },
    halfCloseIdle: new DeadlineQueue(1000), nowMs: () => 0,
    budget: new ByteBudget(1 << 30, { pressed: () => {}, relieved: () => {}, shedding: () => {} }),
    onFinished: (cause) => void causes.push(cause),
  });
  relay.start([], false, false);
  return { client, server, causes, counted, relay };
}

for (const [reader, readEvery] of [["fast", 1], ["slow", 7]] as const) {
  for (const direction of ["toServer", "toClient"] as const) {
    test(`plain relay: a bulk transfer ${direction === "toServer" ? "to the server" : "back"} with a ${reader} reader arrives whole and in order, and is counted`, async () => {
      const at = await setUp();
      const [sender, receiver] = direction === "toServer" ? [at.client, at.server] : [at.server, at.client];
      let [sent, received, turns] = [0, 0, 0];
      let same = true;
      const part = new Uint8Array(1024 * 1024);
      while (received < BYTES && same) {
        while (sent < BYTES) {
          const taken = send(sender, pattern.subarray(sent, sent + part.length), MSG_DONTWAIT | MSG_NOSIGNAL);
          if (taken <= 0) break;
          sent += taken;
        }
        await nextTurn();
        if (turns++ % readEvery !== 0) continue;
        for (let got = recv(receiver, part, MSG_DONTWAIT); got > 0; got = recv(receiver, part, MSG_DONTWAIT)) {
          same &&= Buffer.compare(part.subarray(0, got), pattern.subarray(received, received + got)) === 0;
          received += got;
        }
      }
      expect({ same, received }).toEqual({ same: true, received: BYTES });
      expect(at.counted[direction]).toBe(BYTES);
      close(sender);
      close(receiver);
      while (at.causes.length === 0) await nextTurn();
    }, 30_000);
  }
}
