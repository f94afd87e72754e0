// A waypoint's HTTP in this process, between real sockets on loopback: a listener for one service, servers behind it, records by hand.
// At its end nothing may be left: no request, connection or deadline.

import { expect } from "bun:test";
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from "node:http";
import { connect as connect2, createServer as createServer2, type Http2Server } from "node:http2";
import { connect, type AddressInfo, type Socket } from "node:net";
import { namespacedName, type NamespacedName } from "../../src/core/brand.ts";
import type { IpAddress } from "../../src/core/ip.ts";
import { type Clock, seededRandom, systemClock } from "../../src/core/ports.ts";
import { formatProvenance } from "../../src/core/fault.ts";
import { EMPTY_L7_DELTA, type L7Delta } from "../../src/mesh/l7/delta.ts";
import { L7Store } from "../../src/mesh/l7/l7-store.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import type { Due } from "../../src/net/due-list.ts";
import { listenTcp } from "../../src/net/listen.ts";
import { OWN_NAMESPACE } from "../../src/net/namespace.ts";
import { localAddress } from "../../src/net/original-destination.ts";
import { connectionFacts } from "../../src/policy/connection-facts.ts";
import type { RuleTelling } from "../../src/policy/http/rule-header.ts";
import type { RequestSource } from "../../src/policy/http/request.ts";
import type { NameSource } from "../../src/policy/upstream/endpoint-list.ts";
import { ByteBudget } from "../../src/tunnel/byte-budget.ts";
import type { Listener } from "../../src/tunnel/endpoint-socket.ts";
import type { Client } from "../../src/waypoint/downstream/client.ts";
import { HttpPlane } from "../../src/waypoint/http-plane.ts";
import { RequestTelemetry } from "../../src/waypoint/request/request-telemetry.ts";
import type { OtlpBatch } from "../../src/telemetry/otlp-records.ts";
import type { RequestRecord } from "../../src/telemetry/request-record.ts";
import type { RoleTelemetry } from "../../src/telemetry/service-telemetry.ts";
import { dialPlain, listenOn } from "../../src/waypoint/channel/plain-channel.ts";
import type { LoginChecker, TokenChecker } from "../../src/waypoint/request/request-host.ts";
import { KEY_SEPARATOR } from "../../src/telemetry/connection-labels.ts";
import { until } from "./until.ts";
import { delta, ip, member, service, serviceName, uid, workload } from "./mesh-records.ts";

/** What is kept of a request that has ended. */
export interface Told {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  readonly code: string | null;
  readonly flags: string;
  readonly detail: string;
  readonly provenance: string;
  readonly attempts: number;
  readonly upstreamAddress: string | null;
  readonly requestBytes: number;
  readonly responseBytes: number;
  readonly grpcStatus: number | null;
}

export interface BackendSpec {
  /** Of its service; the first of several for the service that clients mean is `web`. */
  readonly service?: string;
  readonly port: number;
}

export interface WaypointOptions {
  /** What all requests and connections together may hold. */
  readonly bufferBytesMax?: number;
  readonly l7?: Partial<L7Delta>;
  readonly endpoints: readonly BackendSpec[];
  /** Name of the port of each service: says what its servers speak. */
  readonly portName?: string;
  readonly source?: Partial<RequestSource>;
  /** The waypoint's own. */
  readonly addresses?: readonly IpAddress[];
  readonly tokens?: TokenChecker;
  readonly logins?: LoginChecker;
  readonly names?: NameSource;
  /** `mesh`. */
  readonly ruleTelling?: RuleTelling;
  /** What is told where no Telemetry says otherwise; nothing but metrics by default. */
  readonly telemetry?: Partial<RoleTelemetry>;
}

const LOOPBACK = ip("127.0.0.1");
const WAYPOINT = namespacedName("shop", "waypoint");
const NO_LOGINS: LoginChecker = {
  context: () => {
    throw new Error("no logins in this test");
  },
  settle: () => Promise.reject(new Error("no logins in this test")),
};
const NO_TOKENS: TokenChecker = { recall: () => null, verify: () => Promise.reject(new Error("no verifier in this test")) };

