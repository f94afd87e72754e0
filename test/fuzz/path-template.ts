// Path templates against the regular expressions that define them; a template that is refused is one that no expression was meant for.

import { strictEqual as equal } from "node:assert/strict";
import { matchesTemplate, parsePathTemplate } from "../../src/policy/http/path-template.ts";
import { Dice } from "./random-text.ts";

export const name = "path-template";

const PARTS = ["/", "/a", "/b", "/{*}", "/{**}", "/{name}", "/a.b", "/{", "/*", "/{}", "//", "{*}", "a"];
const PATH = ["/", "/a", "/b", "/c", "/a.b", "a", "//", "/{*}", "/axb", "?", "%2F"];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  for (let i = 0; i < iterations; i++) {
    const text = dice.join(PARTS, 5);
    const template = parsePathTemplate(text);
    const where = `seed ${seed}, iteration ${i}: ${JSON.stringify(text)}`;
    const segments = text.split("/");
    const sound = text.startsWith("/") && segments.every((s) => /^[^{}*]*$/.test(s) || /^\{(\*{1,2}|[A-Za-z_]\w*)\}$/.test(s)) && segments.filter((s) => s === "{**}").length < 2;
    equal(template.ok, sound, where);
    if (!template.ok) continue;
    const expression = new RegExp(`^${text.replace(/[.?+^$|()[\]\\]/g, "\\$&").replace(/\{\*\*\}/g, "[^]*").replace(/\{(?:\*|[A-Za-z_]\w*)\}/g, "[^/]+")}$`);
    for (let k = 0; k < 3; k++) {
      const path = dice.join(PATH, 5);
      equal(matchesTemplate(template.value, path), expression.test(path), `${where} on ${JSON.stringify(path)}`);
    }
  }
  return { iterations };
}
