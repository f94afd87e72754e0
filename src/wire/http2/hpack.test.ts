import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { HpackDecoder } from "./hpack-decoder.ts";
import { seededRandom } from "../../core/ports.ts";
import { checkFields, encodeStateless, HpackEncoder } from "./hpack-encoder.ts";
import { STATIC_COUNT, STATIC_NAMES, STATIC_VALUES } from "./hpack-table.ts";
import { huffmanDecode, huffmanDecodedBytesMax, huffmanEncode, huffmanEncodedBytes } from "./huffman.ts";

const LIST_BYTES_MAX = 65_536;

interface Vectors {
  readonly sequences: readonly {
    readonly case: string;
    readonly tableSizeBytes?: number;
    readonly blocks: readonly { readonly hex: string; readonly fields: readonly string[]; readonly tableBytes: number }[];
  }[];
}

const vectors = JSON.parse(readFileSync(join(import.meta.dir, "../../../test/vectors/hpack/rfc7541-appendix-c.json"), "utf8")) as Vectors;

function hex(text: string): Uint8Array {
  return Buffer.from(text.replaceAll(" ", ""), "hex");
}

function decode(decoder: HpackDecoder, bytes: Uint8Array): string[] | string {
  return decoder.decode(bytes, 0, bytes.length) ?? decoder.error;
}

describe("hpack: RFC 7541 appendix C", () => {
  test("the vectors are there", () => expect(vectors.sequences.length).toBe(8));
  for (const sequence of vectors.sequences) {
    test(sequence.case, () => {
      const decoder = new HpackDecoder(LIST_BYTES_MAX);
      // The examples begin with a table of 256 bytes; here the peer says so first.
      if (sequence.tableSizeBytes === 256) expect(decode(decoder, hex("3fe101"))).toEqual([]);
      for (const block of sequence.blocks) {
        expect(decode(decoder, hex(block.hex))).toEqual([...block.fields]);
        expect(decoder.tableBytes).toBe(block.tableBytes);
        expect(decoder.malformed).toBe("");
      }
    });
  }
});

describe("hpack: static table", () => {
  test("has 61 entries, the last is www-authenticate, 200 is 8", () => {
    expect(STATIC_COUNT).toBe(61);
    expect(STATIC_NAMES[61]).toBe("www-authenticate");
    expect([STATIC_NAMES[8], STATIC_VALUES[8]]).toEqual([":status", "200"]);
    expect([STATIC_NAMES[16], STATIC_VALUES[16]]).toEqual(["accept-encoding", "gzip, deflate"]);
  });
});

describe("huffman", () => {
  const roundTrip = (text: string): string => {
    const coded = new Uint8Array(huffmanEncodedBytes(text));
    expect(huffmanEncode(text, coded, 0)).toBe(coded.length);
    const out = Buffer.alloc(huffmanDecodedBytesMax(coded.length));
    const bytes = huffmanDecode(coded, 0, coded.length, out);
    return bytes < 0 ? `failed ${bytes}` : out.toString("latin1", 0, bytes);
  };

  test("every byte alone, every pair with a letter, in any alignment", () => {
    for (let b = 0; b < 256; b++) {
      const c = String.fromCharCode(b);
      for (const text of [c, `a${c}`, `${c}a`, `0${c}${c}z`, `&&${c}`, `${c}\u00ff${c}`]) expect(roundTrip(text)).toBe(text);
    }
  });

  const decodeHex = (text: string): number => {
    const bytes = hex(text);
    return huffmanDecode(bytes, 0, bytes.length, Buffer.alloc(64));
  };
  test("the empty string", () => expect(decodeHex("")).toBe(0));
  test("padding of zeros is refused", () => expect(decodeHex("18")).toBe(-1)); // 'a' is 00011, then 000
  test("padding of ones is taken", () => expect(decodeHex("1f")).toBe(1));
  test("padding of eight ones is refused", () => expect(decodeHex("1fff")).toBe(-1));
  test("only padding is refused", () => expect(decodeHex("ff")).toBe(-1));
  test("EOS is refused", () => expect(decodeHex("ffffffff")).toBe(-1));
  test("EOS behind a symbol is refused", () => expect(decodeHex("1fffffffff")).toBe(-1));
  test("a code cut short is refused", () => expect(decodeHex("fffe")).toBe(-1));
});

describe("hpack decoder: refuses", () => {
  const refused = (name: string, blocks: string, why: string): void => {
    test(name, () => {
      const decoder = new HpackDecoder(LIST_BYTES_MAX);
      const answers = blocks.split("|").map((block) => decode(decoder, hex(block)));
      expect(answers.at(-1)).toContain(why);
    });
  };
  refused("index 0", "80", "index 0");
  refused("an index beyond both tables", "be", "not in the table");
  refused("a name index beyond both tables", "7f00 00", "not in the table");
  refused("an integer that never ends", "ff80808080808080808000", "more than 28 bits");
  refused("an integer that is too large", "ffffffffff0f", "more than 28 bits");
  refused("a block that ends inside an integer", "ff80", "ends inside an integer");
  refused("a string longer than its block", "000161 05 6162", "longer than its block");
  refused("a block that ends before a value", "000161", "ends before a string");
  refused("bad Huffman padding", "00 81 18 00", "Huffman");
  refused("a table size above the announced one", "3fe21f", "allowed are 4096");
  refused("a size update behind a field", "82 20", "after a field");
  refused("three size updates in a row", "20 20 20", "more than two");
});

