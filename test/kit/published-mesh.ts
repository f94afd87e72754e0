// A mesh that a test changes step by step, as a control plane publishes it; and a model client that holds what it was told.

import { create } from "@bufbuild/protobuf";
import { namespacedName, type NamespacedName, type WorkloadUid } from "../../src/core/brand.ts";
import { EMPTY_L7_DELTA, EMPTY_L7_SNAPSHOT, type L7Delta, type L7Snapshot } from "../../src/mesh/l7/delta.ts";
import type { AuthorizationPolicy, MeshDelta, Service, Workload } from "../../src/mesh/records.ts";
import { diffL7 } from "../../src/resources/l7/l7-delta.ts";
import { diff, type MeshSnapshot } from "../../src/resources/mesh-delta.ts";
import { type ReceivedResource, readResource } from "../../src/xds/resource.ts";
import type { Outgoing, Session, SessionFault } from "../../src/xds/server/session.ts";
import type { PublishedState } from "../../src/xds/serving.ts";
import { DeltaDiscoveryRequestSchema } from "../../src/wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";

export class PublishedMesh {
  mesh: MeshSnapshot = { workloads: new Map(), services: new Map(), policies: new Map() };
  l7: L7Snapshot = EMPTY_L7_SNAPSHOT;

  /** The state that comes of a change. */
  change(delta: Partial<MeshDelta>, l7: Partial<L7Snapshot> = {}): PublishedState {
    const before = { mesh: this.mesh, l7: this.l7 };
    this.mesh = {
      workloads: changed<WorkloadUid, Workload>(this.mesh.workloads, delta.workloads, ({ uid }) => uid, delta.removedWorkloads),
      services: changed<NamespacedName, Service>(this.mesh.services, delta.services, (s) => namespacedName(s.namespace, s.hostname), delta.removedServices),
      policies: changed<NamespacedName, AuthorizationPolicy>(this.mesh.policies, delta.policies, (p) => namespacedName(p.namespace, p.name), delta.removedPolicies),
    };
    this.l7 = { ...this.l7, ...l7 };
    const l7Delta: L7Delta = before.l7 === this.l7 ? EMPTY_L7_DELTA : diffL7(before.l7, this.l7);
    return { mesh: this.mesh, delta: diff(before.mesh, this.mesh), l7: this.l7, l7Delta };
  }
}

function changed<K, V>(before: ReadonlyMap<K, V>, upserts: readonly V[] = [], keyOf: (value: V) => K, removals: readonly K[] = []): Map<K, V> {
  const after = new Map(before);
  for (const value of upserts) after.set(keyOf(value), value);
  for (const key of removals) after.delete(key);
  return after;
}

/** A client of one session, which takes what it is told as a real one does. */
export class ModelClient {
  readonly #session: Session;
  /** Versions by name, by type. */
  readonly held = new Map<string, Map<string, string>>();
  /** Contents by name, of all types. */
  readonly contents = new Map<string, ReceivedResource>();

  constructor(session: Session, held: ReadonlyMap<string, ReadonlyMap<string, string>> = new Map()) {
    this.#session = session;
    for (const [typeUrl, versions] of held) this.held.set(typeUrl, new Map(versions));
  }

  subscribe(typeUrl: string, fields: { readonly subscribe?: string[]; readonly unsubscribe?: string[] } = {}): SessionFault | null {
    return this.#session.request(create(DeltaDiscoveryRequestSchema, {
      typeUrl, resourceNamesSubscribe: fields.subscribe ?? [], resourceNamesUnsubscribe: fields.unsubscribe ?? [], initialResourceVersions: Object.fromEntries(this.held.get(typeUrl) ?? []),
    }));
  }

  /** Asks for one more name, or gives one up. */
  ask(typeUrl: string, subscribe: string[], unsubscribe: string[] = []): SessionFault | null {
    return this.#session.request(create(DeltaDiscoveryRequestSchema, { typeUrl, resourceNamesSubscribe: subscribe, resourceNamesUnsubscribe: unsubscribe }));
  }

  /** Takes one response, and confirms it unless told otherwise. @returns it in short, or null when there is none. */
  take(answer: "ack" | "silence" | { readonly reject: string } = "ack"): string | null {
    const outgoing = this.#session.next();
    if (outgoing === null) return null;
    const { message } = outgoing;
    const typeUrl = message.typeUrl ?? "";
    let held = this.held.get(typeUrl);
    if (held === undefined) this.held.set(typeUrl, (held = new Map()));
    const resources = (message.resources ?? []).map((bytes) => {
      const read = readResource(bytes);
      if (!read.ok) throw new Error(read.error);
      return read.value;
    });
    for (const resource of resources) {
      held.set(resource.name, resource.version);
      this.contents.set(resource.name, resource);
    }
    for (const name of message.removedResources ?? []) held.delete(name);
    const short = [typeUrl.slice(typeUrl.lastIndexOf(".") + 1), `+${resources.map(({ name }) => name).sort().join(",")}`, `-${[...(message.removedResources ?? [])].sort().join(",")}`].filter((part) => part.length > 1).join(" ");
    if (answer !== "silence") this.answer(outgoing, answer);
    return short;
  }

  answer({ message }: Outgoing, answer: "ack" | { readonly reject: string }): void {
    this.#session.request(create(DeltaDiscoveryRequestSchema, {
      typeUrl: message.typeUrl ?? "", responseNonce: message.nonce ?? "", ...(answer === "ack" ? {} : { errorDetail: { code: 3, message: answer.reject } }),
    }));
  }

  /** Takes everything that is due. */
  takeAll(): string[] {
    const all: string[] = [];
    for (let short = this.take(); short !== null; short = this.take()) all.push(short);
    return all;
  }
}
