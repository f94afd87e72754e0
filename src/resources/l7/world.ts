// What one L7 resource may ask about the others: hosts, gateways, secrets, providers. Every question goes through a View, which
// remembers it with its answer: a translation is used again as long as all its questions still have the same answers.

import { namespacedName, type NamespacedName } from "../../core/brand.ts";
import { USE_WAYPOINT, WAYPOINT_FOR } from "../annotations.ts";
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
import { boundWaypoint, serviceHostname, waypointNames } from "../waypoint-binding.ts";
import { byAge } from "./age.ts";

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
  /** `namespace/name` of the waypoint it is bound to by its labels, of two the first; null for none. */
  readonly waypoint: NamespacedName | null;
  /** Somebody reads its requests: a waypoint that it is bound to, or one that serves it at a port of its own. */
  readonly isRead: boolean;
}

/** Hosts are made once for each resource, so that an answer that did not change is the same object. */
export class HostCache {
  readonly #services = new WeakMap<object, { readonly key: string; readonly host: Host }>();
  readonly #entries = new WeakMap<object, { readonly key: string; readonly hosts: readonly Host[] }>();

  service(resource: ServiceResource, waypoint: NamespacedName | null, options: TranslationOptions): Host {
    const key = waypoint ?? "";
    const known = this.#services.get(resource);
    if (known !== undefined && known.key === key) return known.host;
    const { namespace, name, spec } = resource;
    const hostname = serviceHostname(name, namespace, options.clusterDomain);
    const host: Host = {
      service: namespacedName(namespace, hostname), namespace, hostname, kind: "Service", ports: tcpPorts(spec).map((port) => ({ number: port.port, name: port.name ?? "", protocol: declaredProtocol(port.appProtocol ?? "", port.name ?? "") })), headless: isHeadless(spec), visibleIn: null, waypoint, isRead: isRead(hostname, waypoint, options),
    };
    this.#services.set(resource, { key, host });
    return host;
  }

  entry(resource: ServiceEntryResource, waypoint: NamespacedName | null, options: TranslationOptions): readonly Host[] {
    const key = waypoint ?? "";
    const known = this.#entries.get(resource);
    if (known !== undefined && known.key === key) return known.hosts;
    const { namespace, spec } = resource;
    const ports = (spec.ports ?? []).filter(({ protocol }) => protocol?.toUpperCase() !== "UDP").map(({ number, name, protocol = "" }) => ({ number, name, protocol: declaredProtocol(protocol, name) }));
    const hosts = spec.hosts.map((hostname): Host => ({
      service: namespacedName(namespace, hostname), namespace, hostname, kind: "ServiceEntry", ports, headless: false, visibleIn: exportedTo(spec.exportTo, namespace), waypoint, isRead: isRead(hostname, waypoint, options),
    }));
    this.#entries.set(resource, { key, hosts });
    return hosts;
  }
}

const isRead = (hostname: string, waypoint: NamespacedName | null, { servedHosts = [] }: TranslationOptions): boolean => waypoint !== null || servedHosts.includes(hostname);

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

/** A Secret or ConfigMap that some resource names. */
export interface TextReference extends ResourceIdentity {
  readonly kind: "Secret" | "ConfigMap";
}

const GATEWAY_GROUP = "gateway.networking.k8s.io";
const NO_HOSTS: readonly Host[] = [];
const NO_WAYPOINTS: readonly NamespacedName[] = [];
const mapKey = (namespace: string, name: string): string => `${namespace}/${name}`;

export class World {
  readonly options: TranslationOptions;
  readonly #services = new Map<string, Host>();
  readonly #entries = new Map<string, readonly Host[]>();
  readonly #byHostname = new Map<string, Host[]>();
  readonly #gateways = new Map<string, Placed<GatewayResource>>();
  readonly #secrets = new Map<string, SecretResource>();
  readonly #configMaps = new Map<string, ConfigMapResource>();
  readonly #grants: ReferenceGrantResource[] = [];
  readonly #delegates = new Map<string, VirtualServiceResource>();
  readonly #namespaces = new Map<string, NamespaceResource>();
  readonly #behind = new Map<NamespacedName, Host[]>();
  readonly #admission: WaypointAdmission;
  readonly meshConfig: Placed<MeshConfigResource> | null;
  /** Secrets and ConfigMaps that were asked for, whether they are there or not, by kind, namespace and name. */
  readonly asked = new Map<string, TextReference>();

