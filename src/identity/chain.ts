// Verifies a certificate chain that this node was given for itself, before it is used or stored: signatures, times, path lengths,
// key, identity. Peers' chains are verified by the TLS stack; this is for our own.

import { createPrivateKey, type KeyObject } from "node:crypto";
import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { type CertificateFields, readCertificate } from "../wire/x509/certificate.ts";
import { KEY_USAGE } from "../wire/x509/oids.ts";
import { readPem } from "../wire/x509/pem.ts";
import type { Svid } from "./svid.ts";
import { isSignedBy, keyMatches } from "./x509-crypto.ts";

/** Leaf, intermediates and root; deeper hierarchies only cost handshakes. */
export const CHAIN_DEPTH_MAX = 6;
/** Clocks of CA and node may differ by this much before a fresh certificate is called not yet valid. */
export const CLOCK_SKEW_MS = 5 * 60_000;

/** Certificates of a PEM text in order; other blocks are an error. */
export function readCertificates(pem: string): Result<CertificateFields[], string> {
  const blocks = readPem(pem);
  if (!blocks.ok) return err(blocks.error.message);
  const certificates: CertificateFields[] = [];
  for (const [index, block] of blocks.value.entries()) {
    if (block.label !== "CERTIFICATE") return err(`PEM block ${index} is ${block.label}, wanted CERTIFICATE`);
    const certificate = readCertificate(block.der);
    if (!certificate.ok) return err(`certificate ${index}: ${certificate.error.message}`);
    certificates.push(certificate.value);
  }
  return ok(certificates);
}

export function readPrivateKey(pem: string): Result<KeyObject, string> {
  try {
    return ok(createPrivateKey(pem));
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
}

/**
 * Checks that `chain` (leaf first) leads to one of `roots`, each step signed, in its validity at `nowMs`, allowed to sign, and within path length.
 * With `startsWith: "issuer"` the first certificate is a CA's, and there must be room for the leaves it will sign.
 * @returns the certificates used, leaf first and root last; or what is wrong, in words.
 */
export function verifyChain(options: {
  readonly chain: readonly CertificateFields[];
  readonly roots: readonly CertificateFields[];
  readonly nowMs: number;
  readonly startsWith?: "leaf" | "issuer";
}): Result<CertificateFields[], string> {
  const { chain, roots, nowMs } = options;
  const issuers = options.startsWith === "issuer" ? 1 : 0;
  if (chain.length === 0) return err("the chain is empty");
  if (chain.length > CHAIN_DEPTH_MAX) return err(`the chain has ${chain.length} certificates, at most ${CHAIN_DEPTH_MAX}`);
  const path: CertificateFields[] = [];
  let unfitRoot = "";
  for (const [depth, certificate] of chain.entries()) {
    const wrong = wrongTime(certificate, nowMs) ?? (depth + issuers === 0 ? null : wrongIssuer(certificate, depth + issuers - 1));
    if (wrong !== null) return err(`certificate ${depth} of the chain ${wrong}`);
    path.push(certificate);
    for (const root of roots.filter((candidate) => isSignedBy(certificate, candidate))) {
      const unfit = wrongTime(root, nowMs) ?? wrongIssuer(root, depth + issuers);
      if (unfit === null) return ok([...path, root]);
      unfitRoot = `; the root ${root.serialHex} ${unfit}`;
    }
    const next = chain[depth + 1];
    if (next !== undefined && !isSignedBy(certificate, next)) return err(`certificate ${depth} of the chain is not signed by certificate ${depth + 1}`);
  }
  return err(`the chain of ${chain.length} ends at no root of the bundle (${roots.length} known) that is valid now${unfitRoot}`);
}

function wrongTime(certificate: CertificateFields, nowMs: number): string | null {
  if (nowMs > certificate.notAfterMs) return `expired at ${new Date(certificate.notAfterMs).toISOString()}`;
  if (nowMs + CLOCK_SKEW_MS < certificate.notBeforeMs) return `is valid only from ${new Date(certificate.notBeforeMs).toISOString()}`;
  return null;
}

/** @param below number of CA certificates between it and the leaf. */
function wrongIssuer(certificate: CertificateFields, below: number): string | null {
  if (!certificate.isCa) return "is not a CA (basic constraints)";
  if (certificate.keyUsage !== null && !(certificate.keyUsage & KEY_USAGE.keyCertSign)) return "may not sign certificates (key usage)";
  if (certificate.pathLength !== null && below > certificate.pathLength) return `allows ${certificate.pathLength} CA certificates below it, has ${below}`;
  return null;
}

/**
 * Assembles an SVID from its parts after checking all of them against each other.
 * @param nowMs wall clock.
 */
export function assembleSvid(options: {
  readonly spiffeId: SpiffeId;
  readonly chainPem: string;
  readonly privateKeyPem: string;
  readonly trustBundlePem: string;
  readonly nowMs: number;
}): Result<Svid, string> {
  const chain = readCertificates(options.chainPem);
  if (!chain.ok) return err(`certificate chain: ${chain.error}`);
  const roots = readCertificates(options.trustBundlePem);
  if (!roots.ok) return err(`trust bundle: ${roots.error}`);
  const leaf = chain.value[0];
  if (leaf === undefined) return err("certificate chain: no certificate");
  const { uris, dnsNames, otherCount } = leaf.subjectAltNames;
  if (uris.length !== 1 || dnsNames.length + otherCount > 0 || uris[0] !== options.spiffeId) {
    return err(`the certificate is for [${[...uris, ...dnsNames].join(", ")}] and ${otherCount} other names, wanted exactly ${options.spiffeId}`);
  }
  if (leaf.isCa) return err("the certificate is a CA's");
  const key = readPrivateKey(options.privateKeyPem);
  if (!key.ok) return err(`private key: ${key.error}`);
  if (!keyMatches(key.value, leaf.publicKey.spkiDer)) return err("the certificate is for another key than the one requested");
  const path = verifyChain({ chain: chain.value, roots: roots.value, nowMs: options.nowMs });
  if (!path.ok) return path;
  return ok({
    spiffeId: options.spiffeId,
    certificateChainPem: options.chainPem,
    privateKeyPem: options.privateKeyPem,
    trustBundlePem: options.trustBundlePem,
    notBeforeMs: leaf.notBeforeMs,
    notAfterMs: leaf.notAfterMs,
    serial: leaf.serialHex,
  });
}
