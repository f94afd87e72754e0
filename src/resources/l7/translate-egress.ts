// ServiceEntry with resolution DYNAMIC_DNS: each request or connection says which host under the wildcard it is for. What says so to a
// waypoint is one more field of the traffic policies of its hosts.

import { EGRESS_PRIVATE_ADDRESSES } from "../annotations.ts";
import type { ServiceEntryResource } from "../kinds/service-entry.ts";
import type { Placed, Report } from "../resource.ts";
import { type Contribution, RANK_SERVICE } from "./contribution.ts";
import type { View } from "./view.ts";

export function translateEgress({ resource }: Placed<ServiceEntryResource>, view: View, report: Report): readonly Contribution[] {
  const { namespace, name, spec, annotations } = resource;
  if (spec.resolution !== "DYNAMIC_DNS") return [];
  const hosts = view.ask((world) => world.entry(namespace, name)) ?? [];
  hosts.forEach((host, index) => {
    if (host.waypoints.length === 0) report("warning", "missing_waypoint", ["spec", "hosts", index], `${host.hostname} is bound to no waypoint, and nobody else resolves the names under it: it cannot be reached; label the ServiceEntry or its namespace with istio.io/use-waypoint`);
  });
  const allowPrivate = annotations[EGRESS_PRIVATE_ADDRESSES] === "true";
  return hosts.map(({ service }) => ({ service, port: null, subset: null, clientNamespace: null, rank: RANK_SERVICE, fields: { dynamicHosts: { allowPrivate } }, paths: { dynamicHosts: ["spec", "resolution"] } }));
}
