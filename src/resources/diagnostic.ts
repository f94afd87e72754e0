// What the operator is told about a resource: where, what was found, what was expected, and what was done about it.

/**
 * `error`: the resource, or a part of it, is not applied as written; its last good state stays in force where there is one.
 * `warning`: applied, but probably not what was meant, or stricter than written. `info`: left out by design.
 */
export type Severity = "error" | "warning" | "info";

export type DiagnosticCode =
  | "file_unreadable" | "file_too_large" | "file_empty" | "too_many_files" | "too_many_documents" | "document_too_large"
  | "yaml_syntax" | "duplicate_key" | "yaml_directive" | "yaml_tag" | "too_many_aliases" | "too_deep" | "not_an_object"
  | "unknown_kind" | "unsupported_kind" | "unsupported_version"
  | "unknown_field" | "missing_field" | "wrong_type" | "bad_value" | "bad_name"
  | "duplicate_resource" | "unknown_namespace" | "conflict" | "no_address" | "not_supported" | "not_enforced" | "enforced_stricter"
  | "selects_nothing" | "not_attached" | "unresolved_reference" | "missing_port" | "too_many_memberships" | "missing_waypoint" | "not_allowed" | "fail_closed" | "restored" | "more_diagnostics";

export interface Diagnostic {
  readonly severity: Severity;
  /** Path relative to the directory. */
  readonly file: string;
  /** 1-based. */
  readonly line: number;
  readonly column: number;
  /** e.g. `spec.rules[0].from[1].source.ipBlocks[2]`; "" for the whole. */
  readonly fieldPath: string;
  readonly code: DiagnosticCode;
  readonly message: string;
  /** `AuthorizationPolicy shop/deny-all`; "" when the document does not say. */
  readonly resource: string;
}

export type FieldPath = readonly (string | number)[];

/** A diagnostic of one document, before its place in a file is known. Lines count from the document's start (1-based). */
export interface DocumentDiagnostic {
  readonly severity: Severity;
  readonly line: number;
  readonly column: number;
  readonly fieldPath: string;
  readonly code: DiagnosticCode;
  readonly message: string;
}

/** `spec.rules[0].from`, `metadata.labels["istio.io/dataplane-mode"]`. */
export function formatFieldPath(path: FieldPath): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[A-Za-z_][A-Za-z0-9_-]*$/.test(step)) text += text === "" ? step : `.${step}`;
    else text += `[${JSON.stringify(step)}]`;
  }
  return text;
}

/** `shop.yaml:12:5: error: spec.action: ... [bad_value]`: the form compilers print, which editors can follow. */
export function formatDiagnostic(d: Diagnostic): string {
  return `${d.file}:${d.line}:${d.column}: ${d.severity}: ${statement(d)} [${d.code}]`;
}

/** The same for a log line, which says the severity as its level and the code as a field: `shop.yaml:12:5: spec.action: ...`. */
export function describeDiagnostic(d: Diagnostic): string {
  return `${d.file}:${d.line}:${d.column}: ${statement(d)}`;
}

function statement(d: Diagnostic): string {
  const subject = [d.resource, d.fieldPath].filter((part) => part !== "").join(" ");
  return subject === "" ? d.message : `${subject}: ${d.message}`;
}

/** A value as it may be shown in a message: short, one line, no control characters. */
export function show(value: unknown): string {
  if (value === undefined) return "nothing";
  if (Array.isArray(value)) return value.length === 0 ? "an empty list" : `a list of ${value.length}`;
  if (value !== null && typeof value === "object") return Object.keys(value).length === 0 ? "an empty map" : "a map";
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