export class WaypointFixture implements AsyncDisposable {
  readonly plane: HttpPlane;
  readonly store = new MeshStore();
  readonly l7 = new L7Store();
  readonly #clock = new HurriedClock();
  readonly told: Told[] = [];
  readonly malformed: string[] = [];
  readonly budget: ByteBudget;
  /** Why something was ended for the bytes that it held. */
  readonly shed: string[] = [];
  /** Of endpoints: code and words. */
  readonly news: string[] = [];
  readonly passed: { readonly error: string | null; readonly requestBytes: number; readonly responseBytes: number }[] = [];
  /** Of the access log, once they were flushed. */
  lines = "";
  readonly batches: OtlpBatch[] = [];
  readonly telemetry: RequestTelemetry;
  readonly port: number;
  readonly #listener: Listener;
  readonly #clients: RawClient[] = [];

  constructor(options: WaypointOptions) {
    const services = [...new Set(["web", ...options.endpoints.map(({ service: name = "web" }) => name)])];
    this.store.apply(delta({
      services: services.map((name) => service({ name, ports: [{ servicePort: 80, targetPort: 0, name: options.portName ?? "http", appProtocol: "" }] })),
      workloads: options.endpoints.map((endpoint, i) => endpointOf(endpoint, i)),
    }));
    this.l7.apply({ ...EMPTY_L7_DELTA, ...options.l7 });
    const self = workload({ name: "waypoint", addresses: options.addresses ?? [], locality: { region: "", zone: "", subzone: "" } });
    this.telemetry = new RequestTelemetry({
      role: { ...QUIET, ...options.telemetry }, clock: this.#clock, random: seededRandom(8), fillRandom: (bytes) => void crypto.getRandomValues(bytes), newRequestId: () => crypto.randomUUID(),
      postLines: (lines) => void (this.lines += new TextDecoder().decode(lines)), postNews: () => {}, postOtlp: (batches) => void this.batches.push(...batches), logCredit: null, otlpCredit: null,
    });
    const { telemetry } = this;
    this.plane = new HttpPlane({
      store: this.store, l7: this.l7, waypoint: WAYPOINT, network: "", self: () => self, labels: (of, label) => this.l7.labels(of.uid)?.[label], names: options.names ?? null, tokens: options.tokens ?? NO_TOKENS, logins: options.logins ?? NO_LOGINS, ruleTelling: options.ruleTelling ?? "mesh", sessionSigner: { sign: (text) => Bun.hash(text).toString(36) },
      budget: (this.budget = new ByteBudget(options.bufferBytesMax ?? 1 << 30, { pressed: () => {}, relieved: () => {}, shedding: (why) => void this.shed.push(why) })),
      clock: this.#clock, random: seededRandom(7), pathNormalisation: "base",
      dialer: {
        dial: ({ ip: address, targetPort }, { service: meant }, owner, timeoutMs, nowMs) =>
          // A dialer of the mesh looks at the service: whoever dials has to know it.
          meant.hostname === "" ? expect.unreachable() : dialPlain({ namespaceFd: OWN_NAMESPACE, to: { ip: address!, port: targetPort }, mark: 0, keepalive: null, timeoutMs }, owner, this.plane.due, nowMs),
        isTunnelled: ({ workload }) => workload.tunnelProtocol !== "TCP",
      },
      observer: {
        upstream: telemetry.upstream,
        endpointNews: ({ code, message }) => void this.news.push(`${code} ${message}`),
        telemetryOf: (effective) => telemetry.telemetryOf(effective),
        trace: (fields, of) => telemetry.trace(fields, of),
        requestId: (fields) => telemetry.requestId(fields),
        ended: (request) => {
          telemetry.ended(request);
          this.told.push(tell(request));
        },
        malformed: (client, code, message) => {
          telemetry.malformed(client, code, message);
          this.malformed.push(code);
        },
        passing: (client, endpoint) => telemetry.passing(client, endpoint),
        passedThrough: (connection) => {
          telemetry.passedThrough(connection);
          const { error, requestBytes, responseBytes } = connection;
          this.passed.push({ error, requestBytes, responseBytes });
        },
      },
    });
    const fd = listenTcp({ namespaceFd: OWN_NAMESPACE, at: { ip: LOOPBACK, port: 0 }, mark: 0, keepalive: null, shared: false });
    if (fd < 0) throw new Error(`listen: ${fd}`);
    this.port = portOf(fd);
    this.#listener = listenOn(fd, (channel) => this.plane.accept(channel, clientOf(serviceName(service({ name: "web" })), options.source ?? {}, channel.remote.ip)));
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The record of the request that ended last, once `count` have. */
  async ended(count = 1): Promise<Told> {
    await until(`${count} requests to have ended (${this.told.length} have)`, 5_000, () => this.told.length >= count || null);
    return this.told[count - 1]!;
  }

  /** Counters of one family by the values of their labels, joined by spaces. */
  counted(family: string): Record<string, number> {
    const found = this.telemetry.snapshot([]).cells.find(({ name }) => name === family);
    return Object.fromEntries(found?.keys.map((key, i) => [key.replaceAll(KEY_SEPARATOR, " "), found.values[i]!]) ?? []);
  }

  change(l7: Partial<L7Delta>): void {
    if (this.l7.apply({ ...EMPTY_L7_DELTA, ...l7 }).labelsChanged) this.plane.clusters.relabelled();
    this.plane.changed();
  }

  /** Time passes: what has become due by then is called before this resolves. */
  async later(ms: number): Promise<void> {
    this.#clock.aheadMs += ms;
    // The list sleeps by real time: a member that is due at once makes it look.
    const called = Promise.withResolvers<void>();
    const look: Due = { dueMs: -Infinity, dueIndex: -1, onDue: () => called.resolve() };
    this.plane.due.add(look);
    await called.promise;
    this.plane.due.remove(look);
  }

  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.url + path, { redirect: "manual", ...init });
  }

  /** A call by gRPC. @param message with its prefix of five bytes. @returns the headers of the answer, which are also its trailers where it has nothing else. */
  async grpc(message: Uint8Array = new Uint8Array(0), fields: Readonly<Record<string, string>> = {}): Promise<Readonly<Record<string, unknown>>> {
    const session = connect2(this.url);
    const headers = await new Promise<Record<string, unknown>>((resolve) => {
      const stream = session.request({ ":method": "POST", ":path": "/a.B/C", "content-type": "application/grpc", ...fields });
      stream.on("response", resolve).resume();
      stream.end(message);
    });
    session.close();
    return headers;
  }

  raw(): RawClient {
    const client = new RawClient(this.port);
    this.#clients.push(client);
    return client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.stop();
    const { plane } = this;
    // A failed expectation may have left them; what it said is not to be covered by what they make fail here.
    for (const client of this.#clients) client.destroy();
    await until("requests to end", 5_000, () => plane.requests.size === 0 || null);
    plane.destroy();
    // Channels that close in order are gone after their last bytes.
    await until("connections to close", 5_000, () => plane.connections.size === 0 || null);
    expect(plane.requests.size).toBe(0);
    expect([this.budget.heldBytes, this.budget.holderCount]).toEqual([0, 0]);
    expect(plane.due.size).toBe(0);
    for (const cluster of plane.clusters) expect(cluster.empty).toBe(true);
  }
}

