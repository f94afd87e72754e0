// Which certificates are revoked, and the signed lists that say so: `revoked.json` is the record, `crl.pem` (a list for every issuer that
// has leaves alive, with the issuers' certificates, so that a reader can check all of them) and `crl.der` (the present issuer's) are
// made from it.

import { z } from "zod";
import { err, ok, type Result } from "../core/result.ts";
import type { PrivateDirectory } from "../identity/private-directory.ts";
import { writePem } from "../wire/x509/pem.ts";
import { createRevocationList, type Issuer } from "./authority.ts";
import type { IssuanceLog, IssuanceRecord } from "./issuance-log.ts";

export const CRL_LIFETIME_MS = 7 * 24 * 3_600_000;
/** Entries leave the list some time after their certificate has run out (RFC 5280 section 3.3 wants one more list with them). */
const ENTRY_GRACE_MS = 24 * 3_600_000;
/** A certificate lives a day; more revocations at once than this is a case for a new intermediate. */
export const REVOKED_MAX = 50_000;

const RECORD_FILE = "revoked.json";
export const CRL_PEM_FILE = "crl.pem";
export const CRL_DER_FILE = "crl.der";

const Stored = z.strictObject({
  version: z.literal(1),
  crlNumber: z.number().int().nonnegative(),
  writtenAtMs: z.number(),
  entries: z.array(z.strictObject({
    serial: z.string().regex(/^([0-9a-f]{2}){1,20}$/),
    issuer: z.string().regex(/^([0-9a-f]{2})+$/),
    identity: z.string(),
    revokedAtMs: z.number(),
    notAfterMs: z.number(),
  })),
});
type StoredRevocations = z.infer<typeof Stored>;

export class RevocationStore {
  readonly #directory: PrivateDirectory;
  readonly #log: IssuanceLog;
  readonly #issuers: () => readonly Issuer[];
  #stored: StoredRevocations;
  #writtenFor = "";

  /** @param issuers the present one first. Throws when the record on disk cannot be read: starting without it would bring certificates back. */
  constructor(options: { readonly directory: PrivateDirectory; readonly log: IssuanceLog; readonly issuers: () => readonly Issuer[] }) {
    this.#directory = options.directory;
    this.#log = options.log;
    this.#issuers = options.issuers;
    const text = this.#directory.read(RECORD_FILE);
    this.#stored = text === null ? { version: 1, crlNumber: 0, writtenAtMs: 0, entries: [] } : Stored.parse(JSON.parse(text));
  }

  get revokedCount(): number {
    return this.#stored.entries.length;
  }

  /** Revokes one certificate. @returns what it was; or why not, in words. */
  revokeSerial(serialHex: string, nowMs: number): Result<IssuanceRecord, string> {
    const serial = serialHex.toLowerCase().replaceAll(":", "");
    const record = this.#log.find((candidate) => candidate.serialHex === serial).at(-1);
    if (record === undefined) return err(`no certificate with the serial ${serial} is in the record of this CA`);
    const revoked = this.#revoke([record], nowMs);
    return revoked.ok ? ok(record) : revoked;
  }

  /** Revokes every certificate of an identity that is still valid. @returns how many. */
  revokeIdentity(identity: string, nowMs: number): Result<number, string> {
    const records = this.#log.find((candidate) => candidate.identity === identity && candidate.notAfterMs >= nowMs);
    return records.length === 0 ? err(`no valid certificate for ${identity} is in the record of this CA`) : this.#revoke(records, nowMs);
  }

  /** Drops entries that are over and rewrites the lists when they are half-way to their end or the issuers have changed. */
  maintain(nowMs: number): void {
    const entries = this.#stored.entries.filter((entry) => entry.notAfterMs + ENTRY_GRACE_MS > nowMs);
    const dropped = entries.length < this.#stored.entries.length;
    const old = nowMs - this.#stored.writtenAtMs >= CRL_LIFETIME_MS / 2 || nowMs < this.#stored.writtenAtMs;
    if (dropped || old || this.#writtenFor !== this.#issuerKey()) this.#write(entries, nowMs);
  }

  #revoke(records: readonly IssuanceRecord[], nowMs: number): Result<number, string> {
    const known = new Set(this.#stored.entries.map((entry) => `${entry.issuer} ${entry.serial}`));
    const fresh = records.filter((record) => !known.has(`${record.issuerDerHex} ${record.serialHex}`));
    if (this.#stored.entries.length + fresh.length > REVOKED_MAX) return err(`${REVOKED_MAX} certificates are revoked already; make a new intermediate instead`);
    const entries = fresh.map((record) => ({ serial: record.serialHex, issuer: record.issuerDerHex, identity: record.identity, revokedAtMs: nowMs, notAfterMs: record.notAfterMs }));
    this.#write([...this.#stored.entries, ...entries], nowMs);
    return ok(fresh.length);
  }

  /** The record first: after a crash in between, `maintain` at the next start writes the lists from it. */
  #write(entries: StoredRevocations["entries"], nowMs: number): void {
    this.#stored = { version: 1, crlNumber: this.#stored.crlNumber + 1, writtenAtMs: nowMs, entries };
    this.#directory.write(RECORD_FILE, JSON.stringify(this.#stored, null, 1));
    let pem = "";
    for (const [index, issuer] of this.#issuers().entries()) {
      const der = createRevocationList({
        issuer,
        entries: entries.filter((entry) => entry.issuer === issuer.certificate.subjectDerHex).map((entry) => ({ serialHex: entry.serial, revokedAtMs: entry.revokedAtMs })),
        number: this.#stored.crlNumber,
        nowMs,
        lifetimeMs: CRL_LIFETIME_MS,
      });
      if (index === 0) this.#directory.write(CRL_DER_FILE, der);
      pem += writePem("X509 CRL", der) + issuer.chainPem.join("");
    }
    this.#directory.write(CRL_PEM_FILE, pem);
    this.#writtenFor = this.#issuerKey();
  }

  #issuerKey(): string {
    return this.#issuers().map((issuer) => issuer.certificate.serialHex).join();
  }
}
