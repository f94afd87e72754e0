// Messages from bytes, for messages that come by the ten thousand: the library's `fromBinary` asks its description of a message about every
// field again, and takes ten times as long. Here the description is made into a plan once. What comes out is what the library would give, and
// its `toBinary` takes it back; a message with a field of a kind that no such message of ours has is left to the library.
//
// Stricter than that: a field of another wire type than its own, a group, and text that is no UTF-8 are refused.

import { type DescField, type DescMessage, fromBinary, type MessageShape, ScalarType } from "@bufbuild/protobuf";
import { err, ok, type Result } from "../../core/result.ts";

/** Messages within messages: the library's bound. */
const DEPTH_MAX = 100;
/** An unsigned integer of 64 bits. */
const VARINT_BYTES_MAX = 10;

const [VARINT, FIXED64, DELIMITED, FIXED32] = [0, 1, 2, 5] as const;

/** What a message is made into: by field name, as the library names them. */
type Fields = Record<string, unknown>;

interface Plan {
  readonly typeName: string;
  /** What stands in a message before anything was read; shared, and replaced by what is read. */
  readonly defaults: readonly (readonly [name: string, value: unknown])[];
  /** By field number. */
  readonly fields: (FieldPlan | undefined)[];
}

interface FieldPlan {
  readonly name: string;
  readonly wireType: number;
  readonly read: (reader: Reader, depth: number, before: unknown) => unknown;
  readonly shape: "single" | "list" | "map";
  /** Of numbers: a list may be packed. */
  readonly packable: boolean;
  /** Name of the union that it is an alternative of. */
  readonly oneof: string | null;
}

const NO_BYTES = new Uint8Array(0);
const NONE: readonly unknown[] = Object.freeze([]);
const NO_ENTRIES: Fields = Object.freeze({});
const NO_CASE: Fields = Object.freeze({ case: undefined });

const plans = new WeakMap<DescMessage, Plan | null>();

/** @param bytes borrowed: `bytes` fields are views of them. Throws what is wrong with them. */
export function decodeMessage<S extends DescMessage>(schema: S, bytes: Uint8Array): MessageShape<S> {
  const plan = planOf(schema);
  if (plan === null) return fromBinary(schema, bytes);
  return readMessage(plan, new Reader(bytes), bytes.length, 0, undefined) as MessageShape<S>;
}

