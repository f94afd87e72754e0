// rtnetlink messages: links, addresses, routes, policy rules. Knows no socket.
// Source: include/uapi/linux/{rtnetlink,if_link,if_addr,fib_rules,veth}.h.

import { type Cidr, type IpAddress, ipFromBytes, ipToBytes, isIpv6 } from "../../core/ip.ts";
import { ok, type Result } from "../../core/result.ts";
import {
  Attributes, type MalformedNetlink, malformedNetlink, type NetlinkMessage, type NetlinkWriter, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, type Stamp, viewOf,
} from "./message.ts";

const RTM_NEWLINK = 16;
const RTM_DELLINK = 17;
const RTM_GETLINK = 18;
const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;

const AF_INET = 2;
const AF_INET6 = 10;

const LINK_HEADER_BYTES = 16;
const ADDRESS_HEADER_BYTES = 8;
const ROUTE_HEADER_BYTES = 12;
const RULE_HEADER_BYTES = 12;

const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINKINFO = 18;
const IFLA_NET_NS_FD = 28;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
/** No duplicate address detection: the address is usable at once. */
const IFA_F_NODAD = 0x02;

const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_TABLE = 15;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RT_SCOPE_HOST = 254;
const RTPROT_STATIC = 4;
const RTN_UNICAST = 1;
const RTN_LOCAL = 2;
const RT_TABLE_MAIN = 254;

const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;
const FR_ACT_TO_TBL = 1;

const IFF_UP = 1;

/** IFNAMSIZ without the NUL. */
export const LINK_NAME_CHARS_MAX = 15;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  /** Driver, such as `veth` or `bridge`; empty for hardware and loopback. */
  readonly kind: string;
  /** ARPHRD_*: 772 is loopback, 1 Ethernet. */
  readonly hardwareType: number;
  readonly mtu: number;
}

export const ARPHRD_LOOPBACK = 772;

function linkHeader(index: number, flags = 0, change = 0): Uint8Array {
  const bytes = new Uint8Array(LINK_HEADER_BYTES);
  const view = viewOf(bytes);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, change, true);
  return bytes;
}

export function writeGetLinks(writer: NetlinkWriter, stamp: Stamp): void {
  writer.begin(RTM_GETLINK, stamp.flags, stamp.sequence).header(linkHeader(0)).end();
}

/** Null for a message that is no link. */
export function readLink(message: NetlinkMessage): Result<Link | null, MalformedNetlink> {
  if (message.type !== RTM_NEWLINK) return ok(null);
  if (message.payload.length < LINK_HEADER_BYTES) return malformedNetlink(`link header of ${message.payload.length} bytes`);
  const view = viewOf(message.payload);
  const attributes = Attributes.read(message.payload.subarray(LINK_HEADER_BYTES));
  if (!attributes.ok) return attributes;
  const name = attributes.value.text(IFLA_IFNAME);
  if (name === null) return malformedNetlink("a link without a name");
  return ok({
    index: view.getInt32(4, true),
    name,
    up: (view.getUint32(8, true) & IFF_UP) !== 0,
    kind: attributes.value.nested(IFLA_LINKINFO)?.text(IFLA_INFO_KIND) ?? "",
    hardwareType: view.getUint16(2, true),
    mtu: attributes.value.u32(IFLA_MTU) ?? 0,
  });
}

export interface VethEnd {
  readonly name: string;
  /** Namespace the end lives in; null for the socket's own. */
  readonly namespaceFd: number | null;
}

export function writeNewVeth(writer: NetlinkWriter, stamp: Stamp, pair: { readonly near: VethEnd; readonly far: VethEnd; readonly mtu: number | null }): void {
  const end = ({ name, namespaceFd }: VethEnd): void => {
    writer.text(IFLA_IFNAME, checkedName(name));
    if (pair.mtu !== null) writer.u32(IFLA_MTU, pair.mtu);
    if (namespaceFd !== null) writer.u32(IFLA_NET_NS_FD, namespaceFd);
  };
  writer.begin(RTM_NEWLINK, stamp.flags | NLM_F_CREATE | NLM_F_EXCL, stamp.sequence).header(linkHeader(0));
  end(pair.near);
  writer.nest(IFLA_LINKINFO, () => {
    writer.text(IFLA_INFO_KIND, "veth");
    writer.nest(IFLA_INFO_DATA, () => {
      writer.nest(VETH_INFO_PEER, () => {
        writer.header(linkHeader(0));
        end(pair.far);
      });
    });
  });
  writer.end();
}

export function writeSetLink(writer: NetlinkWriter, stamp: Stamp, link: { readonly index: number; readonly up: boolean; readonly mtu?: number }): void {
  writer.begin(RTM_NEWLINK, stamp.flags, stamp.sequence).header(linkHeader(link.index, link.up ? IFF_UP : 0, IFF_UP));
  if (link.mtu !== undefined) writer.u32(IFLA_MTU, link.mtu);
  writer.end();
}

