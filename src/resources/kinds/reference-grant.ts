// gateway.networking.k8s.io ReferenceGrant: what another namespace may name: a Gateway a Secret, and a route a service behind the same
// waypoint. Other backends of other namespaces are named without one.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { dnsLabel } from "../object-meta.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";

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

export type ReferenceGrantResource = ResourceOfKind<typeof referenceGrantKind>;
