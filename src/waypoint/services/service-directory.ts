// What the name of a destination stands for: a service of the mesh, or one workload that is addressed by itself (a waypoint for workloads).
// The latter is made to look like a service with one endpoint, so that everything behind it is the same.

import { nameHalf, type NamespacedName, namespacedName, type WorkloadUid } from "../../core/brand.ts";
import { type IpAddress, parseIp } from "../../core/ip.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import type { EndpointSet, MeshStore } from "../../mesh/store.ts";
import { madeWorkload } from "../made-workload.ts";
import { dynamicHost, type DynamicHost } from "./dynamic-host.ts";

export interface FoundService {
  readonly service: Service;
  readonly endpoints: EndpointSet;
  /** Endpoints are reached at the port that the client named. */
  readonly anyPort: boolean;
}

/** No host name has a colon: nothing that the configuration writes is taken for it. */
const WORKLOAD_PREFIX = "workload:";

/** The destination of a client that addressed a workload by its own address. */
export function workloadDestination(workload: Workload, ip: IpAddress): NamespacedName {
  return namespacedName(workload.namespace, WORKLOAD_PREFIX + ip);
}

export function isWorkloadDestination(name: NamespacedName): boolean {
  return name.startsWith(WORKLOAD_PREFIX, name.indexOf("/") + 1);
}

export class ServiceDirectory {
  readonly #store: MeshStore;
  readonly #network: string;
  /** By record, so that a changed one is another. */
  readonly #made = new WeakMap<Workload, Map<IpAddress, FoundService>>();
  /** Of hosts under wildcards, as many as there are clusters for them. */
  readonly #dynamics = new Map<NamespacedName, { readonly wildcard: Service; readonly found: FoundService }>();
  #version = 0;
  /** Services of the configuration, as they were found since the store last changed: every request asks. */
  readonly #plain = new Map<NamespacedName, FoundService>();
  #plainSince = -1;

  /** @param network where addresses of workloads are looked up: this waypoint's. */
  constructor(store: MeshStore, network: string) {
    this.#store = store;
    this.#network = network;
  }

  /** Null when the configuration has no such thing. */
  find(name: NamespacedName): FoundService | null {
    const { changes } = this.#store;
    if (changes !== this.#plainSince) {
      this.#plain.clear();
      this.#plainSince = changes;
    }
    return this.#plain.get(name) ?? this.#find(name);
  }

  #find(name: NamespacedName): FoundService | null {
    if (isWorkloadDestination(name)) return this.#workload(name);
    const dynamic = dynamicHost(name);
    if (dynamic !== null) return this.#dynamic(name, dynamic);
    const service = this.#store.service(name);
    const endpoints = this.#store.endpointSet(name);
    if (service === undefined || endpoints === undefined) return null;
    const found: FoundService = { service, endpoints, anyPort: false };
    this.#plain.set(name, found);
    return found;
  }

  /** Whether the configuration has a service of exactly that name, which is reached by its own address. */
  hasHost(hostname: string): boolean {
    return this.#store.servicesByHostname(hostname).length > 0;
  }

  /** Of a host under a wildcard that nobody asks for any more. */
  forget(name: NamespacedName): void {
    this.#dynamics.delete(name);
  }

  #dynamic(name: NamespacedName, { service: wildcard, host }: DynamicHost): FoundService | null {
    const service = this.#store.service(wildcard);
    if (service === undefined) return null;
    const known = this.#dynamics.get(name);
    if (known?.wildcard === service) return known.found;
    const found = this.#makeDynamic(name, service, host);
    this.#dynamics.set(name, { wildcard: service, found });
    return found;
  }

  /** One endpoint, known by its name alone. */
  #makeDynamic(name: NamespacedName, wildcard: Service, host: string): FoundService {
    const { namespace, provenance } = wildcard;
    const endpoint = madeWorkload({ uid: String(name) as WorkloadUid, name: wildcard.name, namespace, network: this.#network, hostname: host, provenance });
    return { service: { ...wildcard, hostname: host }, endpoints: { name, version: ++this.#version, endpoints: [{ workload: endpoint, ports: [] }] }, anyPort: false };
  }

  #workload(name: NamespacedName): FoundService | null {
    const ip = parseIp(nameHalf(name).slice(WORKLOAD_PREFIX.length));
    const workload = ip === null ? undefined : this.#store.workloadByAddress(this.#network, ip);
    if (ip === null || workload === undefined) return null;
    let byIp = this.#made.get(workload);
    if (byIp === undefined) this.#made.set(workload, (byIp = new Map()));
    let found = byIp.get(ip);
    if (found === undefined) byIp.set(ip, (found = this.#make(name, workload, ip)));
    return found;
  }

  /** By its own address a workload is reached whatever its services think of it: drained, unhealthy, or in another zone. */
  #make(name: NamespacedName, workload: Workload, ip: IpAddress): FoundService {
    const { namespace, provenance } = workload;
    const service: Service = {
      name: workload.name, namespace, hostname: WORKLOAD_PREFIX + ip, addresses: [], ports: [], subjectAltNames: [], waypoints: workload.waypoints,
      loadBalancing: { mode: "standard", scopes: [], allowUnhealthy: true }, ipFamilies: "automatic", canonical: false, visibility: "public", headless: false, provenance,
    };
    const itself: Workload = { ...workload, addresses: [ip], capacity: Math.max(1, workload.capacity) };
    return { service, endpoints: { name, version: ++this.#version, endpoints: [{ workload: itself, ports: [] }] }, anyPort: true };
  }
}
