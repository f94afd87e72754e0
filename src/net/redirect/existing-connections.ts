// Connections that were there before capture began. Connection tracking has not seen them, so their next packet would look
// like a new connection and be redirected, which breaks them. They are entered as established: such are never redirected.
//
// The other way, to redirect nothing but SYN packets, would let a stranger in: a stray ACK makes an entry that is not
// redirected, and a SYN with the same ports then follows it past the inbound listener.

import { ok, type Result } from "../../core/result.ts";
import { readTcpSocket, type TcpSocket, writeGetTcpConnections } from "../../wire/netlink/connections.ts";
import { writeNewTrackedConnection } from "../../wire/netlink/conntrack.ts";
import { EEXIST } from "../libc.ts";
import { NETLINK_NETFILTER, NETLINK_SOCK_DIAG, type NetlinkFault, NetlinkSocket } from "../netlink-socket.ts";

export interface KeptConnections {
  readonly kept: number;
  /** Why some could not be entered; null when all were. Those break at their next packet. */
  readonly trouble: string | null;
}

/** Call it with connection tracking on and before the redirection: what begins after it is on is tracked from its SYN. */
export function trackExistingConnections(namespaceFd: number): KeptConnections {
  const connections = liveConnections(namespaceFd);
  if (!connections.ok) return { kept: 0, trouble: connections.error.message };
  if (connections.value.length === 0) return { kept: 0, trouble: null };
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_NETFILTER);
  if (!opened.ok) return { kept: 0, trouble: opened.error.message };
  using socket = opened.value;
  let kept = 0;
  for (const connection of connections.value) {
    const object = `the tracking of a connection from ${connection.local.ip}:${connection.local.port} to ${connection.remote.ip}:${connection.remote.port}`;
    const tracked = socket.request({ object, write: (writer, stamp) => writeNewTrackedConnection(writer, stamp, connection) });
    if (tracked.ok) kept += 1;
    // EEXIST: tracked already, from the other end of a loopback connection or because tracking was on before us.
    else if (tracked.error.errno !== EEXIST) return { kept, trouble: `${connections.value.length - kept} connections not entered: ${tracked.error.message}` };
  }
  return { kept, trouble: null };
}

/** Every TCP connection of the namespace that has packets still to come. */
export function liveConnections(namespaceFd: number): Result<TcpSocket[], NetlinkFault> {
  const opened = NetlinkSocket.open(namespaceFd, NETLINK_SOCK_DIAG);
  if (!opened.ok) return opened;
  using socket = opened.value;
  const found: TcpSocket[] = [];
  for (const family of [4, 6] as const) {
    const list = socket.dump({ object: `IPv${family} TCP connections`, write: (writer, stamp) => writeGetTcpConnections(writer, stamp, family) }, readTcpSocket);
    if (!list.ok) return list;
    for (const connection of list.value) found.push(connection);
  }
  return ok(found);
}
