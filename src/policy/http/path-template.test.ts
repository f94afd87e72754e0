import { describe, expect, test } from "bun:test";
import { processorMs } from "../../../test/kit/fair-time.ts";
import { matchesTemplate, parsePathTemplate } from "./path-template.ts";

const matches = (template: string, path: string): boolean => {
  const parsed = parsePathTemplate(template);
  if (!parsed.ok) throw new Error(parsed.error);
  return matchesTemplate(parsed.value, path);
};

describe("path templates", () => {
  test.each([
    ["/foo/{*}", "/foo/bar", true], ["/foo/{*}", "/foo/bar/baz", false], ["/foo/{*}", "/foo/", false], ["/foo/{*}", "/foo", false], ["/foo/{**}/", "/foo/bar/", true], ["/foo/{**}/", "/foo//", true], ["/foo/{**}/", "/foo/bar", false],
    ["/foo/{**}/", "/foo/", false], ["/foo/{**}", "/foo/", true], ["/foo/{**}", "/foo", false], ["/foo/{**}", "/foo/a/b/c", true], ["/foo/{*}/bar/{**}", "/foo/buzz/bar/", true], ["/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true],
    ["/foo/{*}/bar/{**}", "/foo/bar/baz", false], ["/foo/{name}/x", "/foo/1/x", true], ["/{**}/x", "/a/b/x", true], ["/{**}/x", "/x", false], ["/{**}/{*}/x", "/a/b/x", true], ["/foo", "/foo", true], ["/foo", "/Foo", false], ["/{*}", "/a;b=c", true], ["/", "/", true],
  ])("%s and %s", (template, path, expected) => expect(matches(template, path)).toBe(expected));
  test.each(["", "foo", "/{**}/{**}", "/a{*}", "/{*}a", "/{}", "/{a-b}", "/*", "/{*", "/a*", "/{***}"])("%j is refused", (template) => expect(parsePathTemplate(template).ok).toBe(false));
  test("a long path costs its length", () => {
    expect(processorMs(() => {
      for (let i = 0; i < 100; i++) expect(matches("/a/{*}/{**}/{*}/z", `/a${"/b".repeat(20_000)}`)).toBe(false);
    })).toBeLessThan(1000);
  });
});
