// Workloads of the usual kind, of which there are ten thousand, from their bytes into the store's without a message and a record in between.
// What is in any way unusual (gateways and waypoints of their own, fields that are not known or come twice, text beyond ASCII, whatever is
// wrong) is left to `readWorkload`, which says what it is. What is taken here is packed byte for byte as that one's is: the tests compare.

import { ipFromBytes } from "../../core/ip.ts";
import { parseTrustDomain } from "../../core/spiffe.ts";
import { UID_CHARS_MAX } from "../../core/brand.ts";
import type { PackWriter } from "../../mesh/packed/bytes.ts";
import { WORKLOAD_TYPES as PACKED_TYPES } from "../../mesh/packed/record-codecs.ts";
import { AddressSchema, ExtensionSchema, LocalitySchema, PortListSchema, PortSchema, WorkloadSchema } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import type { ReceivedResource } from "../resource.ts";
import { WorkloadExtensionSchema } from "../../wire/protobuf/weft/mesh/v1/extensions_pb.ts";
import { typeUrl } from "./extension.ts";
import { DEFAULTS, WORKLOAD_TYPES } from "./workload.ts";

/** Addresses, services, ports, policies of one workload: with more it is not of the usual kind. */
const LIST_MAX = 32;
/** Field numbers of a workload are below. */
const NUMBERS = 32;
/** A number of more bytes is none that a usual workload has: it would be beyond 2^28. */
const VARINT_BYTES_MAX = 4;
const SEGMENT_MAX = 253;
const [VARINT, DELIMITED] = [0, 2] as const;
const SLASH = 0x2f;

const ADDRESS_OF_WORKLOAD = (AddressSchema.field.workload.number << 3) | DELIMITED;
const F = WorkloadSchema.field;
const [UID, NAME, NAMESPACE, NETWORK, DOMAIN, ACCOUNT, NODE, CANONICAL, REVISION, OWNER, CLUSTER, HOSTNAME] = [
  F.uid, F.name, F.namespace, F.network, F.trustDomain, F.serviceAccount, F.node, F.canonicalName, F.canonicalRevision, F.workloadName, F.clusterId, F.hostname,
].map(({ number }) => number) as [number, number, number, number, number, number, number, number, number, number, number, number];
const [PROTOCOL, TYPE, NATIVE, STATUS, NETWORK_MODE] = [F.tunnelProtocol, F.workloadType, F.nativeTunnel, F.status, F.networkMode].map(({ number }) => number) as [number, number, number, number, number];
const [ADDRESSES, POLICIES, SERVICES, LOCALITY, CAPACITY, EXTENSIONS] = [F.addresses, F.authorizationPolicies, F.services, F.locality, F.capacity, F.extensions].map(({ number }) => number) as [number, number, number, number, number, number];

const TEXTS = new Set([UID, NAME, NAMESPACE, NETWORK, DOMAIN, ACCOUNT, NODE, CANONICAL, REVISION, OWNER, CLUSTER, HOSTNAME]);
const COUNTS = new Set([PROTOCOL, TYPE, NATIVE, STATUS, NETWORK_MODE]);
/** By field number: what is done with it. */
const [UNUSUAL, TEXT, COUNT, LIST, MESSAGE] = [0, 1, 2, 3, 4] as const;
const KINDS = Uint8Array.from({ length: NUMBERS }, (_, n) => (TEXTS.has(n) ? TEXT : COUNTS.has(n) ? COUNT : n === ADDRESSES || n === POLICIES || n === SERVICES ? LIST : n === LOCALITY || n === CAPACITY || n === EXTENSIONS ? MESSAGE : UNUSUAL));

/** An extension's fields, an Any's, and those of our own extension that a usual workload has. */
const [EXTENSION_NAME, EXTENSION_CONFIG] = [ExtensionSchema.field.name.number, ExtensionSchema.field.config.number];
/** google.protobuf.Any: type_url, value. */
const [ANY_TYPE, ANY_VALUE] = [1, 2] as const;
const [APP, VERSION] = [WorkloadExtensionSchema.field.app.number, WorkloadExtensionSchema.field.version.number];
const OWN_EXTENSION = new TextEncoder().encode(typeUrl(WorkloadExtensionSchema));

