// Pods and hand-listed endpoints into the mesh's workloads, as Istio's control plane makes them, so that its ztunnel and ours read the
// same. Pure; one workload at a time.

import { namespacedName, parseWorkloadUid, type WorkloadUid } from "../../core/brand.ts";
import type { Locality, PortMapping, ServiceMembership, WeightedWaypoint, Workload } from "../../mesh/records.ts";
import { GATEWAY_NAME, INBOUND_BINDING, NATIVE_TUNNEL, REDIRECTION } from "../annotations.ts";
import type { EndpointSlice, ListedEndpoint } from "../kinds/endpoint-slice.ts";
import type { Pod } from "../kinds/pod.ts";
import { type ServiceResource, tcpPorts } from "../kinds/service.ts";
import { labelledNames, parseInboundBinding } from "../kinds/workload-entry.ts";
import { MEMBERSHIPS_MAX, type SelectedServices } from "../memberships.ts";
import type { NamespaceSurroundings } from "../namespace-context.ts";
import type { TranslationOptions } from "../resource.ts";
import { serviceHostname } from "../waypoint-binding.ts";

const NO_WAYPOINTS: readonly WeightedWaypoint[] = [];
const NOWHERE: Locality = { region: "", zone: "", subzone: "" };

export interface PodSurroundings {
  readonly options: TranslationOptions;
  readonly namespace: NamespaceSurroundings;
  /** Null while its node is not known. */
  readonly locality: Locality | null;
  /** Slices of services without a selector that name this pod. */
  readonly slices: readonly EndpointSlice[];
}

export interface TranslatedPod {
  /** Null for a pod that is nobody's peer: it has ended, or has no address yet. */
  readonly workload: Workload | null;
  /** Names of Services that would have it for an endpoint, had it room for them. */
  readonly beyond: readonly string[];
}

export const NO_PEER: TranslatedPod = { workload: null, beyond: [] };

export function translatePod(pod: Pod, { options, namespace, locality, slices }: PodSurroundings): TranslatedPod {
  if (pod.phase === "ended" || pod.addresses.length === 0) return NO_PEER;
  const { labels } = pod;
  const nativeTunnel = labels[NATIVE_TUNNEL] === "http";
  // An instance of a waypoint is reached by nobody's waypoint.
  const isWaypoint = labels[GATEWAY_NAME] !== undefined;
  const { services, beyond } = memberships(pod, namespace, slices, options);
  const workload: Workload = {
    uid: podUid(pod, options.clusterId),
    name: pod.name,
    namespace: pod.namespace,
    clusterId: options.clusterId,
    trustDomain: options.trustDomain,
    serviceAccount: pod.serviceAccount,
    network: options.network,
    node: pod.node,
    addresses: pod.addresses,
    hostname: "",
    tunnelProtocol: nativeTunnel || pod.annotations[REDIRECTION] === "enabled" ? "HBONE" : "TCP",
    nativeTunnel,
    hostNetwork: pod.hostNetwork,
    ...labelledNames(labels, pod.owner),
    locality: locality ?? NOWHERE,
    status: pod.ready && pod.phase === "living" ? "healthy" : "unhealthy",
    capacity: 1,
    services,
    authorizationPolicies: namespace.policiesFor(labels),
    waypoints: isWaypoint ? NO_WAYPOINTS : namespace.workloadWaypoints(pod),
    networkGateway: null,
    applicationTunnel: parseInboundBinding(pod.annotations[INBOUND_BINDING]),
    provenance: { kind: "Pod", namespace: pod.namespace, name: pod.name, resourceVersion: pod.uid, fieldPath: "" },
  };
  return { workload, beyond };
}

