import { describe, expect, test } from "bun:test";
import { parseHost } from "./host.ts";

const of = (text: string): string => {
  const read = parseHost(text);
  return read.ok ? `${read.value.name} ${read.value.isIp ? "ip" : "name"} ${read.value.port} ${read.value.text}` : `refused: ${read.error}`;
};

describe("host: one form", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["web", "web name null web"],
    ["Web.Shop.SVC:8080", "web.shop.svc name 8080 web.shop.svc:8080"],
    ["web.shop.", "web.shop name null web.shop"],
    ["web.shop.:80", "web.shop name 80 web.shop:80"],
    ["my_service", "my_service name null my_service"],
    ["xn--bcher-kva.example", "xn--bcher-kva.example name null xn--bcher-kva.example"],
    ["198.18.0.1", "198.18.0.1 ip null 198.18.0.1"],
    ["198.18.0.1:65535", "198.18.0.1 ip 65535 198.18.0.1:65535"],
    ["[2001:DB8:0::1]:80", "2001:db8::1 ip 80 [2001:db8::1]:80"],
    ["[::1]", "::1 ip null [::1]"],
    ["[::ffff:198.18.0.1]", "198.18.0.1 ip null 198.18.0.1"],
    ["1a", "1a name null 1a"],
    ["0xa.b", "0xa.b name null 0xa.b"],
  ];
  for (const [input, wanted] of cases) test(`${input} is ${wanted}`, () => expect(of(input)).toBe(wanted));
});

describe("host: refused", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", "empty"], ["a@b", "user information"], ["user:pw@web:80", "user information"],
    ["web:", "port"], ["web:0", "port"], ["web:65536", "port"], ["web:+80", "port"], ["web:080", "port"], ["web:80:80", "port"], ["web:80 ", "port"], [":80", "no name"],
    ["[fe80::1%eth0]", "zones"], ["[fe80::1%25eth0]:80", "zones"], ["[::1", "unclosed"], ["[1.2.3.4]", "IPv6"], ["[v1.a]", "IPv6"], ["[::1]80", "port"], ["::1", "no name"],
    ["2001:db8::1", "port"], ["10.0.0.256", "neither"], ["010.0.0.1", "neither"], ["1.2.3", "neither"], ["12345", "neither"], ["0x7f000001", "neither"], ["127.0x0", "neither"],
    [".", "neither"], ["..", "neither"], ["a..b", "neither"], [".a", "neither"], ["a..", "neither"], ["-a", "neither"], ["a-", "neither"],
    ["a b", "neither"], ["a,b", "neither"], ["a/b", "neither"], ["a%2eb", "neither"], ["b\u00fccher", "neither"], ["a\u0000", "neither"], ["*", "neither"],
    [`${"a".repeat(64)}.b`, "neither"], [`${"a.".repeat(127)}b`, "neither"], ["a".repeat(300), "at most"],
  ];
  for (const [input, reason] of cases) {
    test(JSON.stringify(input.slice(0, 40)), () => {
      expect(of(input)).toContain("refused: ");
      expect(of(input)).toContain(reason);
    });
  }
});
