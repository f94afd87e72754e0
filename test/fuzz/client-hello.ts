// ClientHellos: the name that was put in is read, wherever records and reads are cut; what is asked for bytes gets them at the end of the
// message at the latest; nothing throws, and what was read once stays so with more bytes.

import type { Random } from "../../src/core/ports.ts";
import { CLIENT_HELLO_BYTES_MAX, readServerName } from "../../src/wire/tls/client-hello.ts";
import { below } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { iterate } from "./iterate.ts";

export const name = "client-hello";

export const run = (fuzzRun: FuzzRun) => iterate(fuzzRun, (random, i) => {
  if (i % 3 === 0) sentIsReadBack(random);
  else moreChangesNothing(random, i % 3 === 1 ? mutated(random, hello(random).bytes) : noise(random));
});

const bytes = (random: Random, length: number): number[] => Array.from({ length }, () => below(random, 256));
const u16 = (n: number): number[] => [n >> 8, n & 255];
const block = (content: readonly number[]): number[] => [...u16(content.length), ...content];
const LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-";

function label(random: Random): string {
  return Array.from({ length: 1 + below(random, 20) }, () => LETTERS[below(random, LETTERS.length)]).join("");
}

function extension(random: Random): number[] {
  // Anything but a server name.
  return [...u16(1 + below(random, 65_535)), ...block(bytes(random, below(random, 60)))];
}

function hello(random: Random): { readonly bytes: Uint8Array; readonly name: string | null } {
  const name = random.next() < 0.2 ? null : Array.from({ length: 1 + below(random, 4) }, () => label(random)).join(".");
  const extensions = Array.from({ length: below(random, 5) }, () => extension(random));
  if (name !== null) extensions.splice(below(random, extensions.length + 1), 0, [0, 0, ...block(block([0, ...block([...Buffer.from(name)])]))]);
  const session = bytes(random, below(random, 33));
  const body = [3, 3, ...bytes(random, 32), session.length, ...session, ...block(bytes(random, 2 * (1 + below(random, 20)))), 1, 0, ...block(extensions.flat())];
  const message = [1, 0, ...u16(body.length), ...body];
  const records: number[] = [];
  for (let at = 0; at < message.length; ) {
    const size = random.next() < 0.5 ? message.length : 1 + below(random, 80);
    records.push(22, 3, below(random, 4), ...block(message.slice(at, at + size)));
    at += size;
  }
  return { bytes: Uint8Array.from(records), name };
}

function sentIsReadBack(random: Random): void {
  const { bytes: sent, name: wanted } = hello(random);
  const read = readServerName(sent);
  if (read.kind !== "clientHello" || read.name !== wanted) throw new Error(`sent ${wanted}, read ${JSON.stringify(read)}`);
  const cut = below(random, sent.length);
  const part = readServerName(sent.subarray(0, cut));
  if (part.kind !== "incomplete") throw new Error(`cut at ${cut} of ${sent.length}: ${JSON.stringify(part)}`);
}

function mutated(random: Random, sent: Uint8Array): Uint8Array {
  const changed = Uint8Array.from(sent);
  for (let i = 0; i <= below(random, 4); i++) changed[below(random, changed.length)] = below(random, 256);
  return changed;
}

function noise(random: Random): Uint8Array {
  const head = [22, 3, 1, ...u16(below(random, 300)), 1, 0, ...u16(below(random, 300))];
  return Uint8Array.from([...head.slice(0, below(random, head.length + 1)), ...bytes(random, below(random, 200))]);
}

function moreChangesNothing(random: Random, input: Uint8Array): void {
  let before = JSON.stringify({ kind: "incomplete" });
  for (let length = 0; length <= input.length; length += 1 + below(random, 30)) {
    const read = JSON.stringify(readServerName(input.subarray(0, length)));
    if (before !== JSON.stringify({ kind: "incomplete" }) && read !== before) throw new Error(`${before} became ${read} at ${length}`);
    before = read;
  }
  const whole = readServerName(Uint8Array.from([...input, ...bytes(random, CLIENT_HELLO_BYTES_MAX / 64)]));
  if (before !== JSON.stringify({ kind: "incomplete" }) && JSON.stringify(whole) !== before) throw new Error(`${before} became ${JSON.stringify(whole)} with more bytes`);
}
