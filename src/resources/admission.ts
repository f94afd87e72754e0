// What an API server can check of a schema before it stores an object. A zod schema's own bounds become OpenAPI by themselves; what is a
// function there (a refinement) says the same here in words that the API server knows: a pattern, a bound, a rule in CEL. Both stand side by
// side, and a test holds them to each other. What is written so is for CustomResourceDefinitions: nothing here is looked at when we check.

import { z } from "zod";

/** One rule; `self` is the value. False refuses the object with the message. */
export interface AdmissionRule {
  readonly rule: string;
  readonly message: string;
}

/** For `.meta()`, which stands last: a check that is added after it has none. */
export interface Admission {
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly minLength?: number;
  readonly maxItems?: number;
  readonly maxProperties?: number;
  readonly enum?: readonly string[];
  readonly "x-kubernetes-validations"?: readonly AdmissionRule[];
  readonly "x-kubernetes-list-type"?: "map";
  readonly "x-kubernetes-list-map-keys"?: readonly string[];
  readonly [field: string]: unknown;
}

export const admits = (...rules: readonly AdmissionRule[]): Admission => ({ "x-kubernetes-validations": rules });

/** A list whose items have a name each, which no two share. */
export const NAMED_ITEMS: Admission = { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"] };

/** A map of at most `max` entries. No API server looks at keys by a schema: `keys` is the pattern that they have to match. */
export function boundedRecord<K extends z.core.$ZodRecordKey, V extends z.ZodType>(key: K, value: V, { max, keys, message }: { readonly max: number; readonly keys: RegExp | null; readonly message: string }) {
  const record = z.record(key, value).refine((map) => Object.keys(map).length <= max, { error: `expected at most ${max} entries` });
  return record.meta({ maxProperties: max, ...(keys === null ? {} : admits({ rule: `self.all(key, key.matches(r"${keys.source}"))`, message })) });
}

const countOf = (names: readonly string[]): string => `[${names.map((name) => `has(self.${name})`).join(", ")}].filter(given, given).size()`;
/** `a, b and c`. */
const listed = (names: readonly string[]): string => `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
const given = (value: object, names: readonly string[]): number => names.filter((name) => Reflect.get(value, name) !== undefined).length;

export function exactlyOneOf<S extends z.ZodObject>(schema: S, names: readonly (string & keyof S["shape"])[], more: readonly AdmissionRule[] = []): S {
  const message = `expected exactly one of ${listed(names)}`;
  return schema.refine((value) => given(value, names) === 1, { error: message }).meta(admits({ rule: `${countOf(names)} == 1`, message }, ...more));
}

export function atMostOneOf<S extends z.ZodObject>(schema: S, names: readonly (string & keyof S["shape"])[]): S {
  const message = `expected at most one of ${listed(names)}`;
  return schema.refine((value) => given(value, names) <= 1, { error: message }).meta(admits({ rule: `${countOf(names)} <= 1`, message }));
}
