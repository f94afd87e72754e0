// The normaliser of paths and hosts: what it returns is its own normal form, has nothing in it that could be read in two ways, and agrees
// with the URL parser of the runtime (WHATWG) wherever both have an opinion. HTTP/2 and back keeps a request the same.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { requestFromHttp2, requestToHttp2 } from "../../src/wire/http/http2-message.ts";
import { type Host, parseHost } from "../../src/wire/http/host.ts";
import { normalisePath, type PathNormalisation } from "../../src/wire/http/path.ts";
import { readTarget } from "../../src/wire/http/request-target.ts";
import { below, pick } from "./choices.ts";
import { must } from "./http1-grammar.ts";

export const name = "http-normaliser";

export function run(options: { seed: number; iterations: number }): { iterations: number } {
  const random = seededRandom(options.seed);
  for (let i = 0; i < options.iterations; i++) {
    try {
      const kind = i % 4;
      if (kind < 2) paths(random);
      else if (kind === 2) hosts(random);
      else targets(random);
    } catch (error) {
      throw new Error(`http-normaliser fuzz: seed ${options.seed}, iteration ${i}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
  return { iterations: options.iterations };
}

const PATH_PIECES = [
  "/", "/", "//", ".", "..", "...", "/../", "/./", "%2e", "%2E", ".%2e", "%2f", "%2F", "%5c", "%5C", "\\", "a", "b", "A", "~", "%7E", "%61", "%20", "%25", "%252e", "%25%32%65", ";", "=", "@", ":", "%",
  "%zz", "%0", "%00", "%c0%af", "%c0%ae", "%e0%80%af", "%c3%a9", "\u00c3\u00a9", "\u00c0", "\u00af", "|", '"', "<", "^", "{", "[", "#", "?", " ", "\u0001", "*", "%C0", "%AF", "\u00ff",
];
const MODES: readonly PathNormalisation[] = ["base", "mergeSlashes", "decodeAndMergeSlashes"];

function soup(random: Random, of: readonly string[], lengthMax: number): string {
  let out = "";
  for (let n = below(random, lengthMax); n > 0; n--) out += pick(random, of);
  if (random.next() < 0.1) {
    const at = below(random, out.length + 1);
    out = out.slice(0, at) + String.fromCharCode(below(random, 256)) + out.slice(at);
  }
  return out;
}

function paths(random: Random): void {
  const path = (random.next() < 0.95 ? "/" : "") + soup(random, PATH_PIECES, 12);
  const how = pick(random, MODES);
  const read = normalisePath(path, how);
  if (!read.ok) return;
  const normal = read.value;
  const shown = `${JSON.stringify(path)} (${how}) became ${JSON.stringify(normal)}`;
  const again = normalisePath(normal, how);
  must(again.ok && again.value === normal, `${shown}, which becomes ${JSON.stringify(again)}`);
  must(/^\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})*$/.test(normal), `${shown}: not RFC 3986`);
  must(!/\/\.\.?(?:[/;]|$)/.test(normal), `${shown}: a dot segment`);
  for (const [, hex] of normal.matchAll(/%(..)/g)) must(!/[A-Za-z0-9\-._~]/.test(String.fromCharCode(Number.parseInt(hex!, 16))), `${shown}: %${hex} is unreserved`);
  must(!normal.includes("%00"), `${shown}: NUL`);
  if (how !== "base") must(!normal.includes("//"), `${shown}: a run of slashes`);
  if (how === "decodeAndMergeSlashes") must(!/%(2F|5C)/.test(normal), `${shown}: an escaped slash`);
  if (how === "base" && /^[\x21-\x7e]*$/.test(path)) {
    const url = normalisePath(new URL(`http://web${path}`).pathname, how);
    must(url.ok && url.value === normal, `${shown}, and by way of a URL ${JSON.stringify(url)}`);
  }
}

const HOST_PIECES = [
  "web", "shop", "a", "A", "Z", ".", ".", "-", "_", "1", "0", "127", "255", "256", "0x7f", "0x", "198.18.0.1", "[", "]", "[::1]", "[2001:db8::1]", "::", ":", ":80", ":0", ":65536", "%", "%2e", "@", "xn--", " ", "\u00e9",
  "\u0000", "/", "*", ",", "::ffff:198.18.0.1",
];

function hosts(random: Random): void {
  const text = soup(random, HOST_PIECES, 7);
  const read = parseHost(text);
  if (!read.ok) return;
  const host = read.value;
  const shown = `${JSON.stringify(text)} became ${JSON.stringify(host)}`;
  const again = parseHost(host.text);
  must(again.ok && JSON.stringify(again.value) === JSON.stringify(host), `${shown}, which becomes ${JSON.stringify(again)}`);
  must(/^[a-z0-9\-_.:[\]]+$/.test(host.text) && host.port !== 0, shown);
  agreesWithUrl(text, host, shown);
}

function agreesWithUrl(text: string, host: Host, shown: string): void {
  let url: URL;
  try {
    url = new URL(`http://${text}/`);
  } catch {
    // It checks punycode; a label that begins with xn-- and is none is still a name to us. And it takes the beginning of a last label for a
    // hexadecimal number that is too large, where the whole label is no number (WHATWG URL, "ends in a number").
    must(text.toLowerCase().includes("xn--") || /(?:^|\.)0x[0-9a-f]{8,}[^0-9a-f.:][^.:]*\.?(?::\d+)?$/i.test(text), `${shown}, which is no host of a URL`);
    return;
  }
  const theirs = parseHost(url.hostname);
  must(theirs.ok && theirs.value.name === host.name && theirs.value.isIp === host.isIp, `${shown}, in a URL ${url.hostname}`);
  must((url.port === "" ? 80 : Number(url.port)) === (host.port ?? 80), `${shown}, in a URL port ${url.port}`);
}

function targets(random: Random): void {
  const method = pick(random, ["GET", "GET", "OPTIONS", "CONNECT"]);
  const web = parseHost("web");
  must(web.ok, "web is a host");
  const target = pick(random, ["", "http://", "https://web", "http://WEB:80", "HTTP://web.", "//", "*"]) + soup(random, [...PATH_PIECES, ...HOST_PIECES], 5);
  const read = readTarget({ method, target, host: web.ok && random.next() < 0.7 ? web.value : null }, pick(random, MODES));
  if (!read.ok) return;
  const { host, path, query } = read.value;
  const shown = `${method} ${JSON.stringify(target)} became ${JSON.stringify(read.value)}`;
  must(query === "" || query.startsWith("?"), shown);
  must(!query.includes("#") && (path === "*" || path.startsWith("/") || (path === "" && method === "CONNECT")), shown);
  if (host === null) return;
  // A request line made of the result reads as the result; so does a header list.
  const line = method === "CONNECT" ? host.text : path + query;
  const back = readTarget({ method, target: line, host }, "base");
  must(back.ok && back.value.path === path && back.value.query === query && back.value.host?.text === host.text, `${shown}, which reads as ${JSON.stringify(back)}`);
  const fields = method === "CONNECT" ? [":method", method, ":authority", host.text] : [":method", method, ":scheme", read.value.scheme ?? "http", ":path", line, ":authority", host.text];
  const request = requestFromHttp2(fields, { endStream: true, pathNormalisation: "base" });
  must(request.ok, `${shown}, which HTTP/2 may not say: ${JSON.stringify(request)}`);
  if (request.ok) must(requestToHttp2(request.value, "http").sort().join() === [...fields].sort().join(), `${shown}, by way of HTTP/2 ${JSON.stringify(requestToHttp2(request.value, "http"))}`);
}
