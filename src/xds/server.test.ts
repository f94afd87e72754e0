// The server over real connections: who may connect, what a slow client costs, what the end of a stream leaves.

import { afterEach, describe, expect, test } from "bun:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { type Clock, seededRandom, systemClock } from "../core/ports.ts";
import { Pushed } from "../../test/kit/pushed.ts";
import { err, ok } from "../core/result.ts";
import { systemTimers, type Timers } from "../net/timers.ts";
import { ip, service, uid, workload } from "../../test/kit/mesh-records.ts";
import { PublishedMesh } from "../../test/kit/published-mesh.ts";
import { longestTurnMs } from "../../test/kit/fair-time.ts";
import { until } from "../../test/kit/until.ts";
import { AggregatedDiscoveryService, type DeltaDiscoveryRequest, DeltaDiscoveryRequestSchema, type DeltaDiscoveryResponse, type DiscoveryRequest, DiscoveryRequestSchema, type DiscoveryResponse, ResourceSchema } from "../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { ClientConfigSchema } from "../wire/protobuf/envoy/service/status/v3/csds_pb.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "./resource.ts";
import { FIRST_REQUEST_MS, STALLED_MS, STATUS_STREAMS_MAX, XdsServer, type XdsServerEvent } from "./server.ts";
import { SYNC_TYPE } from "./server/sync-status.ts";

const WAIT_MS = 10_000;
const TOKENS = ["good", "operator"];
const events: XdsServerEvent[] = [];
let aheadMs = 0;
const clock: Clock = { wallMs: () => systemClock.wallMs(), monotonicMs: () => systemClock.monotonicMs() + aheadMs };
const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0).reverse()) close();
  events.length = 0;
  aheadMs = 0;
});

async function start(sendingBytesMax?: number, timers: Timers = systemTimers): Promise<{ xds: XdsServer; port: number }> {
  const xds = new XdsServer({
    replica: { name: "control-1", version: "0.9", clusterId: "c1" }, clock, random: seededRandom(1), timers, onEvent: (event) => events.push(event), ...(sendingBytesMax === undefined ? {} : { sendingBytesMax }),
    authenticate: {
      authenticate: async ({ bearerToken }) => (bearerToken === null || !TOKENS.includes(bearerToken) ? err(`the token is ${bearerToken === null ? "missing" : "not known"}`)
        : ok({ name: "node-1", refusal: (view) => (view.kind === "node" && view.node === "node-1" ? null : "node-1 may only be itself"), statusRefusal: () => (bearerToken === "operator" ? null : "node-1 may not ask about the others") })),
    },
  });
  const server = http2.createServer({}, connectNodeAdapter({ connect: false, grpcWeb: false, routes: xds.routes, contextValues: xds.contextValues }));
  const sessions = new Set<http2.Http2Session>();
  server.on("session", (session) => sessions.add(session));
  const listening = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", () => listening.resolve());
  await listening.promise;
  closers.push(() => {
    server.close();
    for (const session of sessions) session.destroy();
  });
  return { xds, port: (server.address() as AddressInfo).port };
}

/** Requests that a test sends one by one. */
class Requests extends Pushed<DeltaDiscoveryRequest> {
  send(fields: Parameters<typeof create<typeof DeltaDiscoveryRequestSchema>>[1]): void {
    this.push(create(DeltaDiscoveryRequestSchema, fields));
  }
}

const LARGE = 5_000;
const LARGER = 40_000;
const MANY = 100_000;
/** A slice of ten milliseconds, and a turn of the collector. */
const TURN_MS_MAX = 60;
const NODE = { id: "ztunnel~198.18.0.1~zt.istio-system~istio-system.svc.cluster.local", metadata: { NODE_NAME: "node-1", WEFT_VERSION: "9" } };

function connect(port: number, token = "good"): { requests: Requests; responses: AsyncIterator<DeltaDiscoveryResponse>; abort: AbortController } {
  const client = createClient(AggregatedDiscoveryService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }));
  const requests = new Requests();
  const abort = new AbortController();
  closers.push(() => abort.abort());
  const responses = client.deltaAggregatedResources(requests, { headers: { authorization: `Bearer ${token}` }, signal: abort.signal })[Symbol.asyncIterator]();
  return { requests, responses, abort };
}

const failureOf = async (promise: Promise<unknown>): Promise<string> => {
  const failure = await promise.then(() => null, (cause: unknown) => ConnectError.from(cause));
  return failure === null ? "none" : `${Code[failure.code]}: ${failure.rawMessage}`;
};

