// What a whole request costs a waypoint, without sockets: HTTP/2 from 64 clients, one shared connection to a server that writes its head field
// by field, as nginx does; with nothing told of it, with a log line, with traces of 1 percent. `bun bench/micro/waypoint.ts`. The best of
// rounds: whatever else runs on the machine only adds. Compare only runs of the same machine.

import { namespacedName } from "../../src/core/brand.ts";
import { seededRandom, systemClock } from "../../src/core/ports.ts";
import { EMPTY_L7_DELTA } from "../../src/mesh/l7/delta.ts";
import { L7Store } from "../../src/mesh/l7/l7-store.ts";
import type { OtlpCollector } from "../../src/mesh/l7/telemetry.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { connectionFacts } from "../../src/policy/connection-facts.ts";
import type { RoleTelemetry } from "../../src/telemetry/service-telemetry.ts";
import { ByteBudget } from "../../src/tunnel/byte-budget.ts";
import type { ChannelUser, ChannelWithUser } from "../../src/waypoint/channel/channel.ts";
import type { Client } from "../../src/waypoint/downstream/client.ts";
import { HttpPlane } from "../../src/waypoint/http-plane.ts";
import { RequestTelemetry } from "../../src/waypoint/request/request-telemetry.ts";
import { CLIENT_PREFACE } from "../../src/wire/http2/frames.ts";
import { encodeStateless, HpackEncoder } from "../../src/wire/http2/hpack-encoder.ts";
import { path, route, to } from "../../test/kit/http-records.ts";
import { delta, ip, member, service, serviceName, uid, workload } from "../../test/kit/mesh-records.ts";

const CLIENTS = 64;
const TURNS_A_ROUND = 40;
const ROUNDS = 60;
const WARM_UP_ROUNDS = 60;
const BODY_BYTES = 1024;
const HEADERS = 1;
const DATA = 0;
const LOOPBACK = ip("127.0.0.1");
const WEB = serviceName(service({ name: "web" }));
const QUIET: RoleTelemetry = { accessLog: "off", accessLogSample: 1, logOptions: { query: "redacted" }, collectors: [], sampling: 1, environment: () => undefined };
const COLLECTOR: OtlpCollector = { name: "c", protocol: "http", service: namespacedName("obs", "c"), port: 4318, path: "/v1/traces", timeoutMs: 1000, headers: [] };
const SETTINGS = frame(4, 0, 0, new Uint8Array(0));
/** Of the whole connection, once for all: as much as there can be. */
const WINDOW = frame(8, 0, 0, new Uint8Array([0x7f, 0xff, 0, 0]));

function frame(type: number, flags: number, id: number, payload: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(9 + payload.length);
  bytes.set([payload.length >>> 16, payload.length >>> 8, payload.length, type, flags, id >>> 24, id >>> 16, id >>> 8, id]);
  bytes.set(payload, 9);
  return bytes;
}

/** A channel in memory. What is written goes to `peer`. */
class MemoryChannel implements ChannelWithUser {
  user: ChannelUser | null = null;
  peer: (bytes: Uint8Array) => void = () => {};
  write(bytes: Uint8Array): number {
    this.peer(bytes);
    return bytes.length;
  }
  pause(): void {}
  resume(): void {}
  end(): void {}
  close(): void {}
  destroy(): void {}
}

const ANSWER_HEAD = encodeStateless([":status", "200", "server", "nginx/1.22.1", "date", "Thu, 01 Jan 2026 00:00:00 GMT", "content-type", "text/plain", "content-length", String(BODY_BYTES)]);
const ANSWER = Buffer.concat([frame(HEADERS, 4, 0, ANSWER_HEAD), frame(DATA, 1, 0, new Uint8Array(BODY_BYTES).fill(0x78))]);
const BODY_AT = 9 + ANSWER_HEAD.length;

