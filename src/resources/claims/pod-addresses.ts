// Whose pod has which address. Pods have their addresses from the network, not from whoever wrote them: what else claims one is wrong.

import type { IpAddress } from "../../core/ip.ts";

export interface AddressOwner {
  readonly namespace: string;
}

export class PodAddresses<Owner extends AddressOwner> {
  /** A list only where several have it: one that ends, and the next that got its address. */
  readonly #owners = new Map<IpAddress, Owner | Owner[]>();

  add(owner: Owner, addresses: readonly IpAddress[]): void {
    for (const ip of addresses) {
      const found = this.#owners.get(ip);
      if (found === undefined) this.#owners.set(ip, owner);
      else if (Array.isArray(found)) found.push(owner);
      else this.#owners.set(ip, [found, owner]);
    }
  }

  remove(owner: Owner, addresses: readonly IpAddress[]): void {
    for (const ip of addresses) {
      const found = this.#owners.get(ip);
      if (found === owner) this.#owners.delete(ip);
      else if (Array.isArray(found)) {
        const rest = found.filter((other) => other !== owner);
        if (rest.length === 0) this.#owners.delete(ip);
        else this.#owners.set(ip, rest.length === 1 ? rest[0]! : rest);
      }
    }
  }

  /** Whether a pod of another namespace than `namespace` has the address. */
  isForeign(ip: IpAddress, namespace: string): boolean {
    const found = this.#owners.get(ip);
    if (found === undefined) return false;
    return Array.isArray(found) ? found.some((owner) => owner.namespace !== namespace) : found.namespace !== namespace;
  }

  /** Every address, with its namespaces. */
  *[Symbol.iterator](): IterableIterator<readonly [ip: IpAddress, namespace: string]> {
    for (const [ip, found] of this.#owners) {
      if (Array.isArray(found)) for (const { namespace } of found) yield [ip, namespace];
      else yield [ip, found.namespace];
    }
  }
}
