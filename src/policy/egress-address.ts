// Which addresses a name that a client chose may lead to: those outside, and none that the waypoint can reach and the client may not. Of
// services whose hosts are a wildcard with resolution DYNAMIC_DNS; names that an operator writes are the operator's affair.

import { cidrContains, type IpAddress, ipToBytes, ipv4FromBytes, parseCidr } from "../core/ip.ts";
import type { MeshStore } from "../mesh/store.ts";
import { isNeverRemote, isPrivateAddress } from "./ports.ts";

/** RFC 6052: IPv6 addresses that a gateway translates, with the IPv4 address in their last four bytes. */
const TRANSLATED = parseCidr("64:ff9b::/96")!;
const TRANSLATED_IPV4_OFFSET = 12;

export interface EgressWorld {
  readonly store: Pick<MeshStore, "workloadByAddress" | "serviceByVip">;
  readonly network: string;
}

/** Why a request for such a name does not go to that address; null when it may. @param allowPrivate as the ServiceEntry says. */
export function egressRefusal({ store, network }: EgressWorld, ip: IpAddress, allowPrivate: boolean): string | null {
  if (cidrContains(TRANSLATED, ip)) return egressRefusal({ store, network }, ipv4FromBytes(ipToBytes(ip), TRANSLATED_IPV4_OFFSET), allowPrivate);
  if (isNeverRemote(ip)) return `${ip} is loopback, link-local, multicast or unspecified, which is nobody outside`;
  const workload = store.workloadByAddress(network, ip);
  if (workload !== undefined) return `${ip} is the workload ${workload.namespace}/${workload.name} of the configuration, which has policies of its own`;
  const service = store.serviceByVip(network, ip, null);
  if (service !== undefined) return `${ip} is the service ${service.namespace}/${service.hostname} of the configuration, which has policies of its own`;
  if (!allowPrivate && isPrivateAddress(ip)) return `${ip} is a private address; the annotation weft.dev/egress-private-addresses: "true" of the ServiceEntry would allow it`;
  return null;
}