export function writeDeleteLink(writer: NetlinkWriter, stamp: Stamp, index: number): void {
  writer.begin(RTM_DELLINK, stamp.flags, stamp.sequence).header(linkHeader(index)).end();
}

export interface InterfaceAddress {
  readonly linkIndex: number;
  readonly ip: IpAddress;
  readonly prefixLength: number;
}

/** IPv6 without duplicate address detection. */
export function writeNewAddress(writer: NetlinkWriter, stamp: Stamp, address: InterfaceAddress): void {
  const ip = ipToBytes(address.ip);
  const header = new Uint8Array(ADDRESS_HEADER_BYTES);
  header[0] = familyOf(address.ip);
  header[1] = address.prefixLength;
  viewOf(header).setUint32(4, address.linkIndex, true);
  writer.begin(RTM_NEWADDR, stamp.flags | NLM_F_CREATE | NLM_F_EXCL, stamp.sequence).header(header).bytes(IFA_LOCAL, ip).bytes(IFA_ADDRESS, ip);
  if (isIpv6(address.ip)) writer.u32(IFA_FLAGS, IFA_F_NODAD);
  writer.end();
}

export function writeGetAddresses(writer: NetlinkWriter, stamp: Stamp): void {
  writer.begin(RTM_GETADDR, stamp.flags, stamp.sequence).header(new Uint8Array(ADDRESS_HEADER_BYTES)).end();
}

/** Null for a message that is no IP address. */
export function readAddress(message: NetlinkMessage): Result<InterfaceAddress | null, MalformedNetlink> {
  if (message.type !== RTM_NEWADDR) return ok(null);
  if (message.payload.length < ADDRESS_HEADER_BYTES) return malformedNetlink(`address header of ${message.payload.length} bytes`);
  const family = message.payload[0]!;
  if (family !== AF_INET && family !== AF_INET6) return ok(null);
  const attributes = Attributes.read(message.payload.subarray(ADDRESS_HEADER_BYTES));
  if (!attributes.ok) return attributes;
  const ip = attributes.value.bytes(IFA_LOCAL) ?? attributes.value.bytes(IFA_ADDRESS);
  if (ip === null || ip.length !== addressBytes(family)) return malformedNetlink(`an address of ${ip?.length ?? 0} bytes in family ${family}`);
  return ok({ linkIndex: viewOf(message.payload).getUint32(4, true), ip: ipFromBytes(ip), prefixLength: message.payload[1]! });
}

export interface Route {
  readonly family: 4 | 6;
  /** Null is the default route. */
  readonly to: Cidr | null;
  readonly via: IpAddress | null;
  readonly linkIndex: number;
  readonly table: number;
  /** `local`: delivered to this host whatever the address. */
  readonly type: "unicast" | "local";
}

export function writeNewRoute(writer: NetlinkWriter, stamp: Stamp, route: Route): void {
  writeRoute(writer, RTM_NEWROUTE, { ...stamp, flags: stamp.flags | NLM_F_CREATE | NLM_F_EXCL }, route);
}

export function writeReplaceRoute(writer: NetlinkWriter, stamp: Stamp, route: Route): void {
  writeRoute(writer, RTM_NEWROUTE, { ...stamp, flags: stamp.flags | NLM_F_CREATE | NLM_F_REPLACE }, route);
}

export function writeDeleteRoute(writer: NetlinkWriter, stamp: Stamp, route: Route): void {
  writeRoute(writer, RTM_DELROUTE, stamp, route);
}

function writeRoute(writer: NetlinkWriter, message: number, stamp: Stamp, route: Route): void {
  const header = new Uint8Array(ROUTE_HEADER_BYTES);
  header[0] = route.family === 6 ? AF_INET6 : AF_INET;
  header[1] = route.to?.prefixLength ?? 0;
  header[4] = route.table < 256 ? route.table : 0;
  header[5] = RTPROT_STATIC;
  header[6] = route.type === "local" ? RT_SCOPE_HOST : route.via === null ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  header[7] = route.type === "local" ? RTN_LOCAL : RTN_UNICAST;
  writer.begin(message, stamp.flags, stamp.sequence).header(header);
  if (route.to !== null) writer.bytes(RTA_DST, route.to.bytes);
  if (route.via !== null) writer.bytes(RTA_GATEWAY, ipToBytes(route.via));
  writer.u32(RTA_OIF, route.linkIndex).u32(RTA_TABLE, route.table).end();
}

export function writeGetRoutes(writer: NetlinkWriter, stamp: Stamp, family: 4 | 6): void {
  const header = new Uint8Array(ROUTE_HEADER_BYTES);
  header[0] = family === 6 ? AF_INET6 : AF_INET;
  writer.begin(RTM_GETROUTE, stamp.flags, stamp.sequence).header(header).end();
}

