// Values that are dear to keep and cheap to make again: the schema of a kind takes hundreds of kilobytes, is needed while
// documents of that kind are read, and in most directories most kinds never occur.

/** Makes the value when it is first asked for, and again when the collector took it away in between. `make` must always make the same. */
export function collectable<T extends object>(make: () => T): () => T {
  let kept: WeakRef<T> | null = null;
  return () => {
    const known = kept?.deref();
    if (known !== undefined) return known;
    const made = make();
    kept = new WeakRef(made);
    return made;
  };
}
