// What a request is for: the target of an HTTP/1 request line with its Host, or HTTP/2's pseudo headers, read into one form
// (RFC 9112, section 3.2; RFC 9113, section 8.3.1). Where two places name the host, they must agree.

import { err, ok, type Result } from "../../core/result.ts";
import { type Host, parseHost, sameHost } from "./host.ts";
import { normalisePath, type PathNormalisation } from "./path.ts";

export interface RequestTarget {
  /** Said by an absolute target or :scheme; null where the connection decides. */
  readonly scheme: "http" | "https" | null;
  /** Null only in an HTTP/1.0 request without Host. */
  readonly host: Host | null;
  /** Normalised. `*` for OPTIONS of the server as a whole; empty for CONNECT. */
  readonly path: string;
  /** As it came, before it was normalised; null when that is the same. */
  readonly pathReceived: string | null;
  /** With its question mark; untouched. Empty when there is none. */
  readonly query: string;
}

export type TargetFaultCode = "badTarget" | "badHost" | "hostMismatch";

export interface TargetFault {
  readonly code: TargetFaultCode;
  readonly message: string;
}

const HTTP_PORT = 80;
const HTTPS_PORT = 443;

export interface TargetParts {
  readonly method: string;
  /** Origin, absolute, authority (CONNECT) or asterisk form; one char per byte. */
  readonly target: string;
  /** The Host field, read; null when there was none. */
  readonly host: Host | null;
}

/** Reads the target of an HTTP/1 request. Whether a Host is needed at all is for the engine, which knows the version. */
export function readTarget(parts: TargetParts, how: PathNormalisation): Result<RequestTarget, TargetFault> {
  const { method, target, host } = parts;
  if (method === "CONNECT") return readAuthorityForm(target, host);
  if (target.charCodeAt(0) === 0x2f) return withPath(null, host, target, 0, how);
  if (target === "*") {
    return method === "OPTIONS" ? ok({ scheme: null, host, path: "*", pathReceived: null, query: "" }) : err({ code: "badTarget", message: "only OPTIONS may ask for *" });
  }
  return readAbsoluteForm(target, method, host, how);
}

/** Path and query of `:path` or an origin-form target. */
export function readPath(target: string, how: PathNormalisation): Result<{ readonly path: string; readonly pathReceived: string | null; readonly query: string }, TargetFault> {
  return withPath(null, null, target, 0, how);
}

function withPath(scheme: RequestTarget["scheme"], host: Host | null, target: string, at: number, how: PathNormalisation): Result<RequestTarget, TargetFault> {
  if (target.includes("#")) return err({ code: "badTarget", message: "the target has a fragment, which never travels" });
  const mark = target.indexOf("?", at);
  const raw = at === 0 && mark < 0 ? target : target.slice(at, mark < 0 ? undefined : mark);
  const path = normalisePath(raw, how);
  if (!path.ok) return err({ code: "badTarget", message: path.error });
  return ok({ scheme, host, path: path.value, pathReceived: path.value === raw ? null : raw, query: mark < 0 ? "" : target.slice(mark) });
}

function readAuthorityForm(target: string, host: Host | null): Result<RequestTarget, TargetFault> {
  const authority = parseHost(target);
  if (!authority.ok) return err({ code: "badTarget", message: `CONNECT: ${authority.error}` });
  const { port } = authority.value;
  if (port === null) return err({ code: "badTarget", message: "CONNECT without a port" });
  if (host !== null && !sameHost(authority.value, host, port)) return err({ code: "hostMismatch", message: "Host differs from the target of CONNECT" });
  return ok({ scheme: null, host: authority.value, path: "", pathReceived: null, query: "" });
}

function readAbsoluteForm(target: string, method: string, host: Host | null, how: PathNormalisation): Result<RequestTarget, TargetFault> {
  const match = /^(https?):\/\/([^/?#]*)/i.exec(target);
  if (match === null) return err({ code: "badTarget", message: "the target is neither a path nor an http or https URI" });
  const scheme = match[1]!.toLowerCase() === "https" ? "https" : "http";
  const authority = parseHost(match[2]!);
  if (!authority.ok) return err({ code: "badTarget", message: `in the target, ${authority.error}` });
  if (host !== null && !sameHost(authority.value, host, scheme === "https" ? HTTPS_PORT : HTTP_PORT)) {
    return err({ code: "hostMismatch", message: "Host differs from the host of the target" });
  }
  const at = match[0].length;
  if (at === target.length) return ok({ scheme, host: authority.value, path: method === "OPTIONS" ? "*" : "/", pathReceived: null, query: "" });
  if (target.charCodeAt(at) === 0x3f) return withPath(scheme, authority.value, `/${target.slice(at)}`, 0, how);
  return withPath(scheme, authority.value, target, at, how);
}
