// Heads, chunks and trailers as bytes, into an output buffer. Knows no state of a connection: what may be said when is for the engines.

import { copyBytes } from "../http/copy-bytes.ts";
import { checkField, linesOf } from "../http/fields.ts";
import type { HttpFields } from "../http/fields.ts";
import { isToken } from "../http/field-bytes.ts";
import type { OutputBuffer } from "../http/output-buffer.ts";
import { writeText } from "../http/text-output.ts";

/** How the body that follows is framed. `unframed`: to the end of the connection, or no body at all and nothing to say of it. */
export type Framing = { readonly kind: "length"; readonly bytes: number } | { readonly kind: "chunked" } | { readonly kind: "unframed" };

export const UNFRAMED: Framing = { kind: "unframed" };
export const CHUNKED: Framing = { kind: "chunked" };

/** A request as it goes out. Hop-by-hop fields are not among `fields`: they are written from the rest. */
export interface OutgoingRequest {
  readonly method: string;
  /** As on the request line: path and query, or host and port for CONNECT. */
  readonly target: string;
  readonly host: string;
  readonly fields: HttpFields;
  /** Of the body that follows; LENGTH_UNKNOWN sends it in chunks. */
  readonly contentLength: number;
  readonly acceptsTrailers: boolean;
  /** Wait for a 100, or the response, before the body. */
  readonly expectsContinue: boolean;
  readonly upgrade: string | null;
}

const FORBIDDEN_IN_TARGET = /[^\x21-\x7e\x80-\xff]|#/;
const FORBIDDEN_IN_HOST = /[^\x21-\x7e]/;

/** Throws on a method, target or host with bytes that would break the line: our own fault, never a peer's. */
export function writeRequestHead(output: OutputBuffer, request: OutgoingRequest, framing: Framing, hasBody: boolean): void {
  const { method, target, host, upgrade } = request;
  if (!isToken(method) || target === "" || FORBIDDEN_IN_TARGET.test(target) || FORBIDDEN_IN_HOST.test(host)) {
    throw new Error(`http1: ${JSON.stringify(`${method} ${target}`)} for ${JSON.stringify(host)} cannot be written as a request`);
  }
  if (upgrade !== null && !/^[!-~]+$/.test(upgrade)) throw new Error(`http1: ${JSON.stringify(upgrade)} is no protocol to upgrade to`);
  writeText(output, `${method} ${target} HTTP/1.1\r\nhost: ${host}\r\n`);
  request.fields.writeLines(output);
  let connection = "";
  let last = framingLine(framing);
  if (request.acceptsTrailers) {
    last += "te: trailers\r\n";
    connection = "te";
  }
  if (request.expectsContinue && hasBody) last += "expect: 100-continue\r\n";
  if (upgrade !== null) {
    last += `upgrade: ${upgrade}\r\n`;
    connection += connection === "" ? "upgrade" : ", upgrade";
  }
  if (connection !== "") last += `connection: ${connection}\r\n`;
  writeText(output, `${last}\r\n`);
}

export interface ResponseHeadOptions {
  /** 100..599. */
  readonly status: number;
  readonly fields: HttpFields;
  readonly framing: Framing;
  /** What Connection says: nothing, `close`, `keep-alive` (to HTTP/1.0), or the protocol that was agreed. */
  readonly connection: "" | "close" | "keep-alive" | { readonly upgrade: string };
}

export function writeResponseHead(output: OutputBuffer, options: ResponseHeadOptions): void {
  writeText(output, statusLine(options.status));
  options.fields.writeLines(output);
  const { connection } = options;
  let last = framingLine(options.framing);
  if (connection === "close") last += "connection: close\r\n";
  else if (connection === "keep-alive") last += "connection: keep-alive\r\n";
  else if (connection !== "") {
    if (!/^[!-~]+$/.test(connection.upgrade)) throw new Error(`http1: ${JSON.stringify(connection.upgrade)} is no protocol to upgrade to`);
    last += `connection: upgrade\r\nupgrade: ${connection.upgrade}\r\n`;
  }
  writeText(output, `${last}\r\n`);
}

