// The node's CNI agent: what the API says of the pods here, what the plugin asks, and the enrolment between them. main.ts gives it a
// process; it starts nothing but what is listed here.

import type { Clock, Random } from "../core/ports.ts";
import { type IpAddress, parseIp } from "../core/ip.ts";
import { unreachable } from "../core/result.ts";
import { fcntl, F_DUPFD_CLOEXEC, errnoName } from "../net/libc.ts";
import { closeNamespace } from "../net/namespace.ts";
import { inspectRedirect } from "../net/redirect/redirect.ts";
import { removeProbeSource, setProbeSource } from "../net/redirect/probe-source.ts";
import { REDIRECTION } from "../resources/annotations.ts";
import { systemTimers } from "../net/timers.ts";
import type { Api } from "../runtime/kubernetes/api.ts";
import { collectionPath, objectPath, type ResourceType } from "../runtime/kubernetes/api-path.ts";
import { ListWatch, METADATA_ONE, type ListWatchSink, type Watched } from "../runtime/kubernetes/list-watch.ts";
import type { Logger } from "../runtime/logger.ts";
import type { AgentAnswer, AgentRequest, PodReference } from "./agent-protocol.ts";
import { Enrolment, type EnrolmentTimes } from "./enrolment.ts";
import { type Membership, membershipOf } from "./membership.ts";
import { parseNamespace, parsePod, type Pod } from "./pod.ts";
import { type CaptureSettings, podCapture, RULES_OWNER } from "./pod-capture.ts";
import { PodNamespaces } from "./pod-namespaces.ts";
import { type Left, LEFT_SETTLE_MS, meshed, podWorld } from "./pod-world.ts";
import { ZdsServer } from "./zds-server.ts";

export interface AgentOptions {
  readonly client: Api;
  readonly node: string;
  readonly zdsSocket: string;
  readonly excludedNamespaces: readonly string[];
  readonly capture: CaptureSettings;
  /** Whether rules on the node give the kubelet's probes the addresses of `capture`. */
  readonly probeSource: boolean;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
  /** Not in the mesh though they should be, one line; null when there are none. */
  readonly onFailing: (what: string | null) => void;
  readonly onZtunnels: (connected: number) => void;
  /** How long connections of pods that leave because the mesh goes may go on. The ztunnels' own, or it would cut them first. */
  readonly drainMs: number;
  /** For tests: shorter than the real ones. */
  readonly times?: EnrolmentTimes;
}

const PODS: ResourceType = { group: "", version: "v1", plural: "pods", kind: "Pod", namespaced: true };
const NAMESPACES: ResourceType = { group: "", version: "v1", plural: "namespaces", kind: "Namespace", namespaced: false };
const EVENTS: ResourceType = { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true };
/** How often what a watch told is compared with the API. Rare enough that thousands of nodes are no load. */
const COMPARE_MS = 30 * 60_000;
const REPAIR_MS = 30_000;
/** A pod's failures named in one line. */
const FAILURES_SHOWN = 3;
/** Pods are outside by then, or go by what their ztunnel and the API let them. */
const RELEASE_MS = 20_000;
/** Pods that carry nothing have lost their rules by then; of the others the log tells. */
const SETTLED_MS = 2 * LEFT_SETTLE_MS;

/** A pod that keeps failing is told of again, not at each attempt. */
const EVENT_EVERY_MS = 60_000;
/** More pods than a node has; beyond it some are told of once too often. */
const EVENT_PODS_MAX = 1_000;
/** The API's own limits: a name of 253 with what it adds, a message of 1024. */
const EVENT_NAME_CHARS = 200;
const EVENT_MESSAGE_CHARS = 1_024;

/** Kubelet's own pods have another UID in the API; theirs stands there. */
const STATIC_POD_UID = "kubernetes.io/config.hash";

