// `--set NAME=VALUE`: strings as they are, everything else as JSON.

import { err, ok, type Result } from "../../core/result.ts";
import { defaultValues, VALUES, type ValueName, type Values } from "./values.ts";

export function valuesFrom(namespace: string, settings: readonly string[]): Result<Values, string> {
  const values: Record<string, unknown> = { ...defaultValues(namespace) };
  for (const setting of settings) {
    const at = setting.indexOf("=");
    const name = setting.slice(0, Math.max(0, at));
    if (!isValueName(name)) return err(`--set ${setting}: ${JSON.stringify(name)} is no value; there are ${Object.keys(VALUES).join(", ")}`);
    const text = setting.slice(at + 1);
    const { fallback } = VALUES[name];
    const parsed = typeof fallback === "string" ? ok(text) : parseLike(fallback, text);
    if (!parsed.ok) return err(`--set ${name}: ${parsed.error}`);
    values[name] = parsed.value;
  }
  return ok(values as Values);
}

const isValueName = (name: string): name is ValueName => Object.hasOwn(VALUES, name);

function parseLike(fallback: unknown, text: string): Result<unknown, string> {
  const wanted = Array.isArray(fallback) ? "a list" : `a ${typeof fallback === "object" ? "JSON object" : typeof fallback}`;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === typeof fallback && Array.isArray(parsed) === Array.isArray(fallback) && parsed !== null) return ok(parsed);
  } catch {
    // Said below.
  }
  return err(`${JSON.stringify(text)} is not ${wanted}`);
}
