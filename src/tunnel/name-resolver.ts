// Addresses of workloads that are known by a DNS name only: asked of the machine's resolver, kept for as long as their TTL says within
// bounds. An answer that fails takes nothing away: the addresses of the last good one stay in use, and the name is asked for again soon.

import { type IpAddress, isIpv6, parseIp } from "../core/ip.ts";
import type { Random } from "../core/ports.ts";

/** A TTL of nothing, or of days, is a slip: one would ask for each connection, the other would miss a failover. */
export const KEEP_MS_MIN = 5_000;
export const KEEP_MS_MAX = 300_000;
/** After a failure; doubled with each further one, up to the bound. */
export const RETRY_MS = 1_000;
export const RETRY_MS_MAX = 30_000;
/** What is so much older than it may be is used only when there is no new answer. */
export const STALE_MS_MAX = 60_000;
/** A name that nobody asked for in this time is no longer looked up. */
export const FORGET_MS = 600_000;
export const NAMES_MAX = 4096;
/** Of one name: more than any answer over UDP holds. */
export const ADDRESSES_MAX = 256;

export interface FoundAddress {
  readonly address: string;
  /** Seconds; 0 where there is none, as for a name of the hosts file. */
  readonly ttl: number;
}

/** Rejects when there is no answer. */
export type LookUp = (hostname: string) => Promise<readonly FoundAddress[]>;

/** The hosts file, the search list and the servers that the machine is set up with. */
export const systemLookUp: LookUp = (hostname) => Bun.dns.lookup(hostname, { backend: "c-ares" });

type Told = (addresses: readonly IpAddress[]) => void;

interface Entry {
  /** In order, without doubles. */
  addresses: readonly IpAddress[];
  /** Ask again from then on. */
  untilMs: number;
  failures: number;
  failure: string | null;
  askedMs: number;
  /** Null while no answer is awaited. */
  waiting: Told[] | null;
}

const NONE: readonly IpAddress[] = Object.freeze([]);

export interface NameResolverOptions {
  readonly random: Random;
  readonly nowMs: () => number;
  readonly lookUp?: LookUp;
}

export class NameResolver {
  readonly #random: Random;
  readonly #nowMs: () => number;
  readonly #lookUp: LookUp;
  readonly #entries = new Map<string, Entry>();
  /** Changes whenever the addresses of some name have changed. */
  version = 0;

  constructor({ random, nowMs, lookUp = systemLookUp }: NameResolverOptions) {
    this.#random = random;
    this.#nowMs = nowMs;
    this.#lookUp = lookUp;
  }

  /** Calls back with one address of `hostname`, any of the wanted family if there is one; null when the name has none. */
  resolve(hostname: string, family: 4 | 6, nowMs: number, done: (ip: IpAddress | null) => void): void {
    const answer: Told = (addresses) => {
      const wanted = addresses.filter((ip) => isIpv6(ip) === (family === 6));
      done(this.#oneOf(wanted.length > 0 ? wanted : addresses));
    };
    const entry = this.#entry(hostname, nowMs);
    if (entry.addresses.length > 0 && nowMs < entry.untilMs + STALE_MS_MAX) return answer(entry.addresses);
    if (entry.waiting === null) this.#ask(hostname, entry);
    entry.waiting!.push(answer);
  }

  /** One address of the family that `ip` is not of, where the name is known to have such. */
  ofOtherFamily(hostname: string, ip: IpAddress): IpAddress | null {
    return this.#oneOf((this.#entries.get(hostname)?.addresses ?? NONE).filter((other) => isIpv6(other) !== isIpv6(ip)));
  }

  /** What is known now, perhaps nothing yet; asks where that is too old. */
  addresses(hostname: string, nowMs: number): readonly IpAddress[] {
    return this.#entry(hostname, nowMs).addresses;
  }

  /** Why the last answer for a name failed; null when it did not. */
  failure(hostname: string): string | null {
    return this.#entries.get(hostname)?.failure ?? null;
  }

  /** Once a second or so: asks again for names in use whose time is over, so that no request waits for it. */
  tick(nowMs: number): void {
    for (const [hostname, entry] of this.#entries) {
      if (entry.waiting !== null) continue;
      if (nowMs - entry.askedMs > FORGET_MS) this.#entries.delete(hostname);
      else if (nowMs >= entry.untilMs) this.#ask(hostname, entry);
    }
  }

  #oneOf(addresses: readonly IpAddress[]): IpAddress | null {
    return addresses.length === 0 ? null : addresses[Math.floor(this.#random.next() * addresses.length)]!;
  }

  #entry(hostname: string, nowMs: number): Entry {
    let entry = this.#entries.get(hostname);
    if (entry === undefined) {
      this.#makeRoom();
      entry = { addresses: NONE, untilMs: -Infinity, failures: 0, failure: null, askedMs: nowMs, waiting: null };
      this.#entries.set(hostname, entry);
    }
    entry.askedMs = nowMs;
    if (nowMs >= entry.untilMs && entry.waiting === null) this.#ask(hostname, entry);
    return entry;
  }

  #ask(hostname: string, entry: Entry): void {
    entry.waiting = [];
    this.#found(hostname).then(
      (found) => this.#answered(entry, found, null),
      (error: unknown) => this.#answered(entry, [], error instanceof Error ? ((error as { code?: string }).code ?? error.message) : String(error)),
    );
  }

  /** What is no name at all is refused at once, by some resolvers by throwing. */
  #found(hostname: string): Promise<readonly FoundAddress[]> {
    try {
      return this.#lookUp(hostname);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #answered(entry: Entry, found: readonly FoundAddress[], error: string | null): void {
    const nowMs = this.#nowMs();
    const addresses = [...new Set(found.map(({ address }) => parseIp(address)).filter((ip) => ip !== null))].sort().slice(0, ADDRESSES_MAX);
    if (addresses.length === 0) {
      entry.failure = error ?? "the answer holds no address";
      entry.untilMs = nowMs + Math.min(RETRY_MS * 2 ** Math.min(entry.failures++, 10), RETRY_MS_MAX);
    } else {
      const ttlMs = Math.min(...found.map(({ ttl }) => ttl)) * 1000;
      entry.failure = null;
      entry.failures = 0;
      entry.untilMs = nowMs + Math.min(Math.max(ttlMs, KEEP_MS_MIN), KEEP_MS_MAX);
      if (addresses.join() !== entry.addresses.join()) {
        entry.addresses = addresses;
        this.version++;
      }
    }
    const waiting = entry.waiting!;
    entry.waiting = null;
    for (const tell of waiting) tell(entry.addresses);
  }

  #makeRoom(): void {
    for (const [name, entry] of this.#entries) {
      if (this.#entries.size < NAMES_MAX) return;
      if (entry.waiting === null) this.#entries.delete(name);
    }
  }
}
