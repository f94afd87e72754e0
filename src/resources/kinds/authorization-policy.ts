// security.istio.io AuthorizationPolicy at L4. What L4 cannot decide is never allowed by it and never left undenied:
// an ALLOW rule with such a part is dropped (the policy still counts), a DENY or CUSTOM rule denies all that its L4 part matches.
// The same as istiod does for a ztunnel, except where istiod would skip silently.

import { z } from "zod";
import { type Cidr, parseCidr, parsePort } from "../../core/ip.ts";
import type { AuthorizationPolicy, PolicyAction, PolicyClause, PolicyMatch, PolicyRule, ServiceAccountMatch, StringMatch } from "../../mesh/records.ts";
import { DRY_RUN } from "../annotations.ts";
import { collectable } from "../collectable.ts";
import { type FieldPath, show } from "../diagnostic.ts";
import { POLICY_RULES_MAX, POLICY_VALUES_MAX } from "../limits.ts";
import { ipBlock, isDnsLabel, isDnsSubdomain, type Labels } from "../object-meta.ts";
import { defineKind, type Placed, provenanceOf, type Report, type ResourceOfKind, type TranslationOptions } from "../resource.ts";
import { attachment, checkAttachment, targetsOf } from "../targets.ts";

const VALUE_CHARS_MAX = 2048;

/** An empty list would mean the same as no field, which matches everything: never what its writer meant. */
const listOf = <T extends z.ZodType>(item: T) => z.array(item).min(1, { error: "found an empty list, which would match everything; give values or leave the field out" }).max(POLICY_VALUES_MAX).optional();

/** `*`, `prefix*`, `*suffix` or exact. A star elsewhere would be taken literally and never match. */
const wildcard = z.string().min(1).max(VALUE_CHARS_MAX).refine((text) => !text.slice(1, -1).includes("*") && !(text.length > 1 && text.startsWith("*") && text.endsWith("*")), {
  error: "expected an exact value, prefix*, *suffix or *: one star, at one end",
});
const principal = wildcard.refine((text) => !text.startsWith("spiffe://"), { error: "expected a principal without spiffe://, e.g. cluster.local/ns/shop/sa/web" });
const portText = z.string().refine((text) => (parsePort(text) ?? 0) > 0, { error: 'expected a port number in quotes, "1" to "65535"' });
/** As in Istio: operators are whole segments, and nothing that has a wildcard of its own stands beside them. */
const PATH_TEMPLATE = /^(\/([^/{}*]*|\{\*\}))*(\/\{\*\*\}(\/[^/{}*]*)*)?$/;

/** A path with wildcard, or a template: `{*}` is one segment, `{**}` any number of them, at the end. */
const pathValue = z.string().refine((text) => (/[{}]/.test(text) ? PATH_TEMPLATE.test(text) : wildcard.safeParse(text).success), {
  error: "expected an exact path, prefix*, *suffix, *, or a template of whole segments: {*} for one, {**} at the end for any number",
});

const SOURCE_L7 = ["requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks"] as const;
const OPERATION_L7 = ["hosts", "notHosts", "methods", "notMethods", "paths", "notPaths"] as const;
const notEmpty = (what: string) => ({ error: `found no field, expected at least one ${what}` });

