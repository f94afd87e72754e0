// An agent's configuration from a control plane: what changes, what is kept, what happens when either end goes away.

import { afterAll, afterEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HOUR_MS, testCa } from "../../test/kit/certificates.ts";
import { policy, service, uid, workload } from "../../test/kit/mesh-records.ts";
import { PublishedMesh } from "../../test/kit/published-mesh.ts";
import { until } from "../../test/kit/until.ts";
import { TestXdsServer, XDS_SERVER_NAME } from "../../test/kit/xds-server.ts";
import { systemRandom } from "../core/ports.ts";
import { systemTimers } from "../net/timers.ts";
import { MeshStore } from "../mesh/store.ts";
import { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import { CONFIRM_GATHER_MS } from "../xds/client/ads-client.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "../xds/resource.ts";
import type { ConfigState } from "./config-source.ts";
import type { Logger } from "./logger.ts";
import { GATHER_MS, XdsSource } from "./xds-source.ts";

const folder = mkdtempSync(join(tmpdir(), "weft-xds-source-"));
const ca = testCa({ nowMs: Date.now() - HOUR_MS });
writeFileSync(join(folder, "root.pem"), ca.rootPem);
const TOKEN = "a-token-of-the-test";
const closers: (() => PromiseLike<void>)[] = [];
const lines: string[] = [];
const log: Logger = { error: (line) => void lines.push(line), warn: (line) => void lines.push(line), info: (line) => void lines.push(line), debug: () => {}, enabled: () => true };
const metrics = new ConnectionMetrics();
let stateCount = 0;

afterAll(() => rmSync(folder, { recursive: true }));
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
  lines.length = 0;
});

const stateDirectory = (): string => join(folder, `state-${stateCount++}`);

async function serve(port?: number): Promise<TestXdsServer> {
  const server = await TestXdsServer.start({ ca, token: TOKEN, ...(port === undefined ? {} : { port }) });
  closers.push(() => server[Symbol.asyncDispose]());
  return server;
}

interface Agent {
  readonly source: XdsSource;
  readonly states: ConfigState[];
  readonly connection: { amiss: string | null };
}

async function agent(port: number, directory: string | null, { token = TOKEN, rootCa = join(folder, "root.pem"), signal = new AbortController().signal, timers = systemTimers } = {}): Promise<Agent | null> {
  const states: ConfigState[] = [];
  const connection: { amiss: string | null } = { amiss: null };
  const source = await XdsSource.open({
    client: {
      channel: { address: `127.0.0.1:${port}`, serverName: XDS_SERVER_NAME, rootCa, token: { kind: "literal", value: token }, clusterId: "Kubernetes", headers: {} },
      node: { id: "ztunnel~198.18.0.1~zt.istio-system~istio-system.svc.cluster.local", metadata: { NODE_NAME: "node-1" } },
      types: [AUTHORIZATION_TYPE, ADDRESS_TYPE],
    },
    l7: null, store: new MeshStore(), stateDirectory: directory, onChange: (state) => void states.push(state), onConnection: (amiss) => (connection.amiss = amiss), log, metrics, random: systemRandom, timers,
  }, signal);
  if (source === null) return null;
  closers.push(() => source[Symbol.asyncDispose]());
  return { source, states, connection };
}

const soon = (what: string, condition: () => boolean) => until(() => `${what}; the log: ${lines.join(" | ")}`, 15_000, condition);

const names = (state: ConfigState): string[] => [...state.mesh.workloads.values()].map(({ name, capacity }) => `${name}@${capacity}`).sort();

