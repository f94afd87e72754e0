// struct sockaddr_in and sockaddr_in6, to and from SocketAddress. Reads no socket.

import { ipToBytes, ipv4FromBytes, ipv6FromBytes, isIpv6, type SocketAddress } from "../core/ip.ts";
import { AF_INET, AF_INET6 } from "./libc.ts";

export const SOCKADDR_BYTES_MAX = 28;
/** Of `sin6_scope_id`, in the host's order, which is little-endian. */
const SCOPE_OFFSET = 24;

/** A fresh sockaddr_in (16 bytes) or sockaddr_in6 (28). With `family` AF_INET6 an IPv4 address is written IPv4-mapped. */
export function encodeSockaddr(address: SocketAddress, family: number = isIpv6(address.ip) ? AF_INET6 : AF_INET): Uint8Array {
  const ip = ipToBytes(address.ip);
  const bytes = new Uint8Array(family === AF_INET6 ? 28 : 16);
  bytes[0] = family;
  bytes[2] = address.port >> 8;
  bytes[3] = address.port & 0xff;
  if (family === AF_INET) {
    bytes.set(ip, 4);
  } else if (ip.length === 4) {
    bytes[18] = bytes[19] = 0xff;
    bytes.set(ip, 20);
  } else {
    bytes.set(ip, 8);
    if (address.scope !== undefined) new DataView(bytes.buffer).setUint32(SCOPE_OFFSET, address.scope, true);
  }
  return bytes;
}

/** Reads a sockaddr the kernel filled in; an IPv4-mapped address comes back as IPv4. Null for another family or a short buffer. */
export function decodeSockaddr(bytes: Uint8Array, length: number): SocketAddress | null {
  if (length < 16 || bytes.length < length) return null;
  const family = bytes[0]! | (bytes[1]! << 8);
  const port = (bytes[2]! << 8) | bytes[3]!;
  if (family === AF_INET) return { ip: ipv4FromBytes(bytes, 4), port };
  if (family !== AF_INET6 || length < 28) return null;
  const ip = ipv6FromBytes(bytes, 8);
  const scope = bytes[SCOPE_OFFSET]! | (bytes[SCOPE_OFFSET + 1]! << 8) | (bytes[SCOPE_OFFSET + 2]! << 16) | (bytes[SCOPE_OFFSET + 3]! << 24);
  return scope === 0 ? { ip, port } : { ip, port, scope: scope >>> 0 };
}
