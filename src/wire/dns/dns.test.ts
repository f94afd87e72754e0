import { describe, expect, test } from "bun:test";
import { parseIp } from "../../core/ip.ts";
import { checkReply, decodeMessage } from "./decode.ts";
import { encodeMessage, truncatedReply } from "./encode.ts";
import { addressRecord, cnameRecord, type DnsMessage, type Edns, srvRecord, udpBytesOf } from "./message.ts";
import { encodeName, labelsOf, NAME_BYTES_MAX, readName } from "./name.ts";
import { parseResolvConf, RESOLV_CONF_SEARCH_MAX } from "./resolv-conf.ts";
import { RecordType, recordTypeName } from "./types.ts";

const bytesOf = (...parts: readonly (string | readonly number[])[]): Uint8Array =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...Uint8Array.fromHex(part.replaceAll(" ", ""))] : part)));

const query: DnsMessage = {
  id: 0x1234, response: false, opcode: 0, authoritative: false, truncated: false, recursionDesired: true, recursionAvailable: false,
  authenticData: false, checkingDisabled: false, rcode: 0, questions: [{ name: "web.shop", type: RecordType.A, class: 1 }], answers: [],
  authorities: [], additionals: [], edns: null,
};
const edns: Edns = { udpBytes: 1232, version: 0, dnssecOk: true, extendedRcode: 0, options: new Uint8Array(0) };
const ip = (text: string) => parseIp(text)!;
const faultOf = (bytes: Uint8Array): string => {
  const read = decodeMessage(bytes);
  return read.ok ? "none" : read.error;
};

describe("names", () => {
  test("the example of RFC 1035, section 4.1.4: three names in one message", () => {
    const message = new Uint8Array(93);
    message.set(bytesOf("01 46 03 49 53 49 04 41 52 50 41 00"), 20);
    message.set(bytesOf("03 46 4f 4f c0 14"), 40);
    message.set(bytesOf("c0 1a"), 64);
    expect(readName(message, 20)).toEqual({ text: "F.ISI.ARPA", next: 32 });
    expect(readName(message, 40)).toEqual({ text: "FOO.F.ISI.ARPA", next: 46 });
    expect(readName(message, 64)).toEqual({ text: "ARPA", next: 66 });
    expect(readName(message, 92)).toEqual({ text: "", next: 93 });
  });

  test("a pointer to itself, forward, or in a circle is malformed", () => {
    expect(readName(bytesOf("c0 00"), 0)).toBeNull();
    expect(readName(bytesOf("c0 02 00"), 0)).toBeNull();
    expect(readName(bytesOf("c0 02 c0 00"), 2)).toBeNull();
    expect(readName(bytesOf("01 61 c0 00"), 0)).toBeNull();
  });

  test("a chain of pointers ends, each strictly before the last", () => {
    const chain = bytesOf("00", ...Array.from({ length: 100 }, (_, i) => [0xc0, i === 0 ? 0 : 2 * i - 1]));
    expect(readName(chain, chain.length - 2)).toEqual({ text: "", next: chain.length });
  });

  test("255 octets are read, 256 are not", () => {
    const labels = (last: number) => bytesOf([63, ...Array<number>(63).fill(0x61)], [63, ...Array<number>(63).fill(0x61)], [63, ...Array<number>(63).fill(0x61)], [last, ...Array<number>(last).fill(0x61)], [0]);
    expect(labels(61).length).toBe(NAME_BYTES_MAX);
    expect(readName(labels(61), 0)?.next).toBe(255);
    expect(readName(labels(62), 0)).toBeNull();
    expect(encodeName(`${"a".repeat(63)}.`.repeat(3) + "a".repeat(61))?.length).toBe(255);
    expect(encodeName(`${"a".repeat(63)}.`.repeat(3) + "a".repeat(62))).toBeNull();
  });

  test("reserved label types are malformed", () => {
    expect(readName(bytesOf("41 00"), 0)).toBeNull();
    expect(readName(bytesOf("80 00"), 0)).toBeNull();
  });

  test("any byte has a text form that stands for it alone", () => {
    for (let byte = 0; byte < 256; byte++) {
      const text = readName(Uint8Array.of(1, byte, 0), 0)!.text;
      expect([...encodeName(text)!]).toEqual([1, byte, 0]);
      expect(labelsOf(text)).toEqual([text]);
    }
  });

  test("empty labels, bad escapes and a lone trailing dot have no wire form", () => {
    for (const text of [".", "a.", ".a", "a..b", "a\\", "\\256", "b\u0101"]) expect(encodeName(text)).toBeNull();
  });
});

