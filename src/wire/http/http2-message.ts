// HTTP/2 header lists to messages and back (RFC 9113, section 8). The engine has checked the lists: pseudo headers complete and in front,
// no connection-specific field, at most one Content-Length, Host equal to :authority.

import { err, ok, type Result } from "../../core/result.ts";
import { LENGTH_UNKNOWN, parseContentLength } from "./content-length.ts";
import { ListFields } from "./fields.ts";
import type { HeaderList } from "./header-list.ts";
import { type Host, parseHost } from "./host.ts";
import type { HttpRequest, HttpResponse } from "./message.ts";
import type { PathNormalisation } from "./path.ts";
import { readPath, readTarget, type RequestTarget, type TargetFault } from "./request-target.ts";

export interface Http2RequestOptions {
  /** No body follows. */
  readonly endStream: boolean;
  readonly pathNormalisation: PathNormalisation;
}

/** @param list checked by the engine; borrowed. Cookie crumbs become one field, as everything but HTTP/2 wants them. */
export function requestFromHttp2(list: readonly string[], options: Http2RequestOptions): Result<HttpRequest, TargetFault> {
  let method = "";
  let scheme = "";
  let path = "";
  let authority: string | undefined;
  let protocol: string | null = null;
  let i = 0;
  for (; i < list.length && list[i]!.charCodeAt(0) === 0x3a; i += 2) {
    const value = list[i + 1]!;
    if (list[i] === ":method") method = value;
    else if (list[i] === ":scheme") scheme = value;
    else if (list[i] === ":path") path = value;
    else if (list[i] === ":authority") authority = value;
    else if (list[i] === ":protocol") protocol = value.toLowerCase();
  }
  const read = readFields(list, i);
  const hostText = authority ?? read.host;
  if (hostText === undefined) return err({ code: "badHost", message: "the request names no host" });
  const host = parseHost(hostText);
  if (!host.ok) return err({ code: "badHost", message: host.error });
  if (/[a-z]/.test(method)) return err({ code: "badTarget", message: "the method has lower-case letters" });
  const target = method === "CONNECT" && protocol === null
    ? readTarget({ method, target: hostText, host: null }, options.pathNormalisation)
    : targetOf({ method, scheme, path, host: host.value }, options.pathNormalisation);
  if (!target.ok) return target;
  return ok({
    method,
    target: target.value,
    fields: new ListFields(read.fields),
    contentLength: options.endStream ? 0 : read.contentLength,
    hasBody: !options.endStream,
    acceptsTrailers: read.acceptsTrailers,
    expectsContinue: read.expectsContinue && !options.endStream,
    upgrade: protocol,
  });
}

interface PseudoTarget {
  readonly method: string;
  readonly scheme: string;
  readonly path: string;
  readonly host: Host;
}

function targetOf(parts: PseudoTarget, how: PathNormalisation): Result<RequestTarget, TargetFault> {
  const { scheme, host } = parts;
  if (scheme !== "http" && scheme !== "https") return err({ code: "badTarget", message: ":scheme is neither http nor https" });
  if (parts.path === "*") return ok({ scheme, host, path: "*", pathReceived: null, query: "" });
  const read = readPath(parts.path, how);
  return read.ok ? ok({ scheme, host, path: read.value.path, pathReceived: read.value.pathReceived, query: read.value.query }) : read;
}

/** The message as HTTP/2 says it. `scheme` where the target itself has none. An upgrade becomes an extended CONNECT (RFC 8441). */
export function requestToHttp2(request: HttpRequest, scheme: "http" | "https"): HeaderList {
  const { target } = request;
  const list: HeaderList = [":method", request.upgrade === null ? request.method : "CONNECT"];
  if (request.upgrade !== null) list.push(":protocol", request.upgrade);
  if (request.method !== "CONNECT" || request.upgrade !== null) list.push(":scheme", target.scheme ?? scheme, ":path", target.path + target.query);
  if (target.host !== null) list.push(":authority", target.host.text);
  request.fields.appendTo(list);
  if (request.hasBody && request.contentLength !== LENGTH_UNKNOWN) list.push("content-length", String(request.contentLength));
  if (request.acceptsTrailers) list.push("te", "trailers");
  if (request.expectsContinue) list.push("expect", "100-continue");
  return list;
}

/** @param list checked by the engine; begins with :status. */
export function responseFromHttp2(list: readonly string[]): HttpResponse {
  const read = readFields(list, 2);
  return { status: Number(list[1]), fields: new ListFields(read.fields), contentLength: read.contentLength };
}

export function responseToHttp2(response: HttpResponse): HeaderList {
  const list: HeaderList = [":status", String(response.status)];
  response.fields.appendTo(list);
  if (response.contentLength !== LENGTH_UNKNOWN) list.push("content-length", String(response.contentLength));
  return list;
}

interface ReadFields {
  readonly fields: HeaderList;
  readonly host: string | undefined;
  readonly contentLength: number;
  readonly acceptsTrailers: boolean;
  readonly expectsContinue: boolean;
}

function readFields(list: readonly string[], start: number): ReadFields {
  const fields: HeaderList = [];
  let host: string | undefined;
  let contentLength = LENGTH_UNKNOWN;
  let acceptsTrailers = false;
  let expectsContinue = false;
  let cookieAt = -1;
  for (let i = start; i < list.length; i += 2) {
    const name = list[i]!;
    const value = list[i + 1]!;
    switch (name) {
      case "host":
        host = value;
        break;
      case "content-length":
        contentLength = parseContentLength(value);
        break;
      case "te":
        acceptsTrailers = true;
        break;
      case "expect":
        expectsContinue = value.toLowerCase() === "100-continue";
        break;
      case "http2-settings":
        break;
      case "cookie":
        if (cookieAt < 0) {
          cookieAt = fields.length + 1;
          fields.push(name, value);
        } else {
          fields[cookieAt] += `; ${value}`;
        }
        break;
      default:
        fields.push(name, value);
    }
  }
  return { fields, host, contentLength, acceptsTrailers, expectsContinue };
}
