import { describe, expect, test } from "bun:test";
import { DerFault, DerReader, encode, encodeOid, encodeTime, namedBits, readTime, sequence, TAG, unsignedInteger } from "./der.ts";
import { readKeyUsage } from "./fields.ts";

const hex = (text: string): Uint8Array => Uint8Array.fromHex(text.replaceAll(" ", ""));

function faultOf(run: () => unknown): string {
  try {
    run();
  } catch (fault) {
    if (fault instanceof DerFault) return fault.code;
    throw fault;
  }
  return "none";
}

describe("DER", () => {
  const refused: readonly (readonly [string, string])[] = [
    ["an indefinite length", "30 80 00 00"],
    ["a length in more octets than needed, below 128", "04 81 01 aa"],
    ["a length in more octets than needed, leading zero", `04 82 00 80 ${"aa".repeat(128)}`],
    ["a tag of several octets", "1f 81 01 00"],
    ["a length beyond the end", "04 05 aa"],
    ["a length cut short", "04 82 01"],
    ["a single octet", "04"],
  ];
  for (const [what, bytes] of refused) test(`refuses ${what}`, () => expect(faultOf(() => new DerReader(hex(bytes)).any("test"))).toBe("malformed"));

  test("refuses a length of more than 16 MiB unread", () => expect(faultOf(() => new DerReader(hex("04 84 7f ff ff ff")).any("test"))).toBe("too_large"));

  for (const bytes of ["02 00", "02 02 00 7f", "02 02 ff 80"]) {
    test(`refuses the integer ${bytes}`, () => expect(faultOf(() => new DerReader(hex(bytes)).integer("test"))).toBe("malformed"));
  }

  test("refuses a boolean other than 00 and ff", () => expect(faultOf(() => new DerReader(hex("01 01 01")).boolean("test"))).toBe("malformed"));

  for (const bytes of ["06 00", "06 02 80 01", "06 02 2a 81"]) {
    test(`refuses the object identifier ${bytes}`, () => expect(faultOf(() => new DerReader(hex(bytes)).oid("test"))).toBe("malformed"));
  }

  for (const dotted of ["1.2.840.113549.1.1.11", "2.5.29.17", "0.9.2342.19200300.100.1.25", "2.999.1", "1.3.101.112"]) {
    test(`writes and reads the object identifier ${dotted}`, () => expect(new DerReader(encodeOid(dotted)).oid("test")).toBe(dotted));
  }

  test("writes the object identifier 1.2.840.113549 as X.690 does", () => expect(encodeOid("1.2.840.113549").toHex()).toBe("06062a864886f70d"));

  test("writes lengths of one to three octets minimally", () => {
    for (const length of [0, 127, 128, 255, 256, 65535, 65536]) {
      const bytes = encode(TAG.octetString, new Uint8Array(length));
      expect(new DerReader(bytes).octets("test").length).toBe(length);
    }
  });

  test("writes unsigned integers with a padding octet only where the sign needs it", () => {
    expect(unsignedInteger(hex("00 00 7f")).toHex()).toBe("02017f");
    expect(unsignedInteger(hex("80")).toHex()).toBe("02020080");
    expect(unsignedInteger(new Uint8Array(0)).toHex()).toBe("020100");
  });

  test("named bits lose their trailing zeros and come back the same", () => {
    expect(namedBits(1).toHex()).toBe("03020780");
    expect(namedBits((1 << 5) | (1 << 6)).toHex()).toBe("03020106");
    for (let bits = 1; bits < 512; bits++) expect(readKeyUsage({ oid: "", critical: true, value: namedBits(bits) })).toBe(bits);
  });

  test("times up to 2049 are UTCTime, later ones GeneralizedTime", () => {
    expect(new TextDecoder().decode(encodeTime(Date.UTC(2049, 11, 31, 23, 59, 59)).subarray(2))).toBe("491231235959Z");
    expect(new TextDecoder().decode(encodeTime(Date.UTC(2050, 0, 1)).subarray(2))).toBe("20500101000000Z");
    for (const ms of [Date.UTC(1970, 0, 1), Date.UTC(2031, 1, 28, 1, 2, 3), Date.UTC(2050, 0, 1), Date.UTC(9999, 11, 31, 23, 59, 59)]) expect(readTime(new DerReader(encodeTime(ms)), "test")).toBe(ms);
  });

  const badTimes: readonly (readonly [string, number, string])[] = [
    ["without seconds", TAG.utcTime, "3105060708Z"],
    ["with an offset", TAG.utcTime, "310506070809+0000"],
    ["with a fraction", TAG.generalizedTime, "20510506070809.5Z"],
    ["30 February", TAG.utcTime, "310230000000Z"],
    ["second 60", TAG.utcTime, "310506070860Z"],
    ["hour 24", TAG.utcTime, "310506240000Z"],
    ["month 13", TAG.utcTime, "311306000000Z"],
    ["GeneralizedTime before 2050", TAG.generalizedTime, "20310506070809Z"],
  ];
  for (const [what, tag, text] of badTimes) {
    test(`refuses a time ${what}`, () => expect(faultOf(() => readTime(new DerReader(encode(tag, new TextEncoder().encode(text))), "test"))).toBe("malformed"));
  }

  test("refuses bytes after the end of a region", () => {
    const reader = new DerReader(sequence(unsignedInteger(hex("01")))).inside(TAG.sequence, "test");
    expect(faultOf(() => reader.finish("test"))).toBe("malformed");
  });
});
