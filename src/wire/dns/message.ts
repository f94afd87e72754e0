// A DNS message (RFC 1035, section 4) with EDNS (RFC 6891). RDATA is kept as bytes with every name in it uncompressed, so that a
// record means the same wherever it is copied to; unknown types stay as they came (RFC 3597).

import type { IpAddress } from "../../core/ip.ts";
import { ipToBytes, isIpv6 } from "../../core/ip.ts";
import { encodeName } from "./name.ts";
import { RecordClass, RecordType } from "./types.ts";

export interface Question {
  readonly name: string;
  readonly type: number;
  readonly class: number;
}

export interface ResourceRecord {
  readonly name: string;
  readonly type: number;
  readonly class: number;
  /** Seconds; values with the top bit set come back as 0 (RFC 2181, section 8). */
  readonly ttl: number;
  readonly rdata: Uint8Array;
}

export interface Edns {
  /** Largest UDP message its sender takes; below 512 means 512. */
  readonly udpBytes: number;
  readonly version: number;
  readonly dnssecOk: boolean;
  /** Upper eight bits of the response code. */
  readonly extendedRcode: number;
  /** Options as they stand in the RDATA. */
  readonly options: Uint8Array;
}

export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  readonly opcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly recursionDesired: boolean;
  readonly recursionAvailable: boolean;
  readonly authenticData: boolean;
  readonly checkingDisabled: boolean;
  /** The lower four bits; EDNS may hold more. */
  readonly rcode: number;
  readonly questions: readonly Question[];
  readonly answers: readonly ResourceRecord[];
  readonly authorities: readonly ResourceRecord[];
  /** Without the OPT record. */
  readonly additionals: readonly ResourceRecord[];
  readonly edns: Edns | null;
}

/** RFC 1035 section 2.3.4: what a client without EDNS takes over UDP. */
export const UDP_BYTES_MIN = 512;
/** The length prefix of TCP has 16 bits. */
export const MESSAGE_BYTES_MAX = 65_535;
export const HEADER_BYTES = 12;

/** Largest UDP answer that the sender of `edns` takes. */
export function udpBytesOf(edns: Edns | null): number {
  return edns === null ? UDP_BYTES_MIN : Math.max(UDP_BYTES_MIN, edns.udpBytes);
}

export function addressRecord(name: string, ip: IpAddress, ttl: number): ResourceRecord {
  return { name, type: isIpv6(ip) ? RecordType.AAAA : RecordType.A, class: RecordClass.IN, ttl, rdata: ipToBytes(ip) };
}

export function cnameRecord(name: string, target: string, ttl: number): ResourceRecord {
  return { name, type: RecordType.CNAME, class: RecordClass.IN, ttl, rdata: nameBytes(target) };
}

export interface ServiceTarget {
  readonly priority: number;
  readonly weight: number;
  readonly port: number;
  readonly target: string;
}

/** RFC 2782. */
export function srvRecord(name: string, { priority, weight, port, target }: ServiceTarget, ttl: number): ResourceRecord {
  const targetBytes = nameBytes(target);
  const rdata = new Uint8Array(6 + targetBytes.length);
  const view = new DataView(rdata.buffer);
  view.setUint16(0, priority);
  view.setUint16(2, weight);
  view.setUint16(4, port);
  rdata.set(targetBytes, 6);
  return { name, type: RecordType.SRV, class: RecordClass.IN, ttl, rdata };
}

/** Names that we make come from checked records; a bad one is our own fault. */
function nameBytes(name: string): Uint8Array {
  const bytes = encodeName(name);
  if (bytes === null) throw new Error(`not a domain name: ${name}`);
  return bytes;
}
