// Header lists and what HTTP/2 demands of them (RFC 9113, section 8; extended CONNECT: RFC 8441). Pure.

import { LENGTH_UNKNOWN, parseContentLength } from "../http/content-length.ts";
import { isAuthority, isPath, isToken } from "../http/field-bytes.ts";
import { encodeStateless } from "./hpack-encoder.ts";

export { LENGTH_UNKNOWN } from "../http/content-length.ts";
export { type HeaderList, headerValue, headerValues } from "../http/header-list.ts";

/** What the state machine must know of a block that we send. */
export class HeaderBlock {
  /** Encoded once for every connection, or null: then `fields` are encoded when they are sent, in step with the connection's table. */
  readonly bytes: Uint8Array | null;
  readonly fields: readonly string[];
  readonly isConnect: boolean;
  readonly isHead: boolean;
  /** 0 in a request and in trailers. */
  readonly status: number;

  constructor(fields: readonly string[], bytes: Uint8Array | null) {
    this.bytes = bytes;
    this.fields = fields;
    let method = "";
    let status = 0;
    for (let i = 0; i < fields.length && fields[i]!.charCodeAt(0) === 0x3a; i += 2) {
      if (fields[i] === ":method") method = fields[i + 1]!;
      else if (fields[i] === ":status") status = Number(fields[i + 1]);
    }
    this.isConnect = method === "CONNECT";
    this.isHead = method === "HEAD";
    this.status = status;
  }
}

/**
 * A block that is encoded by the connection that sends it, in step with its table: fields that repeat cost one byte from the second time on.
 * A block never sent leaves the table alone. The right choice for a CONNECT with baggage, and for requests and responses at L7.
 * @param fields kept, not copied; pseudo headers first, names in lower case. Forbidden bytes throw when it is sent: they are our own fault.
 */
export function headerBlock(fields: readonly string[]): HeaderBlock {
  return new HeaderBlock(fields, null);
}

/**
 * Encodes a block that is the same on every connection: no dynamic table, no Huffman. For what is made once and sent often
 * (200, 503).
 * @param fields name, value, …; pseudo headers first, names in lower case. Forbidden bytes throw: they are our own fault.
 */
export function encodeStaticBlock(fields: readonly string[]): HeaderBlock {
  return new HeaderBlock(fields, encodeStateless(fields));
}

/** What validation found besides faults; reused, so read it before the next call. */
export interface HeaderFacts {
  /** The declared content-length, or LENGTH_UNKNOWN. */
  contentLength: number;
  isConnect: boolean;
  isHead: boolean;
  /** 0 in a request. */
  status: number;
}

export function newHeaderFacts(): HeaderFacts {
  return { contentLength: LENGTH_UNKNOWN, isConnect: false, isHead: false, status: 0 };
}

