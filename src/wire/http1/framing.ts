// What the fields of a head say about the connection and about the body that follows (RFC 9112, sections 6, 7 and 9; RFC 9110, 7.6.1, 7.8,
// 10.1). Reads the fields that belong to one connection and hides them, with all that Connection names, so that nobody passes them on.
//
// Whatever two readers could understand differently is a fault: two lengths, a length and an encoding, an encoding that is not exactly
// "chunked", an encoding in HTTP/1.0.

import { LENGTH_UNKNOWN, parseContentLengthBytes } from "../http/content-length.ts";
import { isToken } from "../http/field-bytes.ts";
import type { Http1Code } from "./errors.ts";
import { FieldKind, type RawHead } from "./raw-head.ts";

export class HeadFacts {
  /** LENGTH_UNKNOWN without the field. */
  contentLength = LENGTH_UNKNOWN;
  chunked = false;
  /** After the rules of the version and Connection. */
  keepAlive = true;
  acceptsTrailers = false;
  /** The one protocol of Upgrade, in lower case; null when none, several, or Connection does not name it. */
  upgrade: string | null = null;
  expectsContinue = false;
  hostCount = 0;
  /** Index of the last Host. */
  hostAt = 0;

  faultCode: Http1Code = "badConnection";
  faultMessage = "";

  clear(): void {
    this.contentLength = LENGTH_UNKNOWN;
    this.chunked = false;
    this.keepAlive = true;
    this.acceptsTrailers = false;
    this.upgrade = null;
    this.expectsContinue = false;
    this.hostCount = 0;
    this.hostAt = 0;
  }
}

/** Connection may not take away what frames the message, says where it goes, or whose it is. */
const NEVER_NOMINATED = new Set(["host", "content-length", "transfer-encoding", "cookie", "authorization", "connection"]);

/** Names in Connection that have a meaning of their own. */
interface ConnectionTokens {
  close: boolean;
  keepAlive: boolean;
  upgrade: boolean;
}

/** Fills `facts` and hides the connection's own fields. False: `facts.faultCode` and `faultMessage` say why. */
export function readFacts(head: RawHead, facts: HeadFacts): boolean {
  facts.clear();
  facts.keepAlive = head.minor === 1;
  let connection = -1;
  let severalConnections = false;
  let upgrade: string | null = null;
  const { kinds, count } = head;
  for (let i = 0; i < count; i++) {
    const kind = kinds[i]!;
    if (kind === FieldKind.other) continue;
    head.hide(i);
    switch (kind) {
      case FieldKind.host:
        facts.hostCount++;
        facts.hostAt = i;
        break;
      case FieldKind.contentLength:
        if (head.hasTabAround(i)) return fault(facts, "badContentLength", "a tab beside the value of Content-Length");
        if (facts.contentLength !== LENGTH_UNKNOWN) return fault(facts, "severalContentLengths", "more than one Content-Length");
        facts.contentLength = parseContentLengthBytes(head.bytes, head.offsets[i * 4 + 2]!, head.offsets[i * 4 + 3]!);
        if (facts.contentLength === LENGTH_UNKNOWN) return fault(facts, "badContentLength", "Content-Length is not a plain decimal number below 10^15");
        break;
      case FieldKind.transferEncoding:
        if (head.hasTabAround(i)) return fault(facts, "badTransferEncoding", "a tab beside the value of Transfer-Encoding");
        if (facts.chunked) return fault(facts, "badTransferEncoding", "more than one Transfer-Encoding");
        if (!readTransferEncoding(head.valueAt(i), facts)) return false;
        break;
      case FieldKind.connection:
        severalConnections = connection >= 0;
        connection = i;
        break;
      case FieldKind.te:
        if (/(?:^|,)[ \t]*trailers[ \t]*(?:,|$)/i.test(head.valueAt(i))) facts.acceptsTrailers = true;
        break;
      case FieldKind.upgrade:
        upgrade = upgrade === null ? head.valueAt(i) : "";
        break;
      case FieldKind.expect:
        if (head.status === 0 && !readExpect(head, i, facts)) return false;
        break;
    }
  }
  if (facts.chunked) {
    if (head.minor === 0) return fault(facts, "encodingInHttp10", "Transfer-Encoding in an HTTP/1.0 message");
    if (facts.contentLength !== LENGTH_UNKNOWN) return fault(facts, "lengthAndEncoding", "both Content-Length and Transfer-Encoding");
  }
  if (connection < 0) return true;
  if (!severalConnections) {
    // The values that nearly every message has, without making a string.
    if (head.valueIs(connection, "keep-alive") || head.valueIs(connection, "Keep-Alive")) {
      facts.keepAlive = true;
      return true;
    }
    if (head.valueIs(connection, "close")) {
      facts.keepAlive = false;
      return true;
    }
  }
  return readConnection(head, facts, severalConnections ? allConnections(head) : head.valueAt(connection), upgrade);
}

