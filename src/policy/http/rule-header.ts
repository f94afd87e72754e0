// The rule that an answer of ours comes from, in a header: for callers of the mesh, whose own operators look for it. Clients outside
// learn no names of ours unless the operator says so; a proxy that speaks for them counts as outside, since it hands the header on.

import { formatProvenance, formatSeveral, type Provenance } from "../../core/fault.ts";
import type { HttpFields } from "../../wire/http/fields.ts";

/** The response header that carries it. */
export const RULE_HEADER = "x-weft-rule";

/** `mesh`: to callers with an identity of the mesh that ask for themselves. */
export type RuleTelling = "mesh" | "always" | "never";

/** Kind, namespace, name and field of three rules of the usual length; clients bound their heads. */
const RULE_CHARS_MAX = 512;

/** What a proxy writes that asks for somebody else. */
const FOR_OTHERS = ["x-forwarded-for", "forwarded"] as const;

/** @param fields of the request as it came. @param fromMesh the caller has proved an identity of the mesh. */
export function tellsRule(telling: RuleTelling, fromMesh: boolean, fields: Pick<HttpFields, "has">): boolean {
  switch (telling) {
    case "always": return true;
    case "never": return false;
    case "mesh": return fromMesh && !FOR_OTHERS.some((name) => fields.has(name));
    default: return telling satisfies never;
  }
}

/** Printable ASCII, bounded; null where no rule had a part. @param several where one alone did not decide: the ALLOW policies of which none matched. */
export function ruleText(rule: Provenance | null, several: readonly Provenance[]): string | null {
  if (rule === null && several.length === 0) return null;
  const text = (rule === null ? formatSeveral(several, formatProvenance) : formatProvenance(rule)).replace(/[^\x20-\x7e]/g, "?");
  return text.length > RULE_CHARS_MAX ? `${text.slice(0, RULE_CHARS_MAX - 3)}...` : text;
}