  constructor(resources: readonly Placed<Resource>[], cache: HostCache, options: TranslationOptions) {
    this.options = options;
    this.#admission = new WaypointAdmission(resources);
    const configs: Placed<MeshConfigResource>[] = [];
    const entries: ServiceEntryResource[] = [];
    const services: ServiceResource[] = [];
    const waypointUse = new Map<string, string>();
    for (const placed of resources) {
      const { resource } = placed;
      const key = mapKey(resource.namespace, resource.name);
      switch (resource.kind) {
        case "Namespace":
          this.#namespaces.set(resource.name, resource);
          break;
        case "Service":
          services.push(resource);
          if (!waypointUse.has(key) && resource.labels[WAYPOINT_FOR] !== undefined) waypointUse.set(key, resource.labels[WAYPOINT_FOR]);
          break;
        case "ServiceEntry":
          entries.push(resource);
          break;
        case "Gateway":
          if (!isWaypoint(resource)) break;
          this.#gateways.set(key, placed as Placed<GatewayResource>);
          if (resource.labels[WAYPOINT_FOR] !== undefined) waypointUse.set(key, resource.labels[WAYPOINT_FOR]);
          break;
        case "ReferenceGrant":
          this.#grants.push(resource);
          break;
        case "Secret":
          this.#secrets.set(key, resource);
          break;
        case "ConfigMap":
          this.#configMaps.set(key, resource);
          break;
        case "VirtualService":
          if (isDelegate(resource)) this.#delegates.set(key, resource);
          break;
        case "MeshConfig":
          if (resource.namespace === options.rootNamespace) configs.push(placed as Placed<MeshConfigResource>);
          break;
        default:
          break;
      }
    }
    this.meshConfig = configs.sort(byAge)[0] ?? null;
    for (const resource of services) {
      const waypoints = this.#waypointsOf(resource, waypointUse);
      const host = cache.service(resource, waypoints[0] ?? null, options);
      this.#services.set(mapKey(resource.namespace, resource.name), host);
      this.#add(host, waypoints);
    }
    for (const resource of entries) {
      const waypoints = this.#waypointsOf(resource, waypointUse);
      const hosts = cache.entry(resource, waypoints[0] ?? null, options);
      this.#entries.set(mapKey(resource.namespace, resource.name), hosts);
      for (const host of hosts) this.#add(host, waypoints);
    }
  }

  service(namespace: string, name: string): Host | null {
    return this.#services.get(mapKey(namespace, name)) ?? null;
  }

  /** The hosts of a ServiceEntry; null when there is none of that name. */
  entry(namespace: string, name: string): readonly Host[] | null {
    return this.#entries.get(mapKey(namespace, name)) ?? null;
  }

  /** A host as a resource of `namespace` names it: in full, or a service's short name (`web`, `web.shop`, `web.shop.svc`). */
  host(text: string, namespace: string): Host | null {
    const exact = this.#byHostname.get(text);
    const visible = exact === undefined ? undefined : pickHost(exact, namespace);
    if (visible !== undefined) return visible;
    const [name = "", at = namespace, svc, ...rest] = text.split(".");
    return rest.length === 0 && (svc === undefined || svc === "svc") ? this.service(at, name) : null;
  }

  /** Hosts that `text` names for a resource of `namespace`: one, or by a wildcard all that it covers. */
  hostsMatching(text: string, namespace: string): readonly Host[] {
    if (text !== "*" && !text.startsWith("*.")) {
      const host = this.host(text, namespace);
      return host === null ? NO_HOSTS : [host];
    }
    const suffix = text.slice(1);
    const found: Host[] = [];
    for (const [hostname, hosts] of this.#byHostname) {
      if (!hostname.endsWith(suffix)) continue;
      const host = pickHost(hosts, namespace);
      if (host !== undefined) found.push(host);
    }
    return found;
  }

