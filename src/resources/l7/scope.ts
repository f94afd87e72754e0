// For which clients a resource of networking.istio.io holds.

import type { ResourceOf } from "../resource.ts";
import { exportedTo } from "./world.ts";

/**
 * Namespaces of the clients; `[null]` for all, empty for none. A resource beside the service, or of the root namespace, holds for those
 * that it is exported to; any other for clients of its own namespace alone, so that nobody changes what others get from a service.
 */
export function clientNamespaces(resource: ResourceOf<string, unknown>, exportTo: readonly string[] | undefined, serviceNamespace: string, rootNamespace: string): readonly (string | null)[] {
  const own = resource.namespace;
  const visible = exportedTo(exportTo, own);
  if (own === serviceNamespace || own === rootNamespace) return visible ?? [null];
  return visible === null || visible.includes(own) ? [own] : [];
}
