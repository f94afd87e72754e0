// `targetRefs`: what a policy is attached to. Shared by every kind that has them.

import { z } from "zod";
import { admits } from "./admission.ts";
import type { FieldPath } from "./diagnostic.ts";
import { dnsLabel, labelMap } from "./object-meta.ts";
import { GATEWAY_GROUP } from "./route-parts.ts";
import type { Report } from "./resource.ts";

export const targetRef = z.strictObject({ group: z.string().max(253).optional(), kind: z.string().min(1).max(63), name: z.string().min(1).max(253), namespace: z.string().max(63).optional(), sectionName: z.string().max(253).optional() });
export type TargetRef = z.output<typeof targetRef>;
export const TARGETS_MAX = 16;
const TARGET_KINDS = `expected a Service, a ServiceEntry (group networking.istio.io), or a Gateway (group ${GATEWAY_GROUP})`;
/** Of our own kinds, which have nothing but targetRefs. */
export const ownTargetRefs = z.array(z.strictObject({ group: z.string().max(253).optional(), kind: z.string().min(1).max(63), name: z.string().min(1).max(253), namespace: dnsLabel.optional() })
  // Of one that is stored already its other targets hold: what nothing is attached to is told when it is looked for.
  .meta(admits({
    rule: `self.kind == 'Service' ? !has(self.group) || self.group in ['', 'core'] : self.kind == 'ServiceEntry' ? has(self.group) && self.group == 'networking.istio.io' : self.kind in ['Gateway', 'GatewayClass'] && has(self.group) && self.group == '${GATEWAY_GROUP}'`,
    message: TARGET_KINDS,
  }))).min(1).max(TARGETS_MAX);

/** Of Istio's kinds: a selector, or targets. */
export const attachment = { selector: z.strictObject({ matchLabels: labelMap.nullish() }).nullish(), targetRef: targetRef.nullish(), targetRefs: z.array(targetRef).max(TARGETS_MAX).nullish() };

export interface Attachment {
  readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> | null | undefined } | null | undefined;
  readonly targetRef?: TargetRef | null | undefined;
  readonly targetRefs?: readonly TargetRef[] | null | undefined;
}

export const targetsOf = (spec: Attachment | null | undefined): readonly TargetRef[] => (spec?.targetRefs?.length ? spec.targetRefs : spec?.targetRef ? [spec.targetRef] : []);

export const targetPath = (spec: Attachment | null | undefined, index: number): FieldPath => (spec?.targetRefs?.length ? ["spec", "targetRefs", index] : ["spec", "targetRef"]);

export function checkAttachment(spec: Attachment | null | undefined, report: Report): void {
  const targets = targetsOf(spec);
  if (spec?.selector && targets.length > 0) report("error", "conflict", ["spec", "selector"], "found a selector beside targetRefs, expected one of them");
  if (spec?.targetRef && spec.targetRefs?.length) report("error", "conflict", ["spec", "targetRef"], "found targetRef beside targetRefs, expected targetRefs alone");
}

export type TargetKind = "Service" | "ServiceEntry" | "Gateway" | "GatewayClass";

/** Which of the kinds that can be targets a reference names; null for any other. */
export function targetKind({ group = "", kind }: TargetRef): TargetKind | null {
  if (kind === "Service" && (group === "" || group === "core")) return "Service";
  if (kind === "ServiceEntry" && group === "networking.istio.io") return "ServiceEntry";
  if ((kind === "Gateway" || kind === "GatewayClass") && group === GATEWAY_GROUP) return kind;
  return null;
}
