// The waypoint's own certificate: asked of the CA when a data thread needs it, renewed before it expires, kept over restarts; and the list
// of those that were revoked.

import { err, ok, type Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { CrlWatch, knownIssuers } from "../identity/crl.ts";
import { createRequest } from "../identity/csr.ts";
import { SvidCache, systemTimers } from "../identity/svid-cache.ts";
import { openSvidStore } from "../identity/svid-store.ts";
import type { Runtime } from "../runtime/runtime.ts";
import type { Settings } from "../runtime/settings.ts";
import type { WorkerThreads } from "../runtime/worker-threads.ts";
import type { FromWaypoint, ToWaypoint } from "./messages.ts";

export class Certificates {
  readonly #svids: SvidCache;
  readonly #crl: CrlWatch | null;
  readonly #closeSource: () => void;
  readonly #known = new Set<SpiffeId>();

  private constructor(svids: SvidCache, crl: CrlWatch | null, closeSource: () => void) {
    this.#svids = svids;
    this.#crl = crl;
    this.#closeSource = closeSource;
  }

  static async open(settings: Settings, { clock, random, log: allLogs }: Runtime, threads: WorkerThreads<ToWaypoint, FromWaypoint>): Promise<Result<Certificates, string>> {
    const log = allLogs.scope("waypoint");
    const store = openSvidStore(`${settings.state}/svids`);
    if (!store.ok) return err(store.error);
    const restored = store.value.load(clock.wallMs());
    for (const reason of restored.ignored) log.warn("a stored certificate was passed over", { reason });
    // The gRPC library is a tenth of the process's memory: it comes in only where certificates travel over a wire.
    const source = (await import("../runtime/grpc-certificates.ts")).grpcCertificates(settings);
    let crl: CrlWatch | null = null;
    const svids = new SvidCache({
      source, store: store.value, clock, random, timers: systemTimers, lifetimeMs: settings.certificateLifetimeMs, createRequest,
      onPublish: (svid) => {
        threads.post({ kind: "svid", svid });
        crl?.reload();
      },
      onDrop: (spiffeId) => threads.post({ kind: "svidDropped", spiffeId }),
      onFailed: (spiffeId, message) => {
        threads.post({ kind: "svidFailed", spiffeId, message });
        log.warn(message, { code: "certificate_failed" });
      },
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
    return ok(new Certificates(svids, crl, () => source.destroy()));
  }

  /** A data thread waits for it. */
  need(spiffeId: SpiffeId): void {
    if (!this.#known.has(spiffeId)) {
      this.#known.add(spiffeId);
      this.#svids.workloadAdded(spiffeId);
    }
    this.#svids.need(spiffeId, "realtime");
  }

  /** Asks for every certificate anew; how many. */
  renew(): number {
    for (const spiffeId of this.#known) this.#svids.renew(spiffeId);
    return this.#known.size;
  }

  async close(): Promise<void> {
    this.#crl?.close();
    this.#svids.destroy();
    this.#closeSource();
  }
}
