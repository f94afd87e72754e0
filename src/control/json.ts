// Objects of the API as plain values.

export type Json = Readonly<Record<string, unknown>>;

export const isJson = (value: unknown): value is Json => value !== null && typeof value === "object" && !Array.isArray(value);

/** Equality of JSON, whatever the order of fields; a field that is missing is none that is empty. */
export function sameJson(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((item, index) => sameJson(item, b[index]));
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object" || Array.isArray(a) || Array.isArray(b)) return false;
  const [left, right] = [Object.entries(a), Object.keys(b)];
  return left.length === right.length && left.every(([key, value]) => Object.hasOwn(b, key) && sameJson(value, Reflect.get(b, key)));
}
