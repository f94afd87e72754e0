// The names in the certificate of a CA's port: those by which clients may know the machine that serves it.

import { hostname, networkInterfaces } from "node:os";
import { type IpAddress, ipToBytes, parseIp } from "../core/ip.ts";
import type { NewName } from "../wire/x509/build.ts";

/**
 * @param ip where the port listens; on all addresses, each of them is a name.
 * @param more host names beside `localhost` and the machine's own. What is no host name is left out.
 */
export function serverNames(ip: IpAddress, more: readonly string[] = []): NewName[] {
  const names = [...new Set([...more, "localhost", hostname()])].filter((name) => /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(name));
  return [...names.map((dnsName) => ({ kind: "dns" as const, dnsName })), ...addresses(ip).map((address) => ({ kind: "ip" as const, bytes: ipToBytes(address) }))];
}

function addresses(ip: IpAddress): IpAddress[] {
  if (ip !== "::" && ip !== "0.0.0.0") return [ip];
  const all = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => parseIp(address.replace(/%.*$/, ""))));
  return [...new Set(all)].filter((address) => address !== null);
}