function framingLine(framing: Framing): string {
  switch (framing.kind) {
    case "length":
      return `content-length: ${framing.bytes}\r\n`;
    case "chunked":
      return "transfer-encoding: chunked\r\n";
    case "unframed":
      return "";
  }
}

/** One chunk, copied in one piece with its framing. An empty one would end the body: nothing is written. */
export function writeChunk(output: OutputBuffer, chunk: Uint8Array): void {
  if (chunk.length === 0) return;
  const size = chunk.length.toString(16);
  let at = output.reserve(size.length + chunk.length + 4);
  const { bytes } = output;
  for (let i = 0; i < size.length; i++) bytes[at++] = size.charCodeAt(i);
  bytes[at++] = 0x0d;
  bytes[at++] = 0x0a;
  copyBytes(chunk, 0, chunk.length, bytes, at);
  at += chunk.length;
  bytes[at] = 0x0d;
  bytes[at + 1] = 0x0a;
}

/** The last chunk. @param trailers name, value, …; throws when one may not stand in a message. */
export function writeLastChunk(output: OutputBuffer, trailers: readonly string[]): void {
  for (let i = 0; i < trailers.length; i += 2) checkField(trailers[i]!, trailers[i + 1]!);
  writeText(output, `0\r\n${linesOf(trailers)}\r\n`);
}

/** Registered by IANA, as far as they are in use. */
const REASONS = new Map<number, string>([
  [100, "Continue"], [101, "Switching Protocols"], [102, "Processing"], [103, "Early Hints"], [200, "OK"], [201, "Created"], [202, "Accepted"],
  [203, "Non-Authoritative Information"], [204, "No Content"], [205, "Reset Content"], [206, "Partial Content"], [207, "Multi-Status"], [208, "Already Reported"],
  [226, "IM Used"], [300, "Multiple Choices"], [301, "Moved Permanently"], [302, "Found"], [303, "See Other"], [304, "Not Modified"], [305, "Use Proxy"],
  [307, "Temporary Redirect"], [308, "Permanent Redirect"], [400, "Bad Request"], [401, "Unauthorized"], [402, "Payment Required"], [403, "Forbidden"],
  [404, "Not Found"], [405, "Method Not Allowed"], [406, "Not Acceptable"], [407, "Proxy Authentication Required"], [408, "Request Timeout"], [409, "Conflict"],
  [410, "Gone"], [411, "Length Required"], [412, "Precondition Failed"], [413, "Content Too Large"], [414, "URI Too Long"], [415, "Unsupported Media Type"],
  [416, "Range Not Satisfiable"], [417, "Expectation Failed"], [421, "Misdirected Request"], [422, "Unprocessable Content"], [423, "Locked"], [424, "Failed Dependency"],
  [425, "Too Early"], [426, "Upgrade Required"], [428, "Precondition Required"], [429, "Too Many Requests"], [431, "Request Header Fields Too Large"],
  [451, "Unavailable For Legal Reasons"], [500, "Internal Server Error"], [501, "Not Implemented"], [502, "Bad Gateway"], [503, "Service Unavailable"],
  [504, "Gateway Timeout"], [505, "HTTP Version Not Supported"], [506, "Variant Also Negotiates"], [507, "Insufficient Storage"], [508, "Loop Detected"],
  [511, "Network Authentication Required"],
]);

const STATUS_LINES: string[] = [];

function statusLine(status: number): string {
  const known = STATUS_LINES[status];
  if (known !== undefined) return known;
  if (!Number.isInteger(status) || status < 100 || status > 599) throw new RangeError(`http1: ${status} is no status`);
  return (STATUS_LINES[status] = `HTTP/1.1 ${status} ${REASONS.get(status) ?? ""}\r\n`);
}
