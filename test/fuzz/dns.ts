// DNS messages: no input throws or loops; what decodes encodes to a message that means the same; a size limit holds; a good
// reply is told from one that answers something else. And resolv.conf, which a pod writes.

import type { Random } from "../../src/core/ports.ts";
import { checkReply, decodeMessage, endOfQuestion, readHeaderOnly } from "../../src/wire/dns/decode.ts";
import { encodeMessage, truncatedReply } from "../../src/wire/dns/encode.ts";
import { type DnsMessage, type Edns, HEADER_BYTES, type ResourceRecord } from "../../src/wire/dns/message.ts";
import { encodeName, labelsOf, readName, skipName } from "../../src/wire/dns/name.ts";
import { parseResolvConf, RESOLV_CONF_SERVERS_MAX } from "../../src/wire/dns/resolv-conf.ts";
import { rdataParts } from "../../src/wire/dns/types.ts";
import { below, bytes, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { takeTurns } from "./iterate.ts";

export const name = "dns";

export const run = (fuzzRun: FuzzRun) => takeTurns(fuzzRun, properties);

const properties: readonly ((random: Random) => void)[] = [
  (random) => anyMessage(mutated(random, encodeMessage(message(random)))),
  (random) => anyMessage(compressed(random)),
  (random) => anyMessage(bytes(random, below(random, 60))),
  madeIsReadBack, limitHolds, replyIsTold, namesRoundTrip, anyResolvConf,
];

function domainName(random: Random): string {
  const labels = ["web", "shop", "svc", "cluster", "local", "WEB", "a", "\\.", "\\000", "\\255", "x".repeat(63), "_http", "_tcp", "*"];
  const text = Array.from({ length: below(random, 5) }, () => pick(random, labels)).join(".");
  return encodeName(text) === null ? "too.long" : text;
}

function rdata(random: Random, type: number): Uint8Array {
  if (type === 1) return bytes(random, 4);
  if (type === 28) return bytes(random, 16);
  const parts = rdataParts.get(type);
  if (parts === undefined) return bytes(random, below(random, 30));
  const pieces = parts.flatMap((part) => {
    if (part === "name") return [...encodeName(domainName(random))!];
    if (part === "text") { const length = below(random, 5); return [length, ...bytes(random, length)]; }
    return [...bytes(random, part === "rest" ? below(random, 9) : part)];
  });
  return Uint8Array.from(pieces);
}

const types = [1, 2, 5, 6, 12, 14, 15, 16, 17, 24, 26, 28, 30, 33, 35, 39, 46, 64, 65, 65280];

function record(random: Random): ResourceRecord {
  const type = pick(random, types);
  return { name: domainName(random), type, class: random.next() < 0.9 ? 1 : below(random, 65536), ttl: below(random, 0x8000_0000), rdata: rdata(random, type) };
}

function message(random: Random): DnsMessage {
  const flag = () => random.next() < 0.5;
  const records = () => Array.from({ length: below(random, 4) }, () => record(random));
  const edns: Edns | null = flag() ? null : { udpBytes: below(random, 65536), version: below(random, 2), dnssecOk: flag(), extendedRcode: below(random, 256), options: flag() ? new Uint8Array(0) : Uint8Array.of(0, 10, 0, 2, 7, 7) };
  return {
    id: below(random, 65536), response: flag(), opcode: below(random, 16), authoritative: flag(), truncated: flag(), recursionDesired: flag(),
    recursionAvailable: flag(), authenticData: flag(), checkingDisabled: flag(), rcode: below(random, 16),
    questions: Array.from({ length: random.next() < 0.9 ? 1 : below(random, 4) }, () => ({ name: domainName(random), type: pick(random, types), class: 1 })),
    answers: records(), authorities: records(), additionals: records(), edns,
  };
}

const same = (a: unknown, b: unknown): boolean => Bun.deepEquals(a, b, true);

function anyMessage(input: Uint8Array): void {
  readHeaderOnly(input);
  const read = decodeMessage(input);
  if (!read.ok) {
    if (read.error === "") throw new Error("refused without a reason");
    return;
  }
  // Expanded names may not fit into 65,535 bytes: then records are missing at the end, and TC says so.
  const again = decodeMessage(encodeMessage(read.value));
  if (!again.ok) throw new Error(`what we wrote does not read: ${again.error}: ${input.toHex()}`);
  if (!same(again.value, read.value) && input.length < 20_000) throw new Error(`means something else when written again: ${input.toHex()}`);
}

function madeIsReadBack(random: Random): void {
  const made = message(random);
  const wire = encodeMessage(made);
  const read = decodeMessage(wire);
  if (!read.ok) throw new Error(`our own does not read: ${read.error}: ${wire.toHex()}`);
  if (!same(read.value, made)) throw new Error(`our own reads otherwise: ${wire.toHex()}`);
}

function limitHolds(random: Random): void {
  const made = { ...message(random), truncated: false };
  const full = encodeMessage(made);
  const most = HEADER_BYTES + made.questions.reduce((sum, question) => sum + encodeName(question.name)!.length + 4, 0) + (made.edns === null ? 0 : 11 + made.edns.options.length);
  const limit = most + below(random, full.length + 20);
  const wire = encodeMessage(made, limit);
  if (wire.length > limit) throw new Error(`${wire.length} bytes, limit ${limit}`);
  const read = decodeMessage(wire);
  if (!read.ok) throw new Error(`cut to ${limit} it does not read: ${read.error}`);
  const complete = read.value.answers.length === made.answers.length && read.value.authorities.length === made.authorities.length;
  if (read.value.truncated === complete) throw new Error("TC does not say what happened");
  if (!same(read.value.answers, made.answers.slice(0, read.value.answers.length))) throw new Error("cut answers are not the first ones");
}

function replyIsTold(random: Random): void {
  const made = message(random);
  const query = encodeMessage({ ...made, response: false, questions: made.questions.slice(0, 1), answers: [], authorities: [], additionals: [] });
  const reply = encodeMessage({ ...made, response: true, questions: made.questions.slice(0, 1) });
  if (made.questions.length > 0) {
    const check = checkReply(query, reply);
    if (check.kind !== "good" || check.truncated !== made.truncated) throw new Error(`a good reply: ${JSON.stringify(check)}`);
    const short = decodeMessage(truncatedReply(reply, made.edns));
    if (!short.ok || !short.value.truncated || short.value.answers.length !== 0) throw new Error("truncated reply does not read");
  }
  const changed = mutated(random, reply);
  if (checkReply(query, changed).kind !== "good" || changed.length === HEADER_BYTES) return;
  const end = endOfQuestion(query);
  const lowered = (wire: Uint8Array) => Buffer.from(wire.subarray(HEADER_BYTES, end)).toString("latin1").toLowerCase();
  if (changed[0] !== query[0] || changed[1] !== query[1] || (changed[2]! & 0x80) === 0 || lowered(changed) !== lowered(query)) throw new Error(`accepted ${changed.toHex()} for ${query.toHex()}`);
}

function namesRoundTrip(random: Random): void {
  const input = bytes(random, 1 + below(random, 80));
  for (let i = 0; i < input.length; i++) if (random.next() < 0.6) input[i] = below(random, 8);
  const start = below(random, input.length);
  const skipped = skipName(input, start);
  const read = readName(input, start);
  if (read === null) return;
  if (skipped !== read.next) throw new Error(`skipped to ${skipped}, read to ${read.next}: ${input.toHex()} at ${start}`);
  const wire = encodeName(read.text);
  if (wire === null || wire.length > 255) throw new Error(`no wire form for ${read.text}`);
  const again = readName(wire, 0);
  if (again?.text !== read.text || again.next !== wire.length) throw new Error(`${read.text} came back as ${again?.text}`);
  if (labelsOf(read.text).join(".") !== read.text) throw new Error(`labels of ${read.text}`);
}

/** Names made of pointers into each other, forward, backward and to themselves. */
function compressed(random: Random): Uint8Array {
  const body: number[] = [];
  const counts = [below(random, 3), below(random, 4), below(random, 2), below(random, 2)];
  const putName = () => {
    for (let n = below(random, 4); n > 0; n--) body.push(1 + below(random, 3), 0x61, ...bytes(random, below(random, 3)));
    if (random.next() < 0.6) body.push(0xc0, below(random, HEADER_BYTES + body.length + 4));
    else body.push(0);
  };
  for (let n = counts[0]!; n > 0; n--) { putName(); body.push(0, 1, 0, 1); }
  for (let n = counts[1]! + counts[2]! + counts[3]!; n > 0; n--) {
    putName();
    const type = pick(random, [5, 6, 15, 33, 41, 1]);
    const at = body.length;
    body.push(0, type, 0, 1, 0, 0, 0, 30, 0, 0);
    if (type === 15) body.push(0, 1);
    if (type === 33) body.push(0, 0, 0, 0, 0, 80);
    if (type === 1) body.push(198, 18, 0, 1);
    else if (type !== 41) putName();
    if (type === 6) { putName(); body.push(...bytes(random, 20)); }
    body[at + 9] = random.next() < 0.95 ? body.length - at - 10 : below(random, 256);
  }
  return Uint8Array.from([0, 1, 0x80, 0, ...counts.flatMap((count) => [0, count]), ...body]);
}

function mutated(random: Random, wire: Uint8Array): Uint8Array {
  const changed = wire.slice(0, random.next() < 0.2 ? below(random, wire.length) : wire.length);
  for (let n = below(random, 4); n > 0 && changed.length > 0; n--) {
    changed[below(random, changed.length)] = pick(random, [0, 1, 0xc0, 0x0c, 0xff, below(random, 256)]);
  }
  return changed;
}

function anyResolvConf(random: Random): void {
  const pieces = ["nameserver", "search", "options", "domain", " ", "\t", "\n", "\n", "198.18.0.1", "2001:db8::1", "cluster.local", "ndots:5", "#", ";", "%eth0", ".", "\0"];
  let text = "";
  for (let n = below(random, 30); n > 0; n--) text += random.next() < 0.9 ? pick(random, pieces) : String.fromCharCode(below(random, 0x250));
  const config = parseResolvConf(text);
  if (config.nameservers.length > RESOLV_CONF_SERVERS_MAX) throw new Error(`${config.nameservers.length} nameservers`);
  for (const domain of config.search) if (encodeName(domain) === null || domain !== domain.toLowerCase()) throw new Error(`search domain ${JSON.stringify(domain)}`);
}
