// The one normaliser of hosts: Host, :authority and the authority of an absolute target come out in one form, for matching, access,
// logs and upstream alike. RFC 3986 section 3.2.2, RFC 9110 section 7.2, RFC 1123 section 2.1. Resolves nothing.

import { isIpv6, parseIp, parsePort } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";

export interface Host {
  /** A name in lower case without a trailing dot, or an IP address in canonical form, IPv6 without brackets. */
  readonly name: string;
  readonly isIp: boolean;
  /** 1..65535; null when none was given. */
  readonly port: number | null;
  /** The whole as it is sent on: `name`, `name:port`, `[v6]:port`. */
  readonly text: string;
}

/** RFC 1035, section 2.3.4. */
export const HOST_NAME_CHARS_MAX = 253;
const LABEL_CHARS_MAX = 63;
/** A name, its trailing dot, a colon and five digits. */
const HOST_CHARS_MAX = HOST_NAME_CHARS_MAX + 7;
const HEX_LAST_LABEL = /(?:^|\.)0x[0-9a-f]*$/;

/**
 * Refused, with the reason (the peer's fault, 400): nothing at all, user information, port 0 or no digits after the colon, an IPv6
 * address without brackets or with a zone, a name that some resolvers take for an address (`10.0.0.256`, `010.0.0.1`, `0x7f000001`), escapes, white space, labels that are empty or too long. Underscores are taken: container names have them.
 * An IPv4-mapped IPv6 address comes back as the IPv4 address it stands for.
 */
export function parseHost(text: string): Result<Host, string> {
  const seen = known.get(text);
  return seen ?? readHost(text);
}

/** Requests name the same few hosts over and over. Whoever names a new one each time empties it: they are read at the old price then. */
const known = new Map<string, Result<Host, string>>();
/** Of at most HOST_CHARS_MAX characters each. */
const KNOWN_HOSTS_MAX = 256;

function readHost(text: string): Result<Host, string> {
  const read = hostOf(text);
  if (!read.ok) return read;
  if (known.size >= KNOWN_HOSTS_MAX) known.clear();
  known.set(text, read);
  return read;
}

function hostOf(text: string): Result<Host, string> {
  if (text === "") return err("the host is empty");
  if (text.length > HOST_CHARS_MAX) return err(`the host has ${text.length} characters, at most ${HOST_CHARS_MAX} are allowed`);
  if (text.includes("@")) return err("the host has user information");
  const bracketed = text.charCodeAt(0) === 0x5b;
  const nameEnd = bracketed ? text.indexOf("]") + 1 : endOfName(text);
  if (nameEnd === 0) return err(bracketed ? "the host has an unclosed bracket" : "the host has a port and no name");
  const port = nameEnd === text.length ? null : portAfter(text, nameEnd);
  if (port === undefined) return err("the host does not end in a port of 1 to 65535");
  const raw = text.slice(0, nameEnd);
  return bracketed ? ipv6Host(raw, port) : namedHost(raw, port);
}

/** Host and port agree; one without a port agrees with `defaultPort` too. */
export function sameHost(a: Host, b: Host, defaultPort: number | null): boolean {
  return a.name === b.name && (a.port === b.port || ((a.port ?? defaultPort) === (b.port ?? defaultPort)));
}

function endOfName(text: string): number {
  const colon = text.indexOf(":");
  return colon < 0 ? text.length : colon;
}

function portAfter(text: string, at: number): number | undefined {
  if (text.charCodeAt(at) !== 0x3a) return undefined;
  const port = parsePort(text.slice(at + 1));
  return port === null || port === 0 ? undefined : port;
}

function ipv6Host(raw: string, port: number | null): Result<Host, string> {
  const inner = raw.slice(1, -1);
  const ip = inner.includes(":") ? parseIp(inner) : null;
  if (ip === null) return err("the host has no IPv6 address between its brackets (zones are not allowed)");
  return ok(makeHost(ip, true, port));
}

function namedHost(raw: string, port: number | null): Result<Host, string> {
  const ip = parseIp(raw);
  if (ip !== null) return isIpv6(ip) ? err("the host has an IPv6 address without brackets") : ok(makeHost(ip, true, port));
  const name = hostName(raw);
  return name === null ? err("the host is neither a name nor an IP address") : ok(makeHost(name, false, port));
}

function makeHost(name: string, isIp: boolean, port: number | null): Host {
  const shown = isIp && name.includes(":") ? `[${name}]` : name;
  return { name, isIp, port, text: port === null ? shown : `${shown}:${port}` };
}

/** Lower case, one trailing dot taken off; null when it is no name. */
function hostName(raw: string): string | null {
  const end = raw.charCodeAt(raw.length - 1) === 0x2e ? raw.length - 1 : raw.length;
  if (end === 0 || end > HOST_NAME_CHARS_MAX) return null;
  let labelStart = 0;
  let digitsOnly = true;
  let upper = false;
  for (let i = 0; i <= end; i++) {
    const code = i === end ? 0x2e : raw.charCodeAt(i);
    if (code === 0x2e) {
      if (i === labelStart || i - labelStart > LABEL_CHARS_MAX || raw.charCodeAt(labelStart) === 0x2d || raw.charCodeAt(i - 1) === 0x2d) return null;
      if (i === end) break;
      labelStart = i + 1;
      digitsOnly = true;
    } else if (code >= 0x30 && code <= 0x39) {
      continue;
    } else {
      digitsOnly = false;
      if (code >= 0x41 && code <= 0x5a) upper = true;
      else if (!((code >= 0x61 && code <= 0x7a) || code === 0x2d || code === 0x5f)) return null;
    }
  }
  if (digitsOnly) return null;
  const cut = end === raw.length ? raw : raw.slice(0, end);
  const name = upper ? cut.toLowerCase() : cut;
  return name.includes("0x") && HEX_LAST_LABEL.test(name) ? null : name;
}
