// Claims of a token as text that rules compare with: by a path into the payload, lists one by one, numbers and truth values as JSON
// writes them. What is neither (an object, null) is no value.

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export interface JsonObject {
  readonly [name: string]: JsonValue;
}

const NO_VALUES: readonly string[] = Object.freeze([]);

/**
 * The texts that a claim holds; empty when it is not there.
 * @param spaceDelimited claims at the top whose text is a list separated by spaces, e.g. `scope`.
 */
export function claimTexts(payload: JsonObject, path: readonly string[], spaceDelimited: readonly string[]): readonly string[] {
  const value = claimAt(payload, path);
  if (value === undefined) return NO_VALUES;
  if (typeof value === "string") {
    const isList = path.length === 1 && spaceDelimited.includes(path[0]!);
    return isList ? value.split(" ").filter((part) => part !== "") : [value];
  }
  if (Array.isArray(value)) return value.map(scalarText).filter((text) => text !== null);
  const text = scalarText(value);
  return text === null ? NO_VALUES : [text];
}

/** Own members only: `constructor` is no claim of anybody's. */
export function claimAt(payload: JsonObject, path: readonly string[]): JsonValue | undefined {
  let value: JsonValue = payload;
  for (const name of path) {
    if (!isObject(value) || !Object.hasOwn(value, name)) return undefined;
    value = value[name]!;
  }
  return value;
}

export function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function scalarText(value: JsonValue): string | null {
  return typeof value === "string" ? value : typeof value === "number" || typeof value === "boolean" ? String(value) : null;
}
