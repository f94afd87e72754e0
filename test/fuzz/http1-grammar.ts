// Random HTTP/1 messages, mostly right, with every mistake that readers are known to disagree about. One char per byte.

import type { Random } from "../../src/core/ports.ts";
import { below, pick } from "./choices.ts";

export function must(held: boolean, what: string): void {
  if (!held) throw new Error(what);
}

/** How often a piece goes wrong; several pieces make a message. */
const MISTAKE = 0.03;

const METHODS = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
const ODD_METHODS = ["get", "", "G T", "PRI", "GE\tT", "FOO", "M-SEARCH", "GET\u0000"];
const TARGETS = ["/", "/a", "/a/b?c=d", "*", "http://web/", "http://web/a?b", "web:443", "/%2e%2e/a", "//a", "/\u00e9", "/a|b"];
const ODD_TARGETS = ["", "/a b", "/a#b", "/%00", "/\u0001", "http://other/", "ftp://web/", "/%zz", "\\a"];
const ODD_VERSIONS = ["HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", "HTTP/1.", "HTTP/11", "ICE/1.0", ""];
const FIELDS = [
  "Accept: */*", "X-A: b", "x-a: c, d", "Cookie: a=b", "X-Empty:", "X-Tab:\tb\t", "X-Obs: \u00e9", "Connection: close", "Connection: keep-alive", "Connection: X-A", "Connection: x-a, Keep-Alive",
  "Keep-Alive: timeout=5", "TE: trailers", "Trailer: X-T", "Expect: 100-continue", "Content-Type: text/plain", "Proxy-Connection: keep-alive", "Host2: a",
];
const ODD_FIELDS = [
  "Content-Length: 5", "Content-Length: 0", "Content-Length: 05", "Content-Length: +5", "Content-Length: 5, 5", "Content-Length: 0x5", "Content-Length:", "Content-Length: 99999999999999999999",
  "Content-Length : 5", "Transfer-Encoding: chunked", "Transfer-Encoding: Chunked ", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity",
  "Transfer-Encoding: chunked,", "Transfer-Encoding:\u000bchunked", "Transfer-Encoding : chunked", "Transfer-Encoding:", "Transfer\u0000-Encoding: chunked", "Transfer-Encoding: xchunked",
  "Host: web", "Host: other", "Host:", "Host: a@web", " folded", "\tfolded", ": x", "X", "X Y: z", "X\u0001: y", "X: a\u0000b", "X: a\rb", "X: a\nb", "Connection: host", "Connection: a b",
  "Connection: Upgrade\r\nUpgrade: websocket", "Upgrade: h2c", "Expect: x", "Connection: content-length", "Connection: upgrade", "X: \u007f",
];
const ODD_LINE_ENDS = ["\n", "\r", "\r\r\n", "\n\r", " \r\n", ""];
const STATUSES = ["200 OK", "200 ", "200", "204 No Content", "304 Not Modified", "404 Not Found", "500 \u00e9", "206 a b"];
const ODD_STATUSES = ["99 a", "600 a", "20", "2000 a", "abc", "-20 a", "200\tOK", "200 a\u0000", "101 Switching Protocols"];

function maybe(random: Random, right: readonly string[], wrong: readonly string[]): string {
  return pick(random, random.next() < MISTAKE ? wrong : right);
}

const lineEnd = (random: Random): string => (random.next() < MISTAKE / 3 ? pick(random, ODD_LINE_ENDS) : "\r\n");

function fieldLines(random: Random, more: readonly string[]): string {
  const lines = [...more];
  for (let n = below(random, 5); n > 0; n--) lines.splice(below(random, lines.length + 1), 0, maybe(random, FIELDS, ODD_FIELDS));
  return lines.map((line) => line + lineEnd(random)).join("") + lineEnd(random);
}

function text(random: Random, lengthMax: number): string {
  let out = "";
  for (let n = below(random, lengthMax); n > 0; n--) out += pick(random, ["a", "b", "\r\n", "0", "G", "\n", "\u0000", "\u00ff", ":", "HTTP/1.1"]);
  return out;
}

/** A chunked body. */
export function chunkedBody(random: Random): string {
  let out = "";
  for (let n = below(random, 4); n > 0; n--) {
    const data = text(random, 12);
    if (data === "") continue;
    let size = data.length.toString(16);
    if (random.next() < 0.1) size = size.toUpperCase();
    if (random.next() < 0.1) size = "0".repeat(below(random, 4)) + size;
    if (random.next() < MISTAKE) size = pick(random, ["", "x", `${size} `, ` ${size}`, `0x${size}`, `-${size}`, "fffffffffffffffff", `${size}_`, (data.length + 1).toString(16), (data.length - 1).toString(16), "00000000000000000000001"]);
    const extension = random.next() < 0.1 ? pick(random, [";a", ";a=b", ' ;a="b"', ";a;b=c", ";\u0001", ";a\n", ";a\rb", "; a = b", ";"]) : "";
    out += size + extension + lineEnd(random) + data + lineEnd(random);
  }
  out += pick(random, ["0", "0", "0", "00", "0;a"]) + lineEnd(random);
  if (random.next() < 0.2) out += maybe(random, ["X-T: 1", "x-u:", "Grpc-Status: 0"], ["Content-Length: 5", "Host: x", "X : y", " f", "X", "Transfer-Encoding: chunked"]) + lineEnd(random);
  return out + lineEnd(random);
}

