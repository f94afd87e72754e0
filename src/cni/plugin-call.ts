// What a container runtime asks of the plugin: variables and a configuration on standard input, by the CNI specification 1.1.
// Strict, pure, and without a library: the process lives for milliseconds, and a schema library takes longer than that to load.

import { isNestedTooDeep } from "../core/json-nesting.ts";
import { ok, type Result } from "../core/result.ts";
import { type PluginError, pluginError } from "./plugin-error.ts";

/** Versions of the specification whose configurations we take; results are passed on as they came, so every one with chaining will do. */
export const VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] as const;
export const VERSION_NEWEST = "1.1.0";

/** Longer than any configuration with its previous result; what is longer is no such thing. */
export const INPUT_BYTES_MAX = 1024 * 1024;
const ADDRESSES_MAX = 32;

export interface PluginConfig {
  readonly cniVersion: string;
  readonly name: string;
  /** Where the agent listens. */
  readonly socket: string;
  /** Pods of these namespaces are never in the mesh: they start without the agent, which may itself depend on them. */
  readonly excludedNamespaces: readonly string[];
}

export interface Sandbox {
  readonly containerId: string;
  readonly interfaceName: string;
  readonly podNamespace: string;
  readonly podName: string;
  /** Empty where the runtime does not say it. */
  readonly podUid: string;
}

export type PluginCall =
  | { readonly command: "VERSION"; readonly config: { readonly cniVersion: string } }
  | { readonly command: "ADD"; readonly config: PluginConfig; readonly sandbox: Sandbox; readonly netns: string; readonly addresses: readonly string[]; readonly previousResult: unknown }
  | { readonly command: "DEL"; readonly config: PluginConfig; readonly sandbox: Sandbox }
  | { readonly command: "CHECK"; readonly config: PluginConfig; readonly sandbox: Sandbox; readonly netns: string; readonly previousResult: unknown }
  | { readonly command: "GC"; readonly config: PluginConfig; readonly validContainerIds: readonly string[] }
  | { readonly command: "STATUS"; readonly config: PluginConfig };

type Environment = Readonly<Record<string, string | undefined>>;
type Fields = Readonly<Record<string, unknown>>;

const COMMANDS = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"] as const;
/** The specification's own forms of the names that runtimes give. */
const CONTAINER_ID = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,252}$/;
const INTERFACE = /^[^\s/:\u0000-\u001f\u007f]{1,15}$/;
const KUBERNETES_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;
const POD_UID = /^[A-Za-z0-9-]{1,64}$/;

export function parseCall(environment: Environment, input: string): Result<PluginCall, PluginError> {
  const command = COMMANDS.find((each) => each === environment["CNI_COMMAND"]);
  if (command === undefined) return refuse("badEnvironment", `CNI_COMMAND is ${show(environment["CNI_COMMAND"])}, wanted one of ${COMMANDS.join(", ")}`);
  const document = parseObject(input);
  if (document === null) return refuse("decoding", "the network configuration on standard input is no JSON object");
  const cniVersion = document["cniVersion"];
  if (command === "VERSION") return ok({ command, config: { cniVersion: typeof cniVersion === "string" ? cniVersion : VERSION_NEWEST } });
  const config = parseConfig(document);
  if (!config.ok) return config;
  if (command === "STATUS") return ok({ command, config: config.value });
  if (command === "GC") {
    const valid = validAttachments(document);
    return valid.ok ? ok({ command, config: config.value, validContainerIds: valid.value }) : valid;
  }
  const sandbox = parseSandbox(environment);
  if (!sandbox.ok) return sandbox;
  if (command === "DEL") return ok({ command, config: config.value, sandbox: sandbox.value });
  const netns = environment["CNI_NETNS"] ?? "";
  if (!netns.startsWith("/")) return refuse("badEnvironment", `CNI_NETNS is ${show(netns)}, wanted the absolute path of a network namespace`);
  const previousResult = document["prevResult"];
  if (!isObject(previousResult)) return refuse("badConfiguration", "there is no prevResult: this plugin makes no interface, it must come after one that does in the list of plugins");
  if (command === "CHECK") return ok({ command, config: config.value, sandbox: sandbox.value, netns, previousResult });
  const addresses = addressesOf(previousResult);
  return addresses.ok ? ok({ command, config: config.value, sandbox: sandbox.value, netns, addresses: addresses.value, previousResult }) : addresses;
}

