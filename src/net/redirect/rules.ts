// From what is to be captured to the nf_tables chains and rules that do it. Pure.
//
//   prerouting  raw -300      DNS answers to us into conntrack zone 1
//               mangle -150   our own packet on its way to the application: mark its connection
//               nat -100      inbound TCP to the inbound listener
//   output      raw -300      our connections to the application into conntrack zone 2, DNS questions of ours into zone 1
//               mangle -150   a reply on a marked connection: mark the packet, so that it is routed back to us
//               nat -100      DNS to the DNS listener, outbound TCP to the outbound listener
//
// The meaning is that of Istio's in-pod rules, so that either agent may serve a namespace that the other prepared, with three
// differences: the whole of 127.0.0.0/8 counts as loopback, DNS over TCP to an address of the workload's own is left alone as
// DNS over UDP is, and so is what a workload opens to an IPv6 link-local address: that means something on its own link alone.
// What comes to such an address is captured like everything else, or a neighbour would have a way around the policies.
// Within a chain the first rule that matches decides; each rule says in its comment what it is for.

import { type Cidr, formatCidr, type IpAddress, ipToBytes, isIpv6 } from "../../core/ip.ts";
import { type Comparison, type Expression, hexOf } from "../../wire/netlink/expression.ts";
import { type Chain, NFPROTO_IPV4, NFPROTO_IPV6, type Rule } from "../../wire/netlink/nf-tables.ts";
import { type Mark, type RedirectOptions, SSH_PORT } from "./options.ts";

export interface Ruleset {
  readonly chains: readonly Chain[];
  readonly rules: readonly Rule[];
}

/** A cgroup found on this host: `level` below the root of the cgroup v2 hierarchy, `id` its inode number. */
export interface CgroupMatch {
  readonly path: string;
  readonly level: number;
  readonly id: bigint;
}

export const TABLE_NAME = "weft";

const CHAINS = {
  rawPrerouting: { name: "raw-prerouting", type: "filter", hook: "prerouting", priority: -300 },
  rawOutput: { name: "raw-output", type: "filter", hook: "output", priority: -300 },
  manglePrerouting: { name: "mangle-prerouting", type: "filter", hook: "prerouting", priority: -150 },
  mangleOutput: { name: "mangle-output", type: "route", hook: "output", priority: -150 },
  natPrerouting: { name: "nat-prerouting", type: "nat", hook: "prerouting", priority: -100 },
  natOutput: { name: "nat-output", type: "nat", hook: "output", priority: -100 },
} as const satisfies Record<string, Chain>;

export const TCP = 6;
const UDP = 17;
const DNS_PORT = 53;
const FIB_TYPE_LOCAL = 2;
/** fe80::/10. */
const LINK_LOCAL: Cidr = { family: 6, bytes: new Uint8Array([0xfe, 0x80, ...new Array<number>(14).fill(0)]), prefixLength: 10 };
/** Keeps our DNS questions to the upstream apart from the application's questions to us, which may have equal ports. */
const DNS_CONNTRACK_ZONE = 1;
/**
 * We dial the application from the client's own address, from a port that the client may well use itself for the same destination,
 * now or later. In a zone of their own our connections cannot be taken for the client's: its SYN stays a new connection, and is
 * redirected. Only their own direction: the application's replies differ from the client's anyway, and are found in the default zone.
 */
export const DIAL_CONNTRACK_ZONE = 2;

export type CaptureMode =
  /** New connections are redirected. */
  | "capture"
  /** Connection tracking is on, nothing is redirected: the moment before capture. */
  | "prepare"
  /** New connections are left alone; those redirected before go on. */
  | "drain";

/** @param cgroups those of `options.exclusions.cgroups` that exist on this host. */
export function redirectRules(options: RedirectOptions, cgroups: readonly CgroupMatch[], mode: CaptureMode): Ruleset {
  const chains: Chain[] = [CHAINS.rawOutput, CHAINS.manglePrerouting, CHAINS.mangleOutput];
  const rules: Rule[] = markRules(options);
  if (options.dnsCapture) {
    chains.push(CHAINS.rawPrerouting);
    rules.push(...dnsZoneRules(options));
  }
  if (mode === "prepare") return { chains, rules };
  // A nat chain is there while draining too: without one the kernel stops translating the connections that are left.
  chains.push(CHAINS.natPrerouting, CHAINS.natOutput);
  if (mode === "drain") return { chains, rules };
  if (options.inboundCapture) rules.push(...inboundRules(options));
  rules.push(...outboundRules(options, cgroups));
  return { chains, rules };
}