const spec = collectable(() => {
  /** `NAMESPACE/NAME`, or `NAME` in the policy's own namespace. */
  const serviceAccount = z.string().refine((text) => {
    const [first = "", second, ...rest] = text.split("/");
    return rest.length === 0 && (second === undefined ? isDnsSubdomain(first) : isDnsLabel(first) && isDnsSubdomain(second));
  }, { error: "expected SERVICE_ACCOUNT or NAMESPACE/SERVICE_ACCOUNT, without wildcards" });
  const l7Value = z.string().min(1).max(VALUE_CHARS_MAX);
  const source = z.strictObject({
    principals: listOf(principal), notPrincipals: listOf(principal),
    namespaces: listOf(wildcard), notNamespaces: listOf(wildcard),
    serviceAccounts: listOf(serviceAccount), notServiceAccounts: listOf(serviceAccount),
    ipBlocks: listOf(ipBlock), notIpBlocks: listOf(ipBlock),
    requestPrincipals: listOf(l7Value), notRequestPrincipals: listOf(l7Value),
    remoteIpBlocks: listOf(ipBlock), notRemoteIpBlocks: listOf(ipBlock),
  });
  const operation = z.strictObject({
    ports: listOf(portText), notPorts: listOf(portText),
    hosts: listOf(l7Value), notHosts: listOf(l7Value),
    methods: listOf(l7Value), notMethods: listOf(l7Value),
    paths: listOf(l7Value), notPaths: listOf(l7Value),
  });
  const rule = z.strictObject({
    from: listOf(z.strictObject({ source: source.refine((fields) => Object.keys(fields).length > 0, notEmpty("field of a source")) })),
    to: listOf(z.strictObject({ operation: operation.refine((fields) => Object.keys(fields).length > 0, notEmpty("field of an operation")) })),
    when: listOf(z.strictObject({ key: z.string().min(1).max(VALUE_CHARS_MAX), values: listOf(l7Value), notValues: listOf(l7Value) })
      .refine((condition) => condition.values !== undefined || condition.notValues !== undefined, { error: "expected values or notValues" })),
  });
  return z.strictObject({
    ...attachment,
    action: z.enum(["ALLOW", "DENY", "AUDIT", "CUSTOM"]).optional(),
    provider: z.strictObject({ name: z.string() }).nullish(),
    rules: z.array(rule.nullable()).max(POLICY_RULES_MAX).nullish(),
  }).nullish();
});

export const authorizationPolicyKind = defineKind({
  kind: "AuthorizationPolicy",
  group: "security.istio.io",
  versions: ["v1", "v1beta1"],
  namespaced: true,
  spec,
  check(policy, report) {
    const dryRun = policy.annotations[DRY_RUN];
    if (dryRun !== undefined && dryRun !== "true" && dryRun !== "false") {
      report("error", "bad_value", ["metadata", "annotations", DRY_RUN], `found ${show(dryRun)}, expected "true" or "false"`);
    }
    const { spec } = policy;
    checkAttachment(spec, report);
    if (spec?.action === "CUSTOM" && !spec.provider) report("error", "missing_field", ["spec", "provider"], "found no provider, which CUSTOM needs");
    if (spec?.action !== "CUSTOM" && spec?.provider) report("error", "conflict", ["spec", "provider"], "found a provider, which only CUSTOM has");
    for (const [index, entry] of (spec?.rules ?? []).entries()) {
      checkRule(entry ?? {}, ["spec", "rules", index], report);
      if (targetsOf(spec).length > 0) checkHttpValues(entry ?? {}, ["spec", "rules", index], report);
    }
  },
});

export type AuthorizationPolicyResource = ResourceOfKind<typeof authorizationPolicyKind>;
export type AuthorizationRule = NonNullable<NonNullable<NonNullable<AuthorizationPolicyResource["spec"]>["rules"]>[number]>;
type Source = NonNullable<AuthorizationRule["from"]>[number]["source"];
type Operation = NonNullable<AuthorizationRule["to"]>[number]["operation"];
export type AuthorizationCondition = NonNullable<AuthorizationRule["when"]>[number];

/** Conditions that L4 can decide, and what their values must look like. */
const L4_CONDITIONS = {
  "source.ip": ipBlock,
  "source.namespace": wildcard,
  "source.principal": principal,
  "destination.ip": ipBlock,
  "destination.port": portText,
} as const;
type L4Condition = keyof typeof L4_CONDITIONS;

/** Conditions that Istio knows but which need the request; anything else is a mistake. */
const L7_CONDITION = /^(request\.headers\[.+\]|request\.auth\.(principal|audiences|presenter)|request\.auth\.claims(\[[^\]]+\])+|remote\.ip|connection\.sni|source\.serviceAccount|experimental\.envoy\.filters\..+)$/;

export const isL4Condition = (key: string): key is L4Condition => Object.hasOwn(L4_CONDITIONS, key);

function checkRule(rule: AuthorizationRule, at: FieldPath, report: Report): void {
  for (const [index, { source }] of (rule.from ?? []).entries()) {
    const names = source.serviceAccounts !== undefined || source.notServiceAccounts !== undefined;
    const others = (["principals", "notPrincipals", "namespaces", "notNamespaces"] as const).find((field) => source[field] !== undefined);
    if (names && others !== undefined) report("error", "conflict", [...at, "from", index, "source", others], `found ${others} beside serviceAccounts; a service account names its namespace already`);
  }
  for (const [index, condition] of (rule.when ?? []).entries()) {
    const path = [...at, "when", index];
    if (!isL4Condition(condition.key)) {
      if (!L7_CONDITION.test(condition.key)) {
        report("error", "bad_value", [...path, "key"], `found ${show(condition.key)}, expected one of ${Object.keys(L4_CONDITIONS).join(", ")}, or an HTTP attribute such as request.headers[NAME]`);
      }
      continue;
    }
    for (const field of ["values", "notValues"] as const) {
      for (const [i, value] of (condition[field] ?? []).entries()) {
        const checked = L4_CONDITIONS[condition.key].safeParse(value);
        if (!checked.success) report("error", "bad_value", [...path, field, i], `found ${show(value)}, ${checked.error.issues[0]?.message ?? "expected another value"}`);
      }
    }
  }
}

