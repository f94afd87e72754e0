// Whether a pod is in the mesh, by Istio's rules, with the reason. Pure.

import { DATAPLANE_MODE } from "../resources/annotations.ts";
import type { Pod } from "./pod.ts";

/** Set by Istio's sidecar injector: the pod has a proxy of its own, which must not be captured. */
const SIDECAR_STATUS = "sidecar.istio.io/status";

export interface Membership {
  readonly inMesh: boolean;
  readonly why: string;
}

/** @param excludedNamespaces those whose pods the mesh itself may depend on. */
export function membershipOf(pod: Pod, namespaceLabels: Readonly<Record<string, string>>, excludedNamespaces: readonly string[]): Membership {
  const out = (why: string): Membership => ({ inMesh: false, why });
  if (pod.hostNetwork) return out("it uses the node's own network");
  if (excludedNamespaces.includes(pod.namespace)) return out(`namespace ${pod.namespace} is excluded`);
  if (pod.annotations[SIDECAR_STATUS] !== undefined) return out(`it has a sidecar (annotation ${SIDECAR_STATUS})`);
  const [own, namespace] = [pod.labels[DATAPLANE_MODE], namespaceLabels[DATAPLANE_MODE]];
  if (own === "ambient") return { inMesh: true, why: `its label ${DATAPLANE_MODE}: ambient` };
  if (own === "none") return out(`its label ${DATAPLANE_MODE}: none`);
  if (namespace === "ambient") return { inMesh: true, why: `the label ${DATAPLANE_MODE}: ambient of namespace ${pod.namespace}` };
  return out(`neither it nor namespace ${pod.namespace} has the label ${DATAPLANE_MODE}: ambient`);
}