describe("with a control plane", () => {
  test("what comes close behind another is in force at once, and confirmed a little later, so that the server gathers", async () => {
    const server = await serve();
    const mesh = new PublishedMesh();
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a" })], policies: [policy({ name: "p" })] }));
    const held: (() => void)[] = [];
    const timers = { after: (ms: number, run: () => void) => (ms === CONFIRM_GATHER_MS ? (held.push(run), () => {}) : systemTimers.after(ms, run)) };
    const { source } = (await agent(server.port, null, { timers }))!;
    const acked = (): number[] => (server.xds.clients()[0]?.types ?? []).map(({ ackedState }) => ackedState).sort();
    expect(source.state.resourceCount).toBe(2);
    await soon("the first response to be confirmed", () => acked().includes(1));
    expect(acked()).toEqual([0, 1]);
    for (const run of held.splice(0)) run();
    await soon("the second", () => !acked().includes(0));
    // A change that comes alone, when the time has passed, is confirmed at once.
    for (const run of held.splice(0)) run();
    server.xds.publish(mesh.change({ workloads: [workload({ name: "b" })] }));
    await soon("the change to be confirmed", () => acked().includes(2));
  });

  test("the first state is everything, the next what changed", async () => {
    const server = await serve();
    const mesh = new PublishedMesh();
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a" })], services: [service({ name: "web" })], policies: [policy({ name: "p" })] }));
    const { source, states } = (await agent(server.port, null))!;
    expect([source.state.version, source.state.delta.workloads.length, source.state.delta.services.length, source.state.delta.policies.length, source.state.resourceCount]).toEqual([1, 1, 1, 1, 3]);
    server.xds.publish(mesh.change({ workloads: [workload({ name: "b" })], removedWorkloads: [uid("Kubernetes//Pod/shop/a")] }));
    await soon("the change", () => source.state.mesh.workloads.size === 1 && names(source.state)[0] === "b@1");
    expect(states.map(({ version }) => version)).toEqual(states.map((_, i) => i + 2));
    expect(states.flatMap(({ delta }) => [...delta.workloads.map(({ name }) => `+${name}`), ...delta.removedWorkloads.map((name) => `-${name}`)])).toEqual(["+b", "-Kubernetes//Pod/shop/a"]);
  });

  test("its end and its return ask for nothing again but the difference", async () => {
    const first = await serve();
    const mesh = new PublishedMesh();
    const initial = mesh.change({ workloads: [workload({ name: "a" }), workload({ name: "b" })] });
    first.xds.publish(initial);
    const { source, connection } = (await agent(first.port, null))!;
    const { port } = first;
    await first[Symbol.asyncDispose]();
    await soon("the loss is noticed", () => connection.amiss !== null);
    expect(names(source.state)).toEqual(["a@1", "b@1"]);
    const second = await serve(port);
    const { mesh: records } = mesh.change({ workloads: [workload({ name: "a", capacity: 2 })], removedWorkloads: [uid("Kubernetes//Pod/shop/b")] });
    second.xds.publish({ ...new PublishedMesh().change({ workloads: [...records.workloads.values()] }) });
    await soon("the difference", () => names(source.state).join() === "a@2");
    expect(connection.amiss).toBeNull();
    expect([second.xds.counters.resources, second.xds.counters.removals]).toEqual([1, 1]);
  });

  test("what it refuses is a diagnostic and a rejection there; the last good state stays", async () => {
    const server = await serve();
    const mesh = new PublishedMesh();
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    const { source } = (await agent(server.port, null))!;
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a", capacity: 2, serviceAccount: "not an account" })] }));
    await soon("the diagnostic", () => source.state.diagnostics.length === 1);
    expect(source.state.diagnostics[0]).toMatchObject({ severity: "error", resource: "Address Kubernetes//Pod/shop/a", message: expect.stringContaining("service_account") });
    expect(names(source.state)).toEqual(["a@1"]);
    await soon("the rejection", () => server.xds.clients()[0]?.types.find(({ typeUrl }) => typeUrl === ADDRESS_TYPE)?.rejected !== null);
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a", capacity: 3 })] }));
    await soon("the good state", () => names(source.state)[0] === "a@3");
    expect(source.state.diagnostics).toEqual([]);
    expect(metrics.cell("weft_xds_refused_total", { url: ADDRESS_TYPE }).value).toBe(1);
    expect(metrics.cell("istio_xds_message_total", { url: ADDRESS_TYPE }).value).toBeGreaterThanOrEqual(3);
  });

  test("workloads of this node are set from elsewhere, and are a state of their own", async () => {
    const server = await serve();
    server.xds.publish(new PublishedMesh().change({}));
    const { source, states } = (await agent(server.port, null))!;
    const local = { uid: uid("x") } as never;
    source.setLocalWorkloads([local]);
    source.setLocalWorkloads([local]);
    expect(states.map(({ localWorkloads, delta }) => [localWorkloads.length, delta.workloads.length])).toEqual([[1, 0]]);
  });
});

