// TCP connections as connection tracking has them (ctnetlink): listed, entered, forgotten. Knows no socket.
// Source: include/uapi/linux/netfilter/{nfnetlink_conntrack,nf_conntrack_common,nf_conntrack_tcp}.h.

import { ipFromBytes, ipToBytes, isIpv6, type SocketAddress } from "../../core/ip.ts";
import { ok, type Result } from "../../core/result.ts";
import type { TcpConnection } from "./connections.ts";
import { Attributes, type MalformedNetlink, malformedNetlink, type NetlinkMessage, type NetlinkWriter, NLM_F_CREATE, NLM_F_EXCL, type Stamp, viewOf } from "./message.ts";

const CTNETLINK_NEW = 1 << 8;
const CTNETLINK_GET = CTNETLINK_NEW | 1;
const CTNETLINK_DELETE = CTNETLINK_NEW | 2;
/** `struct nfgenmsg`: family, version, resource; all families when the first is 0. */
const HEADER_BYTES = 4;
const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_TCP = 6;

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_PROTOINFO = 4;
const CTA_TIMEOUT = 7;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_STATUS_MASK = 26;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_TUPLE_ZONE = 3;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
const CTA_PROTOINFO_TCP = 1;
const CTA_PROTOINFO_TCP_STATE = 1;
/** The source of its original direction is another one behind us. */
const STATUS_SOURCE_TRANSLATED = 0x10;
/** Seen in both directions, not to be dropped early, in the table. */
const STATUS_ESTABLISHED = 0x2 | 0x4 | 0x8;
const TCP_CONNTRACK_ESTABLISHED = 3;
const TCP_CONNTRACK_TIME_WAIT = 7;
const TCP_CONNTRACK_CLOSE = 8;
/** The sequence numbers are not known to us, so the window is not judged. */
const TCP_BE_LIBERAL = 0x08;
/** The kernel's own time for an established connection without traffic. */
const ESTABLISHED_TIMEOUT_S = 432_000;

/** One direction, as its packets look before any translation. */
export interface Flow {
  readonly from: SocketAddress;
  readonly to: SocketAddress;
}

/** Whoever opened it sees `original`; whoever accepted it sends `reply`. Where nothing is translated each is the other turned round. */
export interface TrackedConnection {
  readonly original: Flow;
  readonly reply: Flow;
  /** In which the original direction is looked for; 0 is the default one. */
  readonly originalZone: number;
  /** Nothing of it is to come any more: it is remembered for what may be late. */
  readonly ended: boolean;
  /** The kernel's name for it, so that no other of the same addresses is meant. */
  readonly id: number;
}

/** Of a zone; kernels before 6.9 list those of every other one, too. */
export function writeGetConnectionsOfZone(writer: NetlinkWriter, stamp: Stamp, zone: number): void {
  writer.begin(CTNETLINK_GET, stamp.flags, stamp.sequence).header(header(AF_UNSPEC)).be16(CTA_ZONE, zone).end();
}

/** Whose source is translated; kernels before 5.18 list the others, too. */
export function writeGetTranslatedConnections(writer: NetlinkWriter, stamp: Stamp): void {
  writer.begin(CTNETLINK_GET, stamp.flags, stamp.sequence).header(header(AF_UNSPEC)).be32(CTA_STATUS, STATUS_SOURCE_TRANSLATED).be32(CTA_STATUS_MASK, STATUS_SOURCE_TRANSLATED).end();
}

/** Null for a message that is no TCP connection. */
export function readTrackedConnection(message: NetlinkMessage): Result<TrackedConnection | null, MalformedNetlink> {
  if (message.type !== CTNETLINK_NEW) return ok(null);
  if (message.payload.length < HEADER_BYTES) return malformedNetlink(`tracked connection of ${message.payload.length} bytes`);
  const attributes = Attributes.read(message.payload.subarray(HEADER_BYTES));
  if (!attributes.ok) return attributes;
  const original = attributes.value.nested(CTA_TUPLE_ORIG);
  const reply = attributes.value.nested(CTA_TUPLE_REPLY);
  if (original?.nested(CTA_TUPLE_PROTO)?.u8(CTA_PROTO_NUM) !== IPPROTO_TCP || reply === null) return ok(null);
  const [there, back] = [readTuple(original), readTuple(reply)];
  if (there === null || back === null) return malformedNetlink("tracked TCP connection without its addresses");
  const state = attributes.value.nested(CTA_PROTOINFO)?.nested(CTA_PROTOINFO_TCP)?.u8(CTA_PROTOINFO_TCP_STATE) ?? null;
  const zone = original.bytes(CTA_TUPLE_ZONE);
  return ok({
    original: there, reply: back,
    originalZone: zone?.length === 2 ? viewOf(zone).getUint16(0, false) : 0,
    ended: state === TCP_CONNTRACK_TIME_WAIT || state === TCP_CONNTRACK_CLOSE,
    id: attributes.value.be32(CTA_ID) ?? 0,
  });
}

