// Writes certificates and revocation lists (RFC 5280), unsigned: the caller signs `tbs` and joins the two. No IO, no cryptography.

import { asciiBytes, bitString, contextTag, derTrue, encode, encodeOid, encodeTime, namedBits, octetString, sequence, TAG, unsignedInteger } from "./der.ts";
import { OID } from "./oids.ts";

export type NewName = { readonly kind: "uri"; readonly uri: string } | { readonly kind: "dns"; readonly dnsName: string } | { readonly kind: "ip"; readonly bytes: Uint8Array };

export interface NewCertificate {
  /** Big-endian magnitude. */
  readonly serial: Uint8Array;
  readonly signatureAlgorithm: string;
  /** DER Name; see encodeName. */
  readonly issuerDer: Uint8Array;
  readonly subjectDer: Uint8Array;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly spkiDer: Uint8Array;
  readonly subjectKeyId: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  /** A CA certificate with this path length (null for no limit), or a leaf. */
  readonly role: { readonly kind: "ca"; readonly pathLength: number | null } | { readonly kind: "leaf"; readonly names: readonly NewName[]; readonly extendedKeyUsage: readonly string[] };
  /** KEY_USAGE bits. */
  readonly keyUsage: number;
}

/** `O=organization, CN=commonName`; both empty gives the empty name. */
export function encodeName(name: { readonly organization: string; readonly commonName: string }): Uint8Array {
  const part = (oid: string, text: string): Uint8Array[] => (text === "" ? [] : [encode(TAG.set, sequence(encodeOid(oid), encode(TAG.utf8String, new TextEncoder().encode(text))))]);
  return sequence(...part(OID.organization, name.organization), ...part(OID.commonName, name.commonName));
}

/** RSA wants NULL parameters (RFC 4055), ECDSA none (RFC 5758). */
export function algorithmIdentifier(oid: string): Uint8Array {
  const rsa = oid.startsWith("1.2.840.113549.1.1.");
  return rsa ? sequence(encodeOid(oid), Uint8Array.of(TAG.null, 0)) : sequence(encodeOid(oid));
}

export function encodeTbsCertificate(certificate: NewCertificate): Uint8Array {
  return sequence(
    encode(contextTag(0, true), unsignedInteger(Uint8Array.of(2))),
    unsignedInteger(certificate.serial),
    algorithmIdentifier(certificate.signatureAlgorithm),
    certificate.issuerDer,
    sequence(encodeTime(certificate.notBeforeMs), encodeTime(certificate.notAfterMs)),
    certificate.subjectDer,
    certificate.spkiDer,
    encode(contextTag(3, true), sequence(...certificateExtensions(certificate))),
  );
}

function certificateExtensions(certificate: NewCertificate): Uint8Array[] {
  const { role } = certificate;
  const common = [
    extension(OID.keyUsage, true, namedBits(certificate.keyUsage)),
    extension(OID.subjectKeyId, false, octetString(certificate.subjectKeyId)),
    extension(OID.authorityKeyId, false, sequence(encode(contextTag(0, false), certificate.authorityKeyId))),
  ];
  if (role.kind === "ca") {
    const pathLength = role.pathLength === null ? [] : [unsignedInteger(Uint8Array.of(role.pathLength))];
    return [extension(OID.basicConstraints, true, sequence(derTrue, ...pathLength)), ...common];
  }
  const subjectIsEmpty = certificate.subjectDer.length === 2;
  return [
    extension(OID.basicConstraints, true, sequence()),
    ...common,
    extension(OID.extendedKeyUsage, false, sequence(...role.extendedKeyUsage.map(encodeOid))),
    extension(OID.subjectAltName, subjectIsEmpty, sequence(...role.names.map(encodeGeneralName))),
  ];
}

function encodeGeneralName(name: NewName): Uint8Array {
  switch (name.kind) {
    case "uri": return encode(contextTag(6, false), asciiBytes(name.uri));
    case "dns": return encode(contextTag(2, false), asciiBytes(name.dnsName));
    case "ip": return encode(contextTag(7, false), name.bytes);
  }
}

export interface NewRevocationList {
  readonly signatureAlgorithm: string;
  readonly issuerDer: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
  readonly number: number;
  readonly entries: readonly { readonly serial: Uint8Array; readonly revokedAtMs: number }[];
}

export function encodeTbsRevocationList(list: NewRevocationList): Uint8Array {
  const entries = list.entries.map((entry) => sequence(unsignedInteger(entry.serial), encodeTime(entry.revokedAtMs)));
  return sequence(
    unsignedInteger(Uint8Array.of(1)),
    algorithmIdentifier(list.signatureAlgorithm),
    list.issuerDer,
    encodeTime(list.thisUpdateMs),
    encodeTime(list.nextUpdateMs),
    ...(entries.length === 0 ? [] : [sequence(...entries)]),
    encode(contextTag(0, true), sequence(
      extension(OID.authorityKeyId, false, sequence(encode(contextTag(0, false), list.authorityKeyId))),
      extension(OID.crlNumber, false, unsignedInteger(bigEndian(list.number))),
    )),
  );
}

/** Joins what was signed with its signature: the frame of certificates and revocation lists. */
export function encodeSigned(options: { readonly tbsDer: Uint8Array; readonly signatureAlgorithm: string; readonly signature: Uint8Array }): Uint8Array {
  return sequence(options.tbsDer, algorithmIdentifier(options.signatureAlgorithm), bitString(options.signature));
}

function extension(oid: string, critical: boolean, value: Uint8Array): Uint8Array {
  return critical ? sequence(encodeOid(oid), derTrue, octetString(value)) : sequence(encodeOid(oid), octetString(value));
}

function bigEndian(value: number): Uint8Array {
  const octets: number[] = [];
  for (let left = value; left > 0; left = Math.floor(left / 256)) octets.unshift(left % 256);
  return Uint8Array.from(octets);
}
