// base64url without padding (RFC 4648, section 5), of text as UTF-8.

import { wireText } from "./wire-text.ts";

export function toBase64Url(text: string): string {
  return btoa(wireText(text)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Of text that was checked before: throws on what is no base64url. */
export function fromBase64Url(text: string): string {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(binary, (c) => c.charCodeAt(0)));
}
