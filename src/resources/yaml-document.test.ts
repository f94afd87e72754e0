import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { parseAllDocuments } from "yaml";
import { processorMs } from "../../test/kit/fair-time.ts";
import { DOCUMENT_CHARS_MAX, DOCUMENTS_MAX, NESTING_MAX } from "./limits.ts";
import { parseDocument, splitDocuments } from "./yaml-document.ts";

const codes = (text: string): string[] => parseDocument(text).diagnostics.map((d) => `${d.code} ${d.line}:${d.column} ${d.fieldPath}`.trim());

describe("splitting a file into documents", () => {
  const pieces = fc.array(fc.constantFrom("---\n", "---", "--- \n", "---x\n", "...\n", "a: 1\n", "b: |\n  ---\n", "b: |\n", "---\r\n", "# c\n", " ---\n", "c: '---'\n", "- x\n", "\n", "c: \"\n", "\"\n"), { maxLength: 12 });
  test("finds the documents that the YAML parser finds, in what it takes for good", () => {
    let good = 0;
    fc.assert(fc.property(pieces, (parts) => {
      const text = parts.join("");
      const whole = parseAllDocuments(text, { version: "1.2" });
      if (!Array.isArray(whole) || whole.some((d) => d.errors.length > 0)) return;
      good++;
      const expected = whole.map((d) => d.toJS() as unknown).filter((value) => value !== null && value !== undefined);
      const found = splitDocuments(text)!.map((d) => parseDocument(d.text).value).filter((value) => value !== undefined);
      expect(found).toEqual(expected);
    }), { numRuns: 2000 });
    expect(good).toBeGreaterThan(200);
  });
  test("counts lines over comments, blank documents, CRLF and a byte order mark", () => {
    const split = splitDocuments("\ufeff# one\n---\n---\r\na: 1\r\n---\nb: 2\n...\nc: 3\n")!;
    expect(split.map((d) => [d.line, parseDocument(d.text).value])).toEqual([[3, { a: 1 }], [5, { b: 2 }], [7, { c: 3 }]]);
  });
  test("refuses too many", () => expect(splitDocuments("---\na: 1\n".repeat(DOCUMENTS_MAX + 1))).toBeNull());
});

describe("strictness", () => {
  test("YAML 1.2: yes is text, an octal is a number with its prefix only", () => expect(parseDocument("a: yes\nb: 010\nc: 0o10\nd: ~\n").value).toEqual({ a: "yes", b: 10, c: 8, d: null }));
  const cases: readonly [what: string, text: string, expected: string[]][] = [
    ["a key twice", "a:\n  b: 1\n  c: 2\n  b: 3\n", ["duplicate_key 4:3 a.b"]],
    ["a key twice in JSON", '{"a": 1, "a": 2}', ["duplicate_key 1:10 a"]],
    ["a key that is a list", "? [a]\n: 1\n", ["yaml_syntax 1:3"]],
    ["a key that is nothing", ": 1\n", ["yaml_syntax 1:1"]],
    ["a tag", "a: !!str 1\n", ["yaml_tag 1:10 a"]],
    ["a tag of its own", "a: !secret x\n", ["yaml_tag 1:4", "yaml_tag 1:12 a"]],
    ["an anchor that is not there", "a: *x\n", ["yaml_syntax 1:1"]],
    ["a directive", "%YAML 1.1\n", ["yaml_directive 1:1"]],
    ["a list that is not closed", "a: [1\nb: 2\n", ["yaml_syntax 1:4 a"]],
    ["a map that is not closed, where it opens", "spec:\n  ports:\n  - {name: http, port: 80\n  selector: {app: web}\n", ["yaml_syntax 3:5 spec.ports[0]"]],
    ["a map that is not closed at the end of the text", "a: {b: {c: 1}\n", ["yaml_syntax 1:4 a"]],
    ["the inner one of two of which neither is closed", "a: {b: [1, 2}\nc: 3\n", ["yaml_syntax 1:8 a.b"]],
    ["JSON that is cut off", '{"a": 1,\n "b": {"c": [2, 3', ["yaml_syntax 2:13 b.c"]],
    ["quoted text that does not end, where it begins", "a: 1\nb: \"x\nc: 2\n", ["yaml_syntax 2:4 b"]],
    ["a bracket too many", "a: [1]]\n", ["yaml_syntax 1:7 a"]],
    ["a tab as indentation", "a:\n\tb: 1\n", ["yaml_syntax 2:1"]],
  ];
  for (const [what, text, expected] of cases) test(`refuses ${what}`, () => expect(codes(text).slice(0, expected.length)).toEqual(expected));
  test("what is not closed is said once, and what it is", () => {
    const { diagnostics } = parseDocument("a: {b: [1, 2}\nc: 3\n");
    expect(diagnostics.map(({ message }) => message)).toEqual(["not YAML: found a [ that no ] closes"]);
  });
  test("an alias is allowed", () => expect(parseDocument("a: &x {b: 1}\nc: *x\n").value).toEqual({ a: { b: 1 }, c: { b: 1 } }));
  test("__proto__ is a field like any other, and changes nothing", () => {
    const value = parseDocument("__proto__: {polluted: 1}\nconstructor: 2\n").value as object;
    expect(Object.keys(value)).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });
});

