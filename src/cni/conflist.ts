// The list of CNI plugins of a node, with our plugin at its end or without it. Pure: the rest of the list is left as it was written.
// A configuration of one plugin, which can have none beside it, becomes a list, and that plugin's own again when ours goes.

import { isNestedTooDeep, JSON_NESTING_MAX } from "../core/json-nesting.ts";
import { err, ok, type Result } from "../core/result.ts";

/** `type` in the list, and the file name of the plugin. */
export const PLUGIN_TYPE = "weft-cni";

export interface PluginEntry {
  readonly type: typeof PLUGIN_TYPE;
  readonly socket: string;
  readonly excludedNamespaces: readonly string[];
  /** Name of the file with the configuration of one plugin that this list was made of. */
  readonly convertedFrom?: string;
}

/** Plugins are chained, each told what the one before has done, from this version on: older ones are taken for it. */
const CHAINED_VERSION = "0.3.1";
const UNCHAINED_VERSIONS: readonly unknown[] = [undefined, "", "0.1.0", "0.2.0"];
/** Where the file names none. Addresses are kept by the network's name: one that is there stays. */
const NETWORK_NAME = "k8s-pod-network";

type Fields = Readonly<Record<string, unknown>>;

/** @returns the list with our entry last, or null when it is so already. */
export function withPlugin(text: string, entry: PluginEntry): Result<string | null, string> {
  const list = parseList(text);
  if (!list.ok) return list;
  const { document, plugins } = list.value;
  if (plugins.length === 0) return err("its list of plugins is empty: there is nothing to be chained to");
  const at = plugins.findIndex(isOurs);
  const convertedFrom = plugins[at]?.["convertedFrom"];
  const wanted = typeof convertedFrom === "string" ? { ...entry, convertedFrom } : entry;
  if (at === plugins.length - 1 && JSON.stringify(plugins[at]) === JSON.stringify(wanted)) return ok(null);
  return ok(format({ ...document, plugins: [...plugins.filter((plugin) => !isOurs(plugin)), wanted] }));
}

/** A list of the plugin that `text` configures, and ours. @param file name of the file that it is in. */
export function listOfOne(text: string, file: string, entry: PluginEntry): Result<string, string> {
  const parsed = parseObject(text);
  if (!parsed.ok) return parsed;
  const { cniVersion, name, ...plugin } = parsed.value;
  if (typeof plugin["type"] !== "string" || plugin["type"] === "") return err("it names no plugin (type)");
  return ok(format({
    cniVersion: UNCHAINED_VERSIONS.includes(cniVersion) ? CHAINED_VERSION : cniVersion, name: typeof name === "string" && name !== "" ? name : NETWORK_NAME, plugins: [plugin, { ...entry, convertedFrom: file }],
  }));
}

/** The other way: the file that a list with our entry was made of. Null for a list that was none, or has become one since. */
export function oneOfList(text: string): { readonly file: string; readonly text: string } | null {
  const list = parseList(text);
  if (!list.ok) return null;
  const { document: { plugins: _, ...network }, plugins } = list.value;
  const file = plugins.find(isOurs)?.["convertedFrom"];
  const [plugin, ...others] = plugins.filter((one) => !isOurs(one));
  return typeof file !== "string" || plugin === undefined || others.length > 0 ? null : { file, text: format({ ...network, ...plugin }) };
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
  const parsed = parseObject(text);
  if (!parsed.ok) return parsed;
  const { plugins } = parsed.value;
  if (!Array.isArray(plugins) || !plugins.every(isObject)) return err("it has no list of plugins");
  return ok({ document: parsed.value, plugins });
}

function parseObject(text: string): Result<Fields, string> {
  if (isNestedTooDeep(text)) return err(`it is nested more than ${JSON_NESTING_MAX} levels deep`);
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch {
    return err("it is no JSON");
  }
  return isObject(document) ? ok(document) : err("it is no JSON object");
}

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isOurs = (plugin: Fields): boolean => plugin["type"] === PLUGIN_TYPE;
const format = (document: Fields): string => `${JSON.stringify(document, null, 2)}\n`;
