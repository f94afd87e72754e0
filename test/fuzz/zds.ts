// Both ends of ZDS, over real sockets with real descriptors, each against a peer that says anything in any order.
//   - the CNI agent's end: one message at a time is on the wire, in the order they were given, each settled once, with the ztunnel's answer
//     to it or with why there is none; what is no answer ends the connection, and everything that waits
//   - the ztunnel's end: each packet is answered, or ends the connection; what is told of the node's workloads is what was said; a new
//     connection begins anew; no descriptor is left open, whatever came beside whatever

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { deepStrictEqual as same, ok as holds } from "node:assert/strict";
import { readdirSync } from "node:fs";
import { ZtunnelConnection } from "../../src/cni/ztunnel-connection.ts";
import type { Random } from "../../src/core/ports.ts";
import { seededRandom } from "../../src/core/ports.ts";
import type { LocalWorkload } from "../../src/mesh/local-workload.ts";
import { closeAll, receiveWithDescriptors, sendWithDescriptors } from "../../src/net/fd-passing.ts";
import { accept, close, SOCK_SEQPACKET } from "../../src/net/libc.ts";
import { namespaceIdentity, namespaceIdentityAt, openNamespace } from "../../src/net/namespace.ts";
import { connectUnix, listenUnix } from "../../src/net/unix-socket.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../src/wire/protobuf/istio/workload/zds/zds_pb.ts";
import { ZdsClient } from "../../src/ztunnel/zds/zds-client.ts";
import { below, bytes, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";

export const name = "zds";

type Request = MessageInitShape<typeof WorkloadRequestSchema>;

/** Ztunnels that are attacked at the same time: each looks at its socket in turns of a few milliseconds. */
const CLIENTS = 25;
const PACKETS_PER_CONNECTION_MAX = 12;
const PACKET_BYTES_MAX = 4096;
const WAIT_MS = 20_000;
let sockets = 0;

export async function run({ seed, iterations }: FuzzRun): Promise<{ readonly iterations: number }> {
  const random = seededRandom(seed);
  const before = openDescriptors();
  try {
    const agentInputs = Math.ceil(iterations / 2);
    await agentsEnd(random, agentInputs);
    await Promise.all(Array.from({ length: CLIENTS }, (_, i) => ztunnelsEnd(seededRandom(seed * CLIENTS + i), Math.ceil((iterations - agentInputs) / CLIENTS))));
    holds(openDescriptors() <= before, `${openDescriptors()} descriptors are open, ${before} were before`);
  } catch (cause) {
    throw new Error(`seed ${seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  return { iterations };
}

const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

const UIDS = ["u1", "u2", "u3", "", "constructor", "__proto__", "ü", "u".repeat(256), "u".repeat(257)];
const NAMES = ["web-1", "web-2", "a.b", "", "-", "Web", "../x", "web\n", "w".repeat(253), "w".repeat(254), "__proto__"];

function request(random: Random): Request {
  const uid = random.next() < 0.7 ? UIDS[below(random, 3)]! : pick(random, UIDS);
  const podName = (): string => (random.next() < 0.8 ? NAMES[below(random, 3)]! : pick(random, NAMES));
  switch (below(random, 6)) {
    case 0: case 1: return { payload: { case: "add", value: { uid, ...(random.next() < 0.95 ? { workloadInfo: { name: podName(), namespace: podName(), serviceAccount: podName() } } : {}) } } };
    case 2: return { payload: { case: "del", value: { uid } } };
    case 3: return { payload: { case: "keep", value: { uid } } };
    case 4: return { payload: { case: "snapshotSent", value: {} } };
    default: return {};
  }
}

const encodedRequest = (message: Request): Uint8Array => toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, message));
const encodedAnswer = (error: string): Uint8Array => toBinary(WorkloadResponseSchema, create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } }));

/** A few bytes of it changed, cut off or put in; never nothing: an empty packet is the end of a connection. */
function mutated(random: Random, packet: Uint8Array): Uint8Array {
  const changed = [...packet];
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const at = below(random, changed.length + 1);
    changed.splice(at, below(random, 3), ...bytes(random, below(random, 3)));
  }
  return changed.length === 0 ? Uint8Array.of(below(random, 256)) : Uint8Array.from(changed);
}

// ---- the CNI agent's end

/** Two ends of a SEQPACKET socket. */
function socketPair(): { readonly ours: number; readonly theirs: number } {
  const path = `@weft-fuzz-zds-${process.pid}-${sockets++}`;
  const [listener, theirs] = [opened(listenUnix(path, SOCK_SEQPACKET, 1)), opened(connectUnix(path, SOCK_SEQPACKET))];
  const ours = accept(listener);
  close(listener);
  holds(ours >= 0);
  return { ours, theirs };
}

function opened(made: ReturnType<typeof connectUnix>): number {
  if ("error" in made) throw new Error(made.error);
  return made.fd;
}

interface Sent {
  readonly message: Request;
  /** Null: a message without; false: its namespace is gone when its turn comes. */
  readonly descriptor: true | false | null;
  /** What it is to be settled with: an answer's error, `gone`, or `closed`. */
  wanted: string | null;
  readonly settled: string[];
}

async function agentsEnd(random: Random, connections: number): Promise<void> {
  const into = new Uint8Array(PACKET_BYTES_MAX);
  const namespaceFd = openNamespace("/proc/self/ns/net");
  let pair = socketPair();
  for (let i = 0; i < connections; i++) {
    const [ends, hellos] = [{ count: 0 }, { count: 0 }];
    let hungUp = false;
    const connection = new ZtunnelConnection({ fd: pair.ours, end: () => void ends.count++, onHello: () => void hellos.count++ });
    // The same as a model: what waits, what is on the wire.
    const all: Sent[] = [];
    const waiting: Sent[] = [];
    let onWire: Sent | null = null;
    let greeted = false;
    let closed = false;
    const end = (): void => {
      closed = true;
      for (const each of [...(onWire === null ? [] : [onWire]), ...waiting.splice(0)]) each.wanted = "closed";
      onWire = null;
    };
    const next = (): void => {
      while (greeted && !closed && onWire === null) {
        const sent = waiting.shift();
        if (sent === undefined) return;
        if (sent.descriptor === false) sent.wanted = "gone";
        else if (hungUp) {
          sent.wanted = "closed";
          end();
        } else {
          const receipt = receiveWithDescriptors(pair.theirs, into, 8);
          holds(receipt.kind === "received" && receipt.received.length >= 0, "a message whose turn has come was not sent");
          closeAll(receipt.received.fds);
          same(Buffer.from(into.subarray(0, receipt.received.length)), Buffer.from(encodedRequest(sent.message)));
          same(receipt.received.fds.length, sent.descriptor === null ? 0 : 1);
          onWire = sent;
        }
      }
    };
    const receive = (packet: Uint8Array): void => {
      connection.received(packet);
      if (closed) return;
      const read = decoded(() => (greeted ? fromBinary(WorkloadResponseSchema, packet) : fromBinary(ZdsHelloSchema, packet)));
      if (read === null) return end();
      if (read.$typeName === "istio.workload.zds.ZdsHello") {
        if (read.version !== 1) return end();
        greeted = true;
      } else {
        if (read.payload.case !== "ack" || onWire === null) return end();
        onWire.wanted = `answered ${read.payload.value.error}`;
        onWire = null;
      }
      next();
    };
    const hello = (version: number): Uint8Array => toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version }));
    for (let events = 1 + below(random, 14); events > 0; events--) {
      const dice = random.next();
      if (dice < 0.4) {
        const descriptor = pick(random, [true, false, null]);
        const sent: Sent = { message: request(random), descriptor, wanted: null, settled: [] };
        // No message of an agent is empty, and an empty packet would be an end.
        if (encodedRequest(sent.message).length === 0) continue;
        all.push(sent);
        void connection.send(sent.message, descriptor === null ? null : () => (descriptor ? namespaceFd : null)).then((outcome) => {
          sent.settled.push(outcome.ok ? "answered " : outcome.error === connection.closedBecause || outcome.error.startsWith("the ztunnel cannot be told") ? "closed" : outcome.error === "the pod is gone" ? "gone" : `answered ${outcome.error}`);
        });
        if (closed) sent.wanted = "closed";
        else waiting.push(sent);
        next();
      } else if (dice < 0.55) receive(hello(random.next() < 0.9 ? 1 : below(random, 3)));
      else if (dice < 0.85) receive(encodedAnswer(pick(random, ["", "", "no", "x".repeat(3_000)])));
      else if (dice < 0.95) receive(mutated(random, pick(random, [hello(1), encodedAnswer(""), encodedAnswer("no"), encodedRequest(request(random))])));
      else if (dice < 0.97) {
        if (!hungUp) close(pair.theirs);
        hungUp = true;
      } else {
        connection.close("the test ends it");
        if (!closed) end();
      }
      holds((connection.closedBecause !== null) === closed, `closed: ${connection.closedBecause ?? "no"}, wanted ${closed ? "yes" : "no"}`);
    }
    connection.close("the test is over");
    if (!closed) end();
    await Promise.resolve();
    await Promise.resolve();
    same(all.map(({ settled }) => settled), all.map(({ wanted }) => [wanted]));
    same([ends.count, hellos.count], [1, greeted ? 1 : 0]);
    if (!hungUp) holds(nothingLeft(pair.theirs, into), "a message was sent before its turn");
    else {
      close(pair.ours);
      pair = socketPair();
    }
  }
  closeAll([pair.ours, pair.theirs, namespaceFd]);
}

function nothingLeft(fd: number, into: Uint8Array): boolean {
  const receipt = receiveWithDescriptors(fd, into, 8);
  return receipt.kind === "received" && receipt.received.length < 0;
}

function decoded<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    return null;
  }
}

// ---- the ztunnel's end

const KINDS_OF_NAMESPACE = ["net", "uts"] as const;
const POD_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** What a ztunnel is to hold of its node's workloads: by the agent's uid, in the order in which they came. */
class Model {
  readonly known = new Map<string, { readonly uid: string; readonly identity: string }>();
  named: Set<string> | null = new Set();

  /** @returns the beginning of the answer's error, or null: the connection ends. */
  take(packet: Uint8Array, identities: readonly string[]): string | null {
    if (packet.length > PACKET_BYTES_MAX || identities.length > 8) return null;
    const message = decoded(() => fromBinary(WorkloadRequestSchema, packet));
    if (message === null || identities.length !== (message.payload.case === "add" ? 1 : 0)) return null;
    const { payload } = message;
    switch (payload.case) {
      case undefined:
        return "the message has no payload";
      case "snapshotSent":
        for (const uid of this.known.keys()) if (this.named !== null && !this.named.has(uid)) this.known.delete(uid);
        this.named = null;
        return "";
      case "del":
        this.known.delete(payload.value.uid);
        return "";
      case "keep":
        this.named?.add(payload.value.uid);
        return "";
      case "add": {
        const { uid, workloadInfo } = payload.value;
        if (uid === "" || uid.length > 256) return "a uid of ";
        if (workloadInfo === undefined) return "workload ";
        const { name: podName, namespace } = workloadInfo;
        if (!POD_NAME.test(podName) || !POD_NAME.test(namespace)) return "workload ";
        this.named?.add(uid);
        const [identity] = identities;
        if (this.known.get(uid)?.identity !== identity) {
          this.known.delete(uid);
          this.known.set(uid, { uid: `Kubernetes//Pod/${namespace}/${podName}`, identity: identity! });
        }
        const late = this.known.get(uid)!.uid.endsWith("/web-2");
        return late ? "Kubernetes//Pod/" : "";
      }
    }
  }

  /** Of two of one name the younger. */
  get workloads(): Readonly<Record<string, string>> {
    return Object.fromEntries([...this.known.values()].map(({ uid, identity }) => [uid, identity]));
  }
}

