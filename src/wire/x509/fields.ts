// The pieces that certificates, requests and revocation lists share: names, keys, extensions, general names, signature algorithms.
// Readers throw DerFault; the exported entry points of the sibling files catch it.

import { type IpAddress, ipFromBytes } from "../../core/ip.ts";
import { asciiText, DerFault, DerReader, type Element, sameBytes, TAG } from "./der.ts";
import { OID } from "./oids.ts";

export type PublicKeyAlgorithm = "ec-p256" | "ec-p384" | "ec-p521" | "rsa" | "ed25519" | "other";

export interface PublicKeyFields {
  readonly algorithm: PublicKeyAlgorithm;
  /** Field size for elliptic curves, modulus length for RSA, 0 for `other`. */
  readonly bits: number;
  /** SubjectPublicKeyInfo, whole; borrowed from the input. */
  readonly spkiDer: Uint8Array;
}

export interface ExtensionFields {
  readonly oid: string;
  readonly critical: boolean;
  /** Content of the extnValue octet string; borrowed. */
  readonly value: Uint8Array;
}

export interface SubjectAltNames {
  readonly critical: boolean;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  /** Counted below too. */
  readonly ipAddresses: readonly IpAddress[];
  /** Every name that is neither a URI nor a DNS name. */
  readonly otherCount: number;
}

/** RSA moduli above this are refused unread: verifying one costs more than the whole handshake. */
export const RSA_MODULUS_BITS_MAX = 8192;
/** Real certificates carry a dozen extensions at most. */
export const EXTENSIONS_MAX = 32;
/** A SPIFFE leaf has one name; foreign certificates have at most some dozens. */
export const GENERAL_NAMES_MAX = 128;
const RDNS_MAX = 32;
const EKU_MAX = 32;

/** Checks the form of a Name and returns its whole DER, borrowed. */
export function readName(reader: DerReader, what: string): { readonly der: Uint8Array; readonly empty: boolean } {
  const element = reader.element(TAG.sequence, what);
  const rdns = reader.within(element);
  const empty = rdns.atEnd;
  for (let count = 1; !rdns.atEnd; count++) {
    if (count > RDNS_MAX) throw new DerFault("too_large", `${what}: more than ${RDNS_MAX} parts`);
    const rdn = rdns.inside(TAG.set, what);
    if (rdn.atEnd) throw new DerFault("malformed", `${what}: an empty part`);
    while (!rdn.atEnd) {
      const pair = rdn.inside(TAG.sequence, what);
      pair.oid(what);
      pair.unread(what);
      pair.finish(what);
    }
  }
  return { der: reader.whole(element), empty };
}

/** AlgorithmIdentifier: its OID, and whether its parameters are absent or NULL (all that the algorithms we accept allow). */
export function readSignatureAlgorithm(reader: DerReader, what: string): { readonly oid: string; readonly der: Uint8Array } {
  const element = reader.element(TAG.sequence, what);
  const inner = reader.within(element);
  const oid = inner.oid(what);
  if (!inner.atEnd) inner.unread(what);
  inner.finish(what);
  return { oid, der: reader.whole(element) };
}

const CURVES: Readonly<Record<string, { readonly algorithm: PublicKeyAlgorithm; readonly bits: number }>> = {
  [OID.p256]: { algorithm: "ec-p256", bits: 256 },
  [OID.p384]: { algorithm: "ec-p384", bits: 384 },
  [OID.p521]: { algorithm: "ec-p521", bits: 521 },
};

