// The choice of an endpoint for one request: what it is asked by, and how it came about.

import type { PickContext } from "./balancers/picker.ts";
import type { UpstreamEndpoint } from "./endpoint.ts";

export interface UpstreamPickRequest extends PickContext {
  /** Key of the endpoint of the request's session, or with `passthrough` that of its original destination; null for none. */
  readonly sticky: string | null;
  /** It may be repeated elsewhere should it fail: such requests are the ones that try ejected endpoints again. */
  readonly mayProbe: boolean;
}

export type PickReason =
  /** By the balancing of the group that the request fell to. */
  | "balanced"
  | "hashed"
  /** The endpoint of its session. */
  | "sticky"
  /** The one request that finds out whether an ejected endpoint is well again. */
  | "probe"
  /** From all endpoints of a group, since too few of them are usable. */
  | "panic"
  /** Those of its own group have been tried. */
  | "otherGroup"
  /** All have been tried: again. */
  | "triedBefore"
  /** All are ejected: one of them is a better answer than none. */
  | "lastResort"
  /** Without an endpoint: none can be dialled at all (`explainNoEndpoint`), */
  | "noEndpoints"
  /** none is left by health checks, */
  | "noneHealthy"
  /** or the original destination is not among them. */
  | "notThere";

/** Borrowed: valid until the next pick. */
export interface Pick {
  readonly endpoint: UpstreamEndpoint | null;
  readonly reason: PickReason;
}

/** The one object that an upstream lends out, so that no choice makes one. */
export class LentPick implements Pick {
  endpoint: UpstreamEndpoint | null = null;
  reason: PickReason = "noEndpoints";

  of(endpoint: UpstreamEndpoint | null, reason: PickReason): Pick {
    this.endpoint = endpoint;
    this.reason = reason;
    return this;
  }
}