describe("who may connect", () => {
  const refusal = async (token: string, node: object): Promise<string> => {
    const { xds, port } = await start();
    xds.publish(new PublishedMesh().change({}));
    const { requests, responses } = connect(port, token);
    requests.send({ typeUrl: ADDRESS_TYPE, node });
    const failure = await failureOf(responses.next());
    expect(xds.clients()).toEqual([]);
    expect(xds.counters.refused).toBe(failure === "none" ? 0 : 1);
    return failure;
  };

  test("nobody without a token that is known", async () => expect(await refusal("bad", NODE)).toBe("Unauthenticated: the token is not known"));
  test("nobody as somebody else", async () => expect(await refusal("good", { ...NODE, metadata: { NODE_NAME: "node-2" } })).toBe("PermissionDenied: node-1 may only be itself"));
  test("nobody without saying what it is", async () => expect(await refusal("good", { id: "sidecar~198.18.0.1~a.b~c" })).toContain('InvalidArgument: a client of type "sidecar" is not served here'));
  test("no waypoint that does not say whose it is", async () => expect(await refusal("good", { id: "waypoint~198.18.0.1~a.b~c" })).toContain("names its Gateway as namespace/name in the metadata WEFT_GATEWAY"));
});

describe("who asks about the clients, as istioctl proxy-status does", () => {
  const ask = (port: number, token: string) => {
    const client = createClient(AggregatedDiscoveryService, createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` }));
    const requests = new Pushed<DiscoveryRequest>();
    const abort = new AbortController();
    closers.push(() => abort.abort());
    const responses: AsyncIterator<DiscoveryResponse> = client.streamAggregatedResources(requests, { headers: { authorization: `Bearer ${token}` }, signal: abort.signal })[Symbol.asyncIterator]();
    const send = (typeUrl: string, responseNonce = ""): void => requests.push(create(DiscoveryRequestSchema, { typeUrl, responseNonce, node: { id: "sidecar~0.0.0.0~istioctl.istio-system~svc" } }));
    return { send, responses, abort };
  };

  test("is told of each what it has confirmed and what it has refused; again when it asks again, not when it confirms", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    xds.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    requests.send({ typeUrl: ADDRESS_TYPE, responseNonce: (await responses.next()).value?.nonce ?? "" });
    await until("the ACK", WAIT_MS, () => xds.clients()[0]?.types[0]?.ackedState === 1);
    const operator = ask(port, "operator");
    const states = async (): Promise<unknown> => {
      const next = await operator.responses.next();
      if (next.done === true) throw new Error("the stream has ended");
      const answer: DiscoveryResponse = next.value;
      expect(answer).toMatchObject({ typeUrl: SYNC_TYPE, controlPlane: { identifier: '{"Component":"weft-control","ID":"control-1","Info":{"version":"0.9"}}' } });
      operator.send(SYNC_TYPE, answer.nonce);
      return answer.resources.map(({ value }) => fromBinary(ClientConfigSchema, value)).map(({ node, genericXdsConfigs }) => [node?.id, node?.metadata, ...genericXdsConfigs.map(({ typeUrl, configStatus, errorState }) => [typeUrl, configStatus, errorState?.details])]);
    };
    const who = [NODE.id, { CLUSTER_ID: "c1", NAMESPACE: "istio-system", ISTIO_VERSION: "9" }];
    operator.send(SYNC_TYPE, "2026-01-01 00:00:00 +0000 UTC");
    expect(await states()).toEqual([[...who, [ADDRESS_TYPE, 1, undefined]]]);
    // Until the response is taken, it is sent and not confirmed.
    requests.send({ typeUrl: AUTHORIZATION_TYPE });
    const policies = (await responses.next()).value?.nonce ?? "";
    operator.send(SYNC_TYPE);
    expect(await states()).toEqual([[...who, [ADDRESS_TYPE, 1, undefined], [AUTHORIZATION_TYPE, 3, undefined]]].map(([id, about, ...types]) => [id, about, ...types.sort()]));
    requests.send({ typeUrl: AUTHORIZATION_TYPE, responseNonce: policies, errorDetail: { code: 3, message: "p is wrong" } });
    await until("the NACK", WAIT_MS, () => xds.counters.rejected === 1);
    operator.send(SYNC_TYPE);
    expect(await states()).toEqual([[...who, ...[[ADDRESS_TYPE, 1, undefined], [AUTHORIZATION_TYPE, 4, "p is wrong"]].sort()]]);
    // It is no client itself.
    expect(xds.clients().length).toBe(1);
  });

  const refusal = async (token: string, typeUrl: string): Promise<string> => {
    const { port } = await start();
    const { send, responses } = ask(port, token);
    send(typeUrl);
    return await failureOf(responses.next());
  };
  test("must be somebody", async () => expect(await refusal("bad", SYNC_TYPE)).toBe("Unauthenticated: the token is not known"));
  test("must be of the mesh's own", async () => expect(await refusal("good", SYNC_TYPE)).toBe("PermissionDenied: node-1 may not ask about the others"));
  test("is told nothing else", async () => expect(await refusal("operator", ADDRESS_TYPE)).toContain(`InvalidArgument: in this form of ADS ${SYNC_TYPE} alone is served`));

  test("is one of few at once, and makes room when it goes", async () => {
    const { xds, port } = await start();
    const asking = Array.from({ length: STATUS_STREAMS_MAX }, () => ask(port, "operator"));
    for (const each of asking) each.send(SYNC_TYPE);
    await Promise.all(asking.map(({ responses }) => responses.next()));
    const more = async (): Promise<string> => {
      const { send, responses } = ask(port, "operator");
      send(SYNC_TYPE);
      return await failureOf(responses.next());
    };
    expect(await more()).toContain("ResourceExhausted");
    expect(xds.counters.refused).toBe(1);
    asking[0]!.abort.abort();
    await until("room", WAIT_MS, async () => (await more()) === "none");
  });
});

describe("a stream", () => {
  test("on which nothing is said is cut off", async () => {
    const waiting: (() => void)[] = [];
    const { xds, port } = await start(undefined, {
      after(delayMs, run) {
        if (delayMs === FIRST_REQUEST_MS) waiting.push(run);
        return () => {};
      },
    });
    xds.publish(new PublishedMesh().change({}));
    const session = http2.connect(`http://127.0.0.1:${port}`);
    closers.push(() => session.destroy());
    const stream = session.request({ ":method": "POST", ":path": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", "content-type": "application/grpc+proto", te: "trailers", authorization: "Bearer good" });
    const closed = Promise.withResolvers<void>();
    stream.on("error", () => {});
    stream.on("close", () => closed.resolve());
    await until("the timer", WAIT_MS, () => waiting.length === 1);
    waiting[0]!();
    await closed.promise;
    expect(xds.clients()).toEqual([]);
  });

  test("tells what there is and what changes, and shows in the status", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    const first = responses.next();
    await until("a client", WAIT_MS, () => xds.clients().length === 1);
    xds.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    const { value } = await first;
    expect(value?.resources.length).toBe(1);
    requests.send({ typeUrl: ADDRESS_TYPE, responseNonce: value?.nonce ?? "" });
    await until("the ACK", WAIT_MS, () => xds.clients()[0]?.types[0]?.ackedState === 1);
    expect(xds.clients()[0]).toMatchObject({ id: NODE.id, caller: "node-1", view: { kind: "node", node: "node-1" }, agentVersion: "9", types: [{ typeUrl: ADDRESS_TYPE, sentState: 1, resourceCount: 1, rejected: null }] });
    xds.publish(mesh.change({ workloads: [workload({ name: "b" })] }));
    const second = (await responses.next()).value;
    expect(second?.resources.length).toBe(1);
    requests.send({ typeUrl: ADDRESS_TYPE, responseNonce: second?.nonce ?? "", errorDetail: { code: 3, message: "b is wrong" } });
    await until("the NACK", WAIT_MS, () => xds.clients()[0]?.types[0]?.rejected?.message === "b is wrong");
    expect(events.filter(({ kind }) => kind === "rejected")).toMatchObject([{ typeUrl: ADDRESS_TYPE, message: "b is wrong" }]);
  });

  test("a large state takes turns with what else there is to do, and what follows it comes after it", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    const large = xds.publish(mesh.change({ workloads: Array.from({ length: LARGE }, (_, i) => workload({ name: `w${i}` })) }));
    const small = xds.publish(mesh.change({ workloads: [workload({ name: "after" })] }));
    let turns = 0;
    while (xds.publishedState === 0) {
      turns++;
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    expect(turns).toBeGreaterThan(LARGE / 1_000);
    await Promise.all([large, small]);
    expect(xds.publishedState).toBe(2);
    void xds.publish(mesh.change({ workloads: [workload({ name: "at once" })] }));
    expect(xds.publishedState).toBe(3);
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    expect((await responses.next()).value?.resources.length).toBe(LARGE + 2);
  });

  test("a large state keeps nobody from a turn: coming, found by name, and going", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    const names = Array.from({ length: LARGER }, (_, i) => `w${i}`);
    const coming = mesh.change({ workloads: names.map((name, i) => workload({ name, node: "elsewhere", addresses: [ip(`198.18.${i >> 8}.${i & 255}`)] })), services: [service({ name: "web" })] });
    expect(await longestTurnMs(xds.publish(coming))).toBeLessThan(TURN_MS_MAX);
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE, resourceNamesSubscribe: ["shop/web.shop.svc.cluster.local"], resourceNamesUnsubscribe: ["*"] });
    const answered = responses.next();
    expect(await longestTurnMs(answered)).toBeLessThan(TURN_MS_MAX);
    expect((await answered).value?.resources.length).toBe(1);
    const going = mesh.change({ removedWorkloads: names.map((name) => uid(`Kubernetes//Pod/shop/${name}`)) });
    expect(await longestTurnMs(xds.publish(going))).toBeLessThan(TURN_MS_MAX);
  }, 120_000);

  test("who comes back with a hundred thousand names is told what differs from them", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    await xds.publish(mesh.change({ workloads: Array.from({ length: MANY }, (_, i) => workload({ name: `workload-with-a-name-of-a-usual-length-${i}` })) }));
    const first = connect(port);
    first.requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    const { resources: told } = (await first.responses.next()).value as DeltaDiscoveryResponse;
    expect(told.length).toBe(MANY);
    first.abort.abort();
    const versions = Object.fromEntries(told.map((bytes) => fromBinary(ResourceSchema, bytes)).map(({ name, version }) => [name, version]));
    const again = connect(port);
    again.requests.send({ typeUrl: ADDRESS_TYPE, node: NODE, initialResourceVersions: { ...versions, [Object.keys(versions)[0]!]: "old", "Kubernetes//Pod/shop/gone": "1" } });
    const [changed, gone] = [(await again.responses.next()).value, (await again.responses.next()).value] as [DeltaDiscoveryResponse, DeltaDiscoveryResponse];
    expect([changed.resources.length, changed.removedResources, gone.resources.length, gone.removedResources]).toEqual([1, [], 0, ["Kubernetes//Pod/shop/gone"]]);
  }, 120_000);

  test("that its client breaks off leaves nothing", async () => {
    const { xds, port } = await start();
    xds.publish(new PublishedMesh().change({ workloads: [workload({ name: "a" })] }));
    const { requests, responses, abort } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    await responses.next();
    abort.abort();
    await until("the client to be gone", WAIT_MS, () => xds.clients().length === 0);
    await until("its event", WAIT_MS, () => events.some(({ kind }) => kind === "disconnected"));
    expect(xds.sendingBytes).toBe(0);
  });

  test("is ended with a reason when the server ends", async () => {
    const { xds, port } = await start();
    xds.publish(new PublishedMesh().change({}));
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    await responses.next();
    xds.close();
    expect(await failureOf(responses.next())).toBe("Unavailable: this replica ends; others serve");
  });
});

