// Which endpoints of a service can be dialled at all, at which address and port, and why the others cannot. What both kinds of
// balancing start from: that of connections (balance.ts) and that of requests (upstream/).

import { type IpAddress, isIpv6 } from "../core/ip.ts";
import type { IpFamilies, Service, Workload } from "../mesh/records.ts";
import type { Endpoint, EndpointSet } from "../mesh/store.ts";
import { rankOf } from "./locality.ts";

/** Who asks for which port of which service. */
export interface CandidateRequest {
  readonly service: Service;
  readonly source: Workload;
  readonly servicePort: number;
  /** Port to use when neither the endpoint nor the service maps `servicePort`; null to leave such endpoints out. */
  readonly portFallback: number | null;
  /** Endpoints of any network may be dialled as they are: true for gateways only. */
  readonly anyNetwork: boolean;
  /** Preferred where the service leaves the choice: that of the address the client asked for, or the source's primary one. */
  readonly family: 4 | 6;
}

export interface Picked {
  readonly workload: Workload;
  /** Null when the workload has only a hostname. */
  readonly ip: IpAddress | null;
  readonly targetPort: number;
}

/** Why nothing was picked, counted over all endpoints of the service. */
export interface NothingPicked {
  readonly endpoints: number;
  readonly unhealthy: number;
  readonly withoutPort: number;
  readonly withoutAddress: number;
  /** On another network, without a gateway to it or without HBONE, which is all that a gateway carries. */
  readonly unreachable: number;
  /** Not in the required locality, under a strict mode. */
  readonly elsewhere: number;
  readonly excluded: number;
}

/** Why an endpoint cannot serve. */
export type Unfit = Exclude<keyof NothingPicked, "endpoints" | "excluded">;

/** The endpoint with the address and port to use, or the reason why it cannot serve. */
export function judgeEndpoint(endpoint: Endpoint, request: CandidateRequest): Picked | Unfit {
  const { workload } = endpoint;
  const { service, source } = request;
  // A capacity of 0 drains an endpoint: it stays reachable by its own address only.
  if ((workload.status === "unhealthy" && !service.loadBalancing.allowUnhealthy) || workload.capacity <= 0) return "unhealthy";
  const targetPort = targetPortOf(endpoint, service, request.servicePort) ?? request.portFallback ?? (workload.applicationTunnel === null ? null : request.servicePort);
  if (targetPort === null) return "withoutPort";
  if (!request.anyNetwork && workload.network !== source.network && (workload.networkGateway === null || workload.tunnelProtocol !== "HBONE")) return "unreachable";
  if (rankOf(service.loadBalancing, source, workload) < 0) return "elsewhere";
  const ip = chooseAddress(workload.addresses, service.ipFamilies, request.family);
  if (ip === null && (workload.addresses.length > 0 || workload.hostname === "") && (request.anyNetwork || workload.network === source.network)) return "withoutAddress";
  return { workload, ip, targetPort };
}

export function whyNothing(request: CandidateRequest & { readonly endpoints: EndpointSet }): NothingPicked {
  const counts = { endpoints: request.endpoints.endpoints.length, unhealthy: 0, withoutPort: 0, withoutAddress: 0, unreachable: 0, elsewhere: 0, excluded: 0 };
  for (const endpoint of request.endpoints.endpoints) {
    const judged = judgeEndpoint(endpoint, request);
    if (typeof judged === "string") counts[judged]++;
    else counts.excluded++;
  }
  return counts;
}

/** The family that a workload has for certain, for whoever chooses for it: that of its first address. */
export const primaryFamily = ({ addresses: [first] }: Pick<Workload, "addresses">): 4 | 6 => (first !== undefined && isIpv6(first) ? 6 : 4);

/** The port an endpoint listens on for a service port: its own mapping, else the service's; null when neither has it. */
export function targetPortOf(endpoint: Endpoint, service: Service, servicePort: number): number | null {
  for (const mapping of endpoint.ports) if (mapping.servicePort === servicePort) return mapping.targetPort;
  for (const port of service.ports) if (port.servicePort === servicePort && port.targetPort !== 0) return port.targetPort;
  return null;
}

/** The address to use under a service's rule: only its family, or the wanted one first. Null when none is allowed. */
export function chooseAddress(addresses: readonly IpAddress[], families: IpFamilies, wanted: 4 | 6): IpAddress | null {
  let fallback: IpAddress | null = null;
  for (const ip of addresses) {
    const family = isIpv6(ip) ? 6 : 4;
    if ((families === "ipv4" && family !== 4) || (families === "ipv6" && family !== 6)) continue;
    if (family === wanted) return ip;
    fallback ??= ip;
  }
  return fallback;
}
