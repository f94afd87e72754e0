// One cluster of this thread as the administration port shows it.

import { LIMITED_RESOURCES } from "../../policy/upstream/circuit-breaker.ts";
import { UNLIMITED } from "../../policy/upstream/defaults.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import type { ClusterView, EndpointView } from "../../runtime/clusters-view.ts";
import type { Cluster } from "./cluster.ts";
import { endpointAddress } from "./endpoint-address.ts";

export function clusterView(cluster: Cluster): ClusterView {
  const pools = [...cluster.pools];
  const { breaker } = cluster;
  return {
    name: cluster.name,
    endpoints: cluster.upstream.endpoints.map((endpoint) => endpointView(endpoint, cluster.healthFailure(endpoint))),
    connections: pools.reduce((sum, { pool }) => sum + pool.connections, 0),
    waiting: pools.reduce((sum, { pool }) => sum + pool.waiting, 0),
    limits: LIMITED_RESOURCES.map((resource) => ({ resource, inUse: breaker.inUse(resource), limit: limitOf(breaker.limit(resource)), refused: breaker.refused(resource) })),
  };
}

const limitOf = (limit: number): number | null => (limit >= UNLIMITED ? null : limit);

function endpointView({ target, weight, health, outlier, active, latencyMs, failureShare }: UpstreamEndpoint, healthFailure: string): EndpointView {
  const { workload } = target;
  const { region, zone, subzone } = workload.locality;
  return {
    address: endpointAddress(target), workload: workload.uid, locality: region === "" ? "" : `${region}/${zone}/${subzone}`, weight, health, healthFailure, outlier: outlier.kind,
    ejectedFor: outlier.kind === "healthy" ? "" : outlier.reason ?? "", ejections: outlier.ejections, activeRequests: active, latencyMs, failureShare,
  };
}
