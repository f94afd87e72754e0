// The HBONE CONNECT: the fields of the request and of its 200, and the strict reading of a request's header list.
// HTTP/2 has already checked what RFC 9113 demands of any request; what makes it an HBONE tunnel is checked here.

import type { SocketAddress } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { type Authority, formatAuthority, parseAuthority } from "./authority.ts";
import { type Baggage, baggageOf, type BaggageSource, decodeBaggage, encodeBaggage } from "./baggage.ts";
import { decodeForwardedHost, encodeForwarded } from "./forwarded.ts";
import { decodeTraceparent, type Traceparent } from "../trace/traceparent.ts";

/** The answers to a CONNECT. A client closes the application's connection on all but the first. */
export const ConnectStatus = {
  /** The application accepted the connection; bytes flow. */
  OK: 200,
  /** Not a CONNECT, a malformed authority, or an address that is not this workload's. */
  BAD_REQUEST: 400,
  /** Refused by policy. */
  UNAUTHORIZED: 401,
  /** The workload is not known here, the target cannot be resolved or is one of our own ports, or the application did not accept. */
  UNAVAILABLE: 503,
} as const;
export type ConnectStatus = (typeof ConnectStatus)[keyof typeof ConnectStatus];

/** Ours and Istio's, so not in any RFC: the sender's network, on the inner CONNECT of a double HBONE tunnel. */
export const FORWARDED_NETWORK = "x-forwarded-network";
/** Network names are Kubernetes label values and the like. */
export const NETWORK_CHARS_MAX = 253;

export interface ConnectOptions {
  readonly authority: Authority;
  readonly source: BaggageSource;
  /** Used when the source does not name its cluster. */
  readonly clusterId: string;
  /** The application's own end of the connection. */
  readonly forwardedFor: SocketAddress;
  /** Hostname of the service that was addressed; null when a workload was. */
  readonly forwardedHost: string | null;
  /** `traceparent`, whole. */
  readonly traceparent: string;
  /** Our network, on the inner CONNECT through a network gateway only. */
  readonly network?: string;
}

/** The request as a flat list (name, value, …), pseudo headers first, ready for the HTTP/2 engine. */
export function connectFields(options: ConnectOptions): string[] {
  const fields = [":method", "CONNECT", ":authority", formatAuthority(options.authority)];
  pushBaggage(fields, options.source, options.clusterId);
  fields.push("forwarded", encodeForwarded({ for: options.forwardedFor, host: options.forwardedHost }));
  fields.push("traceparent", options.traceparent);
  if (options.network !== undefined && isNetwork(options.network)) fields.push(FORWARDED_NETWORK, options.network);
  return fields;
}

/** The 200, with the destination's baggage; null leaves that out. */
export function responseFields(destination: BaggageSource | null, clusterId = ""): string[] {
  const fields = [":status", String(ConnectStatus.OK)];
  if (destination !== null) pushBaggage(fields, destination, clusterId);
  return fields;
}

export interface ConnectRequest {
  readonly authority: Authority;
  /** Null without any `baggage` header. */
  readonly baggage: Baggage | null;
  readonly forwardedHost: string | null;
  /** Null without one, or with one that is malformed. */
  readonly trace: Traceparent | null;
  /** Network of the sender when the tunnel came through a gateway. */
  readonly forwardedNetwork: string | null;
}

export interface ConnectRefused {
  readonly status: typeof ConnectStatus.BAD_REQUEST;
  readonly reason: string;
}

/**
 * Reads a request's header list (name, value, …; pseudo headers first). Refused with a 400: a method other than CONNECT,
 * no authority or a malformed one, `:scheme` or `:path`, any pseudo header twice, unknown or after a regular field, and
 * extended CONNECT (RFC 8441): it asks for another protocol than a byte tunnel. Everything else that is absent, unknown or
 * malformed is survived: the telemetry fields come back null or empty.
 */
export function readConnect(headers: readonly string[]): Result<ConnectRequest, ConnectRefused> {
  const pseudo = readPseudo(headers);
  if (!pseudo.ok) return pseudo;
  const { method, authority: authorityText, scheme, path, protocol } = pseudo.value;
  if (method !== "CONNECT") return refused(method === null ? "no :method" : "method is not CONNECT");
  if (protocol !== null) return refused("extended CONNECT is not an HBONE tunnel");
  if (scheme !== null || path !== null) return refused("CONNECT with :scheme or :path");
  if (authorityText === null) return refused("CONNECT without :authority");
  const authority = parseAuthority(authorityText);
  if (!authority.ok) return refused(authority.error);
  const baggage = valuesOf(headers, "baggage");
  const traceparent = valuesOf(headers, "traceparent");
  return ok({
    authority: authority.value,
    baggage: baggage.length === 0 ? null : decodeBaggage(baggage),
    forwardedHost: decodeForwardedHost(valuesOf(headers, "forwarded")),
    trace: traceparent.length === 1 ? decodeTraceparent(traceparent[0]!) : null,
    forwardedNetwork: readNetwork(valuesOf(headers, FORWARDED_NETWORK)),
  });
}

interface Pseudo {
  method: string | null;
  authority: string | null;
  scheme: string | null;
  path: string | null;
  protocol: string | null;
}

function readPseudo(headers: readonly string[]): Result<Pseudo, ConnectRefused> {
  const pseudo: Pseudo = { method: null, authority: null, scheme: null, path: null, protocol: null };
  let regularSeen = false;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i]!;
    if (!name.startsWith(":")) {
      regularSeen = true;
      continue;
    }
    if (regularSeen) return refused("pseudo header after a regular field");
    const field = pseudoField(name);
    if (field === null) return refused("unknown pseudo header");
    if (pseudo[field] !== null) return refused(`two ${name}`);
    pseudo[field] = headers[i + 1]!;
  }
  return ok(pseudo);
}

function pseudoField(name: string): keyof Pseudo | null {
  switch (name) {
    case ":method": return "method";
    case ":authority": return "authority";
    case ":scheme": return "scheme";
    case ":path": return "path";
    case ":protocol": return "protocol";
    default: return null;
  }
}

const refused = (reason: string) => err<ConnectRefused>({ status: ConnectStatus.BAD_REQUEST, reason });

function pushBaggage(fields: string[], workload: BaggageSource, clusterId: string): void {
  let known = encodedBaggage.get(workload);
  if (known === undefined || known.clusterId !== clusterId) {
    const baggage = baggageOf(workload);
    known = { clusterId, text: encodeBaggage(baggage.clusterId === "" ? { ...baggage, clusterId } : baggage) };
    encodedBaggage.set(workload, known);
  }
  if (known.text !== "") fields.push("baggage", known.text);
}

/** Records are immutable, so a workload's header value is made once, not once for each connection. */
const encodedBaggage = new WeakMap<BaggageSource, { readonly clusterId: string; readonly text: string }>();

/** Two different values name no network. */
function readNetwork(values: readonly string[]): string | null {
  const [first] = values;
  if (first === undefined || !isNetwork(first) || values.some((value) => value !== first)) return null;
  return first;
}

function isNetwork(text: string): boolean {
  return text.length <= NETWORK_CHARS_MAX && /^[\x21-\x7e]+$/.test(text);
}

function valuesOf(headers: readonly string[], name: string): string[] {
  const values: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) if (headers[i] === name) values.push(headers[i + 1]!);
  return values;
}
