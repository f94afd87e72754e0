// Connections of which the kernel shows one end another source port than the other end has. We dial an application from its client's own
// address; when the client itself then comes from a port that was one of these, the replies to both would be the same to connection
// tracking, and it gives the newcomer another port. While capture is on a client's own connections end at our listeners, and nobody is
// hurt. Once it drains they are direct, and are cut when the rules go and the translation with them. So what has ended is forgotten, as
// it would keep its port for two minutes; and who is translated all the same is waited for.

import type { SocketAddress } from "../../core/ip.ts";
import { ok, type Result } from "../../core/result.ts";
import { readTrackedConnection, type TrackedConnection, writeDeleteTrackedConnection, writeGetConnectionsOfZone, writeGetTranslatedConnections } from "../../wire/netlink/conntrack.ts";
import { ENOENT } from "../libc.ts";
import { NETLINK_NETFILTER, type NetlinkFault, type NetlinkRequest, NetlinkSocket } from "../netlink-socket.ts";
import { DIAL_CONNTRACK_ZONE } from "./rules.ts";

/** At once: nothing else runs here meanwhile. */
const FORGOTTEN_MAX = 10_000;

/** Frees the ports of our connections to applications that have ended. @returns how many there were. @param namespaceFd borrowed. */
export function forgetEndedDials(namespaceFd: number): Result<number, NetlinkFault> {
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
  if (!opened.ok) return opened;
  using socket = opened.value;
  const ended = trackedConnections(socket, (writer, stamp) => writeGetConnectionsOfZone(writer, stamp, DIAL_CONNTRACK_ZONE), (connection) => connection.ended && connection.originalZone === DIAL_CONNTRACK_ZONE);
  if (!ended.ok) return ended;
  return socket.requestEach(ended.value.slice(0, FORGOTTEN_MAX).map((connection) => ({
    object: "the forgetting of a tracked connection", write: (writer, stamp) => writeDeleteTrackedConnection(writer, stamp, connection),
  })), [ENOENT]);
}

/** @param namespaceFd borrowed. */
export function translatedConnections(namespaceFd: number): Result<TrackedConnection[], NetlinkFault> {
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
  if (!opened.ok) return opened;
  using socket = opened.value;
  return trackedConnections(socket, writeGetTranslatedConnections, ({ ended, original, reply }) => !ended && text(original.from) !== text(reply.to));
}

function trackedConnections(socket: NetlinkSocket, write: NetlinkRequest["write"], wanted: (connection: TrackedConnection) => boolean): Result<TrackedConnection[], NetlinkFault> {
  return socket.dump({ object: "tracked connections", write }, (message) => {
    const read = readTrackedConnection(message);
    return !read.ok || read.value === null || wanted(read.value) ? read : ok(null);
  });
}

const text = ({ ip, port }: SocketAddress): string => `${ip} ${port}`;
