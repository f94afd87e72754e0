// How much room an object takes, for bounds: its characters and a flat charge for each value, without writing it down as JSON first. An
// empty map is two characters of JSON and sixty bytes of memory: the charge is what bounds a list of a million of those.

/** For each value, whatever it is: what the smallest of them takes here. */
const VALUE_CHARGE = 16;

/**
 * Pure; keeps nothing of `value`, which is what JSON can say, however deep.
 * @returns characters of all keys and texts, and VALUE_CHARGE for each value.
 */
export function sizeOf(value: Readonly<Record<string, unknown>>): number {
  let size = 0;
  const open: object[] = [value];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    size += VALUE_CHARGE;
    if (Array.isArray(at)) {
      for (const item of at as readonly unknown[]) size += sizeOfLeaf(item, open);
      continue;
    }
    for (const key in at) size += key.length + sizeOfLeaf((at as Readonly<Record<string, unknown>>)[key], open);
  }
  return size;
}

/** Maps and lists are left for later. */
function sizeOfLeaf(value: unknown, open: object[]): number {
  if (typeof value === "string") return VALUE_CHARGE + value.length;
  if (typeof value !== "object" || value === null) return VALUE_CHARGE;
  open.push(value);
  return 0;
}
