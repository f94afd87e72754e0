// How the settings name a control plane: its address, the roots it is checked against, the token shown to it, headers.

import { existsSync } from "node:fs";
import type { ChannelToken } from "../identity/grpc-channel.ts";

/** Null trusts the machine's own roots. */
export const rootCa = (setting: string | null): string | null => (setting === "SYSTEM" ? null : setting);

/** As the reference reads AUTH_TOKEN: a file when there is one of that name, else the token itself. */
export function authToken(setting: string | null): ChannelToken {
  if (setting === null) return { kind: "none" };
  return setting.startsWith("/") || existsSync(setting) ? { kind: "file", path: setting } : { kind: "literal", value: setting };
}

/** `XDS_HEADER_X-Tenant=a` is the header `x-tenant: a`. */
export function prefixedHeaders(environment: Readonly<Record<string, string | undefined>>, prefix: string): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const [variable, value] of Object.entries(environment)) {
    const name = variable.startsWith(prefix) ? variable.slice(prefix.length).toLowerCase() : "";
    if (value !== undefined && /^[a-z0-9_-]+$/.test(name)) headers[name] = value;
  }
  return headers;
}
