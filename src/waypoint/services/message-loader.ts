// Has the messages of decision-messages.ts loaded, and lets whoever asks a service wait for that.

import type { L7Delta } from "../../mesh/l7/delta.ts";
import type { RouteFilter } from "../../mesh/l7/route.ts";

export type DecisionMessages = typeof import("./decision-messages.ts");

/** Something that is waited for. */
export interface PendingAnswer {
  /** Nobody wants the answer any more. */
  cancel(): void;
}

let loaded: DecisionMessages | null = null;

const load = async (): Promise<DecisionMessages> => (loaded = await import("./decision-messages.ts"));

/** @param start once they are there; not after `cancel`. */
export function withMessages(start: (messages: DecisionMessages) => PendingAnswer): PendingAnswer {
  if (loaded !== null) return start(loaded);
  let cancelled = false;
  let started: PendingAnswer | null = null;
  void load().then((messages) => {
    if (!cancelled) started = start(messages);
  });
  return {
    cancel: () => {
      cancelled = true;
      started?.cancel();
    },
  };
}

/** Loads them ahead where a configuration will need them, so that no request waits for it. */
export function loadIfNeeded({ requestPolicies, trafficPolicies, routes }: Pick<L7Delta, "requestPolicies" | "trafficPolicies" | "routes">): void {
  const asks = (filter: RouteFilter): boolean => filter.kind === "externalAuth" && filter.authorizer.protocol === "grpc";
  const needed = requestPolicies.some(({ action }) => action.kind === "custom" && action.authorizer?.protocol === "grpc")
    || trafficPolicies.some(({ policies }) => policies.some(({ globalRateLimits }) => globalRateLimits.length > 0))
    || routes.some(({ rules }) => "precedence" in rules && rules.rules.some(({ filters, backends }) => filters.some(asks) || backends.some((backend) => backend.filters.some(asks))));
  if (needed && loaded === null) void load();
}
