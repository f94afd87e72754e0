// Names of services that one host under a wildcard is made into while requests for it come: `shop/dynamic:*.example.com:api.example.com`.
// Policies, limits and views are the wildcard's; endpoints, connections and TLS are the host's own.

import { nameHalf, type NamespacedName, namespaceHalf, namespacedName } from "../../core/brand.ts";
import { parseHost } from "../../wire/http/host.ts";

/** No host name has a colon: nothing that the configuration writes is taken for it. */
const DYNAMIC_PREFIX = "dynamic:";

export interface DynamicHost {
  /** The wildcard. */
  readonly service: NamespacedName;
  readonly host: string;
}

export function dynamicDestination({ service, host }: DynamicHost): NamespacedName {
  return namespacedName(namespaceHalf(service), `${DYNAMIC_PREFIX}${nameHalf(service)}:${host}`);
}

/** Null for a service that the configuration itself has. */
export function dynamicHost(name: NamespacedName): DynamicHost | null {
  const half = nameHalf(name);
  if (!half.startsWith(DYNAMIC_PREFIX)) return null;
  const end = half.indexOf(":", DYNAMIC_PREFIX.length);
  return { service: namespacedName(namespaceHalf(name), half.slice(DYNAMIC_PREFIX.length, end)), host: half.slice(end + 1) };
}

/** Why a name is none that the wildcard stands for; null when it is. @param host in the one form that hosts have. */
export function notCovered(wildcard: string, host: string): string | null {
  const parsed = host === "" ? null : parseHost(host);
  if (parsed === null) return `the request names no host, expected one under ${wildcard}`;
  if (!parsed.ok || parsed.value.isIp || parsed.value.name !== host) return `${JSON.stringify(host)} is no host name, expected one under ${wildcard}`;
  return host.endsWith(wildcard.slice(1)) && host.length >= wildcard.length ? null : `${host} is not under ${wildcard}`;
}
