// Statuses into the API: of every object that has one, when what it should say is not what it says. Only the replica that holds the Lease
// writes; the others know as much, so that whoever takes over begins where the last one stopped.

import type { IpAddress } from "../../core/ip.ts";
import type { Clock } from "../../core/ports.ts";
import type { Timers } from "../../net/timers.ts";
import type { ClusterDiagnostic } from "../../resources/cluster/cluster-diagnostic.ts";
import type { ClusterEvaluation } from "../../resources/cluster/cluster-set.ts";
import { WAYPOINT_CLASSES } from "../../resources/kinds/gateway.ts";
import type { ResourceStatus } from "../../resources/l7/status.ts";
import { REMOTE_CLASSES } from "../../resources/remote-gateway.ts";
import { describeIdentity } from "../../resources/resource.ts";
import { serviceHostname } from "../../resources/waypoint-binding.ts";
import type { WaypointBinding } from "../../resources/waypoint-status.ts";
import { type Api, MERGE_PATCH } from "../../runtime/kubernetes/api.ts";
import { objectPath, type ResourceType } from "../../runtime/kubernetes/api-path.ts";
import { isJson } from "../json.ts";
import type { ObjectEvent } from "../source/cluster-source.ts";
import { WATCHED_RESOURCES } from "../source/watched-kinds.ts";
import { CONTROLLER_NAME, type Finding, type GatewayAddress, KINDS_WITH_STATUS, type StatusSubject, wantedStatus } from "./status-shape.ts";
import type { WriteQueue } from "./write-queue.ts";

interface Known {
  readonly subject: StatusSubject;
  readonly resourceVersion: string;
  readonly type: ResourceType;
}

/** Objects whose status is held against what it should say, without a pause: some milliseconds. */
const CHECKED_AT_ONCE = 100;
const NO_DIAGNOSTICS: readonly ClusterDiagnostic[] = [];

