// The ztunnel's end of ZDS against a CNI agent of the test's own, message by message, and against ours.

import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../../../test/kit/until.ts";
import { ZdsServer } from "../../cni/zds-server.ts";
import { seededRandom } from "../../core/ports.ts";
import { systemTimers } from "../../net/timers.ts";
import type { LocalWorkload } from "../../mesh/local-workload.ts";
import { closeAll, receiveWithDescriptors, sendWithDescriptors } from "../../net/fd-passing.ts";
import { accept, close, F_DUPFD_CLOEXEC, fcntl, SOCK_SEQPACKET } from "../../net/libc.ts";
import { namespaceIdentityAt, openNamespace } from "../../net/namespace.ts";
import { listenUnix } from "../../net/unix-socket.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../wire/protobuf/istio/workload/zds/zds_pb.ts";
import type { AttachFailure } from "../workload-attacher.ts";
import { ZdsClient, type ZdsEvent } from "./zds-client.ts";

const WAIT_MS = 10_000;
const folder = mkdtempSync(join(tmpdir(), "weft-zds-"));
const closers: (() => void)[] = [];
let count = 0;
afterEach(() => {
  for (const closing of closers.splice(0).reverse()) closing();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Request = MessageInitShape<typeof WorkloadRequestSchema>;
const add = (uid: string, name = uid, namespace = "shop"): Request => ({ payload: { case: "add", value: { uid, workloadInfo: { name, namespace, serviceAccount: "web" } } } });
const del = (uid: string): Request => ({ payload: { case: "del", value: { uid } } });
const keep = (uid: string): Request => ({ payload: { case: "keep", value: { uid } } });
const SNAPSHOT: Request = { payload: { case: "snapshotSent", value: {} } };

/** A CNI agent that sends what it is told to. */
class Agent {
  readonly path = join(folder, `${count++}.sock`);
  readonly #listener: number;
  #connection = -1;

  constructor() {
    const made = listenUnix(this.path, SOCK_SEQPACKET, 4);
    if ("error" in made) throw new Error(made.error);
    this.#listener = made.fd;
    closers.push(() => {
      this.hangUp();
      close(this.#listener);
    });
  }

  async hello(): Promise<number> {
    this.#connection = await until("a ztunnel connects", WAIT_MS, () => {
      const fd = accept(this.#listener);
      return fd < 0 ? null : fd;
    });
    return fromBinary(ZdsHelloSchema, await this.#packet()).version;
  }

  /** @returns the error of the answer. */
  async ask(message: Request | Uint8Array, fds: readonly number[] = []): Promise<string> {
    this.send(message, fds);
    const { payload } = fromBinary(WorkloadResponseSchema, await this.#packet());
    return payload.case === "ack" ? payload.value.error : "no answer";
  }

  send(message: Request | Uint8Array, fds: readonly number[] = []): void {
    const bytes = message instanceof Uint8Array ? message : toBinary(WorkloadRequestSchema, create(WorkloadRequestSchema, message));
    expect(sendWithDescriptors(this.#connection, bytes, fds)).toBe(bytes.length);
  }

  hangUp(): void {
    if (this.#connection >= 0) close(this.#connection);
    this.#connection = -1;
  }

  async #packet(): Promise<Uint8Array> {
    const into = new Uint8Array(4096);
    const length = await until("a packet of the ztunnel", WAIT_MS, () => {
      const receipt = receiveWithDescriptors(this.#connection, into, 1);
      return receipt.kind === "received" && receipt.received.length >= 0 ? { length: receipt.received.length } : null;
    });
    return into.slice(0, length.length);
  }
}

interface Ztunnel {
  readonly client: ZdsClient;
  readonly events: ZdsEvent[];
  readonly sets: (readonly LocalWorkload[])[];
  /** What becomes of attachments, by name of the pod. */
  readonly failures: Map<string, AttachFailure | "never">;
  /** Why there is no certificate, by name of the pod. */
  readonly missing: Map<string, string>;
}

function start(path: string): Ztunnel {
  const events: ZdsEvent[] = [];
  const sets: (readonly LocalWorkload[])[] = [];
  const failures = new Map<string, AttachFailure | "never">();
  const missing = new Map<string, string>();
  const client = new ZdsClient({
    path, clusterId: "Kubernetes", setLocalWorkloads: (workloads) => void sets.push(workloads),
    attachment: (uid) => {
      const outcome = failures.get(uid.slice(uid.lastIndexOf("/") + 1)) ?? null;
      return outcome === "never" ? new Promise(() => {}) : Promise.resolve(outcome);
    },
    certificate: (uid) => Promise.resolve(missing.get(uid.slice(uid.lastIndexOf("/") + 1)) ?? null),
    onEvent: (event) => void events.push(event), random: seededRandom(1),
    // What is let go of is closed at once here.
    timers: { after: (delayMs, run) => systemTimers.after(Math.min(delayMs, 300), run) },
  });
  closers.push(() => client.close());
  client.start();
  return { client, events, sets, failures, missing };
}

/** Descriptors of two namespaces: any kind will do here. */
const namespaces = (): { readonly one: number; readonly other: number } => {
  const [one, other] = [openNamespace("/proc/self/ns/net"), openNamespace("/proc/self/ns/uts")];
  closers.push(() => closeAll([one, other]));
  return { one, other };
};
const names = (set: readonly LocalWorkload[] | undefined): string[] => (set ?? []).map(({ uid }) => uid);
const openDescriptors = (): number => readdirSync("/proc/self/fd").length;

describe("the workloads of a node", () => {
  test("come one by one, each answered, with their namespaces, and are complete with the snapshot", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets, events } = start(agent.path);
    expect(await agent.hello()).toBe(1);
    expect(await agent.ask(add("u1", "web-1"), [one])).toBe("");
    expect(await agent.ask(add("u2", "web-2"), [one])).toBe("");
    expect(events.some(({ kind }) => kind === "snapshot")).toBe(false);
    expect(await agent.ask(SNAPSHOT)).toBe("");
    expect(events.at(-1)).toEqual({ kind: "snapshot", workloads: 2 });
    expect(names(sets.at(-1))).toEqual(["Kubernetes//Pod/shop/web-1", "Kubernetes//Pod/shop/web-2"] as never);
    const [local] = sets.at(-1)!;
    expect(local?.networkNamespace.kind === "path" && namespaceIdentityAt(local.networkNamespace.path)).toBe(namespaceIdentityAt("/proc/self/ns/net") as never);
    expect(local).toMatchObject({ captured: true, inboundCapture: true, provenance: { kind: "Pod", namespace: "shop", name: "web-1" } });
  });

  test("that run already join with their certificate, and are asked for again; those that start join without", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets, missing } = start(agent.path);
    await agent.hello();
    await agent.ask(SNAPSHOT);
    missing.set("web-1", "the CA is away").set("web-2", "the CA is away");
    const running = create(WorkloadRequestSchema, add("u1", "web-1"));
    if (running.payload.case === "add") running.payload.value.running = true;
    expect(await agent.ask(running, [one])).toBe("Kubernetes//Pod/shop/web-1 can join when it has a certificate: the CA is away");
    expect(await agent.ask(add("u2", "web-2"), [one])).toBe("");
    // It is served meanwhile, as its certificate is what it waits for.
    expect(names(sets.at(-1))).toEqual(["Kubernetes//Pod/shop/web-1", "Kubernetes//Pod/shop/web-2"] as never);
    missing.clear();
    expect(await agent.ask(running, [one])).toBe("");
  });

  test("leave, and what is not there may leave too", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets } = start(agent.path);
    await agent.hello();
    await agent.ask(add("u1", "web-1"), [one]);
    await agent.ask(SNAPSHOT);
    expect([await agent.ask(del("u1")), await agent.ask(del("never"))]).toEqual(["", ""]);
    expect(sets.map(names).at(-1)).toEqual([]);
  });

  test("added again in the same namespace are the same; in another they are another's life", async () => {
    const agent = new Agent();
    const { one, other } = namespaces();
    const { sets } = start(agent.path);
    await agent.hello();
    await agent.ask(add("u1", "web-1"), [one]);
    await agent.ask(add("u1", "web-1"), [one]);
    expect(sets.at(-1)).toEqual(sets.at(-2)!);
    await agent.ask(add("u1", "web-1"), [other]);
    const path = (set: readonly LocalWorkload[]): string => (set[0]!.networkNamespace.kind === "path" ? set[0]!.networkNamespace.path : "");
    expect(path(sets.at(-1)!)).not.toBe(path(sets.at(-2)!));
  });

  test("are where they were told to be until the client is closed, though it hears nothing more", async () => {
    const agent = new Agent();
    const { one, other } = namespaces();
    const { client, sets } = start(agent.path);
    await agent.hello();
    await agent.ask(add("u1", "web-1"), [one]);
    await agent.ask(SNAPSHOT);
    const [local] = sets.at(-1)!;
    const path = local?.networkNamespace.kind === "path" ? local.networkNamespace.path : "";
    const identity = namespaceIdentityAt(path);
    client.disconnect();
    // A number that is free is the next one's: what looks at the path would see another namespace there, and take the workload for gone.
    const next = fcntl(other, F_DUPFD_CLOEXEC, 0);
    expect(namespaceIdentityAt(path)).toBe(identity);
    client.close();
    expect(namespaceIdentityAt(path)).not.toBe(identity);
    close(next);
  });

  test("of one name are the younger one, whichever leaves first", async () => {
    const agent = new Agent();
    const { one, other } = namespaces();
    const { sets } = start(agent.path);
    await agent.hello();
    await agent.ask(add("old", "db-0"), [one]);
    await agent.ask(add("new", "db-0"), [other]);
    const young = sets.at(-1)!;
    expect(young.length).toBe(1);
    await agent.ask(del("old"));
    expect(sets.at(-1)).toEqual(young);
  });

  test("that cannot be attached are told so, and stay wanted", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets, failures } = start(agent.path);
    failures.set("web-1", { step: "listen", message: "port 15001 is taken" });
    failures.set("web-2", "never");
    await agent.hello();
    expect(await agent.ask(add("u1", "web-1"), [one])).toBe("Kubernetes//Pod/shop/web-1 cannot be attached (listen): port 15001 is taken; it is tried again");
    expect(await agent.ask(add("u2", "web-2"), [one])).toContain("is not attached after");
    expect(sets.at(-1)?.length).toBe(2);
  });
});

