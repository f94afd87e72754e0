// Keeps the objects of every waypoint as they should be: made with its Gateway, mended when somebody changes or deletes one, and removed
// with it by Kubernetes, as they belong to it. Written by server-side apply, so that what others add stays theirs.

import { parse } from "yaml";
import { z } from "zod";
import type { Timers } from "../../net/timers.ts";
import { WAYPOINT_CLASSES } from "../../resources/kinds/gateway.ts";
import type { Logger } from "../../runtime/logger.ts";
import { type Api, APPLY_PATCH } from "../../runtime/kubernetes/api.ts";
import { objectPath, type ResourceType } from "../../runtime/kubernetes/api-path.ts";
import { isJson, type Json, sameJson } from "../json.ts";
import type { ObjectEvent } from "../source/cluster-source.ts";
import { CONTROLLER_NAME } from "../writer/status-shape.ts";
import type { WriteQueue } from "../writer/write-queue.ts";
import { MANAGED_BY, MANAGED_KEYS, MANAGED_LABEL, MANAGED_TYPES, type ManagedKey, type WaypointEnvironment, type WaypointGateway, waypointObjects } from "./waypoint-objects.ts";

const CONFIG_MAP: ResourceType = { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap", namespaced: true };
const GATEWAY_CLASS: ResourceType = { group: "gateway.networking.k8s.io", version: "v1", plural: "gatewayclasses", kind: "GatewayClass", namespaced: false };
/** How soon a change of a ConfigMap that a Gateway refers to is seen, and a class that somebody deleted is back. */
const LOOK_MS = 30_000;
const OVERLAY_CHARS_MAX = 64 * 1024;

const gatewaySchema = z.object({
  metadata: z.object({ namespace: z.string(), name: z.string(), uid: z.string(), labels: z.record(z.string(), z.string()).nullish(), deletionTimestamp: z.string().nullish() }),
  spec: z.object({
    gatewayClassName: z.string(),
    infrastructure: z.object({
      labels: z.record(z.string(), z.string()).nullish(), annotations: z.record(z.string(), z.string()).nullish(),
      parametersRef: z.object({ group: z.string(), kind: z.string(), name: z.string() }).nullish(),
    }).nullish(),
  }),
});
const metaSchema = z.object({ metadata: z.object({ namespace: z.string().optional(), name: z.string(), generation: z.number().optional(), uid: z.string().optional(), labels: z.record(z.string(), z.string()).nullish() }) });

export interface WaypointManagerOptions {
  readonly api: Api;
  readonly queue: WriteQueue;
  readonly timers: Timers;
  readonly log: Logger;
  /** Null: nobody said which image, so that none is run. */
  readonly environment: WaypointEnvironment | null;
}

interface Applied {
  readonly object: Json;
  /** Of the object as it was after we wrote it; kinds without a generation have 0. */
  generation: number;
}

export class WaypointManager {
  readonly #options: WaypointManagerOptions;
  readonly #gateways = new Map<string, WaypointGateway>();
  readonly #classes = new Map<string, string>();
  /** What the API has, by kind and name: its generation. */
  readonly #found = new Map<string, number>();
  readonly #applied = new Map<string, Applied>();
  readonly #parameters = new Map<string, Readonly<Partial<Record<ManagedKey, Json>>> | null>();
  #writes = false;
  #synced = false;
  #cancel: () => void = () => {};

  constructor(options: WaypointManagerOptions) {
    this.#options = options;
  }

  setWriting(writes: boolean): void {
    this.#writes = writes;
    this.#cancel();
    if (writes) this.#look();
  }

  /** All lists are complete. */
  setSynced(): void {
    if (this.#synced) return;
    this.#synced = true;
    if (this.#writes) this.#look();
  }

  stop(): void {
    this.#writes = false;
    this.#cancel();
  }

  onObject({ kind, namespace, name, object }: ObjectEvent): void {
    if (kind === "GatewayClass") {
      const spec = object?.["spec"];
      const controller = isJson(spec) ? spec["controllerName"] : null;
      if (typeof controller === "string") this.#classes.set(name, controller);
      else this.#classes.delete(name);
      return;
    }
    if (kind === "Service") return this.onManaged("service", namespace, name, object);
    if (kind !== "Gateway") return;
    const key = `${namespace}/${name}`;
    const gateway = object === null ? null : readGateway(object);
    if (gateway === null) {
      this.#gateways.delete(key);
      this.#parameters.delete(key);
      for (const managed of MANAGED_KEYS) this.#applied.delete(`${managed} ${key}`);
      return;
    }
    this.#gateways.set(key, gateway);
    this.#check(gateway);
  }

  /** An object of a kind that is managed here, as the API has it. */
  onManaged(managed: ManagedKey, namespace: string, name: string, object: Json | null): void {
    const key = `${managed} ${namespace}/${name}`;
    const meta = object === null ? null : metaSchema.safeParse(object);
    if (meta === null || !meta.success || meta.data.metadata.labels?.[MANAGED_LABEL] !== MANAGED_BY) this.#found.delete(key);
    else this.#found.set(key, meta.data.metadata.generation ?? 0);
    const gateway = this.#gateways.get(`${namespace}/${name}`);
    if (gateway !== undefined) this.#check(gateway);
  }

  #look(): void {
    if (!this.#writes || !this.#synced) return;
    this.#ensureClasses();
    for (const gateway of this.#gateways.values()) this.#check(gateway, true);
    this.#cancel();
    this.#cancel = this.#options.timers.after(LOOK_MS, () => this.#look());
  }

  /** Classes that nobody has made. One of Istio's name that has Istio's controller is Istio's. */
  #ensureClasses(): void {
    for (const name of WAYPOINT_CLASSES) {
      if (this.#classes.has(name)) continue;
      this.#options.queue.put(`class ${name}`, async () => {
        if (!this.#writes || this.#classes.has(name)) return null;
        const answer = await this.#options.api.request({
          method: "POST", path: "/apis/gateway.networking.k8s.io/v1/gatewayclasses", query: { fieldManager: "weft" },
          body: { apiVersion: "gateway.networking.k8s.io/v1", kind: GATEWAY_CLASS.kind, metadata: { name }, spec: { controllerName: CONTROLLER_NAME, description: "Waypoints of the mesh, run by weft" } },
        });
        // The Gateway API is not installed, or another replica was faster.
        return answer.ok || answer.error.code === "api_not_found" || answer.error.code === "api_conflict" ? null : answer.error;
      });
    }
  }

  #isOurs({ className }: WaypointGateway): boolean {
    if (!WAYPOINT_CLASSES.includes(className)) return false;
    const controller = this.#classes.get(className);
    return controller === undefined || controller === CONTROLLER_NAME;
  }

  /** @param afresh the parameters are read again. */
  #check(gateway: WaypointGateway, afresh = false): void {
    const { environment, queue } = this.#options;
    if (!this.#writes || !this.#synced || environment === null || !this.#isOurs(gateway)) return;
    const key = `${gateway.namespace}/${gateway.name}`;
    queue.put(`waypoint ${key}`, async () => {
      const now = this.#gateways.get(key);
      if (now === undefined || !this.#writes) return null;
      if (afresh || !this.#parameters.has(key)) {
        const read = await this.#readParameters(now);
        if (!read.ok) return read.error;
        this.#parameters.set(key, read.value);
      }
      const wanted = waypointObjects(now, environment, this.#parameters.get(key) ?? null);
      for (const { key: managed, object } of wanted) {
        const fault = await this.#apply(managed, now, object);
        if (fault !== null) return fault;
      }
      for (const managed of MANAGED_KEYS) {
        if (wanted.some((one) => one.key === managed) || !this.#found.has(`${managed} ${key}`)) continue;
        const answer = await this.#options.api.request({ method: "DELETE", path: objectPath(MANAGED_TYPES[managed], now.namespace, now.name) });
        if (!answer.ok && answer.error.code !== "api_not_found") return answer.error;
        this.#found.delete(`${managed} ${key}`);
      }
      return null;
    });
  }

  async #apply(managed: ManagedKey, gateway: WaypointGateway, object: Json) {
    const key = `${managed} ${gateway.namespace}/${gateway.name}`;
    const applied = this.#applied.get(key);
    if (applied !== undefined && sameJson(applied.object, object) && this.#found.get(key) === applied.generation) return null;
    const answer = await this.#options.api.request({ method: "PATCH", path: objectPath(MANAGED_TYPES[managed], gateway.namespace, gateway.name), query: { fieldManager: "weft", force: "true" }, contentType: APPLY_PATCH, body: object });
    if (!answer.ok) {
      // A namespace that is being deleted takes nothing new; its Gateway goes with it.
      return answer.error.code === "api_forbidden" && /being terminated/.test(answer.error.message) ? null : answer.error;
    }
    const meta = metaSchema.safeParse(answer.value);
    const generation = meta.success ? (meta.data.metadata.generation ?? 0) : 0;
    this.#applied.set(key, { object, generation });
    this.#found.set(key, generation);
    return null;
  }

  /** A ConfigMap of the Gateway's namespace, with a YAML text for each object that something is laid over. */
  async #readParameters({ namespace, name, infrastructure: { parameters } }: WaypointGateway) {
    if (parameters === null) return { ok: true as const, value: null };
    const answer = await this.#options.api.request({ method: "GET", path: objectPath(CONFIG_MAP, namespace, parameters) });
    if (!answer.ok) {
      if (answer.error.code !== "api_not_found") return { ok: false as const, error: answer.error };
      this.#options.log.warn("a waypoint's parameters are not there; it runs without them", { gateway: `${namespace}/${name}`, configMap: `${namespace}/${parameters}` });
      return { ok: true as const, value: null };
    }
    const data = isJson(answer.value) && isJson(answer.value["data"]) ? answer.value["data"] : {};
    const value: Partial<Record<ManagedKey, Json>> = {};
    for (const key of MANAGED_KEYS) {
      const text = data[key];
      if (typeof text !== "string") continue;
      const parsed = text.length > OVERLAY_CHARS_MAX ? null : readYaml(text);
      if (isJson(parsed)) value[key] = parsed;
      else this.#options.log.warn("a waypoint's parameter is no YAML map; it runs without it", { gateway: `${namespace}/${name}`, configMap: `${namespace}/${parameters}`, key });
    }
    return { ok: true as const, value };
  }
}

function readGateway(object: Json): WaypointGateway | null {
  const read = gatewaySchema.safeParse(object);
  if (!read.success || typeof read.data.metadata.deletionTimestamp === "string") return null;
  const { metadata: { namespace, name, uid, labels }, spec: { gatewayClassName, infrastructure } } = read.data;
  const ref = infrastructure?.parametersRef;
  return {
    namespace, name, uid, className: gatewayClassName, labels: labels ?? {},
    infrastructure: { labels: infrastructure?.labels ?? {}, annotations: infrastructure?.annotations ?? {}, parameters: ref?.kind === "ConfigMap" && ref.group === "" ? ref.name : null },
  };
}

function readYaml(text: string): unknown {
  try {
    return parse(text, { maxAliasCount: 0 });
  } catch {
    return null;
  }
}
