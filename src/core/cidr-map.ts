// Values by CIDR, found by longest prefix. One hash map per prefix length in use: a look-up costs as many probes as there are
// distinct lengths, whatever the number of entries.

import { type Cidr, type IpAddress, ipToBytes, isIpv6 } from "./ip.ts";

export class CidrMap<T> {
  /** Longest prefix first. Keys are the masked address: a number for IPv4, text for IPv6. */
  readonly #v4: { readonly length: number; readonly entries: Map<number, T> }[] = [];
  readonly #v6: { readonly length: number; readonly entries: Map<string, T> }[] = [];

  get isEmpty(): boolean {
    return this.#v4.length === 0 && this.#v6.length === 0;
  }

  get(cidr: Cidr): T | undefined {
    return cidr.family === 4
      ? this.#v4.find((level) => level.length === cidr.prefixLength)?.entries.get(key4(cidr.bytes, cidr.prefixLength))
      : this.#v6.find((level) => level.length === cidr.prefixLength)?.entries.get(key6(cidr.bytes, cidr.prefixLength));
  }

  set(cidr: Cidr, value: T): void {
    if (cidr.family === 4) levelFor(this.#v4, cidr.prefixLength).set(key4(cidr.bytes, cidr.prefixLength), value);
    else levelFor(this.#v6, cidr.prefixLength).set(key6(cidr.bytes, cidr.prefixLength), value);
  }

  delete(cidr: Cidr): void {
    if (cidr.family === 4) removeFrom(this.#v4, cidr.prefixLength, key4(cidr.bytes, cidr.prefixLength));
    else removeFrom(this.#v6, cidr.prefixLength, key6(cidr.bytes, cidr.prefixLength));
  }

  /** Offers the values of every CIDR that contains `ip` to `accept`, longest prefix first, until it returns something other than undefined. */
  find<R>(ip: IpAddress, accept: (value: T) => R | undefined): R | undefined {
    if (isIpv6(ip)) {
      if (this.#v6.length === 0) return undefined;
      const bytes = ipToBytes(ip);
      for (const level of this.#v6) {
        const value = level.entries.get(key6(bytes, level.length));
        const result = value === undefined ? undefined : accept(value);
        if (result !== undefined) return result;
      }
      return undefined;
    }
    if (this.#v4.length === 0) return undefined;
    const bytes = ipToBytes(ip);
    for (const level of this.#v4) {
      const value = level.entries.get(key4(bytes, level.length));
      const result = value === undefined ? undefined : accept(value);
      if (result !== undefined) return result;
    }
    return undefined;
  }

  /** True when any CIDR contains `ip`. */
  contains(ip: IpAddress): boolean {
    return this.find(ip, () => true) === true;
  }
}

function levelFor<K, T>(levels: { readonly length: number; readonly entries: Map<K, T> }[], length: number): Map<K, T> {
  let at = 0;
  while (at < levels.length && levels[at]!.length > length) at++;
  const found = levels[at];
  if (found !== undefined && found.length === length) return found.entries;
  const entries = new Map<K, T>();
  levels.splice(at, 0, { length, entries });
  return entries;
}

function removeFrom<K, T>(levels: { readonly length: number; readonly entries: Map<K, T> }[], length: number, key: K): void {
  const at = levels.findIndex((level) => level.length === length);
  if (at < 0) return;
  levels[at]!.entries.delete(key);
  if (levels[at]!.entries.size === 0) levels.splice(at, 1);
}

function key4(bytes: Uint8Array, length: number): number {
  const address = ((bytes[0]! << 24) | (bytes[1]! << 16) | (bytes[2]! << 8) | bytes[3]!) >>> 0;
  return length === 0 ? 0 : (address & (0xffffffff << (32 - length))) >>> 0;
}

function key6(bytes: Uint8Array, length: number): string {
  const whole = length >> 3;
  let key = "";
  for (let i = 0; i < whole; i++) key += String.fromCharCode(bytes[i]!);
  const rest = length & 7;
  if (rest !== 0) key += String.fromCharCode(bytes[whole]! & (0xff << (8 - rest)));
  return key;
}