describe("a CNI agent that comes back", () => {
  test("finds the workloads served; those it does not name at its snapshot are gone", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets, events } = start(agent.path);
    await agent.hello();
    for (const uid of ["u1", "u2", "u3"]) await agent.ask(add(uid), [one]);
    await agent.ask(SNAPSHOT);
    agent.hangUp();
    await until("the loss is noticed", WAIT_MS, () => events.some(({ kind }) => kind === "disconnected"));
    expect(sets.at(-1)?.length).toBe(3);
    await agent.hello();
    await agent.ask(add("u1"), [one]);
    await agent.ask(keep("u2"));
    expect(sets.at(-1)?.length).toBe(3);
    await agent.ask(SNAPSHOT);
    expect(names(sets.at(-1)).sort()).toEqual(["Kubernetes//Pod/shop/u1", "Kubernetes//Pod/shop/u2"] as never);
  });

  test("is waited for", async () => {
    const path = join(folder, "later.sock");
    const { events } = start(path);
    expect(events[0]).toMatchObject({ kind: "disconnected", reason: expect.stringContaining("ENOENT") });
    const server = new ZdsServer({ path, pods: () => [], onConnections: () => {} });
    expect(server.listen().ok).toBe(true);
    closers.push(() => server.close());
    await until("the snapshot", WAIT_MS, () => events.some(({ kind }) => kind === "snapshot"));
  });
});