function fault(facts: HeadFacts, code: Http1Code, message: string): false {
  facts.faultCode = code;
  facts.faultMessage = message;
  return false;
}

function readTransferEncoding(value: string, facts: HeadFacts): boolean {
  if (value.toLowerCase() === "chunked") {
    facts.chunked = true;
    return true;
  }
  const codings = value.split(",").map((coding) => coding.replace(/^[ \t]+|[ \t]+$/g, "").toLowerCase());
  if (codings.every((coding) => isToken(coding)) && codings.some((coding) => coding !== "chunked" && coding !== "identity")) {
    return fault(facts, "unknownTransferEncoding", "Transfer-Encoding names a coding other than chunked");
  }
  return fault(facts, "badTransferEncoding", "Transfer-Encoding is not exactly chunked");
}

function readExpect(head: RawHead, i: number, facts: HeadFacts): boolean {
  // RFC 9110, section 10.1.1: an expectation in HTTP/1.0 is ignored.
  if (head.minor === 0) return true;
  if (head.valueAt(i).toLowerCase() !== "100-continue") return fault(facts, "unknownExpectation", "Expect is not 100-continue");
  facts.expectsContinue = true;
  return true;
}

function allConnections(head: RawHead): string {
  let all = "";
  for (let i = 0; i < head.count; i++) if ((head.kinds[i]! & 0x7f) === FieldKind.connection) all += `${all === "" ? "" : ","}${head.valueAt(i)}`;
  return all;
}

function readConnection(head: RawHead, facts: HeadFacts, value: string, upgrade: string | null): boolean {
  const tokens: ConnectionTokens = { close: false, keepAlive: false, upgrade: false };
  for (const part of value.split(",")) {
    const token = part.replace(/^[ \t]+|[ \t]+$/g, "").toLowerCase();
    // RFC 9110, section 5.6.1: empty elements of a list are skipped.
    if (token === "") continue;
    if (!isToken(token)) return fault(facts, "badConnection", "Connection is not a list of names");
    if (token === "close") tokens.close = true;
    else if (token === "keep-alive") tokens.keepAlive = true;
    else if (token === "upgrade") tokens.upgrade = true;
    else if (NEVER_NOMINATED.has(token)) return fault(facts, "badConnection", `Connection names ${token}, which is not for one connection`);
    else head.hideNamed(token);
  }
  facts.keepAlive = !tokens.close && (head.minor === 1 || tokens.keepAlive);
  // RFC 9110, section 7.8: Upgrade counts in HTTP/1.1 only, and only when Connection names it.
  if (tokens.upgrade && upgrade !== null && head.minor === 1) facts.upgrade = oneProtocol(upgrade);
  return true;
}

/** HTTP/2 by Upgrade is never accepted (RFC 9113 dropped it, and smugglers like it); nor is a choice of protocols. */
function oneProtocol(value: string): string | null {
  const protocol = value.toLowerCase();
  if (protocol === "h2c" || protocol === "h2") return null;
  const slash = protocol.indexOf("/");
  const valid = slash < 0 ? isToken(protocol) : isToken(protocol.slice(0, slash)) && isToken(protocol.slice(slash + 1));
  return valid ? protocol : null;
}
