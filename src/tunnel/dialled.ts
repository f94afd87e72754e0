// A plain TCP connection being made: dials from a namespace and reports once, connected or failed.

import type { IpAddress, SocketAddress } from "../core/ip.ts";
import { formatSocketAddress, isIpv6, isLinkLocalIpv6 } from "../core/ip.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import { connectFrom, type Destination, kindFor } from "../net/dial.ts";
import type { SocketReserve } from "../net/socket-reserve.ts";
import { EACCES, EADDRNOTAVAIL, EMFILE, ENFILE, EPERM, errnoName } from "../net/libc.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { TunnelContext } from "./context.ts";
import { adoptSocket, closeFd, type PlainEnd, type PlainSocket, type SocketError } from "./endpoint-socket.ts";

export interface DialOwner {
  /** The socket is connected and belongs to the owner, who sets `socket.data` in the same turn. `firstBytes` came before that. */
  dialConnected(socket: PlainSocket): void;
  dialFailed(cause: CloseCause): void;
}

export class Dialled implements PlainEnd, Expiring {
  readonly #context: TunnelContext;
  readonly #owner: DialOwner;
  readonly #to: SocketAddress;
  #socket: PlainSocket | null = null;
  #deadline: DeadlineHandle | null = null;
  #settled = false;

  constructor(context: TunnelContext, owner: DialOwner, to: SocketAddress) {
    this.#context = context;
    this.#owner = owner;
    this.#to = to;
  }

  /** @param source address to appear from; null, or one equal to the destination, for the namespace's own. */
  start(sockets: SocketReserve, source: IpAddress | null): void {
    const { config, keepalive, deadlines, nowMs } = this.#context;
    const now = nowMs();
    // With a source to keep the destination is an application inside the namespace.
    const kept = source === null ? keepalive : null;
    const lost = source === null || config.preserveSource === "off" ? null : whyLost(source, this.#to.ip);
    if (lost !== null && config.preserveSource === "require") {
      this.#fail(causes.connectFailed(`TCP connect to ${formatSocketAddress(this.#to)} not tried: the client's address ${source} ${lost} and cannot be kept, as --preserve-source require demands`));
      return;
    }
    if (lost !== null) this.#context.reporter.sourceNotPreserved();
    const wanted = config.preserveSource === "off" || source === this.#to.ip || lost !== null ? null : source;
    let fd = this.#connecting(sockets, { to: this.#to, transparentSource: wanted, keepalive: kept }, now);
    if (fd < 0 && wanted !== null && config.preserveSource === "bestEffort" && (fd === -EPERM || fd === -EACCES || fd === -EADDRNOTAVAIL)) {
      this.#context.reporter.sourceNotPreserved();
      fd = this.#connecting(sockets, { to: this.#to, transparentSource: null, keepalive: kept }, now);
    }
    if (fd === -EMFILE || fd === -ENFILE || this.#context.admission.exhausted(fd)) {
      if (fd >= 0) closeFd(fd);
      this.#fail(causes.ourLimit(`TCP connect to ${formatSocketAddress(this.#to)} not tried: this process has nearly all the descriptors it may have (LimitNOFILE, ulimit -n)`));
      return;
    }
    if (fd < 0) {
      this.#fail(causes.connectFailed(`TCP connect to ${formatSocketAddress(this.#to)} failed: ${errnoName(fd)}`));
      return;
    }
    this.#deadline = deadlines.connect.add(this, now);
    adoptSocket(fd, this);
  }

  #connecting(sockets: SocketReserve, destination: Destination, nowMs: number): number {
    return connectFrom(sockets.take(kindFor(destination), nowMs), destination);
  }

  /** The owner no longer wants it. Nothing is reported any more. */
  cancel(): void {
    if (this.#settled) return;
    this.#settled = true;
    cancelDeadline(this.#deadline);
    this.#socket?.terminate();
  }

  onOpen(socket: PlainSocket): void {
    this.#socket = socket;
    if (this.#settled) socket.terminate();
  }

  onDrain(): void {
    if (this.#settled || this.#socket === null) return;
    this.#settled = true;
    cancelDeadline(this.#deadline);
    this.#owner.dialConnected(this.#socket);
  }

  onData(chunk: Uint8Array): void {
    // A server that speaks first may be read in the same turn in which the socket became connected.
    this.onDrain();
    if (this.#socket !== null && this.#socket.data !== this) this.#socket.data.onData(chunk);
  }

  onEnd(): void {}

  onClose(error: SocketError | null): void {
    this.#fail(causes.connectFailed(`TCP connect to ${formatSocketAddress(this.#to)} failed: ${error?.code ?? "closed"}`));
  }

  onDeadline(): void {
    this.#deadline = null;
    const cause = causes.connectTimeout(`TCP connect to ${formatSocketAddress(this.#to)}: no answer within ${this.#context.config.connectTimeoutMs} ms`);
    // The cause before its consequence: ending the socket tells us that it was closed.
    this.#fail(cause);
    this.#socket?.terminate();
  }

  #fail(cause: CloseCause): void {
    if (this.#settled) return;
    this.#settled = true;
    cancelDeadline(this.#deadline);
    this.#owner.dialFailed(cause);
  }
}

/**
 * Why no connection to `to` can come from `source`: an application of two families may be asked for by the one and come to by the other, and
 * the answer to a neighbour on the link would go out on the link. Null where it can.
 */
function whyLost(source: IpAddress, to: IpAddress): string | null {
  if (isIpv6(source) !== isIpv6(to)) return "is of the other family";
  return isIpv6(to) && (isLinkLocalIpv6(source) || isLinkLocalIpv6(to)) ? "is one of the link" : null;
}
