// The HTTP rules of a VirtualService, with those of the VirtualServices that it delegates to in their place (Istio's semantics): a rule of
// the delegate holds where both matches hold, and takes from the root what it does not say itself.

import type { FieldPath } from "../diagnostic.ts";
import type { VirtualServiceMatch, VirtualServiceResource, VirtualServiceRoute } from "../kinds/virtual-service.ts";
import type { StringMatchSpec } from "../patterns.ts";
import type { Report } from "../resource.ts";
import type { View } from "./view.ts";

/** Rules of one VirtualService with its delegates: each request may have to try them. */
const MERGED_RULES_MAX = 2048;
const MERGED_MATCHES_MAX = 256;

/** One HTTP rule, wherever it was written. */
export interface WrittenRule {
  readonly rule: VirtualServiceRoute;
  /** In which the short names of its destinations are looked up, and whose writer names them. */
  readonly namespace: string;
  /** The same for its mirrors. */
  readonly mirrorNamespace: string;
  /** In the root. */
  readonly at: FieldPath;
  readonly fieldPath: string;
  /** Where each of its matches is written. */
  readonly matchPaths: readonly string[];
  /** Requests that it matches get 500 with this reason. */
  readonly broken: string | null;
  /** Where it stands, when that is not in the root. */
  readonly inside: string | null;
}

export function withDelegates({ namespace, spec }: VirtualServiceResource, view: View, report: Report): WrittenRule[] {
  const rules: WrittenRule[] = [];
  (spec.http ?? []).forEach((rule, index) => {
    const at = ["spec", "http", index];
    const fieldPath = `spec.http[${index}]`;
    const own: WrittenRule = { rule, namespace, mirrorNamespace: namespace, at, fieldPath, matchPaths: placedMatches(rule, fieldPath).map(({ path }) => path), broken: null, inside: null };
    rules.push(...(rule.delegate === undefined ? [own] : delegated(own, view, report)));
  });
  if (rules.length > MERGED_RULES_MAX) report("error", "fail_closed", ["spec", "http"], `found ${rules.length} rules with those of the delegates, at most ${MERGED_RULES_MAX} are taken; the others do not hold`);
  return rules.slice(0, MERGED_RULES_MAX);
}

function delegated(root: WrittenRule, view: View, report: Report): WrittenRule[] {
  const { rule, namespace, at, fieldPath } = root;
  const { name = "", namespace: where } = rule.delegate!;
  const inNamespace = where === undefined || where === "" ? namespace : where;
  const broken = (message: string): WrittenRule[] => {
    report("error", "fail_closed", [...at, "delegate"], `${message}; requests that this rule matches get 500`);
    return [{ ...root, broken: message }];
  };
  const delegate = view.ask((world) => world.delegate(inNamespace, name, namespace));
  if (delegate === null) return broken(`found the delegate ${inNamespace}/${name}, which is no VirtualService without hosts, or is not exported to ${namespace}`);
  if ((delegate.spec.tls ?? []).length + (delegate.spec.tcp ?? []).length > 0) report("warning", "not_supported", [...at, "delegate"], `found ${inNamespace}/${name} with tls or tcp: only rules for http are delegated to`);
  return (delegate.spec.http ?? []).flatMap((leaf, index): WrittenRule[] => {
    const inside = `VirtualService ${inNamespace}/${name} spec.http[${index}]`;
    if (leaf.delegate !== undefined) return broken(`found a delegate in the delegate ${inside}, which may not delegate further`);
    const leafPath = `${fieldPath}.delegate.http[${index}]`;
    const matches = mergeMatches(placedMatches(rule, fieldPath), placedMatches(leaf, leafPath));
    if (matches === null) {
      report("warning", "conflict", [...at, "delegate"], `found ${inside}, whose match holds outside of this rule's; it is left out`);
      return [];
    }
    return [{
      rule: mergeRules(rule, leaf, matches.map(({ match }) => match)), namespace: inNamespace, mirrorNamespace: mirrors(leaf) ? inNamespace : namespace, at, fieldPath: leafPath, matchPaths: matches.map(({ path }) => path), broken: null, inside,
    }];
  });
}

