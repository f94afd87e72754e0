// Requests of HTTP/2 as they should not be, and those at the edge of what is allowed: field by field.

import type { Case, Exchange, RawHttp2Request } from "../description.ts";

const pseudo = { ":method": "GET", ":scheme": "http", ":path": "/", ":authority": "web.example" };
type Pseudo = Readonly<Record<string, string | null>>;

/** A request with these pseudo fields in place of the usual ones, null for none. */
function fieldsOf(more: readonly string[], changed: Pseudo = {}): string[] {
  return [...Object.entries({ ...pseudo, ...changed }).flatMap(([name, value]) => (value === null ? [] : [name, value])), ...more];
}

const raw = (name: string, more: readonly string[], changed?: Pseudo, rest: Omit<RawHttp2Request, "fields"> = {}): Exchange => ({ name, send: null, rawHttp2: { fields: fieldsOf(more, changed), ...rest } });
const post = (name: string, more: readonly string[], body: string, trailers?: readonly string[]): Exchange => raw(name, more, { ":method": "POST" }, { body, ...(trailers === undefined ? {} : { trailers }) });

export const HTTP2_INPUT: readonly Case[] = [
  {
    name: "fields",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      raw("as it should be", []), raw("a name in capitals", ["X-Upper", "1"]), raw("connection", ["connection", "close"]), raw("keep-alive", ["keep-alive", "timeout=5"]), raw("proxy-connection", ["proxy-connection", "close"]), raw("transfer-encoding", ["transfer-encoding", "chunked"]), raw("upgrade", ["upgrade", "h2c"]),
      raw("te: trailers", ["te", "trailers"]), raw("te: gzip", ["te", "gzip"]), raw("te: trailers, gzip", ["te", "trailers, gzip"]), raw("an empty name", ["", "1"]), raw("a name with a space", ["x bad", "1"]), raw("a name with a colon", ["x:bad", "1"]), raw("a name with a control byte", ["x-\x01", "1"]), raw("a name with Latin-1", ["x-\xe9", "1"]),
      raw("a value with NUL", ["x-v", "a\0b"]), raw("a value with CR", ["x-v", "a\rb"]), raw("a value with LF", ["x-v", "a\nb"]), raw("a value with a line of its own", ["x-v", "a\r\nx-smuggled: 1"]), raw("a value with a control byte", ["x-v", "a\x07b"]), raw("a value with a tab", ["x-v", "a\tb"]), raw("a value with Latin-1", ["x-v", "\xe9"]),
      raw("a space before the value", ["x-v", " a"]), raw("a space after the value", ["x-v", "a "]), raw("an empty value", ["x-v", ""]), raw("an underscore in a name", ["x_v", "1"]), raw("a field twice", ["x-v", "1", "x-v", "2"]), raw("cookies apart", ["cookie", "a=1", "cookie", "b=2"]),
      raw("200 fields", Array.from({ length: 200 }, (_, i) => [`x-h-${i}`, String(i)]).flat()), raw("expect", ["expect", "100-continue"]),
    ],
  },
  {
    name: "pseudo fields",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      raw("no method", [], { ":method": null }), raw("an empty method", [], { ":method": "" }), raw("a method with a space", [], { ":method": "GE T" }), raw("a method that nobody knows", [], { ":method": "PROPFIND" }), raw("no scheme", [], { ":scheme": null }), raw("https", [], { ":scheme": "https" }), raw("ftp", [], { ":scheme": "ftp" }), raw("HTTP", [], { ":scheme": "HTTP" }),
      raw("no path", [], { ":path": null }), raw("an empty path", [], { ":path": "" }), raw("a path without a slash", [], { ":path": "path" }), raw("an asterisk with GET", [], { ":path": "*" }), raw("an asterisk with OPTIONS", [], { ":method": "OPTIONS", ":path": "*" }), raw("an absolute path", [], { ":path": "http://other.example/x" }), raw("a path with a space", [], { ":path": "/a b" }),
      raw("a path with a fragment", [], { ":path": "/a#b" }), raw("a path with Latin-1", [], { ":path": "/\xe9" }), raw("a path with a line of its own", [], { ":path": "/ HTTP/1.1\r\nx-smuggled: 1" }), raw("a path with a tab", [], { ":path": "/a\tb" }), raw("no authority", [], { ":authority": null }), raw("Host alone", ["host", "web.example"], { ":authority": null }),
      raw("Host beside it, equal", ["host", "web.example"]), raw("Host beside it, another", ["host", "other.example"]), raw("Host beside it, in capitals", ["host", "WEB.example"]), raw("two Hosts", ["host", "a.example", "host", "b.example"], { ":authority": null }), raw("an empty authority", [], { ":authority": "" }), raw("an authority with userinfo", [], { ":authority": "user@web.example" }),
      raw("an authority with a path", [], { ":authority": "web.example/x" }), raw("an authority with a bad port", [], { ":authority": "web.example:port" }), raw("a pseudo field of answers", [":status", "200"]), raw("a pseudo field that nobody knows", [":other", "1"]), { name: "a pseudo field behind others", send: null, rawHttp2: { fields: [":method", "GET", ":scheme", "http", "x-v", "1", ":path", "/", ":authority", "web.example"] } },
      raw("two methods", [":method", "GET"]), raw("two paths", [":path", "/other"]), raw("CONNECT", [], { ":method": "CONNECT", ":scheme": null, ":path": null, ":authority": "web.example:443" }), raw("a protocol without CONNECT", [":protocol", "websocket"]),
    ],
  },
  {
    name: "bodies",
    service: { routes: [{ rules: [{}] }] },
    exchanges: [
      post("a body without a length", [], "abc"), post("its length", ["content-length", "3"], "abc"), post("a length that is too small", ["content-length", "2"], "abc"), post("a length that is too large", ["content-length", "4"], "abc"), post("two lengths, equal", ["content-length", "3", "content-length", "3"], "abc"), post("two lengths, different", ["content-length", "3", "content-length", "4"], "abc"),
      post("a length that is no number", ["content-length", "3x"], "abc"), post("a negative length", ["content-length", "-3"], "abc"), post("a length with a sign", ["content-length", "+3"], "abc"), raw("a length without a body", ["content-length", "3"]), raw("a length of 0", ["content-length", "0"]),
      post("trailers", [], "abc", ["x-sum", "7"]), post("a pseudo field in trailers", [], "abc", [":path", "/other"]), post("a length in trailers", [], "abc", ["content-length", "3"]), post("Host in trailers", [], "abc", ["host", "other.example"]), post("a name in capitals in trailers", [], "abc", ["X-Sum", "7"]), post("transfer-encoding in trailers", [], "abc", ["transfer-encoding", "chunked"]),
    ],
  },
];
