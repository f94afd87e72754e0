// Which workloads are instances of waypoints, and which waypoints have none that could serve.

import { namespacedName, type NamespacedName } from "../core/brand.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { Workload } from "../mesh/records.ts";
import type { ConfigState } from "../runtime/config-source.ts";

export interface Instance {
  readonly gateway: NamespacedName;
  readonly workload: LocalWorkload;
}

/** Of this node's workloads: who ends tunnels by itself, and is an instance of a waypoint. */
export function instancesOf({ l7, mesh, localWorkloads }: Pick<ConfigState, "l7" | "mesh" | "localWorkloads">): Instance[] {
  return [...l7.waypoints.values()].flatMap((waypoint) => localWorkloads
    .filter(({ uid, captured }) => !captured && mesh.workloads.get(uid)?.nativeTunnel === true && mesh.workloads.get(uid)!.services.some(({ service }) => service === waypoint.service))
    .map((workload) => ({ gateway: namespacedName(waypoint.namespace, waypoint.name), workload })));
}

/** By waypoint: why nobody can serve what is bound to it, wherever its instances are, and what to do. */
export function instanceProblems({ l7, mesh }: Pick<ConfigState, "l7" | "mesh">): ReadonlyMap<NamespacedName, string> {
  const problems = new Map<NamespacedName, string>();
  if (l7.waypoints.size === 0) return problems;
  const members = membersOf(new Set([...l7.waypoints.values()].map(({ service }) => service)), mesh.workloads.values());
  for (const { namespace, name, service } of l7.waypoints.values()) {
    const found = members.get(service) ?? [];
    if (found.some(({ nativeTunnel }) => nativeTunnel)) continue;
    const gateway = namespacedName(namespace, name);
    problems.set(gateway, found.length === 0
      ? `the Gateway ${gateway} has no instance, so that what is bound to it cannot be reached: give it a WorkloadEntry in the namespace ${namespace} with a network namespace of its own and the labels gateway.networking.k8s.io/gateway-name: ${name} and networking.istio.io/tunnel: http`
      : `no instance of the Gateway ${gateway} ends tunnels by itself, so that what is bound to it cannot be reached: give ${found[0]!.namespace}/${found[0]!.name} the label networking.istio.io/tunnel: http`);
  }
  return problems;
}

function membersOf(services: ReadonlySet<NamespacedName>, workloads: Iterable<Workload>): Map<NamespacedName, Workload[]> {
  const members = new Map<NamespacedName, Workload[]>();
  for (const workload of workloads) {
    for (const { service } of workload.services) {
      if (!services.has(service)) continue;
      const known = members.get(service);
      if (known === undefined) members.set(service, [workload]);
      else known.push(workload);
    }
  }
  return members;
}
