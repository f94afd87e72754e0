// The waypoint's own certificate: asked of the CA when a data thread needs it, renewed before it expires, kept over restarts; and the list
// of those that were revoked.

import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { CertificateSource } from "../identity/certificate-source.ts";
import { CrlWatch, knownIssuers } from "../identity/crl.ts";
import { createRequest } from "../identity/csr.ts";
import { SvidCache } from "../identity/svid-cache.ts";
import { systemTimers } from "../net/timers.ts";
import { openSvidStore } from "../identity/svid-store.ts";
import type { CertificateState } from "../runtime/config-dump.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { WorkerThreads } from "../runtime/worker-threads.ts";
import type { FromWaypoint, ToWaypoint } from "./messages.ts";

export interface CertificatesOptions {
  readonly settings: Settings;
  readonly runtime: Runtime;
  readonly threads: WorkerThreads<ToWaypoint, FromWaypoint>;
  readonly source: CertificateSource;
  /** Where certificates are kept; null keeps none. */
  readonly directory: string | null;
}

export class Certificates {
  readonly #svids: SvidCache;
  readonly #crl: CrlWatch | null;
  readonly #known = new Set<SpiffeId>();

  private constructor(svids: SvidCache, crl: CrlWatch | null) {
    this.#svids = svids;
    this.#crl = crl;
  }

  static open({ settings, runtime: { clock, random, log: allLogs }, threads, source, directory }: CertificatesOptions): Result<Certificates, string> {
    const log = allLogs.scope("waypoint");
    const store = directory === null ? null : openSvidStore(directory);
    if (store !== null && !store.ok) return err(store.error);
    const restored = store?.value.load(clock.wallMs()) ?? { svids: [], ignored: [] };
    for (const reason of restored.ignored) log.warn("a stored certificate was passed over", { reason });
    let crl: CrlWatch | null = null;
    const svids = new SvidCache({
      source, store: store?.value ?? null, clock, random, timers: systemTimers, lifetimeMs: settings.certificateLifetimeMs, createRequest,
      onPublish: (svid) => {
        threads.post({ kind: "svid", svid });
        crl?.reload();
      },
      onDrop: (spiffeId) => threads.post({ kind: "svidDropped", spiffeId }),
      onUnavailable: (spiffeId, message) => threads.post({ kind: "svidFailed", spiffeId, message }),
      onFailed: (_spiffeId, message) => log.warn(message, { code: "certificate_failed" }),
      onWarning: (code, message) => log.warn(message, { code }),
    });
    const held = () => svids.list().flatMap(({ certificate }) => (certificate === null ? [] : [certificate]));
    if (settings.crl !== null) {
      crl = new CrlWatch({
        path: settings.crl, issuers: () => knownIssuers(held()), wallMs: () => clock.wallMs(), timers: systemTimers,
        onRevoked: (serialsByIssuer) => threads.post({ kind: "revoked", serialsByIssuer }),
        onWarning: (code, message) => (held().length === 0 ? undefined : log.warn(message, { code })),
      });
    }
    svids.restore(restored.svids);
    return ok(new Certificates(svids, crl));
  }

  /** A data thread waits for it. */
  need(spiffeId: SpiffeId): void {
    if (!this.#known.has(spiffeId)) {
      this.#known.add(spiffeId);
      this.#svids.workloadAdded(spiffeId);
    }
    this.#svids.need(spiffeId, "realtime");
  }

  states(): readonly CertificateState[] {
    return this.#svids.list().map(({ spiffeId, failure, certificate }) => ({ spiffeId, failure, certificate }));
  }

  /** Asks for every certificate anew; how many. */
  renew(): number {
    for (const spiffeId of this.#known) this.#svids.renew(spiffeId);
    return this.#known.size;
  }

  /** The source stays its owner's. */
  close(): void {
    this.#crl?.close();
    this.#svids.destroy();
  }
}
