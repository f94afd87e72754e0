// base64url without padding (RFC 4648, section 5), of text as UTF-8.

import { wireText } from "./wire-text.ts";

const decoder = new TextDecoder();

export function toBase64Url(text: string): string {
  return btoa(wireText(text)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Of text that was checked before: throws on what is no base64url. */
export function fromBase64Url(text: string): string {
  return decoder.decode(Uint8Array.fromBase64(text, { alphabet: "base64url" }));
}
