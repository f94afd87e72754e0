// Objects that are not in force as they stand in the API, and why. Of those that a namespace had no room for some are told one by one.

import { describeIdentity, identityKey, type ResourceIdentity } from "../resource.ts";
import { type ClusterDiagnostic, fullness } from "./cluster-diagnostic.ts";

export interface BrokenObject {
  readonly identity: ResourceIdentity;
  readonly diagnostics: readonly ClusterDiagnostic[];
}

/** Objects of one namespace that were not kept and are told one by one. */
const REFUSED_TOLD_MAX = 100;

export class BrokenObjects {
  readonly #broken = new Map<string, BrokenObject>();
  /** Objects of each namespace that were not kept, and whose status says so. */
  readonly #refusedTold = new Map<string, Set<string>>();

  get size(): number {
    return this.#broken.size;
  }

  values(): IterableIterator<BrokenObject> {
    return this.#broken.values();
  }

  copy(): ReadonlyMap<string, BrokenObject> {
    return new Map(this.#broken);
  }

  set(broken: BrokenObject): void {
    this.#broken.set(identityKey(broken.identity), broken);
  }

  /** @returns false when nothing was wrong with it. */
  delete(identity: ResourceIdentity): boolean {
    const key = identityKey(identity);
    if (!this.#broken.delete(key)) return false;
    const told = this.#refusedTold.get(identity.namespace);
    if (told?.delete(key) === true && told.size === 0) this.#refusedTold.delete(identity.namespace);
    return true;
  }

  /** Its namespace has no room for it. @returns false when there are so many of these that nothing will be told of it. */
  noticeRefused(identity: ResourceIdentity): boolean {
    const told = this.#refusedTold.get(identity.namespace) ?? new Set();
    const key = identityKey(identity);
    if (!told.has(key) && told.size >= REFUSED_TOLD_MAX) return false;
    this.#refusedTold.set(identity.namespace, told.add(key));
    return true;
  }

  /** @param outcome what holds in its place. */
  setRefused(identity: ResourceIdentity, outcome: string): void {
    this.noticeRefused(identity);
    this.set({ identity, diagnostics: [{ severity: "error", code: "too_many_documents", resource: describeIdentity(identity), fieldPath: "", message: `${fullness(identity.namespace)}; ${outcome}` }] });
  }
}
