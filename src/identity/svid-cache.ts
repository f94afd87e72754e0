// The certificates of this node: does what svid-plan.ts decides. Runs fetches, timers and the store. One per node.

import type { Clock, Random } from "../core/ports.ts";
import { err, type Result, unreachable } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Timers } from "../net/timers.ts";
import type { CertificateSource } from "./certificate-source.ts";
import { assembleSvid } from "./chain.ts";
import type { CertificateRequest } from "./csr.ts";
import type { Svid, SvidPriority } from "./svid.ts";
import { awaited, type FetchFailure, heldSvid, newSvidCacheState, nextAlarmMs, step, type SvidCacheState, type SvidEffect, type SvidEvent, type Times } from "./svid-plan.ts";

/** A fetch that takes longer than this gives its slot back; the source has been told to stop. */
export const FETCH_TIMEOUT_MS = 30_000;

/** Where certificates outlive the process. Both may throw; the cache reports it and goes on from memory. */
export interface SvidStore {
  save(svid: Svid): void;
  remove(spiffeId: SpiffeId): void;
}

export interface SvidCacheOptions {
  readonly source: CertificateSource;
  readonly store: SvidStore | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly timers: Timers;
  /** Lifetime to ask for. */
  readonly lifetimeMs: number;
  /** Makes key and request; passed in so that tests need not. */
  readonly createRequest: (spiffeId: SpiffeId) => CertificateRequest;
  readonly onPublish: (svid: Svid) => void;
  readonly onDrop: (spiffeId: SpiffeId) => void;
  /** A fetch failed. It is tried again. */
  readonly onFailed: (spiffeId: SpiffeId, message: string) => void;
  /** Connections that wait for it are to end. */
  readonly onUnavailable: (spiffeId: SpiffeId, message: string) => void;
  readonly onWarning: (code: string, message: string) => void;
}

export interface SvidSummary {
  readonly spiffeId: SpiffeId;
  readonly workloads: number;
  readonly work: "idle" | "waiting" | "fetching" | "backingOff";
  /** Why the last fetch failed, while the next is waited for. */
  readonly failure: string | null;
  readonly certificate: Omit<Svid, "privateKeyPem"> | null;
}

export interface SvidCacheCounters {
  fetches: number;
  fetchFailures: number;
  renewals: number;
  expiries: number;
}

export class SvidCache {
  readonly counters: SvidCacheCounters = { fetches: 0, fetchFailures: 0, renewals: 0, expiries: 0 };
  readonly #options: SvidCacheOptions;
  readonly #state: SvidCacheState;
  readonly #aborts = new Map<number, AbortController>();
  #cancelAlarm: (() => void) | null = null;
  #destroyed = false;

  constructor(options: SvidCacheOptions) {
    this.#options = options;
    this.#state = newSvidCacheState(options.random);
  }

  /** Takes certificates from an earlier run; call before anything else. */
  restore(svids: readonly Svid[]): void {
    for (const svid of svids) this.#run({ kind: "restored", svid });
  }

  /** A workload with this identity appeared on the node; call once for each workload. */
  workloadAdded(spiffeId: SpiffeId): void {
    this.#run({ kind: "workloadAdded", spiffeId });
  }

  workloadRemoved(spiffeId: SpiffeId): void {
    this.#run({ kind: "workloadRemoved", spiffeId });
  }

  /** Answered by onPublish or onUnavailable, at once when the answer is known. */
  need(spiffeId: SpiffeId, priority: SvidPriority): void {
    this.#run({ kind: "needed", spiffeId, priority });
  }

  renew(spiffeId: SpiffeId): void {
    this.#run({ kind: "renew", spiffeId });
  }

