// How near an endpoint is to who asks for it: the scopes they share, as a service's traffic distribution counts them. Used for
// connections (balance.ts) and for requests (upstream/).

import type { LoadBalancing, LoadBalancingScope, Workload } from "../mesh/records.ts";

/**
 * Rank of an endpoint for a source: higher is nearer, -1 is out of bounds. Scopes count from the first until one differs; a leading
 * `network` is preferred above all, without ending the count, so that remote endpoints are still ranked by place.
 */
export function rankOf(balancing: LoadBalancing, source: Workload, endpoint: Workload): number {
  const { mode, scopes } = balancing;
  switch (mode) {
    case "standard":
    case "passthrough":
      return 0;
    case "strict":
      return scopes.every((scope) => sameScope(scope, source, endpoint)) ? 0 : -1;
    case "failover": {
      const networkFirst = scopes[0] === "network";
      const near = networkFirst && source.network === endpoint.network ? scopes.length : 0;
      let matched = 0;
      for (let i = networkFirst ? 1 : 0; i < scopes.length && sameScope(scopes[i]!, source, endpoint); i++) matched++;
      return near + matched;
    }
    default:
      return mode satisfies never;
  }
}

/** Unknown places are the same as nowhere: an empty name equals none. A zone lies in its region, a subzone in its zone, a node in its cluster. */
function sameScope(scope: LoadBalancingScope, a: Workload, b: Workload): boolean {
  switch (scope) {
    case "network": return a.network === b.network;
    case "cluster": return a.clusterId === b.clusterId;
    case "node": return a.node !== "" && a.node === b.node && a.clusterId === b.clusterId;
    case "region": return a.locality.region !== "" && a.locality.region === b.locality.region;
    case "zone": return a.locality.zone !== "" && a.locality.zone === b.locality.zone && a.locality.region === b.locality.region;
    case "subzone":
      return a.locality.subzone !== "" && a.locality.subzone === b.locality.subzone
        && a.locality.zone === b.locality.zone && a.locality.region === b.locality.region;
    default: return scope satisfies never;
  }
}
