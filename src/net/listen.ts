// Listening TCP sockets made inside a network namespace, ready to be adopted by any thread of this process.

import type { IpAddress, SocketAddress } from "../core/ip.ts";
import { type Keepalive, setKeepalive } from "./dial.ts";
import {
  AF_INET, AF_INET6, bind, close, EADDRNOTAVAIL, EAFNOSUPPORT, IPPROTO_TCP, IPV6_V6ONLY, listen, setIntOption, SO_MARK, SO_REUSEADDR, SO_REUSEPORT, SOCK_CLOEXEC,
  SOCK_NONBLOCK, SOCK_STREAM, socket, SOL_IPV6, SOL_SOCKET, TCP_NODELAY,
} from "./libc.ts";
import { inNamespace } from "./namespace.ts";
import { encodeSockaddr } from "./socket-address.ts";

/** Room for a burst of connections while the data thread is busy; the kernel caps it at net.core.somaxconn. */
export const LISTEN_BACKLOG = 4096;

export interface ListenOptions {
  /** Null: where this thread is. */
  readonly namespaceFd: number | null;
  /** `::` takes IPv4 too; `0.0.0.0` where the namespace has no IPv6. */
  readonly at: SocketAddress;
  readonly mark: number;
  /** Inherited by every accepted socket, at no cost per connection; null for none. */
  readonly keepalive: Keepalive | null;
  /** True: several sockets may listen on the port, one for each data thread. */
  readonly shared: boolean;
}

/** A listening descriptor (>= 0) the caller owns, or -errno. */
export function listenTcp(options: ListenOptions): number {
  const v6 = options.at.ip.includes(":");
  const address = encodeSockaddr(options.at);
  const make = (): number => {
    const fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    setIntOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (options.shared) setIntOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    setIntOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (v6) setIntOption(fd, SOL_IPV6, IPV6_V6ONLY, 0);
    if (options.keepalive !== null) setKeepalive(fd, options.keepalive);
    const marked = options.mark === 0 ? 0 : setIntOption(fd, SOL_SOCKET, SO_MARK, options.mark);
    const failed = marked < 0 ? marked : bindAndListen(fd, address);
    if (failed < 0) {
      close(fd);
      return failed;
    }
    return fd;
  };
  return options.namespaceFd === null ? make() : inNamespace(options.namespaceFd, make);
}

/** Listens on the IPv6 wildcard (IPv4 included), or on the IPv4 one where the kernel or the namespace has no IPv6. */
export function listenTcpAnyAddress(options: Omit<ListenOptions, "at"> & { readonly port: number }): number {
  const dual = listenTcp({ ...options, at: { ip: ANY_IPV6, port: options.port } });
  if (dual !== -EAFNOSUPPORT && dual !== -EADDRNOTAVAIL) return dual;
  return listenTcp({ ...options, at: { ip: ANY_IPV4, port: options.port } });
}

const ANY_IPV6 = "::" as IpAddress;
const ANY_IPV4 = "0.0.0.0" as IpAddress;

function bindAndListen(fd: number, address: Uint8Array): number {
  const bound = bind(fd, address);
  return bound < 0 ? bound : listen(fd, LISTEN_BACKLOG);
}
