// Unconnected sockets of one network namespace, made a few at a time: entering and leaving a namespace costs more than making a
// socket, so under load one visit makes several. A quiet namespace keeps none.

import { AF_INET, AF_INET6, close, IP_BIND_ADDRESS_NO_PORT, IP_TRANSPARENT, IPV6_TRANSPARENT, setIntOption, SO_MARK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket, SOL_IP, SOL_IPV6, SOL_SOCKET } from "./libc.ts";
import { inNamespace } from "./namespace.ts";

/** Sockets made by one visit at most: the cost of the visit is then a sixteenth, and what may lie unused is bounded. */
export const RESERVE_MAX = 16;
/** A reserve that was not asked for this long is closed; one that is asked again sooner doubles what it makes. */
export const RESERVE_IDLE_MS = 1_000;

/** What a socket is made for; the kinds are not exchangeable. */
export interface SocketKind {
  readonly v6: boolean;
  /** May be bound to an address that the namespace does not own (IP_TRANSPARENT). */
  readonly transparent: boolean;
}

/** A TCP socket of `kind` in the present namespace, marked, non-blocking and close-on-exec; or -errno. */
export function openTcpSocket({ v6, transparent }: SocketKind, mark: number): number {
  const fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fd;
  let failed = mark === 0 ? 0 : setIntOption(fd, SOL_SOCKET, SO_MARK, mark);
  if (failed >= 0 && transparent) {
    failed = v6 ? setIntOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1) : setIntOption(fd, SOL_IP, IP_TRANSPARENT, 1);
    // The port is chosen at connect, by the whole 4-tuple: without this the ephemeral range of one source runs out.
    if (failed >= 0) setIntOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  }
  if (failed >= 0) return fd;
  close(fd);
  return failed;
}

interface Shelf {
  readonly kind: SocketKind;
  readonly fds: number[];
  /** How many the next visit makes. */
  batch: number;
  askedMs: number;
}

export class SocketReserve {
  readonly #namespaceFd: number;
  readonly #mark: number;
  readonly #shelves: (Shelf | undefined)[] = [];

  /** @param namespaceFd stays the caller's, and open for as long as the reserve is used. @param mark SO_MARK of every socket, 0 for none. */
  constructor(namespaceFd: number, mark: number) {
    this.#namespaceFd = namespaceFd;
    this.#mark = mark;
  }

  /** A socket that the caller owns, or -errno. */
  take(kind: SocketKind, nowMs: number): number {
    const index = (kind.v6 ? 2 : 0) + (kind.transparent ? 1 : 0);
    const shelf = (this.#shelves[index] ??= { kind, fds: [], batch: 1, askedMs: Number.NEGATIVE_INFINITY });
    const kept = shelf.fds.pop();
    if (kept !== undefined) {
      shelf.askedMs = nowMs;
      return kept;
    }
    shelf.batch = nowMs - shelf.askedMs < RESERVE_IDLE_MS ? Math.min(RESERVE_MAX, shelf.batch * 2) : 1;
    shelf.askedMs = nowMs;
    return this.#make(shelf);
  }

  /** Closes what nobody asked for. Call it every second or so. */
  tick(nowMs: number): void {
    for (const shelf of this.#shelves) {
      if (shelf !== undefined && shelf.fds.length > 0 && nowMs - shelf.askedMs >= RESERVE_IDLE_MS) empty(shelf);
    }
  }

  /** Closes every socket. The reserve may still be used; it starts anew. */
  close(): void {
    for (const shelf of this.#shelves) if (shelf !== undefined) empty(shelf);
  }

  /** The first is for the one who asked; a failure of a further one only leaves the shelf shorter. */
  #make(shelf: Shelf): number {
    return inNamespace(this.#namespaceFd, () => {
      const first = openTcpSocket(shelf.kind, this.#mark);
      for (let i = 1; first >= 0 && i < shelf.batch; i++) {
        const fd = openTcpSocket(shelf.kind, this.#mark);
        if (fd < 0) break;
        shelf.fds.push(fd);
      }
      return first;
    });
  }
}

function empty(shelf: Shelf): void {
  for (const fd of shelf.fds.splice(0)) close(fd);
  shelf.batch = 1;
}
