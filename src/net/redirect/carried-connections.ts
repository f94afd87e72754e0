// Connections of applications in a namespace that end with the proxy's rules. Those that it carries, told by the sockets that are there:
//   outbound  the proxy's end has the outbound port, the application's end is here too, with the address that ours sees as its peer;
//   inbound   the proxy's end has the port for plaintext, or is the marked one that was dialled to an application here.
// And those that connection tracking gave another port, whoever carries them: see translated-connections.ts.
// The tunnels themselves are none of them: they are never redirected, and one that carries something has a socket above beside it.

import type { SocketAddress } from "../../core/ip.ts";
import { ok, type Result, unreachable } from "../../core/result.ts";
import type { TcpConnection, TcpSocket } from "../../wire/netlink/connections.ts";
import type { TrackedConnection } from "../../wire/netlink/conntrack.ts";
import type { NetlinkFault } from "../netlink-socket.ts";
import { liveConnections } from "./existing-connections.ts";
import type { RedirectOptions } from "./options.ts";
import { DIAL_CONNTRACK_ZONE } from "./rules.ts";
import { translatedConnections } from "./translated-connections.ts";

/** What tells the proxy's sockets from those of applications. */
export type ProxySockets = Pick<RedirectOptions, "ports" | "packetMark">;

/** A FIN takes one byte of the sequence. */
const FIN_BYTES = 1;

/** How many connections would be cut if the rules went now. @param namespaceFd borrowed. */
export function countCarried(namespaceFd: number, proxy: ProxySockets): Result<number, NetlinkFault> {
  const live = liveConnections(namespaceFd);
  if (!live.ok) return live;
  const carried = carriedOf(live.value, proxy).length;
  if (carried > 0) return ok(carried);
  const translated = translatedConnections(namespaceFd);
  return translated.ok ? ok(translatedOf(live.value, translated.value, proxy).length) : translated;
}

/** The applications' ends of those that would be told apart no more. Pure. @param translated those whose source was given another port. */
export function translatedOf(sockets: readonly TcpSocket[], translated: readonly TrackedConnection[], { packetMark }: ProxySockets): TcpSocket[] {
  const byEnds = new Map(sockets.map((socket) => [`${text(socket.local)} ${text(socket.remote)}`, socket]));
  const at = (local: SocketAddress, remote: SocketAddress): TcpSocket | null => byEnds.get(`${text(local)} ${text(remote)}`) ?? null;
  return translated.flatMap(({ original, reply, originalZone }) => {
    const [opener, accepter] = [at(original.from, original.to), at(reply.from, reply.to)];
    // What we dialled carries nothing once either end is gone, as above.
    if (originalZone === DIAL_CONNTRACK_ZONE) return opener !== null && accepter !== null && carries(opener, [accepter]) ? [accepter] : [];
    return [opener, accepter].filter((end) => end !== null).filter((end) => !isOurs(end, packetMark) && inUse(end));
  });
}

/** The proxy's ends of them. Pure. @param sockets all of the namespace, but for those in TIME_WAIT. */
export function carriedOf(sockets: readonly TcpSocket[], { ports, packetMark }: ProxySockets): TcpSocket[] {
  const byLocal = Map.groupBy(sockets, ({ local }) => text(local));
  return sockets.filter((socket) => {
    if (socket.local.port === ports.inboundPlaintext) return inUse(socket);
    // An application whose port was translated is not found here: it is taken for gone when ours has half ended. `translatedOf` finds it.
    if (socket.local.port === ports.outbound) return carries(socket, byLocal.get(text(socket.remote)) ?? []);
    if (!isOurs(socket, packetMark)) return false;
    const application = (byLocal.get(text(socket.remote)) ?? []).filter((other) => mirrors(socket, other) && !isOurs(other, packetMark));
    return application.length > 0 && carries(socket, application);
  });
}

/** @param others what may be its other end, in the same namespace. */
function carries(socket: TcpSocket, others: readonly TcpSocket[]): boolean {
  return isWhole(socket) || (inUse(socket) && others.some(inUse));
}

const isOurs = ({ mark }: TcpSocket, ours: RedirectOptions["packetMark"]): boolean => (mark & ours.mask) === ours.value;

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
