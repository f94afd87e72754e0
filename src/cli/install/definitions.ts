// The CustomResourceDefinitions of our own kinds, with the schemas and rules by which the control plane reads them: an API server refuses what
// the control plane would, and says why to whoever writes it. Those of the Gateway API and of Istio belong to their projects.

import { apiVersions, KINDS } from "../../resources/kinds.ts";
import { pluralOf } from "../../resources/plural.ts";
import { type KubernetesObject, OWNED_BY } from "./objects.ts";
import { structuralSchema } from "./structural-schema.ts";

export const OWN_GROUP = "weft.dev";

/** Conditions of one object, of all who write any. */
const CONDITIONS_MAX = 32;
const status = {
  type: "object",
  properties: {
    conditions: {
      type: "array", maxItems: CONDITIONS_MAX, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
      items: {
        type: "object", required: ["type", "status", "reason", "message", "lastTransitionTime"],
        properties: {
          type: { type: "string", maxLength: 316 }, status: { type: "string", enum: ["True", "False", "Unknown"] }, reason: { type: "string", minLength: 1, maxLength: 1024 }, message: { type: "string", maxLength: 32_768 },
          observedGeneration: { type: "integer", format: "int64", minimum: 0 }, lastTransitionTime: { type: "string", format: "date-time" },
        },
      },
    },
  },
} as const;

const condition = (field: string): string => `.status.conditions[?(@.type=="weft.dev/Accepted")].${field}`;
const columns = [
  { name: "Accepted", type: "string", jsonPath: condition("status"), description: "Whether it is in force as it stands" },
  { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
  { name: "Message", type: "string", jsonPath: condition("message"), priority: 1, description: "What is wrong with it" },
];
/** What each is about, where a list of objects has room for it. */
const TARGETS = { name: "Targets", type: "string", jsonPath: ".spec.targetRefs[*].name" };

export function ownDefinitions(): KubernetesObject[] {
  return KINDS.filter(({ group }) => group === OWN_GROUP).map((kind): KubernetesObject => {
    const plural = pluralOf(kind.kind);
    const spec = structuralSchema(kind.spec());
    return {
      apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
      // Helm leaves them in place: with a definition go all the objects of its kind.
      metadata: { name: `${plural}.${OWN_GROUP}`, labels: { ...OWNED_BY, app: "weft" }, annotations: { "helm.sh/resource-policy": "keep" } },
      spec: {
        group: OWN_GROUP, scope: kind.namespaced ? "Namespaced" : "Cluster",
        names: { kind: kind.kind, listKind: `${kind.kind}List`, plural, singular: kind.kind.toLowerCase(), categories: ["weft"] },
        versions: kind.versions.map((version, i) => ({
          name: version, served: true, storage: i === 0, subresources: { status: {} },
          additionalPrinterColumns: JSON.stringify(spec).includes('"targetRefs"') ? [TARGETS, ...columns] : columns,
          schema: { openAPIV3Schema: { type: "object", description: `${apiVersions(kind)[i]} ${kind.kind}; docs/configuration.md has its fields`, required: ["spec"], properties: { spec, status } } },
        })),
      },
    };
  });
}
