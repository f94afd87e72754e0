// A zod schema as the structural OpenAPI schema of a CustomResourceDefinition. What zod writes is nearly that; the rest is Kubernetes' own
// words for it. What cannot be said is an error here, and not a field that takes anything.

import { z } from "zod";

type Json = Readonly<Record<string, unknown>>;

/** Whatever stands there stays there. */
const ANYTHING = { "x-kubernetes-preserve-unknown-fields": true } as const;
/** zod's words for "any whole number that JavaScript has": no bound at all for an API server, which has more of them. */
const SAFE = new Set<unknown>([Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]);
/** Keywords of JSON Schema that a structural schema takes as they are. */
const KEPT = new Set(["type", "nullable", "description", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems", "maxProperties", "minProperties", "required", "enum"]);

export function structuralSchema(schema: z.ZodType): Json {
  return structural(z.toJSONSchema(schema, { target: "openapi-3.0", io: "input", unrepresentable: "any", reused: "inline" }), "spec");
}

/** @param at where it stands, for errors. */
function structural(schema: Json, at: string): Json {
  const alternatives = schema["anyOf"];
  if (alternatives !== undefined) return { ...textOrNumber(alternatives, at), ...Object.fromEntries(Object.entries(schema).filter(([key]) => KEPT.has(key) || key.startsWith("x-kubernetes-"))) };
  if (schema["type"] === undefined && schema["enum"] === undefined) return ANYTHING;
  const made: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(schema)) {
    if ((key === "minimum" || key === "maximum") && SAFE.has(value)) continue;
    if (KEPT.has(key) || key.startsWith("x-kubernetes-")) made[key] = value;
    else if (key === "properties") made[key] = Object.fromEntries(Object.entries(value as Json).map(([name, field]) => [name, structural(field as Json, `${at}.${name}`)]));
    else if (key === "items") made[key] = structural(value as Json, `${at}[]`);
    else if (key === "additionalProperties") {
      // Fields that are not listed are no part of an object: the API server says so by itself.
      if (value !== false) made[key] = structural(value as Json, `${at}{}`);
    } else if (key !== "propertyNames") throw new Error(`${at}: no structural schema has ${JSON.stringify(key)}; say it another way, or put it into src/cli/install/structural-schema.ts`);
  }
  return made;
}

/** The one choice between types that Kubernetes knows. */
function textOrNumber(alternatives: unknown, at: string): Json {
  const types = Array.isArray(alternatives) ? alternatives.map((one: Json) => one["type"]).sort() : [];
  if (types.join() !== "integer,string") throw new Error(`${at}: a structural schema may leave open whether a value is a text or a number, and no other type`);
  return { "x-kubernetes-int-or-string": true, anyOf: [{ type: "integer" }, { type: "string" }] };
}
