// Requests as they should not be, and those at the edge of what is allowed.

import { ask, type Case, type Exchange, request } from "../description.ts";

const raw = (name: string, send: string, rest: Partial<Exchange> = {}): Exchange => ({ name, send, ...rest });
const get = (extra: string, target = "/"): string => `GET ${target} HTTP/1.1\r\nhost: web.example\r\n${extra}\r\n`;
const post = (extra: string, body: string): string => `POST / HTTP/1.1\r\nhost: web.example\r\n${extra}\r\n${body}`;

export const INPUT: readonly Case[] = [
  {
    name: "framing",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      raw("Content-Length", post("content-length: 3\r\n", "abc")), raw("chunked", post("transfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")), raw("Chunked, capital", post("transfer-encoding: Chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")),
      raw("chunk extension", post("transfer-encoding: chunked\r\n", "3;a=b\r\nabc\r\n0\r\n\r\n")), raw("trailers", post("transfer-encoding: chunked\r\ntrailer: x-sum\r\n", "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n")),
      raw("both lengths", post("content-length: 3\r\ntransfer-encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")), raw("two lengths, equal", post("content-length: 3\r\ncontent-length: 3\r\n", "abc")), raw("two lengths, different", post("content-length: 3\r\ncontent-length: 4\r\n", "abc")),
      raw("length list", post("content-length: 3, 3\r\n", "abc")), raw("length with a sign", post("content-length: +3\r\n", "abc")), raw("negative length", post("content-length: -3\r\n", "abc")), raw("hexadecimal length", post("content-length: 0x3\r\n", "abc")), raw("empty length", post("content-length:\r\n", "abc")),
      raw("length beyond numbers", post("content-length: 99999999999999999999\r\n", "abc")), raw("transfer coding twice", post("transfer-encoding: chunked, chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")), raw("gzip, chunked", post("transfer-encoding: gzip, chunked\r\n", "3\r\nabc\r\n0\r\n\r\n")),
      raw("identity", post("transfer-encoding: identity\r\ncontent-length: 3\r\n", "abc")), raw("unknown coding", post("transfer-encoding: xchunked\r\n", "3\r\nabc\r\n0\r\n\r\n")), raw("chunk size is no number", post("transfer-encoding: chunked\r\n", "zz\r\nabc\r\n0\r\n\r\n")),
      raw("chunk longer than said", post("transfer-encoding: chunked\r\n", "2\r\nabc\r\n0\r\n\r\n")), raw("chunk size overflows", post("transfer-encoding: chunked\r\n", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n")), raw("bare LF in chunks", post("transfer-encoding: chunked\r\n", "3\nabc\n0\n\n")),
      raw("GET with a body", "GET / HTTP/1.1\r\nhost: web.example\r\ncontent-length: 3\r\n\r\nabc"), raw("a space before the colon", post("content-length : 3\r\n", "abc")), raw("HTTP/1.0 with chunked", "POST / HTTP/1.0\r\nhost: web.example\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ],
  },
  {
    name: "heads",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      raw("no Host", "GET / HTTP/1.1\r\n\r\n"), raw("empty Host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"), raw("two Hosts", "GET / HTTP/1.1\r\nhost: a.example\r\nhost: b.example\r\n\r\n"), raw("Host with userinfo", get("", "/").replace("web.example", "user@web.example")), raw("Host with a bad port", get("", "/").replace("web.example", "web.example:port")),
      raw("Host with a space", get("", "/").replace("web.example", "web example")), raw("IPv6 Host", get("", "/").replace("web.example", "[2001:db8::1]:80")), raw("folded header", get("x-folded: a\r\n b\r\n")), raw("name with a space", get("x bad: 1\r\n")), raw("empty name", get(": 1\r\n")), raw("name with a control byte", get("x-\x01: 1\r\n")),
      raw("value with NUL", get("x-nul: a\0b\r\n")), raw("value with a control byte", get("x-bell: a\x07b\r\n")), raw("value with DEL", get("x-del: a\x7fb\r\n")), raw("value with a tab", get("x-tab: a\tb\r\n")), raw("value with Latin-1", get("x-latin: \xe9\r\n")), raw("bare CR in a value", get("x-cr: a\rb\r\n")),
      raw("bare LF line ends", "GET / HTTP/1.1\nhost: web.example\n\n"), raw("empty lines before", "\r\n\r\nGET / HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("underscore in a name", get("x_under_score: 1\r\n")), raw("HTTP/1.0", "GET / HTTP/1.0\r\nhost: web.example\r\n\r\n"), raw("HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n"),
      raw("HTTP/1.2", "GET / HTTP/1.2\r\nhost: web.example\r\n\r\n"), raw("HTTP/3.0", "GET / HTTP/3.0\r\nhost: web.example\r\n\r\n"), raw("HTTP/0.9", "GET /\r\n\r\n"), raw("two spaces in the request line", "GET  / HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("tab in the request line", "GET\t/ HTTP/1.1\r\nhost: web.example\r\n\r\n"),
      raw("method with a bad character", "GE(T / HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("target without a slash", "GET path HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("asterisk with GET", "GET * HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("asterisk with OPTIONS", "OPTIONS * HTTP/1.1\r\nhost: web.example\r\n\r\n"),
      raw("target with a space", "GET /a b HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("target with a control byte", "GET /a\x01b HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("target with Latin-1", "GET /\xe9 HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("absolute form, https", "GET https://web.example/x HTTP/1.1\r\nhost: web.example\r\n\r\n"), raw("absolute form, ftp", "GET ftp://web.example/x HTTP/1.1\r\nhost: web.example\r\n\r\n"),
      raw("CONNECT", "CONNECT web.example:443 HTTP/1.1\r\nhost: web.example:443\r\n\r\n"), raw("a header of 70 KiB", get(`x-long: ${"a".repeat(70 * 1024)}\r\n`)), raw("200 headers", get(Array.from({ length: 200 }, (_, i) => `x-h-${i}: ${i}\r\n`).join(""))), raw("a target of 20 KiB", get("", `/${"a".repeat(20 * 1024)}`)),
    ],
  },
  {
    name: "hop by hop",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      ask("/", { headers: { connection: "close" } }), ask("/", { headers: { connection: "x-hop", "x-hop": "1" } }), ask("/", { headers: { connection: "keep-alive", "keep-alive": "timeout=5" } }), ask("/", { headers: { te: "trailers" } }), ask("/", { headers: { te: "gzip" } }), ask("/", { headers: { "proxy-connection": "keep-alive" } }),
      ask("/", { headers: { "proxy-authorization": "Basic YTpi" } }), ask("/", { headers: { upgrade: "h2c", connection: "upgrade, http2-settings", "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA" } }), ask("/", { headers: { upgrade: "foo/2", connection: "upgrade" } }), ask("/", { headers: { "max-forwards": "0" } }), ask("/", { headers: { via: "1.1 other" } }),
      ask("/", { headers: { connection: "host" } }), ask("/", { headers: { connection: "content-length" }, body: "abc" }), ask("/", { headers: { "x-forwarded-host": "other.example" } }), ask("/", { headers: { forwarded: "for=198.51.100.1" } }), ask("/", { headers: { "x-original-url": "/admin" } }), ask("/", { headers: { "x-http-method-override": "DELETE" } }),
      ask("/", { headers: { expect: "100-continue" }, body: "waits for no one" }), ask("/", { headers: { expect: "something-else" }, body: "x" }),
      ask("/", { headers: { "x-forwarded-for": "198.51.100.1" } }), ask("/", { headers: { "x-forwarded-proto": "https" } }), ask("/", { headers: { "x-real-ip": "198.51.100.1" } }), ask("/", { headers: { "x-rewrite-url": "/admin" } }), ask("/", { headers: { "x-envoy-original-path": "/admin" } }), ask("/", { headers: { "x-forwarded-client-cert": "By=x" } }),
      ask("/", { headers: { trailer: "x-sum" } }), ask("/", { headers: { "content-encoding": "gzip" }, body: "not gzip" }), ask("/", { headers: { "transfer-encoding": "identity" } }), ask("/", { headers: { "x-http-method": "DELETE" } }), ask("/", { headers: { range: "bytes=0-1", "if-none-match": "\"a\"" } }),
    ],
  },
  {
    name: "paths",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      "/a/../b", "/a/./b", "/a//b", "//a", "/a/b/..", "/a/b/.", "/../a", "/a/%2e%2e/b", "/a/%2E%2E/b", "/a/%2e/b", "/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00b", "/%61", "/a%20b", "/a+b", "/%zz", "/%", "/%c3%a9", "/%e9", "/a;b=c", "/a?b/../c", "/a?%2e%2e", "/a#b", "/a?", "/a??b", "/~a", "/%7ea", "/a:b@c!$&'()*,=", "/a|b", "/a\"b", "/a<b>", "/a{b}", "/a^b", "/a`b", "/a[b]", "/...", "/.../a", "/..a", "/a/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/..%3b/b", "/..;/b", "/a/b;x/../c", "/a/..;", "/a/%2e%2e;/b", "/a/.%2e/b", "/a/..b/c", "/a/b..;/c",
    ].map((target) => ask(target)),
  },
  {
    name: "several on one connection",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      raw("pipelined", request("/1") + request("/2") + request("/3"), { answers: 3, arrivals: 3 }), raw("pipelined with bodies", request("/1", { body: "abc" }) + request("/2", { method: "PUT", body: "defg" }), { answers: 2, arrivals: 2 }),
      raw("the second is broken", `${request("/1")}BROKEN\r\n\r\n`, { answers: 2, arrivals: 1 }), raw("after Connection: close", request("/1", { headers: { connection: "close" } }) + request("/2"), { answers: 1, arrivals: 1 }),
      raw("an empty line between", `${request("/1")}\r\n${request("/2")}`, { answers: 2, arrivals: 2 }),
    ],
  },
  ...(["MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"] as const).map((normalization): Case => ({
    name: `paths by ${normalization}`,
    service: { normalization, routes: [{ rules: [{ matches: [{ path: { prefix: "/a/b" } }], to: [{ server: "two" }] }, {}] }], access: [{ action: "DENY", rules: [{ paths: ["/admin*", "/x/admin"] }] }] },
    exchanges: [
      "/a/b", "/a//b", "//a/b", "/a///b//c", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%5Cb", "/a\\b", "\\a\\b", "/a%2f%2fb", "/a/%2fb", "/a%252fb", "/admin", "//admin", "/%2fadmin", "/%2Fadmin", "/x%2fadmin", "/x%2f..%2fadmin", "/x%5c..%5cadmin", "/x/..%2fadmin", "/x//../admin", "/x/y//../..//admin", "/%5cadmin", "/\\admin", "/x/%2e%2e%2fadmin", "/x%2f%2e%2e/admin",
      "/a/b?c=//d%2fe", "/a/b//?x", "//", "/%2f", "/a/b%2f", "/..%2f..%2fadmin", "/a/.%2fb", "/a/..;/%2fadmin", "/admin%2f", "/%61dmin", "/x/.%5c..%5cadmin",
    ].map((target) => ask(target)),
  })),
];
