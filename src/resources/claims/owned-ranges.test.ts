import { describe, expect, test } from "bun:test";
import { seededRandom } from "../../core/ports.ts";
import { cidrContains, ipFromBytes, parseCidr, parseIp } from "../../core/ip.ts";
import { atOnce } from "../../core/steps.ts";
import { type OwnedAddresses, ownedAddresses } from "./owned-ranges.ts";

const owned = (...pairs: readonly string[]): OwnedAddresses => atOnce(ownedAddresses(pairs.map((pair) => pair.split("=")).map(([ip, namespace]) => [parseIp(ip!)!, namespace!] as const)));

describe("addresses in a range", () => {
  test.each([
    ["198.18.0.0/15", true], ["198.18.1.1/32", true], ["198.18.1.0/32", false], ["198.18.1.2/31", false], ["198.18.1.0/31", true], ["0.0.0.0/0", true], ["198.19.0.0/16", false], ["2001:db8::/32", true], ["2001:db8::1/128", false], ["2001:db8::2/127", true], ["::/0", true], ["2001:db9::/32", false],
  ])("%s holds one of another namespace: %p", (range, wanted) => expect(owned("198.18.1.1=bank", "198.18.1.2=aaa", "2001:db8::1=aaa", "2001:db8::2=bank").holdsForeign(parseCidr(range)!, "aaa")).toBe(wanted));

  // More than are sorted at once, too.
  test.each([300, 12_345])("as looking at every one of %p would find", (count) => {
    const random = seededRandom(7);
    const byte = (): number => Math.floor(random.next() * 256);
    const all = Array.from({ length: count }, (_, i) => [ipFromBytes(Uint8Array.of(198, 18 + (byte() & 1), byte() & 3, byte())), i % 5 === 0 ? "bank" : "aaa"] as const);
    const index = atOnce(ownedAddresses(all));
    for (let i = 0; i < 600_000 / count; i++) {
      const cidr = parseCidr(`198.${18 + (byte() & 1)}.${byte() & 3}.${byte()}/${8 + Math.floor(random.next() * 25)}`)!;
      expect(index.holdsForeign(cidr, "aaa")).toBe(all.some(([ip, namespace]) => namespace !== "aaa" && cidrContains(cidr, ip)));
    }
  });
});