/** Returns why the request is malformed, or the empty string. Bytes of names and values were checked by the decoder. */
export function validateRequest(list: readonly string[], connectProtocol: boolean, facts: HeaderFacts): string {
  let method: string | undefined;
  let scheme: string | undefined;
  let path: string | undefined;
  let authority: string | undefined;
  let protocol: string | undefined;
  let i = 0;
  for (; i < list.length; i += 2) {
    const name = list[i]!;
    if (name.charCodeAt(0) !== 0x3a) break;
    const value = list[i + 1]!;
    switch (name) {
      case ":method":
        if (method !== undefined) return "two :method";
        method = value;
        break;
      case ":scheme":
        if (scheme !== undefined) return "two :scheme";
        scheme = value;
        break;
      case ":path":
        if (path !== undefined) return "two :path";
        path = value;
        break;
      case ":authority":
        if (authority !== undefined) return "two :authority";
        authority = value;
        break;
      case ":protocol":
        if (protocol !== undefined) return "two :protocol";
        protocol = value;
        break;
      default:
        return `${printable(name)} is not a request pseudo header`;
    }
  }
  facts.contentLength = LENGTH_UNKNOWN;
  const fault = validateRegular(list, i, facts, authority);
  if (fault !== "") return fault;
  if (method === undefined) return "no :method";
  if (!isToken(method)) return ":method is not a token";
  facts.isConnect = method === "CONNECT";
  facts.isHead = method === "HEAD";
  facts.status = 0;
  if (authority !== undefined && authority !== "" && !isAuthority(authority)) return ":authority is not host and port";
  if (facts.isConnect) {
    facts.contentLength = LENGTH_UNKNOWN;
    if (authority === undefined || authority === "") return "CONNECT without :authority";
    if (protocol === undefined) {
      if (scheme !== undefined || path !== undefined) return "CONNECT with :scheme or :path";
      return "";
    }
    if (!connectProtocol) return ":protocol, which was not offered";
    if (!isToken(protocol)) return ":protocol is not a token";
  } else if (protocol !== undefined) {
    return ":protocol without CONNECT";
  }
  if (scheme === undefined) return "no :scheme";
  if (!isScheme(scheme)) return ":scheme is not a lower-case scheme";
  if (path === undefined) return "no :path";
  if (!isPath(path)) return ":path is empty or has forbidden bytes";
  if (path.charCodeAt(0) !== 0x2f && !(path === "*" && method === "OPTIONS")) return ":path does not start with a slash";
  return "";
}

/** Returns why the response is malformed, or the empty string. */
export function validateResponse(list: readonly string[], facts: HeaderFacts): string {
  if (list[0] !== ":status") return "does not begin with :status";
  const status = list[1]!;
  if (!/^[1-5][0-9][0-9]$/.test(status)) return ":status is not a status code";
  if (list.length > 2 && list[2]!.charCodeAt(0) === 0x3a) return `${printable(list[2]!)} in a response`;
  facts.status = Number(status);
  facts.isConnect = false;
  facts.isHead = false;
  facts.contentLength = LENGTH_UNKNOWN;
  if (facts.status === 101) return "101 does not exist in HTTP/2";
  return validateRegular(list, 2, facts, undefined);
}

/** Returns why the trailers are malformed, or the empty string. */
export function validateTrailers(list: readonly string[], facts: HeaderFacts): string {
  return validateRegular(list, 0, facts, undefined);
}

/** Fields that are not pseudo headers, from `start` on. `authority` is what Host must agree with. */
function validateRegular(list: readonly string[], start: number, facts: HeaderFacts, authority: string | undefined): string {
  let host: string | undefined;
  for (let i = start; i < list.length; i += 2) {
    const name = list[i]!;
    switch (name) {
      case "connection":
      case "keep-alive":
      case "proxy-connection":
      case "transfer-encoding":
      case "upgrade":
        return `${name} is forbidden in HTTP/2`;
      case "te":
        if (list[i + 1]!.toLowerCase() !== "trailers") return "te other than trailers";
        break;
      case "host":
        if (host !== undefined) return "two host fields";
        host = list[i + 1]!;
        if (host !== "" && !isAuthority(host)) return "host is not host and port";
        if (authority !== undefined && host.toLowerCase() !== authority.toLowerCase()) return "host differs from :authority";
        break;
      case "content-length":
        if (facts.contentLength !== LENGTH_UNKNOWN) return "two content-length fields";
        facts.contentLength = parseContentLength(list[i + 1]!);
        if (facts.contentLength === LENGTH_UNKNOWN) return "content-length is not a number";
        break;
      default:
        if (name.charCodeAt(0) === 0x3a) return `${printable(name)} out of place`;
    }
  }
  return "";
}

function isScheme(text: string): boolean {
  return text === "https" || text === "http" || /^[a-z][a-z0-9+.-]{0,31}$/.test(text);
}

function printable(name: string): string {
  return name.slice(0, 32).replace(/[^\x21-\x7e]/g, "?");
}
