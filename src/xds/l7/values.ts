// What the schemas of L7 records are made of. They work both ways: z.encode makes the JSON, z.decode reads it. Objects are strict: a
// field that is not known may be a condition, and leaving a condition out opens what should be closed.

import { z } from "zod";
import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";
import { type Cidr, formatCidr, parseCidr } from "../../core/ip.ts";

/** Entries of one list, and characters of one text: what an object of the API server can hold at most. */
export const ITEMS_MAX = 100_000;
const TEXT_CHARS_MAX = 2 * 1024 * 1024;

/**
 * Ties a schema to its type in src/mesh in both directions: a schema that says less or more than the type does not compile.
 */
export const exactly = <T>() => <S extends z.ZodType<T>>(schema: S, ..._proof: [T] extends [z.output<S>] ? [] : ["the schema lacks a member of its type"]): z.ZodType<T> => schema;

export const text = z.string().max(TEXT_CHARS_MAX);
export const number = z.number();
export const nullable = <S extends z.ZodType>(schema: S): z.ZodNullable<S> => z.nullable(schema);
export const list = <S extends z.ZodType>(schema: S): z.ZodReadonly<z.ZodArray<S>> => z.array(schema).max(ITEMS_MAX).readonly();
export const pairs = list(z.tuple([text, text]).readonly());
export const labels = z.record(text, text).readonly();
export const port = z.int().min(0).max(65_535);
export const share = z.number().min(0).max(1);

/**
 * A field that records of older versions do not have. Where it says no more than they did it is not written, so that an older reader takes
 * the record; where it is not there, that is what it says. Every new field of a record is one of these.
 * @param unsaid what records without it mean
 */
export const later = <S extends z.ZodType>(schema: S, unsaid: z.output<S> & (null | boolean | number | string)) => z.codec(z.optional(schema), z.custom<z.output<S>>((value) => value !== undefined), {
  decode: (read) => (read === undefined ? unsaid : read),
  encode: (written) => (written === unsaid ? undefined : written),
});

/** `namespace/name`; a host name may have a wildcard. */
export const name = z.codec(z.string().regex(/^[^/]+\/[^/]+$/, "wanted namespace/name"), z.custom<NamespacedName>((value) => typeof value === "string"), {
  decode: (read) => read as NamespacedName,
  encode: (written): string => written,
});

export const cidr = z.codec(z.string().refine((written) => parseCidr(written) !== null, "wanted an address range"), z.custom<Cidr>(isCidr), {
  decode: (written) => parseCidr(written)!,
  encode: formatCidr,
});

function isCidr(value: unknown): boolean {
  return typeof value === "object" && value !== null && "bytes" in value && value.bytes instanceof Uint8Array;
}

/** It decides nothing: what else a newer control plane says of it is skipped. Not the version of the object, nor its file: an object changes in ways that are none of ours. */
export const provenance = z.codec(z.object({ kind: text, namespace: text, name: text, fieldPath: text }), z.custom<Provenance>((value) => typeof value === "object" && value !== null), {
  decode: (read): Provenance => ({ ...read, resourceVersion: "" }),
  encode: ({ kind, namespace, name: ofObject, fieldPath }) => ({ kind, namespace, name: ofObject, fieldPath }),
});
