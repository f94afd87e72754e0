// The resources of one type that are the same for everybody, in the order in which they changed last. A client that has everything up to
// one state finds what came after it without a scan, and nothing is kept for it but that number.

import { ITEMS_PER_STEP, type Steps } from "../../core/steps.ts";
import type { EncodedResource } from "../resource.ts";

export interface Entry {
  readonly name: string;
  /** Null: it was removed. Kept until no client can be without the news. */
  readonly resource: EncodedResource | null;
  /** State in which it changed last. */
  readonly state: number;
}

interface Link extends Entry {
  resource: EncodedResource | null;
  state: number;
  older: Link | null;
  newer: Link | null;
}

export class ChangeTable {
  readonly #links = new Map<string, Link>();
  #newest: Link | null = null;
  /** Removals that are still remembered, in the order in which they came. */
  readonly #removed = new Set<Link>();

  /** @returns false when nothing changed: the content is what it was. */
  set(resource: EncodedResource, state: number): boolean {
    const link = this.#links.get(resource.name);
    if (link === undefined) {
      const added: Link = { name: resource.name, resource, state, older: null, newer: null };
      this.#links.set(resource.name, added);
      this.#append(added);
      return true;
    }
    if (link.resource?.version === resource.version) return false;
    this.#removed.delete(link);
    link.resource = resource;
    this.#move(link, state);
    return true;
  }

  remove(name: string, state: number): boolean {
    const link = this.#links.get(name);
    if (link === undefined || link.resource === null) return false;
    link.resource = null;
    this.#removed.add(link);
    this.#move(link, state);
    return true;
  }

  /** Undefined for what is not there, or no longer. */
  get(name: string): EncodedResource | undefined {
    return this.#links.get(name)?.resource ?? undefined;
  }

  /** What is there, in no particular order. */
  *all(): IterableIterator<EncodedResource> {
    for (const { resource } of this.#links.values()) if (resource !== null) yield resource;
  }

  /** What changed after `state`, removals included, newest first. Costs what it yields. */
  *changedAfter(state: number): IterableIterator<Entry> {
    for (let link = this.#newest; link !== null && link.state > state; link = link.older) yield link;
  }

  /** State of the last change; 0 before the first. */
  get lastState(): number {
    return this.#newest?.state ?? 0;
  }

  get size(): number {
    return this.#links.size - this.#removed.size;
  }

  /** Removals that are still remembered. */
  get removedCount(): number {
    return this.#removed.size;
  }

  /** Forgets removals of `state` and before: every client has been told. Costs what it forgets. */
  *forgetRemoved(state: number): Steps<void> {
    let forgotten = 0;
    for (const link of this.#removed) {
      if (link.state > state) return;
      if (++forgotten % ITEMS_PER_STEP === 0) yield;
      this.#unlink(link);
      this.#links.delete(link.name);
      this.#removed.delete(link);
    }
  }

  #move(link: Link, state: number): void {
    link.state = state;
    if (this.#newest === link) return;
    this.#unlink(link);
    this.#append(link);
  }

  #append(link: Link): void {
    link.older = this.#newest;
    link.newer = null;
    if (this.#newest !== null) this.#newest.newer = link;
    this.#newest = link;
  }

  #unlink(link: Link): void {
    if (link.older !== null) link.older.newer = link.newer;
    if (link.newer !== null) link.newer.older = link.older;
    if (this.#newest === link) this.#newest = link.older;
    link.older = null;
    link.newer = null;
  }
}
