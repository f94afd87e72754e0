// What a request is to a login: where the browser thinks it is, whether it opens a page, whether another site made it.

import { authorityText, isGrpc, type RequestView } from "./request.ts";

/** Scheme, host and port as the browser has them; null when the request names no host. */
export function originOf(request: RequestView): string | null {
  return request.host === "" ? null : `${externalScheme(request)}://${authorityText(request.host, request.authorityPort)}`;
}

/** A gateway of this mesh ends TLS and says so; from anybody else the header was taken out, and is not believed. */
export function externalScheme({ scheme, source, fields }: RequestView): "http" | "https" {
  const told = source.identity === null ? undefined : fields.value("x-forwarded-proto")?.split(",", 1)[0]!.trim().toLowerCase();
  return told === "https" || told === "http" ? told : scheme;
}

/**
 * A browser that opens a page, which can be sent elsewhere and come back. Scripts, programs, gRPC and WebSockets cannot; of a form that
 * was sent the body would be lost. Browsers say what they do in Sec-Fetch-Mode, over https at least; else what they accept tells.
 */
export function isNavigation(request: RequestView): boolean {
  const { method, fields } = request;
  if (method !== "GET" && method !== "HEAD" || isGrpc(request) || fields.value("upgrade") !== undefined) return false;
  const mode = fields.value("sec-fetch-mode");
  if (mode !== undefined) return mode === "navigate";
  if (fields.value("x-requested-with") !== undefined) return false;
  return /(?:^|[,\s])(?:text\/html|application\/xhtml\+xml)(?:$|[,;\s])/i.test(fields.value("accept") ?? "");
}

/** A browser's question before a cross-origin request: by the Fetch standard it carries no cookies, whoever is logged in. */
export function isPreflight({ method, fields }: RequestView): boolean {
  return method === "OPTIONS" && fields.value("origin") !== undefined && fields.value("access-control-request-method") !== undefined;
}

export function isFromOtherSite({ fields }: RequestView): boolean {
  return fields.value("sec-fetch-site") === "cross-site";
}
