// The process's own log: what happened, in which part, with named fields. One line each, text or JSON, filtered by scope.

import type { Clock } from "../core/ports.ts";
import { quoteJson, quoteText } from "../telemetry/log-text.ts";
import { type Level, type LogFilter, parseLogFilter } from "./log-filter.ts";
import type { LogWriter } from "./log-writer.ts";

export type LogFields = Readonly<Record<string, string | number | boolean | null | undefined>>;

export interface Logger {
  error(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  debug(message: string, fields?: LogFields): void;
  enabled(level: Level): boolean;
}

export interface LogOptions {
  readonly writer: LogWriter;
  readonly clock: Clock;
  readonly format: "text" | "json";
  readonly filter: LogFilter;
}

/** Owns the filter, which may change while the process runs. */
export class Log {
  readonly #options: LogOptions;
  readonly #initial: LogFilter;
  #filter: LogFilter;

  constructor(options: LogOptions) {
    this.#options = options;
    this.#initial = options.filter;
    this.#filter = options.filter;
  }

  /** @param scope the part that speaks: `ca`, `ztunnel.pool`. */
  scope(scope: string): Logger {
    const at = (level: Level) => (message: string, fields: LogFields = {}) => this.#write(level, scope, message, fields);
    return { error: at("error"), warn: at("warn"), info: at("info"), debug: at("debug"), enabled: (level) => this.#filter.enabled(scope, level) };
  }

  /** Lines a data thread has made. See LogWriter.write. */
  accessLines(lines: string | Uint8Array, lineCount: number, taken: (() => void) | null = null): void {
    if (this.#filter.enabled("access", "error")) this.#options.writer.write(lines, lineCount, taken);
    else taken?.();
  }

  get filter(): string {
    return this.#filter.text;
  }

  /**
   * Changes what `text` names and leaves the rest, as the reference does: `access=off` on `debug` is `debug,access=off`.
   * @param onto what it is laid over: the filter in force, or the one this process began with.
   * @returns null when it is in force, or what is wrong with it; then nothing has changed.
   */
  changeFilter(text: string, onto: "current" | "initial" = "current"): string | null {
    const parsed = parseLogFilter(`${(onto === "current" ? this.#filter : this.#initial).text},${text}`);
    if (!parsed.ok) return parsed.error;
    this.#filter = parsed.value;
    return null;
  }

  #write(level: Level, scope: string, message: string, fields: LogFields): void {
    if (!this.#filter.enabled(scope, level)) return;
    this.#options.writer.write(formatLine(this.#options.format, this.#options.clock.wallMs(), level, scope, message, fields), 1);
  }
}

/** Ends in a newline; message and values are escaped. */
export function formatLine(format: "text" | "json", wallMs: number, level: Level, scope: string, message: string, fields: LogFields = {}): string {
  const time = new Date(wallMs).toISOString();
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  if (format === "json") {
    const rest = given.map(([name, value]) => `,${quoteJson(name)}:${typeof value === "string" ? quoteJson(value) : String(value)}`).join("");
    return `{"level":"${level}","time":"${time}","scope":${quoteJson(scope)},"message":${quoteJson(message)}${rest}}\n`;
  }
  const rest = given.map(([name, value]) => ` ${name}=${typeof value === "string" ? quoteText(value) : String(value)}`).join("");
  return `${time}\t${level}\t${scope}\t${quoteText(message).slice(1, -1)}${rest}\n`;
}
