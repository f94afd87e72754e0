// Headers that an authoriser or a rate limit service wants on a message, done to its fields.

import type { AnswerHeader } from "../../policy/upstream/service-answer.ts";
import type { HttpFields } from "../../wire/http/fields.ts";

export const NO_ANSWER_HEADERS: readonly AnswerHeader[] = Object.freeze([]);

export function applyAnswerHeaders(fields: HttpFields, headers: readonly AnswerHeader[]): void {
  for (const { action, name, value } of headers) {
    switch (action) {
      case "append": fields.append(name, value); break;
      case "set": fields.set(name, value); break;
      case "addIfAbsent": if (!fields.has(name)) fields.append(name, value); break;
      case "setIfPresent": if (fields.has(name)) fields.set(name, value); break;
      default: action satisfies never;
    }
  }
}

/** As pairs for an answer of our own: `set` takes the place of what came before it. */
export function pairsOf(headers: readonly AnswerHeader[]): [string, string][] {
  let pairs: [string, string][] = [];
  for (const { action, name, value } of headers) {
    const isThere = pairs.some(([known]) => known === name);
    if ((action === "addIfAbsent" && isThere) || (action === "setIfPresent" && !isThere)) continue;
    if (action !== "append") pairs = pairs.filter(([known]) => known !== name);
    pairs.push([name, value]);
  }
  return pairs;
}