/** Answers each HEADERS frame in `bytes`, all in one piece. */
function answersTo(bytes: Uint8Array, from: number): Uint8Array {
  const ids: number[] = [];
  for (let at = from; at < bytes.length; at += 9 + (bytes[at]! << 16 | bytes[at + 1]! << 8 | bytes[at + 2]!)) {
    if (bytes[at + 3] === HEADERS) ids.push(bytes[at + 5]! << 24 | bytes[at + 6]! << 16 | bytes[at + 7]! << 8 | bytes[at + 8]!);
  }
  const out = new Uint8Array(ANSWER.length * ids.length);
  ids.forEach((id, i) => {
    out.set(ANSWER, i * ANSWER.length);
    for (const at of [i * ANSWER.length + 5, i * ANSWER.length + BODY_AT + 5]) out.set([id >>> 24, id >>> 16, id >>> 8, id], at);
  });
  return out;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function measure(name: string, telemetryOf: Partial<RoleTelemetry>): Promise<void> {
  const [store, l7] = [new MeshStore(), new L7Store()];
  store.apply(delta({
    services: [service({ name: "web", ports: [{ servicePort: 80, targetPort: 0, name: "http2", appProtocol: "" }] })],
    workloads: [workload({ name: "e0", uid: uid("e0"), addresses: [LOOPBACK], tunnelProtocol: "TCP", services: member({ [WEB]: { 80: 8080 } }), locality: { region: "", zone: "", subzone: "" } })],
  }));
  l7.apply({ ...EMPTY_L7_DELTA, routes: [route({ rules: [to("web", { path: path.prefix("/") })] })] });
  const clock = systemClock;
  let lineChars = 0;
  const telemetry = new RequestTelemetry({
    role: { ...QUIET, ...telemetryOf }, clock, random: seededRandom(8), fillRandom: (bytes) => void crypto.getRandomValues(bytes), newRequestId: () => crypto.randomUUID(),
    postLines: (lines) => void (lineChars += lines.length), postNews: () => {}, postOtlp: () => {}, logCredit: null, otlpCredit: null,
  });
  const self = workload({ name: "waypoint", locality: { region: "", zone: "", subzone: "" } });
  let toServer = 0;
  const plane: HttpPlane = new HttpPlane({
    store, l7, waypoint: namespacedName("shop", "waypoint"), network: "", self: () => self, labels: () => undefined, names: null, clock, random: seededRandom(7), pathNormalisation: "base",
    tokens: { recall: () => null, verify: () => Promise.reject(new Error("no tokens here")) }, sessionSigner: null, ruleTelling: "mesh", budget: new ByteBudget(1 << 30, { pressed: () => {}, relieved: () => {}, shedding: () => {} }),
    logins: { context: () => { throw new Error("no logins here"); }, settle: () => Promise.reject(new Error("no logins here")) },
    observer: telemetry,
    dialer: {
      isTunnelled: () => false,
      dial: (_target, _way, owner) => {
        const channel = new MemoryChannel();
        let started = false;
        channel.peer = (bytes) => {
          const from = started ? 0 : CLIENT_PREFACE.length;
          started = true;
          toServer += bytes.length;
          const answers = answersTo(bytes, from);
          if (answers.length > 0) setImmediate(() => channel.user!.onBytes(answers));
        };
        queueMicrotask(() => {
          owner.connected(channel, null);
          channel.user!.onBytes(SETTINGS);
        });
        return { cancel: () => {} };
      },
    },
  });
  const client: Client = {
    source: { identity: null, namespace: "shop", labels: {}, ip: LOOPBACK }, workload: null, address: { ip: LOOPBACK, port: 0 }, sni: null, mutualTls: false, trace: null,
    facts: connectionFacts({ peer: null, sourceIp: LOOPBACK, destinationIp: LOOPBACK, destinationPort: 80 }, null), destination: { service: WEB, port: 80 }, view: null,
  };
  let received = 0;
  const clients = Array.from({ length: CLIENTS }, () => {
    const channel = new MemoryChannel();
    channel.peer = (bytes) => void (received += bytes.length);
    plane.accept(channel, client);
    channel.user!.onBytes(Buffer.concat([CLIENT_PREFACE, SETTINGS, WINDOW]));
    return { channel, encoder: new HpackEncoder() };
  });
  let id = 1;
  const requests = async (): Promise<void> => {
    for (const { channel, encoder } of clients) {
      channel.user!.onBytes(frame(HEADERS, 5, id, encoder.encode([":method", "GET", ":scheme", "http", ":authority", "127.0.0.1:10081", ":path", "/", "user-agent", "h2load nghttp2/1.52.0"])));
    }
    id += 2;
    while (plane.requests.size > 0) await turn();
    await turn();
  };
  const rounds: number[] = [];
  for (let round = -WARM_UP_ROUNDS; round < ROUNDS; round++) {
    const startedMs = performance.now();
    for (let i = 0; i < TURNS_A_ROUND; i++) await requests();
    telemetry.flush();
    if (round >= 0) rounds.push(((performance.now() - startedMs) * 1000) / (TURNS_A_ROUND * CLIENTS));
  }
  const expected = (id - 1) / 2 * CLIENTS;
  if (received < expected * BODY_BYTES || toServer === 0) throw new Error(`${received} bytes came for ${expected} requests`);
  if (telemetryOf.accessLog === "text" && lineChars === 0) throw new Error("no line was made");
  plane.destroy();
  rounds.sort((a, b) => a - b);
  console.log(`${name.padEnd(28)} ${rounds[0]!.toFixed(2).padStart(7)} us   (quarter ${rounds[rounds.length >> 2]!.toFixed(2)}, median ${rounds[rounds.length >> 1]!.toFixed(2)})`);
}

await measure("nothing told", {});
await measure("a line for each", { accessLog: "text" });
await measure("traces of 1 percent", { collectors: [COLLECTOR], sampling: 0.01 });
await measure("both", { accessLog: "text", collectors: [COLLECTOR], sampling: 0.01 });
process.exit(0);
