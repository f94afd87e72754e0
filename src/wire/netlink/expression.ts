// nf_tables rule expressions: the small register machine that rules are made of. Encoded for the kernel, and read back
// from it strictly, so that what is in force can be compared with what was asked for.
// Everything works on register 1: our rules load one value and compare it before they load the next.
// Source: include/uapi/linux/netfilter/nf_tables.h.

import { ok, type Result } from "../../core/result.ts";
import { Attributes, type MalformedNetlink, malformedNetlink, type NetlinkWriter, readAttributeList } from "./message.ts";

export type Comparison = "eq" | "neq" | "lt" | "lte" | "gt" | "gte";

/** Values and masks are hex digits of the register's bytes, in the order in which the kernel compares them. */
export type Expression =
  | { readonly kind: "meta"; readonly key: "mark" | "skuid" | "nfproto" | "l4proto" | "iif" | "iifname" | "oifname" }
  | { readonly kind: "ct"; readonly key: "mark" | "state" }
  | { readonly kind: "payload"; readonly base: "network" | "transport"; readonly offset: number; readonly length: number }
  /** Address type of the packet's destination: 2 is local. */
  | { readonly kind: "fibDestinationType" }
  /** Id of the sending socket's cgroup v2 at a depth below the root. */
  | { readonly kind: "socketCgroup"; readonly level: number }
  /** register = (register & mask) ^ xor */
  | { readonly kind: "bitwise"; readonly mask: string; readonly xor: string }
  /** A 32-bit register to network order, so that ranges compare. */
  | { readonly kind: "toNetworkOrder" }
  | { readonly kind: "compare"; readonly comparison: Comparison; readonly value: string }
  | { readonly kind: "immediate"; readonly value: string }
  | { readonly kind: "setMeta"; readonly key: "mark" }
  | { readonly kind: "setCt"; readonly key: "mark" | "zone" }
  /** The zone of the connection's own direction alone; its replies are looked up in the default zone. */
  | { readonly kind: "setCtOriginalZone" }
  | { readonly kind: "counter"; readonly packets: bigint; readonly bytes: bigint }
  /** To the port in the register, on this host. */
  | { readonly kind: "redirect" }
  /** From the address in the register; answers are led back. */
  | { readonly kind: "sourceNat"; readonly family: 4 | 6 }
  | { readonly kind: "verdict"; readonly verdict: "accept" | "drop" | "return" }
  /** Read from the kernel, made by somebody else: never equal to one of ours. */
  | { readonly kind: "foreign"; readonly name: string };

const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;

const REGISTER_VERDICT = 0;
const REGISTER = 1;
const REDIRECT_PORT_GIVEN = 2;
const FIB_RESULT_ADDRESS_TYPE = 3;
const FIB_DESTINATION = 2;
const SOCKET_CGROUP_V2 = 3;
const NAT_SOURCE = 0;
const NAT_ADDRESSES = 1;
const natFamilies = { 4: 2, 6: 10 } as const;
const TO_NETWORK_ORDER = 1;
const CT_DIRECTION_ORIGINAL = 0;

const metaKeys = { mark: 3, iif: 4, iifname: 6, oifname: 7, skuid: 10, nfproto: 15, l4proto: 16 } as const;
const ctKeys = { state: 0, mark: 3, zone: 17 } as const;
const payloadBases = { network: 1, transport: 2 } as const;
const comparisons = { eq: 0, neq: 1, lt: 2, lte: 3, gt: 4, gte: 5 } as const;
const verdicts = { drop: 0, accept: 1, return: -5 >>> 0 } as const;

/** A rule of ours has some 12; the limit bounds what a reply may make us keep. */
export const EXPRESSIONS_MAX = 128;

/** Writes the list as one nested attribute. */
export function writeExpressions(writer: NetlinkWriter, attribute: number, expressions: readonly Expression[]): void {
  writer.nest(attribute, () => {
    for (const expression of expressions) writer.nest(NFTA_LIST_ELEM, () => writeExpression(writer, expression));
  });
}

