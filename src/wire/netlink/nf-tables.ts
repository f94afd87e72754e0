// nf_tables messages: tables, base chains, rules, and the batch that applies them as one. Knows no socket.
// Source: include/uapi/linux/netfilter/{nfnetlink,nf_tables}.h. Values are in network byte order.

import { ok, type Result } from "../../core/result.ts";
import { type Expression, readExpressions, writeExpressions } from "./expression.ts";
import { Attributes, type MalformedNetlink, malformedNetlink, type NetlinkMessage, type NetlinkWriter, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, readText, type Stamp } from "./message.ts";

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_MSG_BATCH_BEGIN = 16;
const NFNL_MSG_BATCH_END = 17;
const NFNL_BATCH_GENID = 1;
const HEADER_BYTES = 4;

const NEWTABLE = 0;
const GETTABLE = 1;
const DELTABLE = 2;
const NEWCHAIN = 3;
const GETCHAIN = 4;
const NEWRULE = 6;
const GETRULE = 7;
const NEWGEN = 15;
const GETGEN = 16;

/** A table for IPv4 and IPv6 at once. */
export const NFPROTO_INET = 1;
export const NFPROTO_IPV4 = 2;
export const NFPROTO_IPV6 = 10;

const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_USERDATA = 6;
const NFTA_CHAIN_TABLE = 1;
const NFTA_CHAIN_NAME = 3;
const NFTA_CHAIN_HOOK = 4;
const NFTA_CHAIN_POLICY = 5;
const NFTA_CHAIN_TYPE = 7;
const NFTA_HOOK_NUMBER = 1;
const NFTA_HOOK_PRIORITY = 2;
const NFTA_RULE_TABLE = 1;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;
const NFTA_RULE_USERDATA = 7;
const NFTA_GEN_ID = 1;

/** In the user data of tables and of rules alike, entry 0 is the comment that `nft` prints. */
const USERDATA_COMMENT = 0;
/** nft's own limit for a comment. */
export const COMMENT_BYTES_MAX = 128;

const ACCEPT = 1;

const messageType = (kind: number): number => (NFNL_SUBSYS_NFTABLES << 8) | kind;

function header(family: number, resource = 0): Uint8Array {
  return new Uint8Array([family, 0, resource >> 8, resource & 0xff]);
}

/** @param generation refuse the batch with ERESTART unless the rules are still at this one; null for no condition. */
export function writeBatchBegin(writer: NetlinkWriter, stamp: Stamp, generation: number | null): void {
  writer.begin(NFNL_MSG_BATCH_BEGIN, stamp.flags, stamp.sequence).header(header(0, NFNL_SUBSYS_NFTABLES));
  if (generation !== null) writer.be32(NFNL_BATCH_GENID, generation);
  writer.end();
}

export function writeBatchEnd(writer: NetlinkWriter, stamp: Stamp): void {
  writer.begin(NFNL_MSG_BATCH_END, stamp.flags, stamp.sequence).header(header(0, NFNL_SUBSYS_NFTABLES)).end();
}

/** Asks for the number of the last change to any rule of the namespace. */
export function writeGetGeneration(writer: NetlinkWriter, stamp: Stamp): void {
  writer.begin(messageType(GETGEN), stamp.flags, stamp.sequence).header(header(0)).end();
}

export function readGeneration(message: NetlinkMessage): Result<number, MalformedNetlink> {
  if (message.type !== messageType(NEWGEN)) return malformedNetlink(`message ${message.type} where a generation was expected`);
  const attributes = bodyOf(message);
  if (!attributes.ok) return attributes;
  const generation = attributes.value.be32(NFTA_GEN_ID);
  return generation === null ? malformedNetlink("a generation without a number") : ok(generation);
}

export interface Table {
  readonly family: number;
  readonly name: string;
  /** What `nft` prints as the table's comment; empty for none. */
  readonly comment: string;
}

