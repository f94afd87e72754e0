// The CustomResourceDefinitions of our own kinds. Those of the Gateway API and of Istio belong to their projects. What is in a spec is
// checked by the control plane, field by field, which writes into the status what is wrong; the API server checks that there is a spec.

import { apiVersions, KINDS } from "../../resources/kinds.ts";
import { pluralOf } from "../../resources/plural.ts";
import { type KubernetesObject, OWNED_BY } from "./objects.ts";

export const OWN_GROUP = "weft.dev";

const anything = { type: "object", "x-kubernetes-preserve-unknown-fields": true } as const;

export function ownDefinitions(): KubernetesObject[] {
  return KINDS.filter(({ group }) => group === OWN_GROUP).map((kind): KubernetesObject => {
    const plural = pluralOf(kind.kind);
    return {
      apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition",
      // Helm leaves them in place: with a definition go all the objects of its kind.
      metadata: { name: `${plural}.${OWN_GROUP}`, labels: { ...OWNED_BY, app: "weft" }, annotations: { "helm.sh/resource-policy": "keep" } },
      spec: {
        group: OWN_GROUP, scope: kind.namespaced ? "Namespaced" : "Cluster",
        names: { kind: kind.kind, listKind: `${kind.kind}List`, plural, singular: kind.kind.toLowerCase(), categories: ["weft"] },
        versions: kind.versions.map((version, i) => ({
          name: version, served: true, storage: i === 0, subresources: { status: {} },
          additionalPrinterColumns: [{ name: "Accepted", type: "string", jsonPath: '.status.ancestors[0].conditions[?(@.type=="Accepted")].status' }, { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" }],
          schema: { openAPIV3Schema: { type: "object", description: `${apiVersions(kind)[i]} ${kind.kind}; docs/configuration.md has its fields`, required: ["spec"], properties: { spec: anything, status: anything } } },
        })),
      },
    };
  });
}
