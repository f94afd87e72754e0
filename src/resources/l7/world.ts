// What one L7 resource may ask about the others: hosts, gateways, secrets, providers. Every question goes through a View, which
// remembers it with its answer: a translation is used again as long as all its questions still have the same answers. The world says which
// of its parts a question has to do with, and which parts a change has moved: who asked about none of these need not ask again.

import { nameHalf, namespacedName, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import { compareText } from "../../core/compare-text.ts";
import { addTo, removeFrom } from "../../core/set-index.ts";
import { ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import { USE_WAYPOINT } from "../annotations.ts";
import type { Resource } from "../kinds.ts";
import type { ConfigMapResource, SecretResource } from "../kinds/config-map.ts";
import { type GatewayResource, isWaypoint } from "../kinds/gateway.ts";
import type { MeshConfigResource, ProviderSpec } from "../kinds/mesh-config.ts";
import type { NamespaceResource } from "../kinds/namespace.ts";
import type { ReferenceGrantResource } from "../kinds/reference-grant.ts";
import { isHeadless, type ServiceResource, tcpPorts } from "../kinds/service.ts";
import type { ServiceEntryResource } from "../kinds/service-entry.ts";
import type { VirtualServiceResource } from "../kinds/virtual-service.ts";
import { identityKey, type Placed, type ResourceIdentity, type ResourceOf, type TranslationOptions } from "../resource.ts";
import { WaypointAdmission } from "../waypoint-admission.ts";
import { sameItems } from "../namespace-resources.ts";
import { boundWaypoint, serviceHostname, waypointNames } from "../waypoint-binding.ts";
import { usesSaid, waypointUses } from "../waypoint-uses.ts";
import { byAge } from "./age.ts";
import type { Notes } from "./view.ts";

export interface HostPort {
  readonly number: number;
  readonly name: string;
  /** As declared by appProtocol, the protocol of a ServiceEntry, or the name of the port; null when nothing is said. */
  readonly protocol: "http" | "tls" | "tcp" | null;
}

const HTTP = /^(http|http2|h2c|ws|grpc|grpc-web)$/;

function declaredProtocol(appProtocol: string, name: string): HostPort["protocol"] {
  const said = (appProtocol === "" ? (/^(grpc-web|[a-z0-9]+)/.exec(name)?.[0] ?? "") : appProtocol.replace(/^kubernetes\.io\//, "")).toLowerCase();
  if (HTTP.test(said)) return "http";
  if (said === "https" || said === "tls") return "tls";
  return said === "tcp" || appProtocol !== "" ? "tcp" : null;
}

/** One service of the mesh under its host name. */
export interface Host {
  readonly service: NamespacedName;
  readonly namespace: string;
  readonly hostname: string;
  readonly kind: "Service" | "ServiceEntry";
  readonly ports: readonly HostPort[];
  /** Routes cannot be attached: its clients connect to its endpoints, not to it. */
  readonly headless: boolean;
  /** Namespaces that see it; null for all. */
  readonly visibleIn: readonly string[] | null;
  /** `namespace/name` of the waypoints it is bound to by its labels: none, one, or one and its canary. */
  readonly waypoints: readonly NamespacedName[];
  /** Somebody reads its requests: a waypoint that it is bound to, or one that serves it at a port of its own. */
  readonly isRead: boolean;
}

/** Hosts are made once for each resource, so that an answer that did not change is the same object. */
export class HostCache {
  readonly #services = new WeakMap<object, { readonly key: string; readonly host: Host }>();
  readonly #entries = new WeakMap<object, { readonly key: string; readonly hosts: readonly Host[] }>();

  service(resource: ServiceResource, waypoints: readonly NamespacedName[], options: TranslationOptions): Host {
    const key = waypoints.join(" ");
    const known = this.#services.get(resource);
    if (known !== undefined && known.key === key) return known.host;
    const { namespace, name, spec } = resource;
    const hostname = serviceHostname(name, namespace, options.clusterDomain);
    const host: Host = {
      service: namespacedName(namespace, hostname), namespace, hostname, kind: "Service", ports: tcpPorts(spec).map((port) => ({ number: port.port, name: port.name ?? "", protocol: declaredProtocol(port.appProtocol ?? "", port.name ?? "") })), headless: isHeadless(spec), visibleIn: null, waypoints, isRead: isRead(hostname, waypoints, options),
    };
    this.#services.set(resource, { key, host });
    return host;
  }

  entry(resource: ServiceEntryResource, waypoints: readonly NamespacedName[], options: TranslationOptions): readonly Host[] {
    const key = waypoints.join(" ");
    const known = this.#entries.get(resource);
    if (known !== undefined && known.key === key) return known.hosts;
    const { namespace, spec } = resource;
    const ports = (spec.ports ?? []).filter(({ protocol }) => protocol?.toUpperCase() !== "UDP").map(({ number, name, protocol = "" }) => ({ number, name, protocol: declaredProtocol(protocol, name) }));
    const hosts = spec.hosts.map((hostname): Host => ({
      service: namespacedName(namespace, hostname), namespace, hostname, kind: "ServiceEntry", ports, headless: false, visibleIn: exportedTo(spec.exportTo, namespace), waypoints, isRead: isRead(hostname, waypoints, options),
    }));
    this.#entries.set(resource, { key, hosts });
    return hosts;
  }
}

const isRead = (hostname: string, waypoints: readonly NamespacedName[], { servedHosts = [] }: TranslationOptions): boolean => waypoints.length > 0 || servedHosts.includes(hostname);

/** Namespaces that `exportTo` names; null for all. `~` is none. */
export function exportedTo(exportTo: readonly string[] | undefined, own: string): readonly string[] | null {
  if (exportTo === undefined || exportTo.length === 0 || exportTo.includes("*")) return null;
  return [...new Set(exportTo.filter((text) => text !== "~").map((text) => (text === "." ? own : text)))];
}

/** Kinds that others may ask about: while none of these changed, the world is the same. */
const ASKED_ABOUT: ReadonlySet<Resource["kind"]> = new Set(["Namespace", "Service", "ServiceEntry", "Gateway", "ReferenceGrant", "Secret", "ConfigMap", "MeshConfig"]);

export const isAskedAbout = ({ resource }: Placed<Resource>): boolean => ASKED_ABOUT.has(resource.kind) || isDelegate(resource);

/** A VirtualService without hosts says nothing by itself: others delegate to it. */
const isDelegate = (resource: Resource): resource is VirtualServiceResource => resource.kind === "VirtualService" && (resource.spec.hosts ?? []).length === 0;

/** Objects of one kind in one namespace, as a ReferenceGrant speaks of them. */
export interface Grantee {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
}

/** A Secret or ConfigMap that some resource names. */
export interface TextReference extends ResourceIdentity {
  readonly kind: "Secret" | "ConfigMap";
}

const ISTIO_GROUP = "networking.istio.io";
const NO_HOSTS: readonly Host[] = [];
const NO_WAYPOINTS: readonly NamespacedName[] = [];
const mapKey = (namespace: string, name: string): string => `${namespace}/${name}`;

/** Everything of one namespace that others may ask about. */
interface Slice {
  readonly placed: readonly Placed<Resource>[];
  readonly namespace: Placed<NamespaceResource> | null;
  readonly services: readonly ServiceResource[];
  readonly entries: readonly ServiceEntryResource[];
  readonly gateways: readonly Placed<GatewayResource>[];
  readonly secrets: ReadonlyMap<string, SecretResource>;
  readonly configMaps: ReadonlyMap<string, ConfigMapResource>;
  readonly grants: readonly ReferenceGrantResource[];
  readonly delegates: ReadonlyMap<string, VirtualServiceResource>;
  readonly configs: readonly Placed<MeshConfigResource>[];
}

/** The hosts of one namespace, and what each is bound to. */
interface Hosts {
  readonly services: ReadonlyMap<string, Host>;
  readonly entries: ReadonlyMap<string, readonly Host[]>;
  readonly bound: readonly (readonly [host: Host, waypoints: readonly NamespacedName[]])[];
  /** Of all of them. */
  readonly guards: ReadonlySet<NamespacedName>;
}

// Parts of the world that answers depend on, beside namespaces (by their names).
const GATEWAYS = "*gateways";
const CONFIG = "*config";
const hostPart = (hostname: string): string => `/${hostname}`;
/** Hosts whose names end so. */
const suffixPart = (suffix: string): string => `~${suffix}`;
const behindPart = (waypoint: NamespacedName): string => `>${waypoint}`;

export class World {
  readonly options: TranslationOptions;
  readonly #cache = new HostCache();
  readonly #slices = new Map<string, Slice>();
  readonly #hosts = new Map<string, Hosts>();
  readonly #byHostname = new Map<string, Host[]>();
  readonly #behind = new Map<NamespacedName, Set<Host>>();
  #waypointUse: ReadonlyMap<string, string> = new Map();
  #gateways: ReadonlyMap<string, Placed<GatewayResource>> = new Map();
  #admission: WaypointAdmission = new WaypointAdmission([], new Set());
  #meshConfig: Placed<MeshConfigResource> | null = null;
  #notes: Notes | null = null;

  constructor(options: TranslationOptions) {
    this.options = options;
  }

  /**
   * @param touched of every namespace in which a resource came, went or changed since the last time, all that is in it now.
   * @returns the parts that are not as they were.
   */
  *update(touched: ReadonlyMap<string, readonly Placed<Resource>[]>): Steps<ReadonlySet<string>> {
    const moved = new Set<string>();
    const changed = new Set<string>();
    let gates = false;
    for (const [home, list] of touched) {
      const before = this.#slices.get(home);
      const placed = list.filter(isAskedAbout);
      yield;
      if (sameItems(before?.placed, placed)) continue;
      const after = sliceOf(placed);
      changed.add(home);
      moved.add(home);
      if (before?.namespace?.resource !== after.namespace?.resource || !sameItems(before?.gateways, after.gateways) || usesSaid(before?.services ?? []) !== usesSaid(after.services)) gates = true;
      if (placed.length === 0) this.#slices.delete(home);
      else this.#slices.set(home, after);
    }
    if (changed.size === 0) return moved;
    if (gates) this.#makeGates();
    if (gates) moved.add(GATEWAYS);
    if (this.#chooseConfig()) moved.add(CONFIG);
    for (const home of gates ? new Set([...this.#slices.keys(), ...changed]) : changed) {
      const before = this.#hosts.get(home);
      const after = yield* this.#hostsOf(this.#slices.get(home));
      if (before === undefined ? after.bound.length > 0 : !sameBound(before, after)) {
        this.#replace(before, after, moved);
        moved.add(home);
      }
      if (this.#slices.has(home)) this.#hosts.set(home, after);
      else this.#hosts.delete(home);
      yield;
    }
    return moved;
  }

  /** What a probe answers, with what that depends on. */
  asked<T>(probe: (world: World) => T, notes: Notes): T {
    this.#notes = notes;
    try {
      return probe(this);
    } finally {
      this.#notes = null;
    }
  }

  get meshConfig(): Placed<MeshConfigResource> | null {
    this.#note(CONFIG);
    return this.#meshConfig;
  }

  service(namespace: string, name: string): Host | null {
    this.#note(namespace);
    return this.#hosts.get(namespace)?.services.get(name) ?? null;
  }

  /** The hosts of a ServiceEntry; null when there is none of that name. */
  entry(namespace: string, name: string): readonly Host[] | null {
    this.#note(namespace);
    return this.#hosts.get(namespace)?.entries.get(name) ?? null;
  }

  /**
   * A host as a resource of `namespace` names it: in full, or a service's short name (`web`, `web.shop`, `web.shop.svc`).
   * @param at of several with that name the one of this namespace, and where short names are looked up; it shows no more than `namespace` may see.
   */
  host(text: string, namespace: string, at = namespace): Host | null {
    this.#note(hostPart(text));
    const exact = this.#byHostname.get(text);
    const visible = exact === undefined ? undefined : pickHost(exact, namespace, at);
    if (visible !== undefined) return visible;
    const [name = "", where = at, svc, ...rest] = text.split(".");
    return rest.length === 0 && (svc === undefined || svc === "svc") ? this.service(where, name) : null;
  }

  /** Hosts that `text` names for a resource of `namespace`: one, or by a wildcard all that it covers. */
  hostsMatching(text: string, namespace: string): readonly Host[] {
    if (text !== "*" && !text.startsWith("*.")) {
      const host = this.host(text, namespace);
      return host === null ? NO_HOSTS : [host];
    }
    const suffix = text.slice(1);
    this.#note(suffixPart(suffix));
    const found: Host[] = [];
    for (const [hostname, hosts] of this.#byHostname) {
      if (!hostname.endsWith(suffix)) continue;
      const host = pickHost(hosts, namespace);
      if (host !== undefined) found.push(host);
    }
    return inOrder(found);
  }

  /** Every service of a namespace. */
  hostsIn(namespace: string): readonly Host[] {
    this.#note(namespace);
    return inOrder((this.#hosts.get(namespace)?.bound ?? []).map(([host]) => host));
  }

  waypointGateway(namespace: string, name: string): GatewayResource | null {
    this.#note(GATEWAYS);
    return this.#gateways.get(mapKey(namespace, name))?.resource ?? null;
  }

  /** `namespace/name` of all waypoints of a class, in order; joined, so that equal lists are equal. */
  waypointsOfClass(name: string): string {
    this.#note(GATEWAYS);
    return [...this.#gateways.values()].filter(({ resource }) => resource.spec.gatewayClassName === name).map(({ resource }) => mapKey(resource.namespace, resource.name)).sort().join(" ");
  }

  secret(namespace: string, name: string): SecretResource | null {
    this.#refer({ kind: "Secret", namespace, name });
    return this.#slices.get(namespace)?.secrets.get(name) ?? null;
  }

  /** Whether a ReferenceGrant of the object's namespace lets objects of that kind and namespace name it. */
  grants(from: Grantee, { group, kind, namespace, name }: Grantee & { readonly name: string }): boolean {
    this.#note(namespace);
    return (this.#slices.get(namespace)?.grants ?? []).some(({ spec }) => spec.from.some((one) => one.group === from.group && one.kind === from.kind && one.namespace === from.namespace)
      && spec.to.some((one) => one.group === group && one.kind === kind && (one.name === undefined || one.name === name)));
  }

  /**
   * A waypoint that carries requests for any of the services `from` and guards the namespace of the service `to`, which is another one; null
   * for none. The whole namespace: what trusts the waypoint is pods, and a service that is not behind it may lead to the pods of one that is.
   */
  sharedWaypoint(from: readonly NamespacedName[], to: NamespacedName): NamespacedName | null {
    this.#note(namespaceHalf(to));
    const guards = this.#hosts.get(namespaceHalf(to))?.guards;
    if (guards === undefined || guards.size === 0) return null;
    const carries = from.filter((service) => service !== to).flatMap((service) => this.#named(service)?.waypoints ?? NO_WAYPOINTS);
    return carries.find((waypoint) => guards.has(waypoint)) ?? null;
  }

  /** Whether a ReferenceGrant of the service's namespace lets objects of that kind and namespace name it. */
  grantsService(from: Grantee, service: NamespacedName): boolean {
    const host = this.#named(service);
    if (host === null) return false;
    const { namespace, hostname, kind } = host;
    if (kind === "Service") return this.grants(from, { group: "", kind, namespace, name: hostname.slice(0, hostname.indexOf(".")) });
    return this.grants(from, { group: ISTIO_GROUP, kind, namespace, name: hostname });
  }

  #named(service: NamespacedName): Host | null {
    const hostname = nameHalf(service);
    this.#note(hostPart(hostname));
    return this.#byHostname.get(hostname)?.find((host) => host.service === service) ?? null;
  }

  configMap(namespace: string, name: string): ConfigMapResource | null {
    this.#refer({ kind: "ConfigMap", namespace, name });
    return this.#slices.get(namespace)?.configMaps.get(name) ?? null;
  }

  /** A VirtualService without hosts that `from` may see. */
  delegate(namespace: string, name: string, from: string): VirtualServiceResource | null {
    this.#note(namespace);
    const found = this.#slices.get(namespace)?.delegates.get(name);
    if (found === undefined) return null;
    const seenIn = exportedTo(found.spec.exportTo, namespace);
    return seenIn === null || seenIn.includes(from) ? found : null;
  }

  provider(name: string): ProviderSpec | null {
    return this.meshConfig?.resource.spec.extensionProviders?.find((provider) => provider.name === name) ?? null;
  }

  /** Everything that is bound to a waypoint. */
  behind(waypoint: NamespacedName): readonly Host[] {
    this.#note(behindPart(waypoint));
    return inOrder([...(this.#behind.get(waypoint) ?? NO_HOSTS)]);
  }

  #note(part: string): void {
    this.#notes?.parts.add(part);
  }

  #refer(identity: TextReference): void {
    this.#note(identity.namespace);
    this.#notes?.references.set(identityKey(identity), identity);
  }

  #makeGates(): void {
    const slices = [...this.#slices.values()];
    const gateways = slices.flatMap((slice) => slice.gateways);
    this.#waypointUse = waypointUses(slices.flatMap(({ services }) => services), gateways.map(({ resource }) => resource));
    this.#gateways = new Map(gateways.map((placed) => [mapKey(placed.resource.namespace, placed.resource.name), placed]));
    // Whether there is such a service is nothing that is asked here.
    this.#admission = new WaypointAdmission([...slices.flatMap(({ namespace }) => namespace ?? []), ...gateways], new Set());
  }

  /** @returns whether it is another than before. */
  #chooseConfig(): boolean {
    const chosen = [...(this.#slices.get(this.options.rootNamespace)?.configs ?? [])].sort(byAge)[0] ?? null;
    if (chosen === this.#meshConfig) return false;
    this.#meshConfig = chosen;
    return true;
  }

  *#hostsOf(slice: Slice | undefined): Steps<Hosts> {
    const services = new Map<string, Host>();
    const entries = new Map<string, readonly Host[]>();
    const bound: (readonly [host: Host, waypoints: readonly NamespacedName[]])[] = [];
    for (const [index, resource] of (slice?.services ?? []).entries()) {
      if (index % ITEMS_PER_STEP === 0) yield;
      const waypoints = this.#waypointsOf(resource);
      const host = this.#cache.service(resource, waypoints, this.options);
      services.set(resource.name, host);
      bound.push([host, waypoints]);
    }
    for (const resource of slice?.entries ?? []) {
      yield;
      const waypoints = this.#waypointsOf(resource);
      const hosts = this.#cache.entry(resource, waypoints, this.options);
      entries.set(resource.name, hosts);
      for (const host of hosts) bound.push([host, waypoints]);
    }
    return { services, entries, bound, guards: new Set(bound.flatMap(([, waypoints]) => waypoints)) };
  }

  #replace(before: Hosts | undefined, after: Hosts, moved: Set<string>): void {
    const waypointsBefore = new Map(before?.bound);
    for (const [host, waypoints] of after.bound) {
      const known = waypointsBefore.get(host);
      waypointsBefore.delete(host);
      if (known === undefined) noteName(host.hostname, moved);
      if (!sameItems(known, waypoints)) for (const waypoint of [...(known ?? []), ...waypoints]) moved.add(behindPart(waypoint));
    }
    for (const [{ hostname }, waypoints] of waypointsBefore) {
      noteName(hostname, moved);
      for (const waypoint of waypoints) moved.add(behindPart(waypoint));
    }
    for (const [host, waypoints] of before?.bound ?? []) {
      const rest = this.#byHostname.get(host.hostname)?.filter((other) => other !== host) ?? [];
      if (rest.length === 0) this.#byHostname.delete(host.hostname);
      else this.#byHostname.set(host.hostname, rest);
      for (const waypoint of waypoints) removeFrom(this.#behind, waypoint, host);
    }
    for (const [host, waypoints] of after.bound) {
      this.#byHostname.set(host.hostname, [...(this.#byHostname.get(host.hostname) ?? NO_HOSTS), host]);
      for (const waypoint of waypoints) addTo(this.#behind, waypoint, host);
    }
  }

  /** The same rule as the mesh's: a waypoint for workloads alone takes no services that are bound by their namespace's label. Its canary comes second. */
  #waypointsOf(object: ResourceOf<string, unknown>): readonly NamespacedName[] {
    const namespace = this.#slices.get(object.namespace)?.namespace?.resource;
    const labels = namespace?.labels ?? {};
    if (object.labels[USE_WAYPOINT] === undefined && labels[USE_WAYPOINT] === undefined) return NO_WAYPOINTS;
    const bound = boundWaypoint(object, { labels, annotations: namespace?.annotations }, this.#admission);
    const own = mapKey(object.namespace, object.name);
    if (bound === null || waypointNames(bound).some((name) => name === own)) return NO_WAYPOINTS;
    const serves = this.#waypointUse.get(mapKey(bound.namespace, bound.name)) ?? "service";
    return bound.from === "object" || serves === "service" || serves === "all" ? waypointNames(bound) : NO_WAYPOINTS;
  }
}

/** Whatever came first, every replica answers the same. */
const inOrder = (hosts: Host[]): readonly Host[] => hosts.sort((a, b) => compareText(a.service, b.service));

/** Who asked for it, in full or by a wildcard, may have another answer. */
function noteName(hostname: string, moved: Set<string>): void {
  moved.add(hostPart(hostname));
  moved.add(suffixPart(""));
  for (let dot = hostname.indexOf("."); dot >= 0; dot = hostname.indexOf(".", dot + 1)) moved.add(suffixPart(hostname.slice(dot)));
}

function sliceOf(placed: readonly Placed<Resource>[]): Slice {
  let namespace: Placed<NamespaceResource> | null = null;
  const services: ServiceResource[] = [];
  const entries: ServiceEntryResource[] = [];
  const gateways: Placed<GatewayResource>[] = [];
  const secrets = new Map<string, SecretResource>();
  const configMaps = new Map<string, ConfigMapResource>();
  const grants: ReferenceGrantResource[] = [];
  const delegates = new Map<string, VirtualServiceResource>();
  const configs: Placed<MeshConfigResource>[] = [];
  for (const one of placed) {
    const { resource } = one;
    switch (resource.kind) {
      case "Namespace":
        namespace = one as Placed<NamespaceResource>;
        break;
      case "Service":
        services.push(resource);
        break;
      case "ServiceEntry":
        entries.push(resource);
        break;
      case "Gateway":
        if (isWaypoint(resource)) gateways.push(one as Placed<GatewayResource>);
        break;
      case "Secret":
        secrets.set(resource.name, resource);
        break;
      case "ReferenceGrant":
        grants.push(resource);
        break;
      case "ConfigMap":
        configMaps.set(resource.name, resource);
        break;
      case "VirtualService":
        if (isDelegate(resource)) delegates.set(resource.name, resource);
        break;
      case "MeshConfig":
        configs.push(one as Placed<MeshConfigResource>);
        break;
      default:
        break;
    }
  }
  return { placed, namespace, services, entries, gateways, secrets, configMaps, grants, delegates, configs };
}

const sameBound = (a: Hosts, b: Hosts): boolean => a.bound.length === b.bound.length && a.bound.every(([host, waypoints], i) => host === b.bound[i]![0] && sameItems(waypoints, b.bound[i]![1])) && sameItems([...a.services.keys(), ...a.entries.keys()], [...b.services.keys(), ...b.entries.keys()]);

/** Of several services with one host name that the asking namespace sees: that of the namespace that is meant, then Kubernetes', then the first by namespace. */
function pickHost(hosts: readonly Host[], namespace: string, at = namespace): Host | undefined {
  const visible = hosts.filter(({ visibleIn }) => visibleIn === null || visibleIn.includes(namespace));
  return visible.find((host) => host.namespace === at) ?? visible.find(({ kind }) => kind === "Service") ?? [...visible].sort((a, b) => (a.namespace < b.namespace ? -1 : 1))[0];
}