/** What a SPIFFE ID's segment is made of: as Reading's. */
const IN_SEGMENT = Uint8Array.from({ length: 128 }, (_, code) => Number(/[A-Za-z0-9._-]/.test(String.fromCharCode(code))));

/** Several of a kind: where each begins and ends. */
class Places {
  readonly from = new Int32Array(LIST_MAX);
  readonly to = new Int32Array(LIST_MAX);
  count = 0;

  add(from: number, to: number): boolean {
    if (this.count === LIST_MAX) return false;
    this.from[this.count] = from;
    this.to[this.count++] = to;
    return true;
  }
}

class PlainWorkload {
  #bytes: Uint8Array = new Uint8Array(0);
  #at = 0;
  /** By field number: of text its place, of a number itself. Nothing is there twice, so that 0 is what is not there. */
  readonly #from = new Int32Array(NUMBERS);
  readonly #to = new Int32Array(NUMBERS);
  #seen = 0;
  #capacity = 1;
  readonly #addresses = new Places();
  readonly #policies = new Places();
  readonly #services = new Places();
  /** Of all services, one after the other; and where those of each end. */
  readonly #servicePorts = new Int32Array(LIST_MAX);
  readonly #targetPorts = new Int32Array(LIST_MAX);
  readonly #portsEnd = new Int32Array(LIST_MAX);
  #portCount = 0;
  #partEnd = 0;
  /** App and version, where they are not the canonical name and revision. */
  readonly #own = { from: new Int32Array(3), to: new Int32Array(3), seen: 0 };
  readonly #locality = { from: new Int32Array(4), to: new Int32Array(4) };

  /** @returns false, and nothing is written, where it is not of the usual kind. */
  pack({ name, version, value }: ReceivedResource, to: PackWriter): boolean {
    this.#begin(value);
    if (!this.#scan(name)) return false;
    this.#write(version, to);
    return true;
  }

  #begin(bytes: Uint8Array): void {
    this.#bytes = bytes;
    this.#at = this.#seen = this.#portCount = this.#addresses.count = this.#policies.count = this.#services.count = 0;
    this.#capacity = 1;
    this.#own.seen = 0;
    this.#from.fill(0);
    this.#to.fill(0);
    this.#locality.from.fill(0);
    this.#locality.to.fill(0);
  }

  // ---- looking

