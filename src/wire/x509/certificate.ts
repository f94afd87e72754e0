// Reads an X.509 v3 certificate (RFC 5280) strictly. Says what is in it; whether to trust it is judged elsewhere
// (chain and signatures by the TLS stack, identity by identity/peer-identity.ts).

import { err, ok, type Result } from "../../core/result.ts";
import { contextTag, DerFault, DerReader, readTime, TAG, type X509Fault } from "./der.ts";
import {
  type ExtensionFields, NO_NAMES, type PublicKeyFields, readAuthorityKeyId, readBasicConstraints, readExtendedKeyUsage, readExtensions,
  readKeyUsage, readName, readPublicKey, readSerial, readSignatureAlgorithm, readSignedFrame, readSubjectAltNames, readSubjectKeyId,
  requireSameAlgorithm, type SubjectAltNames,
} from "./fields.ts";
import { OID } from "./oids.ts";

/** Larger than any certificate a mesh has use for; TLS records would carry 16 MiB. */
export const CERTIFICATE_BYTES_MAX = 64 * 1024;

export interface CertificateFields {
  /** The whole certificate; borrowed, as is every Uint8Array below. */
  readonly der: Uint8Array;
  readonly tbsDer: Uint8Array;
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
  /** Lower-case hex of the magnitude. */
  readonly serialHex: string;
  /** Lower-case hex of the DER name: the key of the `revoked` message. */
  readonly issuerDerHex: string;
  readonly subjectDerHex: string;
  readonly subjectIsEmpty: boolean;
  readonly notBeforeMs: number;
  /** The last moment it is valid: inclusive, as RFC 5280 has it. */
  readonly notAfterMs: number;
  readonly publicKey: PublicKeyFields;
  readonly subjectAltNames: SubjectAltNames;
  readonly isCa: boolean;
  readonly pathLength: number | null;
  /** KEY_USAGE bits; null when the extension is absent. */
  readonly keyUsage: number | null;
  /** OIDs; null when the extension is absent. */
  readonly extendedKeyUsage: readonly string[] | null;
  readonly subjectKeyIdHex: string | null;
  readonly authorityKeyIdHex: string | null;
  /** Critical extensions that this reader does not interpret. */
  readonly unreadCritical: readonly string[];
}

/** @param der exactly one certificate; borrowed for as long as the result lives. */
export function readCertificate(der: Uint8Array): Result<CertificateFields, X509Fault> {
  if (der.length > CERTIFICATE_BYTES_MAX) return err({ code: "too_large", message: `certificate of ${der.length} bytes, at most ${CERTIFICATE_BYTES_MAX}` });
  try {
    return ok(parse(der));
  } catch (fault) {
    if (fault instanceof DerFault) return err({ code: fault.code, message: fault.message });
    throw fault;
  }
}

function parse(der: Uint8Array): CertificateFields {
  const frame = readSignedFrame(der, "certificate");
  const tbs = frame.reader.within(frame.tbs);
  const version = tbs.inside(contextTag(0, true), "certificate version");
  if (version.smallInteger("certificate version") !== 2) throw new DerFault("unsupported", "certificate is not version 3");
  version.finish("certificate version");
  const serialHex = readSerial(tbs);
  const innerAlgorithm = readSignatureAlgorithm(tbs, "certificate: inner signature algorithm");
  requireSameAlgorithm(innerAlgorithm.der, frame.algorithm.der, "certificate");
  const issuer = readName(tbs, "issuer");
  const validity = tbs.inside(TAG.sequence, "validity");
  const notBeforeMs = readTime(validity, "notBefore");
  const notAfterMs = readTime(validity, "notAfter");
  validity.finish("validity");
  const subject = readName(tbs, "subject");
  const publicKey = readPublicKey(tbs);
  const extensions = readTbsExtensions(tbs);
  return {
    der,
    tbsDer: frame.reader.whole(frame.tbs),
    signatureAlgorithm: frame.algorithm.oid,
    signature: frame.signature,
    serialHex,
    issuerDerHex: issuer.der.toHex(),
    subjectDerHex: subject.der.toHex(),
    subjectIsEmpty: subject.empty,
    notBeforeMs,
    notAfterMs,
    publicKey,
    ...extensions,
  };
}

type ExtensionResults = Pick<CertificateFields,
  "subjectAltNames" | "isCa" | "pathLength" | "keyUsage" | "extendedKeyUsage" | "subjectKeyIdHex" | "authorityKeyIdHex" | "unreadCritical">;

function readTbsExtensions(tbs: DerReader): ExtensionResults {
  let extensions: readonly ExtensionFields[] = [];
  if (!tbs.atEnd) {
    const wrapper = tbs.inside(contextTag(3, true), "certificate: field after the public key (unique identifiers are refused)");
    extensions = readExtensions(wrapper, "extension");
    wrapper.finish("extensions");
  }
  tbs.finish("certificate");
  let subjectAltNames = NO_NAMES;
  let constraints: { isCa: boolean; pathLength: number | null } = { isCa: false, pathLength: null };
  let keyUsage: number | null = null;
  let extendedKeyUsage: string[] | null = null;
  let subjectKeyIdHex: string | null = null;
  let authorityKeyIdHex: string | null = null;
  const unreadCritical: string[] = [];
  for (const extension of extensions) {
    switch (extension.oid) {
      case OID.subjectAltName: subjectAltNames = readSubjectAltNames(extension); break;
      case OID.basicConstraints: constraints = readBasicConstraints(extension); break;
      case OID.keyUsage: keyUsage = readKeyUsage(extension); break;
      case OID.extendedKeyUsage: extendedKeyUsage = readExtendedKeyUsage(extension); break;
      case OID.subjectKeyId: subjectKeyIdHex = readSubjectKeyId(extension).toHex(); break;
      case OID.authorityKeyId: authorityKeyIdHex = readAuthorityKeyId(extension)?.toHex() ?? null; break;
      default: if (extension.critical) unreadCritical.push(extension.oid);
    }
  }
  return { subjectAltNames, ...constraints, keyUsage, extendedKeyUsage, subjectKeyIdHex, authorityKeyIdHex, unreadCritical };
}
