// Paths of the Kubernetes API: group, version, plural, namespace, name.

export interface ResourceType {
  /** "" for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

export const apiVersionOf = ({ group, version }: Pick<ResourceType, "group" | "version">): string => (group === "" ? version : `${group}/${version}`);

/** Of all objects, or those of one namespace. */
export function collectionPath({ group, version, plural }: ResourceType, namespace: string | null): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  return namespace === null ? `${root}/${plural}` : `${root}/namespaces/${namespace}/${plural}`;
}

/** @param namespace "" for kinds without one. @param subresource e.g. `status`. */
export function objectPath(type: ResourceType, namespace: string, name: string, subresource = ""): string {
  const path = `${collectionPath(type, type.namespaced ? namespace : null)}/${encodeURIComponent(name)}`;
  return subresource === "" ? path : `${path}/${subresource}`;
}
