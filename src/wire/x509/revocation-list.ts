// Reads a certificate revocation list (RFC 5280 section 5) strictly. Complete, direct lists only: a delta or an indirect list says so in
// a critical extension and is refused. The signature is checked by the caller.

import { err, ok, type Result } from "../../core/result.ts";
import { contextTag, DerFault, DerReader, readTime, TAG, type X509Fault } from "./der.ts";
import { readAuthorityKeyId, readExtensions, readName, readSerial, readSignatureAlgorithm, readSignedFrame, requireSameAlgorithm } from "./fields.ts";
import { OID } from "./oids.ts";

/** Some 200 000 entries. */
export const REVOCATION_LIST_BYTES_MAX = 8 * 1024 * 1024;

export interface RevocationListFields {
  readonly tbsDer: Uint8Array;
  readonly signatureAlgorithm: string;
  readonly signature: Uint8Array;
  readonly issuerDerHex: string;
  readonly authorityKeyIdHex: string | null;
  readonly thisUpdateMs: number;
  /** Null when the list names none. */
  readonly nextUpdateMs: number | null;
  /** Lower-case hex, as in CertificateFields. */
  readonly serials: ReadonlySet<string>;
}

/** @param der exactly one list; borrowed for as long as the result lives. */
export function readRevocationList(der: Uint8Array): Result<RevocationListFields, X509Fault> {
  if (der.length > REVOCATION_LIST_BYTES_MAX) return err({ code: "too_large", message: `revocation list of ${der.length} bytes, at most ${REVOCATION_LIST_BYTES_MAX}` });
  try {
    return ok(parse(der));
  } catch (fault) {
    if (fault instanceof DerFault) return err({ code: fault.code, message: fault.message });
    throw fault;
  }
}

function parse(der: Uint8Array): RevocationListFields {
  const frame = readSignedFrame(der, "revocation list");
  const tbs = frame.reader.within(frame.tbs);
  if (tbs.peekTag() === TAG.integer && tbs.smallInteger("revocation list version") !== 1) throw new DerFault("unsupported", "revocation list is neither version 1 nor 2");
  const innerAlgorithm = readSignatureAlgorithm(tbs, "revocation list: inner signature algorithm");
  requireSameAlgorithm(innerAlgorithm.der, frame.algorithm.der, "revocation list");
  const issuer = readName(tbs, "revocation list issuer");
  const thisUpdateMs = readTime(tbs, "thisUpdate");
  const hasNext = tbs.peekTag() === TAG.utcTime || tbs.peekTag() === TAG.generalizedTime;
  const nextUpdateMs = hasNext ? readTime(tbs, "nextUpdate") : null;
  const serials = tbs.peekTag() === TAG.sequence ? readEntries(tbs.inside(TAG.sequence, "revoked certificates")) : new Set<string>();
  const authorityKeyIdHex = readListExtensions(tbs);
  tbs.finish("revocation list");
  return {
    tbsDer: frame.reader.whole(frame.tbs),
    signatureAlgorithm: frame.algorithm.oid,
    signature: frame.signature,
    issuerDerHex: issuer.der.toHex(),
    authorityKeyIdHex,
    thisUpdateMs,
    nextUpdateMs,
    serials,
  };
}

function readEntries(entries: DerReader): Set<string> {
  const serials = new Set<string>();
  while (!entries.atEnd) {
    const entry = entries.inside(TAG.sequence, "revoked certificate");
    serials.add(readSerial(entry));
    readTime(entry, "revocation date");
    if (!entry.atEnd) {
      for (const extension of readExtensions(entry, "entry extension")) {
        if (extension.critical && extension.oid !== OID.crlReason) throw new DerFault("unsupported", `revocation list entry has the critical extension ${extension.oid}`);
      }
    }
    entry.finish("revoked certificate");
  }
  return serials;
}

/** @returns the key identifier of the issuer, if the list names it. */
function readListExtensions(tbs: DerReader): string | null {
  if (tbs.atEnd) return null;
  const wrapper = tbs.inside(contextTag(0, true), "revocation list extensions");
  let keyId: string | null = null;
  for (const extension of readExtensions(wrapper, "revocation list extension")) {
    if (extension.oid === OID.authorityKeyId) keyId = readAuthorityKeyId(extension)?.toHex() ?? null;
    else if (extension.critical) throw new DerFault("unsupported", `revocation list has the critical extension ${extension.oid}; only complete, direct lists are read`);
  }
  wrapper.finish("revocation list extensions");
  return keyId;
}
