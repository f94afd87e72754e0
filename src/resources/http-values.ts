// Header names, header values, methods, hosts and paths, as every HTTP kind checks them.

import { z } from "zod";
import { admits } from "./admission.ts";
import { DNS_SUBDOMAIN, isDnsSubdomain } from "./object-meta.ts";

export const TOKEN = /^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$/;
const HEADER_VALUE = /^[\t\x20-\x7e]*$/;
const HEADER_NAME_CHARS_MAX = 256;
const HEADER_VALUE_CHARS_MAX = 4096;
const PATH_CHARS_MAX = 1024;
const HOST_CHARS_MAX = 253;
const PATH = /^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+$/;

export const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] as const;

export const isToken = (text: string): boolean => text.length <= HEADER_NAME_CHARS_MAX && TOKEN.test(text);
export const headerName = z.string().refine(isToken, { error: `expected a header name: at most ${HEADER_NAME_CHARS_MAX} letters, digits and !#$%&'*+-.^_\`|~` }).meta({ maxLength: HEADER_NAME_CHARS_MAX, pattern: TOKEN.source });

/** They frame or route the message itself: a rule that changes them would smuggle or break it. */
const UNTOUCHABLE = new Set(["host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "proxy-connection", "http2-settings"]);
export const changedHeaderName = headerName.refine((name) => !UNTOUCHABLE.has(name.toLowerCase()), {
  error: "expected a header that does not frame the message; change the host with a rewrite of the hostname, the others not at all",
});
/** Of requests, as Istio has it: the host may be set as if it were a header, by either of its names. */
export const isHostHeader = (name: string): boolean => name.toLowerCase() === "host" || name.toLowerCase() === ":authority";
export const headerValue = z.string().max(HEADER_VALUE_CHARS_MAX).refine((text) => HEADER_VALUE.test(text) && text === text.trim(), { error: "expected a header value: printable ASCII, no space at either end" })
  .meta({ pattern: "^([\\x21-\\x7e]([\\t\\x20-\\x7e]*[\\x21-\\x7e])?)?$" });

/** An absolute path in normal form, without query and fragment: what requests are compared with. */
export function pathFault(path: string): string | null {
  if (!path.startsWith("/")) return "expected a path that begins with /";
  if (path.length > PATH_CHARS_MAX) return `expected a path of at most ${PATH_CHARS_MAX} characters`;
  if (/\/\/|\/\.\.?(\/|$)/.test(path)) return "expected a path without //, /./ and /../: requests are compared in their normal form, which has none";
  if (/%2f/i.test(path)) return "expected a path without %2F: an encoded slash is never matched";
  return PATH.test(path) ? null : "expected a path of letters, digits, -._~!$&'()*+,;=:@/ and percent-encoded bytes";
}

export const pathText = z.string().superRefine((text, context) => {
  const fault = pathFault(text);
  if (fault !== null) context.addIssue({ code: "custom", message: fault });
}).meta({
  maxLength: PATH_CHARS_MAX, pattern: PATH.source,
  ...admits({ rule: "self.startsWith('/')", message: "expected a path that begins with /" }, { rule: "!self.matches('//|/[.][.]?(/|$)|%2[fF]')", message: "expected a path without //, /./, /../ and %2F: requests are compared in their normal form, which has none" }),
});

export const hostname = z.string().refine(isDnsSubdomain, { error: "expected a host name in lower case, without port and wildcard" }).meta({ maxLength: HOST_CHARS_MAX, pattern: DNS_SUBDOMAIN.source });
const isPort = (text: string): boolean => /^[1-9][0-9]{0,4}$/.test(text) && Number(text) <= 65_535;
/** `HOST` or `HOST:PORT`. */
export const isAuthority = (text: string): boolean => {
  const [host = "", ...port] = text.split(":");
  return isDnsSubdomain(host) && port.length <= 1 && port.every(isPort);
};
export const authority = z.string().refine(isAuthority, { error: "expected a host name in lower case, with or without a port" });
export const isWildcardHost = (text: string): boolean => isDnsSubdomain(text.startsWith("*.") ? text.slice(2) : text);
export const wildcardHostname = z.string().refine(isWildcardHost, { error: "expected a host name in lower case, or *. and one" });

export const httpStatus = z.int().min(200).max(599);
export const percentOfHundred = z.number().min(0).max(100);
