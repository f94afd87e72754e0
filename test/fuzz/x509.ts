// Certificates and revocation lists: mutated from real ones, and built from hostile names.
//   - reading never throws, and what is accepted is canonical: written anew it is the same bytes
//   - where BoringSSL accepts the same certificate, it sees the same serial, names and CA flag
//   - a peer is accepted only for the one URI that its certificate carries, and only if that is a SPIFFE ID of the wanted trust domain

import { X509Certificate } from "node:crypto";
import { type Random, seededRandom } from "../../src/core/ports.ts";
import { parseSpiffeId, parseTrustDomain } from "../../src/core/spiffe.ts";
import { judgePeer, type PeerExpectation } from "../../src/identity/peer-identity.ts";
import { type CertificateFields, readCertificate } from "../../src/wire/x509/certificate.ts";
import { contextTag, encode, encodeOid, octetString, sequence, derTrue, sameBytes } from "../../src/wire/x509/der.ts";
import { OID } from "../../src/wire/x509/oids.ts";
import { readRevocationList } from "../../src/wire/x509/revocation-list.ts";
import { CERTIFICATES, CORPUS_MS, REVOCATION_LISTS } from "./corpus-x509.ts";
import { below } from "./choices.ts";
import { mutate, pick, reencode } from "./mutate-der.ts";

export const name = "x509";

const certificates = Object.values(CERTIFICATES);
const lists = Object.values(REVOCATION_LISTS);
const own = parseTrustDomain("cluster.local")!;
const expectation: PeerExpectation = { role: "client", trustDomains: { own, aliases: [] } };

