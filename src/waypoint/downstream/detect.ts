// Which protocol a client speaks, by its first bytes: HTTP/2 with prior knowledge, HTTP/1, or something else.

import { isToken } from "../../wire/http/field-bytes.ts";

export type Detected = "HTTP/2" | "HTTP/1" | "other";

const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");
/** Longest method that is looked for; anything longer is no HTTP that we would serve. */
const METHOD_BYTES_MAX = 32;
const SPACE = 0x20;

/**
 * @param bytes the first ones of a connection; at least one.
 * @param declared HTTP: what is not HTTP/2 is for the HTTP/1 engine to judge.
 * @returns null when more bytes are needed: at most 24.
 */
export function detect(bytes: Uint8Array, declared: "HTTP" | "unknown"): Detected | null {
  const length = Math.min(bytes.length, PREFACE.length);
  let same = 0;
  while (same < length && bytes[same] === PREFACE[same]) same++;
  if (same === PREFACE.length) return "HTTP/2";
  if (same === bytes.length) return null;
  return declared === "HTTP" ? "HTTP/1" : beginsRequest(bytes);
}

/** `METHOD /`, `METHOD *` or `METHOD http…`: a token in capitals, a space, and the beginning of a target. */
function beginsRequest(bytes: Uint8Array): Detected | null {
  let at = 0;
  while (at < bytes.length && at <= METHOD_BYTES_MAX && bytes[at]! >= 0x41 && bytes[at]! <= 0x5a) at++;
  if (at === bytes.length && at <= METHOD_BYTES_MAX) return null;
  if (at === 0 || at > METHOD_BYTES_MAX || bytes[at] !== SPACE || !isToken(Buffer.from(bytes.subarray(0, at)).toString("latin1"))) return "other";
  if (at + 1 === bytes.length) return null;
  const next = bytes[at + 1]!;
  return next === 0x2f || next === 0x2a || next === 0x68 ? "HTTP/1" : "other";
}