/** Creates the table; one that exists is left as it is, its comment too. */
export function writeNewTable(writer: NetlinkWriter, stamp: Stamp, table: Table): void {
  writer.begin(messageType(NEWTABLE), stamp.flags | NLM_F_CREATE, stamp.sequence).header(header(table.family)).text(NFTA_TABLE_NAME, table.name);
  if (table.comment !== "") writer.bytes(NFTA_TABLE_USERDATA, commentBytes(table.comment));
  writer.end();
}

/** Deletes the table with its chains and rules. */
export function writeDeleteTable(writer: NetlinkWriter, stamp: Stamp, table: { readonly family: number; readonly name: string }): void {
  writer.begin(messageType(DELTABLE), stamp.flags, stamp.sequence).header(header(table.family)).text(NFTA_TABLE_NAME, table.name).end();
}

export function writeGetTables(writer: NetlinkWriter, stamp: Stamp, family: number): void {
  writer.begin(messageType(GETTABLE), stamp.flags, stamp.sequence).header(header(family)).end();
}

/** Null for a message that is no table. */
export function readTable(message: NetlinkMessage): Result<Table | null, MalformedNetlink> {
  if (message.type !== messageType(NEWTABLE)) return ok(null);
  const attributes = bodyOf(message);
  if (!attributes.ok) return attributes;
  const name = attributes.value.text(NFTA_TABLE_NAME);
  if (name === null) return malformedNetlink("a table without a name");
  return ok({ family: message.payload[0]!, name, comment: readComment(attributes.value.bytes(NFTA_TABLE_USERDATA)) });
}

export type ChainType = "nat" | "route" | "filter";
export type Hook = "prerouting" | "input" | "forward" | "output" | "postrouting";
const hooks = { prerouting: 0, input: 1, forward: 2, output: 3, postrouting: 4 } as const;

/** A base chain with policy accept. */
export interface Chain {
  readonly name: string;
  readonly type: ChainType;
  readonly hook: Hook;
  readonly priority: number;
}

export interface TableName {
  readonly family: number;
  readonly table: string;
}

export function writeNewChain(writer: NetlinkWriter, stamp: Stamp, { family, table }: TableName, chain: Chain): void {
  writer.begin(messageType(NEWCHAIN), stamp.flags | NLM_F_CREATE | NLM_F_EXCL, stamp.sequence).header(header(family));
  writer.text(NFTA_CHAIN_TABLE, table).text(NFTA_CHAIN_NAME, chain.name);
  writer.nest(NFTA_CHAIN_HOOK, () => writer.be32(NFTA_HOOK_NUMBER, hooks[chain.hook]).be32(NFTA_HOOK_PRIORITY, chain.priority));
  writer.be32(NFTA_CHAIN_POLICY, ACCEPT).text(NFTA_CHAIN_TYPE, chain.type).end();
}

export function writeGetChains(writer: NetlinkWriter, stamp: Stamp, family: number): void {
  writer.begin(messageType(GETCHAIN), stamp.flags, stamp.sequence).header(header(family)).end();
}

/** A chain as the kernel has it: `chain` is null when it is not one we would make (no hook, another type or policy). */
export interface FoundChain {
  readonly table: string;
  readonly name: string;
  readonly chain: Chain | null;
}

export function readChain(message: NetlinkMessage): Result<FoundChain | null, MalformedNetlink> {
  if (message.type !== messageType(NEWCHAIN)) return ok(null);
  const attributes = bodyOf(message);
  if (!attributes.ok) return attributes;
  const table = attributes.value.text(NFTA_CHAIN_TABLE);
  const name = attributes.value.text(NFTA_CHAIN_NAME);
  if (table === null || name === null) return malformedNetlink("a chain without a name");
  return ok({ table, name, chain: baseChain(name, attributes.value) });
}

