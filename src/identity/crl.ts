// Revocation lists for the data plane: reads the operator's file (PEM with several lists, or one DER), checks each list's signature
// against the issuers we know, and watches it. A file that breaks later changes nothing: the last good state stays in force.
//
// A PEM file may carry the certificates of issuers too (our CA writes them): they count once they chain to a root we trust.

import { type FSWatcher, readFileSync, watch } from "node:fs";
import { basename, dirname } from "node:path";
import { err, ok, type Result } from "../core/result.ts";
import { type CertificateFields, readCertificate } from "../wire/x509/certificate.ts";
import { KEY_USAGE } from "../wire/x509/oids.ts";
import { readPem } from "../wire/x509/pem.ts";
import { readRevocationList, REVOCATION_LIST_BYTES_MAX, type RevocationListFields } from "../wire/x509/revocation-list.ts";
import { readCertificates, verifyChain } from "./chain.ts";
import type { Timers } from "../net/timers.ts";
import { verifySignature } from "./x509-crypto.ts";

/** Editors and mounts change a file in several steps; they are one change. */
export const CRL_DEBOUNCE_MS = 2000;
const CRL_FILE_BYTES_MAX = 2 * REVOCATION_LIST_BYTES_MAX;
const CRL_LISTS_MAX = 64;

/** As in the `revoked` message: lower-case hex serials by the hex of the issuer's DER name. */
export type SerialsByIssuer = ReadonlyMap<string, ReadonlySet<string>>;

export interface Revocations {
  readonly serialsByIssuer: SerialsByIssuer;
  /** In words, for the operator: lists that are past their nextUpdate (used all the same) or from unknown issuers (not used). */
  readonly warnings: readonly string[];
}

/**
 * Reads every list of a file. Fails as a whole on anything that does not parse or whose signature is bad: half a file would bring
 * revoked certificates back. A list of an issuer we do not know cannot be checked and is left out with a warning.
 * @param issuers certificates that may have signed: the roots and every intermediate we hold.
 */
export function readRevocations(bytes: Uint8Array, options: { readonly issuers: readonly CertificateFields[]; readonly nowMs: number }): Result<Revocations, string> {
  const blocks = splitFile(bytes);
  if (!blocks.ok) return blocks;
  const issuers = [...options.issuers, ...adoptIssuers(blocks.value.certificates, options)];
  const serialsByIssuer = new Map<string, Set<string>>();
  const warnings: string[] = [];
  for (const [index, der] of blocks.value.lists.entries()) {
    const list = readRevocationList(der);
    if (!list.ok) return err(`revocation list ${index}: ${list.error.message}`);
    const verdict = judgeList(list.value, issuers);
    if (verdict === "bad") return err(`revocation list ${index}: its signature is not that of its issuer`);
    if (verdict === "unknown") {
      warnings.push(`revocation list ${index} is from an issuer that is not known here and is not used; add the issuer's certificate to the file`);
      continue;
    }
    const { nextUpdateMs } = list.value;
    if (nextUpdateMs !== null && options.nowMs > nextUpdateMs) warnings.push(`revocation list ${index} should have been replaced by ${new Date(nextUpdateMs).toISOString()}; it is used all the same`);
    const serials = serialsByIssuer.get(list.value.issuerDerHex) ?? new Set();
    for (const serial of list.value.serials) serials.add(serial);
    serialsByIssuer.set(list.value.issuerDerHex, serials);
  }
  return ok({ serialsByIssuer, warnings });
}

function splitFile(bytes: Uint8Array): Result<{ readonly lists: Uint8Array[]; readonly certificates: CertificateFields[] }, string> {
  if (bytes.length > CRL_FILE_BYTES_MAX) return err(`the file has ${bytes.length} bytes, at most ${CRL_FILE_BYTES_MAX} are read`);
  if (bytes[0] === 0x30) return ok({ lists: [bytes], certificates: [] });
  const blocks = readPem(new TextDecoder().decode(bytes), CRL_FILE_BYTES_MAX);
  if (!blocks.ok) return err(blocks.error.message);
  const lists: Uint8Array[] = [];
  const certificates: CertificateFields[] = [];
  for (const block of blocks.value) {
    if (block.label === "X509 CRL") {
      lists.push(block.der);
    } else if (block.label === "CERTIFICATE") {
      const certificate = readCertificate(block.der);
      if (!certificate.ok) return err(`certificate in the file: ${certificate.error.message}`);
      certificates.push(certificate.value);
    } else {
      return err(`PEM block ${block.label}; wanted X509 CRL or CERTIFICATE`);
    }
  }
  if (lists.length === 0) return err("no X509 CRL in the file");
  if (lists.length + certificates.length > CRL_LISTS_MAX) return err(`more than ${CRL_LISTS_MAX} blocks in the file`);
  return ok({ lists, certificates });
}

