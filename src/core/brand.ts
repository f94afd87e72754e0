// Brands keep apart what must not be mixed. Only the parser that checked a value mints its brand.

declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** Unique name of a workload over all clusters, e.g. `Kubernetes//Pod/shop/web-1`. */
export type WorkloadUid = Brand<string, "WorkloadUid">;

/** `namespace/name` of a policy, `namespace/hostname` of a service: the xDS resource names. */
export type NamespacedName = Brand<string, "NamespacedName">;

export const UID_CHARS_MAX = 1024;

/** Mints a WorkloadUid. Returns null for an empty, oversized or non-printable value. */
export function parseWorkloadUid(text: string): WorkloadUid | null {
  if (text.length === 0 || text.length > UID_CHARS_MAX || !/^[\x21-\x7e]+$/.test(text)) return null;
  return text as WorkloadUid;
}

/** Joins the two halves of a NamespacedName; both come from parsed resources. */
export function namespacedName(namespace: string, name: string): NamespacedName {
  return `${namespace}/${name}` as NamespacedName;
}

export function namespaceHalf(name: NamespacedName): string {
  return name.slice(0, name.indexOf("/"));
}

/** Of a service its hostname. */
export function nameHalf(name: NamespacedName): string {
  return name.slice(name.indexOf("/") + 1);
}
