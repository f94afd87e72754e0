// The `:authority` of an HBONE CONNECT: `ip:port`, `[v6]:port` or `hostname:port`. One strict reading, so that what is
// authorised is what is dialled. RFC 9113 section 8.5, RFC 3986 section 3.2, RFC 1123 section 2.1. Resolves nothing.

import { formatSocketAddress, parseIp, parsePort, type SocketAddress } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";

/** RFC 1035 section 2.3.4: 255 octets on the wire, so 253 characters of text. */
export const HOSTNAME_CHARS_MAX = 253;
/** A hostname, a colon and five digits; an address is always shorter. */
export const AUTHORITY_CHARS_MAX = HOSTNAME_CHARS_MAX + 6;

export type Authority =
  | { readonly kind: "address"; readonly address: SocketAddress }
  /** `hostname` is in lower case and without a trailing dot. */
  | { readonly kind: "hostname"; readonly hostname: string; readonly port: number };

/**
 * Reads an authority. Refused, with the reason: no port or port 0, user information, a zone, an IPv6 address without brackets,
 * an address that only looks like one (`10.0.0.256`, `010.0.0.1`), a name that is not RFC 1123, a trailing dot, any white space.
 * An IPv4-mapped IPv6 address comes back as the IPv4 address it stands for.
 */
export function parseAuthority(text: string): Result<Authority, string> {
  if (text === "") return err("authority is empty");
  if (text.length > AUTHORITY_CHARS_MAX) return err(`authority has ${text.length} characters, at most ${AUTHORITY_CHARS_MAX} are allowed`);
  const colon = text.lastIndexOf(":");
  if (colon < 0) return err("authority has no port");
  const port = parsePort(text.slice(colon + 1));
  if (port === null) return err("authority does not end in a port number");
  if (port === 0) return err("authority has port 0");
  const host = text.slice(0, colon);
  if (host.startsWith("[")) return bracketed(host, port);
  if (host.includes(":")) return err("authority has an IPv6 address without brackets");
  const ip = parseIp(host);
  if (ip !== null) return ok({ kind: "address", address: { ip, port } });
  const hostname = parseHostname(host);
  return hostname === null ? err("authority is neither an IP address nor a hostname") : ok({ kind: "hostname", hostname, port });
}

export function formatAuthority(authority: Authority): string {
  return authority.kind === "address" ? formatSocketAddress(authority.address) : `${authority.hostname}:${authority.port}`;
}

/**
 * A hostname in lower case; null unless it is labels of letters, digits and inner hyphens (RFC 1123), 63 characters each.
 * A last label of digits only is refused: such a name is a mistyped IPv4 address, and some resolvers would take it for one.
 */
export function parseHostname(text: string): string | null {
  if (text.length === 0 || text.length > HOSTNAME_CHARS_MAX) return null;
  let labelStart = 0;
  let digitsOnly = true;
  for (let i = 0; i <= text.length; i++) {
    const code = i === text.length ? DOT : text.charCodeAt(i);
    if (code === DOT) {
      const length = i - labelStart;
      if (length === 0 || length > 63 || text.charCodeAt(labelStart) === HYPHEN || text.charCodeAt(i - 1) === HYPHEN) return null;
      if (i === text.length) break;
      labelStart = i + 1;
      digitsOnly = true;
    } else if (!isDigit(code)) {
      if (!isLetter(code) && code !== HYPHEN) return null;
      digitsOnly = false;
    }
  }
  return digitsOnly ? null : text.toLowerCase();
}

const DOT = 0x2e;
const HYPHEN = 0x2d;
const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39;
const isLetter = (code: number): boolean => (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;

function bracketed(host: string, port: number): Result<Authority, string> {
  if (!host.endsWith("]")) return err("authority has an unclosed bracket");
  const inner = host.slice(1, -1);
  const ip = inner.includes(":") ? parseIp(inner) : null;
  return ip === null ? err("authority has no IPv6 address between its brackets") : ok({ kind: "address", address: { ip, port } });
}
