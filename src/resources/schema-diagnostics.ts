// What zod found, said as: the field, what stands there, and what was expected.

import { z } from "zod";
import { type DiagnosticCode, type FieldPath, show } from "./diagnostic.ts";
import { editDistanceWithin } from "./suggestion.ts";

export interface SchemaFault {
  readonly code: DiagnosticCode;
  readonly path: FieldPath;
  /** Whether the key or the value is at fault. */
  readonly at: "key" | "value";
  readonly message: string;
}

const FIELDS_SHOWN_MAX = 24;

export function schemaFaults(error: z.ZodError, schema: z.ZodType, value: unknown): SchemaFault[] {
  return error.issues.flatMap((issue) => faultsOf(issue, schema, value));
}

function faultsOf(issue: z.core.$ZodIssue, schema: z.ZodType, value: unknown): SchemaFault[] {
  const path = issue.path.map((step) => (typeof step === "symbol" ? String(step) : step));
  const found = valueAt(value, path);
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = fieldsAt(schema, path);
      return issue.keys.map((key) => ({ code: "unknown_field", path: [...path, key], at: "key", message: `unknown field${suggest(key, known)}` }));
    }
    case "invalid_type":
      return found === undefined
        ? [{ code: "missing_field", path, at: "value", message: `missing, expected ${typeName(issue.expected)}` }]
        : [{ code: "wrong_type", path, at: "value", message: `found ${show(found)}, ${issue.message.startsWith("expected") ? issue.message : `expected ${typeName(issue.expected)}`}` }];
    case "invalid_value":
      return [{ code: found === undefined ? "missing_field" : "bad_value", path, at: "value", message: `found ${show(found)}, expected ${issue.values.map((option) => show(option)).join(" or ")}` }];
    case "invalid_key":
      return [{ code: "bad_value", path, at: "key", message: `found the key ${show(path.at(-1))}, ${expectation(issue.issues[0]?.message)}` }];
    case "invalid_union": {
      const inner = issue.errors.flat().find((branch) => branch.message.startsWith("expected"));
      const message = issue.message.startsWith("expected") ? issue.message : inner?.message;
      return [{ code: found === undefined ? "missing_field" : "bad_value", path, at: "value", message: `found ${show(found)}, ${expectation(message)}` }];
    }
    case "too_small":
    case "too_big": {
      const bound = issue.code === "too_small" ? `at least ${issue.minimum}` : `at most ${issue.maximum}`;
      if (issue.message.startsWith("found")) return [{ code: "bad_value", path, at: "value", message: issue.message }];
      if (issue.message.startsWith("expected")) return [{ code: "bad_value", path, at: "value", message: `found ${show(found)}, ${issue.message}` }];
      return [{ code: "bad_value", path, at: "value", message: `found ${show(found)}, expected ${bound}${issue.origin === "string" ? " characters" : issue.origin === "array" ? " items" : ""}` }];
    }
    default: {
      const name = path.at(-1) === "name" && path.at(-2) === "metadata";
      const message = issue.message.startsWith("found") ? issue.message : `found ${show(found)}, ${expectation(issue.message)}`;
      return [{ code: name ? "bad_name" : "bad_value", path, at: "value", message }];
    }
  }
}

function expectation(message: string | undefined): string {
  return message !== undefined && message.startsWith("expected") ? message : "expected another value";
}

function typeName(expected: string): string {
  switch (expected) {
    case "object":
    case "record":
      return "a map";
    case "array":
      return "a list";
    case "int":
      return "a whole number";
    case "string":
      return "text (quote it if it looks like a number)";
    case "boolean":
      return "true or false";
    default:
      return /^[aeiou]/.test(expected) ? `an ${expected}` : `a ${expected}`;
  }
}

function valueAt(value: unknown, path: FieldPath): unknown {
  let current = value;
  for (const step of path) {
    if (current === null || typeof current !== "object" || !Object.hasOwn(current, step)) return undefined;
    current = (current as Record<string | number, unknown>)[step];
  }
  return current;
}

function suggest(key: string, known: readonly string[]): string {
  const near = known.find((field) => editDistanceWithin(field.toLowerCase(), key.toLowerCase(), 2));
  if (near !== undefined) return `; did you mean ${near}?`;
  if (known.length === 0) return "";
  const shown = known.slice(0, FIELDS_SHOWN_MAX).join(", ");
  return `; expected one of ${shown}${known.length > FIELDS_SHOWN_MAX ? ", ..." : ""}`;
}

/** Field names that the schema knows at `path`. */
function fieldsAt(schema: z.ZodType, path: FieldPath): readonly string[] {
  let current: z.core.$ZodType | undefined = unwrap(schema);
  for (const step of path) {
    if (current instanceof z.ZodObject) current = unwrap(current.shape[String(step)] as z.core.$ZodType | undefined);
    else if (current instanceof z.ZodArray) current = unwrap(current.element);
    else if (current instanceof z.ZodRecord) current = unwrap(current.valueType);
    else return [];
  }
  return current instanceof z.ZodObject ? Object.keys(current.shape) : [];
}

function unwrap(schema: z.core.$ZodType | undefined): z.core.$ZodType | undefined {
  let current = schema;
  while (current instanceof z.ZodOptional || current instanceof z.ZodNullable) current = current.unwrap();
  return current;
}
