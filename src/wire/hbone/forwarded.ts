// The `forwarded` header of HBONE (RFC 7239): the client's address, and the service hostname it asked for. Only the hostname is
// read, and only to label telemetry: `for` is never trusted.

import { formatSocketAddress, type SocketAddress } from "../../core/ip.ts";
import { parseHostname } from "./authority.ts";

/** A longer header is not read: a chain of that length is abuse. */
export const FORWARDED_BYTES_MAX = 2048;

/** @param host service hostname; left out when null or not a hostname. */
export function encodeForwarded({ for: source, host }: { for: SocketAddress; host: string | null }): string {
  const hostname = host === null ? null : parseHostname(host);
  const forPart = `for="${formatSocketAddress(source)}"`;
  return hostname === null ? forPart : `${forPart};host=${hostname}`;
}

/**
 * The hostname of the first element that has a `host`, in lower case and without its port. Null when there is none, when it is
 * not a hostname, or when the list is malformed before it is found.
 * @param lines header values, in order.
 */
export function decodeForwardedHost(lines: readonly string[]): string | null {
  let bytesLeft = FORWARDED_BYTES_MAX;
  for (const line of lines) {
    if (line.length > bytesLeft) return null;
    bytesLeft -= line.length;
    const host = hostInLine(line);
    if (host.kind === "found") return hostnameOf(host.value);
    if (host.kind === "malformed") return null;
  }
  return null;
}

type HostSearch = { readonly kind: "found"; readonly value: string } | { readonly kind: "absent" } | { readonly kind: "malformed" };
const ABSENT: HostSearch = { kind: "absent" };
const MALFORMED: HostSearch = { kind: "malformed" };

/** Walks `name=value` pairs, separated by `;` and `,` alike: a separator inside quotes separates nothing. */
function hostInLine(line: string): HostSearch {
  PAIR.lastIndex = 0;
  while (PAIR.lastIndex < line.length) {
    const pair = PAIR.exec(line);
    if (pair === null) return MALFORMED;
    const [, name, token, quoted] = pair;
    if (name?.toLowerCase() === "host") return { kind: "found", value: token ?? quoted!.replace(/\\(.)/g, "$1") };
  }
  return ABSENT;
}

/** One optional pair and its separator. Sticky; no two parts can match the same text, so it is linear. */
const PAIR = /[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z:[\]-]+)|"((?:[^"\\]|\\.)*)")[ \t]*)?(?:[;,]|$)/y;

function hostnameOf(value: string): string | null {
  const port = /:[0-9]{1,5}$/.exec(value);
  return parseHostname(port === null ? value : value.slice(0, port.index));
}
