// TCP connections as the kernel lists them (sock_diag), and connection-tracking entries as one may create them (ctnetlink).
// Together they tell connection tracking about connections that began before it watched. Knows no socket.
// Source: include/uapi/linux/{inet_diag,sock_diag}.h, include/uapi/linux/netfilter/nfnetlink_conntrack.h.

import { ipFromBytes, ipToBytes, isIpv6, type SocketAddress } from "../../core/ip.ts";
import { ok, type Result } from "../../core/result.ts";
import { Attributes, type MalformedNetlink, malformedNetlink, type NetlinkMessage, type NetlinkWriter, NLM_F_CREATE, NLM_F_EXCL, type Stamp, viewOf } from "./message.ts";

const SOCK_DIAG_BY_FAMILY = 20;
const DIAG_REQUEST_BYTES = 56;
const DIAG_REPLY_BYTES = 72;
const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_TCP = 6;
const INET_DIAG_MARK = 15;

/** Of a connection, by the kernel's number: `opening` is SYN_SENT, SYN_RECV and the latter's kind without a socket yet. */
const STATES = {
  1: "established", 2: "opening", 3: "opening", 4: "finWait1", 5: "finWait2", 8: "closeWait", 9: "lastAck", 11: "closing", 12: "opening",
} as const satisfies Record<number, string>;
export type TcpState = (typeof STATES)[keyof typeof STATES];
const STATE_OF: ReadonlyMap<number, TcpState> = new Map(Object.entries(STATES).map(([number, state]) => [Number(number), state]));
/** Every state but TIME_WAIT (6), CLOSE (7) and LISTEN (10): those with packets still to come. */
const LIVE_STATES = [...STATE_OF.keys()].reduce((mask, state) => mask | (1 << state), 0);

export interface TcpConnection {
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** One end of a connection, as the namespace has it. */
export interface TcpSocket extends TcpConnection {
  readonly state: TcpState;
  /** Whether a process has it. False after close(), and while nobody has accepted it. */
  readonly held: boolean;
  /** Sent or queued and not acknowledged, in bytes; our FIN counts as one. */
  readonly unackedBytes: number;
  /** SO_MARK; 0 when there is none, or when whoever asks may not see it. */
  readonly mark: number;
}

/** Asks for the live TCP sockets of a family; IPv4-mapped ones come with IPv6. */
export function writeGetTcpConnections(writer: NetlinkWriter, stamp: Stamp, family: 4 | 6): void {
  const request = new Uint8Array(DIAG_REQUEST_BYTES);
  request[0] = family === 6 ? AF_INET6 : AF_INET;
  request[1] = IPPROTO_TCP;
  viewOf(request).setUint32(4, LIVE_STATES, true);
  writer.begin(SOCK_DIAG_BY_FAMILY, stamp.flags, stamp.sequence).header(request).end();
}

/** Null for a message that is no connection. */
export function readTcpSocket(message: NetlinkMessage): Result<TcpSocket | null, MalformedNetlink> {
  if (message.type !== SOCK_DIAG_BY_FAMILY) return ok(null);
  const { payload } = message;
  if (payload.length < DIAG_REPLY_BYTES) return malformedNetlink(`socket of ${payload.length} bytes`);
  const family = payload[0]!;
  if (family !== AF_INET && family !== AF_INET6) return ok(null);
  const length = family === AF_INET6 ? 16 : 4;
  const view = viewOf(payload);
  const remotePort = view.getUint16(6, false);
  const state = STATE_OF.get(payload[1]!);
  if (remotePort === 0 || state === undefined) return ok(null);
  const attributes = Attributes.read(payload.subarray(DIAG_REPLY_BYTES));
  if (!attributes.ok) return attributes;
  return ok({
    local: { ip: ipFromBytes(payload.subarray(8, 8 + length)), port: view.getUint16(4, false) },
    remote: { ip: ipFromBytes(payload.subarray(24, 24 + length)), port: remotePort },
    state,
    held: view.getUint32(68, true) !== 0,
    unackedBytes: view.getUint32(60, true),
    mark: attributes.value.u32(INET_DIAG_MARK) ?? 0,
  });
}

const CTNETLINK_NEW = 1 << 8;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_PROTOINFO = 4;
const CTA_TIMEOUT = 7;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTOINFO_TCP = 1;
/** Seen in both directions, not to be dropped early, in the table. */
const STATUS_ESTABLISHED = 0x2 | 0x4 | 0x8;
const TCP_CONNTRACK_ESTABLISHED = 3;
/** The sequence numbers are not known to us, so the window is not judged. */
const TCP_BE_LIBERAL = 0x08;
/** The kernel's own time for an established connection without traffic. */
const ESTABLISHED_TIMEOUT_S = 432_000;

/** Creates the entry of an established connection without address translation; one that exists is refused (EEXIST). */
export function writeNewTrackedConnection(writer: NetlinkWriter, stamp: Stamp, { local, remote }: TcpConnection): void {
  const family = isIpv6(local.ip) ? AF_INET6 : AF_INET;
  writer.begin(CTNETLINK_NEW, stamp.flags | NLM_F_CREATE | NLM_F_EXCL, stamp.sequence).header(new Uint8Array([family, 0, 0, 0]));
  writeTuple(writer, CTA_TUPLE_ORIG, local, remote);
  writeTuple(writer, CTA_TUPLE_REPLY, remote, local);
  writer.be32(CTA_STATUS, STATUS_ESTABLISHED).be32(CTA_TIMEOUT, ESTABLISHED_TIMEOUT_S);
  const liberal = new Uint8Array([TCP_BE_LIBERAL, TCP_BE_LIBERAL]);
  writer.nest(CTA_PROTOINFO, () => writer.nest(CTA_PROTOINFO_TCP, () => writer.u8(1, TCP_CONNTRACK_ESTABLISHED).bytes(4, liberal).bytes(5, liberal)));
  writer.end();
}

function writeTuple(writer: NetlinkWriter, attribute: number, from: SocketAddress, to: SocketAddress): void {
  const [source, destination] = isIpv6(from.ip) ? [3, 4] : [1, 2];
  writer.nest(attribute, () => {
    writer.nest(CTA_TUPLE_IP, () => writer.bytes(source, ipToBytes(from.ip)).bytes(destination, ipToBytes(to.ip)));
    writer.nest(CTA_TUPLE_PROTO, () => writer.u8(1, IPPROTO_TCP).be16(2, from.port).be16(3, to.port));
  });
}