function markRules(options: RedirectOptions): Rule[] {
  const { packetMark, connectionMark } = options;
  return [
    rule("rawOutput", "from us to the application: apart from the client's own connections", [
      ...protocol(TCP), { kind: "meta", key: "oifname" }, compare("eq", hexName("lo")), ...packetMarked(packetMark),
      { kind: "immediate", value: hex16Host(DIAL_CONNTRACK_ZONE) }, { kind: "setCtOriginalZone" },
    ]),
    // Its answer is for the link that the client's packets came by, and is found there: the local route is on another.
    rule("manglePrerouting", "from us to an address of the link: nothing to route back", [...packetMarked(packetMark), ...destinationIn(LINK_LOCAL), ACCEPT]),
    rule("manglePrerouting", "from us to the application: mark the connection", [
      ...packetMarked(packetMark), { kind: "ct", key: "mark" }, withBits(connectionMark), { kind: "setCt", key: "mark" },
    ]),
    // Our own packets of such a connection are routed rightly as they are: a mark that changes costs a second look at the routes, each time.
    rule("mangleOutput", "the application's reply: route it back to us", [
      ...packetNotMarked(packetMark), ...masked({ kind: "ct", key: "mark" }, "eq", connectionMark), { kind: "meta", key: "mark" }, withBits(connectionMark), { kind: "setMeta", key: "mark" },
    ]),
  ];
}

function dnsZoneRules({ packetMark }: RedirectOptions): Rule[] {
  const zone: Expression[] = [{ kind: "immediate", value: hex16Host(DNS_CONNTRACK_ZONE) }, { kind: "setCt", key: "zone" }];
  return [
    rule("rawOutput", "our question to the upstream resolver", [...protocol(UDP), ...port("destination", DNS_PORT), ...packetMarked(packetMark), ...zone]),
    rule("rawPrerouting", "the upstream resolver's answer", [...protocol(UDP), ...port("source", DNS_PORT), ...packetNotMarked(packetMark), ...zone]),
  ];
}

function inboundRules(options: RedirectOptions): Rule[] {
  const leave = (why: string, match: readonly Expression[]): Rule => rule("natPrerouting", why, [...match, COUNTER, ACCEPT]);
  const rules: Rule[] = [
    leave("our own packets", packetMarked(options.packetMark)),
    leave("not TCP", protocol(TCP, "neq")),
  ];
  if (options.scope === "host") rules.push(leave("not for this host", [{ kind: "fibDestinationType" }, compare("neq", hex32Host(FIB_TYPE_LOCAL))]));
  for (const probe of options.probes?.addresses ?? []) {
    for (const range of portRanges(options.probes?.ports ?? [])) rules.push(leave("health probe", [...protocol(TCP), ...address("source", probe), ...portRange(range)]));
  }
  rules.push(...loopbackDestinations().map((match) => leave("loopback", match)));
  rules.push(leave("HBONE arrives directly", port("destination", options.ports.inboundHbone)));
  if (options.scope === "host" && !options.captureSsh) rules.push(leave("SSH", port("destination", SSH_PORT)));
  for (const range of portRanges(options.exclusions.inboundPorts)) rules.push(leave("excluded inbound port", portRange(range)));
  const redirect = (match: readonly Expression[]): Rule =>
    rule("natPrerouting", "inbound", [...match, COUNTER, ...redirectTo(options.ports.inboundPlaintext)]);
  // Each says TCP again, so that no redirection depends on the rules before it.
  if (options.inboundPortsOnly === null) rules.push(redirect(protocol(TCP)));
  else rules.push(...portRanges(options.inboundPortsOnly).map((range) => redirect([...protocol(TCP), ...portRange(range)])));
  return rules;
}

function outboundRules(options: RedirectOptions, cgroups: readonly CgroupMatch[]): Rule[] {
  const leave = (why: string, match: readonly Expression[]): Rule => rule("natOutput", why, [...match, COUNTER, ACCEPT]);
  const { exclusions } = options;
  const rules: Rule[] = [
    leave("our own packets", packetMarked(options.packetMark)),
    leave("the workload to itself", [{ kind: "meta", key: "oifname" }, compare("eq", hexName("lo"))]),
  ];
  for (const uid of exclusions.uids) rules.push(leave("excluded user", uidRange(uid)));
  for (const cgroup of cgroups) rules.push(leave("excluded cgroup", [{ kind: "socketCgroup", level: cgroup.level }, compare("eq", hex64Host(cgroup.id))]));
  for (const cidr of exclusions.outboundCidrs) rules.push(leave(`excluded destination ${formatCidr(cidr)}`, destinationIn(cidr)));
  for (const range of portRanges(exclusions.outboundPorts)) {
    for (const number of [TCP, UDP]) rules.push(leave("excluded outbound port", [...protocol(number), ...portRange(range)]));
  }
  if (options.dnsCapture) {
    for (const number of [UDP, TCP]) {
      rules.push(rule("natOutput", "DNS", [...protocol(number), ...port("destination", DNS_PORT), COUNTER, ...redirectTo(options.ports.dns)]));
    }
  }
  rules.push(
    leave("not TCP", protocol(TCP, "neq")),
    leave("to the workload's own link", destinationIn(LINK_LOCAL)),
    leave("reply on a connection of ours", packetMarked(options.connectionMark)),
    rule("natOutput", "outbound", [...protocol(TCP), COUNTER, ...redirectTo(options.ports.outbound)]),
  );
  return rules;
}

