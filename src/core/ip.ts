// IP addresses as canonical text: dotted quads, RFC 5952 for IPv6, IPv4-mapped IPv6 folded to IPv4.
// One form each, so that a Map keyed by address needs no further care. Knows no sockets.

import type { Brand } from "./brand.ts";

export type IpAddress = Brand<string, "IpAddress">;

export interface SocketAddress {
  readonly ip: IpAddress;
  /** 0..65535; 0 only where a listener lets the kernel choose. */
  readonly port: number;
  /** Index of the link that an IPv6 link-local address belongs to, where it is known. */
  readonly scope?: number;
}

/** Address and port before redirection: what the application asked for. */
export type OrigDst = Brand<SocketAddress, "OrigDst">;

export interface Cidr {
  readonly family: 4 | 6;
  /** Network bytes, host bits cleared; 4 or 16 of them. */
  readonly bytes: Uint8Array;
  readonly prefixLength: number;
}

/** Parses an IPv4 or IPv6 literal; null for anything else, zones (`%eth0`) and leading zeros included. */
export function parseIp(text: string): IpAddress | null {
  const bytes = parseIpBytes(text);
  return bytes === null ? null : ipFromBytes(bytes);
}

export function isIpv6(ip: IpAddress): boolean {
  return ip.includes(":");
}

/** The 4 or 16 network-order bytes of an address. */
export function ipToBytes(ip: IpAddress): Uint8Array {
  const bytes = parseIpBytes(ip);
  if (bytes === null) throw new Error(`not an IP address: ${ip}`);
  return bytes;
}

/** @param bytes 4 or 16 network-order bytes; borrowed. */
export function ipFromBytes(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return ipv4FromBytes(bytes, 0);
  if (bytes.length !== 16) throw new Error(`an IP address has 4 or 16 bytes, got ${bytes.length}`);
  return ipv6FromBytes(bytes, 0);
}

/** Reads four network-order bytes at `offset`. */
export function ipv4FromBytes(bytes: Uint8Array, offset: number): IpAddress {
  return `${bytes[offset]}.${bytes[offset + 1]}.${bytes[offset + 2]}.${bytes[offset + 3]}` as IpAddress;
}

/** Reads sixteen network-order bytes at `offset`; an IPv4-mapped address comes back as IPv4. */
export function ipv6FromBytes(bytes: Uint8Array, offset: number): IpAddress {
  if (isMapped(bytes, offset)) return ipv4FromBytes(bytes, offset + 12);
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((bytes[offset + i]! << 8) | bytes[offset + i + 1]!);
  const { start, length } = longestZeroRun(groups);
  if (length < 2) return groups.map((g) => g.toString(16)).join(":") as IpAddress;
  const head = groups.slice(0, start).map((g) => g.toString(16)).join(":");
  const tail = groups.slice(start + length).map((g) => g.toString(16)).join(":");
  return `${head}::${tail}` as IpAddress;
}

/** `1.2.3.4:80` or `[2001:db8::1]:80`. */
export function formatSocketAddress(address: SocketAddress): string {
  return isIpv6(address.ip) ? `[${address.ip}]:${address.port}` : `${address.ip}:${address.port}`;
}

/** The reverse of formatSocketAddress. Null for a name, a missing or out-of-range port, or an unbracketed IPv6 address. */
export function parseSocketAddress(text: string): SocketAddress | null {
  const colon = text.lastIndexOf(":");
  if (colon <= 0) return null;
  const port = parsePort(text.slice(colon + 1));
  if (port === null) return null;
  const host = text.slice(0, colon);
  const bracketed = host.startsWith("[") && host.endsWith("]");
  const ip = parseIp(bracketed ? host.slice(1, -1) : host);
  if (ip === null || bracketed !== host.includes(":")) return null;
  return { ip, port };
}

/** A decimal port 0..65535 without sign or leading zeros; null otherwise. */
export function parsePort(text: string): number | null {
  if (!/^(0|[1-9][0-9]{0,4})$/.test(text)) return null;
  const port = Number(text);
  return port <= 65535 ? port : null;
}

