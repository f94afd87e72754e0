// The resources in force, found by what they are called, by their kind and by the namespace that they are in.

import type { Resource } from "../kinds.ts";
import { homeOf } from "../namespace-resources.ts";
import { identityKey, type Placed, type ResourceIdentity } from "../resource.ts";

export interface Entry {
  readonly placed: Placed<Resource>;
  /** In the place of a policy that could never be read. */
  readonly standIn: boolean;
}

export class EntryTable {
  readonly #byHome = new Map<string, Map<string, Entry>>();
  readonly #byKind = new Map<string, Map<string, Entry>>();
  /** Where something came, went or changed. */
  readonly #touched = new Set<string>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(identity: ResourceIdentity): Entry | undefined {
    return this.#byKind.get(identity.kind)?.get(nameOf(identity));
  }

  has(identity: ResourceIdentity): boolean {
    return this.get(identity) !== undefined;
  }

  set(identity: ResourceIdentity, entry: Entry): void {
    if (!this.has(identity)) this.#size++;
    const home = homeOf(entry.placed);
    put(this.#byKind, identity.kind, nameOf(identity), entry);
    put(this.#byHome, home, identityKey(identity), entry);
    this.#touched.add(home);
  }

  delete(identity: ResourceIdentity): boolean {
    const entry = this.get(identity);
    if (entry === undefined) return false;
    const home = homeOf(entry.placed);
    drop(this.#byKind, identity.kind, nameOf(identity));
    drop(this.#byHome, home, identityKey(identity));
    this.#touched.add(home);
    this.#size--;
    return true;
  }

  /** Everything of one namespace, in the order in which it came. */
  at(home: string): readonly Placed<Resource>[] {
    return [...(this.#byHome.get(home)?.values() ?? [])].map(({ placed }) => placed);
  }

  ofKind<K extends Resource["kind"]>(kind: K): Placed<Extract<Resource, { readonly kind: K }>>[] {
    return [...(this.#byKind.get(kind)?.values() ?? [])].map(({ placed }) => placed).filter((placed): placed is Placed<Extract<Resource, { readonly kind: K }>> => placed.resource.kind === kind);
  }

  /** Namespaces of which something is not as it was at the last call. */
  takeTouched(): string[] {
    const touched = [...this.#touched];
    this.#touched.clear();
    return touched;
  }
}

const nameOf = ({ namespace, name }: ResourceIdentity): string => `${namespace}/${name}`;

function put(index: Map<string, Map<string, Entry>>, key: string, name: string, entry: Entry): void {
  const known = index.get(key);
  if (known === undefined) index.set(key, new Map([[name, entry]]));
  else known.set(name, entry);
}

function drop(index: Map<string, Map<string, Entry>>, key: string, name: string): void {
  const known = index.get(key);
  known?.delete(name);
  if (known?.size === 0) index.delete(key);
}
