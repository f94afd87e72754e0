// `npm run bench -- control`: a control plane over a real API server with a large cluster and no kubelets: 10 000 pods, 1 000 services, 100
// namespaces, 2 000 routes and policies, and 100 changes a second. Objects are written as anybody would write them.
//
//   KUBE_BIN_DIR   kube-apiserver and etcd
//   WEFT_BIN       Weft compiled, of which both the control plane and the agent are; else dist/weft when it is newer than the sources, else the sources
//   ZTUNNEL_BIN    the reference ztunnel: an agent under the same control plane, beside ours

import { type ApiServer, apply, installDefinitions, type KubeObject, pathOf, startApiServer } from "../../test/kubernetes/api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "../../test/kubernetes/control-role.ts";
import { until } from "../../test/kit/until.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "../../test/kubernetes/objects.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, followXds } from "../../test/kubernetes/xds-client.ts";
import { MERGE_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { weftCommand } from "../peers/weft.ts";
import { type AgentIdentity, type NodeAgentProcess, ourAgent, QUIET_MS, referenceAgent } from "./agents.ts";

export interface ControlSize {
  readonly namespaces: number;
  readonly servicesPerNamespace: number;
  readonly podsPerService: number;
  readonly churnPerS: number;
  readonly churnS: number;
}

export const FULL: ControlSize = { namespaces: 100, servicesPerNamespace: 10, podsPerService: 10, churnPerS: 100, churnS: 60 };
export const QUICK: ControlSize = { namespaces: 20, servicesPerNamespace: 10, podsPerService: 10, churnPerS: 100, churnS: 10 };

/** Requests under way at once while the cluster is written. */
const WRITERS = 24;
const NODES = 50;
const SYNC_MS = 120_000;
/** Changes that the agents are given while their processor time is read; not longer than the first ones, which they take back. */
const AGENT_CHURN_S_MAX = 15;
/** A prime: every pod has its turn before any has a second. */
const STRIDE = 7919;

interface Row {
  readonly row: string;
  readonly unit: string;
  readonly ours: number;
  readonly peer: number | null;
  readonly peerName: string | null;
  readonly ratio: number | null;
}

interface Changed {
  readonly address: string;
  /** When the API server said that it has it; null while it has not. */
  acceptedMs: number | null;
  arrivedMs: number | null;
}

export async function benchControl(size: ControlSize, progress: (line: string) => void): Promise<{ readonly table: string; readonly rows: readonly Row[] }> {
  await using stack = new AsyncDisposableStack();
  const server = stack.adopt(await startApiServer(), (one) => one.stop());
  const pods = size.namespaces * size.servicesPerNamespace * size.podsPerService;
  const program = weftCommand();
  progress(`control plane and agent are ${program.join(" ")}`);
  progress(`writing ${pods} pods, ${size.namespaces * size.servicesPerNamespace} services, as many routes and policies`);
  await writeCluster(server, size);

  progress("a control plane that starts with nothing, and an agent that waits for it");
  const startedMs = performance.now();
  const control = stack.adopt(startControl(server, "bench", [], "info", program), (one) => one.kill());
  const roots = await until("the roots", SYNC_MS, () => rootsOf(server)).catch((cause: unknown) => {
    throw new Error(`${String(cause)}\n${control.log().slice(-3000)}`);
  });
  const token = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
  const agent = new Agent(control, roots, token);
  stack.defer(() => agent.end());
  await until(`an agent that knows ${pods} pods`, SYNC_MS, async () => agent.workloads >= pods && agent.policies >= size.namespaces * size.servicesPerNamespace);
  const firstSyncS = (performance.now() - startedMs) / 1000;
  // What a restart of the agent costs: everything is there and encoded.
  const again = performance.now();
  const second = new Agent(control, roots, token);
  stack.defer(() => second.end());
  await until("a second agent", SYNC_MS, async () => second.workloads >= pods);
  const resyncS = (performance.now() - again) / 1000;
  second.end();
  await until("all statuses are written", SYNC_MS, async () => Number(/^weft_control_writes_waiting (\d+)/m.exec(await (await fetch(`http://127.0.0.1:${control.metricsPort}/metrics`)).text())?.[1]) === 0);

  progress(`${size.churnPerS} changes a second for ${size.churnS} s`);
  const cpuBefore = control.cpuSeconds();
  const { pushedMs, writtenMs } = await churn(server, size, agent, 1);
  const cpu = (control.cpuSeconds() - cpuBefore) / size.churnS;
  const controlMb = control.residentBytes() / 1e6;
  const agents = await measureAgents({ server, control, roots, program }, size, agent, progress);
  const rows: Row[] = [
    row("first_sync_s", "s", firstSyncS), row("resync_s", "s", resyncS), row("change_p50_ms", "ms", quantile(pushedMs, 0.5)), row("change_p99_ms", "ms", quantile(pushedMs, 0.99)),
    row("api_write_p50_ms", "ms", quantile(writtenMs, 0.5)), row("api_write_p99_ms", "ms", quantile(writtenMs, 0.99)),
    row("control_memory", "MB", controlMb), row("control_cpu", "cores", cpu),
    ...agents,
  ];
  return { rows, table: rows.map(({ row: name, unit, ours, peer, ratio }) => `${name.padEnd(26)}${figure(ours)} ${unit.padEnd(6)}${peer === null || ratio === null ? "" : `${figure(peer)} ${figure(ratio)} x`}`.trimEnd()).join("\n") };
}

const figure = (value: number): string => value.toFixed(value < 10 ? 2 : 0).padStart(10);
const row = (name: string, unit: string, ours: number): Row => ({ row: name, unit, ours, peer: null, peerName: null, ratio: null });

async function rootsOf(server: ApiServer): Promise<string | null> {
  const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${CONTROL_NAMESPACE}/configmaps/istio-ca-root-cert` });
  return answer.ok ? ((answer.value as { data: Record<string, string> }).data["root-cert.pem"] ?? null) : null;
}

/** One agent, from the public protos. */
class Agent {
  readonly #names = new Set<string>();
  readonly #stop = new AbortController();
  policies = 0;
  /** By uid: called with the address of each workload that comes. */
  onWorkload: (uid: string, address: string) => void = () => {};

  constructor(control: ControlRole, rootsPem: string, token: string) {
    void this.#run(control, rootsPem, token);
  }

  get workloads(): number {
    return this.#names.size;
  }

  end(): void {
    this.#stop.abort();
  }

  async #run(control: ControlRole, rootsPem: string, token: string): Promise<void> {
    while (!this.#stop.signal.aborted) {
      try {
        await followXds({
          port: control.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, token, node: "node0",
          onAddress: (name, address) => {
            if (address.type.case !== "workload") return;
            this.#names.add(name);
            this.onWorkload(name, [...(address.type.value.addresses[0] ?? [])].join("."));
          },
          onRemoved: (typeUrl, name) => void (typeUrl === ADDRESS_TYPE && this.#names.delete(name)),
          onResponse: (typeUrl, count) => void (typeUrl === AUTHORIZATION_TYPE && (this.policies += count)),
        }, this.#stop.signal);
      } catch {
        // It is not there yet, or does not know the agent's pod yet.
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}

async function writeCluster(server: ApiServer, size: ControlSize): Promise<void> {
  await installDefinitions(server.client);
  await apply(server.client, namespace(CONTROL_NAMESPACE), serviceAccount("ztunnel", CONTROL_NAMESPACE),
    ...[0, 1, 2].map((index) => pod(`ztunnel-${index + 1}`, CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: `node${index}`, ip: `198.19.255.${index + 1}`, serviceAccount: "ztunnel" })));
  await each(Array.from({ length: NODES }, (_, index) => node(`node${index}`, { "topology.kubernetes.io/zone": `z${index % 3}` })), (object) => apply(server.client, object));
  const spaces = Array.from({ length: size.namespaces }, (_, index) => `ns-${index}`);
  await each(spaces, (name) => apply(server.client, namespace(name)));
  const services = spaces.flatMap((at) => Array.from({ length: size.servicesPerNamespace }, (_, index) => ({ at, name: `app-${index}` })));
  await each(services, ({ at, name }) => apply(server.client,
    service(name, at, { selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: "http" }] }),
    { apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name, namespace: at }, spec: { parentRefs: [{ group: "", kind: "Service", name, port: 80 }], rules: [{ backendRefs: [{ name, port: 80 }] }] } },
    { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: at }, spec: { selector: { matchLabels: { app: name } }, action: "ALLOW", rules: [{ from: [{ source: { namespaces: [at] } }] }] } }));
  let created = 0;
  const all = services.flatMap(({ at, name }) => Array.from({ length: size.podsPerService }, (_, index) => ({ at, app: name, name: `${name}-5d8f7c-${index}`, number: created++ })));
  await each(all, ({ at, app, name, number }) => create(server, pod(name, at, {
    labels: { app, "pod-template-hash": "5d8f7c" }, annotations: { "ambient.istio.io/redirection": "enabled" }, node: `node${number % NODES}`, ip: addressOf(0, number), serviceAccount: app, ports: [{ name: "http", containerPort: 8080 }],
  })));
}

/** Every pod has an address of its own in each generation. */
const addressOf = (generation: 0 | 1, number: number): string => `198.18.${(number >> 8) + generation * 128}.${number & 255}`;

async function create(server: ApiServer, object: KubeObject): Promise<void> {
  const collection = pathOf(object).replace(/\/[^/]+$/, "");
  const made = await server.client.request({ method: "POST", path: collection, body: object });
  if (!made.ok && made.error.status !== 409) throw new Error(made.error.message);
  await setStatus(server, object, object["status"]);
}

async function setStatus(server: ApiServer, object: KubeObject, status: unknown): Promise<void> {
  const answer = await server.client.request({ method: "PATCH", path: `${pathOf(object)}/status`, contentType: MERGE_PATCH, body: { status } });
  if (!answer.ok) throw new Error(answer.error.message);
}

async function each<T>(items: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  let next = 0;
  await Promise.all(Array.from({ length: WRITERS }, async () => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) await run(item);
  }));
}

interface Churned {
  /** Sorted milliseconds from the API server's answer to the agent; 0 for news that was there first. */
  readonly pushedMs: readonly number[];
  /** What the API server itself took for each. */
  readonly writtenMs: readonly number[];
}

/** Open loop: changes leave when they are due, whether earlier ones have arrived or not. */
async function churn(server: ApiServer, size: ControlSize, agent: Agent, generation: 0 | 1): Promise<Churned> {
  const changes = new Map<string, Changed>();
  const writtenMs: number[] = [];
  agent.onWorkload = (uid, address) => {
    const changed = changes.get(uid);
    if (changed?.address === address) changed.arrivedMs ??= performance.now();
  };
  const count = size.churnPerS * size.churnS;
  const pods = size.namespaces * size.servicesPerNamespace * size.podsPerService;
  const startMs = performance.now();
  const sent: Promise<void>[] = [];
  for (let index = 0; index < count; index++) {
    const dueMs = startMs + (index * 1000) / size.churnPerS;
    const waitMs = dueMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    // Spread over all namespaces; each pod moves to its other address, once.
    const number = (index * STRIDE) % pods;
    const perNamespace = size.servicesPerNamespace * size.podsPerService;
    const at = `ns-${Math.floor(number / perNamespace)}`;
    const name = `app-${Math.floor((number % perNamespace) / size.podsPerService)}-5d8f7c-${number % size.podsPerService}`;
    const uid = `Kubernetes//Pod/${at}/${name}`;
    const address = addressOf(generation, number);
    const changed: Changed = { address, acceptedMs: null, arrivedMs: null };
    changes.set(uid, changed);
    const sentMs = performance.now();
    sent.push(setStatus(server, { apiVersion: "v1", kind: "Pod", metadata: { name, namespace: at } }, { podIP: address, podIPs: [{ ip: address }] }).then(() => {
      changed.acceptedMs = performance.now();
      writtenMs.push(changed.acceptedMs - sentMs);
    }));
  }
  await Promise.all(sent);
  await until("every change has arrived", SYNC_MS, async () => [...changes.values()].every(({ arrivedMs }) => arrivedMs !== null));
  const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);
  return { pushedMs: sorted([...changes.values()].map(({ arrivedMs, acceptedMs }) => Math.max(0, (arrivedMs ?? Number.NaN) - (acceptedMs ?? Number.NaN)))), writtenMs: sorted(writtenMs) };
}