/** `198.18.0.0/15` or a bare address (a host route). Null when malformed or the prefix is out of range; host bits are cleared. */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf("/");
  const address = slash < 0 ? text : text.slice(0, slash);
  if (address.length > IP_CHARS_MAX) return null;
  const written = address.includes(":") ? parseIpv6Bytes(address) : parseIpv4Bytes(address);
  if (written === null) return null;
  const bits = written.length * 8;
  const prefixText = slash < 0 ? String(bits) : text.slice(slash + 1);
  if (!/^(0|[1-9][0-9]{0,2})$/.test(prefixText) || Number(prefixText) > bits) return null;
  // A prefix inside ::ffff:0:0/96 is an IPv4 one, 96 bits shorter; a wider one covers more than IPv4 and stays IPv6.
  const mapped = bits === 128 && Number(prefixText) >= 96 && isMapped(written, 0);
  const bytes = mapped ? written.slice(12) : written;
  const prefixLength = mapped ? Number(prefixText) - 96 : Number(prefixText);
  for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i]! & maskByte(prefixLength, i);
  return { family: bytes.length === 4 ? 4 : 6, bytes, prefixLength };
}

/** True when `ip` lies inside `cidr`; false for the other family. */
export function cidrContains(cidr: Cidr, ip: IpAddress): boolean {
  const bytes = ipToBytes(ip);
  if (bytes.length !== cidr.bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) {
    const mask = maskByte(cidr.prefixLength, i);
    if ((bytes[i]! & mask) !== cidr.bytes[i]!) return false;
    if (mask !== 0xff) return true;
  }
  return true;
}

export function formatCidr(cidr: Cidr): string {
  return `${ipFromBytes(cidr.bytes)}/${cidr.prefixLength}`;
}

/** Of IPv6 (fe80::/10): it says nothing without the link that it is on. */
export function isLinkLocalIpv6(ip: IpAddress): boolean {
  return /^fe[89ab].:/.test(ip);
}

export function isLoopback(ip: IpAddress): boolean {
  return ip === "::1" || ip.startsWith("127.");
}

function maskByte(prefixLength: number, index: number): number {
  const bits = Math.min(8, Math.max(0, prefixLength - index * 8));
  return (0xff << (8 - bits)) & 0xff;
}

function isMapped(bytes: Uint8Array, offset: number): boolean {
  for (let i = 0; i < 10; i++) if (bytes[offset + i] !== 0) return false;
  return bytes[offset + 10] === 0xff && bytes[offset + 11] === 0xff;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let i = 0; i < groups.length; i++) {
    let length = 0;
    while (groups[i + length] === 0) length++;
    if (length > best.length) best = { start: i, length };
    i += length;
  }
  return best;
}

/** The longest IPv6 literal: seven groups of four digits, colons, and nothing shortened but a dotted quad at the end. */
const IP_CHARS_MAX = 45;

/** A fresh array of 4 or 16 bytes, IPv4-mapped IPv6 folded to 4. */
function parseIpBytes(text: string): Uint8Array | null {
  if (text.length > IP_CHARS_MAX) return null;
  if (!text.includes(":")) return parseIpv4Bytes(text);
  const bytes = parseIpv6Bytes(text);
  return bytes !== null && isMapped(bytes, 0) ? bytes.slice(12) : bytes;
}

function parseIpv4Bytes(text: string): Uint8Array | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  const bytes = new Uint8Array(4);
  for (let i = 0; i < 4; i++) {
    const part = parts[i]!;
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return null;
    bytes[i] = Number(part);
  }
  return bytes;
}

function parseIpv6Bytes(text: string): Uint8Array | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const shortened = halves.length === 2;
  const head = parseGroups(halves[0]!, !shortened);
  const tail = shortened ? parseGroups(halves[1]!, true) : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (shortened ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const bytes = new Uint8Array(16);
  groups.forEach((group, i) => {
    bytes[2 * i] = group >> 8;
    bytes[2 * i + 1] = group & 0xff;
  });
  return bytes;
}

/** Colon-separated groups; empty text is no groups. With `mayEndInQuad` the last one may be a dotted quad, which is two groups. */
function parseGroups(text: string, mayEndInQuad: boolean): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  const parts = text.split(":");
  for (let i = 0; i < parts.length; i++) {
    const part = parts[i]!;
    if (part.includes(".")) {
      const quad = mayEndInQuad && i === parts.length - 1 ? parseIpv4Bytes(part) : null;
      if (quad === null) return null;
      groups.push((quad[0]! << 8) | quad[1]!, (quad[2]! << 8) | quad[3]!);
    } else {
      if (!/^[0-9A-Fa-f]{1,4}$/.test(part)) return null;
      groups.push(parseInt(part, 16));
    }
  }
  return groups;
}
