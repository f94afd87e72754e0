// The identity that an endpoint proves when it is reached by tunnel.

import type { SpiffeId } from "../../core/spiffe.ts";
import type { Workload } from "../../mesh/records.ts";
import { identityOf } from "../../policy/waypoints.ts";

/** Null for one that is reached otherwise. */
export function endpointIdentity(endpoint: Workload | null): SpiffeId | null {
  return endpoint === null || endpoint.tunnelProtocol !== "HBONE" ? null : identityOf(endpoint);
}