export interface StatusWriterOptions {
  readonly api: Api;
  readonly clock: Clock;
  readonly queue: WriteQueue;
  readonly timers: Timers;
  readonly clusterDomain: string;
  /** Of the Service of that name, in its order: none of one without any on purpose. Null while it has none yet, or there is no such Service. */
  readonly addressesOf: (namespace: string, name: string) => readonly IpAddress[] | null;
}

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #known = new Map<string, Known>();
  /** Seen since the last evaluation. */
  readonly #fresh = new Set<string>();
  #statuses: readonly ResourceStatus[] = [];
  #statusOf = new Map<string, ResourceStatus>();
  #diagnostics: readonly ClusterDiagnostic[] = NO_DIAGNOSTICS;
  #diagnosticsOf = new Map<string, readonly ClusterDiagnostic[]>();
  #bindings: ReadonlyMap<string, WaypointBinding> = new Map();
  readonly #addresses = new Map<string, string | null>();
  #unread: ReadonlySet<string> = new Set();
  readonly #toCheck = new Set<string>();
  #cancelCheck: (() => void) | null = null;
  #writes = false;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  setWriting(writes: boolean): void {
    this.#writes = writes;
    if (writes) this.#checkAll(this.#known.keys());
  }

  onObject({ kind, namespace, name, object }: ObjectEvent): void {
    if (!KINDS_WITH_STATUS.has(kind)) return;
    const key = describeIdentity({ kind, namespace, name });
    if (object === null) {
      this.#known.delete(key);
      this.#fresh.delete(key);
      return;
    }
    const known = knownOf(kind, namespace, name, object);
    if (known === null) return;
    this.#known.set(key, known);
    this.#fresh.add(key);
  }

  /** Looks at what has come since, and at all of which something else is said now. */
  onEvaluated({ statuses, broken, diagnostics, bindings }: ClusterEvaluation): void {
    const toCheck = new Set(this.#fresh);
    this.#fresh.clear();
    if (statuses !== this.#statuses) {
      const next = new Map(statuses.map((status) => [describeIdentity(status), status]));
      for (const [key, status] of next) if (this.#statusOf.get(key) !== status) toCheck.add(key);
      for (const key of this.#statusOf.keys()) if (!next.has(key)) toCheck.add(key);
      this.#statuses = statuses;
      this.#statusOf = next;
    }
    if (bindings !== this.#bindings) {
      for (const [key, binding] of bindings) if (!sameBinding(binding, this.#bindings.get(key))) toCheck.add(key);
      for (const key of this.#bindings.keys()) if (!bindings.has(key)) toCheck.add(key);
      this.#bindings = bindings;
    }
    if (diagnostics !== this.#diagnostics) {
      const said = new Map<string, ClusterDiagnostic[]>();
      for (const one of diagnostics) {
        const list = said.get(one.resource);
        if (list === undefined) said.set(one.resource, [one]);
        else list.push(one);
      }
      for (const [key, list] of said) if (!sameDiagnostics(list, this.#diagnosticsOf.get(key) ?? NO_DIAGNOSTICS)) toCheck.add(key);
      for (const key of this.#diagnosticsOf.keys()) if (!said.has(key)) toCheck.add(key);
      this.#diagnosticsOf = said;
      // An object that cannot be read keeps its last good version in force; its status speaks of the one that stands in the API.
      this.#unread = new Set([...broken.values()].filter((one) => one.diagnostics.some(({ severity }) => severity === "error")).map(({ identity }) => describeIdentity(identity)));
      this.#diagnostics = diagnostics;
    }
    for (const [key, { subject }] of this.#known) {
      if (subject.kind !== "Gateway") continue;
      const now = this.#options.addressesOf(subject.namespace, subject.name)?.join() ?? null;
      if (this.#addresses.get(key) !== now) toCheck.add(key);
      this.#addresses.set(key, now);
    }
    for (const key of this.#addresses.keys()) if (!this.#known.has(key)) this.#addresses.delete(key);
    if (this.#writes) this.#checkAll(toCheck);
  }

  /** A few at once: of a whole cluster at its start it takes a second. */
  #checkAll(keys: Iterable<string>): void {
    for (const key of keys) this.#toCheck.add(key);
    this.#cancelCheck ??= this.#options.timers.after(0, () => {
      this.#cancelCheck = null;
      let looked = 0;
      for (const key of this.#toCheck) {
        if (++looked > CHECKED_AT_ONCE) break;
        this.#toCheck.delete(key);
        if (this.#writes) this.#check(key);
      }
      if (this.#toCheck.size > 0) this.#checkAll([]);
    });
  }

  stop(): void {
    this.#cancelCheck?.();
  }

  #check(key: string): void {
    const known = this.#known.get(key);
    if (known === undefined || !this.#isOurs(known.subject) || wantedStatus(known.subject, this.#finding(key, known.subject), "") === null) return;
    this.#options.queue.put(`status ${key}`, async () => {
      const now = this.#known.get(key);
      if (now === undefined || !this.#writes) return null;
      const wanted = wantedStatus(now.subject, this.#finding(key, now.subject), rfc3339(this.#options.clock.wallMs()));
      if (wanted === null) return null;
      const { type, resourceVersion, subject: { namespace, name } } = now;
      const answer = await this.#options.api.request({
        method: "PATCH", path: objectPath(type, namespace, name, "status"), query: { fieldManager: "weft" }, contentType: MERGE_PATCH, body: { metadata: { resourceVersion }, status: wanted },
      });
      if (answer.ok) {
        const written = knownOf(now.subject.kind, namespace, name, answer.value);
        // The watch brings the same; until then nothing is written twice.
        if (written !== null && this.#known.get(key) === now) this.#known.set(key, written);
        return null;
      }
      return answer.error.code === "api_not_found" ? null : answer.error;
    });
  }

  #isOurs({ kind, spec }: StatusSubject): boolean {
    if (kind === "GatewayClass") return spec["controllerName"] === CONTROLLER_NAME;
    if (kind !== "Gateway") return true;
    const className = spec["gatewayClassName"];
    if (typeof className !== "string" || (!WAYPOINT_CLASSES.includes(className) && !REMOTE_CLASSES.includes(className))) return false;
    const gatewayClass = this.#known.get(describeIdentity({ kind: "GatewayClass", namespace: "", name: className }));
    return gatewayClass === undefined || gatewayClass.subject.spec["controllerName"] === CONTROLLER_NAME;
  }

  #finding(key: string, { kind, namespace, name }: StatusSubject): Finding {
    const found = kind === "Gateway" ? this.#options.addressesOf(namespace, name) : null;
    const addresses: GatewayAddress[] = found === null ? [] : [...found.map((value) => ({ type: "IPAddress", value }) as const), { type: "Hostname", value: serviceHostname(name, namespace, this.#options.clusterDomain) }];
    return { status: this.#unread.has(key) ? null : (this.#statusOf.get(key) ?? null), diagnostics: this.#diagnosticsOf.get(key) ?? NO_DIAGNOSTICS, addresses, binding: this.#bindings.get(key) ?? null };
  }
}

function knownOf(kind: string, namespace: string, name: string, object: unknown): Known | null {
  if (!isJson(object)) return null;
  const { metadata, spec, status, apiVersion } = object;
  if (!isJson(metadata) || typeof apiVersion !== "string") return null;
  const version = apiVersion.slice(apiVersion.indexOf("/") + 1);
  const type = WATCHED_RESOURCES.find((watched) => watched.kind === kind)?.types.find((one) => one.version === version);
  if (type === undefined) return null;
  const { generation, resourceVersion } = metadata;
  const kept = isJson(spec) ? Object.fromEntries(["parentRefs", "targetRefs", "listeners", "gatewayClassName", "controllerName"].filter((field) => field in spec).map((field) => [field, spec[field]])) : {};
  return {
    type, resourceVersion: typeof resourceVersion === "string" ? resourceVersion : "",
    subject: { kind, namespace, name, generation: typeof generation === "number" ? generation : 0, spec: kept, status: isJson(status) ? status : {} },
  };
}

function sameDiagnostics(a: readonly ClusterDiagnostic[], b: readonly ClusterDiagnostic[]): boolean {
  return a.length === b.length && a.every(({ fieldPath, message, severity }, index) => fieldPath === b[index]!.fieldPath && message === b[index]!.message && severity === b[index]!.severity);
}

const sameBinding = (a: WaypointBinding, b: WaypointBinding | undefined): boolean => b !== undefined && a.bound === b.bound && a.reason === b.reason && a.message === b.message;

const rfc3339 = (ms: number): string => new Date(ms).toISOString().replace(/\.\d{3}Z$/, "Z");
