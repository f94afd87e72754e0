// Who may begin a TLS handshake with us, before a byte of it is read: a cap on handshakes under way, in all and for each source, and a
// budget of failures for each source. A storm from one address costs the others nothing but the accept. Pure; one per data thread.

import { type IpAddress, ipToBytes, isIpv6 } from "../core/ip.ts";
import type { RateLimit } from "../wire/http2/limits.ts";

/** Each holds some 50 KiB of TLS state, so this is 50 MiB at worst. */
export const HANDSHAKES_MAX = 1_024;
/** What one pod's ztunnel may need when it opens tunnels for 25 000 waiting connections; a storm from one address stops here. */
export const HANDSHAKES_PER_SOURCE_MAX = 256;
/** An honest peer with a certificate that we refuse tries again a few times a second. Each failure costs us a signature. */
export const HANDSHAKE_FAILURES: RateLimit = { burst: 200, perSecond: 20 };
/** Sources remembered; beyond it those with nothing under way are forgotten first, and their budget with them. */
export const HANDSHAKE_SOURCES_MAX = 8_192;

export type HandshakeRefusal = "source" | "total" | "failures";

/** A handshake that may be given up for another source's sake. */
export interface Handshake {
  /** Ends it: another source, with fewer under way, takes its place. */
  evict(): void;
}

interface Source {
  readonly key: string;
  readonly underWay: Set<Handshake>;
  /** Failures not yet forgiven, as of `debtAtMs`. */
  debt: number;
  debtAtMs: number;
}

export class HandshakeGate {
  readonly #sources = new Map<string, Source>();
  readonly #of = new Map<Handshake, Source>();
  readonly #nowMs: () => number;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  get underWay(): number {
    return this.#of.size;
  }

  get sourceCount(): number {
    return this.#sources.size;
  }

  /** Null: it may begin, and `ended` must be told its end. Otherwise why not. */
  begin(handshake: Handshake, ip: IpAddress): HandshakeRefusal | null {
    const source = this.#source(sourceKey(ip));
    if (this.#debt(source) >= HANDSHAKE_FAILURES.burst) return "failures";
    if (source.underWay.size >= HANDSHAKES_PER_SOURCE_MAX) return "source";
    if (this.#of.size >= HANDSHAKES_MAX && !this.#makeRoom(source)) return "total";
    source.underWay.add(handshake);
    this.#of.set(handshake, source);
    return null;
  }

  /** Idempotent. `failed` counts against its source. */
  ended(handshake: Handshake, failed: boolean): void {
    const source = this.#of.get(handshake);
    if (source === undefined) return;
    this.#of.delete(handshake);
    source.underWay.delete(handshake);
    if (failed) {
      const owed = this.#debt(source);
      if (owed === 0) source.debtAtMs = this.#nowMs();
      source.debt = owed + 1;
    } else if (source.underWay.size === 0 && source.debt === 0) {
      this.#sources.delete(source.key);
    }
  }

  /** Forgets sources that have nothing under way and have behaved for a while. Call about once a second. */
  tick(): void {
    for (const source of this.#sources.values()) {
      if (source.underWay.size === 0 && this.#debt(source) === 0) this.#sources.delete(source.key);
    }
  }

  /** The oldest handshake of the source with most of them gives way, when that source has more than the newcomer's would. */
  #makeRoom(newcomer: Source): boolean {
    let heaviest = newcomer;
    for (const source of this.#sources.values()) if (source.underWay.size > heaviest.underWay.size) heaviest = source;
    if (heaviest.underWay.size <= newcomer.underWay.size + 1) return false;
    const [oldest] = heaviest.underWay;
    if (oldest === undefined) return false;
    this.ended(oldest, true);
    oldest.evict();
    return true;
  }

  #debt(source: Source): number {
    if (source.debt === 0) return 0;
    const nowMs = this.#nowMs();
    source.debt = Math.max(0, source.debt - ((nowMs - source.debtAtMs) / 1000) * HANDSHAKE_FAILURES.perSecond);
    source.debtAtMs = nowMs;
    return source.debt;
  }

  #source(key: string): Source {
    let source = this.#sources.get(key);
    if (source !== undefined) return source;
    if (this.#sources.size >= HANDSHAKE_SOURCES_MAX) this.#forgetOne();
    source = { key, underWay: new Set(), debt: 0, debtAtMs: 0 };
    this.#sources.set(key, source);
    return source;
  }

  /** There is always one: fewer handshakes may be under way than sources are remembered. */
  #forgetOne(): void {
    for (const source of this.#sources.values()) {
      if (source.underWay.size > 0) continue;
      this.#sources.delete(source.key);
      return;
    }
  }
}

/** Who holds one IPv6 address holds its /64. */
function sourceKey(ip: IpAddress): string {
  return isIpv6(ip) ? ipToBytes(ip).subarray(0, 8).toHex() : ip;
}