  #scan(name: string): boolean {
    if (this.#varint() !== ADDRESS_OF_WORKLOAD || this.#delimited() !== this.#bytes.length) return false;
    while (this.#at < this.#bytes.length) if (!this.#field()) return false;
    return this.#isSound(name);
  }

  #field(): boolean {
    const tag = this.#varint();
    const number = tag >>> 3;
    const kind = tag < 0 || number >= NUMBERS ? UNUSUAL : KINDS[number]!;
    if (kind === UNUSUAL || (tag & 7) !== (kind === COUNT ? VARINT : DELIMITED)) return false;
    if (kind === LIST) return this.#listed(number);
    if ((this.#seen & (1 << number)) !== 0) return false;
    this.#seen |= 1 << number;
    if (kind === COUNT) {
      const value = this.#varint();
      this.#from[number] = value;
      return value >= 0;
    }
    const end = this.#delimited();
    if (end < 0) return false;
    if (kind === MESSAGE) return number === LOCALITY ? this.#readLocality(end) : number === CAPACITY ? this.#readCapacity(end) : this.#readExtension(end);
    return this.#text(end, this.#from, this.#to, number);
  }

  #listed(number: number): boolean {
    const end = this.#delimited();
    if (end < 0) return false;
    if (number === SERVICES) return this.#readService(end);
    const start = this.#at;
    this.#at = end;
    if (number === POLICIES) return this.#isNamespacedName(start, end) && this.#policies.add(start, end);
    return (end - start === 4 || end - start === 16) && this.#addresses.add(start, end);
  }

  /** An entry of the map: its name, and then its ports. */
  #readService(end: number): boolean {
    if (this.#varint() !== ((1 << 3) | DELIMITED)) return false;
    const nameEnd = this.#delimited();
    if (nameEnd < 0 || nameEnd > end || !this.#isNamespacedName(this.#at, nameEnd) || this.#isKnownService(this.#at, nameEnd)) return false;
    const start = this.#at;
    this.#at = nameEnd;
    if (this.#at < end) {
      if (this.#varint() !== ((2 << 3) | DELIMITED) || this.#delimited() !== end) return false;
      while (this.#at < end) if (!this.#readPort(end)) return false;
    }
    this.#portsEnd[this.#services.count] = this.#portCount;
    return this.#at === end && this.#services.add(start, nameEnd);
  }

  #readPort(end: number): boolean {
    if (this.#portCount === LIST_MAX || this.#varint() !== ((PortListSchema.field.ports.number << 3) | DELIMITED)) return false;
    const portEnd = this.#delimited();
    if (portEnd < 0 || portEnd > end) return false;
    let [servicePort, targetPort] = [0, 0];
    while (this.#at < portEnd) {
      const tag = this.#varint();
      const value = this.#varint();
      if (value < 0) return false;
      if (tag === ((PortSchema.field.servicePort.number << 3) | VARINT)) servicePort = value;
      else if (tag === ((PortSchema.field.targetPort.number << 3) | VARINT)) targetPort = value;
      else if (tag !== ((PortSchema.field.appProtocol.number << 3) | VARINT)) return false;
    }
    this.#servicePorts[this.#portCount] = servicePort;
    this.#targetPorts[this.#portCount++] = targetPort;
    return this.#at === portEnd && servicePort >= 1 && servicePort <= 65_535 && targetPort <= 65_535;
  }

  #readLocality(end: number): boolean {
    const { from, to } = this.#locality;
    while (this.#at < end) {
      const tag = this.#varint();
      const number = tag >>> 3;
      if (tag < 0 || (tag & 7) !== DELIMITED || number < 1 || number > 3 || to[number] !== 0) return false;
      const textEnd = this.#delimited();
      if (textEnd < 0 || textEnd > end || !this.#text(textEnd, from, to, number)) return false;
    }
    return this.#at === end;
  }

  /** A message with one number, which is 0 where it is not there. */
  #readCapacity(end: number): boolean {
    this.#capacity = 0;
    if (this.#at === end) return true;
    if (this.#varint() !== ((1 << 3) | VARINT)) return false;
    this.#capacity = this.#varint();
    return this.#capacity >= 0 && this.#at === end;
  }

  /** Our own, and what it says of app and version alone. */
  #readExtension(end: number): boolean {
    if (this.#part(EXTENSION_NAME, end) < 0 || !this.#isAscii(this.#partEnd)) return false;
    this.#at = this.#partEnd;
    if (this.#part(EXTENSION_CONFIG, end) !== end) return false;
    if (this.#part(ANY_TYPE, end) < 0 || !this.#isOwnExtension()) return false;
    this.#at = this.#partEnd;
    if (this.#part(ANY_VALUE, end) !== end) return false;
    const { from, to } = this.#own;
    while (this.#at < end) {
      const number = this.#bytes[this.#at]! >>> 3;
      if ((number !== APP && number !== VERSION) || (this.#own.seen & (1 << number)) !== 0 || this.#part(number, end) < 0 || !this.#text(this.#partEnd, from, to, number)) return false;
      this.#own.seen |= 1 << number;
    }
    return true;
  }

  /** Comes to the content of this field, if it is what comes. @returns where it ends; -1 where that is beyond `end`, or it is another. */
  #part(number: number, end: number): number {
    if (this.#varint() !== ((number << 3) | DELIMITED)) return -1;
    const partEnd = this.#delimited();
    this.#partEnd = partEnd;
    return partEnd > end ? -1 : partEnd;
  }

  #isOwnExtension(): boolean {
    const start = this.#at;
    if (this.#partEnd - start !== OWN_EXTENSION.length) return false;
    for (let i = 0; i < OWN_EXTENSION.length; i++) if (this.#bytes[start + i] !== OWN_EXTENSION[i]) return false;
    return true;
  }

  #isSound(name: string): boolean {
    const [from, to] = [this.#from, this.#to];
    if (!this.#isUid(name) || to[NAME]! === from[NAME]! || !this.#isSegment(NAMESPACE) || (to[ACCOUNT]! > from[ACCOUNT]! && !this.#isSegment(ACCOUNT))) return false;
    if (to[DOMAIN]! > from[DOMAIN]! && parseTrustDomain(this.#latin1(from[DOMAIN]!, to[DOMAIN]!)) === null) return false;
    return from[PROTOCOL]! <= 1 && from[STATUS]! <= 1 && from[NETWORK_MODE]! <= 1 && from[TYPE]! < WORKLOAD_TYPES.length;
  }

  /** Its content calls itself as the resource is called. */
  #isUid(name: string): boolean {
    const [start, end] = [this.#from[UID]!, this.#to[UID]!];
    if (end - start !== name.length || name.length === 0 || name.length > UID_CHARS_MAX) return false;
    for (let i = 0; i < name.length; i++) {
      const byte = this.#bytes[start + i]!;
      if (byte !== name.charCodeAt(i) || byte < 0x21 || byte > 0x7e) return false;
    }
    return true;
  }

  #isSegment(number: number): boolean {
    const [start, end] = [this.#from[number]!, this.#to[number]!];
    if (end === start || end - start > SEGMENT_MAX) return false;
    let onlyDots = true;
    for (let i = start; i < end; i++) {
      const byte = this.#bytes[i]!;
      if (IN_SEGMENT[byte] !== 1) return false;
      onlyDots &&= byte === 0x2e;
    }
    return !onlyDots;
  }

  #isNamespacedName(start: number, end: number): boolean {
    let slash = -1;
    for (let i = start; i < end; i++) {
      const byte = this.#bytes[i]!;
      if (byte > 0x7f || (byte === SLASH && slash >= 0)) return false;
      if (byte === SLASH) slash = i;
    }
    return slash > start && slash < end - 1;
  }

  #isKnownService(start: number, end: number): boolean {
    const { from, to, count } = this.#services;
    for (let n = 0; n < count; n++) {
      if (to[n]! - from[n]! !== end - start) continue;
      let same = 0;
      while (same < end - start && this.#bytes[from[n]! + same] === this.#bytes[start + same]) same++;
      if (same === end - start) return true;
    }
    return false;
  }

  #text(end: number, from: Int32Array, to: Int32Array, index: number): boolean {
    from[index] = this.#at;
    to[index] = end;
    if (!this.#isAscii(end)) return false;
    this.#at = end;
    return true;
  }

  #isAscii(end: number): boolean {
    for (let i = this.#at; i < end; i++) if (this.#bytes[i]! > 0x7f) return false;
    return true;
  }

  /** -1 where it is cut off, or larger than any of a usual workload. */
  #varint(): number {
    let value = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.#bytes[this.#at++];
      if (byte === undefined) return -1;
      value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return value;
    }
    return -1;
  }

  /** Where what comes now ends; -1 where that is beyond what is there. */
  #delimited(): number {
    const length = this.#varint();
    return length < 0 || length > this.#bytes.length - this.#at ? -1 : this.#at + length;
  }

  #latin1(start: number, end: number): string {
    return String.fromCharCode(...this.#bytes.subarray(start, end));
  }

  // ---- writing, in the order of `workloadShape`

  #write(version: string, to: PackWriter): void {
    const from = this.#from;
    this.#put(to, UID);
    this.#put(to, NETWORK);
    to.uint(this.#addresses.count);
    for (let n = 0; n < this.#addresses.count; n++) to.text(ipFromBytes(this.#bytes.subarray(this.#addresses.from[n], this.#addresses.to[n])));
    to.uint(from[NETWORK_MODE]!);
    this.#writeServices(to);
    this.#put(to, NAME);
    this.#put(to, NAMESPACE);
    this.#put(to, CLUSTER, DEFAULTS.clusterId);
    this.#put(to, DOMAIN, DEFAULTS.trustDomain);
    this.#put(to, ACCOUNT, DEFAULTS.serviceAccount);
    this.#put(to, NODE);
    this.#put(to, HOSTNAME);
    to.uint(from[PROTOCOL]!);
    to.uint(from[NATIVE]! === 0 ? 0 : 1);
    this.#put(to, CANONICAL);
    this.#put(to, REVISION);
    to.uint(PACKED_TYPES.indexOf(WORKLOAD_TYPES[from[TYPE]!]!));
    this.#put(to, OWNER);
    this.#putOwn(to, APP, CANONICAL);
    this.#putOwn(to, VERSION, REVISION);
    for (const part of [LocalitySchema.field.region, LocalitySchema.field.zone, LocalitySchema.field.subzone]) to.ascii(this.#bytes, this.#locality.from[part.number]!, this.#locality.to[part.number]!);
    to.uint(from[STATUS]!);
    to.uint(this.#capacity);
    to.uint(this.#policies.count);
    for (let n = 0; n < this.#policies.count; n++) to.ascii(this.#bytes, this.#policies.from[n]!, this.#policies.to[n]!);
    // No waypoint, no gateway, no tunnel of the application's.
    to.uint(0);
    to.uint(0);
    to.uint(0);
    this.#writeProvenance(version, to);
  }

  #writeServices(to: PackWriter): void {
    to.uint(this.#services.count);
    for (let n = 0, port = 0; n < this.#services.count; n++) {
      to.ascii(this.#bytes, this.#services.from[n]!, this.#services.to[n]!);
      to.uint(this.#portsEnd[n]! - port);
      for (; port < this.#portsEnd[n]!; port++) {
        to.uint(this.#servicePorts[port]!);
        to.uint(this.#targetPorts[port]!);
      }
    }
  }

  /** As `impliedProvenance`. */
  #writeProvenance(version: string, to: PackWriter): void {
    const [, , kind, namespace, name] = this.#uidParts();
    if (kind === undefined || kind.from === kind.to) to.text("Workload");
    else to.ascii(this.#bytes, kind.from, kind.to);
    if (namespace === undefined) this.#put(to, NAMESPACE);
    else to.ascii(this.#bytes, namespace.from, namespace.to);
    if (name === undefined) this.#put(to, NAME);
    else to.ascii(this.#bytes, name.from, name.to);
    to.text(version);
    to.uint(0); // of no field,
    to.uint(0); // from no file
  }

  #uidParts(): readonly { readonly from: number; readonly to: number }[] {
    const parts: { from: number; to: number }[] = [];
    const end = this.#to[UID]!;
    for (let from = this.#from[UID]!, at = from; at <= end; at++) {
      if (at < end && this.#bytes[at] !== SLASH) continue;
      parts.push({ from, to: at });
      from = at + 1;
    }
    return parts;
  }

  #putOwn(to: PackWriter, number: number, otherwise: number): void {
    if ((this.#own.seen & (1 << number)) !== 0) to.ascii(this.#bytes, this.#own.from[number]!, this.#own.to[number]!);
    else this.#put(to, otherwise);
  }

  #put(to: PackWriter, number: number, otherwise = ""): void {
    if (this.#to[number]! > this.#from[number]!) to.ascii(this.#bytes, this.#from[number]!, this.#to[number]!);
    else to.text(otherwise);
  }
}

/** One for all: a workload is packed in one go. */
const plain = new PlainWorkload();

/**
 * Packs the workload of an address, if it is of the usual kind.
 * @param resource its value is borrowed.
 * @returns false, and nothing is written, where `readAddress` is to say what it is.
 */
export const packPlainWorkload = (resource: ReceivedResource, to: PackWriter): boolean => plain.pack(resource, to);
