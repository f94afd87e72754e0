// What every way of choosing among the endpoints of one group has in common.

import type { UpstreamEndpoint } from "../endpoint.ts";

/** What a choice depends on beside the endpoints. One object may serve many choices. */
export interface PickContext {
  readonly nowMs: number;
  /** Hash of the request's key, unsigned 32 bits; looked at by consistent hashing only. */
  readonly hash: number;
  /** Endpoints that this request has been sent to before: not chosen again. */
  readonly tried: readonly UpstreamEndpoint[];
}

export interface Picker {
  /**
   * Takes over the endpoints of the group. Called when they, their weights or their usability change; never per request.
   * @param usable the members that may be chosen, in the order of their uids
   * @param members all of them, in the order of their uids
   */
  update(usable: readonly UpstreamEndpoint[], members: readonly UpstreamEndpoint[]): void;
  /** Null when every usable endpoint has been tried, or there is none. */
  pick(context: PickContext): UpstreamEndpoint | null;
  /** Work that was put off: building tables. Returns false when there was none. */
  maintain(): boolean;
}

export const NO_ENDPOINTS: readonly UpstreamEndpoint[] = Object.freeze([]);