describe("without a control plane", () => {
  test("a policy is kept as soon as it is told, also close behind an address", async () => {
    const server = await serve();
    const mesh = new PublishedMesh();
    server.xds.publish(mesh.change({ workloads: [workload({ name: "a" })] }));
    const directory = stateDirectory();
    const gathering: unknown[] = [];
    // Nothing that is gathered is ever written by itself.
    const timers = { after: (ms: number, run: () => void) => (ms === GATHER_MS ? (gathering.push(run), () => {}) : systemTimers.after(ms, run)) };
    await agent(server.port, directory, { timers });
    await soon("the address to be written", () => gathering.length > 0);
    server.xds.publish(mesh.change({ policies: [policy({ name: "guard" })] }));
    await soon("the policy to be on disk", () => readFileSync(join(directory, "xds/resources.log"), "latin1").includes("shop/guard"));
  });

  test("a start goes on from what was kept, and comes up to date when it is back", async () => {
    const first = await serve();
    const mesh = new PublishedMesh();
    first.xds.publish(mesh.change({ workloads: [workload({ name: "a" }), workload({ name: "b" })], policies: [policy({ name: "p", rules: [] })] }));
    const directory = stateDirectory();
    const before = (await agent(first.port, directory))!;
    const { port } = first;
    await before.source.stored();
    await before.source[Symbol.asyncDispose]();
    await first[Symbol.asyncDispose]();
    const again = (await agent(port, directory))!;
    expect(names(again.source.state)).toEqual(["a@1", "b@1"]);
    expect(again.source.state.delta.policies.length).toBe(1);
    const second = await serve(port);
    second.xds.publish(new PublishedMesh().change({ workloads: [workload({ name: "a", capacity: 5 })], policies: [policy({ name: "p", rules: [] })] }));
    await soon("up to date", () => names(again.source.state).join() === "a@5");
    expect([second.xds.counters.resources, second.xds.counters.removals]).toEqual([1, 1]);
    await again.source.stored();
    await second[Symbol.asyncDispose]();
    expect(names((await agent(port, directory))!.source.state)).toEqual(["a@5"]);
  });

  test("and without anything kept it waits, says for whom, and can be told to give up", async () => {
    const server = await serve();
    const { port } = server;
    await server[Symbol.asyncDispose]();
    const giveUp = new AbortController();
    const waiting = agent(port, stateDirectory(), { signal: giveUp.signal });
    await soon("it is said", () => lines.some((line) => line.startsWith(`no connection to the control plane: connecting to 127.0.0.1:${port}`)));
    giveUp.abort();
    expect(await waiting).toBeNull();
  });
});

describe("what keeps it out is said", () => {
  const reason = async (options: { token?: string; rootCa?: string }, wanted: string): Promise<void> => {
    const server = await serve();
    server.xds.publish(new PublishedMesh().change({}));
    const giveUp = new AbortController();
    const waiting = agent(server.port, null, { ...options, signal: giveUp.signal });
    await soon(wanted, () => lines.some((line) => line.includes(wanted)));
    giveUp.abort();
    expect(await waiting).toBeNull();
  };

  test("a token that is not known", () => reason({ token: "another" }, "Unauthenticated: the token is not known"));
  test("a root that did not sign", () => reason({ rootCa: testCa({ nowMs: Date.now() - HOUR_MS }).rootPem }, "no connection to the control plane"));
  test("a root that is not there", () => reason({ rootCa: join(folder, "missing.pem") }, "missing.pem"));
});