describe("messages", () => {
  test("a query, byte for byte", () => {
    expect(encodeMessage(query).toHex()).toBe("12340100000100000000000003776562" + "0473686f700000010001");
    expect(encodeMessage({ ...query, edns }).toHex()).toBe("1234010000010000000000010377656204" + "73686f7000000100010000290" + "4d0000080000000");
  });

  test("owner names are compressed with the case of the question", () => {
    const asked = "WeB.sHoP";
    const answer = encodeMessage({ ...query, response: true, questions: [{ name: asked, type: 1, class: 1 }], answers: [addressRecord(asked, ip("198.18.0.1"), 30)] });
    expect(answer.toHex()).toEndWith("c00c000100010000001e0004c6120001");
  });

  test("names inside known types are read uncompressed and mean the same elsewhere", () => {
    const wire = bytesOf("1234 8180 0001 0001 0000 0000", "03776562 0473686f70 00 0021 0001", "c00c 0021 0001 0000001e 000c 0000 0064 0050 0361 7069 c010");
    wire[wire.length - 13] = 12; // six bytes, a label of three, a pointer
    const read = decodeMessage(wire);
    if (!read.ok) throw new Error(read.error);
    expect(read.value.answers).toEqual([srvRecord("web.shop", { priority: 0, weight: 100, port: 80, target: "api.shop" }, 30)]);
  });

  test("unknown types are kept as they came", () => {
    const rdata = bytesOf("c0 0c ff");
    const read = decodeMessage(encodeMessage({ ...query, answers: [{ name: "x", type: 65280, class: 1, ttl: 1, rdata }] }));
    expect(read.ok && read.value.answers[0]!.rdata).toEqual(rdata);
  });

  test("what was read stays when the socket's buffer is used again", () => {
    const wire = Buffer.from(encodeMessage({ ...query, answers: [addressRecord("a", ip("198.18.0.1"), 1)], edns: { ...edns, options: bytesOf("000a 0002 0707") } }));
    const read = decodeMessage(wire);
    wire.fill(0xff);
    expect(read.ok && [read.value.answers[0]!.rdata, read.value.edns!.options]).toEqual([Uint8Array.of(198, 18, 0, 1), bytesOf("000a 0002 0707")]);
  });

  test("a TTL with the top bit set is 0", () => {
    const wire = encodeMessage({ ...query, answers: [{ name: "x", type: 99, class: 1, ttl: 0xffff_ffff, rdata: new Uint8Array(0) }] });
    const read = decodeMessage(wire);
    expect(read.ok && read.value.answers[0]!.ttl).toBe(0);
  });

  test("malformed messages are refused with the reason", () => {
    const header = "1234 0100";
    expect(faultOf(bytesOf("1234"))).toBe("shorter than a header");
    expect(faultOf(new Uint8Array(65_536))).toBe("longer than a message can be");
    expect(faultOf(bytesOf(header, "ffff ffff ffff ffff"))).toBe("malformed name");
    expect(faultOf(bytesOf(header, "0001 0000 0000 0000", "00 0001"))).toBe("truncated question");
    expect(faultOf(bytesOf(header, "0000 0000 0000 0000", "00"))).toBe("bytes after the last record");
    expect(faultOf(bytesOf(header, "0000 0001 0000 0000", "00 0001 0001 00000000 0005 01020304"))).toBe("data of a record runs past the message");
    expect(faultOf(bytesOf(header, "0000 0001 0000 0000", "00 0001 0001 00000000 0003 010203"))).toBe("an A record that is not 4 bytes");
    expect(faultOf(bytesOf(header, "0000 0001 0000 0000", "00 0005 0001 00000000 0003 000000"))).toBe("data of a record is longer than its type allows");
    expect(faultOf(bytesOf(header, "0000 0001 0000 0000", "00 0005 0001 00000000 0002 0161 00"))).toBe("malformed name in a record");
    expect(faultOf(bytesOf(header, "0000 0000 0000 0002", "00 0029 1000 00000000 0000", "00 0029 1000 00000000 0000"))).toBe("OPT out of place");
    expect(faultOf(bytesOf(header, "0000 0001 0000 0000", "00 0029 1000 00000000 0000"))).toBe("OPT out of place");
    expect(faultOf(bytesOf(header, "0000 0000 0000 0001", "00 0029 1000 00000000 0004 000a0001"))).toBe("EDNS option runs past its record");
  });

  test("too many answers: the first ones, and TC", () => {
    const answers = Array.from({ length: 100 }, (_, i) => addressRecord("web.shop", ip(`198.18.0.${i}`), 30));
    const wire = encodeMessage({ ...query, response: true, answers, edns }, 512);
    expect(wire.length).toBeLessThanOrEqual(512);
    const read = decodeMessage(wire);
    if (!read.ok) throw new Error(read.error);
    expect(read.value.truncated).toBe(true);
    expect(read.value.answers).toEqual(answers.slice(0, Math.floor((512 - 26 - 11) / 16)));
    expect(read.value.edns).toEqual(edns);
  });

  test("leaving out additional records is no truncation", () => {
    const additionals = Array.from({ length: 100 }, (_, i) => addressRecord("web.shop", ip(`198.18.0.${i}`), 30));
    const read = decodeMessage(encodeMessage({ ...query, response: true, answers: [cnameRecord("a", "b", 1)], additionals }, 512));
    expect(read.ok && !read.value.truncated && read.value.additionals.length < 100).toBe(true);
  });

  test("a client without EDNS, or with nonsense in it, takes 512 bytes", () => {
    expect(udpBytesOf(null)).toBe(512);
    expect(udpBytesOf({ ...edns, udpBytes: 0 })).toBe(512);
    expect(udpBytesOf(edns)).toBe(1232);
  });

  test("type names stay few", () => {
    expect(recordTypeName(28)).toBe("AAAA");
    expect(recordTypeName(65280)).toBe("other");
  });
});

