// A waypoint is reached by the service of its name. Where a Gateway asks for a waypoint and nobody wrote that service, it is made here,
// as Istio's control plane makes it: for HBONE, with the workloads that carry the Gateway's name as their label.

import { isIpv6, parseIp } from "../core/ip.ts";
import { GATEWAY_NAME } from "./annotations.ts";
import type { Resource } from "./kinds.ts";
import { type GatewayResource, HBONE_PORT, isWaypoint } from "./kinds/gateway.ts";
import type { ServiceResource } from "./kinds/service.ts";
import type { Placed } from "./resource.ts";

export class WaypointServices {
  readonly givesAddresses: boolean;
  readonly #services = new WeakSet<Placed<ServiceResource>>();
  readonly #made = new WeakMap<Placed<Resource>, Placed<ServiceResource>>();

  /**
   * @param givesAddresses whether the Gateway's addresses are the service's, and services without any are given some. In a cluster that is the
   * API server's affair: whoever writes a Gateway could take anybody's.
   */
  constructor(givesAddresses: boolean) {
    this.givesAddresses = givesAddresses;
  }

  /** The resources, and the services that their waypoints lack. */
  complete(resources: readonly Placed<Resource>[]): readonly Placed<Resource>[] {
    const waypoints = resources.filter(({ resource }) => resource.kind === "Gateway" && isWaypoint(resource));
    if (waypoints.length === 0) return resources;
    const written = new Set(resources.filter(({ resource }) => resource.kind === "Service").map(({ resource }) => `${resource.namespace}/${resource.name}`));
    return [...resources, ...waypoints.filter(({ resource }) => !written.has(`${resource.namespace}/${resource.name}`)).map((placed) => this.#serviceOf(placed))];
  }

  /** Made here rather than written. */
  isMade(placed: Placed<ServiceResource>): boolean {
    return this.#services.has(placed);
  }

  #serviceOf(placed: Placed<Resource>): Placed<ServiceResource> {
    const known = this.#made.get(placed);
    if (known !== undefined) return known;
    const gateway = placed.resource as GatewayResource;
    const addresses = this.givesAddresses ? (gateway.spec.addresses ?? []).flatMap(({ value = "" }) => parseIp(value) ?? []) : [];
    // A Service has one address of each family at most.
    const clusterIPs = [false, true].flatMap((v6) => addresses.find((ip) => isIpv6(ip) === v6) ?? []);
    const made: Placed<ServiceResource> = {
      ...placed,
      resource: {
        kind: "Service", namespace: gateway.namespace, name: gateway.name, labels: gateway.labels, annotations: {}, creationTimestamp: gateway.creationTimestamp, resourceVersion: gateway.resourceVersion,
        spec: { selector: { [GATEWAY_NAME]: gateway.name }, ports: [{ name: "mesh", port: HBONE_PORT }], ...(clusterIPs.length === 0 ? { ipFamilyPolicy: "PreferDualStack" } : { clusterIP: clusterIPs[0], clusterIPs }) },
      },
    };
    this.#made.set(placed, made);
    this.#services.add(made);
    return made;
  }
}
