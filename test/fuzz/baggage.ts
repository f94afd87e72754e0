// The headers of an HBONE CONNECT: baggage, forwarded, traceparent, authority and the list as a whole. Nothing throws whatever
// the bytes; results stay within the bounds; what we send is read back; an accepted authority has one form.

import { parseIp } from "../../src/core/ip.ts";
import type { Random } from "../../src/core/ports.ts";
import { formatAuthority, parseAuthority, parseHostname } from "../../src/wire/hbone/authority.ts";
import { type Baggage, BAGGAGE_BYTES_MAX, BAGGAGE_VALUE_CHARS_MAX, decodeBaggage, emptyBaggage, encodeBaggage } from "../../src/wire/hbone/baggage.ts";
import { readConnect } from "../../src/wire/hbone/connect.ts";
import { decodeForwardedHost, encodeForwarded } from "../../src/wire/hbone/forwarded.ts";
import { decodeTraceparent, encodeTraceparent, randomTraceparent } from "../../src/wire/trace/traceparent.ts";
import { below, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { takeTurns } from "./iterate.ts";

export const name = "baggage";

export const run = (fuzzRun: FuzzRun) => takeTurns(fuzzRun, properties);

const properties: readonly ((random: Random) => void)[] = [anyBaggageIsRead, sentBaggageIsReadBack, anyForwardedIsRead, anyTraceparentIsRead, authorityHasOneForm, anyListIsRead];

/** Pieces that the grammars care about, and any byte. */
function soup(random: Random, pieces: readonly string[], piecesMax: number): string {
  let text = "";
  for (let n = below(random, piecesMax); n > 0; n--) {
    text += random.next() < 0.7 ? pick(random, pieces) : String.fromCharCode(below(random, 256));
  }
  return text;
}

const baggagePieces = [
  "k8s.cluster.name", "k8s.namespace.name", "k8s.deployment.name", "k8s.pod.name", "k8s.job.name", "k8s.cronjob.name", "service.name",
  "service.version", "cloud.region", "cloud.availability_zone", "=", "=", "=", ",", ",", ";", " ", "\t", "%", "%2", "%41", "%C3%BC", "%00", "%ff", "web", "v1", "\"",
];

function anyBaggageIsRead(random: Random): void {
  const lines = Array.from({ length: below(random, 4) }, () => soup(random, baggagePieces, random.next() < 0.01 ? 4000 : 40));
  const read = decodeBaggage(lines);
  for (const [key, value] of Object.entries(read)) {
    if (value.length > BAGGAGE_VALUE_CHARS_MAX) throw new Error(`${key} of ${value.length} characters`);
    if (/[\u0000-\u001f\u007f-\u009f]/.test(value) || !value.isWellFormed()) throw new Error(`${key} would break a log line: ${JSON.stringify(value)}`);
  }
  sameBaggage(read, decodeBaggage([encodeBaggage(read)]));
}

function sentBaggageIsReadBack(random: Random): void {
  const value = (): string => (random.next() < 0.2 ? "" : unicode(random, 12));
  const baggage: Baggage = {
    clusterId: value(), namespace: value(), workloadType: pick(random, ["pod", "deployment", "job", "cronjob"]), workloadName: value(),
    serviceName: value(), serviceVersion: value(), region: value(), zone: value(),
  };
  const sent = encodeBaggage(baggage);
  if (sent.length > BAGGAGE_BYTES_MAX || !/^[\x21-\x7e]*$/.test(sent)) throw new Error(`not a header value: ${JSON.stringify(sent)}`);
  sameBaggage(baggage, decodeBaggage([sent]));
}

function unicode(random: Random, charsMax: number): string {
  let text = "";
  for (let n = 1 + below(random, charsMax); n > 0; n--) {
    const kind = random.next();
    if (kind < 0.6) text += String.fromCharCode(0x20 + below(random, 95));
    else if (kind < 0.8) text += String.fromCharCode(0xa0 + below(random, 0x700));
    else if (kind < 0.9) text += String.fromCodePoint(0x1f300 + below(random, 256));
    else text += pick(random, ["%", "%4", "=", ",", ";", "\u4e2d", "\ufeff", "\ufffd"]);
  }
  return text;
}

/** The kind of a workload without a name says nothing, so it is not carried. */
function sameBaggage(a: Baggage, b: Baggage): void {
  const normal = (x: Baggage) => JSON.stringify(x.workloadName === "" ? { ...x, workloadType: emptyBaggage.workloadType } : x);
  if (normal(a) !== normal(b)) throw new Error(`${normal(a)} came back as ${normal(b)}`);
}

const forwardedPieces = ["for=", "host=", "Host=", "proto=http", ";", ";", ",", "\"", "\\", "\\\"", "web.shop", "web:80", "198.18.0.1", "[2001:db8::1]", " ", "\t", "=", "_x"];

function anyForwardedIsRead(random: Random): void {
  const host = decodeForwardedHost(Array.from({ length: below(random, 3) }, () => soup(random, forwardedPieces, 30)));
  if (host === null) return;
  if (parseHostname(host) !== host) throw new Error(`not a hostname: ${JSON.stringify(host)}`);
  const again = decodeForwardedHost([encodeForwarded({ for: { ip: parseIp("198.18.0.1")!, port: below(random, 65536) }, host })]);
  if (again !== host) throw new Error(`${host} came back as ${again}`);
}

function anyTraceparentIsRead(random: Random): void {
  let text = randomTraceparent(random);
  const given = decodeTraceparent(text);
  if (given === null || encodeTraceparent(given) !== text) throw new Error(`our own is not read back: ${text}`);
  for (let n = below(random, 4); n > 0; n--) text = mutate(random, text);
  const read = decodeTraceparent(text);
  if (read === null) return;
  if (!/^[0-9a-f]{32}$/.test(read.traceId) || !/^[0-9a-f]{16}$/.test(read.parentId) || Number(`0x${read.traceId}`) === 0) throw new Error(`accepted ${JSON.stringify(text)}`);
}

const authorityPieces = ["198.18.0.1", "2001:db8::1", "::ffff:198.18.0.1", "[", "]", "[2001:db8::1]", ":", ":80", ":65535", ":0", ".", "web", "WEB", "-", "_", "%", "@", "1", "0", "cluster.local", "/", " "];

function authorityHasOneForm(random: Random): void {
  const text = soup(random, authorityPieces, 6) + (random.next() < 0.5 ? ":80" : "");
  const read = parseAuthority(text);
  if (!read.ok) return;
  const formatted = formatAuthority(read.value);
  const again = parseAuthority(formatted);
  if (JSON.stringify(again) !== JSON.stringify(read)) throw new Error(`${JSON.stringify(text)} reads as ${formatted}, which reads otherwise`);
  if (read.value.kind === "hostname" && text.toLowerCase() !== formatted) throw new Error(`${JSON.stringify(text)} became ${formatted}`);
}

const names = [":method", ":authority", ":path", ":scheme", ":protocol", ":status", "baggage", "forwarded", "traceparent", "x-forwarded-network", "host", "x"];

function anyListIsRead(random: Random): void {
  const headers: string[] = [];
  if (random.next() < 0.8) headers.push(":method", random.next() < 0.95 ? "CONNECT" : "GET");
  if (random.next() < 0.8) headers.push(":authority", random.next() < 0.8 ? "198.18.0.1:80" : soup(random, authorityPieces, 5));
  for (let n = below(random, 5); n > 0; n--) headers.push(pick(random, names.slice(random.next() < 0.8 ? 6 : 0)), soup(random, [...baggagePieces, ...forwardedPieces], 12));
  const read = readConnect(headers);
  const count = (wanted: string) => headers.filter((header, i) => i % 2 === 0 && header === wanted).length;
  if (!read.ok) {
    if (read.error.status !== 400 || read.error.reason === "") throw new Error("refused without a reason");
  } else if (count(":method") !== 1 || count(":authority") !== 1 || count(":path") + count(":scheme") + count(":protocol") + count(":status") > 0) {
    throw new Error(`accepted ${JSON.stringify(headers)}`);
  }
}

function mutate(random: Random, text: string): string {
  const at = below(random, text.length + 1);
  const char = random.next() < 0.5 ? pick(random, ["-", "0", "f", "F", "\u00e9", " "]) : String.fromCharCode(below(random, 0x250));
  switch (below(random, 3)) {
    case 0: return text.slice(0, at) + char + text.slice(at);
    case 1: return text.slice(0, at) + text.slice(at + 1);
    default: return text.slice(0, at) + char + text.slice(at + 1);
  }
}
