// Kubernetes' LabelSelector: pairs and expressions, all of which must hold. An empty one selects everything.

import { z } from "zod";
import { collectable } from "./collectable.ts";
import { labelMap, type Labels, qualifiedKey } from "./object-meta.ts";
import { selects } from "./selector.ts";

/** Of one selector; each namespace may be held against all of them. */
const EXPRESSIONS_MAX = 64;
const VALUES_MAX = 256;

export const labelSelector = collectable(() => z.strictObject({
  matchLabels: labelMap.nullish(),
  matchExpressions: z.array(z.strictObject({ key: qualifiedKey, operator: z.enum(["In", "NotIn", "Exists", "DoesNotExist"]), values: z.array(z.string().max(63)).max(VALUES_MAX).nullish() })).max(EXPRESSIONS_MAX).nullish(),
}));

export type LabelSelectorSpec = z.output<ReturnType<typeof labelSelector>>;

export function selectsLabels({ matchLabels, matchExpressions }: LabelSelectorSpec, labels: Labels): boolean {
  return selects(matchLabels ?? {}, labels) && (matchExpressions ?? []).every(({ key, operator, values }) => {
    const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
    switch (operator) {
      case "In": return value !== undefined && (values ?? []).includes(value);
      case "NotIn": return value === undefined || !(values ?? []).includes(value);
      case "Exists": return value !== undefined;
      case "DoesNotExist": return value === undefined;
    }
  });
}
