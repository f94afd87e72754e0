// One document's text into resources: YAML, then the kind, then its schema, then what its schema cannot say.
// A pure function of the text, so that its result is kept as long as the text stands.

import { z } from "zod";
import { checkObject, identityOf, isMap } from "./check-object.ts";
import { type DocumentDiagnostic, type FieldPath, formatFieldPath, show } from "./diagnostic.ts";
import { apiVersions, lookUpKind, type Resource } from "./kinds.ts";
import { DIAGNOSTICS_PER_DOCUMENT_MAX, LIST_ITEMS_MAX } from "./limits.ts";
import { identityKey, type ResourceIdentity } from "./resource.ts";
import { schemaFaults } from "./schema-diagnostics.ts";
import { parseDocument, type ParsedDocument } from "./yaml-document.ts";

/** One object of a document (a `List` has several). */
export interface ParsedItem {
  /** Null when it cannot be told which resource this is. */
  readonly identity: ResourceIdentity | null;
  /** identityKey of it; "" without one. */
  readonly key: string;
  readonly content:
    | { readonly is: "resource"; readonly resource: Resource }
    | { readonly is: "broken" }
    /** A kind we know by name only. */
    | { readonly is: "notYet" };
  /** Line of its first field, 1-based from the start of the document. */
  readonly line: number;
  /** Where it stands in the document: empty, or `items[n]`. */
  readonly path: FieldPath;
  readonly diagnostics: readonly DocumentDiagnostic[];
}

/** Never throws. An empty document gives no items. */
export function parseResources(text: string): readonly ParsedItem[] {
  const document = parseDocument(text);
  if (document.diagnostics.length > 0) {
    const line = document.diagnostics[0]!.line;
    const identities = salvageIdentities(document.value);
    const broken = (identity: ResourceIdentity | null, diagnostics: readonly DocumentDiagnostic[]): ParsedItem => ({ identity, key: keyOf(identity), content: { is: "broken" }, line, path: [], diagnostics });
    // What was salvaged may be less than what the document holds: the nameless item says that something may be missing.
    if (identities.length === 1) return [broken(identities[0]!, document.diagnostics), broken(null, [])];
    return [broken(null, document.diagnostics), ...identities.map((identity) => broken(identity, []))];
  }
  if (document.value === undefined) return [];
  if (isList(document.value)) return parseList(document.value, document);
  return [parseObject(document.value, [], document)];
}

const keyOf = (identity: ResourceIdentity | null): string => (identity === null ? "" : identityKey(identity));

function isList(value: unknown): value is Record<string, unknown> {
  return isMap(value) && typeof value["kind"] === "string" && value["kind"].endsWith("List") && "items" in value;
}

const listSchema = z.strictObject({ apiVersion: z.string(), kind: z.string(), metadata: z.unknown().optional(), items: z.array(z.unknown()).max(LIST_ITEMS_MAX) });

function parseList(list: Record<string, unknown>, document: ParsedDocument): ParsedItem[] {
  const checked = listSchema.safeParse(list);
  if (!checked.success) return [{ identity: null, key: "", content: { is: "broken" }, ...document.locate([]), path: [], diagnostics: faultDiagnostics(checked.error, listSchema, list, [], document) }];
  return checked.data.items.map((item, index) => parseObject(item, ["items", index], document));
}

function parseObject(value: unknown, path: FieldPath, document: ParsedDocument): ParsedItem {
  const { line } = document.locate(path, "key");
  const broken = (identity: ResourceIdentity | null, diagnostics: readonly DocumentDiagnostic[]): ParsedItem => ({ identity, key: keyOf(identity), content: { is: "broken" }, line, path, diagnostics });
  const fault = (code: DocumentDiagnostic["code"], at: FieldPath, message: string): DocumentDiagnostic => ({
    severity: "error", ...document.locate([...path, ...at]), fieldPath: formatFieldPath([...path, ...at]), code, message,
  });

  if (!isMap(value)) return broken(null, [fault("not_an_object", [], `found ${show(value)}, expected a map with apiVersion, kind and metadata`)]);
  const { apiVersion, kind } = value;
  if (typeof apiVersion !== "string" || apiVersion === "") return broken(null, [fault(apiVersion === undefined ? "missing_field" : "wrong_type", ["apiVersion"], `found ${show(apiVersion)}, expected text such as "v1"`)]);
  if (typeof kind !== "string" || kind === "") return broken(null, [fault(kind === undefined ? "missing_field" : "wrong_type", ["kind"], `found ${show(kind)}, expected text such as "Service"`)]);
  const known = lookUpKind(apiVersion, kind);
  if (known.is === "unknown") return broken(null, [fault("unknown_kind", ["kind"], `found ${show(kind)} of ${show(apiVersion)}, ${known.expected}`)]);
  if (known.is === "notYet") {
    const warning = { ...fault("unsupported_kind", ["kind"], `${kind} is not supported by this role yet, nothing was applied from it`), severity: "warning" as const };
    return { identity: null, key: "", content: { is: "notYet" }, line, path, diagnostics: [warning] };
  }
  const { definition } = known;
  const identity = identityOf(value, definition);
  if (!known.versionKnown) return broken(identity, [fault("unsupported_version", ["apiVersion"], `found ${show(apiVersion)}, expected ${apiVersions(definition).join(" or ")}`)]);

  const { resource, faults } = checkObject(value, definition);
  const diagnostics = faults.map((one): DocumentDiagnostic => ({
    severity: one.severity, ...document.locate([...path, ...one.path], one.at), fieldPath: formatFieldPath([...path, ...one.path]), code: one.code, message: one.message,
  }));
  if (resource === null || identity === null) return broken(identity, diagnostics);
  return { identity, key: keyOf(identity), content: { is: "resource", resource }, line, path, diagnostics };
}

function salvageIdentities(value: unknown): ResourceIdentity[] {
  if (!isMap(value)) return [];
  const objects = isList(value) && Array.isArray(value["items"]) ? (value["items"] as unknown[]).slice(0, LIST_ITEMS_MAX) : [value];
  return objects.flatMap((object) => {
    if (!isMap(object) || typeof object["apiVersion"] !== "string" || typeof object["kind"] !== "string") return [];
    const known = lookUpKind(object["apiVersion"], object["kind"]);
    return known.is === "kind" ? (identityOf(object, known.definition) ?? []) : [];
  });
}

function faultDiagnostics(error: z.ZodError, schema: z.ZodType, value: unknown, path: FieldPath, document: ParsedDocument): DocumentDiagnostic[] {
  return schemaFaults(error, schema, value).slice(0, DIAGNOSTICS_PER_DOCUMENT_MAX).map(({ code, path: at, at: what, message }) => ({
    severity: "error", ...document.locate([...path, ...at], what), fieldPath: formatFieldPath([...path, ...at]), code, message,
  }));
}
