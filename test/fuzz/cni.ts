// What a container runtime gives the CNI plugin (variables, configuration), what plugin and agent say to each other, and the node's list of
// plugins, with any text in any place. Nothing throws; what is taken has the forms that paths, packets and log lines rely on; what was
// encoded is read back; the list keeps everything that is not ours.

import { deepStrictEqual as same, ok as holds } from "node:assert/strict";
import { decodeAnswer, decodeRequest, encodeRequest } from "../../src/cni/agent-protocol.ts";
import { PLUGIN_TYPE, type PluginEntry, withoutPlugin, withPlugin } from "../../src/cni/conflist.ts";
import { parseNamespace, parsePod } from "../../src/cni/pod.ts";
import { parseCall } from "../../src/cni/plugin-call.ts";
import { Dice } from "./random-text.ts";

export const name = "cni";

const TEXT = ["\u0000", "\n", "\"", "\\", "/", "..", ";", "=", "{", "}", "[", "]", ",", ":", "a", "A", "0", "-", ".", "ä", "\ud800", " ", "null", "1e999", "__proto__"];
const VALUES: readonly unknown[] = [null, "", "x", 0, -1, 1e308, true, [], {}, [[]], [null], ["a", 1], { a: 1 }, "constructor", "__proto__", "a/b", "..", "\u0000", "a".repeat(5_000), "198.18.1.1/24", "2001:db8::1/64", "198.18.1.1"];
const ENTRY: PluginEntry = { type: PLUGIN_TYPE, socket: "/run/weft/cni.sock", excludedNamespaces: ["kube-system"] };
const KUBERNETES_NAME = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;
/** Deeper than a stack; within what a runtime may send. */
const DEEP = [`${"[".repeat(60_000)}${"]".repeat(60_000)}`, `${"{\"a\":".repeat(60_000)}1${"}".repeat(60_000)}`];

export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const dice = new Dice(seed);
  for (const deep of DEEP) {
    const text = `{"cniVersion":"1.1.0","plugins":[{"type":"a","b":${deep}}],"prevResult":${deep}}`;
    holds(!parseCall({ CNI_COMMAND: "ADD" }, text).ok && !withPlugin(text, ENTRY).ok, "a text nested deeper than a stack was taken");
  }
  for (let i = 0; i < iterations; i++) {
    const environment = { CNI_COMMAND: dice.of(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION", "add", ""]), CNI_CONTAINERID: word(dice, "c0ffee"), CNI_IFNAME: word(dice, "eth0"), CNI_NETNS: word(dice, "/run/netns/a"), CNI_ARGS: word(dice, "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=a-1") };
    const document: Record<string, unknown> = {
      cniVersion: "1.1.0", name: "pods", socket: "/run/weft/cni.sock", excludedNamespaces: ["kube-system"], plugins: [{ type: "bridge", a: dice.of(VALUES) }, ...dice.some(2, () => ({ type: dice.of([PLUGIN_TYPE, "portmap", "constructor"]), x: dice.of(VALUES) }))],
      prevResult: { ips: [{ address: "198.18.1.1/24" }] }, "cni.dev/valid-attachments": [{ containerID: "c0ffee", ifname: "eth0" }],
    };
    for (let left = dice.below(3); left > 0; left--) Object.defineProperty(document, dice.of(Object.keys(document)), { value: dice.of(VALUES), enumerable: true, configurable: true, writable: true });
    const text = JSON.stringify(document);
    try {
      tryAll(environment, dice.chance(0.5) ? text : dice.mutate(text, TEXT));
    } catch (cause) {
      throw new Error(`seed ${seed}, iteration ${i}: ${cause instanceof Error ? cause.message : String(cause)}; ${JSON.stringify(environment)} ${text.slice(0, 2_000)}`, { cause });
    }
  }
  return { iterations };
}

const word = (dice: Dice, good: string): string => (dice.chance(0.7) ? good : dice.chance(0.8) ? dice.mutate(good, TEXT) : String(dice.of(VALUES)));

function tryAll(environment: Readonly<Record<string, string>>, text: string): void {
  const call = parseCall(environment, text);
  if (call.ok && "sandbox" in call.value) {
    const { sandbox: { containerId, interfaceName, podNamespace, podName, podUid }, config } = call.value;
    holds(KUBERNETES_NAME.test(podNamespace) && KUBERNETES_NAME.test(podName), "a pod's name that is none");
    holds(!/[/\s\u0000]/.test(containerId + interfaceName + podUid) && ![containerId, interfaceName].includes(".."), "a name that is a path");
    holds(config.socket.startsWith("/"), "a socket that is no path");
    const pod = { containerId, namespace: podNamespace, name: podName, uid: podUid };
    const request = call.value.command === "ADD" ? { kind: "add" as const, pod, addresses: call.value.addresses } : { kind: "del" as const, pod };
    const read = decodeRequest(encodeRequest(request));
    holds(read.ok, "an encoded request that cannot be read");
    same(read.value, request);
  }
  const bytes = new TextEncoder().encode(text);
  decodeRequest(bytes);
  decodeAnswer(bytes);
  tryList(text);
  let parsed: unknown = null;
  try {
    parsed = JSON.parse(text);
  } catch {
    return;
  }
  parsePod(parsed);
  parseNamespace(parsed);
}

function tryList(text: string): void {
  const added = withPlugin(text, ENTRY);
  if (!added.ok) return;
  const list = added.value ?? text;
  const again = withPlugin(list, ENTRY);
  holds(again.ok && again.value === null, "our entry is added twice");
  const removed = withoutPlugin(list);
  holds(removed.ok && removed.value !== null, "our entry cannot be taken away");
  // As text: a number beyond all doubles has no other form that is the same before and after.
  const others = (of: string): string => JSON.stringify((JSON.parse(of) as { plugins: { type?: unknown }[] }).plugins.filter(({ type }) => type !== PLUGIN_TYPE));
  same(others(removed.value), others(text));
  const { plugins: _, ...before } = JSON.parse(text) as Record<string, unknown>;
  const { plugins: __, ...after } = JSON.parse(removed.value) as Record<string, unknown>;
  same(JSON.stringify(after), JSON.stringify(before));
}