export function run(options: { readonly seed: number; readonly iterations: number }): { readonly iterations: number } {
  const random = seededRandom(options.seed);
  for (let iteration = 0; iteration < options.iterations; iteration++) {
    try {
      const kind = random.next();
      if (kind < 0.1) fuzzList(mutate(random, pick(random, lists), [...certificates, ...lists]));
      else if (kind < 0.4) fuzzNames(random);
      else fuzzCertificate(mutate(random, pick(random, certificates), certificates));
    } catch (cause) {
      throw new Error(`x509: seed ${options.seed}, iteration ${iteration}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
  return { iterations: options.iterations };
}

function fuzzCertificate(der: Uint8Array): void {
  const read = readCertificate(der);
  const judged = judgePeer([der, CERTIFICATES["intermediate"]!, CERTIFICATES["root"]!], expectation, CORPUS_MS);
  if (!read.ok) {
    if (judged.ok) throw new Error("a certificate that does not read was judged good");
    return;
  }
  requireCanonical(der);
  if (judged.ok) requireOneIdentity(read.value, judged.value.id);
  compareWithBoringSsl(der, read.value);
}

function fuzzList(der: Uint8Array): void {
  const read = readRevocationList(der);
  if (!read.ok) return;
  requireCanonical(der);
  for (const serial of read.value.serials) if (!/^([0-9a-f]{2}){1,20}[0-9a-f]{0,2}$/.test(serial)) throw new Error(`serial ${serial}`);
}

function requireCanonical(der: Uint8Array): void {
  const again = reencode(der);
  if (again === null || !sameBytes(again, der)) throw new Error(`accepted bytes are not canonical: ${der.toHex()}`);
}

function requireOneIdentity(fields: CertificateFields, id: string): void {
  const { uris } = fields.subjectAltNames;
  if (uris.length !== 1 || uris[0] !== id || parseSpiffeId(id)?.trustDomain !== own) throw new Error(`judged to be ${id}, the certificate says ${uris.join(", ")}`);
  if (fields.isCa || CORPUS_MS < fields.notBeforeMs || CORPUS_MS > fields.notAfterMs) throw new Error("a CA or a certificate out of its time was judged good");
}

function compareWithBoringSsl(der: Uint8Array, fields: CertificateFields): void {
  let theirs: X509Certificate;
  try {
    theirs = new X509Certificate(der);
  } catch {
    return; // It may be stricter: nothing reaches us that it refused.
  }
  const stripped = (hex: string): string => hex.toLowerCase().replace(/^0+/, "");
  if (stripped(theirs.serialNumber) !== stripped(fields.serialHex)) throw new Error(`serial ${fields.serialHex}, BoringSSL says ${theirs.serialNumber}`);
  // The text form quotes names with unusual characters; compare where it does not.
  const text = theirs.subjectAltName;
  if (text !== undefined && !text.includes('"')) {
    const uris = text.split(", ").filter((part) => part.startsWith("URI:")).map((part) => part.slice(4));
    const plain = fields.subjectAltNames.uris.every((uri) => !/[",]/.test(uri));
    if (plain && uris.join("|") !== fields.subjectAltNames.uris.join("|")) throw new Error(`URIs ${fields.subjectAltNames.uris.join("|")}, BoringSSL says ${text}`);
  }
  const validFromMs = Date.parse(theirs.validFrom);
  const validToMs = Date.parse(theirs.validTo);
  if (validFromMs !== fields.notBeforeMs || validToMs !== fields.notAfterMs) throw new Error(`valid ${fields.notBeforeMs} to ${fields.notAfterMs}, BoringSSL says ${theirs.validFrom} to ${theirs.validTo}`);
}

const PIECES = ["spiffe://", "SPIFFE://", "https://", "cluster.local", "evil.example", "a.cluster.local", "/ns/", "/sa/", "shop", "web", "/", "..", ".", "%2f", "?", "#", ":443", "@", "\0", " ", "ü", "\n", "*", "~", "cluster.local/ns/shop/sa/web"];

/** A certificate with random names: accepted exactly when a model of the rule says so. */
function fuzzNames(random: Random): void {
  const names = Array.from({ length: 1 + below(random, 3) }, () => {
    const text = random.next() < 0.3 ? "spiffe://cluster.local/ns/shop/sa/web" : Array.from({ length: 1 + below(random, 7) }, () => pick(random, PIECES)).join("");
    return { tag: pick(random, [6, 6, 6, 2, 1]), bytes: new TextEncoder().encode(text), text };
  });
  const extension = sequence(encodeOid(OID.subjectAltName), derTrue, octetString(sequence(...names.map((one) => encode(contextTag(one.tag, false), one.bytes)))));
  const der = withExtensions(extension);
  const judged = judgePeer([der], expectation, CORPUS_MS);
  const uris = names.filter((one) => one.tag === 6);
  const printable = names.every((one) => /^[\x21-\x7e]+$/.test(one.text));
  const wanted = printable && uris.length === 1 && /^spiffe:\/\/cluster\.local\/ns\/[A-Za-z0-9._-]+\/sa\/[A-Za-z0-9._-]+$/.test(uris[0]!.text) && !/\/\.{1,2}(\/|$)/.test(uris[0]!.text);
  if (judged.ok !== wanted) throw new Error(`names ${JSON.stringify(names.map((one) => `${one.tag}:${one.text}`))} were ${judged.ok ? "accepted" : "refused"}`);
  if (judged.ok && judged.value.id !== uris[0]!.text) throw new Error(`judged to be ${judged.value.id}`);
}

/** The corpus leaf with these extensions in place of its own; its signature no longer fits, which is the TLS stack's to find. */
function withExtensions(...extensions: readonly Uint8Array[]): Uint8Array {
  const leaf = readCertificate(CERTIFICATES["leaf"]!);
  if (!leaf.ok) throw new Error(leaf.error.message);
  const { tbsDer, signature } = leaf.value;
  const marker = encode(contextTag(3, true));
  const bodyStart = 4;
  let at = bodyStart;
  while (tbsDer[at] !== marker[0]) at += elementLength(tbsDer, at);
  const tbs = sequence(tbsDer.subarray(bodyStart, at), encode(contextTag(3, true), sequence(...extensions)));
  return sequence(tbs, sequence(encodeOid(OID.ecdsaSha256)), encode(0x03, Uint8Array.of(0), signature));
}

function elementLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at + 1]!;
  if (first < 0x80) return 2 + first;
  if (first === 0x81) return 3 + bytes[at + 2]!;
  return 4 + bytes[at + 2]! * 256 + bytes[at + 3]!;
}
