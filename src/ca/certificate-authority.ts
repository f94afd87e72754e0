// The CA as one thing: keys, record, revocations and their upkeep. What `weft up` and `weft ca` open; the port (server.ts) and the
// in-process source are fed from it. Brings no gRPC library in.

import { type Clock } from "../core/ports.ts";
import { RETRY_NEVER } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId, TrustDomain } from "../core/spiffe.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import type { Timers } from "../net/timers.ts";
import { type Authority, type IssuedCertificate, LEAF_LIFETIME_MS } from "./authority.ts";
import { type AuthorityStore, type AuthorityStoreFault, openAuthority, type PlugInCa } from "./authority-store.ts";
import { InProcessSource } from "./in-process-source.ts";
import { IssuanceLog } from "./issuance-log.ts";
import { RevocationStore } from "./revocation-store.ts";

export const LEAF_LIFETIME_MS_MAX = 7 * LEAF_LIFETIME_MS;
/** Renewals are due weeks ahead; an hour is soon enough for all of them. */
const UPKEEP_MS = 3_600_000;

export interface CertificateAuthorityOptions {
  /** `<state>/ca`; made when missing, refused when others could read it. */
  readonly directory: string;
  readonly trustDomain: TrustDomain;
  /** Null makes and keeps a CA of its own. */
  readonly plugIn: PlugInCa | null;
  readonly clock: Clock;
  readonly timers: Timers;
  /** What was renewed, or should worry the operator. */
  readonly onNotice: (message: string) => void;
  /** The issuer or the roots have changed: servers with a certificate of this CA renew it. */
  readonly onChange: () => void;
  readonly leafLifetimeMs?: number;
  readonly leafLifetimeMsMax?: number;
  readonly organization?: string;
}

export function openCertificateAuthority(options: CertificateAuthorityOptions): Result<CertificateAuthority, AuthorityStoreFault> {
  const leafLifetimeMs = options.leafLifetimeMs ?? LEAF_LIFETIME_MS;
  const store = openAuthority({
    directory: options.directory,
    policy: { trustDomain: options.trustDomain, leafLifetimeMs, leafLifetimeMsMax: Math.max(leafLifetimeMs, options.leafLifetimeMsMax ?? LEAF_LIFETIME_MS_MAX) },
    organization: options.organization ?? options.trustDomain,
    plugIn: options.plugIn,
    nowMs: options.clock.wallMs(),
  });
  if (!store.ok) return store;
  try {
    return ok(new CertificateAuthority(store.value, options));
  } catch (cause) {
    return err({ code: "ca_state", message: `the CA cannot start from ${options.directory}: ${cause instanceof Error ? cause.message : String(cause)}`, blame: "operator", dies: "process", retry: RETRY_NEVER });
  }
}

export class CertificateAuthority {
  readonly store: AuthorityStore;
  readonly log: IssuanceLog;
  readonly revocations: RevocationStore;
  readonly #options: CertificateAuthorityOptions;
  #cancelUpkeep: () => void = () => {};
  #writable = true;

  constructor(store: AuthorityStore, options: CertificateAuthorityOptions) {
    this.store = store;
    this.#options = options;
    this.log = new IssuanceLog(store.directory);
    this.revocations = new RevocationStore({ directory: store.directory, log: this.log, issuers: () => store.issuers });
    this.upkeep();
  }

  get authority(): Authority {
    return this.store.authority;
  }

  /** Where the data plane finds the signed lists. */
  get crlPath(): string {
    return `${this.store.directory.path}/crl.pem`;
  }

  /** The roots in PEM, for clients of the port. */
  get rootPath(): string {
    return `${this.store.directory.path}/root-cert.pem`;
  }

  /** For `record` of the port and of sources. */
  readonly record = (issued: IssuedCertificate, caller: string): void => {
    this.log.append(issued, caller, this.#options.clock.wallMs());
  };

  /** A source for the node in this process. @param mayHave the identities of its own workloads. */
  source(mayHave: (id: SpiffeId) => boolean): CertificateSource {
    return new InProcessSource({ authority: this.authority, clock: this.#options.clock, mayHave, record: this.record });
  }

  /** Does what is due; runs by itself every hour. */
  upkeep(): void {
    const { clock, timers, onNotice, onChange } = this.#options;
    if (!this.#writable) return;
    const before = `${this.authority.issuer.certificate.serialHex} ${this.authority.trustBundlePem}`;
    try {
      for (const notice of this.store.maintain(clock.wallMs())) onNotice(notice);
      this.revocations.maintain(clock.wallMs());
    } catch (cause) {
      onNotice(`the CA's upkeep failed and is tried again in an hour: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    if (before !== `${this.authority.issuer.certificate.serialHex} ${this.authority.trustBundlePem}`) onChange();
    this.#cancelUpkeep();
    this.#cancelUpkeep = timers.after(UPKEEP_MS, () => this.upkeep());
  }

  /** False: another process owns the files from now on. What is here still signs, and is not renewed. */
  setWritable(writable: boolean): void {
    if (writable === this.#writable) return;
    this.#writable = writable;
    this.#cancelUpkeep();
    if (writable) this.upkeep();
  }

  destroy(): void {
    this.#cancelUpkeep();
    this.log.close();
  }
}