/** Null for a message that is no route, and for route types we never make (blackhole, multicast, several next hops). */
export function readRoute(message: NetlinkMessage): Result<Route | null, MalformedNetlink> {
  if (message.type !== RTM_NEWROUTE) return ok(null);
  const { payload } = message;
  if (payload.length < ROUTE_HEADER_BYTES) return malformedNetlink(`route header of ${payload.length} bytes`);
  const family = payload[0]!;
  const type = payload[7]!;
  if ((family !== AF_INET && family !== AF_INET6) || (type !== RTN_UNICAST && type !== RTN_LOCAL)) return ok(null);
  const attributes = Attributes.read(payload.subarray(ROUTE_HEADER_BYTES));
  if (!attributes.ok) return attributes;
  const linkIndex = attributes.value.u32(RTA_OIF);
  if (linkIndex === null) return ok(null);
  const bytes = attributes.value.bytes(RTA_DST);
  const gateway = attributes.value.bytes(RTA_GATEWAY);
  if (bytes !== null && bytes.length !== addressBytes(family)) return malformedNetlink(`a route destination of ${bytes.length} bytes in family ${family}`);
  if (gateway !== null && gateway.length !== addressBytes(family)) return malformedNetlink(`a gateway of ${gateway.length} bytes in family ${family}`);
  const version = family === AF_INET6 ? 6 : 4;
  return ok({
    family: version,
    to: bytes === null ? null : { family: version, bytes: bytes.slice(), prefixLength: payload[1]! },
    via: gateway === null ? null : ipFromBytes(gateway),
    linkIndex,
    table: attributes.value.u32(RTA_TABLE) ?? payload[4]!,
    type: type === RTN_LOCAL ? "local" : "unicast",
  });
}

/** `ip rule`: packets with this mark are routed by this table. */
export interface MarkRule {
  readonly family: 4 | 6;
  readonly priority: number;
  readonly mark: number;
  readonly mask: number;
  readonly table: number;
}

export function writeNewRule(writer: NetlinkWriter, stamp: Stamp, rule: MarkRule): void {
  writeRule(writer, RTM_NEWRULE, { ...stamp, flags: stamp.flags | NLM_F_CREATE | NLM_F_EXCL }, rule);
}

export function writeDeleteRule(writer: NetlinkWriter, stamp: Stamp, rule: MarkRule): void {
  writeRule(writer, RTM_DELRULE, stamp, rule);
}

function writeRule(writer: NetlinkWriter, message: number, stamp: Stamp, rule: MarkRule): void {
  const header = new Uint8Array(RULE_HEADER_BYTES);
  header[0] = rule.family === 6 ? AF_INET6 : AF_INET;
  header[4] = rule.table < 256 ? rule.table : 0;
  header[7] = FR_ACT_TO_TBL;
  writer.begin(message, stamp.flags, stamp.sequence).header(header);
  writer.u32(FRA_PRIORITY, rule.priority).u32(FRA_FWMARK, rule.mark).u32(FRA_FWMASK, rule.mask).u32(FRA_TABLE, rule.table).end();
}

export function writeGetRules(writer: NetlinkWriter, stamp: Stamp, family: 4 | 6): void {
  const header = new Uint8Array(RULE_HEADER_BYTES);
  header[0] = family === 6 ? AF_INET6 : AF_INET;
  writer.begin(RTM_GETRULE, stamp.flags, stamp.sequence).header(header).end();
}

/** Null for a message that is no rule, and for rules that do not look at the mark alone. */
export function readRule(message: NetlinkMessage): Result<MarkRule | null, MalformedNetlink> {
  if (message.type !== RTM_NEWRULE) return ok(null);
  const { payload } = message;
  if (payload.length < RULE_HEADER_BYTES) return malformedNetlink(`rule header of ${payload.length} bytes`);
  const family = payload[0]!;
  if ((family !== AF_INET && family !== AF_INET6) || payload[1] !== 0 || payload[2] !== 0 || payload[7] !== FR_ACT_TO_TBL) return ok(null);
  const attributes = Attributes.read(payload.subarray(RULE_HEADER_BYTES));
  if (!attributes.ok) return attributes;
  const mark = attributes.value.u32(FRA_FWMARK);
  if (mark === null) return ok(null);
  return ok({
    family: family === AF_INET6 ? 6 : 4,
    priority: attributes.value.u32(FRA_PRIORITY) ?? 0,
    mark,
    mask: attributes.value.u32(FRA_FWMASK) ?? 0xffffffff,
    table: attributes.value.u32(FRA_TABLE) ?? payload[4]!,
  });
}

export const MAIN_TABLE = RT_TABLE_MAIN;

function familyOf(ip: IpAddress): number {
  return isIpv6(ip) ? AF_INET6 : AF_INET;
}

function addressBytes(family: number): number {
  return family === AF_INET6 ? 16 : 4;
}

function checkedName(name: string): string {
  if (name.length === 0 || name.length > LINK_NAME_CHARS_MAX || !/^[A-Za-z0-9_.-]+$/.test(name)) {
    throw new Error(`not an interface name: ${JSON.stringify(name)} (1 to ${LINK_NAME_CHARS_MAX} of letters, digits, dot, dash, underscore)`);
  }
  return name;
}
