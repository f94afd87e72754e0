// CustomResourceDefinitions of every kind that we read, with all fields allowed: what the project's own tests of a control plane need.
// The published ones belong to their projects; an installation brings those.

import { WATCHED_RESOURCES } from "../../src/control/source/watched-kinds.ts";
import type { KubeObject } from "./api-server.ts";

export interface TestDefinition {
  readonly kind: string;
  readonly object: KubeObject;
  readonly listPath: string;
}

export function testDefinitions(): TestDefinition[] {
  return WATCHED_RESOURCES.filter(({ types }) => types[0]!.group.includes(".") && types[0]!.group !== "discovery.k8s.io").map(({ types }) => {
    const [type] = types;
    const { group, version, plural, kind, namespaced } = type!;
    const protectedGroup = group.endsWith(".k8s.io");
    return {
      kind, listPath: `/apis/${group}/${version}/${plural}`,
      object: {
        apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
        metadata: { name: `${plural}.${group}`, ...(protectedGroup ? { annotations: { "api-approved.kubernetes.io": "unapproved, for tests" } } : {}) },
        spec: {
          group, scope: namespaced ? "Namespaced" : "Cluster", names: { kind, listKind: `${kind}List`, plural, singular: kind.toLowerCase() },
          versions: [{
            name: version, served: true, storage: true, subresources: { status: {} },
            schema: { openAPIV3Schema: { type: "object", properties: { spec: { type: "object", "x-kubernetes-preserve-unknown-fields": true }, status: { type: "object", "x-kubernetes-preserve-unknown-fields": true } } } },
          }],
        },
      },
    };
  });
}