function baseChain(name: string, attributes: Attributes): Chain | null {
  const hook = attributes.nested(NFTA_CHAIN_HOOK);
  const number = hook?.be32(NFTA_HOOK_NUMBER);
  const priority = hook?.be32(NFTA_HOOK_PRIORITY) ?? null;
  const type = attributes.text(NFTA_CHAIN_TYPE);
  const hookName = (Object.keys(hooks) as Hook[]).find((candidate) => hooks[candidate] === number);
  if (hookName === undefined || priority === null || attributes.be32(NFTA_CHAIN_POLICY) !== ACCEPT) return null;
  return type === "nat" || type === "route" || type === "filter" ? { name, type, hook: hookName, priority: priority | 0 } : null;
}

export interface Rule {
  readonly chain: string;
  readonly expressions: readonly Expression[];
  readonly comment: string;
}

/** Appends the rule to its chain. */
export function writeNewRule(writer: NetlinkWriter, stamp: Stamp, { family, table }: TableName, rule: Rule): void {
  writer.begin(messageType(NEWRULE), stamp.flags | NLM_F_CREATE | NLM_F_APPEND, stamp.sequence).header(header(family));
  writer.text(NFTA_RULE_TABLE, table).text(NFTA_RULE_CHAIN, rule.chain);
  writeExpressions(writer, NFTA_RULE_EXPRESSIONS, rule.expressions);
  if (rule.comment !== "") writer.bytes(NFTA_RULE_USERDATA, commentBytes(rule.comment));
  writer.end();
}

/** The rules of one table (the kernel filters), in the order of their chains. */
export function writeGetRules(writer: NetlinkWriter, stamp: Stamp, { family, table }: TableName): void {
  writer.begin(messageType(GETRULE), stamp.flags, stamp.sequence).header(header(family)).text(NFTA_RULE_TABLE, table).end();
}

export function readRule(message: NetlinkMessage): Result<(Rule & { readonly table: string }) | null, MalformedNetlink> {
  if (message.type !== messageType(NEWRULE)) return ok(null);
  const attributes = bodyOf(message);
  if (!attributes.ok) return attributes;
  const table = attributes.value.text(NFTA_RULE_TABLE);
  const chain = attributes.value.text(NFTA_RULE_CHAIN);
  if (table === null || chain === null) return malformedNetlink("a rule without a table or chain");
  const expressions = readExpressions(attributes.value.bytes(NFTA_RULE_EXPRESSIONS) ?? new Uint8Array(0));
  if (!expressions.ok) return expressions;
  return ok({ table, chain, expressions: expressions.value, comment: readComment(attributes.value.bytes(NFTA_RULE_USERDATA)) });
}

function bodyOf(message: NetlinkMessage): Result<Attributes, MalformedNetlink> {
  if (message.payload.length < HEADER_BYTES) return malformedNetlink(`nfnetlink header of ${message.payload.length} bytes`);
  return Attributes.read(message.payload.subarray(HEADER_BYTES));
}

/** Type, length, value: the form that libnftnl gives user data. */
function commentBytes(comment: string): Uint8Array {
  const text = new TextEncoder().encode(`${comment}\0`);
  if (comment.includes("\0") || text.length > COMMENT_BYTES_MAX) throw new Error(`a comment has at most ${COMMENT_BYTES_MAX - 1} bytes and no NUL: ${comment}`);
  const bytes = new Uint8Array(2 + text.length);
  bytes[0] = USERDATA_COMMENT;
  bytes[1] = text.length;
  bytes.set(text, 2);
  return bytes;
}

/** Empty when there is none, or the user data is of another form: it belongs to whoever wrote it. */
function readComment(userdata: Uint8Array | null): string {
  if (userdata === null) return "";
  for (let at = 0; at + 2 <= userdata.length; ) {
    const end = at + 2 + userdata[at + 1]!;
    if (end > userdata.length) return "";
    if (userdata[at] === USERDATA_COMMENT) return readText(userdata.subarray(at + 2, end)) ?? "";
    at = end;
  }
  return "";
}
