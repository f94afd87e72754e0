// The form of a request's log line: ours by default, or one that a Telemetry resource's provider gives in Envoy's commands
// (`%REQ(:METHOD)%`, `%RESPONSE_CODE:10%`). Compiled once into a list of parts. A command that is not known prints `-` and is reported.

import type { LogFormat } from "../mesh/l7/telemetry.ts";
import { commandOf, type Command, type LogOptions } from "./log-commands.ts";
import { escaped, quoteJson } from "./log-text.ts";
import { DEFAULT_REQUEST_FIELDS, DEFAULT_RESPONSE_FIELDS, formatRequestJson, formatRequestText } from "./request-log.ts";
import type { RequestRecord } from "./request-record.ts";

export type { LogOptions } from "./log-commands.ts";

export interface LogFormatter {
  /** One line with its newline. */
  line(record: RequestRecord, endedWallMs: number): string;
  readonly requestFields: readonly string[];
  readonly responseFields: readonly string[];
  readonly problems: readonly string[];
}

type Part = string | Command;
const ABSENT = "-";

export function defaultLogFormat(form: "text" | "json", options: LogOptions): LogFormatter {
  const format = form === "json" ? formatRequestJson : formatRequestText;
  return { line: (record, endedWallMs) => format(record, endedWallMs, options), requestFields: DEFAULT_REQUEST_FIELDS, responseFields: DEFAULT_RESPONSE_FIELDS, problems: [] };
}

export function compileLogFormat(format: LogFormat, options: LogOptions): LogFormatter {
  const compiler = new Compiler(options);
  if (format.kind === "text") {
    const parts = compiler.parts(format.line);
    // Envoy writes the line as it is given; one that forgets its newline would run into the next.
    const end = format.line.endsWith("\n") ? "" : "\n";
    return { ...compiler.wants(), line: (record, endedWallMs) => textOf(parts, record, endedWallMs) + end };
  }
  const fields = format.fields.map(([name, line]) => [`${quoteJson(name)}:`, compiler.parts(line)] as const);
  return { ...compiler.wants(), line: (record, endedWallMs) => `{${fields.map(([name, parts]) => name + jsonOf(parts, record, endedWallMs)).join(",")}}\n` };
}

function textOf(parts: readonly Part[], record: RequestRecord, endedWallMs: number): string {
  let text = "";
  for (const part of parts) {
    if (typeof part === "string") {
      text += part;
      continue;
    }
    const value = part(record, endedWallMs);
    text += value === null ? ABSENT : typeof value === "number" ? value : escaped(value);
  }
  return text;
}

/** A field that is one command keeps its kind: numbers stay numbers, and what is absent is null. */
function jsonOf(parts: readonly Part[], record: RequestRecord, endedWallMs: number): string {
  const [only] = parts;
  if (parts.length !== 1 || typeof only !== "function") return `"${textOf(parts.map((part) => (typeof part === "string" ? escaped(part) : part)), record, endedWallMs)}"`;
  const value = only(record, endedWallMs);
  return value === null ? "null" : typeof value === "number" ? String(value) : quoteJson(value);
}

/** `%NAME%`, `%NAME(argument)%`, either with `:LENGTH`; `%%` is a percent sign. */
const COMMAND = /%(?:%|([A-Z][A-Z0-9_]*)(?:\(([^()]*)\))?(?::([0-9]{1,5}))?%)/g;

class Compiler {
  readonly #options: LogOptions;
  readonly #requestFields = new Set<string>();
  readonly #responseFields = new Set<string>();
  readonly #problems: string[] = [];

  constructor(options: LogOptions) {
    this.#options = options;
  }

  wants(): Pick<LogFormatter, "requestFields" | "responseFields" | "problems"> {
    return { requestFields: [...this.#requestFields], responseFields: [...this.#responseFields], problems: this.#problems };
  }

  parts(line: string): Part[] {
    const parts: Part[] = [];
    let literal = "";
    let at = 0;
    for (const match of line.matchAll(COMMAND)) {
      literal += line.slice(at, match.index);
      at = match.index + match[0].length;
      if (match[1] === undefined) {
        literal += "%";
        continue;
      }
      const command = this.#command(match[0], match[1], match[2] ?? "", match[3] === undefined ? null : Number(match[3]));
      if (literal !== "") parts.push(literal);
      literal = "";
      parts.push(command);
    }
    literal += line.slice(at);
    if (literal !== "") parts.push(literal);
    return parts;
  }

  #command(text: string, name: string, argument: string, charsMax: number | null): Command {
    const found = commandOf(name, argument, this.#options);
    if (found === null) {
      this.#problems.push(`the access log's format has ${text}, which is no command that is known here; it prints ${ABSENT}`);
      return () => null;
    }
    for (const field of found.requestFields ?? []) this.#requestFields.add(field);
    for (const field of found.responseFields ?? []) this.#responseFields.add(field);
    const { read } = found;
    if (charsMax === null) return read;
    return (record, endedWallMs) => {
      const value = read(record, endedWallMs);
      return typeof value === "string" && value.length > charsMax ? value.slice(0, charsMax) : value;
    };
  }
}
