// What answers of rate-limit and authorisation services may do to a message: headers to set, append or remove. They come from another
// process, so that each name and value is checked, and their number and size is bounded.

import { err, ok, type Result } from "../../core/result.ts";
import { isConnectionSpecific } from "../../wire/http/fields.ts";
import { isName, isValue } from "../../wire/http/field-bytes.ts";
import { ANSWER_HEADER_BYTES_MAX, ANSWER_HEADERS_MAX } from "./defaults.ts";

/** `append`: beside what is there; `addIfAbsent`, `setIfPresent`: only then; `set`: instead of what is there. */
export type HeaderAction = "append" | "addIfAbsent" | "set" | "setIfPresent";

export interface AnswerHeader {
  readonly action: HeaderAction;
  /** Lower case. */
  readonly name: string;
  /** One char per byte. */
  readonly value: string;
}

export interface SentHeader {
  readonly action: HeaderAction;
  readonly name: string;
  /** Text, to be sent as UTF-8; or bytes when `raw` is not empty. */
  readonly text: string;
  readonly raw: Uint8Array;
}

/**
 * Checks headers that a service sent. Pseudo headers, Host and those of the connection are left out: routing and framing are decided
 * already. Anything that no header may be makes the whole answer unusable: half of it must not be enforced.
 */
export function checkHeaders(sent: readonly SentHeader[]): Result<readonly AnswerHeader[], string> {
  if (sent.length > ANSWER_HEADERS_MAX) return err(`${sent.length} headers, wanted at most ${ANSWER_HEADERS_MAX}`);
  const operations: AnswerHeader[] = [];
  let size = 0;
  for (const { action, name: given, text, raw } of sent) {
    const name = given.toLowerCase();
    const value = raw.length > 0 ? latin1(raw) : latin1(new TextEncoder().encode(text));
    size += name.length + value.length;
    if (size > ANSWER_HEADER_BYTES_MAX) return err(`headers of more than ${ANSWER_HEADER_BYTES_MAX} bytes`);
    if (!isName(name)) return err(`a header named ${JSON.stringify(given)}, which is no name`);
    if (!isValue(value)) return err(`a value of header ${name} with bytes that no header may have`);
    if (isOurs(name)) continue;
    operations.push({ action, name, value });
  }
  return ok(operations);
}

/** Names to remove; those that may not be removed are left out. */
export function checkRemovals(names: readonly string[]): Result<readonly string[], string> {
  if (names.length > ANSWER_HEADERS_MAX) return err(`${names.length} headers to remove, wanted at most ${ANSWER_HEADERS_MAX}`);
  const checked: string[] = [];
  for (const given of names) {
    const name = given.toLowerCase();
    if (!isName(name)) return err(`a header named ${JSON.stringify(given)} to remove, which is no name`);
    if (!isOurs(name)) checked.push(name);
  }
  return ok(checked);
}

function isOurs(name: string): boolean {
  return name.startsWith(":") || isConnectionSpecific(name);
}

function latin1(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
