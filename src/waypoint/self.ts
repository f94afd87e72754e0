// The waypoint's own place in the mesh: its workload record where the configuration has one, else one that says only what it was told.

import { nameHalf, type NamespacedName, namespaceHalf, type WorkloadUid } from "../core/brand.ts";
import type { L7Store } from "../mesh/l7/l7-store.ts";
import type { Workload } from "../mesh/records.ts";
import type { MeshStore } from "../mesh/store.ts";
import { madeWorkload } from "./made-workload.ts";

/** Of a process that no record describes: near to nobody, and on the network that it was told. */
export function unrecordedWaypoint(gateway: NamespacedName, network: string): Workload {
  const namespace = namespaceHalf(gateway);
  const name = nameHalf(gateway);
  return madeWorkload({ uid: `waypoint/${gateway}` as WorkloadUid, name, namespace, network, serviceAccount: name, provenance: { kind: "Gateway", namespace, name, resourceVersion: "", fieldPath: "" } });
}

/** Why a waypoint has no identity, and what gives it one. */
export function explainUnrecorded(gateway: NamespacedName): string {
  const [namespace, name] = [namespaceHalf(gateway), nameHalf(gateway)];
  return `the configuration has no instance of the Gateway ${gateway}, whose service account would be this waypoint's identity: a pod of its Deployment, or a WorkloadEntry in the namespace ${namespace} with this waypoint's address, its serviceAccount and the labels gateway.networking.k8s.io/gateway-name: ${name} and networking.istio.io/tunnel: http`;
}

/** An endpoint of the Gateway's service: all instances of a waypoint are alike but for where they are. */
export function recordedWaypoint(store: MeshStore, l7: L7Store, gateway: NamespacedName): Workload | null {
  const record = l7.waypoint(gateway);
  return record === null ? null : store.endpoints(record.service)[0]?.workload ?? null;
}
