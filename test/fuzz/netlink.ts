// Replies of the kernel: mutated from real ones, and noise.
//   - nothing throws, and no view reaches outside the datagram
//   - what we write is read back as it was meant: tables, chains, rules with every expression, routes, mark rules, addresses
//   - errors keep the kernel's words short and printable

import { type Cidr, type IpAddress, ipFromBytes } from "../../src/core/ip.ts";
import type { Random } from "../../src/core/ports.ts";
import { readTcpSocket } from "../../src/wire/netlink/connections.ts";
import { readTrackedConnection, writeNewTrackedConnection } from "../../src/wire/netlink/conntrack.ts";
import { type Expression, EXPRESSIONS_MAX, formatExpression } from "../../src/wire/netlink/expression.ts";
import { Attributes, type NetlinkMessage, NetlinkWriter, NLMSG_ERROR, readAnswer, readAttributeList, readMessages } from "../../src/wire/netlink/message.ts";
import * as nft from "../../src/wire/netlink/nf-tables.ts";
import * as route from "../../src/wire/netlink/route.ts";
import { below, bytes, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "netlink";

export const run = (fuzzRun: FuzzRun) => iterate(fuzzRun, (random, i) => {
  if (i % 3 === 0) writtenIsReadBack(random);
  else anythingIsSurvived(random, i % 3 === 1 ? mutated(random, corpus(random)) : noise(random));
});

const hex = (random: Random, length: number): string => bytes(random, length).toHex();
const word = (random: Random): string => Array.from({ length: 1 + below(random, 14) }, () => pick(random, [..."abcxyz019_-."])).join("");
const u32 = (random: Random): number => below(random, 2 ** 32);
const ip = (random: Random, family: 4 | 6): IpAddress => ipFromBytes(bytes(random, family === 4 ? 4 : 16));

function expression(random: Random): Expression {
  const registerBytes = pick(random, [1, 2, 4, 8, 16]);
  const choices: readonly (() => Expression)[] = [
    () => ({ kind: "meta", key: pick(random, ["mark", "skuid", "nfproto", "l4proto", "iif", "iifname", "oifname"] as const) }),
    () => ({ kind: "ct", key: pick(random, ["mark", "state"] as const) }),
    () => ({ kind: "payload", base: pick(random, ["network", "transport"] as const), offset: below(random, 64), length: 1 + below(random, 16) }),
    () => ({ kind: "fibDestinationType" }),
    () => ({ kind: "socketCgroup", level: below(random, 255) }),
    () => ({ kind: "bitwise", mask: hex(random, registerBytes), xor: hex(random, registerBytes) }),
    () => ({ kind: "toNetworkOrder" }),
    () => ({ kind: "compare", comparison: pick(random, ["eq", "neq", "lt", "lte", "gt", "gte"] as const), value: hex(random, registerBytes) }),
    () => ({ kind: "immediate", value: hex(random, registerBytes) }),
    () => ({ kind: "setMeta", key: "mark" }),
    () => ({ kind: "setCt", key: pick(random, ["mark", "zone"] as const) }),
    () => ({ kind: "setCtOriginalZone" }),
    () => ({ kind: "counter", packets: BigInt(u32(random)), bytes: BigInt(u32(random)) * 4096n }),
    () => ({ kind: "redirect" }),
    () => ({ kind: "sourceNat", family: pick(random, [4, 6] as const) }),
    () => ({ kind: "verdict", verdict: pick(random, ["accept", "drop", "return"] as const) }),
  ];
  return pick(random, choices)();
}

interface Written {
  readonly datagram: Uint8Array;
  /** Reads it back; what it must equal. */
  readonly read: (message: NetlinkMessage) => unknown;
  readonly meant: unknown;
}

function written(random: Random): Written {
  const stamp = { flags: below(random, 0x10000) & ~0xf00, sequence: u32(random) };
  const writer = new NetlinkWriter();
  const family = pick(random, [4, 6] as const);
  const names = { family: below(random, 8), table: word(random) };
  const done = (read: Written["read"], meant: unknown): Written => ({ datagram: writer.finish(), read, meant });
  switch (below(random, 7)) {
    case 0: {
      const table = { family: names.family, name: names.table, comment: random.next() < 0.5 ? "" : word(random) };
      nft.writeNewTable(writer, stamp, table);
      return done((message) => nft.readTable(message), table);
    }
    case 1: {
      const chain = { name: word(random), type: pick(random, ["nat", "route", "filter"] as const), hook: pick(random, ["prerouting", "input", "forward", "output", "postrouting"] as const), priority: below(random, 1000) - 500 };
      nft.writeNewChain(writer, stamp, names, chain);
      return done((message) => nft.readChain(message), { table: names.table, name: chain.name, chain });
    }
    case 2: {
      const rule = { chain: word(random), expressions: Array.from({ length: below(random, 12) }, () => expression(random)), comment: random.next() < 0.5 ? "" : word(random) };
      nft.writeNewRule(writer, stamp, names, rule);
      return done((message) => nft.readRule(message), { table: names.table, ...rule });
    }
    case 3: {
      const prefixLength = below(random, family === 4 ? 33 : 129);
      const to: Cidr | null = random.next() < 0.3 ? null : { family, bytes: bytes(random, family === 4 ? 4 : 16), prefixLength };
      const made = { family, to, via: random.next() < 0.5 ? null : ip(random, family), linkIndex: u32(random), table: u32(random), type: pick(random, ["unicast", "local"] as const) };
      route.writeNewRoute(writer, stamp, made);
      return done((message) => route.readRoute(message), made);
    }
    case 4: {
      const made = { family, priority: u32(random), mark: u32(random), mask: u32(random), table: u32(random) };
      route.writeNewRule(writer, stamp, made);
      return done((message) => route.readRule(message), made);
    }
    case 5: {
      const made = { linkIndex: u32(random), ip: ip(random, 4), prefixLength: below(random, 33) };
      route.writeNewAddress(writer, stamp, made);
      return done((message) => route.readAddress(message), made);
    }
    default: {
      const end = (): { ip: IpAddress; port: number } => ({ ip: ip(random, 4), port: below(random, 65536) });
      const [local, remote] = [end(), end()];
      writeNewTrackedConnection(writer, stamp, { local, remote });
      return done((message) => readTrackedConnection(message), { original: { from: local, to: remote }, reply: { from: remote, to: local }, originalZone: 0, ended: false, id: 0 });
    }
  }
}

function writtenIsReadBack(random: Random): void {
  const { datagram, read, meant } = written(random);
  const messages = readMessages(datagram);
  if (!messages.ok || messages.value.length !== 1) throw new Error(`what we wrote is not one message: ${JSON.stringify(messages)}`);
  const back = read(messages.value[0]!);
  if (!Bun.deepEquals(back, { ok: true, value: meant })) throw new Error(`read back as ${Bun.inspect(back)}, meant ${Bun.inspect(meant)}`);
}

/** One or more messages behind one another, an error among them now and then. */
function corpus(random: Random): Uint8Array {
  const parts = Array.from({ length: 1 + below(random, 3) }, () => (random.next() < 0.3 ? errorMessage(random) : written(random).datagram));
  return Buffer.concat(parts.map((part) => Buffer.concat([part, new Uint8Array(-part.length & 3)])));
}

function errorMessage(random: Random): Uint8Array {
  const text = Buffer.from(`${word(random)}\x1b[31m${word(random)}\0`);
  const attribute = Buffer.concat([Buffer.from([text.length + 4, 0, 1, 0]), text]);
  const body = Buffer.concat([Buffer.from(new Int32Array([-below(random, 4096)]).buffer), bytes(random, 16), attribute]);
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length, 0);
  header.writeUInt16LE(NLMSG_ERROR, 4);
  header.writeUInt16LE(pick(random, [0, 0x100, 0x200, 0x300]), 6);
  return Buffer.concat([header, body]);
}

