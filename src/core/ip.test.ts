import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { isIPv6 } from "node:net";
import { CidrMap } from "./cidr-map.ts";
import {
  type Cidr, cidrContains, formatCidr, formatSocketAddress, type IpAddress, ipFromBytes, ipToBytes, isIpv6, isLoopback, parseCidr, parseIp, parsePort,
  parseSocketAddress,
} from "./ip.ts";

const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
/** IPv6 with runs of zeros, and mapped IPv4, more often than chance would give. */
const anyBytes = fc.oneof(
  bytesOf(4), bytesOf(16),
  fc.array(fc.constantFrom(0, 0, 0, 1, 0xff), { minLength: 16, maxLength: 16 }).map((b) => Uint8Array.from(b)),
  bytesOf(4).map((b) => Uint8Array.from([...new Array<number>(10).fill(0), 0xff, 0xff, ...b])),
);
const anyCidr = fc.tuple(anyBytes, fc.nat(128)).map(([bytes, n]) => parseCidr(`${ipFromBytes(bytes)}/${ipFromBytes(bytes).includes(":") ? n : n % 33}`)!);

describe("parseIp", () => {
  const same = ["0.0.0.0", "198.18.0.1", "255.255.255.255", "::", "::1", "2001:db8::1", "1:2:3:4:5:6:7:8", "fe80::1:0:0:1", "1:0:0:2::3"];
  test.each(same)("%s is its own canonical form", (text) => expect(parseIp(text)).toBe(text as IpAddress));

  test.each([
    ["2001:DB8:0:0:0:0:0:1", "2001:db8::1"], ["0:0:0:0:0:0:0:0", "::"], ["::ffff:1.2.3.4", "1.2.3.4"], ["::ffff:102:304", "1.2.3.4"],
    ["::1.2.3.4", "::102:304"], ["1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304"], ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"], ["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"], ["1:0:0:2:3:0:0:4", "1::2:3:0:0:4"], ["64:ff9b::1.2.3.4", "64:ff9b::102:304"],
  ])("%s reads as %s", (text, canonical) => expect(parseIp(text)).toBe(canonical as IpAddress));

  test.each([
    "", " ", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.-4", "1.2.3.4 ", "0x1.2.3.4", "1.2.3.", "localhost", ":", ":::", "1::2::3", "::1%eth0", "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::1:2:3:4:5:6:7:8", "12345::", "g::", "::1.2.3", "::1.2.3.4.5", "1.2.3.4::", "1:1.2.3.4::1", "::1.2.3.4:5", "1.2.3.4:5::", "[::1]", "::01.2.3.4",
    "1:2:3:4:5:6:7:1.2.3.4", "1:", ":1", "1:2:3:4:5:6:7:", `${"0".repeat(100)}::`, "١.2.3.4",
  ])("%p is refused", (text) => expect(parseIp(text)).toBeNull());

  test("reads back what it writes, in one form", () => {
    fc.assert(fc.property(anyBytes, (bytes) => {
      const ip = ipFromBytes(bytes);
      expect(parseIp(ip)).toBe(ip);
      expect(ipFromBytes(ipToBytes(ip))).toBe(ip);
    }), { numRuns: 2000 });
  });

  test("agrees with the runtime on which IPv6 literals are valid, and with its URL parser on what they mean", () => {
    const literal = fc.array(fc.constantFrom("0", "1", "ab", "ffff", "::", ":", ":", "1.2.3.4", "00", "12345", "."), { maxLength: 12 }).map((parts) => parts.join(""));
    fc.assert(fc.property(literal, (text) => {
      if (!text.includes(":")) return;
      // isIPv6 says which, as the URL parser takes a colon at the end.
      const theirs = isIPv6(text) ? new URL(`http://[${text}]/`).hostname.slice(1, -1) : null;
      const ours = parseIp(text);
      const mapped = ours !== null && !isIpv6(ours) ? parseIp(theirs ?? "") : theirs;
      expect(ours).toBe(mapped as IpAddress | null);
    }), { numRuns: 5000 });
  });
});

describe("socket addresses", () => {
  test.each(["198.18.0.1:80", "[2001:db8::1]:443", "[::]:0", "0.0.0.0:65535"])("%s", (text) => expect(formatSocketAddress(parseSocketAddress(text)!)).toBe(text));
  test("IPv4-mapped IPv6 in brackets is IPv4", () => expect(parseSocketAddress("[::ffff:198.18.0.1]:80")).toEqual({ ip: "198.18.0.1" as IpAddress, port: 80 }));
  test.each([
    "", ":80", "198.18.0.1", "198.18.0.1:", "198.18.0.1:080", "198.18.0.1:65536", "198.18.0.1:+80", "2001:db8::1:80", "::ffff:198.18.0.1:80", "[198.18.0.1]:80", "[::1]", "[::1]80", "::1]:80",
    "[::1:80", "host:80", "[::1%lo]:80",
  ])("%p is refused", (text) => expect(parseSocketAddress(text)).toBeNull());
});