export function readPublicKey(reader: DerReader): PublicKeyFields {
  const element = reader.element(TAG.sequence, "public key");
  const spkiDer = reader.whole(element);
  const inner = reader.within(element);
  const algorithm = inner.inside(TAG.sequence, "public key algorithm");
  const oid = algorithm.oid("public key algorithm");
  const key = inner.octetBits("public key bits");
  inner.finish("public key");
  if (oid === OID.ecPublicKey) return readEcKey(algorithm, key, spkiDer);
  if (oid === OID.rsaEncryption) return readRsaKey(algorithm, key, spkiDer);
  if (oid === OID.ed25519) {
    algorithm.finish("Ed25519 parameters");
    if (key.length !== 32) throw new DerFault("malformed", `Ed25519 key of ${key.length} bytes`);
    return { algorithm: "ed25519", bits: 256, spkiDer };
  }
  if (!algorithm.atEnd) algorithm.unread("public key parameters");
  algorithm.finish("public key parameters");
  return { algorithm: "other", bits: 0, spkiDer };
}

function readEcKey(parameters: DerReader, key: Uint8Array, spkiDer: Uint8Array): PublicKeyFields {
  if (parameters.peekTag() !== TAG.oid) throw new DerFault("unsupported", "elliptic-curve key without a named curve");
  const curve = CURVES[parameters.oid("curve")];
  parameters.finish("curve");
  if (curve === undefined) return { algorithm: "other", bits: 0, spkiDer };
  if (key.length !== 1 + 2 * Math.ceil(curve.bits / 8) || key[0] !== 0x04) throw new DerFault("malformed", "elliptic-curve point is not uncompressed or has the wrong length");
  return { ...curve, spkiDer };
}

function readRsaKey(parameters: DerReader, key: Uint8Array, spkiDer: Uint8Array): PublicKeyFields {
  const none = parameters.element(TAG.null, "RSA parameters");
  if (none.end !== none.contentStart) throw new DerFault("malformed", "RSA parameters are not NULL");
  parameters.finish("RSA parameters");
  const outer = new DerReader(key);
  const pair = outer.inside(TAG.sequence, "RSA key");
  outer.finish("RSA key");
  const modulus = pair.integer("RSA modulus");
  const exponent = pair.integer("RSA exponent");
  pair.finish("RSA key");
  const magnitude = modulus[0] === 0 ? modulus.subarray(1) : modulus;
  if (modulus[0]! >= 0x80 || magnitude.length === 0) throw new DerFault("malformed", "RSA modulus is not positive");
  const bits = (magnitude.length - 1) * 8 + (32 - Math.clz32(magnitude[0]!));
  if (bits > RSA_MODULUS_BITS_MAX) throw new DerFault("too_large", `RSA key of ${bits} bits, at most ${RSA_MODULUS_BITS_MAX}`);
  if (exponent[0]! >= 0x80 || exponent.length > 4 || (exponent[exponent.length - 1]! & 1) === 0 || (exponent.length === 1 && exponent[0] === 1)) {
    throw new DerFault("unsupported", "RSA exponent is not a small odd number above 1");
  }
  return { algorithm: "rsa", bits, spkiDer };
}

/** Extensions ::= SEQUENCE OF; a repeated one is refused (RFC 5280 section 4.2). */
export function readExtensions(reader: DerReader, what: string): ExtensionFields[] {
  const list = reader.inside(TAG.sequence, what);
  const extensions: ExtensionFields[] = [];
  if (list.atEnd) throw new DerFault("malformed", `${what}: empty`);
  while (!list.atEnd) {
    if (extensions.length === EXTENSIONS_MAX) throw new DerFault("too_large", `${what}: more than ${EXTENSIONS_MAX}`);
    const one = list.inside(TAG.sequence, what);
    const oid = one.oid(what);
    const critical = one.peekTag() === TAG.boolean ? one.boolean(`${what} ${oid}`) : null;
    if (critical === false) throw new DerFault("malformed", `${what} ${oid}: DER leaves the default FALSE out`);
    const value = one.octets(`${what} ${oid}`);
    one.finish(`${what} ${oid}`);
    if (extensions.some((other) => other.oid === oid)) throw new DerFault("malformed", `${what}: ${oid} twice`);
    extensions.push({ oid, critical: critical === true, value });
  }
  return extensions;
}

