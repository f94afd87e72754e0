// The one shape of an error that crosses a module border: who is to blame, what dies, and what to do next.

export type Blame = "peer" | "us" | "operator";
export type Dies = "stream" | "connection" | "process" | "nothing";
export type Retry = { readonly kind: "never" } | { readonly kind: "otherEndpoint" } | { readonly kind: "after"; readonly afterMs: number };

export const RETRY_NEVER: Retry = { kind: "never" };

/**
 * `code` is stable (metrics, tests); `message` is for a person: what was attempted, with whom, what was seen,
 * what was wanted, one hint where there is one.
 */
export interface Fault<Code extends string = string> {
  readonly code: Code;
  readonly message: string;
  readonly blame: Blame;
  readonly dies: Dies;
  readonly retry: Retry;
  readonly cause?: unknown;
}

/** Where a rule came from, so that a decision can be explained: printed as `AuthorizationPolicy shop/deny-all spec.rules[0]`. */
export interface Provenance {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** Version of the object in its source; a content hash for files. */
  readonly resourceVersion: string;
  /** Path of the field inside the object, e.g. `spec.rules[0].from[1]`; empty for the whole. */
  readonly fieldPath: string;
  /** File and line the object was read from, when it came from a directory: `shop.yaml:12`. */
  readonly source?: string;
}

export function formatProvenance(p: Provenance): string {
  const at = p.namespace === "" ? p.name : `${p.namespace}/${p.name}`;
  return p.fieldPath === "" ? `${p.kind} ${at}` : `${p.kind} ${at} ${p.fieldPath}`;
}

/** Objects shown where several made something so; the rest is counted. */
const SEVERAL_SHOWN_MAX = 3;

/** `shop/a, shop/b, shop/c and 2 more`, each as `format` has it. */
export function formatSeveral(several: readonly Provenance[], format: (p: Provenance) => string): string {
  const shown = several.slice(0, SEVERAL_SHOWN_MAX).map(format).join(", ");
  return several.length > SEVERAL_SHOWN_MAX ? `${shown} and ${several.length - SEVERAL_SHOWN_MAX} more` : shown;
}

/** For an operator: the ALLOW policies of which none matched. */
export function formatNoneMatched(policies: readonly Provenance[]): string {
  return `denied: none of these ALLOW policies matches: ${formatSeveral(policies, ({ namespace, name }) => `${namespace}/${name}`)}`;
}
