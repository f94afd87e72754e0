// /clusters: every service that requests go to as it stands now, of all data threads together: its endpoints with health, ejection and
// load, and what its limits have in use. As text in the form that users of Envoy's page know (`cluster::endpoint::field::value`), or JSON.

/** One cluster of one data thread. Plain data. */
export interface ClusterView {
  /** `namespace/host:port|subset`. */
  readonly name: string;
  readonly endpoints: readonly EndpointView[];
  readonly connections: number;
  readonly waiting: number;
  readonly limits: readonly LimitView[];
}

export interface EndpointView {
  readonly address: string;
  /** UID. */
  readonly workload: string;
  /** `region/zone/subzone`; "" when nothing is known. */
  readonly locality: string;
  readonly weight: number;
  /** Of active checks: unchecked, unknown, healthy, unhealthy. */
  readonly health: string;
  /** What the last failed check was; "" for none. */
  readonly healthFailure: string;
  /** Of its answers: healthy, ejected, probing. */
  readonly outlier: string;
  /** Why it was ejected; "" for not. */
  readonly ejectedFor: string;
  readonly ejections: number;
  readonly activeRequests: number;
  /** Up to the head of an answer, decayed; 0 before the first. */
  readonly latencyMs: number;
  /** Of its answers, decayed; 0 to 1. */
  readonly failureShare: number;
}

export interface LimitView {
  readonly resource: string;
  readonly inUse: number;
  /** Null for none. */
  readonly limit: number | null;
  readonly refused: number;
}

/** An endpoint as all threads see it: numbers are sums, latency and failures the worst; each thread ejects for itself. */
export interface MergedEndpoint extends Omit<EndpointView, "outlier"> {
  readonly threads: number;
  readonly ejectedBy: number;
  readonly probedBy: number;
}

export interface MergedCluster extends Omit<ClusterView, "endpoints"> {
  readonly endpoints: readonly MergedEndpoint[];
}

/** @param threads the clusters of each. Limits hold for each thread, and are shown as their sum. */
export function mergeClusters(threads: readonly (readonly ClusterView[])[]): MergedCluster[] {
  const byName = new Map<string, ClusterView[]>();
  for (const view of threads.flat()) byName.set(view.name, [...(byName.get(view.name) ?? []), view]);
  return [...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, views]) => ({
    name, endpoints: mergeEndpoints(views), connections: sum(views, ({ connections }) => connections), waiting: sum(views, ({ waiting }) => waiting), limits: mergeLimits(views),
  }));
}

function mergeEndpoints(views: readonly ClusterView[]): MergedEndpoint[] {
  const byKey = new Map<string, EndpointView[]>();
  for (const endpoint of views.flatMap(({ endpoints }) => endpoints)) {
    const key = `${endpoint.workload} ${endpoint.address}`;
    byKey.set(key, [...(byKey.get(key) ?? []), endpoint]);
  }
  return [...byKey.values()].map((seen) => {
    const first = seen[0]!;
    const worst = seen.find(({ health }) => health === "unhealthy") ?? first;
    const ejected = seen.filter(({ outlier }) => outlier === "ejected");
    const { address, workload, locality, weight } = first;
    return {
      address, workload, locality, weight, health: worst.health, healthFailure: worst.healthFailure, ejectedFor: ejected[0]?.ejectedFor ?? "", ejections: sum(seen, ({ ejections }) => ejections),
      activeRequests: sum(seen, ({ activeRequests }) => activeRequests), latencyMs: Math.max(...seen.map(({ latencyMs }) => latencyMs)), failureShare: Math.max(...seen.map(({ failureShare }) => failureShare)),
      threads: seen.length, ejectedBy: ejected.length, probedBy: seen.filter(({ outlier }) => outlier === "probing").length,
    };
  });
}

function mergeLimits(views: readonly ClusterView[]): LimitView[] {
  return (views[0]?.limits ?? []).map(({ resource }) => {
    const same = views.flatMap(({ limits }) => limits.filter((each) => each.resource === resource));
    return { resource, inUse: sum(same, ({ inUse }) => inUse), limit: same.some(({ limit }) => limit === null) ? null : sum(same, ({ limit }) => limit!), refused: sum(same, ({ refused }) => refused) };
  });
}

/** One fact a line. */
export function clustersText(clusters: readonly MergedCluster[]): string {
  const lines: string[] = [];
  for (const { name, endpoints, connections, waiting, limits } of clusters) {
    const cluster = (field: string, value: string | number): void => void lines.push(`${name}::${field}::${value}`);
    cluster("cx_active", connections);
    cluster("rq_pending_active", waiting);
    for (const { resource, inUse, limit, refused } of limits) {
      cluster(`limit_${resource}`, `${inUse}/${limit ?? "none"}`);
      if (refused > 0) cluster(`refused_${resource}`, refused);
    }
    for (const endpoint of endpoints) {
      const at = (field: string, value: string | number): void => cluster(`${endpoint.address}::${field}`, value);
      at("hostname", endpoint.workload);
      at("health_flags", healthFlags(endpoint));
      at("rq_active", endpoint.activeRequests);
      at("weight", endpoint.weight);
      at("locality", endpoint.locality === "" ? "-" : endpoint.locality);
      at("latency_ms", round(endpoint.latencyMs));
      at("failure_share", round(endpoint.failureShare));
      if (endpoint.ejections > 0) at("ejections", endpoint.ejections);
    }
  }
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** Envoy's words for what keeps an endpoint from being used, with what was seen; for nothing what `health` says: `healthy`, or `unchecked` without active checks. */
function healthFlags({ health, healthFailure, ejectedBy, probedBy, ejectedFor, threads }: MergedEndpoint): string {
  const flags: string[] = [];
  if (health === "unhealthy") flags.push(`/failed_active_hc${healthFailure === "" ? "" : ` (${healthFailure})`}`);
  if (health === "unknown") flags.push("/pending_active_hc");
  if (ejectedBy > 0) flags.push(`/failed_outlier_check (${ejectedFor}, ${ejectedBy} of ${threads} threads)`);
  if (probedBy > 0) flags.push(`/probed (${probedBy} of ${threads} threads)`);
  return flags.length === 0 ? health : flags.join("");
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

const round = (value: number): number => Math.round(value * 1000) / 1000;