export const NO_NAMES: SubjectAltNames = { critical: false, uris: [], dnsNames: [], ipAddresses: [], otherCount: 0 };

const GENERAL_NAME = { other: 0xa0, email: 0x81, dns: 0x82, x400: 0xa3, directory: 0xa4, ediParty: 0xa5, uri: 0x86, ip: 0x87, registeredId: 0x88 } as const;

/** GeneralNames of a subjectAltName extension. Text names must be printable ASCII: no NUL, no control, no raw UTF-8 (IDN). */
export function readSubjectAltNames(extension: ExtensionFields): SubjectAltNames {
  const what = "subject alternative name";
  const outer = new DerReader(extension.value);
  const names = outer.inside(TAG.sequence, what);
  outer.finish(what);
  if (names.atEnd) throw new DerFault("malformed", `${what}: empty`);
  const uris: string[] = [];
  const dnsNames: string[] = [];
  const ipAddresses: IpAddress[] = [];
  let otherCount = 0;
  while (!names.atEnd) {
    if (uris.length + dnsNames.length + otherCount === GENERAL_NAMES_MAX) throw new DerFault("too_large", `${what}: more than ${GENERAL_NAMES_MAX}`);
    const name = names.any(what);
    if (name.tag === GENERAL_NAME.uri) uris.push(printableName(names, name));
    else if (name.tag === GENERAL_NAME.dns) dnsNames.push(printableName(names, name));
    else {
      checkOtherName(names, name);
      if (name.tag === GENERAL_NAME.ip) ipAddresses.push(ipFromBytes(names.content(name)));
      otherCount++;
    }
  }
  return { critical: extension.critical, uris, dnsNames, ipAddresses, otherCount };
}

function checkOtherName(names: DerReader, name: Element): void {
  const length = name.end - name.contentStart;
  switch (name.tag) {
    case GENERAL_NAME.email:
      printableName(names, name);
      return;
    case GENERAL_NAME.ip:
      if (length !== 4 && length !== 16) throw new DerFault("malformed", `subject alternative name: IP address of ${length} bytes`);
      return;
    case GENERAL_NAME.other:
    case GENERAL_NAME.x400:
    case GENERAL_NAME.directory:
    case GENERAL_NAME.ediParty:
    case GENERAL_NAME.registeredId:
      names.checkInside(name, "subject alternative name");
      return;
    default:
      throw new DerFault("malformed", `subject alternative name: no such kind of name, tag 0x${name.tag.toString(16)}`);
  }
}

function printableName(names: DerReader, name: Element): string {
  const text = asciiText(names.content(name));
  if (text === null || !/^[\x21-\x7e]+$/.test(text)) throw new DerFault("malformed", "subject alternative name: a name that is empty or not printable ASCII");
  return text;
}

export function readBasicConstraints(extension: ExtensionFields): { readonly isCa: boolean; readonly pathLength: number | null } {
  const outer = new DerReader(extension.value);
  const inner = outer.inside(TAG.sequence, "basic constraints");
  outer.finish("basic constraints");
  const isCa = inner.peekTag() === TAG.boolean ? inner.boolean("basic constraints") : null;
  if (isCa === false) throw new DerFault("malformed", "basic constraints: DER leaves the default FALSE out");
  const pathLength = inner.atEnd ? null : inner.smallInteger("path length");
  inner.finish("basic constraints");
  if (pathLength !== null && isCa !== true) throw new DerFault("malformed", "basic constraints: a path length without cA");
  return { isCa: isCa === true, pathLength };
}

