// The process's own ports (administration, metrics, readiness, the CA's): inherited where a predecessor or the service manager has them,
// else opened. Not shared by SO_REUSEPORT: a port that somebody else serves is refused, so that a second start by mistake is noticed.

import { formatSocketAddress, type IpAddress, type SocketAddress } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import { close, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, errnoName, getIntOption, getsockname, SO_ACCEPTCONN, SOL_SOCKET } from "../net/libc.ts";
import { listenTcp } from "../net/listen.ts";
import { decodeSockaddr, SOCKADDR_BYTES_MAX } from "../net/socket-address.ts";
import { type InheritedSockets, type NamedSocket, PROCESS_OWNER, socketName } from "./inherited-sockets.ts";

const EVERYWHERE_IPV6 = "::";
const EVERYWHERE_IPV4 = "0.0.0.0" as IpAddress;

export interface ProcessListener {
  /** Whoever serves it closes it. */
  readonly fd: number;
  readonly port: number;
}

export class ProcessListeners {
  readonly #inherited: InheritedSockets;
  readonly #open = new Map<string, number>();

  constructor(inherited: InheritedSockets) {
    this.#inherited = inherited;
  }

  /** @param role `admin`, `metrics`, `readiness`, `ca`. @returns a listening descriptor, or what is wrong, in words for the operator. */
  listen(role: string, at: SocketAddress): Result<ProcessListener, string> {
    const name = socketName(PROCESS_OWNER, role);
    let found: ProcessListener | null = null;
    for (const fd of this.#inherited.take(name)) {
      const bound: SocketAddress | null = found === null ? boundAs(fd, at) : null;
      if (bound === null) close(fd);
      else found = { fd, port: bound.port };
    }
    const listener = found === null ? open(at) : ok(found);
    if (listener.ok) this.#open.set(name, listener.value.fd);
    return listener;
  }

  /** Everything open, to be handed over. */
  get sockets(): NamedSocket[] {
    return [...this.#open].map(([name, fd]) => ({ name, fd }));
  }
}

/** Null unless the descriptor is a listener at that address. */
function boundAs(fd: number, wanted: SocketAddress): SocketAddress | null {
  const bytes = new Uint8Array(SOCKADDR_BYTES_MAX);
  const length = getsockname(fd, bytes);
  const bound = length < 0 ? null : decodeSockaddr(bytes, length);
  if (bound === null || getIntOption(fd, SOL_SOCKET, SO_ACCEPTCONN) !== 1) return null;
  const sameIp = bound.ip === wanted.ip || (wanted.ip === EVERYWHERE_IPV6 && bound.ip === EVERYWHERE_IPV4);
  return sameIp && bound.port === wanted.port ? bound : null;
}

function open(at: SocketAddress): Result<ProcessListener, string> {
  const options = { namespaceFd: null, mark: 0, keepalive: null, shared: false };
  let fd = listenTcp({ ...options, at });
  // A machine without IPv6 has no [::]; what was meant is "everywhere".
  if (at.ip === EVERYWHERE_IPV6 && (fd === -EAFNOSUPPORT || fd === -EADDRNOTAVAIL)) fd = listenTcp({ ...options, at: { ip: EVERYWHERE_IPV4, port: at.port } });
  if (fd === -EADDRINUSE) {
    return err(`cannot listen on ${formatSocketAddress(at)}: the port is in use. If another weft has it: stop that one, or start this one with the same --state and --handover to take its place; two nodes on one machine need ports of their own`);
  }
  if (fd < 0) return err(`cannot listen on ${formatSocketAddress(at)}: ${errnoName(fd)}`);
  const bytes = new Uint8Array(SOCKADDR_BYTES_MAX);
  const bound = decodeSockaddr(bytes, getsockname(fd, bytes));
  return ok({ fd, port: bound?.port ?? at.port });
}
