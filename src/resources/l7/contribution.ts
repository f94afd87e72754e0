// What one resource says about the traffic to one service (or a part of it), before it is merged with what others say.

import type { NamespacedName } from "../../core/brand.ts";
import type { Subset, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { FieldPath } from "../diagnostic.ts";

/** The fields of a traffic policy that resources set. */
export type TrafficFields = Omit<TrafficPolicy, "service" | "port" | "subset" | "clientNamespace" | "provenance">;
export type TrafficField = keyof TrafficFields;

/** What stands in for a resource that could never be read: nothing overrules it. */
export const RANK_UNREAD = 9999;
/** A resource that names the service itself, beside it. */
export const RANK_SERVICE = 1999;
/** One beside the service that names it by a wildcard ranks between the two, by the length of the wildcard. */
export const RANK_BESIDE = 1000;
/** One that means everything behind a waypoint, or stands in the root namespace. */
export const RANK_WIDE = 0;

export interface Contribution {
  readonly service: NamespacedName;
  readonly port: number | null;
  readonly subset: Subset | null;
  readonly clientNamespace: string | null;
  /** Of contributions to one scope the higher rank wins without a word: a more specific host, a nearer namespace. Equal ranks conflict. */
  readonly rank: number;
  readonly fields: Partial<TrafficFields>;
  /** Where each field stands in its resource. */
  readonly paths: Readonly<Partial<Record<TrafficField, FieldPath>>>;
}