function writeExpression(writer: NetlinkWriter, e: Expression): void {
  const put = (name: string, body: () => void): void => {
    writer.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, body);
  };
  switch (e.kind) {
    case "meta":
      return put("meta", () => writer.be32(2, metaKeys[e.key]).be32(1, REGISTER));
    case "setMeta":
      return put("meta", () => writer.be32(2, metaKeys[e.key]).be32(3, REGISTER));
    case "ct":
      return put("ct", () => writer.be32(2, ctKeys[e.key]).be32(1, REGISTER));
    case "setCt":
      return put("ct", () => writer.be32(2, ctKeys[e.key]).be32(4, REGISTER));
    case "setCtOriginalZone":
      return put("ct", () => writer.be32(2, ctKeys.zone).be32(4, REGISTER).u8(3, CT_DIRECTION_ORIGINAL));
    case "payload":
      return put("payload", () => writer.be32(1, REGISTER).be32(2, payloadBases[e.base]).be32(3, e.offset).be32(4, e.length));
    case "fibDestinationType":
      return put("fib", () => writer.be32(3, FIB_DESTINATION).be32(2, FIB_RESULT_ADDRESS_TYPE).be32(1, REGISTER));
    case "socketCgroup":
      return put("socket", () => writer.be32(1, SOCKET_CGROUP_V2).be32(2, REGISTER).be32(3, e.level));
    case "bitwise":
      return put("bitwise", () => {
        writer.be32(1, REGISTER).be32(2, REGISTER).be32(3, e.mask.length / 2);
        writeValue(writer, 4, e.mask);
        writeValue(writer, 5, e.xor);
      });
    case "toNetworkOrder":
      return put("byteorder", () => writer.be32(1, REGISTER).be32(2, REGISTER).be32(3, TO_NETWORK_ORDER).be32(4, 4).be32(5, 4));
    case "compare":
      return put("cmp", () => {
        writer.be32(1, REGISTER).be32(2, comparisons[e.comparison]);
        writeValue(writer, 3, e.value);
      });
    case "immediate":
      return put("immediate", () => {
        writer.be32(1, REGISTER);
        writeValue(writer, 2, e.value);
      });
    case "verdict":
      return put("immediate", () => {
        writer.be32(1, REGISTER_VERDICT);
        writer.nest(2, () => writer.nest(NFTA_DATA_VERDICT, () => writer.be32(NFTA_VERDICT_CODE, verdicts[e.verdict])));
      });
    case "counter":
      return put("counter", () => writer.be64(1, e.bytes).be64(2, e.packets));
    case "redirect":
      return put("redir", () => writer.be32(1, REGISTER).be32(2, REGISTER).be32(3, REDIRECT_PORT_GIVEN));
    case "sourceNat":
      return put("nat", () => writer.be32(1, NAT_SOURCE).be32(2, natFamilies[e.family]).be32(3, REGISTER));
    case "foreign":
      throw new Error(`a foreign expression (${e.name}) cannot be written`);
    default:
      return unknownKind(e);
  }
}

function unknownKind(e: never): never {
  throw new Error(`no such expression: ${JSON.stringify(e)}`);
}

function writeValue(writer: NetlinkWriter, attribute: number, hex: string): void {
  writer.nest(attribute, () => writer.bytes(NFTA_DATA_VALUE, bytesOf(hex)));
}

/** Reads a list that `writeExpressions` could have written. What we would never write comes back as `foreign`. */
export function readExpressions(list: Uint8Array): Result<Expression[], MalformedNetlink> {
  const elements = readAttributeList(list);
  if (!elements.ok) return elements;
  if (elements.value.length > EXPRESSIONS_MAX) return malformedNetlink(`a rule of ${elements.value.length} expressions`);
  const expressions: Expression[] = [];
  for (const element of elements.value) {
    const attributes = Attributes.read(element.value);
    if (!attributes.ok) return attributes;
    const name = attributes.value.text(NFTA_EXPR_NAME);
    if (name === null) return malformedNetlink("an expression without a name");
    const values = Attributes.read(attributes.value.bytes(NFTA_EXPR_DATA) ?? new Uint8Array(0));
    if (!values.ok) return values;
    expressions.push(readExpression(name, values.value) ?? { kind: "foreign", name });
  }
  return ok(expressions);
}

function readExpression(name: string, a: Attributes): Expression | null {
  switch (name) {
    case "meta":
      return readMeta(a);
    case "ct":
      return readCt(a);
    case "payload":
      return readPayload(a);
    case "fib":
      return a.be32(1) === REGISTER && a.be32(2) === FIB_RESULT_ADDRESS_TYPE && a.be32(3) === FIB_DESTINATION ? { kind: "fibDestinationType" } : null;
    case "socket":
      return readSocket(a);
    case "bitwise":
      return readBitwise(a);
    case "byteorder":
      return a.be32(1) === REGISTER && a.be32(2) === REGISTER && a.be32(3) === TO_NETWORK_ORDER && a.be32(4) === 4 && a.be32(5) === 4 ? { kind: "toNetworkOrder" } : null;
    case "cmp":
      return readCompare(a);
    case "immediate":
      return readImmediate(a);
    case "counter":
      return readCounter(a);
    case "redir":
      return a.be32(1) === REGISTER && (a.be32(2) ?? REGISTER) === REGISTER && a.be32(3) === REDIRECT_PORT_GIVEN ? { kind: "redirect" } : null;
    case "nat":
      return readSourceNat(a);
    default:
      return null;
  }
}

/** A range of one address comes back with both its ends, and with the flag that says that it is addresses; ports are never ours. */
function readSourceNat(a: Attributes): Expression | null {
  const family = a.be32(2);
  if (a.be32(1) !== NAT_SOURCE || a.be32(3) !== REGISTER || (a.be32(4) ?? REGISTER) !== REGISTER || a.has(5) || a.has(6) || (a.be32(7) ?? NAT_ADDRESSES) !== NAT_ADDRESSES) return null;
  return family === natFamilies[4] ? { kind: "sourceNat", family: 4 } : family === natFamilies[6] ? { kind: "sourceNat", family: 6 } : null;
}

