// The definitions without an API server: what they say is what the control plane checks. With one: test/kubernetes/admission.test.ts.

import { describe, expect, test } from "bun:test";
import { z } from "zod";
import { SAMPLES, withSet } from "../../../test/kubernetes/admission-samples.ts";
import { checkObject } from "../../resources/check-object.ts";
import { KINDS } from "../../resources/kinds.ts";
import { OWN_GROUP, ownDefinitions } from "./definitions.ts";
import { structuralSchema } from "./structural-schema.ts";

type Json = Readonly<Record<string, unknown>>;
const OWN = KINDS.filter(({ group }) => group === OWN_GROUP);

describe("definitions of our own kinds", () => {
  test("cover each, and each has its samples", () => {
    expect(ownDefinitions().map(({ metadata }) => metadata.name).length).toBe(OWN.length);
    expect(SAMPLES.map(({ kind }) => kind).sort()).toEqual(OWN.map(({ kind }) => kind).sort());
  });

  test("every check that is a function says to the API server what it checks", () => {
    const silent: string[] = [];
    for (const kind of OWN) walk(kind.spec(), kind.kind, silent);
    expect(silent).toEqual([]);
    // The alarm works.
    const found: string[] = [];
    walk(z.strictObject({ a: z.string().refine((text) => text !== ""), b: z.string().refine(Boolean).meta({ maxLength: 3 }).optional(), c: z.array(z.number().refine(Boolean)).nullish() }), "x", found);
    expect(found).toEqual(["x.a", "x.c[]"]);
  });

  test("everything that can grow has a bound, by which the cost of a rule is known", () => {
    const unbounded: string[] = [];
    for (const definition of ownDefinitions()) bounds((definition as unknown as { spec: { versions: { schema: { openAPIV3Schema: Json } }[] } }).spec.versions[0]!.schema.openAPIV3Schema, String(definition.metadata.name), unbounded);
    expect(unbounded).toEqual([]);
  });

  test("what no structural schema says is an error, and not a field that takes anything", () => {
    expect(() => structuralSchema(z.strictObject({ a: z.union([z.boolean(), z.string()]) }))).toThrow("spec.a: a structural schema may leave open");
    expect(() => structuralSchema(z.strictObject({ a: z.array(z.tuple([z.string()])) }))).toThrow("spec.a[]");
    expect(structuralSchema(z.strictObject({ a: z.unknown() }))).toMatchObject({ properties: { a: { "x-kubernetes-preserve-unknown-fields": true } } });
  });
});

describe.each(SAMPLES.map((samples) => [samples.kind, samples] as const))("%s as the control plane reads it", (name, { sound, wrong }) => {
  const kind = OWN.find((one) => one.kind === name)!;
  const faults = (spec: Json): string[] => checkObject({ apiVersion: "weft.dev/v1alpha1", kind: name, metadata: { name: "a", namespace: "shop" }, spec }, kind).faults.filter(({ severity }) => severity === "error").map(({ message }) => message);

  test("takes what is sound", () => {
    for (const spec of sound) expect(faults(spec)).toEqual([]);
  });
  test("refuses what an API server is to refuse", () => {
    for (const { set, by } of wrong) expect([set, faults(withSet(sound[0]!, set)).length > 0]).toEqual([set, by !== "api"]);
  });
});

/** Schemas with a check of their own and not a word for the API server. */
function walk(schema: z.core.$ZodType, at: string, silent: string[]): void {
  const { checks = [] } = schema._zod.def;
  const own = checks.some(({ _zod: { def } }) => def.check === "custom");
  if (own && z.globalRegistry.get(schema) === undefined) silent.push(at);
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodNullable) walk(schema.unwrap(), at, silent);
  else if (schema instanceof z.ZodArray) walk(schema.element, `${at}[]`, silent);
  else if (schema instanceof z.ZodRecord) walk(schema.valueType, `${at}{}`, silent);
  else if (schema instanceof z.ZodUnion) for (const one of schema.options) walk(one, at, silent);
  else if (schema instanceof z.ZodObject) for (const [name, field] of Object.entries(schema.shape)) walk(field as z.core.$ZodType, `${at}.${name}`, silent);
}

function bounds(schema: Json, at: string, unbounded: string[]): void {
  const { type, maxLength, enum: values, maxItems, maxProperties, format } = schema;
  if (type === "string" && maxLength === undefined && values === undefined && format === undefined) unbounded.push(at);
  if (type === "array" && maxItems === undefined) unbounded.push(at);
  if (schema["additionalProperties"] !== undefined && maxProperties === undefined) unbounded.push(at);
  for (const key of ["items", "additionalProperties"]) if (schema[key] !== undefined) bounds(schema[key] as Json, `${at}[]`, unbounded);
  for (const [name, field] of Object.entries((schema["properties"] ?? {}) as Json)) bounds(field as Json, `${at}.${name}`, unbounded);
}