  get(spiffeId: SpiffeId): Svid | null {
    return heldSvid(this.#state, spiffeId, this.#now());
  }

  /** What is held and what is being done about it, for the admin port: without the keys. */
  list(): SvidSummary[] {
    return [...this.#state.entries.values()].map((entry) => ({
      spiffeId: entry.spiffeId,
      workloads: entry.workloads,
      work: entry.work.kind,
      failure: entry.work.kind === "backingOff" ? entry.work.message : null,
      certificate: entry.svid === null ? null : withoutKey(entry.svid),
    }));
  }

  /** What workloads here wait for: no certificate yet, and nobody has said that there will be none. */
  get awaited(): readonly SpiffeId[] {
    return awaited(this.#state, this.#now());
  }

  destroy(): void {
    this.#destroyed = true;
    this.#cancelAlarm?.();
    for (const abort of this.#aborts.values()) abort.abort(new Error("the certificate cache is closing"));
    this.#aborts.clear();
  }

  #now(): Times {
    return { monotonicMs: this.#options.clock.monotonicMs(), wallMs: this.#options.clock.wallMs() };
  }

  #run(event: SvidEvent): void {
    if (this.#destroyed) return;
    for (const effect of step(this.#state, event, this.#now())) this.#do(effect);
    this.#setAlarm();
  }

  #do(effect: SvidEffect): void {
    const { store } = this.#options;
    switch (effect.kind) {
      case "fetch":
        this.#fetch(effect.fetchId, effect.spiffeId);
        return;
      case "cancelFetch":
        this.#aborts.get(effect.fetchId)?.abort(new Error("no workload needs this identity any more"));
        this.#aborts.delete(effect.fetchId);
        return;
      case "publish":
        this.#options.onPublish(effect.svid);
        return;
      case "drop":
        if (effect.forget) this.#tryStore("svid_remove_failed", () => store?.remove(effect.spiffeId));
        else this.counters.expiries++;
        this.#options.onDrop(effect.spiffeId);
        return;
      case "failed":
        this.#options.onFailed(effect.spiffeId, effect.message);
        return;
      case "unavailable":
        this.#options.onUnavailable(effect.spiffeId, effect.message);
        return;
      default:
        return unreachable(effect);
    }
  }

  #fetch(fetchId: number, spiffeId: SpiffeId): void {
    const abort = new AbortController();
    this.#aborts.set(fetchId, abort);
    const cancelTimeout = this.#options.timers.after(FETCH_TIMEOUT_MS, () => {
      abort.abort(new Error(`no answer within ${FETCH_TIMEOUT_MS} ms`));
      settle(err({ message: `certificate for ${spiffeId}: the CA did not answer within ${FETCH_TIMEOUT_MS} ms` }));
    });
    const settle = (result: Result<Svid, FetchFailure>): void => {
      cancelTimeout();
      if (!this.#aborts.delete(fetchId)) return; // Cancelled, or already timed out.
      this.counters.fetches++;
      if (!result.ok) this.counters.fetchFailures++;
      else this.#keep(result.value);
      this.#run(result.ok ? { kind: "fetched", fetchId, spiffeId, svid: result.value } : { kind: "fetchFailed", fetchId, spiffeId, ...result.error });
    };
    void this.#issue(spiffeId, abort.signal).then(settle, (cause: unknown) => {
      settle(err({ message: `certificate for ${spiffeId}: ${cause instanceof Error ? cause.message : String(cause)}` }));
    });
  }

  async #issue(spiffeId: SpiffeId, signal: AbortSignal): Promise<Result<Svid, FetchFailure>> {
    const { source, lifetimeMs, createRequest } = this.#options;
    const request = createRequest(spiffeId);
    const issued = await source.issue({ spiffeId, csrPem: request.csrPem, lifetimeMs, signal });
    if (!issued.ok) return err({ message: issued.error.message, refused: issued.error.code === "refused" });
    const svid = assembleSvid({
      spiffeId,
      chainPem: issued.value.chainPem.join(""),
      privateKeyPem: request.privateKeyPem,
      trustBundlePem: issued.value.trustBundlePem,
      nowMs: this.#options.clock.wallMs(),
    });
    return svid.ok ? svid : err({ message: `the CA's answer for ${spiffeId} cannot be used: ${svid.error}` });
  }

  /** On disk before it is used, so that a crash in between loses nothing. */
  #keep(svid: Svid): void {
    if (this.#state.entries.get(svid.spiffeId)?.svid != null) this.counters.renewals++;
    this.#tryStore("svid_save_failed", () => this.#options.store?.save(svid));
  }

  #tryStore(code: string, action: () => void): void {
    try {
      action();
    } catch (cause) {
      this.#options.onWarning(code, cause instanceof Error ? cause.message : String(cause));
    }
  }

  #setAlarm(): void {
    this.#cancelAlarm?.();
    const now = this.#now();
    const atMs = nextAlarmMs(this.#state, now);
    this.#cancelAlarm = atMs === null ? null : this.#options.timers.after(Math.max(1, atMs - now.monotonicMs), () => this.#run({ kind: "tick" }));
  }
}

function withoutKey(svid: Svid): Omit<Svid, "privateKeyPem"> {
  const { privateKeyPem: _kept, ...rest } = svid;
  return rest;
}
