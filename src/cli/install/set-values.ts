// `--set NAME=VALUE`: texts as they are, everything else as JSON; of a map also one name in it, which leaves the others. What whoever reads
// the value would refuse is refused here, before anything is applied.

import { err, ok, type Result } from "../../core/result.ts";
import { defaultValues, VALUES, type ValueName, type Values } from "./values.ts";

export function valuesFrom(namespace: string, settings: readonly string[]): Result<Values, string> {
  const values: Record<string, unknown> = { ...defaultValues(namespace) };
  for (const setting of settings) {
    const at = setting.indexOf("=");
    const given = setting.slice(0, Math.max(0, at));
    const name = valueNameOf(given);
    if (name === null) return err(`--set ${setting}: ${JSON.stringify(given)} is no value; there are ${Object.keys(VALUES).join(", ")}`);
    const text = setting.slice(at + 1);
    const parsed = given === name ? parseLike(VALUES[name].fallback, text) : within(name, values[name], given.slice(name.length + 1), text);
    if (!parsed.ok) return err(`--set ${given}: ${parsed.error}`);
    const wanted = VALUES[name].check(parsed.value);
    if (wanted !== null) return err(`--set ${given}: ${JSON.stringify(text)} is not ${wanted}`);
    values[name] = parsed.value;
  }
  return ok(values as Values);
}

const isValueName = (name: string): name is ValueName => Object.hasOwn(VALUES, name);

/** The value that is meant, by its own name or by one in it. */
function valueNameOf(given: string): ValueName | null {
  if (isValueName(given)) return given;
  const name = Object.keys(VALUES).find((each) => given.startsWith(`${each}.`) && given.length > each.length + 1);
  return name !== undefined && isValueName(name) && "sections" in VALUES[name] ? name : null;
}

/** A map with one more name in it. Helm's `\.` for a dot that parts nothing is understood. */
function within(name: ValueName, map: unknown, path: string, text: string): Result<unknown, string> {
  const { sections = 0 } = VALUES[name] as { readonly sections?: number };
  const parts = path.split(/(?<!\\)\./);
  const outer = parts.slice(0, sections);
  const key = parts.slice(sections).join(".").replaceAll("\\.", ".");
  if (key === "") return err(`a name in it is wanted, such as ${name}.limits.memory`);
  return ok(put(map, [...outer, key], text));
}

function put(map: unknown, [head = "", ...rest]: readonly string[], text: string): Record<string, unknown> {
  const fields = typeof map === "object" && map !== null ? (map as Readonly<Record<string, unknown>>) : {};
  return { ...fields, [head]: rest.length === 0 ? text : put(fields[head], rest, text) };
}

function parseLike(fallback: unknown, text: string): Result<unknown, string> {
  if (typeof fallback === "string") return ok(text);
  const wanted = Array.isArray(fallback) ? "a list as JSON, such as []" : typeof fallback === "object" ? 'a map as JSON, such as {"a":"b"}' : `a ${typeof fallback}`;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === typeof fallback && Array.isArray(parsed) === Array.isArray(fallback) && parsed !== null) return ok(parsed);
  } catch {
    // Said below.
  }
  return err(`${JSON.stringify(text)} is not ${wanted}`);
}
