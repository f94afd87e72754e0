// PROXY protocol version 1: one line of text before the bytes of a connection. Read only; we send version 2.
// HAProxy PROXY protocol, section 2.1. Pure.

import { isIpv6, parseIp, parsePort } from "../../core/ip.ts";
import { malformed, need, type ProxyDecoding, type ProxyHeader } from "./header.ts";

/** Section 2.1: the longest line, CRLF included. */
export const PROXY_V1_BYTES_MAX = 107;

const START = "PROXY ";

/**
 * Splits one PROXY v1 line off the front of `bytes`; outcomes as in decodeProxyV2. `need` is a lower bound, as the length is
 * known only at the line's end.
 * Strict: single spaces, canonical port numbers, addresses of the family named, CRLF. What follows UNKNOWN is not read.
 */
export function decodeProxyV1(bytes: Uint8Array): ProxyDecoding {
  const start = Math.min(bytes.length, START.length);
  for (let i = 0; i < start; i++) if (bytes[i] !== START.charCodeAt(i)) return malformed("no PROXY v1 signature");
  const end = Math.min(bytes.length, PROXY_V1_BYTES_MAX);
  let line = "";
  for (let i = 0; i < end; i++) {
    const byte = bytes[i]!;
    if (byte === CR) {
      if (i + 1 === PROXY_V1_BYTES_MAX) break;
      if (i + 1 === bytes.length) return need(1);
      if (bytes[i + 1] !== LF) return malformed("carriage return without line feed");
      const header = readLine(line);
      return typeof header === "string" ? malformed(header) : { kind: "header", header, rest: bytes.subarray(i + 2) };
    }
    if (byte < 0x20 || byte > 0x7e) return malformed("a byte that is not printable");
    line += String.fromCharCode(byte);
  }
  return end === PROXY_V1_BYTES_MAX ? malformed(`no end within ${PROXY_V1_BYTES_MAX} bytes`) : need(end < START.length ? START.length - end : 1);
}

const CR = 0x0d;
const LF = 0x0a;

/** Returns what is wrong as text. */
function readLine(line: string): ProxyHeader | string {
  const words = line.split(" ");
  const family = words[1];
  if (family === "UNKNOWN") return { kind: "unknown" };
  if (family !== "TCP4" && family !== "TCP6") return "neither TCP4, TCP6 nor UNKNOWN";
  if (words.length !== 6) return "not two addresses and two ports";
  const source = ipOf(words[2]!, family);
  const destination = ipOf(words[3]!, family);
  const sourcePort = parsePort(words[4]!);
  const destinationPort = parsePort(words[5]!);
  if (source === null || destination === null) return `an address that is not ${family}`;
  if (sourcePort === null || destinationPort === null) return "a port that is not 0 to 65535";
  return { kind: "proxied", source: { ip: source, port: sourcePort }, destination: { ip: destination, port: destinationPort }, sourceIdentity: null };
}

function ipOf(text: string, family: "TCP4" | "TCP6") {
  const ip = parseIp(text);
  // An IPv4-mapped address is an IPv6 address here, whatever it folds to.
  return ip !== null && (family === "TCP6" ? text.includes(":") : !isIpv6(ip) && !text.includes(":")) ? ip : null;
}
