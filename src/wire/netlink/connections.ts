// TCP connections as the kernel lists them (sock_diag). Knows no socket.
// Source: include/uapi/linux/{inet_diag,sock_diag}.h.

import { ipFromBytes, type SocketAddress } from "../../core/ip.ts";
import { ok, type Result } from "../../core/result.ts";
import { Attributes, type MalformedNetlink, malformedNetlink, type NetlinkMessage, type NetlinkWriter, type Stamp, viewOf } from "./message.ts";

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
