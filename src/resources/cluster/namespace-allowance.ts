// How much the objects of one namespace may take: whoever may write there may write as much as the API server stores, and the control plane
// works for every namespace. What comes when there is no room is not kept; its names are, so that it is known when all of it is gone.

/** Objects of one namespace, of all kinds but Pods, which nodes bound: more than a mesh of 10 000 workloads in one namespace has. */
export const NAMESPACE_OBJECTS_MAX = 20_000;
/** Their size (object-size.ts): some 3 KiB for each of them, or forty of the largest that an API server takes. */
export const NAMESPACE_CHARS_MAX = 64 * 1024 * 1024;
/** Policies of one namespace: each workload names all that select it. */
const POLICIES_MAX = 2_000;
const KINDS_MAX: Readonly<Record<string, number>> = { AuthorizationPolicy: POLICIES_MAX, PeerAuthentication: POLICIES_MAX, LoginPolicy: POLICIES_MAX };
/** Names remembered of what was not kept. With more than these nobody knows when all is gone: policies stay denied until the control plane starts again. */
const REFUSED_MAX = 20_000;
/** There is room again below this share: one that writes at the bound would be listed anew with every change. */
const ROOM_SHARE = 0.9;

export interface NamespaceUse {
  readonly objects: number;
  readonly chars: number;
  /** Not kept. */
  readonly refused: number;
}

interface Namespace {
  readonly sizes: Map<string, number>;
  /** Of the kinds that have a bound of their own. */
  readonly counts: Map<string, number>;
  chars: number;
  /** By kind. */
  readonly refused: Map<string, Set<string>>;
  refusedCount: number;
  overflowed: boolean;
}

export class NamespaceAllowance {
  readonly #namespaces = new Map<string, Namespace>();

  /** Takes an object in the place of what it was before; false when there is no room, and what it was before stays. */
  take(namespace: string, kind: string, name: string, chars: number): boolean {
    const of = this.#of(namespace);
    const key = `${kind}/${name}`;
    const before = of.sizes.get(key);
    const count = Object.hasOwn(KINDS_MAX, kind) ? (of.counts.get(kind) ?? 0) + (before === undefined ? 1 : 0) : 0;
    if (count > (KINDS_MAX[kind] ?? 0) || of.sizes.size + (before === undefined ? 1 : 0) > NAMESPACE_OBJECTS_MAX || of.chars - (before ?? 0) + chars > NAMESPACE_CHARS_MAX) {
      this.#refuse(of, kind, name);
      return false;
    }
    of.sizes.set(key, chars);
    if (count > 0) of.counts.set(kind, count);
    of.chars += chars - (before ?? 0);
    this.#unrefuse(of, kind, name);
    return true;
  }

  release(namespace: string, kind: string, name: string): void {
    const of = this.#namespaces.get(namespace);
    if (of === undefined) return;
    const key = `${kind}/${name}`;
    of.chars -= of.sizes.get(key) ?? 0;
    if (of.sizes.delete(key) && of.counts.has(kind)) of.counts.set(kind, of.counts.get(kind)! - 1);
    this.#unrefuse(of, kind, name);
    if (of.sizes.size === 0 && of.refusedCount === 0 && !of.overflowed) this.#namespaces.delete(namespace);
  }

  /** Whether an object of this kind was not kept, and is still there as far as is known. */
  lacks(namespace: string, kind: string): boolean {
    const of = this.#namespaces.get(namespace);
    return of !== undefined && (of.overflowed || (of.refused.get(kind)?.size ?? 0) > 0);
  }

  /** Namespaces of which something was not kept. */
  *full(): IterableIterator<readonly [namespace: string, use: NamespaceUse]> {
    for (const [namespace, { sizes, chars, refusedCount, overflowed }] of this.#namespaces) if (refusedCount > 0 || overflowed) yield [namespace, { objects: sizes.size, chars, refused: refusedCount }];
  }

  /** Something was not kept that may find room now. */
  hasRoomAgain(namespace: string): boolean {
    const of = this.#namespaces.get(namespace);
    return of !== undefined && (of.refusedCount > 0 || of.overflowed) && of.sizes.size < NAMESPACE_OBJECTS_MAX * ROOM_SHARE && of.chars < NAMESPACE_CHARS_MAX * ROOM_SHARE && [...of.counts].every(([kind, count]) => (of.refused.get(kind)?.size ?? 0) === 0 || count < KINDS_MAX[kind]! * ROOM_SHARE);
  }

  #refuse(of: Namespace, kind: string, name: string): void {
    const names = of.refused.get(kind) ?? new Set();
    of.refused.set(kind, names);
    if (names.has(name)) return;
    if (of.refusedCount >= REFUSED_MAX) {
      of.overflowed = true;
      return;
    }
    names.add(name);
    of.refusedCount++;
  }

  #unrefuse(of: Namespace, kind: string, name: string): void {
    if (of.refused.get(kind)?.delete(name) === true) of.refusedCount--;
  }

  #of(namespace: string): Namespace {
    const found = this.#namespaces.get(namespace);
    if (found !== undefined) return found;
    const made: Namespace = { sizes: new Map(), counts: new Map(), chars: 0, refused: new Map(), refusedCount: 0, overflowed: false };
    this.#namespaces.set(namespace, made);
    return made;
  }
}
