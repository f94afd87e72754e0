// Configuration from a control plane over delta xDS. What was told last is kept on disk: a start with the control plane gone goes on from
// there, and a reconnect asks only for the difference. Which workloads live on this node is not told by xDS: whoever knows sets it.

import { EMPTY_L7_DELTA, EMPTY_L7_SNAPSHOT, type L7Delta } from "../mesh/l7/delta.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import { isEmptyPackedDelta } from "../mesh/packed/packed-delta.ts";
import { emptyDelta, type MeshDelta } from "../mesh/records.ts";
import type { MeshStore } from "../mesh/store.ts";
import { pause } from "../core/pause.ts";
import type { Random } from "../core/ports.ts";
import type { Timers } from "../net/timers.ts";
import type { Diagnostic } from "../resources/diagnostic.ts";
import { diffL7, isEmptyL7Delta } from "../resources/l7/l7-delta.ts";
import { DIAGNOSTICS_MAX } from "../resources/limits.ts";
import { deepEqual, type MeshSnapshot } from "../resources/mesh-delta.ts";
import type { ConnectionMetrics } from "../telemetry/connection-metrics.ts";
import { AdsClient, type AdsClientEvent, type AdsClientOptions, type IncomingResponse } from "../xds/client/ads-client.ts";
import type { L7Reader } from "../xds/client/l7-reader.ts";
import type { LogFrames } from "../xds/client/log-frames.ts";
import { type Refusal, type ResponseEnd, type Told, XdsRecords } from "../xds/client/records.ts";
import { ResourceLog } from "../xds/client/resource-log.ts";
import { ADDRESS_TYPE, type ReceivedResource } from "../xds/resource.ts";
import type { ConfigSource, ConfigState } from "./config-source.ts";
import type { Logger } from "./logger.ts";

/** After a write, changed addresses are gathered for this long before the next. What else there is guards something, and is written at once. */
export const GATHER_MS = 1_000;
/** Changes that wait for the disk, at most: then the oldest are waited for. A disk that stands still must not cost memory. */
const WAITING_CHANGES_MAX = 1_000;

export interface XdsSourceOptions {
  readonly client: Pick<AdsClientOptions, "channel" | "node" | "types">;
  /** Of who asks for types of L7; null for who asks for none. */
  readonly l7: L7Reader | null;
  /** Holds what was told of the mesh, and follows it at once. */
  readonly store: MeshStore;
  /** Where the last good state is kept; null keeps none. */
  readonly stateDirectory: string | null;
  /** Called for each state after the first. Must not throw. */
  readonly onChange: (state: ConfigState) => void;
  /** What is amiss with the connection, in words; null while it stands. */
  readonly onConnection: (amiss: string | null) => void;
  readonly log: Logger;
  readonly metrics: ConnectionMetrics;
  readonly random: Random;
  readonly timers: Timers;
}

export class XdsSource implements ConfigSource {
  readonly #options: XdsSourceOptions;
  readonly #records: XdsRecords;
  readonly #store: ResourceLog | null;
  readonly #client: AdsClient;
  readonly #refused = new Map<string, Diagnostic>();
  readonly #first = Promise.withResolvers<void>();
  /** Types of which nothing has been told yet. */
  readonly #awaited: Set<string>;
  #toStore: { readonly typeUrl: string; readonly frames: LogFrames }[] = [];
  /** Ends the gathering that is under way. */
  #storeNow = new AbortController();
  /** Who waits for everything to be written: then nothing is gathered. */
  #awaitedBy = 0;
  #storing: Promise<void> | null = null;
  #storeIsOurs = true;
  #storeFault: string | null = null;
  #localWorkloads: readonly LocalWorkload[] = [];
  #state: ConfigState | null = null;
  #running: Promise<void> = Promise.resolve();

