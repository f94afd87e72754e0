// Protobuf messages written by hand, field by field number, so that tests do not check generated code with itself.

const text = new TextEncoder();

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 127) {
    bytes.push((rest % 128) | 128);
    rest = Math.floor(rest / 128);
  }
  return [...bytes, rest];
}

/** A string, bytes or message field. */
export function field(number: number, value: string | Uint8Array | readonly number[]): number[] {
  const bytes = typeof value === "string" ? text.encode(value) : value;
  return [...varint(number * 8 + 2), ...varint(bytes.length), ...bytes];
}

/** A varint field: integers, enums, booleans. */
export function number(field: number, value: number): number[] {
  return [...varint(field * 8), ...varint(value)];
}

export const message = (...fields: readonly (readonly number[])[]): Uint8Array<ArrayBuffer> => Uint8Array.from(fields.flat());
