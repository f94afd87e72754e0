// Outgoing TCP sockets made inside a workload's network namespace, marked, and bound to a foreign source where asked.
// The descriptor comes back still connecting; adopting it (Bun.connect({ fd })) is the caller's.

import { type IpAddress, isIpv6, type SocketAddress } from "../core/ip.ts";
import {
  AF_INET, AF_INET6, bind, close, connect, EINPROGRESS, IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, IPPROTO_TCP, IPV6_TRANSPARENT,
  setIntOption, SO_KEEPALIVE, SO_MARK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket, SOL_IP, SOL_IPV6, SOL_SOCKET,
  TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY,
} from "./libc.ts";
import { inNamespace } from "./namespace.ts";
import { encodeSockaddr } from "./socket-address.ts";

/** Idle time, probe interval and count after which a silent peer is given up: the reference proxy's values. */
export interface Keepalive {
  readonly idleS: number;
  readonly intervalS: number;
  readonly probes: number;
}

export interface DialOptions {
  /** Namespace to dial from. */
  readonly namespaceFd: number;
  readonly to: SocketAddress;
  /** SO_MARK of the socket: keeps our own packets out of our own redirection. */
  readonly mark: number;
  /** Source address to appear from, even one the namespace does not own (IP_TRANSPARENT); null for the namespace's own. */
  readonly transparentSource: IpAddress | null;
  /** Null where the other end is an application of this machine: its end is always heard of. */
  readonly keepalive: Keepalive | null;
}

/** A connecting descriptor (>= 0) the caller owns, or -errno of the step that failed. */
export function dial(options: DialOptions): number {
  const address = encodeSockaddr(options.to);
  const source = options.transparentSource === null ? null : encodeSockaddr({ ip: options.transparentSource, port: 0 });
  return inNamespace(options.namespaceFd, () => {
    const v6 = isIpv6(options.to.ip);
    const fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    const failed = prepare(fd, options) || (source === null ? 0 : bindTransparent(fd, v6, source)) || connecting(fd, address);
    if (failed < 0) {
      close(fd);
      return failed;
    }
    return fd;
  });
}

function prepare(fd: number, options: DialOptions): number {
  const marked = options.mark === 0 ? 0 : setIntOption(fd, SOL_SOCKET, SO_MARK, options.mark);
  if (marked < 0) return marked;
  setIntOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  if (options.keepalive !== null) setKeepalive(fd, options.keepalive);
  return 0;
}

/** Best effort: a socket without keepalive still works. */
export function setKeepalive(fd: number, keepalive: Keepalive): void {
  if (keepalive.idleS <= 0) return;
  setIntOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, keepalive.idleS);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, keepalive.intervalS);
  setIntOption(fd, IPPROTO_TCP, TCP_KEEPCNT, keepalive.probes);
}

function bindTransparent(fd: number, v6: boolean, source: Uint8Array): number {
  const transparent = v6 ? setIntOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1) : setIntOption(fd, SOL_IP, IP_TRANSPARENT, 1);
  if (transparent < 0) return transparent;
  // The port is chosen at connect, by the whole 4-tuple: without this the ephemeral range of one source runs out.
  setIntOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  const bound = bind(fd, source);
  return bound < 0 ? bound : 0;
}

function connecting(fd: number, address: Uint8Array): number {
  const result = connect(fd, address);
  return result === -EINPROGRESS || result >= 0 ? 0 : result;
}
