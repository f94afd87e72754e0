// The list of CNI plugins of a node, with our plugin at its end or without it. Pure: the rest of the list is left as it was written.

import { isNestedTooDeep, JSON_NESTING_MAX } from "../core/json-nesting.ts";
import { err, ok, type Result } from "../core/result.ts";

/** `type` in the list, and the file name of the plugin. */
export const PLUGIN_TYPE = "weft-cni";

export interface PluginEntry {
  readonly type: typeof PLUGIN_TYPE;
  readonly socket: string;
  readonly excludedNamespaces: readonly string[];
}

type Fields = Readonly<Record<string, unknown>>;

/** @returns the list with our entry last, or null when it is so already. */
export function withPlugin(text: string, entry: PluginEntry): Result<string | null, string> {
  const list = parseList(text);
  if (!list.ok) return list;
  const { document, plugins } = list.value;
  if (plugins.length === 0) return err("its list of plugins is empty: there is nothing to be chained to");
  const at = plugins.findIndex(isOurs);
  if (at === plugins.length - 1 && JSON.stringify(plugins[at]) === JSON.stringify(entry)) return ok(null);
  return ok(format({ ...document, plugins: [...plugins.filter((plugin) => !isOurs(plugin)), entry] }));
}

/** @returns the list without our entry, or null when there is none. */
export function withoutPlugin(text: string): Result<string | null, string> {
  const list = parseList(text);
  if (!list.ok) return list;
  const { document, plugins } = list.value;
  if (!plugins.some(isOurs)) return ok(null);
  return ok(format({ ...document, plugins: plugins.filter((plugin) => !isOurs(plugin)) }));
}

function parseList(text: string): Result<{ readonly document: Fields; readonly plugins: readonly Fields[] }, string> {
  if (isNestedTooDeep(text)) return err(`it is nested more than ${JSON_NESTING_MAX} levels deep`);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return err("it is no JSON");
  }
  if (!isObject(document)) return err("it is no JSON object");
  const { plugins } = document;
  if (!Array.isArray(plugins) || !plugins.every(isObject)) return err("it has no list of plugins");
  return ok({ document, plugins });
}

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isOurs = (plugin: Fields): boolean => plugin["type"] === PLUGIN_TYPE;
const format = (document: Fields): string => `${JSON.stringify(document, null, 2)}\n`;