/** Values that a waypoint compares with requests: one that could never match would leave a DENY rule open. */
function checkHttpValues(rule: AuthorizationRule, at: FieldPath, report: Report): void {
  const check = (values: readonly string[] | undefined, path: FieldPath, schema: z.ZodType): void => {
    for (const [i, value] of (values ?? []).entries()) {
      const checked = schema.safeParse(value);
      if (!checked.success) report("error", "bad_value", [...path, i], `found ${show(value)}, ${checked.error.issues[0]?.message ?? "expected another value"}`);
    }
  };
  for (const [index, { source }] of (rule.from ?? []).entries()) {
    for (const field of ["requestPrincipals", "notRequestPrincipals"] as const) check(source[field], [...at, "from", index, "source", field], wildcard);
  }
  for (const [index, { operation }] of (rule.to ?? []).entries()) {
    for (const field of ["hosts", "notHosts", "methods", "notMethods"] as const) check(operation[field], [...at, "to", index, "operation", field], wildcard);
    for (const field of ["paths", "notPaths"] as const) check(operation[field], [...at, "to", index, "operation", field], pathValue);
  }
  for (const [index, condition] of (rule.when ?? []).entries()) {
    const schema = condition.key === "remote.ip" ? ipBlock : wildcard;
    if (!isL4Condition(condition.key)) for (const field of ["values", "notValues"] as const) check(condition[field], [...at, "when", index, field], schema);
  }
}

/** Labels the policy selects by; null when it applies to its whole namespace, or mesh. */
export function policySelector(policy: AuthorizationPolicyResource): Labels | null {
  const labels = policy.spec?.selector?.matchLabels ?? {};
  return Object.keys(labels).length === 0 ? null : labels;
}

/** Null for a policy that is not for a ztunnel. What is not enforced as written is reported. */
export function translateAuthorizationPolicy(placed: Placed<AuthorizationPolicyResource>, options: TranslationOptions, report: Report): AuthorizationPolicy | null {
  const policy = placed.resource;
  const { spec } = policy;
  // A policy with targetRefs is for a waypoint.
  if (targetsOf(spec).length > 0) return null;
  const written = spec?.action ?? "ALLOW";
  if (written === "AUDIT") {
    report("warning", "not_supported", ["spec", "action"], "found AUDIT, which decides nothing and is not reported at L4; use istio.io/dry-run to see what a policy would do");
    return null;
  }
  if (written === "CUSTOM") {
    report("error", "fail_closed", ["spec", "action"], "found CUSTOM: no external authorizer can be asked at L4, so what the rules match is denied");
  }
  const action: PolicyAction = written === "ALLOW" ? "allow" : "deny";
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: policySelector(policy) !== null ? "workload" : policy.namespace === options.rootNamespace ? "global" : "namespace",
    action,
    dryRun: policy.annotations[DRY_RUN] === "true",
    rules: (spec?.rules ?? []).flatMap((rule, index) => translateRule(rule ?? {}, { action, namespace: policy.namespace, at: ["spec", "rules", index] }, report) ?? []),
    provenance: provenanceOf(placed),
  };
}

interface RuleContext {
  readonly action: PolicyAction;
  readonly namespace: string;
  readonly at: FieldPath;
}

function translateRule(rule: AuthorizationRule, { action, namespace, at }: RuleContext, report: Report): PolicyRule | null {
  const needsHttp = l7Parts(rule, at);
  for (const path of needsHttp) {
    report("warning", "enforced_stricter", path, action === "allow"
      ? "needs HTTP, which L4 does not read: this ALLOW rule is left out and allows nothing; bind a waypoint to enforce it"
      : "needs HTTP, which L4 does not read: everything that the rule's other fields match is denied; bind a waypoint to enforce it as written");
  }
  if (needsHttp.length > 0 && action === "allow") return null;
  const clauses = [
    clause((rule.from ?? []).map(({ source }) => sourceMatch(source, namespace))),
    clause((rule.to ?? []).map(({ operation }) => operationMatch(operation))),
    ...(rule.when ?? []).map((condition) => clause([conditionMatch(condition)])),
  ];
  return { clauses: clauses.filter((entry) => entry !== null), fieldPath: `spec.rules[${at[2]}]` };
}