/** What one hostile document may cost, a hundred thousand keys that are well-formed included. */
const PROCESSOR_MS_MAX = 10_000;

describe("bombs are refused in bounded time", () => {
  const nines = (c: string): string => c.repeat(9).split("").join(", ");
  const laughs = ["a: &a [x, x, x, x, x, x, x, x, x]", ..."bcdefgh".split("").map((name, i) => `${name}: &${name} [${nines("*").replaceAll("*", `*${"abcdefg"[i]}`)}]`)].join("\n");
  const cases: readonly [what: string, text: string, code: string | undefined][] = [
    ["a billion laughs", laughs, "too_many_aliases"],
    ["brackets without end", "[".repeat(500_000), "too_deep"],
    ["closed brackets", "[".repeat(NESTING_MAX + 2) + "]".repeat(NESTING_MAX + 2), "too_deep"],
    ["dashes without end", "- ".repeat(50_000), "too_deep"],
    ["question marks without end", "? ".repeat(50_000), "too_deep"],
    ["keys on one line", "a: ".repeat(20_000), "too_deep"],
    ["indentation without end", Array.from({ length: 500 }, (_, i) => `${" ".repeat(i)}a:\n`).join(""), "too_deep"],
    ["anchors without end", "&a ".repeat(20_000), "yaml_syntax"],
    ["100 000 keys", Array.from({ length: 100_000 }, (_, i) => `k${i}: 1\n`).join(""), undefined],
    ["an open quotation", `a: "${"\\n".repeat(100_000)}`, "yaml_syntax"],
    ["too large a document", "a".repeat(DOCUMENT_CHARS_MAX + 1), "document_too_large"],
  ];
  for (const [what, text, code] of cases) {
    test(what, () => expect(processorMs(() => expect(parseDocument(text).diagnostics[0]?.code).toBe(code as never))).toBeLessThan(PROCESSOR_MS_MAX), 200_000);
  }
  test("as deep as is allowed", () => expect(codes(`${"[".repeat(NESTING_MAX - 1)}${"]".repeat(NESTING_MAX - 1)}`)).toEqual([]));
});

describe("locating a field", () => {
  const document = parseDocument("---\nspec:\n  rules:\n  - from:\n    - {a: 1,\n       b: [x, yy]}\n  when: *none\n".replace("*none", "here"));
  test("values and keys", () => {
    expect(document.locate(["spec", "rules", 0, "from", 0, "b", 1])).toEqual({ line: 6, column: 15 });
    expect(document.locate(["spec", "when"], "key")).toEqual({ line: 7, column: 3 });
    expect(document.locate(["spec", "when"])).toEqual({ line: 7, column: 9 });
  });
  test("a field that is not there is where its map is", () => expect(document.locate(["spec", "rules", 0, "to", "x"])).toEqual({ line: 4, column: 5 }));
});