export class Agent {
  readonly #options: AgentOptions;
  readonly #zds: ZdsServer;
  readonly #enrolment: Enrolment;
  readonly #left: Left;
  readonly #namespaces = new PodNamespaces();
  readonly #podsByUid = new Map<string, Pod>();
  readonly #labelsOfNamespace = new Map<string, Readonly<Record<string, string>>>();
  readonly #watching = new AbortController();
  readonly #watches: ListWatch[] = [];
  /** `namespace/name` to UID: a pod of a name may be followed by another. */
  readonly #uids = new Map<string, string>();
  readonly #toldAtMs = new Map<string, number>();
  #synced = false;
  #probesDue = false;
  #timer: ReturnType<typeof setInterval> | null = null;

  constructor(options: AgentOptions) {
    this.#options = options;
    const { log } = options;
    this.#zds = new ZdsServer({
      path: options.zdsSocket,
      pods: () => this.#enrolment.served.map(({ pod, namespaceFd }) => meshed(pod, namespaceFd)),
      onConnections: (connected, what) => {
        log.info(what, { connected });
        options.onZtunnels(connected);
      },
    });
    const world = podWorld({
      client: options.client,
      zds: () => this.#zds,
      namespaces: this.#namespaces,
      capture: options.capture,
      onChanged: () => this.#changed(),
      onFailed: (pod, why) => {
        log.warn("a pod is not as it should be, tried again", { pod: `${pod.namespace}/${pod.name}`, error: why });
        void this.#tellInEvents(pod, why);
      },
      onNote: (pod, note) => log.info(note, { pod: `${pod.namespace}/${pod.name}` }),
    });
    this.#left = world.left;
    this.#enrolment = new Enrolment(world, options.times);
  }

  /** Resolves when pods and namespaces have been read once and ztunnels may come. Rejects when their socket cannot be made. */
  async start(): Promise<void> {
    const { signal } = this.#watching;
    await this.#watch({ types: [NAMESPACES], namespace: null, metadataOnly: true, compareMs: COMPARE_MS }, {
      upsert: (object) => {
        const namespace = parseNamespace(object);
        if (namespace !== null) this.#namespaceChanged(namespace.name, namespace.labels);
      },
      remove: (_, name) => this.#namespaceChanged(name, null),
    });
    await this.#watch({ types: [PODS], namespace: null, fieldSelector: `spec.nodeName=${this.#options.node}`, compareMs: COMPARE_MS }, {
      upsert: (object) => {
        const pod = parsePod(object);
        if (pod !== null) this.#podSeen(pod);
      },
      remove: (namespace, name) => this.#podGone(`${namespace}/${name}`),
    });
    if (signal.aborted) return;
    for (const pod of this.#podsByUid.values()) this.#adopt(pod);
    this.#synced = true;
    for (const pod of this.#podsByUid.values()) this.#tell(pod);
    this.#setProbeSource();
    const listening = this.#zds.listen();
    if (!listening.ok) throw new Error(listening.error);
    this.#timer = setInterval(() => {
      this.#enrolment.repair();
      this.#setProbeSource();
    }, REPAIR_MS);
  }

  /** Resolves when the first list is complete, or nothing is watched any more. */
  async #watch(watched: Watched, sink: Omit<ListWatchSink, "synced">): Promise<void> {
    const { client, clock, random, log } = this.#options;
    const read = Promise.withResolvers<void>();
    const watch = new ListWatch(watched, { api: client, clock, random, timers: systemTimers, log, sink: { ...sink, synced: () => read.resolve() } });
    this.#watches.push(watch);
    watch.start();
    await Promise.race([read.promise, aborted(this.#watching.signal)]);
  }

  /** What the plugin asks. */
  async handle(request: AgentRequest, namespaceFd: number | null): Promise<AgentAnswer> {
    switch (request.kind) {
      case "add":
        return await this.#add(request.pod, request.addresses, namespaceFd!);
      case "check":
        return await this.#check(request.pod, namespaceFd!);
      case "del":
        await this.#enrolment.stop(request.pod.uid === "" ? null : request.pod.uid, request.pod.containerId);
        return { kind: "done", inMesh: false };
      case "gc":
        await this.#enrolment.collect(new Set(request.validContainerIds));
        return { kind: "done", inMesh: false };
      case "status":
        return this.#zds.connected > 0 ? { kind: "done", inMesh: false } : { kind: "refused", why: "no ztunnel of this node is connected", later: true };
      default:
        return unreachable(request);
    }
  }

  /** For /config_dump. */
  get pods(): readonly object[] {
    return this.#enrolment.members.map(({ pod, stage, membership, failure }) => ({
      namespace: pod.namespace, name: pod.name, uid: pod.uid, stage, inMesh: membership.inMesh, why: membership.why, ...(failure === null ? {} : { failure }),
    }));
  }

  get insideCount(): number {
    return this.#enrolment.members.filter(({ stage }) => stage === "inside").length;
  }

  get ztunnels(): number {
    return this.#zds.connected;
  }

  /** This process ends, the mesh does not: everything stays as it is for the agent that comes next. */
  stop(): void {
    this.#enrolment.freeze();
    this.#endWatching();
    this.#zds.close();
  }

  /** The mesh goes from this node: every pod leaves it, what is open has its time to end, and no rule of ours is left. */
  async uninstall(): Promise<void> {
    const { log, drainMs } = this.#options;
    this.#endWatching();
    await Promise.race([this.#enrolment.releaseAll(), Bun.sleep(RELEASE_MS)]);
    const settleMs = Math.min(drainMs, SETTLED_MS);
    await this.#left.emptied(settleMs);
    const open = this.#left.names;
    if (open.length > 0) log.info("pods are out of the mesh; connections through it go on until they end", { pods: open.length, seconds: drainMs / 1000 });
    await this.#left.emptied(drainMs - settleMs);
    for (const pod of this.#left.names) log.warn("a pod's connections through the mesh have not ended in time, and are cut", { pod });
    this.#left.removeAll();
    const removed = this.#options.probeSource ? removeProbeSource(null) : null;
    if (removed !== null && !removed.ok) this.#options.log.warn(removed.error.message);
    this.#zds.close();
  }

  #endWatching(): void {
    this.#watching.abort();
    for (const watch of this.#watches) void watch.stop();
    if (this.#timer !== null) clearInterval(this.#timer);
  }

  async #add(reference: PodReference, addresses: readonly string[], namespaceFd: number): Promise<AgentAnswer> {
    const { log } = this.#options;
    const asked = await this.#ask(reference);
    if (!asked.ok) return { kind: "refused", why: asked.error, later: true };
    const { pod, membership } = asked.value;
    const name = `${pod.namespace}/${pod.name}`;
    if (!membership.inMesh) {
      log.debug("a pod starts outside the mesh", { pod: name, why: membership.why });
      return { kind: "done", inMesh: false };
    }
    const copy = fcntl(namespaceFd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return { kind: "refused", why: `the network namespace of ${name} cannot be kept: ${errnoName(copy)}`, later: true };
    const joined = await this.#enrolment.start({ ...pod, addresses: pod.addresses.length > 0 ? pod.addresses : addresses }, membership, reference.containerId, copy);
    if (joined.ok) {
      log.info("a pod starts in the mesh", { pod: name, why: membership.why });
      return { kind: "done", inMesh: true };
    }
    log.warn("a pod that must be in the mesh does not start", { pod: name, error: joined.error });
    return { kind: "refused", why: `${name} must be in the mesh (${membership.why}) and cannot be: ${joined.error}`, later: true };
  }

  /** The pod as the API has it now: the watch may not have heard of it yet, or not of its labels. */
  async #ask({ namespace, name, uid }: PodReference): Promise<{ ok: true; value: { pod: Pod; membership: Membership } } | { ok: false; error: string }> {
    const { client, node } = this.#options;
    const [podAnswer, namespaceAnswer] = await Promise.all([
      client.request({ method: "GET", path: objectPath(PODS, namespace, name) }),
      client.request({ method: "GET", path: objectPath(NAMESPACES, "", namespace), accept: METADATA_ONE }),
    ]);
    if (!podAnswer.ok) return { ok: false, error: `whether ${namespace}/${name} must be in the mesh is not known: ${podAnswer.error.message}` };
    if (!namespaceAnswer.ok) return { ok: false, error: `whether ${namespace}/${name} must be in the mesh is not known: ${namespaceAnswer.error.message}` };
    const pod = parsePod(podAnswer.value);
    const labels = parseNamespace(namespaceAnswer.value)?.labels;
    if (pod === null || labels === undefined) return { ok: false, error: `what the API says of ${namespace}/${name} is not understood` };
    if (uid !== "" && pod.uid !== uid && pod.annotations[STATIC_POD_UID] !== uid) return { ok: false, error: `the API has another pod ${namespace}/${name} (UID ${pod.uid}, the runtime starts ${uid})` };
    if (pod.node !== node) return { ok: false, error: `the API has ${namespace}/${name} on node ${JSON.stringify(pod.node)}, this is ${node}` };
    return { ok: true, value: { pod, membership: membershipOf(pod, labels, this.#options.excludedNamespaces) } };
  }

  async #check(reference: PodReference, namespaceFd: number): Promise<AgentAnswer> {
    const asked = await this.#ask(reference);
    if (!asked.ok) return { kind: "refused", why: asked.error, later: true };
    const { pod, membership } = asked.value;
    if (!membership.inMesh) return { kind: "done", inMesh: false };
    const state = this.#enrolment.memberOf(pod.uid);
    if (state?.stage !== "inside") return { kind: "refused", why: `${pod.namespace}/${pod.name} must be in the mesh and is ${state?.stage ?? "not known here"}${state?.failure == null ? "" : `: ${state.failure}`}`, later: true };
    const inspection = inspectRedirect(namespaceFd, podCapture(pod, this.#options.capture).options);
    if (!inspection.ok) return { kind: "refused", why: inspection.error.message, later: true };
    const drift = inspection.value.kind === "absent" ? ["its rules are gone"] : inspection.value.drift;
    return drift.length === 0 ? { kind: "done", inMesh: true } : { kind: "refused", why: `the rules of ${pod.namespace}/${pod.name} are not as they should be: ${drift.join("; ")}`, later: true };
  }

  /** A pod that should not be in the mesh, but has rules of the agent before us: it is led out as if it had just lost its label. */
  #adopt(pod: Pod): void {
    const membership = this.#membership(pod);
    if (pod.hostNetwork || pod.ended || membership.inMesh) return;
    const found = this.#namespaces.find(pod.uid);
    if (found.kind === "none") return;
    const inspection = inspectRedirect(found.fd, podCapture(pod, this.#options.capture).options);
    if (inspection.ok && inspection.value.kind === "present" && inspection.value.owner === RULES_OWNER) this.#enrolment.adopt(pod, membership, found.fd);
    else closeNamespace(found.fd);
  }

  #membership(pod: Pod): Membership {
    return membershipOf(pod, this.#labelsOfNamespace.get(pod.namespace) ?? {}, this.#options.excludedNamespaces);
  }

  #podSeen(pod: Pod): void {
    const key = `${pod.namespace}/${pod.name}`;
    if (this.#uids.get(key) !== pod.uid) this.#podGone(key);
    this.#uids.set(key, pod.uid);
    this.#podsByUid.set(pod.uid, pod);
    if (this.#synced) this.#tell(pod);
  }

  #podGone(key: string): void {
    const uid = this.#uids.get(key);
    if (uid === undefined) return;
    this.#uids.delete(key);
    this.#podsByUid.delete(uid);
    this.#enrolment.delete(uid);
  }

  #namespaceChanged(name: string, labels: Readonly<Record<string, string>> | null): void {
    if (labels === null) this.#labelsOfNamespace.delete(name);
    else this.#labelsOfNamespace.set(name, labels);
    if (!this.#synced) return;
    for (const pod of this.#podsByUid.values()) if (pod.namespace === name) this.#tell(pod);
  }

  #tell(pod: Pod): void {
    if (pod.hostNetwork) return;
    const membership = this.#membership(pod);
    const announced = pod.annotations[REDIRECTION] === "enabled";
    const known = this.#enrolment.memberOf(pod.uid);
    // Most pods of a node that is not in the mesh need no place in it.
    if (known === null && (pod.ended || (!membership.inMesh && !announced))) return;
    // The runtime knew its addresses before the API does.
    const addresses = pod.addresses.length > 0 ? pod.addresses : (known?.pod.addresses ?? []);
    this.#enrolment.set({ ...pod, addresses }, membership, announced);
  }

  #changed(): void {
    const failing = this.#enrolment.members.filter(({ failure }) => failure !== null);
    const shown = failing.slice(0, FAILURES_SHOWN).map(({ pod, failure }) => `${pod.namespace}/${pod.name}: ${failure}`).join("; ");
    this.#options.onFailing(failing.length === 0 ? null : failing.length > FAILURES_SHOWN ? `${shown}; and ${failing.length - FAILURES_SHOWN} more` : shown);
    if (this.#probesDue) return;
    this.#probesDue = true;
    queueMicrotask(() => {
      this.#probesDue = false;
      this.#setProbeSource();
    });
  }

  /** For a pod that runs: one that starts has its reason from the kubelet. One for each pod in a while; what cannot be written is in the log. */
  async #tellInEvents(pod: Pod, why: string): Promise<void> {
    const { client, clock, node, log } = this.#options;
    if (clock.monotonicMs() - (this.#toldAtMs.get(pod.uid) ?? Number.NEGATIVE_INFINITY) < EVENT_EVERY_MS) return;
    if (this.#toldAtMs.size >= EVENT_PODS_MAX) this.#toldAtMs.clear();
    this.#toldAtMs.set(pod.uid, clock.monotonicMs());
    const at = new Date(clock.wallMs()).toISOString();
    const body = {
      apiVersion: "v1", kind: "Event", metadata: { generateName: `${pod.name.slice(0, EVENT_NAME_CHARS)}.`, namespace: pod.namespace },
      involvedObject: { apiVersion: "v1", kind: "Pod", namespace: pod.namespace, name: pod.name, uid: pod.uid },
      type: "Warning", reason: "NotInMesh", message: why.slice(0, EVENT_MESSAGE_CHARS), source: { component: "weft-cni", host: node }, firstTimestamp: at, lastTimestamp: at, count: 1,
    };
    const written = await client.request({ method: "POST", path: collectionPath(EVENTS, pod.namespace), body });
    if (!written.ok) log.debug("an event could not be written", { error: written.error.message });
  }

  #setProbeSource(): void {
    const { probeSource, capture, log } = this.#options;
    if (!probeSource || this.#watching.signal.aborted) return;
    // Those that are about to join have it too: at our start they may have joined long ago, and their probes must not pass through the mesh.
    const probed = this.#enrolment.members.filter(({ stage, membership, pod }) => (stage !== "outside" || membership.inMesh) && pod.probePorts.length > 0)
      .flatMap(({ pod }) => pod.addresses.map(parseIp).filter((ip): ip is IpAddress => ip !== null).map((address) => ({ address, ports: pod.probePorts })));
    const set = setProbeSource(null, capture.probeAddresses, probed);
    if (!set.ok) log.warn("probes of pods in the mesh may fail", { error: set.error.message });
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}
