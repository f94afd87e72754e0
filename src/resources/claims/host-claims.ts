// Hosts that a ServiceEntry may not have, as they are somebody else's: the names of Kubernetes' services below the cluster's domain, in full
// or as clients shorten them. Whoever answered to one would get what was meant for the service. Pure.

export interface HostOwners {
  /** e.g. `cluster.local`. */
  readonly clusterDomain: string;
  readonly hasNamespace: (name: string) => boolean;
  readonly hasService: (namespace: string, name: string) => boolean;
}

/** Why a host is refused, as the end of a sentence; null for one that may be had. */
export function hostFault(host: string, namespace: string, { clusterDomain, hasNamespace, hasService }: HostOwners): string | null {
  const wildcard = host.startsWith("*.");
  const base = wildcard ? host.slice(2) : host;
  const zone = `svc.${clusterDomain}`;
  if (wildcard && `.${zone}`.endsWith(`.${base}`)) return `it covers every service of the cluster (${zone})`;
  if (base === zone || base === clusterDomain) return `it is the domain of the cluster's own services`;
  if (base.endsWith(`.${zone}`)) {
    const labels = base.slice(0, -zone.length - 1).split(".");
    const of = labels.at(-1)!;
    if (of !== namespace) return `names below ${of}.${zone} are those of the services of namespace ${of}`;
    return !wildcard && labels.length === 2 && hasService(namespace, labels[0]!) ? `the Service ${namespace}/${labels[0]} has it` : null;
  }
  return shortenedFault(base, wildcard, namespace, hasNamespace, hasService);
}

/** `NAME.NAMESPACE` and `NAME.NAMESPACE.svc`: what the client's search domains would complete. */
function shortenedFault(base: string, wildcard: boolean, namespace: string, hasNamespace: HostOwners["hasNamespace"], hasService: HostOwners["hasService"]): string | null {
  const labels = base.split(".");
  const short = labels.at(-1) === "svc" ? labels.slice(0, -1) : labels;
  if (wildcard) {
    if (short.length === 0) return "it covers the short names of every service of the cluster";
    return short.length === 1 && short[0] !== namespace && hasNamespace(short[0]!) ? `it covers the short names of the services of namespace ${short[0]}` : null;
  }
  const [name = "", of = ""] = short;
  return short.length === 2 && of !== namespace && hasService(of, name) ? `it is short for the Service ${of}/${name}` : null;
}