function parseConfig(document: Fields): Result<PluginConfig, PluginError> {
  const { cniVersion, name, socket, excludedNamespaces } = document;
  if (typeof cniVersion !== "string" || !(VERSIONS as readonly string[]).includes(cniVersion)) {
    return refuse("incompatibleVersion", `cniVersion is ${show(cniVersion)}, this plugin takes ${VERSIONS.join(", ")}`);
  }
  if (typeof name !== "string" || name === "") return refuse("badConfiguration", `name is ${show(name)}, wanted the network's name`);
  if (typeof socket !== "string" || !socket.startsWith("/")) return refuse("badConfiguration", `socket is ${show(socket)}, wanted the absolute path of the agent's socket`);
  if (!isStrings(excludedNamespaces)) return refuse("badConfiguration", `excludedNamespaces is ${show(excludedNamespaces)}, wanted a list of namespaces`);
  return ok({ cniVersion, name, socket, excludedNamespaces });
}

function parseSandbox(environment: Environment): Result<Sandbox, PluginError> {
  const containerId = environment["CNI_CONTAINERID"] ?? "";
  if (!CONTAINER_ID.test(containerId)) return refuse("badEnvironment", `CNI_CONTAINERID is ${show(containerId)}, which is no container's id`);
  const interfaceName = environment["CNI_IFNAME"] ?? "";
  if (!INTERFACE.test(interfaceName) || interfaceName === "." || interfaceName === "..") return refuse("badEnvironment", `CNI_IFNAME is ${show(interfaceName)}, which is no interface's name`);
  const args = new Map((environment["CNI_ARGS"] ?? "").split(";").map((pair) => {
    const at = pair.indexOf("=");
    return at < 0 ? [pair, ""] : [pair.slice(0, at), pair.slice(at + 1)];
  }));
  const [podNamespace = "", podName = "", podUid = ""] = ["K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID"].map((key) => args.get(key));
  if (!KUBERNETES_NAME.test(podNamespace) || !KUBERNETES_NAME.test(podName)) {
    return refuse("badEnvironment", `CNI_ARGS is ${show(environment["CNI_ARGS"])}, wanted K8S_POD_NAMESPACE and K8S_POD_NAME in it: only pods can be in the mesh`);
  }
  if (podUid !== "" && !POD_UID.test(podUid)) return refuse("badEnvironment", `K8S_POD_UID is ${show(podUid)}, which is no pod's UID`);
  return ok({ containerId, interfaceName, podNamespace, podName, podUid });
}

function addressesOf(previousResult: Fields): Result<readonly string[], PluginError> {
  const ips = previousResult["ips"] ?? [];
  if (!Array.isArray(ips) || ips.length > ADDRESSES_MAX) return refuse("badConfiguration", `prevResult.ips is no list of at most ${ADDRESSES_MAX}`);
  const addresses: string[] = [];
  for (const entry of ips) {
    const address: unknown = isObject(entry) ? entry["address"] : undefined;
    const ip = typeof address === "string" ? /^([0-9A-Fa-f:.]{2,45})\/\d{1,3}$/.exec(address)?.[1] : undefined;
    if (ip === undefined) return refuse("badConfiguration", `prevResult.ips has the address ${show(address)}, wanted one such as 198.18.1.7/24`);
    addresses.push(ip);
  }
  return ok(addresses);
}

function validAttachments(document: Fields): Result<readonly string[], PluginError> {
  const attachments = document["cni.dev/valid-attachments"] ?? document["cni.dev/attachments"];
  if (!Array.isArray(attachments)) return refuse("badConfiguration", "cni.dev/valid-attachments is no list");
  const ids: string[] = [];
  for (const entry of attachments) {
    const id: unknown = isObject(entry) ? entry["containerID"] : undefined;
    if (typeof id !== "string" || !CONTAINER_ID.test(id)) return refuse("badConfiguration", `cni.dev/valid-attachments has the containerID ${show(id)}`);
    ids.push(id);
  }
  return ok(ids);
}

function parseObject(input: string): Fields | null {
  if (isNestedTooDeep(input)) return null;
  try {
    const parsed: unknown = JSON.parse(input);
    return isObject(parsed) ? parsed : null;
  } catch {
    return null;
  }
}

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const isStrings = (value: unknown): value is readonly string[] => Array.isArray(value) && value.every((each) => typeof each === "string");

const SHOWN_CHARS = 200;
const show = (value: unknown): string => (value === undefined ? "not set" : (JSON.stringify(value) ?? "unprintable").slice(0, SHOWN_CHARS));

function refuse(kind: Parameters<typeof pluginError>[0], message: string): Result<never, PluginError> {
  return { ok: false, error: pluginError(kind, message) };
}
