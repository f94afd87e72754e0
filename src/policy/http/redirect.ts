// The Location of a redirect: scheme, host, port, path and query, each from the rule or from the request. Gateway API, RequestRedirect.

import type { Redirect } from "../../mesh/l7/route.ts";
import type { CompiledPathChange, MatchedPrefix } from "./path-change.ts";
import { authorityText, type RequestView } from "./request.ts";

export interface RedirectFacts {
  readonly prefix: MatchedPrefix | null;
  /** The port at which the request was received: the service's, not the tunnel's. */
  readonly listenerPort: number;
}

const WELL_KNOWN = { http: 80, https: 443 } as const;

export function redirectLocation(redirect: Redirect, change: CompiledPathChange | null, request: RequestView, { prefix, listenerPort }: RedirectFacts): string {
  const target = change === null ? request : change(request, prefix);
  const path = target.path.startsWith("/") ? target.path + target.query : `/${target.query}`;
  const host = redirect.hostname ?? request.host;
  // A request without a host is answered with a path, which must not be taken for a host in its turn.
  if (host === "") return path.replace(/^\/+/, "/");
  const scheme = redirect.scheme ?? request.scheme;
  const port = redirect.port ?? (redirect.scheme === null ? listenerPort : WELL_KNOWN[scheme]);
  return `${scheme}://${authorityText(host.toLowerCase(), port === WELL_KNOWN[scheme] ? null : port)}${path}`;
}
