// For tests of L7: every record as a few lines that can be read and compared. What is empty, null, false or a default is left out.

import type { Evaluation } from "../resource-set.ts";

type L7Evaluation = Pick<Evaluation, "l7" | "statuses">;

export function describeL7({ l7, statuses }: L7Evaluation): string[] {
  const lines: string[] = [];
  const each = <T extends object>(what: string, map: ReadonlyMap<string, T>, describe: (value: T) => readonly string[] | string): void => {
    for (const [name, value] of [...map].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const described = describe(value);
      lines.push(`${what} ${name}${typeof described === "string" ? ` ${described}` : ""}`, ...(typeof described === "string" ? [] : described.map((line) => `  ${line}`)));
    }
  };
  each("waypoint", l7.waypoints, ({ service, serves, provenance }) => `at ${service} for ${serves} @${provenance.source}`);
  each("route", l7.routes, ({ parents, rules, provenance }) => [
    `${rules.protocol}${"precedence" in rules ? ` ${rules.precedence}` : ""} @${provenance.source}`,
    ...parents.map(({ service, port, clientNamespace }) => `on ${service}:${port ?? "*"}${clientNamespace === null ? "" : ` from ${clientNamespace}`}`),
    ...rules.rules.map(({ fieldPath, ...rule }) => `${fieldPath}: ${compact(rule)}`),
  ]);
  each("traffic", l7.trafficPolicies, (policies) => policies.map(({ service: _, port, subset, clientNamespace, provenance, ...fields }) => {
    const scope = [port === null ? "" : `port ${port}`, subset === null ? "" : `subset ${subset.name} ${compact(subset.labels)}`, clientNamespace === null ? "" : `from ${clientNamespace}`].filter((text) => text !== "").join(" ");
    const from = Object.entries(provenance).map(([field, { kind, name, fieldPath }]) => `${field}=${kind}/${name} ${fieldPath}`);
    return `${scope === "" ? "all" : scope}: ${compact(fields)}${from.length === 0 ? "" : ` by ${from.join(", ")}`}`;
  }));
  each("policy", l7.requestPolicies, ({ targets, action, dryRun, rules, provenance }) => [`${compact(action)}${dryRun ? " dryRun" : ""} for ${compact(targets)} @${provenance.source}`, ...rules.map(({ clauses, fieldPath }) => `${fieldPath}: ${clauses.length === 0 ? "always" : compact(clauses)}`)]);
  each("authentication", l7.requestAuthentications, ({ targets, rules }) => [`for ${compact(targets)}`, ...rules.map(({ fieldPath, ...rule }) => `${fieldPath}: ${compact(rule)}`)]);
  each("login", l7.loginPolicies, ({ name: _, namespace: __, provenance: ___, ...policy }) => compact(policy));
  each("telemetry", l7.telemetry, ({ name: _, namespace: __, provenance: ___, ...policy }) => compact(policy));
  each("labels", l7.workloadLabels, ({ labels }) => compact(labels));
  for (const { kind, namespace, name, parents, conditions } of sorted(statuses)) {
    const all = [...parents.map((parent) => ({ at: ` ${compact(parent.path)}`, conditions: parent.conditions })), ...(conditions.length === 0 ? [] : [{ at: "", conditions }])];
    for (const { at, conditions: some } of all) lines.push(`status ${kind} ${namespace}/${name}${at}: ${some.map(({ type, status, reason }) => `${type}=${status ? "True" : "False"} ${reason}`).join(", ")}`);
  }
  return lines;
}

/** A value in one line, in the manner of YAML's flow style. */
export function compact(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(compact).join(", ")}]`;
  if (value === null || typeof value !== "object") return typeof value === "string" ? (/^[\w./*:%-]+$/.test(value) ? value : JSON.stringify(value)) : String(value);
  const fields = Object.entries(value).filter(([, field]) => !isVoid(field)).map(([key, field]) => (key === "kind" ? compact(field) : `${key}: ${compact(field)}`));
  return `{${fields.join(", ")}}`;
}

const isVoid = (value: unknown): boolean => value === null || value === false || value === undefined || value === "" || (Array.isArray(value) && value.length === 0) || (typeof value === "object" && Object.values(value).every(isVoid) && !("kind" in value));

/** They are a set: which comes first means nothing. */
const sorted = (statuses: L7Evaluation["statuses"]): L7Evaluation["statuses"] => [...statuses].sort((a, b) => (`${a.kind} ${a.namespace}/${a.name}` < `${b.kind} ${b.namespace}/${b.name}` ? -1 : 1));
