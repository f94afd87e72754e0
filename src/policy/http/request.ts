// A request as the decisions of this folder see it. The waypoint implements this over the head of whichever engine read it; nothing is
// copied until it is asked for. Path and host are in their one normal form already (src/wire/http).

import type { IpAddress } from "../../core/ip.ts";
import type { SpiffeId } from "../../core/spiffe.ts";

/** Fields by lower-case name. One char per byte, no white space at either end. */
export interface FieldLookup {
  /** All values as one, joined with ", " (cookie: "; "); undefined when there is none. */
  value(name: string): string | undefined;
  /** Every value, in order; empty when there is none. */
  values(name: string): readonly string[];
}

/** Who sent it: the workload that began the request, not the tunnel that brought it. */
export interface RequestSource {
  /** Null for a caller without a proved identity. */
  readonly identity: SpiffeId | null;
  /** Null when the caller is unknown. */
  readonly namespace: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly ip: IpAddress;
}

export interface RequestView {
  readonly method: string;
  /** Without the query. `*` for OPTIONS of the server as a whole, empty for CONNECT. */
  readonly path: string;
  /** As it came, with its question mark; empty when there is none. */
  readonly query: string;
  /** Lower case, without port and brackets; empty when the request names none. */
  readonly host: string;
  /** The port that the authority names; null when it names none. */
  readonly authorityPort: number | null;
  readonly scheme: "http" | "https";
  readonly fields: FieldLookup;
  readonly source: RequestSource;
}

/** `host` or `host:port`, as it is written in a request. */
export function authorityText(host: string, port: number | null): string {
  const name = host.includes(":") ? `[${host}]` : host;
  return port === null ? name : `${name}:${port}`;
}

/** A host in a rule as requests have it: lower case, no dot at its end, IPv6 without brackets. */
export function normalHostText(text: string): string {
  return text.toLowerCase().replace(/^\[(.*)\]$/, "$1").replace(/\.$/, "");
}

/** A field's values as one; the parts of the request line too, under the names that they have in HTTP/2. */
export function fieldOf(request: RequestView, name: string): string | undefined {
  switch (name) {
    case "host":
    case ":authority": return request.host === "" ? undefined : authorityText(request.host, request.authorityPort);
    case ":method": return request.method;
    case ":path": return request.path + request.query;
    case ":scheme": return request.scheme;
    default: return request.fields.value(name);
  }
}

/** gRPC and gRPC-Web: what we answer by ourselves is told in gRPC's own way. */
export function isGrpc(request: RequestView): boolean {
  return request.fields.value("content-type")?.startsWith("application/grpc") ?? false;
}
