// HPACK: decode(encode(x)) is x with the tables in step; hostile blocks never throw, never run away, and never pass what is forbidden.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { isName, isValue } from "../../src/wire/http/field-bytes.ts";
import { HpackDecoder } from "../../src/wire/http2/hpack-decoder.ts";
import { encodeStateless, HpackEncoder } from "../../src/wire/http2/hpack-encoder.ts";
import { huffmanDecode, huffmanDecodedBytesMax, huffmanEncode, huffmanEncodedBytes } from "../../src/wire/http2/huffman.ts";
import { below } from "./choices.ts";

export const name = "hpack";

const NAMES = [":path", ":authority", ":status", "content-type", "cookie", "authorization", "baggage", "x-a", "x-b", "traceparent", "te", "date"];
const LIST_BYTES_MAX = 4096;
/** A decoder whose table is reused over many blocks finds what a fresh one does not. */
const BLOCKS_PER_PAIR = 50;

interface Pair {
  readonly encoder: HpackEncoder;
  readonly decoder: HpackDecoder;
  readonly hostile: HpackDecoder;
}

const newPair = (): Pair => ({ encoder: new HpackEncoder(), decoder: new HpackDecoder(1 << 20), hostile: new HpackDecoder(LIST_BYTES_MAX) });

export function run(options: { seed: number; iterations: number }): { iterations: number } {
  const random = seededRandom(options.seed);
  let pair = newPair();
  for (let i = 0; i < options.iterations; i++) {
    if (i % BLOCKS_PER_PAIR === 0) pair = newPair();
    try {
      const kind = i % 4;
      if (kind === 0) huffmanRoundTrip(random);
      else if (kind === 1) roundTrip(random, pair);
      else if (kind === 2) hostileBlock(random, pair);
      else hostileHuffman(random);
    } catch (error) {
      throw new Error(`hpack fuzz: seed ${options.seed}, iteration ${i}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    }
  }
  return { iterations: options.iterations };
}

function must(held: boolean, what: string): void {
  if (!held) throw new Error(what);
}

function randomText(random: Random, lengthMax: number, anyByte: boolean): string {
  const length = below(random, lengthMax + 1);
  let text = "";
  for (let i = 0; i < length; i++) text += String.fromCharCode(anyByte ? below(random, 256) : 0x21 + below(random, 0x5e));
  return text;
}

function randomFields(random: Random): string[] {
  const fields: string[] = [];
  const count = below(random, 12);
  for (let i = 0; i < count; i++) {
    const fieldName = below(random, 8) === 0 ? `x-${below(random, 100)}` : NAMES[below(random, NAMES.length)]!;
    const long = below(random, 30) === 0;
    fields.push(fieldName, below(random, 2) === 0 ? `v${below(random, 6)}` : randomText(random, long ? 3000 : 40, false));
  }
  return fields;
}

function huffmanRoundTrip(random: Random): void {
  const text = randomText(random, 60, true);
  const coded = new Uint8Array(huffmanEncodedBytes(text));
  must(huffmanEncode(text, coded, 0) === coded.length, "huffmanEncodedBytes differs from what was written");
  const out = Buffer.alloc(huffmanDecodedBytesMax(coded.length));
  const bytes = huffmanDecode(coded, 0, coded.length, out);
  must(bytes === text.length && out.toString("latin1", 0, bytes) === text, `Huffman does not return ${JSON.stringify(text)}`);
}

/** What the decoder accepts is canonical: it encodes to the same bytes. */
function hostileHuffman(random: Random): void {
  const coded = new Uint8Array(below(random, 24));
  for (let i = 0; i < coded.length; i++) coded[i] = below(random, 3) === 0 ? 0xff : below(random, 256);
  const out = Buffer.alloc(huffmanDecodedBytesMax(coded.length));
  const bytes = huffmanDecode(coded, 0, coded.length, out);
  must(bytes <= out.length, "Huffman wrote beyond its bound");
  if (bytes < 0) return;
  const text = out.toString("latin1", 0, bytes);
  const again = new Uint8Array(huffmanEncodedBytes(text));
  huffmanEncode(text, again, 0);
  must(Buffer.compare(again, coded) === 0, `Huffman accepted ${Buffer.from(coded).toString("hex")}, which encodes as ${Buffer.from(again).toString("hex")}`);
}

function roundTrip(random: Random, { encoder, decoder }: Pair): void {
  // A limit the peer announces: our decoder allows up to 4096, so the encoder may be told anything and stays below it.
  if (below(random, 6) === 0) encoder.setLimit(below(random, 2) === 0 ? below(random, 300) : below(random, 10_000));
  const fields = randomFields(random);
  const bytes = below(random, 4) === 0 ? encoder.prepend(encodeStateless(fields)) : encoder.encode(fields);
  const list = decoder.decode(bytes, 0, bytes.length);
  must(list !== null, `the decoder refused our own block: ${decoder.error}`);
  must(list!.length === fields.length && list!.every((text, i) => text === fields[i]), "decode(encode(x)) differs from x");
  must(decoder.malformed === "", "our own block is malformed");
  must(decoder.tableBytes === encoder.tableBytes, `tables differ: ${encoder.tableBytes} and ${decoder.tableBytes}`);
}

function hostileBlock(random: Random, pair: Pair): void {
  let block: Uint8Array;
  if (below(random, 2) === 0) {
    block = new Uint8Array(below(random, 64));
    for (let i = 0; i < block.length; i++) block[i] = below(random, 256);
  } else {
    block = new Uint8Array(new HpackEncoder().encode(randomFields(random)));
    for (let n = below(random, 4); n > 0 && block.length > 0; n--) block[below(random, block.length)] = below(random, 256);
    if (below(random, 3) === 0) block = block.subarray(0, below(random, block.length + 1));
  }
  const decoder = pair.hostile;
  const list = decoder.decode(block, 0, block.length);
  must(decoder.tableBytes >= 0 && decoder.tableBytes <= 4096, `the table holds ${decoder.tableBytes} bytes`);
  if (list === null) {
    must(decoder.error !== "", "refused without a reason");
    return;
  }
  let bytes = 0;
  let bad = false;
  for (let i = 0; i < list.length; i += 2) {
    bytes += list[i]!.length + list[i + 1]!.length + 32;
    bad ||= !isName(list[i]!) || !isValue(list[i + 1]!);
  }
  must(bytes <= LIST_BYTES_MAX, `a list of ${bytes} bytes passed`);
  must(decoder.listTooLarge || bytes === decoder.listBytes, "the list's size is wrong");
  must(!bad || decoder.malformed !== "", "forbidden bytes passed unmarked");
  must(bad || decoder.listTooLarge || decoder.malformed === "", "good bytes were marked");
}
