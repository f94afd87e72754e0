// Connections of applications that a proxy carries in a namespace, and that end with its rules. Told by the sockets that are there:
//   outbound  the proxy's end has the outbound port, the application's end is here too, with the address that ours sees as its peer;
//   inbound   the proxy's end has the port for plaintext, or is the marked one that was dialled to an application here.
// The tunnels themselves are none of them: they are never redirected, and one that carries something has a socket above beside it.

import type { SocketAddress } from "../../core/ip.ts";
import { ok, type Result, unreachable } from "../../core/result.ts";
import type { TcpConnection, TcpSocket } from "../../wire/netlink/connections.ts";
import type { NetlinkFault } from "../netlink-socket.ts";
import { liveConnections } from "./existing-connections.ts";
import type { RedirectOptions } from "./options.ts";

/** What tells the proxy's sockets from those of applications. */
export type ProxySockets = Pick<RedirectOptions, "ports" | "packetMark">;

/** A FIN takes one byte of the sequence. */
const FIN_BYTES = 1;

/** How many connections would be cut if the rules went now. @param namespaceFd borrowed. */
export function countCarried(namespaceFd: number, proxy: ProxySockets): Result<number, NetlinkFault> {
  const live = liveConnections(namespaceFd);
  return live.ok ? ok(carriedOf(live.value, proxy).length) : live;
}

/** The proxy's ends of them. Pure. @param sockets all of the namespace, but for those in TIME_WAIT. */
export function carriedOf(sockets: readonly TcpSocket[], { ports, packetMark }: ProxySockets): TcpSocket[] {
  const byLocal = Map.groupBy(sockets, ({ local }) => text(local));
  return sockets.filter((socket) => {
    if (socket.local.port === ports.inboundPlaintext) return inUse(socket);
    // An application that shares its source port among destinations may be seen from another one here, as the kernel translates it to
    // keep them apart. It is taken for gone when ours has half ended: better than an hour's wait for each that is.
    if (socket.local.port === ports.outbound) return carries(socket, byLocal.get(text(socket.remote)) ?? []);
    if ((socket.mark & packetMark.mask) !== packetMark.value) return false;
    const application = (byLocal.get(text(socket.remote)) ?? []).filter((other) => mirrors(socket, other) && (other.mark & packetMark.mask) !== packetMark.value);
    return application.length > 0 && carries(socket, application);
  });
}

/** @param others what may be its other end, in the same namespace. */
function carries(socket: TcpSocket, others: readonly TcpSocket[]): boolean {
  return isWhole(socket) || (inUse(socket) && others.some(inUse));
}

/** Neither end has said that it ends. */
const isWhole = ({ state }: TcpSocket): boolean => state === "established" || state === "opening";

/** Whether somebody may still read from it or write to it, or has left bytes in it for the other end. */
function inUse({ state, held, unackedBytes }: TcpSocket): boolean {
  const delivers = unackedBytes > FIN_BYTES;
  switch (state) {
    case "opening":
    case "established":
    // Without a process it waits to be accepted: one that is closed is in LAST_ACK.
    case "closeWait":
      return true;
    case "finWait1":
      return held || delivers;
    case "finWait2":
      return held;
    case "closing":
    case "lastAck":
      return delivers;
    default:
      return unreachable(state);
  }
}

const mirrors = (a: TcpConnection, b: TcpConnection): boolean => text(a.local) === text(b.remote) && text(a.remote) === text(b.local);
const text = ({ ip, port }: SocketAddress): string => `${ip} ${port}`;