/** Fields of a rule that only a reader of HTTP can decide. */
function l7Parts(rule: AuthorizationRule, at: FieldPath): FieldPath[] {
  const paths: FieldPath[] = [];
  for (const [index, { source }] of (rule.from ?? []).entries()) {
    for (const field of SOURCE_L7) if (source[field] !== undefined) paths.push([...at, "from", index, "source", field]);
  }
  for (const [index, { operation }] of (rule.to ?? []).entries()) {
    for (const field of OPERATION_L7) if (operation[field] !== undefined) paths.push([...at, "to", index, "operation", field]);
  }
  for (const [index, condition] of (rule.when ?? []).entries()) if (!isL4Condition(condition.key)) paths.push([...at, "when", index, "key"]);
  return paths;
}

/** Null for a clause that is true: without matches, or with one that restricts nothing (its fields were all L7). */
function clause(matches: readonly PolicyMatch[]): PolicyClause | null {
  if (matches.length === 0 || matches.some((match) => Object.values(match).every((values) => values.length === 0))) return null;
  return { matches };
}

export const emptyMatch: PolicyMatch = {
  namespaces: [], notNamespaces: [], serviceAccounts: [], notServiceAccounts: [], principals: [], notPrincipals: [],
  sourceIps: [], notSourceIps: [], destinationIps: [], notDestinationIps: [], destinationPorts: [], notDestinationPorts: [],
};

export function sourceMatch(source: Source, namespace: string): PolicyMatch {
  const accounts = (texts: readonly string[] | undefined): ServiceAccountMatch[] => (texts ?? []).map((text) => {
    const [first = "", second] = text.split("/");
    return second === undefined ? { namespace, serviceAccount: first } : { namespace: first, serviceAccount: second };
  });
  return {
    ...emptyMatch,
    namespaces: stringMatches(source.namespaces), notNamespaces: stringMatches(source.notNamespaces),
    serviceAccounts: accounts(source.serviceAccounts), notServiceAccounts: accounts(source.notServiceAccounts),
    principals: stringMatches(source.principals), notPrincipals: stringMatches(source.notPrincipals),
    sourceIps: cidrs(source.ipBlocks), notSourceIps: cidrs(source.notIpBlocks),
  };
}

export function operationMatch(operation: Operation): PolicyMatch {
  return { ...emptyMatch, destinationPorts: ports(operation.ports), notDestinationPorts: ports(operation.notPorts) };
}

export function conditionMatch({ key, values, notValues }: AuthorizationCondition): PolicyMatch {
  if (!isL4Condition(key)) return emptyMatch;
  switch (key) {
    case "source.ip": return { ...emptyMatch, sourceIps: cidrs(values), notSourceIps: cidrs(notValues) };
    case "source.namespace": return { ...emptyMatch, namespaces: stringMatches(values), notNamespaces: stringMatches(notValues) };
    case "source.principal": return { ...emptyMatch, principals: stringMatches(values), notPrincipals: stringMatches(notValues) };
    case "destination.ip": return { ...emptyMatch, destinationIps: cidrs(values), notDestinationIps: cidrs(notValues) };
    case "destination.port": return { ...emptyMatch, destinationPorts: ports(values), notDestinationPorts: ports(notValues) };
  }
}

export function stringMatches(texts: readonly string[] | undefined): StringMatch[] {
  return (texts ?? []).map((text) => {
    if (text === "*") return { kind: "presence" };
    if (text.startsWith("*")) return { kind: "suffix", value: text.slice(1) };
    if (text.endsWith("*")) return { kind: "prefix", value: text.slice(0, -1) };
    return { kind: "exact", value: text };
  });
}

// The schema and checkRule() let through what these parse, and nothing else.
export const cidrs = (texts: readonly string[] | undefined): Cidr[] => (texts ?? []).map((text) => parseCidr(text)!);
const ports = (texts: readonly string[] | undefined): number[] => (texts ?? []).map((text) => parsePort(text)!);
