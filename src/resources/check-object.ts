// One object as a value, as YAML or an API server gives it, into a resource: its schema, then what a schema cannot say.
// Faults name fields; where those stand in a file is for the caller to find.

import { z } from "zod";
import { collectable } from "./collectable.ts";
import { contentHash } from "./content-hash.ts";
import { type DiagnosticCode, type FieldPath, type Severity, show } from "./diagnostic.ts";
import { KINDS, type Kind, type Resource } from "./kinds.ts";
import { DIAGNOSTICS_PER_DOCUMENT_MAX } from "./limits.ts";
import { flatObjectSchema, isDnsLabel, isDnsSubdomain, NAMESPACE_DEFAULT, objectSchema } from "./object-meta.ts";
import type { Report, ResourceIdentity } from "./resource.ts";
import { schemaFaults } from "./schema-diagnostics.ts";

/** Something said of a field of one object. */
export interface ObjectFault {
  readonly severity: Severity;
  readonly code: DiagnosticCode;
  readonly path: FieldPath;
  /** Whether the key or the value is at fault. */
  readonly at: "key" | "value";
  readonly message: string;
}

export interface CheckedResource {
  /** Null when an error is among the faults. */
  readonly resource: Resource | null;
  readonly faults: readonly ObjectFault[];
}

const isFlat = (kind: Kind): boolean => "content" in kind && kind.content === "document";
const schemas: ReadonlyMap<string, () => z.ZodType> = new Map(KINDS.map((kind) => [kind.kind, collectable<z.ZodType>(() => (isFlat(kind) ? flatObjectSchema(kind.spec()) : objectSchema(kind.spec())))]));

export const isMap = (value: unknown): value is Record<string, unknown> => value !== null && typeof value === "object" && !Array.isArray(value);

/** What the schema alone has to say; every fault of it. */
export function schemaFaultsOf(value: Readonly<Record<string, unknown>>, definition: Kind): ObjectFault[] {
  const schema = schemas.get(definition.kind)!();
  const checked = schema.safeParse(value);
  return checked.success ? [] : schemaFaults(checked.error, schema, value).map((fault): ObjectFault => ({ severity: "error", ...fault }));
}

/** Never throws. At most DIAGNOSTICS_PER_DOCUMENT_MAX faults. */
export function checkObject(value: Readonly<Record<string, unknown>>, definition: Kind): CheckedResource {
  const schema = schemas.get(definition.kind)!();
  const checked = schema.safeParse(value);
  if (!checked.success) {
    const faults = schemaFaults(checked.error, schema, value).slice(0, DIAGNOSTICS_PER_DOCUMENT_MAX)
      .map((fault): ObjectFault => ({ severity: "error", ...fault }));
    return { resource: null, faults: definition.kind === "Secret" ? faults.map(withoutValue) : faults };
  }
  const faults: ObjectFault[] = [];
  const report: Report = (severity, code, path, message) => {
    if (faults.length < DIAGNOSTICS_PER_DOCUMENT_MAX) faults.push({ severity, code, path, at: "value", message });
  };
  const resource = toResource(value, checked.data as CheckedObject, definition, report);
  // The kind of the resource is that of its definition, which the compiler cannot see through the union.
  (definition.check as (resource: Resource, report: Report) => void)(resource, report);
  return { resource: faults.some((fault) => fault.severity === "error") ? null : resource, faults };
}

interface CheckedObject {
  readonly metadata: {
    readonly name: string; readonly namespace?: string; readonly labels?: Record<string, string> | null;
    readonly annotations?: Record<string, string> | null; readonly creationTimestamp?: string | null;
  };
  readonly spec?: unknown;
}

function toResource(value: Readonly<Record<string, unknown>>, checked: CheckedObject, definition: Kind, report: Report): Resource {
  const { metadata } = checked;
  if (!definition.namespaced && metadata.namespace !== undefined) {
    report("error", "unknown_field", ["metadata", "namespace"], `found ${show(metadata.namespace)}; a ${definition.kind} is in no namespace`);
  }
  // The status is not ours to look at, and server-side bookkeeping is no change of what was asked for.
  const content = { apiVersion: value["apiVersion"], name: metadata.name, labels: metadata.labels, annotations: metadata.annotations, ...contentOf(value, definition) };
  return {
    kind: definition.kind,
    namespace: definition.namespaced ? (metadata.namespace ?? NAMESPACE_DEFAULT) : "",
    name: metadata.name,
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
    creationTimestamp: metadata.creationTimestamp ?? "",
    spec: isFlat(definition) ? contentOf(checked, definition) : checked.spec,
    resourceVersion: contentHash(JSON.stringify(content)),
  } as Resource;
}

/** What is asked for, without the head every object has. */
function contentOf(value: object, definition: Kind): Record<string, unknown> {
  if (!isFlat(definition)) return { spec: (value as CheckedObject).spec };
  const { apiVersion: _, kind: __, metadata: ___, ...fields } = value as Record<string, unknown>;
  return fields;
}

/** Which resource an object that may be broken speaks of. */
export function identityOf(value: Readonly<Record<string, unknown>>, definition: Kind): ResourceIdentity | null {
  const metadata = value["metadata"];
  if (!isMap(metadata)) return null;
  const { name, namespace = NAMESPACE_DEFAULT } = metadata;
  if (typeof name !== "string" || !isDnsSubdomain(name) || typeof namespace !== "string" || !isDnsLabel(namespace)) return null;
  return { kind: definition.kind, namespace: definition.namespaced ? namespace : "", name };
}

/** Of a Secret no value is shown, in a log least of all. */
function withoutValue(fault: ObjectFault): ObjectFault {
  return { ...fault, message: fault.message.replace(/^found .*?(?=, expected|$)/, "found a value that is not shown") };
}
