// The second judgement of a peer, after the TLS stack has verified its chain: who is it, and may it be that here? Strict where TLS
// stacks differ: names, usages, key sizes, depth. Pure; runs once for each handshake on the data thread.

import { RETRY_NEVER, type Fault } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import { parseSpiffeId, type SpiffeId } from "../core/spiffe.ts";
import { type CertificateFields, readCertificate } from "../wire/x509/certificate.ts";
import { ACCEPTED_SIGNATURES, KEY_USAGE, OID } from "../wire/x509/oids.ts";
import type { TrustDomains } from "./svid.ts";

/** Leaf, intermediates and root. The reference's hierarchies have two or three; more only costs us signature checks. */
export const PEER_CHAIN_MAX = 6;
export const PEER_RSA_BITS_MIN = 2048;

export type PeerFaultCode =
  | "no_certificate"
  | "chain_too_long"
  | "certificate_malformed"
  | "certificate_expired"
  | "certificate_not_yet_valid"
  | "weak_key"
  | "weak_signature"
  | "leaf_is_ca"
  | "wrong_usage"
  | "critical_extension_unknown"
  | "spiffe_id_missing"
  | "spiffe_id_ambiguous"
  | "spiffe_id_malformed"
  | "trust_domain_foreign"
  | "identity_unexpected";

export type PeerFault = Fault<PeerFaultCode>;

/** `client`: anyone of our trust domains (policy decides later). `server`: one of the identities the destination may have. */
export type PeerExpectation =
  | { readonly role: "client"; readonly trustDomains: TrustDomains }
  | { readonly role: "server"; readonly anyOf: readonly SpiffeId[] };

/** What a revocation check needs of each certificate: see `revoked` in ztunnel/messages.ts. */
export interface JudgedCertificate {
  readonly issuerDerHex: string;
  readonly serialHex: string;
}

export interface JudgedPeer {
  readonly id: SpiffeId;
  /** Leaf first. */
  readonly chain: readonly JudgedCertificate[];
  /** First moment at which a certificate of the chain has run out. */
  readonly notAfterMs: number;
}

/** Critical extensions that limit a CA and are enforced by the TLS stack while it builds the chain. */
const ENFORCED_BY_STACK: ReadonlySet<string> = new Set([OID.nameConstraints, OID.certificatePolicies, OID.policyConstraints, OID.inhibitAnyPolicy]);

/**
 * @param chainDer the verified chain, leaf first; borrowed.
 * @param nowMs wall clock.
 */
export function judgePeer(chainDer: readonly Uint8Array[], expectation: PeerExpectation, nowMs: number): Result<JudgedPeer, PeerFault> {
  if (chainDer.length === 0) return refuse("no_certificate", "the peer presented no certificate");
  if (chainDer.length > PEER_CHAIN_MAX) return refuse("chain_too_long", `the peer's chain has ${chainDer.length} certificates or more, at most ${PEER_CHAIN_MAX} are read`);
  const chain: JudgedCertificate[] = [];
  let notAfterMs = Infinity;
  let leaf: CertificateFields | null = null;
  for (const [depth, der] of chainDer.entries()) {
    const read = readCertificate(der);
    if (!read.ok) return refuse("certificate_malformed", `certificate ${depth} of the peer's chain: ${read.error.message}`);
    const certificate = read.value;
    const fault = judgeCertificate(certificate, depth, nowMs);
    if (fault !== null) return err(fault);
    leaf ??= certificate;
    notAfterMs = Math.min(notAfterMs, certificate.notAfterMs);
    chain.push({ issuerDerHex: certificate.issuerDerHex, serialHex: certificate.serialHex });
  }
  if (leaf === null) throw new Error("a chain that is not empty has a leaf");
  const usage = judgeUsage(leaf, expectation.role);
  if (usage !== null) return err(usage);
  const id = judgeIdentity(leaf, expectation);
  return id.ok ? ok({ id: id.value, chain, notAfterMs }) : id;
}