describe("ports", () => {
  test.each([["0", 0], ["1", 1], ["65535", 65535]] as const)("%s", (text, port) => expect(parsePort(text)).toBe(port));
  test.each(["", "00", "01", "65536", "99999", "100000", "-1", "+1", "1 ", "1e3", "0x10", "80.0", "٨"])("%p is refused", (text) => expect(parsePort(text)).toBeNull());
});

describe("CIDRs", () => {
  test.each([
    ["198.18.1.2/15", "198.18.0.0/15"], ["198.18.0.1", "198.18.0.1/32"], ["0.0.0.0/0", "0.0.0.0/0"], ["2001:db8::1/32", "2001:db8::/32"], ["::/0", "::/0"], ["2001:db8::1", "2001:db8::1/128"],
    ["255.255.255.255/1", "128.0.0.0/1"],
    // A prefix of the mapped range is the IPv4 prefix it means; one that reaches beyond stays IPv6.
    ["::ffff:198.18.0.1/128", "198.18.0.1/32"], ["::ffff:198.18.1.2/111", "198.18.0.0/15"], ["::ffff:0:0/96", "0.0.0.0/0"], ["::ffff:198.18.0.1/24", "::/24"],
  ])("%s is %s", (text, canonical) => expect(formatCidr(parseCidr(text)!)).toBe(canonical));
  test.each(["", "/", "/8", "198.18.0.0/", "198.18.0.0/33", "198.18.0.0/-1", "198.18.0.0/08", "198.18.0.0/8/8", "198.18/16", "::/129", "198.18.0.0/ 8", `${"1".repeat(60)}/8`])(
    "%p is refused", (text) => expect(parseCidr(text)).toBeNull());

  test("contains exactly the addresses that share its leading bits", () => {
    fc.assert(fc.property(anyCidr, anyBytes, fc.boolean(), (cidr, other, near) => {
      const bits = (bytes: Uint8Array): string => [...bytes].map((b) => b.toString(2).padStart(8, "0")).join("");
      const bytes = ipToBytes(ipFromBytes(near && other.length === cidr.bytes.length ? other.map((b, i) => (i < cidr.prefixLength >> 3 ? cidr.bytes[i]! : b)) : other));
      const expected = bytes.length === cidr.bytes.length && bits(bytes).slice(0, cidr.prefixLength) === bits(cidr.bytes).slice(0, cidr.prefixLength);
      expect(cidrContains(cidr, ipFromBytes(bytes))).toBe(expected);
    }), { numRuns: 3000 });
  });
});

describe("CidrMap", () => {
  test("finds, longest prefix first, what comparing with every entry finds", () => {
    fc.assert(fc.property(fc.array(anyCidr, { maxLength: 30 }), fc.array(fc.nat(29), { maxLength: 10 }), anyBytes, fc.nat(29), (cidrs, deleted, random, pick) => {
      const map = new CidrMap<Cidr>();
      const model = new Map<string, Cidr>();
      for (const cidr of cidrs) {
        map.set(cidr, cidr);
        model.set(formatCidr(cidr), cidr);
      }
      for (const at of deleted) {
        const cidr = cidrs[at];
        if (cidr === undefined) continue;
        map.delete(cidr);
        model.delete(formatCidr(cidr));
      }
      const ip = ipFromBytes(cidrs[pick]?.bytes ?? random);
      const seen: string[] = [];
      map.find(ip, (cidr) => void seen.push(formatCidr(cidr)));
      const expected = [...model.values()].filter((cidr) => cidrContains(cidr, ip)).sort((a, b) => b.prefixLength - a.prefixLength).map(formatCidr);
      expect(seen).toEqual(expected);
      expect(map.contains(ip)).toBe(expected.length > 0);
      expect(map.isEmpty).toBe(model.size === 0);
      for (const cidr of cidrs) expect(map.get(cidr)).toBe(model.get(formatCidr(cidr))!);
    }), { numRuns: 1000 });
  });
});

test("loopback is 127.0.0.0/8 and ::1", () => {
  expect(["127.0.0.1", "127.255.255.255", "::1"].every((ip) => isLoopback(ip as IpAddress))).toBe(true);
  expect(["12.7.0.1", "128.0.0.1", "::2", "::"].some((ip) => isLoopback(ip as IpAddress))).toBe(false);
});
