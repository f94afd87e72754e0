// A header list as HTTP/2 has it and as everything above the engines may use it: plain strings, no bytes of any chunk behind them.

/** name, value, name, value, … in the order of the wire; pseudo headers first; names in lower case; one char per byte. */
export type HeaderList = string[];

/** The first value of `name` (lower case), or undefined. */
export function headerValue(list: readonly string[], name: string): string | undefined {
  for (let i = 0; i < list.length; i += 2) if (list[i] === name) return list[i + 1];
  return undefined;
}

/** The same fields, as pairs of name and value. */
export function headerPairs(list: readonly string[]): [name: string, value: string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i < list.length; i += 2) pairs.push([list[i]!, list[i + 1]!]);
  return pairs;
}

/** Every value of `name`, in order. */
export function headerValues(list: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i < list.length; i += 2) if (list[i] === name) values.push(list[i + 1]!);
  return values;
}