function mutated(random: Random, from: Uint8Array): Uint8Array {
  let out = new Uint8Array(from);
  for (let i = 1 + below(random, 4); i > 0; i--) {
    const at = below(random, out.length);
    const kind = below(random, 4);
    if (kind === 0) out[at] = below(random, 256);
    else if (kind === 1) out[at] = pick(random, [0, 1, 3, 4, 0x7f, 0x80, 0xff]);
    else if (kind === 2) out = out.slice(0, at);
    else out = new Uint8Array(Buffer.concat([out.subarray(0, at), bytes(random, 1 + below(random, 8)), out.subarray(at)]));
    if (out.length === 0) return out;
  }
  return out;
}

const noise = (random: Random): Uint8Array => {
  const out = bytes(random, below(random, 200));
  // Otherwise nearly every one would end at its first length.
  if (out.length >= 16) out.set([out.length & 0xff, out.length >> 8, 0, 0, ...pick(random, [[16, 0], [20, 0], [24, 0], [32, 0], [2, 0], [0, 10], [3, 10], [6, 10]])]);
  return out;
};

const readers: readonly ((message: NetlinkMessage) => { readonly ok: boolean })[] = [
  nft.readGeneration, nft.readTable, nft.readChain, nft.readRule, route.readLink, route.readAddress, route.readRoute, route.readRule, readTcpSocket, readTrackedConnection,
];

function anythingIsSurvived(_random: Random, datagram: Uint8Array): void {
  const messages = readMessages(datagram);
  if (!messages.ok) {
    if (messages.error.message === "") throw new Error("refused without a reason");
    return;
  }
  for (const message of messages.value) {
    const { payload } = message;
    const start = payload.byteOffset - datagram.byteOffset;
    if (payload.buffer !== datagram.buffer || start < 0 || start + payload.length > datagram.length) throw new Error("a payload reaches outside its datagram");
    for (const read of readers) read(message);
    readAttributeList(payload);
    const attributes = Attributes.read(payload);
    if (attributes.ok) for (let type = 0; type < 20; type++) attributes.value.nested(type)?.text(1);
    const rule = nft.readRule(message);
    if (rule.ok && rule.value !== null) {
      if (rule.value.expressions.length > EXPRESSIONS_MAX) throw new Error(`${rule.value.expressions.length} expressions were kept`);
      for (const each of rule.value.expressions) formatExpression(each);
    }
    const answer = readAnswer(message);
    if (answer.ok && (answer.value.errno < 0 || answer.value.errno > 4095 || answer.value.text.length > 256 || /[\0-\x1f\x7f]/.test(answer.value.text))) {
      throw new Error(`answer ${JSON.stringify(answer.value)}`);
    }
  }
}