/** An endpoint that a slice lists without a pod. Nothing of it is known, and it may be anybody's address: it is never found by it. */
export function translateListedEndpoint(slice: EndpointSlice, endpoint: ListedEndpoint, service: ServiceResource, options: TranslationOptions): Workload {
  return {
    uid: mintUid(`${options.clusterId}/discovery.k8s.io/EndpointSlice/${slice.namespace}/${slice.name}/${endpoint.address}`),
    name: slice.name,
    namespace: slice.namespace,
    clusterId: options.clusterId,
    trustDomain: options.trustDomain,
    serviceAccount: "default",
    network: options.network,
    node: "",
    addresses: [endpoint.address],
    hostname: "",
    tunnelProtocol: "TCP",
    nativeTunnel: false,
    hostNetwork: true,
    canonicalName: "",
    canonicalRevision: "",
    workloadType: "pod",
    workloadName: "",
    app: "",
    version: "",
    locality: NOWHERE,
    status: endpoint.ready ? "healthy" : "unhealthy",
    capacity: 1,
    services: [sliceMembership(slice, service, options)],
    authorizationPolicies: [],
    waypoints: [],
    networkGateway: null,
    applicationTunnel: null,
    provenance: { kind: "EndpointSlice", namespace: slice.namespace, name: slice.name, resourceVersion: "", fieldPath: "" },
  };
}

export const podUid = (pod: { readonly namespace: string; readonly name: string }, clusterId: string): WorkloadUid => mintUid(`${clusterId}//Pod/${pod.namespace}/${pod.name}`);

function mintUid(text: string): WorkloadUid {
  const uid = parseWorkloadUid(text);
  if (uid === null) throw new Error(`not a workload uid: ${JSON.stringify(text.slice(0, 256))}`);
  return uid;
}

/** By what selects them, and by their named ports: pods of one Deployment have both alike, and hold one list. */
const membershipsOf = new WeakMap<SelectedServices, WeakMap<Pod["ports"], readonly ServiceMembership[]>>();

function selectedMemberships(selected: SelectedServices, pod: Pod, options: TranslationOptions): readonly ServiceMembership[] {
  let byPorts = membershipsOf.get(selected);
  if (byPorts === undefined) membershipsOf.set(selected, (byPorts = new WeakMap()));
  let services = byPorts.get(pod.ports);
  if (services === undefined) byPorts.set(pod.ports, (services = selected.held.map((service) => membership(service, podPorts(service, pod), options))));
  return services;
}

function memberships(pod: Pod, namespace: NamespaceSurroundings, slices: readonly EndpointSlice[], options: TranslationOptions): { readonly services: readonly ServiceMembership[]; readonly beyond: readonly string[] } {
  const selected = namespace.selection.of(pod.labels);
  const shared = selectedMemberships(selected, pod, options);
  const { held, beyond } = selected;
  if (slices.length === 0) return { services: shared, beyond };
  const services = [...shared];
  const left: string[] = [];
  // A service of both families has a slice of each, and its pods are in both.
  const joined = new Set(held);
  for (const slice of slices) {
    const service = namespace.serviceResources.get(slice.service);
    if (service === undefined || joined.has(service) || beyond.includes(service.name)) continue;
    joined.add(service);
    if (services.length < MEMBERSHIPS_MAX) services.push(sliceMembership(slice, service, options));
    else left.push(service.name);
  }
  return { services, beyond: left.length === 0 ? beyond : [...beyond, ...left] };
}

/** A port that the pod has no name for is left out, as Kubernetes does. */
function podPorts(service: ServiceResource, pod: Pod): PortMapping[] {
  return tcpPorts(service.spec).flatMap(({ port, targetPort = port }) => {
    const number = typeof targetPort === "number" ? targetPort : Object.hasOwn(pod.ports, targetPort) ? pod.ports[targetPort] : undefined;
    return number === undefined ? [] : [{ servicePort: port, targetPort: number }];
  });
}

/** A slice's ports are named after the service's. */
function sliceMembership(slice: EndpointSlice, service: ServiceResource, options: TranslationOptions): ServiceMembership {
  const ports = tcpPorts(service.spec).flatMap(({ port, name = "" }) => {
    const number = slice.ports.get(name);
    return number === undefined ? [] : [{ servicePort: port, targetPort: number }];
  });
  return membership(service, ports, options);
}

function membership(service: ServiceResource, ports: readonly PortMapping[], options: TranslationOptions): ServiceMembership {
  return { service: namespacedName(service.namespace, serviceHostname(service.name, service.namespace, options.clusterDomain)), ports };
}