describe("a client that does not read", () => {
  /** Its window is what HTTP/2 gives at first, and it never gives more. */
  async function slowClient(port: number): Promise<http2.ClientHttp2Stream> {
    const session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 65_535 } });
    closers.push(() => session.destroy());
    session.on("error", () => {});
    const stream = session.request({
      ":method": "POST", ":path": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", "content-type": "application/grpc+proto", te: "trailers", authorization: "Bearer good",
    });
    stream.on("error", () => {});
    stream.pause();
    const message = toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { typeUrl: ADDRESS_TYPE, node: NODE }));
    const frame = Buffer.alloc(5 + message.length);
    frame.writeUInt32BE(message.length, 1);
    frame.set(message, 5);
    stream.write(frame);
    return stream;
  }

  const large = (count: number, generation: number) => Array.from({ length: count }, (_, i) => workload({ name: `w${i}`, version: `v${generation}` }));

  test("has one response in flight, however much changes", async () => {
    const { xds, port } = await start();
    const mesh = new PublishedMesh();
    xds.publish(mesh.change({ workloads: large(5_000, 0) }));
    await slowClient(port);
    await until("bytes under way", WAIT_MS, () => xds.sendingBytes > 0);
    const inFlight = xds.sendingBytes;
    for (let generation = 1; generation <= 20; generation++) xds.publish(mesh.change({ workloads: large(5_000, generation) }));
    await new Promise((resolve) => setImmediate(resolve));
    expect(xds.counters.responses).toBe(1);
    expect(xds.sendingBytes).toBe(inFlight);
  });

  test("that breaks off gives its room back", async () => {
    const { xds, port } = await start();
    xds.publish(new PublishedMesh().change({ workloads: large(5_000, 0) }));
    const stream = await slowClient(port);
    await until("bytes under way", WAIT_MS, () => xds.sendingBytes > 0);
    stream.session?.destroy();
    await until("their room to be given back", WAIT_MS, () => xds.sendingBytes === 0 && xds.clients().length === 0);
  });

  test("gives way when others wait for room", async () => {
    const { xds, port } = await start(1);
    xds.publish(new PublishedMesh().change({ workloads: large(5_000, 0) }));
    await slowClient(port);
    await until("bytes under way", WAIT_MS, () => xds.sendingBytes > 0);
    aheadMs = STALLED_MS + 1;
    const { requests, responses } = connect(port);
    requests.send({ typeUrl: ADDRESS_TYPE, node: NODE });
    const { value } = await responses.next();
    expect(value?.resources.length).toBe(5_000);
    expect(xds.counters.stalled).toBe(1);
  });
});
