import { expect, test } from "bun:test";
import { changeQuery, queryValue } from "./query.ts";

test.each([
  ["?a=1&b=2", [["a", "3"]], [], "?b=2&a=3"], ["", [["a", "b c&d=e"]], [], "?a=b%20c%26d%3De"], ["?a=1&a=2&b", [], ["a"], "?b"], ["?a=1", [], ["a"], ""], ["?%61=1&c", [["a", "2"]], ["c"], "?a=2"],
  ["?x", [["\u00e9'(", "\ud800"]], [], "?x&%C3%A9%27%28=%EF%BF%BD"],
] as [string, [string, string][], string[], string][])("%j with %j set and %j taken out is %j", (query, set, remove, expected) => {
  const changed = changeQuery(query, set, remove);
  expect(changed).toBe(expected);
  for (const [name, value] of set) expect(queryValue(changed, name)).toBe(value.toWellFormed());
});