function bodyOf(random: Random): { readonly fields: readonly string[]; readonly body: string } {
  switch (below(random, 4)) {
    case 0: {
      const body = text(random, 20);
      const length = body.length + (random.next() < MISTAKE ? below(random, 3) - 1 : 0);
      return { fields: [`Content-Length: ${length}`], body };
    }
    case 1:
      return { fields: [pick(random, ["Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: CHUNKED"])], body: chunkedBody(random) };
    default:
      return { fields: [], body: random.next() < MISTAKE ? text(random, 10) : "" };
  }
}

export function requests(random: Random): string {
  let out = "";
  for (let n = 1 + below(random, 3); n > 0; n--) {
    const { fields, body } = bodyOf(random);
    const version = random.next() < 0.1 ? "HTTP/1.0" : maybe(random, ["HTTP/1.1"], ODD_VERSIONS);
    const target = maybe(random, TARGETS, ODD_TARGETS);
    if (random.next() < 0.03) out += pick(random, ["\r\n", "\r\n\r\n", "\n"]);
    out += `${maybe(random, METHODS, ODD_METHODS)} ${target} ${version}${lineEnd(random)}`;
    const host = random.next() < MISTAKE ? [] : [target === "web:443" ? "Host: web:443" : pick(random, ["Host: web", "host:  WEB ", "Host: web:80"])];
    out += fieldLines(random, [...host, ...fields]) + body;
  }
  return random.next() < 0.3 ? mutate(random, out) : out;
}

export function responses(random: Random): string {
  let out = "";
  while (random.next() < 0.1) out += `HTTP/1.1 ${pick(random, ["100 Continue", "103 Early Hints"])}\r\n${fieldLines(random, [])}`;
  const { fields, body } = bodyOf(random);
  const version = random.next() < 0.1 ? "HTTP/1.0" : maybe(random, ["HTTP/1.1"], ODD_VERSIONS);
  out += `${version} ${maybe(random, STATUSES, ODD_STATUSES)}${lineEnd(random)}${fieldLines(random, fields)}${body}`;
  return random.next() < 0.3 ? mutate(random, out) : out;
}

const BYTES = ["\r", "\n", "\r\n", " ", "\t", ":", ",", ";", "0", "5", "f", "a", "A", "\u0000", "\u007f", "\u0080", "\u00ff", "\u000b", "#", "/", "%", "."];

export function mutate(random: Random, input: string): string {
  let out = input;
  for (let n = 1 + below(random, 2); n > 0; n--) {
    const at = below(random, out.length + 1);
    const char = random.next() < 0.8 ? pick(random, BYTES) : String.fromCharCode(below(random, 256));
    switch (below(random, 4)) {
      case 0: out = out.slice(0, at) + char + out.slice(at); break;
      case 1: out = out.slice(0, at) + out.slice(at + 1 + below(random, 3)); break;
      case 2: out = out.slice(0, at); break;
      default: out = out.slice(0, at) + char + out.slice(at + 1);
    }
  }
  return out;
}

/** Bytes in random pieces: whole, one at a time, or anything between. */
export function pieces(random: Random, input: string): Uint8Array[] {
  const bytes = Buffer.from(input, "latin1");
  const kind = below(random, 3);
  if (kind === 0) return [bytes];
  const out: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = kind === 1 ? 1 : 1 + below(random, 20);
    out.push(new Uint8Array(bytes.subarray(at, at + size)));
    at += size;
  }
  return out;
}

/** Connection-specific fields by the reference's reading: what our engines keep to themselves. */
export function endToEnd(fields: readonly string[]): string[] {
  const named = new Set(["host", "content-length", "transfer-encoding", "connection", "keep-alive", "proxy-connection", "te", "upgrade", "expect", "http2-settings"]);
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i]!.toLowerCase() === "connection") for (const token of fields[i + 1]!.split(",")) named.add(token.trim().toLowerCase());
  }
  const kept: string[] = [];
  let cookieAt = -1;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase();
    if (named.has(name)) continue;
    if (name === "cookie" && cookieAt >= 0) {
      kept[cookieAt] += `; ${fields[i + 1]!}`;
      continue;
    }
    kept.push(name, fields[i + 1]!);
    if (name === "cookie") cookieAt = kept.length - 1;
  }
  return kept;
}
