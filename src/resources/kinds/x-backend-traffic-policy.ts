// gateway.networking.x-k8s.io XBackendTrafficPolicy: retry budget and session persistence of a backend.

import { z } from "zod";
import { collectable } from "../collectable.ts";
import { gatewayDuration, gatewayDurationMs } from "../durations.ts";
import { defineKind, type ResourceOfKind } from "../resource.ts";
import { checkSessionPersistence, routeParts } from "../route-parts.ts";

const HOUR_MS = 3_600_000;
const spec = collectable(() => z.strictObject({
  targetRefs: z.array(z.strictObject({ group: z.string().max(253), kind: z.string().min(1).max(63), name: z.string().min(1).max(253) })).min(1).max(16),
  retryConstraint: z.strictObject({
    budget: z.strictObject({ percent: z.int().min(0).max(100).optional(), interval: gatewayDuration.optional() }).optional(),
    minRetryRate: z.strictObject({ count: z.int().min(1).max(1_000_000).optional(), interval: gatewayDuration.optional() }).optional(),
  }).optional(),
  sessionPersistence: routeParts().sessionPersistence.optional(),
}));

export const xBackendTrafficPolicyKind = defineKind({
  kind: "XBackendTrafficPolicy",
  group: "gateway.networking.x-k8s.io",
  versions: ["v1alpha1"],
  namespaced: true,
  spec,
  check({ spec }, report) {
    checkSessionPersistence(spec.sessionPersistence, ["spec", "sessionPersistence"], report);
    const intervals = [[spec.retryConstraint?.budget?.interval, "budget", 1000], [spec.retryConstraint?.minRetryRate?.interval, "minRetryRate", 1]] as const;
    for (const [text, field, min] of intervals) {
      if (text === undefined) continue;
      const ms = gatewayDurationMs(text);
      if (ms < min || ms > HOUR_MS) report("error", "bad_value", ["spec", "retryConstraint", field, "interval"], `found ${text}, expected at least ${min}ms and at most one hour`);
    }
  },
});

export type XBackendTrafficPolicyResource = ResourceOfKind<typeof xBackendTrafficPolicyKind>;
