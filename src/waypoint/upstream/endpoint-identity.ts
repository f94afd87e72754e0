// The identity that an endpoint proves when it is reached by tunnel.

import type { SpiffeId } from "../../core/spiffe.ts";
import type { Workload } from "../../mesh/records.ts";
import { identityOf } from "../../policy/waypoints.ts";

/** Records are immutable: the text is made once. */
const identities = new WeakMap<Workload, SpiffeId>();

/** Null for one that is reached otherwise. */
export function endpointIdentity(endpoint: Workload | null): SpiffeId | null {
  if (endpoint === null || endpoint.tunnelProtocol !== "HBONE") return null;
  let identity = identities.get(endpoint);
  if (identity === undefined) identities.set(endpoint, (identity = identityOf(endpoint)));
  return identity;
}