const quantile = (sorted: readonly number[], q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;

interface Measured {
  readonly server: ApiServer;
  readonly control: ControlRole;
  /** PEM. */
  readonly roots: string;
  /** The command that runs Weft. */
  readonly program: readonly string[];
}

/**
 * A node agent of ours and, where there is one, the reference's: what each takes once it has been told everything, for the way there, and
 * for the same changes, which both hear at the same time.
 */
async function measureAgents({ server, control, roots, program }: Measured, size: ControlSize, agent: Agent, progress: (line: string) => void): Promise<Row[]> {
  await using stack = new AsyncDisposableStack();
  const identityOf = async (pod: string, node: string): Promise<AgentIdentity> => ({ roots, token: await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod }), pod, node });
  const begin = async (of: NodeAgentProcess): Promise<{ readonly agent: NodeAgentProcess; readonly syncCpuS: number }> => {
    stack.defer(() => of.end());
    await of.synced(SYNC_MS);
    return { agent: of, syncCpuS: of.cpuSeconds() };
  };
  progress("a node agent of ours, and the reference's, told everything");
  const ours = await begin(ourAgent(program, control, await identityOf("ztunnel-2", "node1")));
  const reference = referenceAgent(control, await identityOf("ztunnel-3", "node2"));
  if (reference === null) progress("the reference ztunnel is left out: ZTUNNEL_BIN names no program");
  const both = reference === null ? [ours] : [ours, await begin(reference)];
  await Bun.sleep(QUIET_MS);
  const rest = both.map(({ agent: of }) => of.residentBytes() / 1e6);
  const churnS = Math.min(AGENT_CHURN_S_MAX, size.churnS);
  progress(`${size.churnPerS} changes a second for ${churnS} s, and quiet`);
  const before = both.map(({ agent: of }) => of.cpuSeconds());
  await churn(server, { ...size, churnS }, agent, 0);
  for (const { agent: of } of both) await of.synced(SYNC_MS);
  const cpu = both.map(({ agent: of }, index) => (of.cpuSeconds() - before[index]!) / churnS);
  await Bun.sleep(QUIET_MS);
  const after = both.map(({ agent: of }) => of.residentBytes() / 1e6);
  return [
    compared("agent_memory", "MB", rest), compared("agent_memory_after_churn", "MB", after), compared("agent_cpu", "cores", cpu), compared("agent_sync_cpu_s", "s", both.map(({ syncCpuS }) => syncCpuS)),
  ];
}

/** @param of ours, and the reference's where there is one. */
function compared(name: string, unit: string, [ours = Number.NaN, peer]: readonly number[]): Row {
  return peer === undefined ? row(name, unit, ours) : { row: name, unit, ours, peer, peerName: "ztunnel", ratio: ours / peer };
}
