// CustomResourceDefinitions of every kind that we read, in all its versions, with all fields allowed: what the project's own tests of a control plane need.
// The published ones belong to their projects; an installation brings those.

import { WATCHED_RESOURCES } from "../../src/control/source/watched-kinds.ts";
import { X_MESH } from "../../src/control/writer/x-mesh.ts";
import type { KubeObject } from "./api-server.ts";

export interface TestDefinition {
  readonly kind: string;
  readonly object: KubeObject;
  readonly listPath: string;
}

export function testDefinitions(): TestDefinition[] {
  const watched = WATCHED_RESOURCES.map(({ types }) => types).filter(([first]) => first!.group.includes(".") && first!.group !== "discovery.k8s.io");
  return [...watched, [X_MESH]].map((types) => {
    const { group, version, plural, kind, namespaced } = types[0]!;
    const protectedGroup = group.endsWith(".k8s.io");
    return {
      kind, listPath: `/apis/${group}/${version}/${plural}`,
      object: {
        apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
        metadata: { name: `${plural}.${group}`, ...(protectedGroup ? { annotations: { "api-approved.kubernetes.io": "unapproved, for tests" } } : {}) },
        spec: {
          group, scope: namespaced ? "Namespaced" : "Cluster", names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase() },
          versions: types.map(({ version: name }, index) => ({
            name, served: true, storage: index === 0, subresources: { status: {} },
            schema: { openAPIV3Schema: { type: "object", properties: { spec: { type: "object", "x-kubernetes-preserve-unknown-fields": true }, status: { type: "object", "x-kubernetes-preserve-unknown-fields": true } } } },
          })),
        },
      },
    };
  });
}
