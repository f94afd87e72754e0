// Where an object is in the API. Only the kinds that an installation is made of.

import type { KubernetesObject } from "./objects.ts";

const PLURALS: Readonly<Record<string, { readonly plural: string; readonly namespaced: boolean }>> = {
  Namespace: { plural: "namespaces", namespaced: false },
  ServiceAccount: { plural: "serviceaccounts", namespaced: true },
  Service: { plural: "services", namespaced: true },
  ConfigMap: { plural: "configmaps", namespaced: true },
  Secret: { plural: "secrets", namespaced: true },
  Deployment: { plural: "deployments", namespaced: true },
  DaemonSet: { plural: "daemonsets", namespaced: true },
  PodDisruptionBudget: { plural: "poddisruptionbudgets", namespaced: true },
  Lease: { plural: "leases", namespaced: true },
  Role: { plural: "roles", namespaced: true },
  RoleBinding: { plural: "rolebindings", namespaced: true },
  ClusterRole: { plural: "clusterroles", namespaced: false },
  ClusterRoleBinding: { plural: "clusterrolebindings", namespaced: false },
  CustomResourceDefinition: { plural: "customresourcedefinitions", namespaced: false },
  Gateway: { plural: "gateways", namespaced: true },
};

/** Path of one object, without a query. */
export function objectPath({ apiVersion, kind, metadata }: Pick<KubernetesObject, "apiVersion" | "kind" | "metadata">): string {
  const known = PLURALS[kind];
  if (known === undefined) throw new Error(`no path is known for the kind ${kind}`);
  const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const { namespace } = metadata;
  if (!known.namespaced) return `${base}/${known.plural}/${metadata.name}`;
  if (typeof namespace !== "string") throw new Error(`${kind} ${metadata.name} has no namespace`);
  return `${base}/namespaces/${namespace}/${known.plural}/${metadata.name}`;
}

export function describeObject({ kind, metadata }: Pick<KubernetesObject, "kind" | "metadata">): string {
  return typeof metadata.namespace === "string" ? `${kind} ${metadata.namespace}/${metadata.name}` : `${kind} ${metadata.name}`;
}