describe("hpack decoder", () => {
  test("evicts when the peer shrinks the table, and an entry that is too large empties it", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    expect(decode(decoder, hex("400161 0162"))).toEqual(["a", "b"]);
    expect(decoder.tableBytes).toBe(34);
    expect(decode(decoder, hex("20"))).toEqual([]);
    expect(decoder.tableBytes).toBe(0);
    expect(decode(decoder, hex("3f02 400161 0162"))).toEqual(["a", "b"]);
    expect(decoder.tableBytes).toBe(0);
    expect(decode(decoder, hex("be"))).toContain("not in the table");
  });

  test("a lowered limit demands an update in the next block", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    decoder.setLimit(100);
    expect(decode(decoder, hex("82"))).toContain("no table size update");
    const other = new HpackDecoder(LIST_BYTES_MAX);
    other.setLimit(100);
    expect(decode(other, hex("3f45 82"))).toEqual([":method", "GET"]);
  });

  test("a name may be referenced while its entry is evicted by the new one", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    decode(decoder, hex("3f05 40 0161 0162")); // 36 bytes: one entry
    expect(decode(decoder, hex("7e 0163"))).toEqual(["a", "c"]);
    expect(decode(decoder, hex("be"))).toEqual(["a", "c"]);
  });

  test("a reference bomb is cut at the list limit and leaves the table in step", () => {
    const decoder = new HpackDecoder(16_384);
    const value = "61".repeat(4000);
    expect(decode(decoder, hex(`40 0162 7fa11e ${value}`))).toHaveLength(2);
    const bomb = new Uint8Array(16_000).fill(0xbe);
    const list = decode(decoder, bomb);
    expect(decoder.listTooLarge).toBe(true);
    expect(list.length).toBe(8);
    expect(decoder.listBytes).toBe(16_000 * 4033);
    expect(decode(decoder, hex("be"))).toHaveLength(2);
    expect(decoder.listTooLarge).toBe(false);
  });

  test("eight thousand cookie crumbs count with their overhead", () => {
    const decoder = new HpackDecoder(65_536);
    const list = decode(decoder, hex("600161".concat("be".repeat(8000))));
    expect(decoder.listTooLarge).toBe(true);
    expect(list.length).toBeLessThanOrEqual((65_536 / 39) * 2);
  });

  test("a long value that comes again is the same one; one that differs in a byte is another, and forbidden bytes are marked each time", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    const coded = (value: string): Uint8Array => {
      const out = new Uint8Array(1000);
      const length = huffmanEncode(value, out, 0);
      return Uint8Array.of(0x1f, 0x08, 0xff, (length - 127) | 0x80, (length - 127) >>> 7, ...out.subarray(0, length)); // authorization, never indexed
    };
    const token = `Bearer ${"abc012-_".repeat(50)}`;
    for (const value of [token, token, token.replace("abc", "abd"), token, `${token.slice(0, -1)}\n`, `${token.slice(0, -1)}\n`, token]) {
      expect(decode(decoder, coded(value))).toEqual(["authorization", value]);
      expect(decoder.malformed).toBe(value.endsWith("\n") ? "a field value with forbidden bytes" : "");
    }
  });

  test("forbidden bytes are marked, also when the field comes back from the table", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    decode(decoder, hex("40 0161 03 610a62"));
    expect(decoder.malformed).toContain("value");
    decode(decoder, hex("be"));
    expect(decoder.malformed).toContain("value");
    decode(decoder, hex("7e 0162")); // the name alone is good
    expect(decoder.malformed).toBe("");
    decode(decoder, hex("40 0141 0162"));
    expect(decoder.malformed).toContain("name");
    decode(decoder, hex("7e 0163"));
    expect(decoder.malformed).toContain("name");
  });
});

