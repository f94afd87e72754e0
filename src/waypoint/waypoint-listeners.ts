// The listening sockets of one waypoint: those from before this process, dealt out among its data threads, and new ones where there are
// none. None from before is left out: the connections in its queue would be lost with it.

import { createHash } from "node:crypto";
import { namespacedName } from "../core/brand.ts";
import { formatSocketAddress } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import { close, errnoName, getIntOption, SO_ACCEPTCONN, SOL_SOCKET } from "../net/libc.ts";
import { listenTcp, listenTcpAnyAddress } from "../net/listen.ts";
import { HBONE_PORT } from "../policy/ports.ts";
import { type InheritedSockets, type NamedSocket, socketName } from "../runtime/inherited-sockets.ts";
import type { ServedPort } from "../runtime/settings-table.ts";
import type { PlainListener } from "./messages.ts";

/** Whose sockets they are, and those that there are already. */
export interface SocketPlace {
  /** Before the dot in their names; see inherited-sockets.ts. */
  readonly owner: string;
  readonly inherited: InheritedSockets;
}

export interface ThreadListeners {
  /** For tunnels. */
  readonly hboneFds: readonly number[];
  readonly plain: readonly PlainListener[];
}

export interface WaypointListeners {
  readonly threads: readonly ThreadListeners[];
  /** All of them, for whoever comes after this process. */
  readonly sockets: readonly NamedSocket[];
}

const HBONE_ROLE = "waypoint-hbone";

export interface ListenWishes {
  readonly namespaceFd: number;
  readonly threads: number;
  /** False without certificates. */
  readonly tunnels: boolean;
  readonly served: readonly ServedPort[];
}

/** Whether a predecessor or the service manager has sockets for tunnels of that owner. */
export function hasListeners({ owner, inherited }: SocketPlace): boolean {
  return inherited.has(socketName(owner, HBONE_ROLE));
}

/** All or none; a failure says what could not be listened on. */
export function makeListeners({ namespaceFd, threads: count, tunnels, served }: ListenWishes, place: SocketPlace): Result<WaypointListeners, string> {
  // Shared even by a single thread: what comes after may have more of them.
  const common = { namespaceFd, mark: 0, keepalive: null, shared: true };
  const threads = Array.from({ length: count }, () => ({ hboneFds: [] as number[], plain: [] as PlainListener[] }));
  const sockets: NamedSocket[] = [];
  const fail = (what: string, errno: number): Result<never, string> => {
    for (const { fd } of sockets) close(fd);
    return err(`cannot listen on ${what}: ${errnoName(errno)}`);
  };
  /** @returns 0, or what the system said. */
  const open = (role: string, make: () => number, use: (thread: number, fd: number) => void): number => {
    const name = socketName(place.owner, role);
    const before = place.inherited.take(name).filter(isListening);
    for (const fd of before) sockets.push({ name, fd });
    before.forEach((fd, i) => use(i % count, fd));
    for (let thread = before.length; thread < count; thread++) {
      const fd = make();
      if (fd < 0) return fd;
      sockets.push({ name, fd });
      use(thread, fd);
    }
    return 0;
  };
  if (tunnels) {
    const errno = open(HBONE_ROLE, () => listenTcpAnyAddress({ ...common, port: HBONE_PORT }), (thread, fd) => threads[thread]!.hboneFds.push(fd));
    if (errno < 0) return fail(`port ${HBONE_PORT}`, errno);
  }
  for (const { at, namespace, hostname, port } of served) {
    const destination = { service: namespacedName(namespace, hostname), port };
    const errno = open(servedRole(formatSocketAddress(at)), () => listenTcp({ ...common, at }), (thread, fd) => threads[thread]!.plain.push({ fd, destination }));
    if (errno < 0) return fail(`${formatSocketAddress(at)} for ${namespace}/${hostname}:${port}`, errno);
  }
  return ok({ threads, sockets });
}

/** An address has colons, which a name may not have. */
function servedRole(address: string): string {
  return `serve-${createHash("sha256").update(address).digest("hex").slice(0, 16)}`;
}

function isListening(fd: number): boolean {
  if (getIntOption(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1) return true;
  close(fd);
  return false;
}
