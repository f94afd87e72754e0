// Where an object is in the API, and how it is called in messages.

import { pluralOf } from "../../resources/plural.ts";
import type { KubernetesObject } from "./objects.ts";

/** Kinds without a namespace, of those that an installation or a test of one is made of. */
const CLUSTER_WIDE: ReadonlySet<string> = new Set(["Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"]);

/** Path of one object, without a query. */
export function objectPath({ apiVersion, kind, metadata }: Pick<KubernetesObject, "apiVersion" | "kind" | "metadata">): string {
  const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  if (CLUSTER_WIDE.has(kind)) return `${base}/${pluralOf(kind)}/${metadata.name}`;
  const { namespace } = metadata;
  if (typeof namespace !== "string") throw new Error(`${kind} ${metadata.name} has no namespace`);
  return `${base}/namespaces/${namespace}/${pluralOf(kind)}/${metadata.name}`;
}

export function describeObject({ kind, metadata }: Pick<KubernetesObject, "kind" | "metadata">): string {
  return typeof metadata.namespace === "string" ? `${kind} ${metadata.namespace}/${metadata.name}` : `${kind} ${metadata.name}`;
}
