// What is watched, and under which paths. Versions are tried in the order of the kind's own list: newest first.

import { type Kind, KINDS } from "../../resources/kinds.ts";
import { pluralOf } from "../../resources/plural.ts";
import type { ClusterKind } from "../../resources/cluster/cluster-set.ts";
import type { ResourceType } from "../../runtime/kubernetes/api-path.ts";

export interface WatchedResource {
  readonly kind: ClusterKind;
  readonly types: readonly ResourceType[];
  readonly labelSelector?: string;
}

/** ConfigMaps and Secrets are watched one by one where a resource names one: the others are nobody's business. */
const BY_REFERENCE: ReadonlySet<string> = new Set(["ConfigMap", "Secret"]);

/** Slices that Kubernetes keeps for a selector say what the pods say: only those that somebody wrote are asked for. */
const WRITTEN_SLICES = "kubernetes.io/service-name,endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io";

export const typesOf = ({ group, versions, kind, namespaced }: Pick<Kind, "group" | "versions" | "kind" | "namespaced">): ResourceType[] =>
  versions.map((version) => ({ group, version, plural: pluralOf(kind), kind, namespaced }));

const core = (kind: string, namespaced: boolean): ResourceType[] => [{ group: "", version: "v1", plural: pluralOf(kind), kind, namespaced }];

export const WATCHED_RESOURCES: readonly WatchedResource[] = [
  { kind: "Node", types: core("Node", false) },
  ...KINDS.filter(({ kind }) => !BY_REFERENCE.has(kind)).map((kind): WatchedResource => ({ kind: kind.kind, types: typesOf(kind) })),
  { kind: "EndpointSlice", types: [{ group: "discovery.k8s.io", version: "v1", plural: "endpointslices", kind: "EndpointSlice", namespaced: true }], labelSelector: WRITTEN_SLICES },
  { kind: "Pod", types: core("Pod", true) },
];