/** Bits as in KEY_USAGE: bit n of the result is named bit n. */
export function readKeyUsage(extension: ExtensionFields): number {
  const reader = new DerReader(extension.value);
  const content = reader.content(reader.element(TAG.bitString, "key usage"));
  reader.finish("key usage");
  const unused = content[0];
  const last = content[content.length - 1]!;
  if (unused === undefined || unused > 7 || content.length > 3) throw new DerFault("malformed", "key usage: bad bit string");
  if (content.length === 1 || (last & ((1 << (unused + 1)) - 1)) !== 1 << unused) throw new DerFault("malformed", "key usage: no bits, or trailing zero bits");
  let bits = 0;
  for (let i = 0; i < (content.length - 1) * 8; i++) if (content[1 + (i >> 3)]! & (0x80 >> (i & 7))) bits |= 1 << i;
  return bits;
}

export function readExtendedKeyUsage(extension: ExtensionFields): string[] {
  const outer = new DerReader(extension.value);
  const list = outer.inside(TAG.sequence, "extended key usage");
  outer.finish("extended key usage");
  const usages: string[] = [];
  while (!list.atEnd) {
    if (usages.length === EKU_MAX) throw new DerFault("too_large", `extended key usage: more than ${EKU_MAX}`);
    usages.push(list.oid("extended key usage"));
  }
  if (usages.length === 0) throw new DerFault("malformed", "extended key usage: empty");
  return usages;
}

export function readSubjectKeyId(extension: ExtensionFields): Uint8Array {
  const reader = new DerReader(extension.value);
  const id = reader.octets("subject key identifier");
  reader.finish("subject key identifier");
  return id;
}

/** The keyIdentifier field of an authorityKeyIdentifier; null when it names its issuer only by name and serial. */
export function readAuthorityKeyId(extension: ExtensionFields): Uint8Array | null {
  const outer = new DerReader(extension.value);
  const inner = outer.inside(TAG.sequence, "authority key identifier");
  outer.finish("authority key identifier");
  let keyId: Uint8Array | null = null;
  for (let previous = -1; !inner.atEnd;) {
    const field = inner.unread("authority key identifier");
    if (![0x80, 0xa1, 0x82].includes(field.tag) || (field.tag & 0x1f) <= previous) throw new DerFault("malformed", "authority key identifier: unknown or repeated field");
    previous = field.tag & 0x1f;
    if (field.tag === 0x80) keyId = inner.content(field);
  }
  return keyId;
}

/** Serial numbers: hex of the magnitude, two digits an octet, no padding octet; `00` for zero. */
export function readSerial(reader: DerReader): string {
  const content = reader.integer("serial number");
  if (content[0]! >= 0x80) throw new DerFault("malformed", "serial number is negative");
  if (content.length > SERIAL_OCTETS_MAX + 1) throw new DerFault("too_large", `serial number of ${content.length} octets`);
  return (content.length > 1 && content[0] === 0 ? content.subarray(1) : content).toHex();
}

/** RFC 5280 section 4.1.2.2: conforming CAs use no more than 20 octets. */
export const SERIAL_OCTETS_MAX = 20;

/** The signature and what it covers: `SEQUENCE { tbs, algorithm, BIT STRING }`, the frame of certificates, requests and CRLs. */
export interface SignedFrame {
  readonly tbs: Element;
  readonly reader: DerReader;
  readonly algorithm: { readonly oid: string; readonly der: Uint8Array };
  readonly signature: Uint8Array;
}

export function readSignedFrame(der: Uint8Array, what: string): SignedFrame {
  const outer = new DerReader(der);
  const reader = outer.inside(TAG.sequence, what);
  outer.finish(what);
  const tbs = reader.element(TAG.sequence, what);
  const algorithm = readSignatureAlgorithm(reader, `${what}: signature algorithm`);
  const signature = reader.octetBits(`${what}: signature`);
  reader.finish(what);
  return { tbs, reader, algorithm, signature };
}

/** RFC 5280 section 4.1.1.2: the algorithm inside the signed part is the one outside. */
export function requireSameAlgorithm(inner: Uint8Array, outer: Uint8Array, what: string): void {
  if (!sameBytes(inner, outer)) throw new DerFault("malformed", `${what}: two different signature algorithms`);
}