async function ztunnelsEnd(random: Random, packets: number): Promise<void> {
  const path = `@weft-fuzz-zds-${process.pid}-${sockets++}`;
  const listener = opened(listenUnix(path, SOCK_SEQPACKET, 4));
  const descriptors = KINDS_OF_NAMESPACE.map((kind) => openNamespace(`/proc/self/ns/${kind}`));
  const identities = descriptors.map((fd) => namespaceIdentity(fd));
  const timers = new Set<() => void>();
  const fire = (): void => {
    for (const run of [...timers]) {
      timers.delete(run);
      run();
    }
  };
  let told: readonly LocalWorkload[] = [];
  const client = new ZdsClient({
    path, clusterId: "Kubernetes", setLocalWorkloads: (workloads) => void (told = workloads), onEvent: () => {}, random,
    // Those named web-2 are never attached: their answer is the time limit's.
    attachment: (uid) => (uid.endsWith("/web-2") ? new Promise(() => {}) : Promise.resolve(null)),
    certificate: () => Promise.resolve(null),
    timers: {
      after: (_, run) => {
        timers.add(run);
        return () => void timers.delete(run);
      },
    },
  });
  const model = new Model();
  const into = new Uint8Array(PACKET_BYTES_MAX);
  client.start();
  for (let left = packets; left > 0; ) {
    const connection = await eventually("a ztunnel to come", () => {
      const fd = accept(listener);
      if (fd >= 0) return fd;
      fire();
      return null;
    });
    const packet = async (): Promise<Uint8Array | null> => await eventually("an answer", () => {
      const receipt = receiveWithDescriptors(connection, into, 1);
      if (receipt.kind !== "received") throw new Error(receipt.message);
      if (receipt.received.length > 0) return { bytes: into.slice(0, receipt.received.length) };
      // At its end, or reset: packets of ours were not read any more.
      if (receipt.received.length === 0 || receipt.received.length === -104) return { bytes: null };
      fire();
      return null;
    }).then(({ bytes: received }) => received);
    same(fromBinary(ZdsHelloSchema, (await packet()) ?? new Uint8Array(0)).version, 1);
    model.named = new Set();
    const wanted: string[] = [];
    let ends = false;
    for (let n = 1 + below(random, PACKETS_PER_CONNECTION_MAX); n > 0 && !ends; n--, left--) {
      const message = request(random);
      const proper = message.payload?.case === "add" ? 1 : 0;
      const chosen = Array.from({ length: random.next() < 0.96 ? proper : below(random, 12) }, () => below(random, KINDS_OF_NAMESPACE.length));
      const encoded = encodedRequest(message);
      const dice = random.next();
      const sent = dice < 0.9 && encoded.length > 0 ? encoded : dice < 0.98 ? mutated(random, encoded) : new Uint8Array(pick(random, [1, PACKET_BYTES_MAX, PACKET_BYTES_MAX + 1]));
      holds(sendWithDescriptors(connection, sent, chosen.map((i) => descriptors[i]!)) === sent.length, "a packet could not be sent");
      const answer = model.take(sent, chosen.map((i) => identities[i]!));
      if (answer === null) ends = true;
      else wanted.push(answer);
    }
    for (const error of wanted) {
      const received = await packet();
      holds(received !== null, "the connection was given up in place of an answer");
      const { payload } = fromBinary(WorkloadResponseSchema, received);
      holds(payload.case === "ack" && (error === "" ? payload.value.error === "" : payload.value.error.startsWith(error)), `answered ${JSON.stringify(payload.value)}, wanted ${JSON.stringify(error)}`);
    }
    if (ends) holds((await packet()) === null, "a packet that is none of ZDS was answered");
    same(Object.fromEntries(told.map(({ uid, networkNamespace }) => [uid, networkNamespace.kind === "path" ? namespaceIdentityAt(networkNamespace.path) : null])), model.workloads);
    close(connection);
  }
  client.close();
  fire();
  closeAll([listener, ...descriptors]);
}

/** Awaits what a socket is looked at for; the ztunnel's end looks at its own in turns of its own. */
async function eventually<T>(what: string, probe: () => T | null): Promise<T> {
  const endMs = performance.now() + WAIT_MS;
  for (;;) {
    const found = probe();
    if (found !== null) return found;
    if (performance.now() > endMs) throw new Error(`not within ${WAIT_MS} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}
