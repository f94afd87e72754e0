// The ports this mesh takes for itself in every workload's namespace, and addresses no peer may ask us to dial.

import { cidrContains, type IpAddress, isLinkLocalIpv6, isLoopback, parseCidr } from "../core/ip.ts";

/** HBONE: mutual TLS to a workload's own ztunnel. */
export const HBONE_PORT = 15008;

/** Outbound, inbound plaintext, HBONE, DNS, SOCKS5. Delivering to one of them would send a connection around in a circle. */
export const OWN_PORTS: ReadonlySet<number> = new Set([15001, 15006, HBONE_PORT, 15053, 15080]);

/** The port of a destination that nobody may be sent to: one of ours, or none. */
export function isForbiddenPort(port: number): boolean {
  return port === 0 || OWN_PORTS.has(port);
}

/**
 * Addresses that name no workload to anyone but the host that uses them: loopback, unspecified, link-local (cloud metadata servers
 * live there), multicast, broadcast, and the one metadata address outside link-local.
 */
export function isNeverRemote(ip: IpAddress): boolean {
  if (isLoopback(ip)) return true;
  if (!ip.includes(":")) {
    const first = Number(ip.slice(0, ip.indexOf(".")));
    return first === 0 || first >= 224 && first < 240 || ip.startsWith("169.254.") || ip === "255.255.255.255";
  }
  return ip === "::" || isLinkLocalIpv6(ip) || ip.startsWith("ff") && ip.indexOf(":") === 4 || ip === "fd00:ec2::254";
}

const PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "fc00::/7", "64:ff9b:1::/48"].map((text) => parseCidr(text)!);

/** Addresses that are somebody's inside: private, shared, link-local, loopback, cloud metadata. */
export function isPrivateAddress(ip: IpAddress): boolean {
  return isNeverRemote(ip) || PRIVATE.some((cidr) => cidrContains(cidr, ip));
}