  /** Every service of a namespace. */
  hostsIn(namespace: string): readonly Host[] {
    return [...this.#byHostname.values()].flat().filter((host) => host.namespace === namespace);
  }

  waypointGateway(namespace: string, name: string): GatewayResource | null {
    return this.#gateways.get(mapKey(namespace, name))?.resource ?? null;
  }

  /** `namespace/name` of all waypoints of a class, in order; joined, so that equal lists are equal. */
  waypointsOfClass(name: string): string {
    return [...this.#gateways.values()].filter(({ resource }) => resource.spec.gatewayClassName === name).map(({ resource }) => mapKey(resource.namespace, resource.name)).sort().join(" ");
  }

  gateways(): readonly Placed<GatewayResource>[] {
    return [...this.#gateways.values()];
  }

  secret(namespace: string, name: string): SecretResource | null {
    this.#ask({ kind: "Secret", namespace, name });
    return this.#secrets.get(mapKey(namespace, name)) ?? null;
  }

  /** Whether a ReferenceGrant of the Secret's namespace lets Gateways of `from` name it. */
  grantsSecret(from: string, { namespace, name }: { readonly namespace: string; readonly name: string }): boolean {
    return this.#grants.some((grant) => grant.namespace === namespace && grant.spec.from.some((one) => one.group === GATEWAY_GROUP && one.kind === "Gateway" && one.namespace === from)
      && grant.spec.to.some((one) => one.group === "" && one.kind === "Secret" && (one.name === undefined || one.name === name)));
  }

  configMap(namespace: string, name: string): ConfigMapResource | null {
    this.#ask({ kind: "ConfigMap", namespace, name });
    return this.#configMaps.get(mapKey(namespace, name)) ?? null;
  }

  /** A VirtualService without hosts that `from` may see. */
  delegate(namespace: string, name: string, from: string): VirtualServiceResource | null {
    const found = this.#delegates.get(mapKey(namespace, name));
    if (found === undefined) return null;
    const seenIn = exportedTo(found.spec.exportTo, namespace);
    return seenIn === null || seenIn.includes(from) ? found : null;
  }

  provider(name: string): ProviderSpec | null {
    return this.meshConfig?.resource.spec.extensionProviders?.find((provider) => provider.name === name) ?? null;
  }

  /** Everything that is bound to a waypoint. */
  behind(waypoint: NamespacedName): readonly Host[] {
    return this.#behind.get(waypoint) ?? NO_HOSTS;
  }

  #ask(identity: TextReference): void {
    this.asked.set(identityKey(identity), identity);
  }

  #add(host: Host, waypoints: readonly NamespacedName[]): void {
    const named = this.#byHostname.get(host.hostname);
    if (named === undefined) this.#byHostname.set(host.hostname, [host]);
    else named.push(host);
    for (const waypoint of waypoints) {
      const behind = this.#behind.get(waypoint);
      if (behind === undefined) this.#behind.set(waypoint, [host]);
      else behind.push(host);
    }
  }

  /** The same rule as the mesh's: a waypoint for workloads alone takes no services that are bound by their namespace's label. Its canary comes second. */
  #waypointsOf(object: ResourceOf<string, unknown>, use: ReadonlyMap<string, string>): readonly NamespacedName[] {
    const namespace = this.#namespaces.get(object.namespace);
    const labels = namespace?.labels ?? {};
    if (object.labels[USE_WAYPOINT] === undefined && labels[USE_WAYPOINT] === undefined) return NO_WAYPOINTS;
    const bound = boundWaypoint(object, { labels, annotations: namespace?.annotations }, this.#admission);
    const own = mapKey(object.namespace, object.name);
    if (bound === null || waypointNames(bound).some((name) => name === own)) return NO_WAYPOINTS;
    const serves = use.get(mapKey(bound.namespace, bound.name)) ?? "service";
    return bound.from === "object" || serves === "service" || serves === "all" ? waypointNames(bound) : NO_WAYPOINTS;
  }
}

/** Of several services with one host name: the asking namespace's own, then Kubernetes', then the first by namespace. */
function pickHost(hosts: readonly Host[], namespace: string): Host | undefined {
  const visible = hosts.filter(({ visibleIn }) => visibleIn === null || visibleIn.includes(namespace));
  return visible.find((host) => host.namespace === namespace) ?? visible.find(({ kind }) => kind === "Service") ?? [...visible].sort((a, b) => (a.namespace < b.namespace ? -1 : 1))[0];
}
