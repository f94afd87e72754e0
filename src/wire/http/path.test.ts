import { describe, expect, test } from "bun:test";
import { normalisePath, type PathNormalisation } from "./path.ts";

const of = (path: string, how: PathNormalisation = "base"): string => {
  const read = normalisePath(path, how);
  return read.ok ? read.value : `refused: ${read.error}`;
};

describe("path: base, as RFC 3986 and Istio's BASE have it", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["/", "/"],
    ["/a/b", "/a/b"],
    ["/a/../b", "/b"],
    ["/a/./b/", "/a/b/"],
    ["/a/b/..", "/a/"],
    ["/a/b/.", "/a/b/"],
    ["/..", "/"],
    ["/../../etc", "/etc"],
    ["/a//../b", "/a/b"],
    ["//a//b//", "//a//b//"],
    ["/.well-known/x", "/.well-known/x"],
    ["/...", "/..."],
    ["/a/..b", "/a/..b"],
    ["/%61%2D%2e%5f%7E%41", "/a-._~A"],
    ["/%2e%2e/admin", "/admin"],
    ["/a/%2E%2e/b", "/b"],
    ["/a/.%2e/b", "/b"],
    ["/a%2fb%5Cc", "/a%2Fb%5Cc"],
    ["/a\\..\\b", "/b"],
    ["/a%252e", "/a%252e"],
    ["/a%20b%3f%23", "/a%20b%3F%23"],
    ["/a;v=1/b,c=2", "/a;v=1/b,c=2"],
    ["/a/..;/b", "/b"],
    ["/a/..;x=1/b", "/b"],
    ["/a/.;/b", "/a/b"],
    ["/a/b/..;", "/a/"],
    ["/..;/..;x/b", "/b"],
    ["/a/%2e%2e;/b", "/b"],
    ["/a/..%3b/b", "/a/..%3B/b"],
    ["/a/..b;/c", "/a/..b;/c"],
    ["/a/b..;/c", "/a/b..;/c"],
    ["/caf\u00c3\u00a9", "/caf%C3%A9"],
    ["/caf%c3%a9", "/caf%C3%A9"],
    ['/a"<>^`{|}[]', "/a%22%3C%3E%5E%60%7B%7C%7D%5B%5D"],
    ["/A/b", "/A/b"],
  ];
  for (const [input, wanted] of cases) test(`${input} is ${wanted}`, () => expect(of(input)).toBe(wanted));
});

test("path: merged slashes come after dot segments", () => {
  expect(of("/a//b", "mergeSlashes")).toBe("/a/b");
  expect(of("//a///b//", "mergeSlashes")).toBe("/a/b/");
  expect(of("/a//../b", "mergeSlashes")).toBe("/a/b");
  expect(of("/a%2f/b", "mergeSlashes")).toBe("/a%2F/b");
});

test("path: decoded slashes come before everything else", () => {
  expect(of("/a%2fb", "decodeAndMergeSlashes")).toBe("/a/b");
  expect(of("/a%5Cb", "decodeAndMergeSlashes")).toBe("/a/b");
  expect(of("/a%2f..%2Fb", "decodeAndMergeSlashes")).toBe("/b");
  expect(of("/a%2F%2fb", "decodeAndMergeSlashes")).toBe("/a/b");
  expect(of("/a%252fb", "decodeAndMergeSlashes")).toBe("/a%252fb");
});

test("path: none leaves it alone", () => {
  expect(of("/a/../%2e//b", "none")).toBe("/a/../%2e//b");
});

describe("path: no one form, so refused", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["", "slash"], ["a", "slash"], ["\\a", "slash"], ["*", "slash"],
    ["/%00", "%00"], ["/a%", "hex"], ["/a%2", "hex"], ["/%zz", "hex"], ["/%u002f", "hex"], ["/% 1", "hex"],
    ["/a#b", "fragment"], ["/a?b", "no path may have"], ["/a b", "no path may have"], ["/a\u0001", "no path may have"], ["/a\u0100", "no byte"],
    ["/%c0%af", "longer form"], ["/%C0%AE%c0%ae", "longer form"], ["/\u00c0\u00af", "longer form"], ["/%e0%80%af", "longer form"], ["/%F0%80%80%af", "longer form"],
  ];
  for (const [input, reason] of cases) {
    test(JSON.stringify(input), () => {
      expect(of(input)).toContain("refused: ");
      expect(of(input)).toContain(reason);
    });
  }
});