/** The same, for bytes of somebody else's: that they are no such message is the sender's fault. */
export function decode<S extends DescMessage>(schema: S, bytes: Uint8Array): Result<MessageShape<S>, string> {
  try {
    return ok(decodeMessage(schema, bytes));
  } catch (cause) {
    return err(`not a ${schema.typeName}: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}

function readMessage(plan: Plan, reader: Reader, end: number, depth: number, before: unknown): Fields {
  if (depth >= DEPTH_MAX) throw new Error(`more than ${DEPTH_MAX} messages within each other`);
  const message = (before as Fields | undefined) ?? emptyMessage(plan);
  while (reader.at < end) {
    const start = reader.at;
    const tag = reader.uint32();
    const [number, wireType] = [tag >>> 3, tag & 7];
    const field = plan.fields[number];
    if (field === undefined) {
      reader.skip(wireType, number);
      keepUnknown(message, number, wireType, reader.view(start, reader.at));
    } else readField(message, field, reader, wireType, depth);
  }
  if (reader.at > end) throw new Error(`a field of ${plan.typeName} goes beyond its message`);
  return message;
}

function emptyMessage({ typeName, defaults }: Plan): Fields {
  const message: Fields = { $typeName: typeName };
  for (const [name, value] of defaults) message[name] = value;
  return message;
}

/** As the library keeps them: without their tag. */
function keepUnknown(message: Fields, no: number, wireType: number, field: Uint8Array): void {
  let tagBytes = 1;
  while (field[tagBytes - 1]! > 0x7f) tagBytes++;
  ((message["$unknown"] ??= []) as unknown[]).push({ no, wireType, data: field.subarray(tagBytes) });
}

function readField(message: Fields, field: FieldPlan, reader: Reader, wireType: number, depth: number): void {
  if (wireType !== field.wireType) {
    if (field.shape === "list" && field.packable && wireType === DELIMITED) return readPacked(message, field, reader, depth);
    throw new Error(`field ${field.name} is of wire type ${wireType}, wanted ${field.wireType}`);
  }
  if (field.shape === "list") own(message, field.name, NONE, () => [] as unknown[]).push(field.read(reader, depth, undefined));
  else if (field.shape === "map") {
    const [key, value] = field.read(reader, depth, undefined) as [string, unknown];
    own(message, field.name, NO_ENTRIES, () => ({}) as Fields)[key] = value;
  } else if (field.oneof === null) message[field.name] = field.read(reader, depth, message[field.name]);
  else {
    const chosen = message[field.oneof] as Fields;
    message[field.oneof] = { case: field.name, value: field.read(reader, depth, chosen["case"] === field.name ? chosen["value"] : undefined) };
  }
}

function readPacked(message: Fields, field: FieldPlan, reader: Reader, depth: number): void {
  const end = reader.delimited();
  const values = own(message, field.name, NONE, () => [] as unknown[]);
  while (reader.at < end) values.push(field.read(reader, depth, undefined));
  if (reader.at > end) throw new Error(`field ${field.name} goes beyond its length`);
}

/** The message's own collection, in the place of the empty one that all share. */
function own<T>(message: Fields, name: string, shared: unknown, make: () => T): T {
  if (message[name] === shared) message[name] = make();
  return message[name] as T;
}

// ---- plans

/** Null for a message that is left to the library. */
function planOf(schema: DescMessage): Plan | null {
  const known = plans.get(schema);
  if (known !== undefined) return known;
  const plan: Plan = { typeName: schema.typeName, defaults: [], fields: [] };
  // Known before its fields are: a message may hold itself.
  plans.set(schema, plan);
  const defaults = plan.defaults as [string, unknown][];
  for (const { localName } of schema.oneofs) if (schema.fields.some(({ oneof }) => oneof?.localName === localName)) defaults.push([localName, NO_CASE]);
  for (const field of schema.fields) {
    const planned = planField(field);
    if (planned === null) {
      plans.set(schema, null);
      return null;
    }
    plan.fields[field.number] = planned;
    const empty = defaultOf(field);
    if (empty !== undefined) defaults.push([field.localName, empty]);
  }
  return plan;
}

function planField(field: DescField): FieldPlan | null {
  const oneof = field.oneof?.localName ?? null;
  const of = (value: ValuePlan | null, shape: FieldPlan["shape"]): FieldPlan | null =>
    value === null ? null : { name: field.localName, wireType: shape === "map" ? DELIMITED : value.wireType, read: value.read, shape, packable: value.wireType === VARINT, oneof };
  switch (field.fieldKind) {
    case "scalar":
      return of(scalar(field.scalar), "single");
    case "enum":
      return of(scalar(ScalarType.INT32), "single");
    case "message":
      return of(field.delimitedEncoding ? null : (oneof === null ? wrapped(field.message) : null) ?? embedded(field.message), "single");
    case "list":
      return of(field.listKind === "scalar" ? scalar(field.scalar) : field.listKind === "enum" ? scalar(ScalarType.INT32) : field.delimitedEncoding ? null : embedded(field.message), "list");
    case "map": {
      const value = field.mapKind === "scalar" ? scalar(field.scalar) : field.mapKind === "enum" ? scalar(ScalarType.INT32) : embedded(field.message);
      return field.mapKey !== ScalarType.STRING || value === null ? null : of({ wireType: DELIMITED, read: entryReader(value, field) }, "map");
    }
  }
}

/** What the library puts into a message that is new. */
function defaultOf(field: DescField): unknown {
  if (field.fieldKind === "list") return NONE;
  if (field.fieldKind === "map") return NO_ENTRIES;
  if (field.oneof !== undefined || field.fieldKind === "message" || field.presence !== IMPLICIT) return undefined;
  return field.fieldKind === "enum" ? 0 : zeroOf(field.scalar);
}

/** FeatureSet.FieldPresence: a field that is its zero where nothing is said. */
const IMPLICIT = 2;

const zeroOf = (type: ScalarType): unknown => (type === ScalarType.STRING ? "" : type === ScalarType.BYTES ? NO_BYTES : type === ScalarType.BOOL ? false : 0);

interface ValuePlan {
  readonly wireType: number;
  readonly read: FieldPlan["read"];
}

function scalar(type: ScalarType): ValuePlan | null {
  switch (type) {
    case ScalarType.STRING:
      return { wireType: DELIMITED, read: (reader) => reader.text() };
    case ScalarType.BYTES:
      return { wireType: DELIMITED, read: (reader) => reader.bytes() };
    case ScalarType.BOOL:
      return { wireType: VARINT, read: (reader) => reader.truth() };
    case ScalarType.UINT32:
      return { wireType: VARINT, read: (reader) => reader.uint32() };
    case ScalarType.INT32:
      return { wireType: VARINT, read: (reader) => reader.uint32() | 0 };
    default:
      return null;
  }
}

/** Its fields are planned when the first one comes. */
function embedded(schema: DescMessage): ValuePlan | null {
  if (schema.typeName.startsWith("google.protobuf.") && schema.typeName !== "google.protobuf.Any") return null;
  const plan = planOf(schema);
  if (plan === null) return null;
  return { wireType: DELIMITED, read: (reader, depth, before) => readMessage(plan, reader, reader.delimited(), depth + 1, before) };
}

/** The library gives the one value of google.protobuf.UInt32Value and its like, not the message. */
function wrapped(schema: DescMessage): ValuePlan | null {
  if (schema.typeName !== "google.protobuf.UInt32Value") return null;
  return {
    wireType: DELIMITED,
    read: (reader) => {
      const end = reader.delimited();
      let value = 0;
      while (reader.at < end) {
        const tag = reader.uint32();
        if (tag === (1 << 3 | VARINT)) value = reader.uint32();
        else reader.skip(tag & 7, tag >>> 3);
      }
      if (reader.at > end) throw new Error("a google.protobuf.UInt32Value goes beyond its length");
      return value;
    },
  };
}

function entryReader(value: ValuePlan, field: DescField & { readonly fieldKind: "map" }): FieldPlan["read"] {
  const missing = (): unknown => (field.mapKind === "message" ? emptyMessage(planOf(field.message)!) : field.mapKind === "enum" ? 0 : zeroOf(field.scalar));
  return (reader, depth) => {
    const end = reader.delimited();
    let key = "";
    let found: unknown;
    while (reader.at < end) {
      const tag = reader.uint32();
      if (tag === (1 << 3 | DELIMITED)) key = reader.text();
      else if (tag === (2 << 3 | value.wireType)) found = value.read(reader, depth + 1, found);
      else reader.skip(tag & 7, tag >>> 3);
    }
    if (reader.at > end) throw new Error(`an entry of ${field.name} goes beyond its length`);
    // As a key of an object it would not be one of its own.
    if (key === "__proto__") throw new Error(`an entry of ${field.name} is named __proto__`);
    return [key, found ?? missing()];
  };
}

// ---- bytes

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Reader {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** The low 32 bits. */
  uint32(): number {
    let value = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.#next();
      if (i < 5) value |= (byte & 0x7f) << (7 * i);
      if (byte < 0x80) return value >>> 0;
    }
    throw new Error(`a number of more than ${VARINT_BYTES_MAX} bytes`);
  }

  truth(): boolean {
    let some = 0;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.#next();
      some |= byte & 0x7f;
      if (byte < 0x80) return some !== 0;
    }
    throw new Error(`a number of more than ${VARINT_BYTES_MAX} bytes`);
  }

  /** Where what comes now ends, its length being read. */
  delimited(): number {
    const length = this.uint32();
    if (length > this.#bytes.length - this.at) throw new Error(`${length} bytes are announced, ${this.#bytes.length - this.at} are there`);
    return this.at + length;
  }

  text(): string {
    const end = this.delimited();
    const start = this.at;
    this.at = end;
    const bytes = this.#bytes;
    for (let i = start; i < end; i++) if (bytes[i]! > 0x7f) return utf8.decode(bytes.subarray(start, end));
    return bytes.toString("latin1", start, end);
  }

  bytes(): Uint8Array {
    const end = this.delimited();
    const start = this.at;
    this.at = end;
    return this.view(start, end);
  }

  view(start: number, end: number): Uint8Array {
    return new Uint8Array(this.#bytes.buffer, this.#bytes.byteOffset + start, end - start);
  }

  skip(wireType: number, number: number): void {
    if (number === 0) throw new Error("a field without a number");
    if (wireType === VARINT) this.uint32();
    else if (wireType === DELIMITED) this.at = this.delimited();
    else if (wireType === FIXED32 || wireType === FIXED64) {
      this.at += wireType === FIXED32 ? 4 : 8;
      if (this.at > this.#bytes.length) throw new Error("a field is cut off");
    } else throw new Error(`field ${number} is of wire type ${wireType}: groups are not read`);
  }

  #next(): number {
    const byte = this.#bytes[this.at++];
    if (byte === undefined) throw new Error("a field is cut off");
    return byte;
  }
}
