// Where a redirected connection was going before nf_tables sent it to us.

import type { OrigDst, SocketAddress } from "../core/ip.ts";
import { getOption, getpeername, getsockname, SO_ORIGINAL_DST, SOL_IP, SOL_IPV6 } from "./libc.ts";
import { decodeSockaddr, SOCKADDR_BYTES_MAX } from "./socket-address.ts";

const buffer = new Uint8Array(SOCKADDR_BYTES_MAX);

/** The destination the application dialled; null when the connection was not redirected (someone dialled our port itself). */
export function originalDestination(fd: number): OrigDst | null {
  // IPv4 first: a v4-mapped peer on a dual-stack listener has its answer at SOL_IP only.
  const v4 = getOption(fd, SOL_IP, SO_ORIGINAL_DST, buffer);
  if (v4 > 0) return decodeSockaddr(buffer, v4) as OrigDst | null;
  const v6 = getOption(fd, SOL_IPV6, SO_ORIGINAL_DST, buffer);
  return v6 > 0 ? (decodeSockaddr(buffer, v6) as OrigDst | null) : null;
}

/** The other end, address and port by one system call; null on a descriptor that is not connected. */
export function remoteAddress(fd: number): SocketAddress | null {
  const length = getpeername(fd, buffer);
  return length > 0 ? decodeSockaddr(buffer, length) : null;
}

/** The local end of a connected or bound socket; null on a closed descriptor. */
export function localAddress(fd: number): SocketAddress | null {
  const length = getsockname(fd, buffer);
  return length > 0 ? decodeSockaddr(buffer, length) : null;
}
