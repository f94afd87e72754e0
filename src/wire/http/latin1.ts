// Bytes to strings and back, one char per byte. Buffer's own methods, which the type declarations do not name, on any Uint8Array.

interface Latin1Methods {
  latin1Slice(this: Uint8Array, start: number, end: number): string;
  latin1Write(this: Uint8Array, text: string, at: number, length: number): number;
}

const methods = Buffer.prototype as unknown as Latin1Methods;

export function latin1Slice(bytes: Uint8Array, start: number, end: number): string {
  return methods.latin1Slice.call(bytes, start, end);
}

export function latin1Write(bytes: Uint8Array, text: string, at: number): void {
  methods.latin1Write.call(bytes, text, at, text.length);
}
