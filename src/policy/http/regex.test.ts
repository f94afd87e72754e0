import { describe, expect, test } from "bun:test";
import { RE2JS } from "re2js";
import { processorMs } from "../../../test/kit/fair-time.ts";
import { compileRegex, compileRewrite, literalPrefix } from "./regex.ts";
import { simpleRegex } from "./simple-regex.ts";

const isSimple = (pattern: string): boolean => simpleRegex(pattern) !== null;

describe("simple patterns", () => {
  const texts = ["", "/", "a", "b", "ab", "abc", "aab", "/api", "/api/", "/api/v1", "/api/v12/users", "/api/v/users", "/api/v1/users/bob", "x.y", "xzy", "a\nb", "\n", "/api/\nv1", "/a-b", "aé", "a\u{1f600}b", "A", "a/b", "GET", "POST", "PUT", "1", "12", "1a", "_"];
  const patterns = [
    "abc", "a\\.b", "x\\.y", "/api/.*", ".*", ".+", ".*users", ".*users.*", "/api/v1|/api/", "(GET|POST)", "(?:GET|POST|)", "/api/v[0-9]+/users", "/api/v\\d+/.*", "/api/v[0-9]*/users(/bob|/al)",
    "[^/]+", "[^a]*b", "a?b?c?", "a+b", "\\w+", "/a-b", "[a-c]+", "[a-]", "[-a]", "a.b", ".", "..?", "^/api$", "^a|b$", "^/api/v[0-9]+", "x[.]y", "[a-z]+/[a-z]+", ".*b", "a.*b.*", "a*", "(a|b)c?", "\\/api\\/.*",
  ];
  test.each(patterns)("%s means what RE2 says", (pattern) => {
    const compiled = compileRegex(pattern);
    if (!compiled.ok) throw new Error(compiled.error);
    const engine = RE2JS.compile(pattern);
    for (const text of texts) expect([text, compiled.value(text)]).toEqual([text, engine.matches(text)]);
  });

  test("the usual ones never meet the general engine", () => {
    const usual = ["abc", "/api/.*", ".*", "(GET|POST)", "/api/v[0-9]+/users", "/api/v\\d+/[^/]+/.*", "^/a/.*$", "[^/]+", "\\w+@example\\.com"];
    expect(usual.filter((pattern) => !isSimple(pattern))).toEqual([]);
  });

  test("where backtracking could grow, or a meaning is in doubt, they do", () => {
    const others = ["(a+)+b", "a*a*a*b", ".*x.*y", "(a|ab)(c|bcd)", "[0-9]+[0-9]+x", "a+?", "(?i)abc", "\\bx", "[[:alpha:]]", "a{2,3}", "\\pL", "é.*x?y", "(a|b)+", "((a))", "\\x41", "\\Qa\\E"];
    expect(others.filter(isSimple)).toEqual([]);
  });

  test("a hostile text costs no more than its length", () => {
    const text = `/${"a/1".repeat(30_000)}`;
    expect(processorMs(() => {
      for (const pattern of ["/[^x]+/[x]", ".*1y", "/api/v[0-9]+/.*z", "[a-z]*/[0-9]*/[a-z]*z"]) {
        const compiled = compileRegex(pattern);
        expect(compiled.ok && compiled.value(text)).toBe(false);
      }
    })).toBeLessThan(1000);
  });
});

describe("rewrites", () => {
  const rewrite = (pattern: string, substitution: string, text: string): string => {
    const compiled = compileRewrite(pattern, substitution);
    return compiled.ok ? compiled.value(text) : compiled.error;
  };
  test.each([
    ["^/service/([^/]+)(/.*)$", "\\2/instance/\\1", "/service/foo/v1/api", "/v1/api/instance/foo"], ["one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"],
    ["^(.*?)one(.*)$", "\\1two\\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"], ["(?i)/aAa/", "/bbb/", "/aaa/x", "/bbb/x"], ["(a)|(b)", "[\\1\\2]", "ab", "[a][b]"], ["x", "\\\\", "axb", "a\\b"], ["z", "y", "abc", "abc"],
  ])("%s to %s", (pattern, substitution, text, expected) => expect(rewrite(pattern, substitution, text)).toBe(expected));
  test.each([["a", "\\1", "names group 1, the pattern has 0"], ["a", "\\x", "backslash"], ["a", "x\\", "backslash"], ["(", "x", "missing"]])("refused: %s to %s", (pattern, substitution, why) =>
    expect(rewrite(pattern, substitution, "a")).toContain(why));
  test("empty matches do not hang", () => expect(rewrite("x*", "-", "abc")).toBe("-a-b-c-"));
});

describe("what every match begins with", () => {
  test.each([
    ["/api/v[0-9]+", "/api/v"], ["^/api/.*", "/api/"], ["/ab?c", "/a"], ["/ab*", "/a"], ["/ab{0}c", "/a"], ["/ab+", "/ab"], ["/a|/b", ""], ["(?i)/a", ""], ["/a\\.b", "/a"], ["", ""], ["?", ""], ["/a(b)?", "/a"], ["[a]", ""], ["/a b", "/a b"], ["/a$", "/a"],
  ])("%s: %j", (pattern, prefix) => expect(literalPrefix(pattern)).toBe(prefix));
});