  private constructor(options: XdsSourceOptions, store: ResourceLog | null) {
    this.#options = options;
    this.#store = store;
    this.#records = new XdsRecords(options.l7, options.store);
    this.#awaited = new Set(options.client.types);
    this.#client = new AdsClient({
      ...options.client, random: options.random, timers: options.timers,
      versions: (typeUrl) => this.#records.versions(typeUrl),
      onResponse: () => this.#begin(),
      onEvent: (event) => this.#event(event),
    });
  }

  /** Resolves when there is a state: the last good one, or the first that the control plane tells. `signal` gives up waiting: then null. */
  static async open(options: XdsSourceOptions, signal: AbortSignal): Promise<XdsSource | null> {
    const opened = options.stateDirectory === null ? null : await ResourceLog.open(options.stateDirectory);
    const source = new XdsSource(options, opened?.log ?? null);
    if (opened !== null && opened.state.fault !== null) options.log.warn(opened.state.fault);
    for (const [typeUrl, resources] of opened?.state.types ?? []) if (source.#awaited.has(typeUrl)) source.#restore(typeUrl, resources);
    if (source.#state !== null) options.log.info("the last good configuration is in force until the control plane tells of another", { resources: source.#records.count });
    source.#running = source.#client.run();
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    await Promise.race([source.#first.promise, aborted]);
    if (source.#state !== null) return source;
    await source[Symbol.asyncDispose]();
    return null;
  }

  get state(): ConfigState {
    if (this.#state === null) throw new Error("a source of configuration has a state once it is open");
    return this.#state;
  }

  /** What is told comes by itself. */
  reload(): void {}

  stopStoring(): void {
    this.#storeIsOurs = false;
  }

  async stored(): Promise<void> {
    this.#awaitedBy++;
    this.#storeNow.abort();
    while (this.#storing !== null) await this.#storing;
    this.#awaitedBy--;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.#running;
    await this.stored();
  }

  /** The workloads of this node, all of them. */
  setLocalWorkloads(localWorkloads: readonly LocalWorkload[]): void {
    if (deepEqual(this.#localWorkloads, localWorkloads)) return;
    this.#localWorkloads = localWorkloads;
    if (this.#state !== null) this.#tell(emptyDelta, EMPTY_L7_DELTA);
  }

  /** What was kept of a type. */
  #restore(typeUrl: string, resources: readonly ReceivedResource[]): void {
    const end = { typeUrl, removed: [], first: false };
    this.#told(end, this.#records.take({ ...end, resources }), resources.map(({ name }) => name));
  }

  #begin(): IncomingResponse {
    const intake = this.#records.begin(this.#state !== null);
    const names: string[] = [];
    return {
      add: (resource) => {
        intake.add(resource);
        // Who was refused before may be taken now.
        if (this.#refused.size > 0) names.push(resource.name);
      },
      end: (end) => {
        const { refused, ...told } = intake.end(end);
        this.#keep(end.typeUrl, told.frames);
        return this.#told(end, { ...told, refused: [...end.refused, ...refused] }, names);
      },
    };
  }

  /** @param names of its resources, where some had been refused. */
  #told({ typeUrl, removed }: ResponseEnd, told: Told, names: readonly string[]): readonly Refusal[] {
    const refusalsChanged = this.#noteRefusals(typeUrl, [...names, ...removed], told);
    this.#awaited.delete(typeUrl);
    if (this.#awaited.size > 0) return told.refused;
    if (this.#state === null) {
      this.#tell(everythingOf(this.#records.mesh), diffL7(EMPTY_L7_SNAPSHOT, this.#records.l7));
      this.#first.resolve();
    } else if (refusalsChanged || !isEmptyPackedDelta(told.packed) || !isEmptyL7Delta(told.l7Delta)) this.#tell(told.delta, told.l7Delta);
    return told.refused;
  }

  /** True when what an operator should know has changed. */
  #noteRefusals(typeUrl: string, names: readonly string[], { refused }: Told): boolean {
    const before = this.#refused.size;
    let changed = false;
    for (const name of names) changed = this.#refused.delete(`${typeUrl} ${name}`) || changed;
    const kind = typeUrl.slice(typeUrl.lastIndexOf(".") + 1);
    for (const { name, reason } of refused) {
      if (this.#refused.size >= DIAGNOSTICS_MAX) break;
      this.#refused.set(`${typeUrl} ${name}`, {
        severity: "error", file: this.#options.client.channel.address, line: 1, column: 1, fieldPath: "", code: "bad_value", resource: `${kind} ${name}`,
        message: `refused, its last good state stays in force: ${reason}`,
      });
      changed = true;
    }
    return changed || before !== this.#refused.size;
  }

  #tell(delta: MeshDelta, l7Delta: L7Delta): void {
    const before = this.#state;
    this.#state = {
      version: (before?.version ?? 0) + 1, mesh: this.#records.mesh, delta, l7: this.#records.l7, l7Delta, statuses: [], localWorkloads: this.#localWorkloads,
      diagnostics: [...this.#refused.values(), ...(this.#storeFault === null ? [] : [storeDiagnostic(this.#storeFault)])], resourceCount: this.#records.count,
    };
    if (before !== null) this.#options.onChange(this.#state);
  }

  #event(event: AdsClientEvent): void {
    const { log, client, onConnection, metrics } = this.#options;
    const { address } = client.channel;
    switch (event.kind) {
      case "connected":
        onConnection(null);
        log.info("connected to the control plane", { address });
        return;
      case "disconnected":
        metrics.cell("istio_xds_connection_terminations_total", { reason: event.how }).value++;
        if (event.how === "Complete") return log.debug("the control plane ended the stream, it is begun again", { retry_ms: event.retryMs });
        onConnection(event.reason);
        log.warn(`no connection to the control plane: ${event.reason}`, { retry_ms: event.retryMs, ...(this.#state === null ? { waiting: "for the first configuration" } : { in_force: "the last good configuration" }) });
        return;
      case "response":
        metrics.cell("istio_xds_message_total", { url: event.typeUrl }).value++;
        metrics.cell("istio_xds_message_bytes_total", { url: event.typeUrl }).value += event.bytes;
        return;
      case "refused":
        metrics.cell("weft_xds_refused_total", { url: event.typeUrl }).value += event.refusals.length;
        // Each is a diagnostic, and told where those are.
        return log.debug("resources were refused", { type: event.typeUrl, count: event.refusals.length });
    }
  }

  #keep(typeUrl: string, frames: LogFrames): void {
    if (this.#store === null || !this.#storeIsOurs) return;
    if (this.#toStore.length >= WAITING_CHANGES_MAX) {
      this.#storeFault = "the disk does not keep up; the last good state on it is older than what is in force";
      return;
    }
    if (frames.count === 0) frames.nothing(typeUrl);
    this.#toStore.push({ typeUrl, frames });
    if (typeUrl !== ADDRESS_TYPE) this.#storeNow.abort();
    this.#storing ??= this.#storeAll(this.#store).finally(() => {
      this.#storing = null;
    });
  }

  async #storeAll(store: ResourceLog): Promise<void> {
    while (this.#toStore.length > 0) {
      const changes = this.#toStore;
      this.#toStore = [];
      if (!this.#storeIsOurs) return;
      try {
        await store.append(changes.map(({ frames }) => frames), this.#records.count);
        this.#storeFault = null;
      } catch (cause) {
        // A full disk must not stop the mesh. What is missing there is asked for again when the next process connects.
        this.#storeFault = `the last good state cannot be kept: ${cause instanceof Error ? cause.message : String(cause)}; a restart without the control plane would not know it`;
        this.#options.log.warn(this.#storeFault);
      }
      this.#storeNow = new AbortController();
      if (this.#awaitedBy === 0 && !this.#toStore.some(({ typeUrl }) => typeUrl !== ADDRESS_TYPE)) await pause(this.#options.timers, GATHER_MS, this.#storeNow.signal);
    }
  }
}

/** Unpacked when it is looked at: who has the store has no need to. */
const everythingOf = ({ workloads, services, policies }: MeshSnapshot): MeshDelta => ({
  ...emptyDelta,
  get workloads() { return [...workloads.values()]; },
  get services() { return [...services.values()]; },
  get policies() { return [...policies.values()]; },
});

const storeDiagnostic = (message: string): Diagnostic => ({ severity: "warning", file: ".", line: 1, column: 1, fieldPath: "", code: "restored", resource: "", message });
