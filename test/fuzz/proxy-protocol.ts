// PROXY headers: what we send is read back wherever it is cut; no input throws, is asked for bytes without end, or is first
// accepted and then refused; what was read does not depend on how it was cut.

import { ipFromBytes, formatSocketAddress, type SocketAddress } from "../../src/core/ip.ts";
import type { Random } from "../../src/core/ports.ts";
import { parseSpiffeId, type SpiffeId } from "../../src/core/spiffe.ts";
import { decodeProxyHeader } from "../../src/wire/proxy-protocol/decode.ts";
import { PROXY_V1_BYTES_MAX } from "../../src/wire/proxy-protocol/v1.ts";
import { encodeProxyV2, PROXY_V2_BYTES_MAX } from "../../src/wire/proxy-protocol/v2.ts";
import { below, bytes } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "proxy-protocol";

export const run = (fuzzRun: FuzzRun) => iterate(fuzzRun, (random, i) => {
  if (i % 4 === 0) sentIsReadBack(random);
  else cutsDoNotMatter(random, i % 4 === 1 ? line(random) : i % 4 === 2 ? mutated(random, sent(random).bytes) : assembled(random));
});

function address(random: Random): SocketAddress {
  return { ip: ipFromBytes(bytes(random, random.next() < 0.5 ? 4 : 16)), port: below(random, 65536) };
}

function sent(random: Random): { bytes: Uint8Array; source: SocketAddress; destination: SocketAddress; sourceIdentity: SpiffeId | null } {
  const text = `spiffe://cluster.local/ns/${"n".repeat(1 + below(random, 40))}/sa/${"s".repeat(1 + below(random, 40))}`;
  const source = address(random);
  const destination = address(random);
  const sourceIdentity = random.next() < 0.3 ? null : parseSpiffeId(text)!.id;
  return { bytes: encodeProxyV2({ source, destination, sourceIdentity }), source, destination, sourceIdentity };
}

function sentIsReadBack(random: Random): void {
  const { bytes: header, source, destination, sourceIdentity } = sent(random);
  const all = new Uint8Array([...header, ...bytes(random, below(random, 20))]);
  const cut = below(random, header.length);
  const part = decodeProxyHeader(all.subarray(0, cut));
  if (part.kind !== "need" || part.bytes <= 0 || cut + part.bytes > header.length) throw new Error(`cut at ${cut} of ${header.length}: ${JSON.stringify(part)}`);
  const read = decodeProxyHeader(all);
  if (read.kind !== "header" || read.header.kind !== "proxied") throw new Error(`not read back: ${JSON.stringify(read)}`);
  const same = formatSocketAddress(read.header.source) === formatSocketAddress(source)
    && formatSocketAddress(read.header.destination) === formatSocketAddress(destination) && read.header.sourceIdentity === sourceIdentity;
  if (!same || read.rest.length !== all.length - header.length) throw new Error(`read back as ${JSON.stringify(read)}`);
}

/** Feeds `input` as a socket would, by what is asked for, then whole. */
function cutsDoNotMatter(random: Random, input: Uint8Array): void {
  const whole = decodeProxyHeader(input);
  let length = 0;
  let step = decodeProxyHeader(input.subarray(0, 0));
  while (step.kind === "need") {
    if (step.bytes <= 0) throw new Error("needs nothing and has nothing");
    if (length + step.bytes > PROXY_V2_BYTES_MAX) throw new Error(`asks for ${length + step.bytes} bytes`);
    length = Math.min(input.length, length + (random.next() < 0.2 ? 1 : step.bytes));
    const next = decodeProxyHeader(input.subarray(0, length));
    if (next.kind === "need" && length === input.length) break;
    step = next;
  }
  if (whole.kind === "need") {
    if (input.length >= (input[0] === 0x50 ? PROXY_V1_BYTES_MAX : PROXY_V2_BYTES_MAX)) throw new Error(`still asks after ${input.length} bytes`);
    return;
  }
  if (step.kind !== whole.kind) throw new Error(`${whole.kind} whole, ${step.kind} in parts: ${input.toHex()}`);
  if (whole.kind === "header" && step.kind === "header") {
    if (JSON.stringify(step.header) !== JSON.stringify(whole.header)) throw new Error(`read otherwise in parts: ${input.toHex()}`);
    if (length - step.rest.length !== input.length - whole.rest.length) throw new Error(`another length in parts: ${input.toHex()}`);
  }
}

function mutated(random: Random, header: Uint8Array): Uint8Array {
  const changed = new Uint8Array([...header, ...bytes(random, below(random, 8))]);
  for (let n = 1 + below(random, 3); n > 0; n--) {
    // Most of what decides lies in the fixed part and in the heads of TLVs.
    const at = random.next() < 0.6 ? 12 + below(random, 4) : below(random, changed.length);
    changed[at] = random.next() < 0.5 ? below(random, 256) : changed[at]! ^ (1 << below(random, 8));
  }
  return changed.subarray(0, random.next() < 0.3 ? below(random, changed.length) : changed.length);
}

/** A v2 header of plausible parts that need not fit together. */
function assembled(random: Random): Uint8Array {
  const body: number[] = [...bytes(random, [0, 12, 36, below(random, 40)][below(random, 4)]!)];
  for (let n = below(random, 4); n > 0; n--) {
    const value = random.next() < 0.3 ? [...new TextEncoder().encode("spiffe://td/ns/a/sa/b")] : [...bytes(random, below(random, 8))];
    const stated = random.next() < 0.8 ? value.length : below(random, 1 << (1 + below(random, 16)));
    body.push([0x01, 0x03, 0x04, 0xd0, 0xd0, 0xd1][below(random, 6)]!, stated >> 8, stated & 0xff, ...value);
  }
  const length = random.next() < 0.8 ? body.length : below(random, 65536);
  const family = [0x00, 0x11, 0x11, 0x11, 0x21, 0x21, 0x12, 0x31][below(random, 8)]!;
  return Uint8Array.from([0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, [0x20, 0x21, 0x21, 0x21, 0x11][below(random, 5)]!, family, length >> 8, length & 0xff, ...body, ...bytes(random, below(random, 4))]);
}

const words = ["PROXY", "TCP4", "TCP6", "UNKNOWN", "198.18.0.1", "198.18.0.2", "2001:db8::1", "::ffff:198.18.0.1", "0", "1", "65535", "65536", "08", "", "x".repeat(60)];

function line(random: Random): Uint8Array {
  let text = "";
  if (random.next() < 0.7) {
    const v6 = random.next() < 0.5;
    const ip = () => (random.next() < 0.9 ? (v6 ? "2001:db8::1" : "198.18.0.1") : words[below(random, words.length)]!);
    text = `PROXY ${v6 ? "TCP6" : "TCP4"} ${ip()} ${ip()} ${below(random, 70_000)} ${below(random, 65536)}`;
  } else {
    text = `PROXY ${Array.from({ length: below(random, 7) }, () => words[below(random, words.length)]!).join(" ")}`;
  }
  text += ["\r\n", "\r\n", "\r\n", "\n", "\r", "", "\r\n\r\n"][below(random, 7)]!;
  const input = new TextEncoder().encode(text);
  if (random.next() < 0.3) input[below(random, input.length)] = below(random, 256);
  return input;
}
