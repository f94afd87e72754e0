// Codecs of plain records, put together from those of their parts. A record type that gains a field does not compile until its codec has it.

import type { PackReader, PackWriter } from "./bytes.ts";

export interface Codec<T> {
  write(to: PackWriter, value: T): void;
  read(from: PackReader): T;
}

/** Strings, branded ones too: what is read was written from one that was checked. */
export const text = <T extends string = string>(): Codec<T> => ({ write: (to, value) => to.text(value), read: (from) => from.text() as T });

export const uint: Codec<number> = { write: (to, value) => to.uint(value), read: (from) => from.uint() };

export const flag: Codec<boolean> = { write: (to, value) => to.uint(value ? 1 : 0), read: (from) => from.uint() === 1 };

export const bytes: Codec<Uint8Array> = { write: (to, value) => to.bytes(value), read: (from) => from.bytes() };

/** One of few strings, all of which are named. */
export function oneOf<T extends string>(...names: readonly T[]): Codec<T> {
  return { write: (to, value) => to.uint(names.indexOf(value)), read: (from) => names[from.uint()]! };
}

const NONE: readonly never[] = Object.freeze([]);

export function list<T>(of: Codec<T>): Codec<readonly T[]> {
  return {
    write: (to, values) => {
      to.uint(values.length);
      for (const value of values) of.write(to, value);
    },
    read: (from) => {
      const count = from.uint();
      if (count === 0) return NONE;
      const values: T[] = [];
      for (let i = 0; i < count; i++) values.push(of.read(from));
      return values;
    },
  };
}

export function nullable<T>(of: Codec<T>): Codec<T | null> {
  return {
    write: (to, value) => {
      to.uint(value === null ? 0 : 1);
      if (value !== null) of.write(to, value);
    },
    read: (from) => (from.uint() === 0 ? null : of.read(from)),
  };
}

export type Fields<T> = { readonly [K in keyof T]-?: Codec<T[K]> };

/** An object with these fields, all of them, written in this order. */
export function struct<T extends object>(fields: Fields<T>): Codec<T> {
  const names = Object.keys(fields) as (keyof T)[];
  const codecs = names.map((name) => fields[name]);
  return {
    write: (to, value) => {
      for (let i = 0; i < names.length; i++) codecs[i]!.write(to, value[names[i]!]);
    },
    read: (from) => {
      const value: Partial<T> = {};
      for (let i = 0; i < names.length; i++) value[names[i]!] = codecs[i]!.read(from);
      return value as T;
    },
  };
}

/** A closed union told apart by `kind`, each alternative with the codec of the whole of it. */
export function variants<T extends { readonly kind: string }>(of: { readonly [K in T["kind"]]: Codec<Extract<T, { readonly kind: K }>> }): Codec<T> {
  const kinds = Object.keys(of) as T["kind"][];
  const codecs = kinds.map((kind) => of[kind] as unknown as Codec<T>);
  return {
    write: (to, value) => {
      const index = kinds.indexOf(value.kind);
      to.uint(index);
      codecs[index]!.write(to, value);
    },
    read: (from) => codecs[from.uint()]!.read(from),
  };
}