/** Real time, and what a test adds to it. */
class HurriedClock implements Clock {
  aheadMs = 0;
  monotonicMs(): number {
    return systemClock.monotonicMs() + this.aheadMs;
  }
  wallMs(): number {
    return systemClock.wallMs() + this.aheadMs;
  }
}

const QUIET: RoleTelemetry = { accessLog: "off", accessLogSample: 1, logOptions: { query: "redacted" }, collectors: [], sampling: 1, environment: () => undefined };

function tell(request: RequestRecord): Told {
  const { method, path, status, code, flags, detail, provenance, attempts, upstreamAddress, requestBytes, responseBytes, grpcStatus } = request;
  return {
    method, path, status, code, flags, detail, provenance: provenance === null ? "" : formatProvenance(provenance), attempts, upstreamAddress,
    requestBytes, responseBytes, grpcStatus,
  };
}

function endpointOf({ service: name = "web", port }: BackendSpec, i: number) {
  const of = serviceName(service({ name }));
  return workload({ name: `e${i}`, uid: uid(`e${i}`), addresses: [LOOPBACK], tunnelProtocol: "TCP", services: member({ [of]: { 80: port } }), locality: { region: "", zone: "", subzone: "" } });
}

function clientOf(name: NamespacedName, source: Partial<RequestSource>, address: IpAddress): Client {
  return {
    source: { identity: null, namespace: "shop", labels: {}, ip: address, ...source }, workload: null, address: { ip: address, port: 0 }, sni: null, mutualTls: source.identity != null, trace: null,
    facts: connectionFacts({ peer: source.identity ?? null, sourceIp: address, destinationIp: LOOPBACK, destinationPort: 80 }, null),
    destination: { service: name, port: 80 }, view: null,
  };
}

