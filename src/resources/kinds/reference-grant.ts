// gateway.networking.k8s.io ReferenceGrant: read and checked. In a mesh, routes name backends of other namespaces without one.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { dnsLabel } from "../object-meta.ts";
import { defineKind } from "../resource.ts";

const spec = collectable(() => {
  const group = z.string().max(253);
  const kind = z.string().min(1).max(63);
  return z.strictObject({ from: z.array(z.strictObject({ group, kind, namespace: dnsLabel })).min(1).max(16), to: z.array(z.strictObject({ group, kind, name: z.string().min(1).max(253).optional() })).min(1).max(16) });
});

export const referenceGrantKind = defineKind({
  kind: "ReferenceGrant",
  group: "gateway.networking.k8s.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check() {},
});
