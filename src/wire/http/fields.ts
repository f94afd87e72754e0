// The fields of a message as routing, policy, logs and the other engine see them, whichever version of HTTP brought them: end-to-end
// fields only. What belongs to one connection or to the framing (Connection and what it names, TE, Transfer-Encoding, Content-Length,
// Upgrade, Expect) and the host are facts of the message (message.ts) and never in here.

import { isName, isValue } from "./field-bytes.ts";
import type { HeaderList } from "./header-list.ts";
import type { OutputBuffer } from "./output-buffer.ts";
import { writeText } from "./text-output.ts";

/** Names are given in lower case, values without white space at either end; one char per byte. */
export interface HttpFields {
  has(name: string): boolean;
  /** All values of `name` as one, joined with ", " (cookie: "; "): a rule that looks at the first only can be fooled by a second. */
  value(name: string): string | undefined;
  /** Every value of `name`, in order. */
  values(name: string): string[];
  remove(name: string): void;
  /** @param initials first letters, lower case, of the names that `test` may say yes to: others are not looked at. */
  removeWhere(initials: string, test: (name: string) => boolean): void;
  /** Throws on what may not stand in a message: our own fault, or the configuration's, never a peer's. */
  append(name: string, value: string): void;
  /** As `append`, unchecked: for what we write ourselves of characters that any field may have, once per request. */
  appendOwn(name: string, value: string): void;
  /** Takes the place of all fields of that name. Throws as `append`. */
  set(name: string, value: string): void;
  /** Adds name, value, … to `list`, names in lower case. */
  appendTo(list: HeaderList): void;
  /** Writes `name: value` CRLF for each. */
  writeLines(output: OutputBuffer): void;
}

const CONNECTION_SPECIFIC = new Set([
  "connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings", "content-length", "host", "expect",
]);

/** The engine decides these: from the message's facts, not from its fields. */
export function isConnectionSpecific(name: string): boolean {
  return CONNECTION_SPECIFIC.has(name);
}

/** What trailers may not say (RFC 9110, section 6.5.1): framing, routing, who is asking, how to treat the body. */
const NOT_IN_TRAILERS = new Set([
  ...CONNECTION_SPECIFIC, "trailer", "authorization", "proxy-authorization", "cookie", "set-cookie", "content-encoding", "content-type", "content-range", "max-forwards",
  "cache-control", "range",
]);

export function isForbiddenTrailer(name: string): boolean {
  return NOT_IN_TRAILERS.has(name);
}

/** Throws when the field may not be in a message. */
export function checkField(name: string, value: string): void {
  if (!isName(name) || name.charCodeAt(0) === 0x3a) throw new Error(`http: ${JSON.stringify(name)} is no field name in lower case`);
  if (!isValue(value)) throw new Error(`http: the value of ${name} has bytes that no field may have`);
  if (isConnectionSpecific(name)) throw new Error(`http: ${name} is for the engine to write`);
}

export function separatorOf(name: string): string {
  return name === "cookie" ? "; " : ", ";
}

/** Fields as plain strings: what HTTP/2 brings, and what we make ourselves. */
export class ListFields implements HttpFields {
  private list: HeaderList;
  /** The lines as they are written, made once: the same fields go out with many a response. */
  private lines: string | null = null;

  /** @param list kept; checked already, without pseudo headers and connection-specific fields. */
  constructor(list: HeaderList) {
    this.list = list;
  }

  /** Throws as `append`. */
  static of(list: readonly string[]): ListFields {
    for (let i = 0; i < list.length; i += 2) checkField(list[i]!, list[i + 1]!);
    return new ListFields([...list]);
  }

  has(name: string): boolean {
    for (let i = 0; i < this.list.length; i += 2) if (this.list[i] === name) return true;
    return false;
  }

  value(name: string): string | undefined {
    let found: string | undefined;
    for (let i = 0; i < this.list.length; i += 2) {
      if (this.list[i] === name) found = found === undefined ? this.list[i + 1] : found + separatorOf(name) + this.list[i + 1]!;
    }
    return found;
  }

  values(name: string): string[] {
    const found: string[] = [];
    for (let i = 0; i < this.list.length; i += 2) if (this.list[i] === name) found.push(this.list[i + 1]!);
    return found;
  }

  remove(name: string): void {
    if (!this.has(name)) return;
    this.lines = null;
    const kept: HeaderList = [];
    for (let i = 0; i < this.list.length; i += 2) if (this.list[i] !== name) kept.push(this.list[i]!, this.list[i + 1]!);
    this.list = kept;
  }

  removeWhere(initials: string, test: (name: string) => boolean): void {
    let doomed: string[] | null = null;
    for (let i = 0; i < this.list.length; i += 2) {
      const name = this.list[i]!;
      if (initials.includes(name[0]!) && test(name)) (doomed ??= []).push(name);
    }
    if (doomed !== null) for (const name of doomed) this.remove(name);
  }

  append(name: string, value: string): void {
    checkField(name, value);
    this.lines = null;
    this.list.push(name, value);
  }

  appendOwn(name: string, value: string): void {
    this.lines = null;
    this.list.push(name, value);
  }

  set(name: string, value: string): void {
    checkField(name, value);
    this.remove(name);
    this.lines = null;
    this.list.push(name, value);
  }

  appendTo(list: HeaderList): void {
    for (const text of this.list) list.push(text);
  }

  writeLines(output: OutputBuffer): void {
    if (this.list.length > 0) writeText(output, (this.lines ??= linesOf(this.list)));
  }
}

/** `name: value` CRLF for each pair. */
export function linesOf(list: readonly string[]): string {
  let text = "";
  for (let i = 0; i < list.length; i += 2) text += `${list[i]!}: ${list[i + 1]!}\r\n`;
  return text;
}