describe("what is no ZDS", () => {
  const refused = async (message: Request | Uint8Array, fds: readonly number[], why: string): Promise<void> => {
    const agent = new Agent();
    const { events } = start(agent.path);
    await agent.hello();
    agent.send(message, fds);
    await until(why, WAIT_MS, () => events.some((event) => event.kind === "refused" && event.reason.includes(why)));
    expect(events.some((event) => event.kind === "disconnected" && event.reason.includes(why))).toBe(true);
  };

  test("ends the connection, and leaves no descriptor open", async () => {
    const { one } = namespaces();
    const before = openDescriptors();
    await refused(new Uint8Array([0xff, 0xff, 0xff]), [one], "that is none of ZDS");
    await refused(add("u1"), [], "0 descriptors beside add, wanted 1");
    await refused(add("u1"), [one, one], "2 descriptors beside add, wanted 1");
    await refused(del("u1"), [one], "1 descriptors beside del, wanted 0");
    await refused(new Uint8Array(5000), [one], "a message longer than");
    await refused(SNAPSHOT, Array.from({ length: 20 }, () => one), "more than 8 descriptors");
    for (const closing of closers.splice(1).reverse()) closing();
    expect(openDescriptors()).toBeLessThanOrEqual(before);
  });

  test("a workload without a name, or with one that is none, is refused by itself", async () => {
    const agent = new Agent();
    const { one } = namespaces();
    const { sets } = start(agent.path);
    await agent.hello();
    expect(await agent.ask({ payload: { case: "add", value: { uid: "u1" } } }, [one])).toBe("workload u1 comes without its name");
    expect(await agent.ask(add("u1", "../../x"), [one])).toContain("wanted names as Kubernetes has them");
    expect(await agent.ask(add("", "web"), [one])).toContain("a uid of 0 characters");
    expect(await agent.ask(new Uint8Array([0x4a, 0x00]))).toBe("the message has no payload that is known");
    expect(sets).toEqual([]);
    expect(await agent.ask(SNAPSHOT)).toBe("");
  });
});

test("our own CNI agent and it understand each other", async () => {
  const { one } = namespaces();
  const path = join(folder, "ours.sock");
  const pods = [{ uid: "u1", namespace: "shop", name: "web-1", serviceAccount: "web", namespaceFd: () => one }];
  const server = new ZdsServer({ path, pods: () => pods, onConnections: () => {} });
  expect(server.listen().ok).toBe(true);
  closers.push(() => server.close());
  const { events, sets } = start(path);
  await until("the snapshot", WAIT_MS, () => events.some(({ kind }) => kind === "snapshot"));
  expect(names(sets.at(-1))).toEqual(["Kubernetes//Pod/shop/web-1"] as never);
  expect(await server.add({ uid: "u2", namespace: "shop", name: "web-2", serviceAccount: "web", namespaceFd: () => one }, 1000)).toEqual({ ok: true, value: undefined });
  await server.remove("u1");
  expect(names(sets.at(-1))).toEqual(["Kubernetes//Pod/shop/web-2"] as never);
});