describe("hpack decoder: the same block again", () => {
  test("means the same, and its list is the reader's own", () => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    const block = new HpackEncoder().encode([":status", "200", "date", "Thu, 01 Jan 2026 00:00:00 GMT"]).slice();
    const first = decode(decoder, block);
    const again = decoder.decode(block, 0, block.length)!;
    expect<string | string[]>(again).toEqual(first);
    again.push("x", "mine");
    expect(decode(decoder, block)).toEqual(first);
    expect(decoder.listBytes).toBe(7 + 3 + 32 + 4 + 29 + 32);
  });

  const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"));
  const SMALL = "3f33"; // a table of 82 bytes: two entries of `a: 1`
  const FULL = "40016101314001620132"; // a: 1, b: 2
  const TOO_LARGE = `4001633c${"78".repeat(60)}`; // c: sixty times x

  const LARGER = `3fe11f0001657f8f01${"78".repeat(270)}`; // 4096 bytes, and e: 270 times x, too long to be remembered

  test.each([
    ["an entry came", [FULL, "be", "4001640134"]],
    ["one came and one went", [SMALL + FULL, "be", "4001640134"]],
    ["all went for one that was too large", [SMALL + FULL, "bf", TOO_LARGE]],
    ["a smaller table let the oldest go", [FULL, "bf", "3f0a"]],
    ["a larger table has room for what was too large", [SMALL, TOO_LARGE, LARGER]],
    ["a table of the same size again", ["3f0a88", "88", "3f0a88", "20", "3f0a88"]],
  ])("means what the table says now: %s", (_what, blocks) => {
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    const forgetful = new HpackDecoder(LIST_BYTES_MAX);
    const [first, ...rest] = blocks;
    for (const block of [first!, rest[0]!, rest[0]!, ...rest.slice(1), rest[0]!, rest[0]!].map(hex)) {
      // Forgets: its limit is said again.
      forgetful.setLimit(4096);
      const expected = decode(forgetful, block);
      const got = decode(decoder, block);
      expect([got, decoder.error, decoder.malformed, decoder.tableBytes, decoder.listBytes]).toEqual([expected, forgetful.error, forgetful.malformed, forgetful.tableBytes, forgetful.listBytes]);
      if (typeof got === "string") break;
    }
  });
});

describe("hpack encoder", () => {
  const request = [":method", "POST", ":scheme", "https", ":path", "/shop/1?x=y", ":authority", "shop.example:8443", "te", "trailers", "authorization", "Bearer x", "content-type", "application/grpc"];

  test("what it writes, the decoder reads; the second time it is shorter", () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    const first = encoder.encode(request).length;
    const second = encoder.encode(request).slice();
    expect(second.length).toBeLessThan(first / 2);
    const fresh = new HpackEncoder();
    expect(decode(decoder, fresh.encode(request))).toEqual(request);
    expect(decode(decoder, fresh.encode(request))).toEqual(request);
    expect(decoder.tableBytes).toBe(fresh.tableBytes);
  });

  test("secrets are marked never to be indexed", () => {
    const bytes = Buffer.from(new HpackEncoder().encode(["authorization", "Bearer x"]));
    expect(bytes.toString("hex")).toStartWith("1f08"); // never indexed, name 23
  });

  test("a table that the peer shrank and grew is announced, smallest first", () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    decode(decoder, encoder.encode(request));
    encoder.setLimit(0);
    encoder.setLimit(4096);
    const bytes = encoder.encode(request);
    expect(Buffer.from(bytes.subarray(0, 4)).toString("hex")).toBe("203fe11f");
    expect(decode(decoder, bytes)).toEqual(request);
    expect(decoder.tableBytes).toBe(encoder.tableBytes);
  });

  test("a stateless block carries a due update too", () => {
    const encoder = new HpackEncoder();
    encoder.setLimit(0);
    const block = encodeStateless([":status", "200"]);
    expect(Buffer.from(encoder.prepend(block)).toString("hex")).toBe("2088");
    expect(Buffer.from(encoder.prepend(block)).toString("hex")).toBe("88");
  });

  test("bytes that would smuggle never leave", () => {
    for (const fields of [["x", "a\r\nb"], ["X", "a"], ["x y", "a"], ["", "a"], ["x", "\u0100"], ["x", " a"], ["x", "a\0"], ["x"]]) {
      expect(() => checkFields(fields)).toThrow(TypeError);
      expect(() => new HpackEncoder().encode(fields)).toThrow(TypeError);
    }
  });

  test("a block that is refused leaves the table in step, also behind one that was alike", () => {
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    decode(decoder, encoder.encode(["a", "1", "x-request-id", "1", "b", "2"]));
    for (const bad of [["a", "new", "x-request-id", "a\nb", "b", "2"], ["a", "new", "x-request-id", "1", "b", "\0"], ["a", "1", "x-request-id", "1", "B", "2"]]) {
      expect(() => encoder.encode(bad)).toThrow(TypeError);
      const good = ["a", "1", "x-request-id", "3", "b", "2"];
      expect(decode(decoder, encoder.encode(good))).toEqual(good);
    }
  });

  test("blocks that are alike in part, with a table that changes: what it writes, the decoder reads", () => {
    const random = seededRandom(7);
    const any = <T>(of: readonly T[]): T => of[Math.floor(random.next() * of.length)]!;
    const encoder = new HpackEncoder();
    const decoder = new HpackDecoder(LIST_BYTES_MAX);
    for (let block = 0; block < 5_000; block++) {
      if (random.next() < 0.02) encoder.setLimit(any([0, 60, 200, 4096]));
      const fields = [":method", any(["GET", "POST"])];
      for (let field = Math.floor(random.next() * 30); field > 0; field--) fields.push(any(["a", "b", "accept", "etag", "cookie", "content-type"]), any(["", "1", "2", "a longer value than most of the others"]));
      expect(decode(decoder, encoder.encode(fields))).toEqual(fields);
      expect(decoder.tableBytes).toBe(encoder.tableBytes);
    }
  });
});
