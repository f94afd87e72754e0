// PROXY protocol version 2: one binary header before the bytes of a connection. Sent to applications that ask for it
// (application tunnel PROXY), with the source identity in TLV 0xD0 as Istio does. HAProxy PROXY protocol, section 2.2. Pure.

import { type IpAddress, ipToBytes, ipv4FromBytes, ipv6FromBytes, isIpv6, type SocketAddress } from "../../core/ip.ts";
import { parseSpiffeId, type SpiffeId } from "../../core/spiffe.ts";
import { crc32c } from "./crc32c.ts";
import { malformed, need, type ProxyDecoding, type ProxyHeader } from "./header.ts";

/** Fixed part: signature, version and command, family and transport, length of the rest. */
const FIXED_BYTES = 16;
const SIGNATURE = new Uint8Array([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
const ADDRESSES_V4_BYTES = 12;
const ADDRESSES_V6_BYTES = 36;
const TLV_HEAD_BYTES = 3;
/** Addresses, a SPIFFE ID of the longest kind, and a TLS TLV or two. The format allows 65,551: that only serves abuse. */
export const PROXY_V2_BYTES_MAX = 4096;

const TCP4 = 0x11;
const TCP6 = 0x21;
const VERSION_2_LOCAL = 0x20;
const VERSION_2_PROXY = 0x21;

export const TLV_CRC32C = 0x03;
/** In the range the specification leaves to applications: the SPIFFE ID of the source, as ASCII. */
export const TLV_SOURCE_IDENTITY = 0xd0;

export interface ProxyV2Source {
  readonly source: SocketAddress;
  readonly destination: SocketAddress;
  /** Null when the source proved no identity: then the TLV is left out. */
  readonly sourceIdentity: SpiffeId | null;
}

/** A fresh header. TCP4 when both ends are IPv4, else TCP6 with an IPv4 end written IPv4-mapped. */
export function encodeProxyV2({ source, destination, sourceIdentity }: ProxyV2Source): Uint8Array<ArrayBuffer> {
  const v6 = isIpv6(source.ip) || isIpv6(destination.ip);
  const addressBytes = v6 ? ADDRESSES_V6_BYTES : ADDRESSES_V4_BYTES;
  const tlvBytes = sourceIdentity === null ? 0 : TLV_HEAD_BYTES + sourceIdentity.length;
  const bytes = new Uint8Array(FIXED_BYTES + addressBytes + tlvBytes);
  bytes.set(SIGNATURE, 0);
  bytes[12] = VERSION_2_PROXY;
  bytes[13] = v6 ? TCP6 : TCP4;
  writeU16(bytes, 14, addressBytes + tlvBytes);
  const ipBytes = v6 ? 16 : 4;
  writeIp(bytes, FIXED_BYTES, source.ip, ipBytes);
  writeIp(bytes, FIXED_BYTES + ipBytes, destination.ip, ipBytes);
  writeU16(bytes, FIXED_BYTES + 2 * ipBytes, source.port);
  writeU16(bytes, FIXED_BYTES + 2 * ipBytes + 2, destination.port);
  if (sourceIdentity !== null) {
    const at = FIXED_BYTES + addressBytes;
    bytes[at] = TLV_SOURCE_IDENTITY;
    writeU16(bytes, at + 1, sourceIdentity.length);
    for (let i = 0; i < sourceIdentity.length; i++) bytes[at + TLV_HEAD_BYTES + i] = sourceIdentity.charCodeAt(i);
  }
  return bytes;
}

/**
 * Splits one PROXY v2 header off the front of `bytes`. Pure; call it again with more bytes after `need`.
 * @param bytes all that came so far; borrowed, not kept.
 * @returns `need` (bytes still missing, > 0: never more than the header really has), or the header with `rest`, a view into
 *   `bytes`, or `malformed` (the peer's fault, the connection dies).
 * @see HAProxy PROXY protocol, section 2.2. Stricter: the length is capped at PROXY_V2_BYTES_MAX, a datagram or Unix-socket
 *   family is refused, and so is a TLV that overflows, an identity that is no SPIFFE ID or is given twice, and a wrong checksum.
 */
export function decodeProxyV2(bytes: Uint8Array): ProxyDecoding {
  const start = Math.min(bytes.length, SIGNATURE.length);
  for (let i = 0; i < start; i++) if (bytes[i] !== SIGNATURE[i]) return malformed("no PROXY v2 signature");
  if (bytes.length < FIXED_BYTES) return need(FIXED_BYTES - bytes.length);
  const version = bytes[12]!;
  const family = bytes[13]!;
  if (version !== VERSION_2_LOCAL && version !== VERSION_2_PROXY) return malformed(`version and command 0x${hex(version)}`);
  const total = FIXED_BYTES + readU16(bytes, 14);
  if (total > PROXY_V2_BYTES_MAX) return malformed(`header of ${total} bytes, at most ${PROXY_V2_BYTES_MAX} are read`);
  const addressBytes = version === VERSION_2_LOCAL ? 0 : addressBytesOf(family);
  if (addressBytes === null) return malformed(`address family and transport 0x${hex(family)}`);
  if (total - FIXED_BYTES < addressBytes) return malformed("too short for its addresses");
  if (bytes.length < total) return need(total - bytes.length);
  const rest = bytes.subarray(total);
  if (version === VERSION_2_LOCAL) return { kind: "header", header: { kind: "local" }, rest };
  const tlvs = readTlvs(bytes.subarray(0, total), FIXED_BYTES + addressBytes);
  if (typeof tlvs === "string") return malformed(tlvs);
  return { kind: "header", header: headerOf(bytes, family, tlvs.sourceIdentity), rest };
}

/** 0 for an unspecified family, which carries none that we read; null for one we refuse. */
function addressBytesOf(family: number): number | null {
  if (family === TCP4) return ADDRESSES_V4_BYTES;
  if (family === TCP6) return ADDRESSES_V6_BYTES;
  return family === 0x00 ? 0 : null;
}

function headerOf(bytes: Uint8Array, family: number, sourceIdentity: SpiffeId | null): ProxyHeader {
  if (family === 0x00) return { kind: "unknown" };
  const v6 = family === TCP6;
  const ipBytes = v6 ? 16 : 4;
  const ip = (at: number): IpAddress => (v6 ? ipv6FromBytes(bytes, at) : ipv4FromBytes(bytes, at));
  return {
    kind: "proxied",
    source: { ip: ip(FIXED_BYTES), port: readU16(bytes, FIXED_BYTES + 2 * ipBytes) },
    destination: { ip: ip(FIXED_BYTES + ipBytes), port: readU16(bytes, FIXED_BYTES + 2 * ipBytes + 2) },
    sourceIdentity,
  };
}

/** Walks the TLVs to the end of `header`; returns what is wrong with them as text. */
function readTlvs(header: Uint8Array, start: number): { sourceIdentity: SpiffeId | null } | string {
  // An unspecified family may carry anything: there is nothing whose start we would know.
  if (header[13] === 0x00) return { sourceIdentity: null };
  let sourceIdentity: SpiffeId | null = null;
  let at = start;
  while (at < header.length) {
    if (at + TLV_HEAD_BYTES > header.length) return "truncated TLV";
    const type = header[at]!;
    const valueStart = at + TLV_HEAD_BYTES;
    const valueEnd = valueStart + readU16(header, at + 1);
    if (valueEnd > header.length) return `TLV 0x${hex(type)} runs past the header`;
    if (type === TLV_SOURCE_IDENTITY) {
      if (sourceIdentity !== null) return "two source identities";
      sourceIdentity = parseSpiffeId(ascii(header, valueStart, valueEnd))?.id ?? null;
      if (sourceIdentity === null) return "source identity is not a SPIFFE ID";
    } else if (type === TLV_CRC32C && !checksumHolds(header, valueStart, valueEnd)) {
      return "checksum does not hold";
    }
    at = valueEnd;
  }
  return { sourceIdentity };
}

/** Section 2.2.3: over the whole header with the checksum's own four bytes as zeros. */
function checksumHolds(header: Uint8Array, valueStart: number, valueEnd: number): boolean {
  if (valueEnd - valueStart !== 4) return false;
  const stated = ((header[valueStart]! << 24) | (header[valueStart + 1]! << 16) | (header[valueStart + 2]! << 8) | header[valueStart + 3]!) >>> 0;
  return crc32c(header, { zeroFrom: valueStart, zeroTo: valueEnd }) === stated;
}

function writeIp(bytes: Uint8Array, at: number, ip: IpAddress, width: number): void {
  const raw = ipToBytes(ip);
  if (raw.length === 4 && width === 16) {
    bytes[at + 10] = bytes[at + 11] = 0xff;
    bytes.set(raw, at + 12);
  } else {
    bytes.set(raw, at);
  }
}

function writeU16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value & 0xff;
}

function readU16(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function ascii(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i]!);
  return text;
}

const hex = (byte: number): string => byte.toString(16).padStart(2, "0");
