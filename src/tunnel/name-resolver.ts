// Addresses of workloads that are known by a DNS name only: resolved on demand by the node's resolver, kept for a short while.

import { lookup } from "node:dns";
import { type IpAddress, isIpv6, parseIp } from "../core/ip.ts";

/** getaddrinfo tells no TTL; long enough to spare the resolver, short enough to follow a failover. */
export const KEEP_MS = 30_000;
export const NAMES_MAX = 4096;

interface Entry {
  addresses: readonly IpAddress[];
  untilMs: number;
  waiting: ((addresses: readonly IpAddress[]) => void)[] | null;
}

export class NameResolver {
  readonly #entries = new Map<string, Entry>();

  /** Calls back with one address of `hostname`, of the wanted family if there is one; null when the name has none. */
  resolve(hostname: string, family: 4 | 6, nowMs: number, done: (ip: IpAddress | null) => void): void {
    const answer = (addresses: readonly IpAddress[]) => done(addresses.find((ip) => isIpv6(ip) === (family === 6)) ?? addresses[0] ?? null);
    const kept = this.#entries.get(hostname);
    if (kept?.waiting != null) return void kept.waiting.push(answer);
    if (kept !== undefined && kept.untilMs > nowMs) return answer(kept.addresses);
    const entry: Entry = { addresses: [], untilMs: nowMs + KEEP_MS, waiting: [answer] };
    this.#makeRoom();
    this.#entries.set(hostname, entry);
    lookup(hostname, { all: true }, (error, found) => {
      entry.addresses = error === null ? found.map(({ address }) => parseIp(address)).filter((ip) => ip !== null) : [];
      // A failure is not kept: the next connection asks again.
      if (entry.addresses.length === 0 && this.#entries.get(hostname) === entry) this.#entries.delete(hostname);
      const waiting = entry.waiting!;
      entry.waiting = null;
      for (const tell of waiting) tell(entry.addresses);
    });
  }

  #makeRoom(): void {
    for (const [name, entry] of this.#entries) {
      if (this.#entries.size < NAMES_MAX) return;
      if (entry.waiting === null) this.#entries.delete(name);
    }
  }
}