/** Certificates of the file that lead to an issuer we know. An expired issuer still speaks for what it revoked. */
function adoptIssuers(certificates: readonly CertificateFields[], options: { readonly issuers: readonly CertificateFields[]; readonly nowMs: number }): CertificateFields[] {
  return certificates.filter((certificate) => {
    const nowMs = Math.min(options.nowMs, certificate.notAfterMs);
    const path = [certificate, ...certificates.filter((other) => other !== certificate && other.subjectDerHex === certificate.issuerDerHex)].slice(0, 2);
    return verifyChain({ chain: path, roots: options.issuers, nowMs }).ok;
  });
}

function judgeList(list: RevocationListFields, issuers: readonly CertificateFields[]): "good" | "bad" | "unknown" {
  const candidates = issuers.filter((issuer) => issuer.subjectDerHex === list.issuerDerHex
    && issuer.isCa
    && (issuer.keyUsage === null || (issuer.keyUsage & KEY_USAGE.crlSign) !== 0)
    && (list.authorityKeyIdHex === null || issuer.subjectKeyIdHex === null || list.authorityKeyIdHex === issuer.subjectKeyIdHex));
  if (candidates.length === 0) return "unknown";
  return candidates.some((issuer) => verifySignature({ ...list, publicKey: issuer.publicKey }) === "good") ? "good" : "bad";
}

/** The CA certificates that came with a node's own certificates: what CrlWatch wants as `issuers`. */
export function knownIssuers(svids: Iterable<{ readonly certificateChainPem: string; readonly trustBundlePem: string }>): CertificateFields[] {
  const known = new Map<string, CertificateFields>();
  const read = new Set<string>();
  for (const svid of svids) {
    for (const pem of [svid.certificateChainPem, svid.trustBundlePem]) {
      if (read.has(pem)) continue;
      read.add(pem);
      const certificates = readCertificates(pem);
      if (!certificates.ok) continue; // Checked when the certificate was accepted.
      for (const certificate of certificates.value) if (certificate.isCa) known.set(`${certificate.issuerDerHex} ${certificate.serialHex}`, certificate);
    }
  }
  return [...known.values()];
}

export interface CrlWatchOptions {
  readonly path: string;
  /** Asked at each reading: the issuers change with every renewal. */
  readonly issuers: () => readonly CertificateFields[];
  readonly wallMs: () => number;
  readonly timers: Timers;
  readonly onRevoked: (serialsByIssuer: SerialsByIssuer) => void;
  readonly onWarning: (code: "crl_unreadable" | "crl_warning", message: string) => void;
}

/** Keeps the revocations of one file current. The file may appear later; its directory must exist. */
export class CrlWatch {
  readonly #options: CrlWatchOptions;
  readonly #watcher: FSWatcher | null;
  #cancelPending: (() => void) | null = null;
  #closed = false;

  constructor(options: CrlWatchOptions) {
    this.#options = options;
    this.#watcher = this.#watch();
    this.reload();
  }

  /** Reads the file now. Call it also when the known issuers have changed. */
  reload(): void {
    const { path, issuers, wallMs, onRevoked, onWarning } = this.#options;
    const bytes = readOrExplain(path);
    const read = bytes.ok ? readRevocations(bytes.value, { issuers: issuers(), nowMs: wallMs() }) : bytes;
    if (!read.ok) {
      onWarning("crl_unreadable", `revocation file ${path}: ${read.error}; what was revoked before stays revoked`);
      return;
    }
    for (const warning of read.value.warnings) onWarning("crl_warning", `revocation file ${path}: ${warning}`);
    onRevoked(read.value.serialsByIssuer);
  }

  close(): void {
    this.#closed = true;
    this.#cancelPending?.();
    this.#watcher?.close();
  }

  /** Watches the directory: files are replaced by rename, and mounted secrets by swapping a link beside them. */
  #watch(): FSWatcher | null {
    const { path, onWarning } = this.#options;
    try {
      const name = basename(path);
      const watcher = watch(dirname(path), { persistent: false }, (_event, changed) => {
        if (changed === null || changed === name || changed.startsWith("..")) this.#schedule();
      });
      watcher.on("error", (cause) => onWarning("crl_unreadable", `revocation file ${path} is no longer watched: ${cause.message}`));
      return watcher;
    } catch (cause) {
      onWarning("crl_unreadable", `revocation file ${path} cannot be watched: ${cause instanceof Error ? cause.message : String(cause)}`);
      return null;
    }
  }

  /** Counts from the first change, so that a file which never comes to rest is still read. */
  #schedule(): void {
    if (this.#closed || this.#cancelPending !== null) return;
    this.#cancelPending = this.#options.timers.after(CRL_DEBOUNCE_MS, () => {
      this.#cancelPending = null;
      if (!this.#closed) this.reload();
    });
  }
}

function readOrExplain(path: string): Result<Uint8Array, string> {
  try {
    return ok(readFileSync(path));
  } catch (cause) {
    return err(cause instanceof Error ? cause.message : String(cause));
  }
}