const mirrors = (rule: VirtualServiceRoute): boolean => rule.mirror !== undefined || rule.mirrors !== undefined;

function mergeRules(root: VirtualServiceRoute, leaf: VirtualServiceRoute, match: readonly VirtualServiceMatch[]): VirtualServiceRoute {
  const { delegate: _, ...inherited } = root;
  const { mirror, mirrors: several, mirrorPercent, mirror_percent, mirrorPercentage, ...rest } = inherited;
  return {
    ...rest, ...(mirrors(leaf) ? {} : { mirror, mirrors: several, mirrorPercent, mirror_percent, mirrorPercentage }), ...leaf, match: [...match],
    name: root.name === undefined || leaf.name === undefined ? (leaf.name ?? root.name) : `${root.name}-${leaf.name}`,
  };
}

interface PlacedMatch {
  readonly match: VirtualServiceMatch;
  readonly path: string;
}

function placedMatches({ match }: VirtualServiceRoute, fieldPath: string): PlacedMatch[] {
  return (match ?? []).map((each, index) => ({ match: each, path: `${fieldPath}.match[${index}]` }));
}

/** Null when a match of the delegate holds where none of the root's does, or cannot be compared with it. */
function mergeMatches(roots: readonly PlacedMatch[], leaves: readonly PlacedMatch[]): readonly PlacedMatch[] | null {
  if (roots.length === 0) return leaves;
  if (leaves.length === 0) return roots;
  const merged: PlacedMatch[] = [];
  for (const { match: leaf, path } of leaves) {
    const holding = roots.filter(({ match }) => isWithin(match, leaf));
    if (holding.length === 0) return null;
    merged.push(...holding.map(({ match }) => ({ match: mergeMatch(match, leaf), path })));
  }
  return merged.length <= MERGED_MATCHES_MAX ? merged : null;
}

function mergeMatch(root: VirtualServiceMatch, leaf: VirtualServiceMatch): VirtualServiceMatch {
  return {
    ...root, ...leaf,
    headers: { ...root.headers, ...leaf.headers }, withoutHeaders: { ...root.withoutHeaders, ...leaf.withoutHeaders }, queryParams: { ...root.queryParams, ...leaf.queryParams },
    sourceLabels: { ...root.sourceLabels, ...leaf.sourceLabels },
  };
}

/** Where both speak of the same thing, the leaf has to be within the root. */
function isWithin(root: VirtualServiceMatch, leaf: VirtualServiceMatch): boolean {
  const texts = (["uri", "scheme", "method", "authority"] as const).every((field) => isTextWithin(root[field], leaf[field]));
  const maps = (["headers", "withoutHeaders", "queryParams"] as const).every((field) => Object.entries(leaf[field] ?? {}).every(([name, spec]) => isTextWithin(root[field]?.[name], spec)));
  const labels = Object.entries(leaf.sourceLabels ?? {}).every(([label, value]) => root.sourceLabels?.[label] === undefined || root.sourceLabels[label] === value);
  const same = (a: unknown, b: unknown): boolean => a === undefined || b === undefined || a === b;
  return texts && maps && labels && same(root.port, leaf.port) && same(root.sourceNamespace, leaf.sourceNamespace) && (root.uri === undefined || leaf.uri === undefined || (root.ignoreUriCase ?? false) === (leaf.ignoreUriCase ?? false));
}

/** Of regular expressions nobody can say whether one is within the other, unless they are the same. */
function isTextWithin(root: StringMatchSpec | undefined, leaf: StringMatchSpec | undefined): boolean {
  if (root === undefined || leaf === undefined) return true;
  if (root.regex !== undefined || leaf.regex !== undefined) return root.regex === leaf.regex;
  if (root.exact !== undefined) return root.exact === leaf.exact;
  if (root.prefix !== undefined) return (leaf.exact ?? leaf.prefix)?.startsWith(root.prefix) ?? false;
  // Present, whatever the value.
  return true;
}