/** Forgets it. One that has gone already is refused (ENOENT). */
export function writeDeleteTrackedConnection(writer: NetlinkWriter, stamp: Stamp, { original, originalZone, id }: TrackedConnection): void {
  writer.begin(CTNETLINK_DELETE, stamp.flags, stamp.sequence).header(header(familyOf(original.from)));
  writeTuple(writer, CTA_TUPLE_ORIG, original, originalZone);
  writer.be32(CTA_ID, id);
  writer.end();
}

/** Creates the entry of an established connection without address translation; one that exists is refused (EEXIST). */
export function writeNewTrackedConnection(writer: NetlinkWriter, stamp: Stamp, { local, remote }: TcpConnection): void {
  writer.begin(CTNETLINK_NEW, stamp.flags | NLM_F_CREATE | NLM_F_EXCL, stamp.sequence).header(header(familyOf(local)));
  writeTuple(writer, CTA_TUPLE_ORIG, { from: local, to: remote });
  writeTuple(writer, CTA_TUPLE_REPLY, { from: remote, to: local });
  writer.be32(CTA_STATUS, STATUS_ESTABLISHED).be32(CTA_TIMEOUT, ESTABLISHED_TIMEOUT_S);
  const liberal = new Uint8Array([TCP_BE_LIBERAL, TCP_BE_LIBERAL]);
  writer.nest(CTA_PROTOINFO, () => writer.nest(CTA_PROTOINFO_TCP, () => writer.u8(CTA_PROTOINFO_TCP_STATE, TCP_CONNTRACK_ESTABLISHED).bytes(4, liberal).bytes(5, liberal)));
  writer.end();
}

const header = (family: number): Uint8Array => new Uint8Array([family, 0, 0, 0]);
const familyOf = ({ ip }: SocketAddress): number => (isIpv6(ip) ? AF_INET6 : AF_INET);

function readTuple(tuple: Attributes): Flow | null {
  const [ips, ports] = [tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO)];
  const from = readEnd(ips?.bytes(CTA_IP_V4_SRC) ?? ips?.bytes(CTA_IP_V6_SRC), ports?.bytes(CTA_PROTO_SRC_PORT));
  const to = readEnd(ips?.bytes(CTA_IP_V4_DST) ?? ips?.bytes(CTA_IP_V6_DST), ports?.bytes(CTA_PROTO_DST_PORT));
  return from === null || to === null ? null : { from, to };
}

function readEnd(ip: Uint8Array | null | undefined, port: Uint8Array | null | undefined): SocketAddress | null {
  if ((ip?.length !== 4 && ip?.length !== 16) || port?.length !== 2) return null;
  return { ip: ipFromBytes(ip), port: viewOf(port).getUint16(0, false) };
}

function writeTuple(writer: NetlinkWriter, attribute: number, { from, to }: Flow, zone = 0): void {
  const [source, destination] = isIpv6(from.ip) ? [CTA_IP_V6_SRC, CTA_IP_V6_DST] : [CTA_IP_V4_SRC, CTA_IP_V4_DST];
  writer.nest(attribute, () => {
    writer.nest(CTA_TUPLE_IP, () => writer.bytes(source, ipToBytes(from.ip)).bytes(destination, ipToBytes(to.ip)));
    writer.nest(CTA_TUPLE_PROTO, () => writer.u8(CTA_PROTO_NUM, IPPROTO_TCP).be16(CTA_PROTO_SRC_PORT, from.port).be16(CTA_PROTO_DST_PORT, to.port));
    if (zone !== 0) writer.be16(CTA_TUPLE_ZONE, zone);
  });
}
