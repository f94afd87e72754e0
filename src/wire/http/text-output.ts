// Text into an output buffer: one char is one byte. Nothing here checks what it writes; see fields.ts for that.

import { copyBytes } from "./copy-bytes.ts";
import { latin1Write } from "./latin1.ts";
import type { OutputBuffer } from "./output-buffer.ts";

export function writeText(output: OutputBuffer, text: string): void {
  const at = output.reserve(text.length);
  latin1Write(output.bytes, text, at);
}

export function writeBytes(output: OutputBuffer, bytes: Uint8Array): void {
  const at = output.reserve(bytes.length);
  copyBytes(bytes, 0, bytes.length, output.bytes, at);
}