const portOf = (fd: number): number => localAddress(fd)!.port;

/** A client that sends what it wants. */
export class RawClient {
  readonly socket: Socket;
  received = "";
  bytes = 0;
  ended = false;
  error: string | null = null;
  /** False: counts only. */
  keep = true;

  constructor(port: number) {
    this.socket = connect(port, "127.0.0.1");
    this.socket.on("data", (chunk) => {
      this.bytes += chunk.length;
      if (this.keep) this.received += chunk.toString("latin1");
    });
    this.socket.on("end", () => (this.ended = true));
    this.socket.on("error", (error: NodeJS.ErrnoException) => (this.error = error.code ?? error.message));
    this.socket.on("close", () => (this.ended = true));
  }

  send(text: string): this {
    this.socket.write(Buffer.from(text, "latin1"));
    return this;
  }

  async until(what: string | RegExp): Promise<string> {
    await until(`${String(what)} in ${JSON.stringify(this.received.slice(-400))}`, 5_000, () => (typeof what === "string" ? this.received.includes(what) : what.test(this.received)) || null);
    return this.received;
  }

  async closed(): Promise<string> {
    await until("the connection to close", 8_000, () => this.ended || null);
    return this.received;
  }

  destroy(): void {
    this.socket.resetAndDestroy();
  }
}

export interface Backend extends AsyncDisposable {
  readonly port: number;
  /** Requests seen: method, target, and what the handler kept. */
  readonly seen: { readonly method: string; readonly url: string; readonly headers: IncomingMessage["headers"] }[];
  readonly server: Server | Http2Server;
}

/** An HTTP/1.1 server. */
export async function backend1(handler: RequestListener, host = "127.0.0.1", port = 0): Promise<Backend> {
  const seen: { method: string; url: string; headers: IncomingMessage["headers"] }[] = [];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    seen.push({ method: request.method!, url: request.url!, headers: request.headers });
    handler(request, response as ServerResponse & { req: IncomingMessage });
  });
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  return { port: (server.address() as AddressInfo).port, seen, server, [Symbol.asyncDispose]: async () => void (server.closeAllConnections(), server.close()) };
}

/** An HTTP/2 server with prior knowledge. */
export async function backend2(onStream: (stream: import("node:http2").ServerHttp2Stream, headers: import("node:http2").IncomingHttpHeaders) => void, host = "127.0.0.1"): Promise<Backend> {
  const seen: { method: string; url: string; headers: IncomingMessage["headers"] }[] = [];
  const server = createServer2();
  const sessions = new Set<import("node:http2").ServerHttp2Session>();
  server.on("session", (session) => sessions.add(session));
  server.on("stream", (stream: import("node:http2").ServerHttp2Stream, headers: import("node:http2").IncomingHttpHeaders) => {
    seen.push({ method: String(headers[":method"]), url: String(headers[":path"]), headers: headers as IncomingMessage["headers"] });
    stream.on("error", () => {});
    onStream(stream, headers);
  });
  await new Promise<void>((resolve) => server.listen(0, host, resolve));
  return {
    port: (server.address() as AddressInfo).port, seen, server,
    [Symbol.asyncDispose]: async () => {
      for (const session of sessions) session.destroy();
      server.close();
    },
  };
}

/** A server that says what it wants. */
export async function rawBackend(onConnection: (socket: Socket) => void): Promise<Backend> {
  const { createServer: createTcp } = await import("node:net");
  const sockets = new Set<Socket>();
  const server = createTcp((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port, seen: [], server: server as unknown as Server,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}