export const COUNTER: Expression = { kind: "counter", packets: 0n, bytes: 0n };
export const ACCEPT: Expression = { kind: "verdict", verdict: "accept" };

function rule(chain: keyof typeof CHAINS, comment: string, expressions: readonly Expression[]): Rule {
  return { chain: CHAINS[chain].name, comment, expressions };
}

export function compare(comparison: Comparison, value: string): Expression {
  return { kind: "compare", comparison, value };
}

function masked(load: Expression, comparison: Comparison, mark: Mark): Expression[] {
  return [load, { kind: "bitwise", mask: hex32Host(mark.mask), xor: hex32Host(0) }, compare(comparison, hex32Host(mark.value))];
}

const packetMarked = (mark: Mark): Expression[] => masked({ kind: "meta", key: "mark" }, "eq", mark);
const packetNotMarked = (mark: Mark): Expression[] => masked({ kind: "meta", key: "mark" }, "neq", mark);

/** Puts the mark into the loaded value; bits outside its mask stay as others set them. */
function withBits(mark: Mark): Expression {
  return { kind: "bitwise", mask: hex32Host(~mark.mask), xor: hex32Host(mark.value) };
}

export function protocol(number: number, comparison: "eq" | "neq" = "eq"): Expression[] {
  return [{ kind: "meta", key: "l4proto" }, compare(comparison, hex8(number))];
}

/** Where TCP and UDP keep their ports. */
function loadPort(end: "source" | "destination"): Expression {
  return { kind: "payload", base: "transport", offset: end === "source" ? 0 : 2, length: 2 };
}

function port(end: "source" | "destination", number: number): Expression[] {
  return [loadPort(end), compare("eq", hex16(number))];
}

interface Range {
  readonly first: number;
  readonly last: number;
}

/** Of destination ports. */
export function portRange({ first, last }: Range): Expression[] {
  return first === last ? port("destination", first) : [loadPort("destination"), compare("gte", hex16(first)), compare("lte", hex16(last))];
}

/** Neighbours joined, so that a thousand consecutive ports are one rule. */
export function portRanges(ports: readonly number[]): Range[] {
  const ranges: { first: number; last: number }[] = [];
  for (const number of [...new Set(ports)].sort((a, b) => a - b)) {
    const range = ranges.at(-1);
    if (range !== undefined && range.last + 1 === number) range.last = number;
    else ranges.push({ first: number, last: number });
  }
  return ranges;
}

export function uidRange({ first, last }: Range): Expression[] {
  const load: Expression = { kind: "meta", key: "skuid" };
  if (first === last) return [load, compare("eq", hex32Host(first))];
  return [load, { kind: "toNetworkOrder" }, compare("gte", hex32(first)), compare("lte", hex32(last))];
}

/** Offset and length of the addresses in the two IP headers. */
function loadAddress(end: "source" | "destination", family: 4 | 6): Expression[] {
  const nfproto = family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  const offset = family === 4 ? (end === "source" ? 12 : 16) : end === "source" ? 8 : 24;
  return [{ kind: "meta", key: "nfproto" }, compare("eq", hex8(nfproto)), { kind: "payload", base: "network", offset, length: family === 4 ? 4 : 16 }];
}

export function address(end: "source" | "destination", ip: IpAddress): Expression[] {
  return [...loadAddress(end, isIpv6(ip) ? 6 : 4), compare("eq", hexOf(ipToBytes(ip)))];
}

function destinationIn({ family, bytes, prefixLength }: Cidr): Expression[] {
  const mask = bytes.map((_, i) => (0xff << (8 - Math.min(8, Math.max(0, prefixLength - 8 * i)))) & 0xff);
  return [...loadAddress("destination", family), { kind: "bitwise", mask: hexOf(mask), xor: hexOf(new Uint8Array(bytes.length)) }, compare("eq", hexOf(bytes))];
}

function loopbackDestinations(): Expression[][] {
  const ipv4: Cidr = { family: 4, bytes: new Uint8Array([127, 0, 0, 0]), prefixLength: 8 };
  return [destinationIn(ipv4), address("destination", "::1" as IpAddress)];
}

function redirectTo(listenPort: number): Expression[] {
  return [{ kind: "immediate", value: hex16(listenPort) }, { kind: "redirect" }];
}

const hex8 = (value: number): string => value.toString(16).padStart(2, "0");
const hex16 = (value: number): string => value.toString(16).padStart(4, "0");
const hex32 = (value: number): string => (value >>> 0).toString(16).padStart(8, "0");
/** The host's order is little-endian. */
const reversed = (hex: string): string => (hex.match(/../g) ?? []).reverse().join("");
const hex16Host = (value: number): string => reversed(hex16(value));
const hex32Host = (value: number): string => reversed(hex32(value));
const hex64Host = (value: bigint): string => reversed(value.toString(16).padStart(16, "0"));

/** An interface name as the kernel compares it: 16 bytes, padded with NUL. */
function hexName(name: string): string {
  const bytes = new Uint8Array(16);
  bytes.set(new TextEncoder().encode(name));
  return hexOf(bytes);
}
