// What the status of each object would say: what it comes to by itself, without what others take from it.

import { formatFieldPath } from "../diagnostic.ts";
import type { Placed, ResourceOf } from "../resource.ts";
import type { LostParent } from "./route-conflicts.ts";
import { condition, type ResourceStatus } from "./status.ts";

type AnyPlaced = Placed<ResourceOf<string, unknown>>;

export class Statuses {
  readonly #own = new Map<AnyPlaced, ResourceStatus>();
  readonly #lost = new Map<string, readonly LostParent[]>();
  /** By resource, and by who says so. */
  readonly #lostOf = new Map<AnyPlaced, Map<string, readonly LostParent[]>>();
  /** Of those that lost something. */
  readonly #reduced = new Map<AnyPlaced, ResourceStatus>();
  #list: readonly ResourceStatus[] | null = null;

  /** The same list as before while nothing is another. */
  get list(): readonly ResourceStatus[] {
    return (this.#list ??= [...this.#own].map(([placed, status]) => this.#reduced.get(placed) ?? status));
  }

  /** @param status null takes it away. */
  set(placed: AnyPlaced, status: ResourceStatus | null): void {
    if (status === (this.#own.get(placed) ?? null)) return;
    if (status === null) this.#own.delete(placed);
    else this.#own.set(placed, status);
    this.#reduce(placed);
  }

  /** @param source what the list is about, the only one to speak of it. */
  setLost(source: string, lost: readonly LostParent[]): void {
    const before = this.#lost.get(source) ?? [];
    if (before.length === 0 && lost.length === 0) return;
    if (lost.length === 0) this.#lost.delete(source);
    else this.#lost.set(source, lost);
    const after = Map.groupBy(lost, ({ placed }) => placed);
    for (const placed of new Set([...before.map((one) => one.placed), ...after.keys()])) {
      const sources = this.#lostOf.get(placed) ?? new Map<string, readonly LostParent[]>();
      const own = after.get(placed);
      if (own === undefined) sources.delete(source);
      else sources.set(source, own);
      if (sources.size === 0) this.#lostOf.delete(placed);
      else this.#lostOf.set(placed, sources);
      this.#reduce(placed);
    }
  }

  #reduce(placed: AnyPlaced): void {
    this.#list = null;
    const own = this.#own.get(placed);
    const sources = this.#lostOf.get(placed);
    if (own === undefined || sources === undefined) this.#reduced.delete(placed);
    else this.#reduced.set(placed, reduced(own, [...sources].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, lost]) => lost)));
  }
}

function reduced(status: ResourceStatus, lost: readonly LostParent[]): ResourceStatus {
  const byPath = new Map(lost.map((one) => [formatFieldPath(one.path), one]));
  return {
    ...status,
    parents: status.parents.map((parent) => {
      const conflict = byPath.get(formatFieldPath(parent.path));
      if (conflict === undefined) return parent;
      return { ...parent, conditions: parent.conditions.map((one) => (one.type === "Accepted" ? condition("Accepted", false, "Conflicted", conflict.message) : one)) };
    }),
  };
}
