// The certificates this data thread may use, by identity, each with its ready-made TLS context; and the connections that
// wait for one. A renewed certificate replaces the context; live connections keep the one they began with.

import type { SpiffeId } from "../core/spiffe.ts";
import type { Svid } from "../identity/svid.ts";
import { createTlsContext, type TlsContext } from "../net/tls.ts";

/** Called once: true when the certificate is there, false when it could not be had. */
export type IdentityWaiter = (available: boolean) => void;

interface Entry {
  context: TlsContext | null;
  notAfterMs: number;
  serial: string;
  waiters: IdentityWaiter[];
  /** Why it could not be had when it was last asked for; "" for nothing. */
  failure: string;
}

export class IdentityTable {
  readonly #entries = new Map<SpiffeId, Entry>();
  readonly #ask: (id: SpiffeId) => void;

  /** @param ask tells the main thread that a connection waits for this identity. */
  constructor(ask: (id: SpiffeId) => void) {
    this.#ask = ask;
  }

  /** The context to use now; null when there is none or it has expired. */
  tlsContext(id: SpiffeId, wallMs?: number): TlsContext | null {
    const entry = this.#entries.get(id);
    if (entry === undefined || entry.context === null) return null;
    return wallMs !== undefined && entry.notAfterMs <= wallMs ? null : entry.context;
  }

  /** Calls back when a certificate for `id` is there, at once when it is; asks the main thread for it otherwise. */
  whenAvailable(id: SpiffeId, waiter: IdentityWaiter): void {
    const entry = this.#entry(id);
    if (entry.context !== null) {
      waiter(true);
      return;
    }
    entry.waiters.push(waiter);
    if (entry.waiters.length === 1) this.#ask(id);
  }

  /** Returns true when it replaced an older certificate of the same identity. Throws when the material does not parse. */
  put(svid: Svid): boolean {
    const context = createTlsContext(svid);
    const entry = this.#entry(svid.spiffeId);
    const replaced = entry.context !== null && entry.serial !== svid.serial;
    entry.context = context;
    entry.notAfterMs = svid.notAfterMs;
    entry.serial = svid.serial;
    entry.failure = "";
    release(entry, true);
    return replaced;
  }

  /** @param why for a person. */
  failed(id: SpiffeId, why: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    entry.failure = why;
    release(entry, false);
  }

  /** That there is no certificate, and why, as far as that is known. */
  explain(id: SpiffeId): string {
    const why = this.#entries.get(id)?.failure ?? "";
    return `no certificate for ${id}${why === "" ? "" : `: ${why}`}`;
  }

  drop(id: SpiffeId): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    this.#entries.delete(id);
    release(entry, false);
  }

  get size(): number {
    return this.#entries.size;
  }

  #entry(id: SpiffeId): Entry {
    let entry = this.#entries.get(id);
    if (entry === undefined) {
      entry = { context: null, notAfterMs: 0, serial: "", waiters: [], failure: "" };
      this.#entries.set(id, entry);
    }
    return entry;
  }
}

function release(entry: Entry, available: boolean): void {
  const waiters = entry.waiters;
  entry.waiters = [];
  for (const waiter of waiters) waiter(available);
}