describe("replies", () => {
  const asked = encodeMessage(query);
  const reply = encodeMessage({ ...query, response: true, recursionAvailable: true, answers: [addressRecord("web.shop", ip("198.18.0.1"), 0)] });
  const changed = (at: number, value: number): Uint8Array => Uint8Array.from(reply, (byte, i) => (i === at ? value : byte));

  test("the answer to the question is good; its case does not matter", () => {
    expect(checkReply(asked, reply)).toEqual({ kind: "good", truncated: false, rcode: 0 });
    expect(checkReply(asked, changed(13, 0x57)).kind).toBe("good");
  });

  test("what answers something else is ignored", () => {
    expect(checkReply(asked, new Uint8Array(0))).toEqual({ kind: "ignore", reason: "short" });
    expect(checkReply(asked, changed(0, 0x13))).toEqual({ kind: "ignore", reason: "id" });
    expect(checkReply(asked, changed(2, 0x01))).toEqual({ kind: "ignore", reason: "malformed" });
    expect(checkReply(asked, changed(14, 0x66))).toEqual({ kind: "ignore", reason: "question" });
    expect(checkReply(asked, changed(23, 28))).toEqual({ kind: "ignore", reason: "question" });
    expect(checkReply(asked, changed(5, 2))).toEqual({ kind: "ignore", reason: "question" });
    expect(checkReply(asked, changed(7, 9))).toEqual({ kind: "ignore", reason: "malformed" });
    expect(checkReply(asked, reply.subarray(0, reply.length - 1))).toEqual({ kind: "ignore", reason: "malformed" });
  });

  test("a truncated reply may end anywhere after its question", () => {
    const cut = changed(2, reply[2]! | 0x02).subarray(0, reply.length - 3);
    expect(checkReply(asked, cut)).toEqual({ kind: "good", truncated: true, rcode: 0 });
  });

  test("a server that cannot read our question may leave it out", () => {
    expect(checkReply(asked, bytesOf("1234 8181 0000 0000 0000 0000"))).toEqual({ kind: "good", truncated: false, rcode: 1 });
    expect(checkReply(asked, bytesOf("1234 8180 0000 0000 0000 0000"))).toEqual({ kind: "ignore", reason: "question" });
  });

  test("cut for a small client: header, question, TC, and OPT where it spoke EDNS", () => {
    for (const own of [null, edns]) {
      const read = decodeMessage(truncatedReply(reply, own));
      if (!read.ok) throw new Error(read.error);
      expect(read.value).toMatchObject({ id: 0x1234, response: true, truncated: true, questions: query.questions, answers: [], edns: own });
    }
  });
});

describe("resolv.conf", () => {
  test("of a pod", () => {
    expect(parseResolvConf("search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.18.0.10\noptions ndots:5\n")).toEqual({
      nameservers: [ip("198.18.0.10")], search: ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"],
    });
  });

  test("comments, tabs, trailing dots, the last search line, and what is malformed", () => {
    const text = "# x\nnameserver\t198.18.0.1 # main\nnameserver nonsense\nnameserver fe80::1%eth0\nnameserver 198.18.0.1\nnameserver 2001:db8::1\nsearch a\nsearch B.example. .. c\n";
    expect(parseResolvConf(text)).toEqual({ nameservers: [ip("198.18.0.1"), ip("2001:db8::1")], search: ["b.example", "c"] });
  });

  test("a comment ends its line, whatever else the line ends with", () => {
    expect(parseResolvConf("nameserver 198.18.0.1 # main\r\nsearch a;b\r\nsearch c # d e\u2028f\r\n")).toEqual({ nameservers: [ip("198.18.0.1")], search: ["c"] });
  });

  test("three servers and 32 domains at most", () => {
    const text = Array.from({ length: 9 }, (_, i) => `nameserver 198.18.0.${i}`).join("\n") + `\nsearch ${Array.from({ length: 99 }, (_, i) => `d${i}`).join(" ")}`;
    const config = parseResolvConf(text);
    expect(config.nameservers.length).toBe(3);
    expect(config.search.length).toBe(RESOLV_CONF_SEARCH_MAX);
  });
});
