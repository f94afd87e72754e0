import { expect, test } from "bun:test";
import { ListFields } from "../../wire/http/fields.ts";
import { applyAnswerHeaders, pairsOf } from "./answer-headers.ts";

const HEADERS = [
  { action: "set", name: "a", value: "1" }, { action: "append", name: "a", value: "2" }, { action: "addIfAbsent", name: "a", value: "3" }, { action: "addIfAbsent", name: "b", value: "4" },
  { action: "setIfPresent", name: "b", value: "5" }, { action: "setIfPresent", name: "c", value: "6" },
] as const;

test("headers that a service wants are set, added, or only where they are or are not", () => {
  const fields = ListFields.of(["a", "0", "z", "9"]);
  applyAnswerHeaders(fields, HEADERS);
  expect(["a", "b", "c", "z"].map((name) => fields.values(name))).toEqual([["1", "2"], ["5"], [], ["9"]]);
});

test("of an answer of our own they are all there is", () => {
  expect(pairsOf(HEADERS)).toEqual([["a", "1"], ["a", "2"], ["b", "5"]]);
});
