// Sets of items by key, as a plain map of sets: a key is there while something is under it.

export function addTo<K, T>(index: Map<K, Set<T>>, key: K, item: T): void {
  const known = index.get(key);
  if (known === undefined) index.set(key, new Set([item]));
  else known.add(item);
}

export function removeFrom<K, T>(index: Map<K, Set<T>>, key: K, item: T): void {
  const known = index.get(key);
  if (known === undefined) return;
  known.delete(item);
  if (known.size === 0) index.delete(key);
}