function readMeta(a: Attributes): Expression | null {
  const key = nameOf(metaKeys, a.be32(2));
  if (key === null) return null;
  if (a.be32(1) === REGISTER && !a.has(3)) return { kind: "meta", key };
  return a.be32(3) === REGISTER && !a.has(1) && key === "mark" ? { kind: "setMeta", key } : null;
}

function readCt(a: Attributes): Expression | null {
  const key = nameOf(ctKeys, a.be32(2));
  if (key === null) return null;
  if (a.has(3)) return key === "zone" && a.be32(4) === REGISTER && !a.has(1) && a.u8(3) === CT_DIRECTION_ORIGINAL ? { kind: "setCtOriginalZone" } : null;
  if (a.be32(1) === REGISTER && !a.has(4)) return key === "zone" ? null : { kind: "ct", key };
  return a.be32(4) === REGISTER && !a.has(1) && key !== "state" ? { kind: "setCt", key } : null;
}

function readPayload(a: Attributes): Expression | null {
  const base = nameOf(payloadBases, a.be32(2));
  const offset = a.be32(3);
  const length = a.be32(4);
  if (base === null || offset === null || length === null || a.be32(1) !== REGISTER || a.has(5)) return null;
  return { kind: "payload", base, offset, length };
}

function readSocket(a: Attributes): Expression | null {
  const level = a.be32(3);
  return a.be32(1) === SOCKET_CGROUP_V2 && a.be32(2) === REGISTER && level !== null ? { kind: "socketCgroup", level } : null;
}

function readBitwise(a: Attributes): Expression | null {
  const mask = readValue(a, 4);
  const xor = readValue(a, 5);
  // Attribute 6 names the operation; 0, or its absence on older kernels, is mask and xor.
  if (mask === null || xor === null || a.be32(1) !== REGISTER || a.be32(2) !== REGISTER || (a.be32(6) ?? 0) !== 0) return null;
  return a.be32(3) === mask.length / 2 && mask.length === xor.length ? { kind: "bitwise", mask, xor } : null;
}

function readCompare(a: Attributes): Expression | null {
  const comparison = nameOf(comparisons, a.be32(2));
  const value = readValue(a, 3);
  return comparison !== null && value !== null && a.be32(1) === REGISTER ? { kind: "compare", comparison, value } : null;
}

function readImmediate(a: Attributes): Expression | null {
  if (a.be32(1) === REGISTER) {
    const value = readValue(a, 2);
    return value === null ? null : { kind: "immediate", value };
  }
  const verdict = nameOf(verdicts, a.nested(2)?.nested(NFTA_DATA_VERDICT)?.be32(NFTA_VERDICT_CODE) ?? null);
  return verdict !== null && a.be32(1) === REGISTER_VERDICT ? { kind: "verdict", verdict } : null;
}

function readCounter(a: Attributes): Expression | null {
  const bytes = a.be64(1);
  const packets = a.be64(2);
  return bytes !== null && packets !== null ? { kind: "counter", packets, bytes } : null;
}

function readValue(a: Attributes, attribute: number): string | null {
  const value = a.nested(attribute)?.bytes(NFTA_DATA_VALUE) ?? null;
  return value === null ? null : hexOf(value);
}

function nameOf<Names extends Readonly<Record<string, number>>>(names: Names, value: number | null): (keyof Names & string) | null {
  for (const name in names) if (names[name] === value) return name;
  return null;
}

/** One line per expression, counters without their counts: equal text means that the rule does the same. */
export function formatExpression(e: Expression): string {
  switch (e.kind) {
    case "meta":
    case "ct":
      return `${e.kind} ${e.key}`;
    case "setMeta":
      return `meta ${e.key} set`;
    case "setCt":
      return `ct ${e.key} set`;
    case "setCtOriginalZone":
      return "ct original zone set";
    case "payload":
      return `${e.base} header ${e.length} bytes at ${e.offset}`;
    case "socketCgroup":
      return `socket cgroup level ${e.level}`;
    case "bitwise":
      return `& ${e.mask} ^ ${e.xor}`;
    case "compare":
      return `${e.comparison} ${e.value}`;
    case "immediate":
      return `load ${e.value}`;
    case "verdict":
      return e.verdict;
    case "sourceNat":
      return `source NAT, IPv${e.family}`;
    case "foreign":
      return `${e.name} of somebody else`;
    case "fibDestinationType":
    case "toNetworkOrder":
    case "counter":
    case "redirect":
      return e.kind;
    default:
      return unknownKind(e);
  }
}

export function hexOf(bytes: Uint8Array): string {
  let hex = "";
  for (const byte of bytes) hex += byte.toString(16).padStart(2, "0");
  return hex;
}

function bytesOf(hex: string): Uint8Array {
  if (hex.length % 2 !== 0 || !/^[0-9a-f]*$/.test(hex)) throw new Error(`not hex digits of whole bytes: ${hex}`);
  const bytes = new Uint8Array(hex.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(hex.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
