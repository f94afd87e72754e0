// Outgoing TCP connections from a workload's network namespace, bound to a foreign source where asked. The descriptor comes back
// still connecting; adopting it (Bun.connect({ fd }), which also sets TCP_NODELAY) is the caller's.

import { type IpAddress, isIpv6, type SocketAddress } from "../core/ip.ts";
import {
  bind, close, connect, EINPROGRESS, IPPROTO_TCP, setIntOption, SO_KEEPALIVE, SOL_SOCKET, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL,
} from "./libc.ts";
import { inNamespace } from "./namespace.ts";
import { encodeSockaddr } from "./socket-address.ts";
import { openTcpSocket, type SocketKind } from "./socket-reserve.ts";

/** Idle time, probe interval and count after which a silent peer is given up: the reference proxy's values. */
export interface Keepalive {
  readonly idleS: number;
  readonly intervalS: number;
  readonly probes: number;
}

export interface Destination {
  readonly to: SocketAddress;
  /** Source address to appear from, even one the namespace does not own (IP_TRANSPARENT); null for the namespace's own. */
  readonly transparentSource: IpAddress | null;
  /** Null where the other end is an application of this machine: its end is always heard of. */
  readonly keepalive: Keepalive | null;
}

export interface DialOptions extends Destination {
  /** Namespace to dial from. */
  readonly namespaceFd: number;
  /** SO_MARK of the socket: keeps our own packets out of our own redirection. */
  readonly mark: number;
}

/** A connecting descriptor (>= 0) the caller owns, or -errno of the step that failed. */
export function dial(options: DialOptions): number {
  const kind = kindFor(options);
  return connectFrom(inNamespace(options.namespaceFd, () => openTcpSocket(kind, options.mark)), options);
}

/** The kind of socket that reaches this destination. */
export function kindFor({ to, transparentSource }: Destination): SocketKind {
  return { v6: isIpv6(to.ip), transparent: transparentSource !== null };
}

/**
 * Connects a socket of the right kind. It belongs to its namespace for good, so where this thread is does not matter.
 * @param fd or -errno, which comes back as it is. Closed on failure.
 */
export function connectFrom(fd: number, { to, transparentSource, keepalive }: Destination): number {
  if (fd < 0) return fd;
  if (keepalive !== null) setKeepalive(fd, keepalive);
  let failed = transparentSource === null ? 0 : bind(fd, encodeSockaddr({ ip: transparentSource, port: 0 }));
  if (failed >= 0) failed = connect(fd, encodeSockaddr(to));
  if (failed >= 0 || failed === -EINPROGRESS) return fd;
  close(fd);
  return failed;
}

/** Best effort: a socket without keepalive still works. */
export function setKeepalive(fd: number, keepalive: Keepalive): void {
  if (keepalive.idleS <= 0) return;
  setIntOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive.idleS);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive.intervalS);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPCNT, keepalive.probes);
}