function judgeCertificate(certificate: CertificateFields, depth: number, nowMs: number): PeerFault | null {
  const which = depth === 0 ? "the peer's certificate" : `certificate ${depth} of the peer's chain`;
  if (nowMs > certificate.notAfterMs) return fault("certificate_expired", `${which} expired at ${isoTime(certificate.notAfterMs)}, now is ${isoTime(nowMs)}`);
  if (nowMs < certificate.notBeforeMs) return fault("certificate_not_yet_valid", `${which} is valid from ${isoTime(certificate.notBeforeMs)}, now is ${isoTime(nowMs)}; do the clocks agree?`);
  const { algorithm, bits } = certificate.publicKey;
  if (algorithm === "other" || (algorithm === "rsa" && bits < PEER_RSA_BITS_MIN)) return fault("weak_key", `${which} has a key of type ${algorithm}, ${bits} bits`);
  // A root is trusted by being in the bundle; what it signed itself with proves nothing.
  const isRoot = depth > 0 && certificate.issuerDerHex === certificate.subjectDerHex;
  if (!isRoot && !ACCEPTED_SIGNATURES.has(certificate.signatureAlgorithm)) return fault("weak_signature", `${which} is signed with the algorithm ${certificate.signatureAlgorithm}`);
  const unknown = certificate.unreadCritical.find((oid) => depth === 0 || !ENFORCED_BY_STACK.has(oid));
  if (unknown !== undefined) return fault("critical_extension_unknown", `${which} has the critical extension ${unknown}, which is not known here`);
  return null;
}

/** SPIFFE X.509-SVID section 4: a leaf is no CA and signs nothing; usages that are stated must fit the role. */
function judgeUsage(leaf: CertificateFields, role: "client" | "server"): PeerFault | null {
  if (leaf.isCa) return fault("leaf_is_ca", "the peer's certificate is a CA's");
  if (leaf.keyUsage !== null) {
    if (leaf.keyUsage & (KEY_USAGE.keyCertSign | KEY_USAGE.crlSign)) return fault("leaf_is_ca", "the peer's certificate may sign certificates or revocation lists (key usage)");
    if (!(leaf.keyUsage & KEY_USAGE.digitalSignature)) return fault("wrong_usage", "the peer's certificate may not sign a handshake (key usage)");
  }
  const wanted = role === "client" ? OID.clientAuth : OID.serverAuth;
  if (leaf.extendedKeyUsage !== null && !leaf.extendedKeyUsage.includes(wanted)) {
    return fault("wrong_usage", `the peer's certificate is not for TLS ${role}s (extended key usage ${leaf.extendedKeyUsage.join(", ")})`);
  }
  return null;
}

/** Names of other kinds are allowed beside the URI, and never count. */
function judgeIdentity(leaf: CertificateFields, expectation: PeerExpectation): Result<SpiffeId, PeerFault> {
  const [uri, ...more] = leaf.subjectAltNames.uris;
  if (uri === undefined) return refuse("spiffe_id_missing", "the peer's certificate has no URI subject alternative name");
  if (more.length > 0) return refuse("spiffe_id_ambiguous", `the peer's certificate has ${more.length + 1} URI subject alternative names, wanted one`);
  const parsed = parseSpiffeId(uri);
  if (parsed === null) return refuse("spiffe_id_malformed", `peer is ${abbreviate(uri)}, wanted spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`);
  if (expectation.role === "client") {
    const { own, aliases } = expectation.trustDomains;
    if (parsed.trustDomain === own || aliases.includes(parsed.trustDomain)) return ok(parsed.id);
    return refuse("trust_domain_foreign", `peer is ${abbreviate(parsed.id)}, wanted the trust domain ${[own, ...aliases].join(" or ")}`);
  }
  if (expectation.anyOf.includes(parsed.id)) return ok(parsed.id);
  return refuse("identity_unexpected", `peer is ${abbreviate(parsed.id)}, wanted ${expectation.anyOf.slice(0, 4).join(" or ") || "no identity at all"}`);
}

function fault(code: PeerFaultCode, message: string): PeerFault {
  return { code, message, blame: "peer", dies: "connection", retry: RETRY_NEVER };
}

function refuse(code: PeerFaultCode, message: string): Result<never, PeerFault> {
  return err(fault(code, message));
}

/** Names come from the peer and end up in logs: printable already (the reader saw to it), here kept short. */
const abbreviate = (name: string): string => (name.length <= 256 ? name : `${name.slice(0, 256)}...`);
const isoTime = (ms: number): string => new Date(ms).toISOString();
