// Reads a PKCS#10 certificate signing request (RFC 2986) strictly, and writes the one we send.
// The signature is checked by the caller, who has the cryptography.

import { err, ok, type Result } from "../../core/result.ts";
import { asciiBytes, contextTag, DerFault, encode, encodeOid, octetString, derTrue, sequence, TAG, bitString, unsignedInteger, type X509Fault } from "./der.ts";
import {
  type ExtensionFields, NO_NAMES, type PublicKeyFields, readExtensions, readName, readPublicKey, readSignedFrame, readSubjectAltNames, type SubjectAltNames,
} from "./fields.ts";
import { OID } from "./oids.ts";
import { algorithmIdentifier } from "./build.ts";

/** An RSA-4096 request with a 2 KiB SPIFFE ID stays below 4 KiB. */
export const REQUEST_BYTES_MAX = 8 * 1024;

export interface RequestFields {
  /** What the signature covers; borrowed, as is every Uint8Array below. */
  readonly infoDer: Uint8Array;
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
  readonly subjectIsEmpty: boolean;
  readonly publicKey: PublicKeyFields;
  readonly subjectAltNames: SubjectAltNames;
  /** OIDs of requested extensions other than subjectAltName. */
  readonly otherExtensions: readonly string[];
  /** OIDs of attributes other than extensionRequest (a challenge password, say). */
  readonly otherAttributes: readonly string[];
}

/** @param der exactly one request; borrowed for as long as the result lives. */
export function readRequest(der: Uint8Array): Result<RequestFields, X509Fault> {
  if (der.length > REQUEST_BYTES_MAX) return err({ code: "too_large", message: `certificate request of ${der.length} bytes, at most ${REQUEST_BYTES_MAX}` });
  try {
    return ok(parse(der));
  } catch (fault) {
    if (fault instanceof DerFault) return err({ code: fault.code, message: fault.message });
    throw fault;
  }
}

function parse(der: Uint8Array): RequestFields {
  const frame = readSignedFrame(der, "certificate request");
  const info = frame.reader.within(frame.tbs);
  if (info.smallInteger("certificate request version") !== 0) throw new DerFault("unsupported", "certificate request is not version 1");
  const subject = readName(info, "subject");
  const publicKey = readPublicKey(info);
  const attributes = info.inside(contextTag(0, true), "attributes");
  info.finish("certificate request");
  const otherAttributes: string[] = [];
  let extensions: readonly ExtensionFields[] | null = null;
  while (!attributes.atEnd) {
    const attribute = attributes.inside(TAG.sequence, "attribute");
    const oid = attribute.oid("attribute");
    const values = attribute.inside(TAG.set, `attribute ${oid}`);
    attribute.finish(`attribute ${oid}`);
    if (oid !== OID.extensionRequest) {
      while (!values.atEnd) values.unread(`attribute ${oid}`);
      otherAttributes.push(oid);
      continue;
    }
    if (extensions !== null) throw new DerFault("malformed", "extension request twice");
    extensions = readExtensions(values, "requested extension");
    values.finish("extension request");
  }
  const san = extensions?.find((extension) => extension.oid === OID.subjectAltName);
  return {
    infoDer: frame.reader.whole(frame.tbs),
    signatureAlgorithm: frame.algorithm.oid,
    signature: frame.signature,
    subjectIsEmpty: subject.empty,
    publicKey,
    subjectAltNames: san === undefined ? NO_NAMES : readSubjectAltNames(san),
    otherExtensions: (extensions ?? []).filter((extension) => extension !== san).map((extension) => extension.oid),
    otherAttributes,
  };
}

/** The part to sign: empty subject, the key, one critical URI SAN. `spkiDer` is a SubjectPublicKeyInfo. */
export function encodeRequestInfo(options: { readonly spkiDer: Uint8Array; readonly uri: string }): Uint8Array {
  const names = sequence(encode(0x86, asciiBytes(options.uri)));
  const san = sequence(encodeOid(OID.subjectAltName), derTrue, octetString(names));
  const attribute = sequence(encodeOid(OID.extensionRequest), encode(TAG.set, sequence(san)));
  return sequence(unsignedInteger(Uint8Array.of(0)), sequence(), options.spkiDer, encode(contextTag(0, true), attribute));
}

export function encodeRequest(options: { readonly infoDer: Uint8Array; readonly signatureAlgorithm: string; readonly signature: Uint8Array }): Uint8Array {
  return sequence(options.infoDer, algorithmIdentifier(options.signatureAlgorithm), bitString(options.signature));
}
