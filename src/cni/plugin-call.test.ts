import { describe, expect, test } from "bun:test";
import { ERROR_CODES, formatPluginError } from "./plugin-error.ts";
import { parseCall, VERSIONS } from "./plugin-call.ts";

const ENVIRONMENT = {
  CNI_COMMAND: "ADD", CNI_CONTAINERID: "c0ffee", CNI_IFNAME: "eth0", CNI_NETNS: "/run/netns/cni-1",
  CNI_ARGS: "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_UID=6a0b3d8e-6d1f-4f0a-8f8e-0d6f6d1c2b3a;K8S_POD_INFRA_CONTAINER_ID=c0ffee",
};
const PREVIOUS = { cniVersion: "1.0.0", interfaces: [{ name: "eth0" }], ips: [{ address: "198.18.1.7/24" }, { address: "2001:db8::7/64" }], dns: {} };
const CONFIG = { cniVersion: "1.0.0", name: "pods", type: "weft-cni", socket: "/run/weft/cni.sock", excludedNamespaces: ["kube-system"], prevResult: PREVIOUS };

const call = (environment: Record<string, string | undefined>, config: object | string) => parseCall({ ...ENVIRONMENT, ...environment }, typeof config === "string" ? config : JSON.stringify(config));

describe("a call of the plugin", () => {
  test("ADD: pod, namespace, addresses, and the result to pass on untouched", () => {
    expect(call({}, CONFIG)).toEqual({
      ok: true,
      value: {
        command: "ADD",
        config: { cniVersion: "1.0.0", name: "pods", socket: "/run/weft/cni.sock", excludedNamespaces: ["kube-system"] },
        sandbox: { containerId: "c0ffee", interfaceName: "eth0", podNamespace: "shop", podName: "web-1", podUid: "6a0b3d8e-6d1f-4f0a-8f8e-0d6f6d1c2b3a" },
        netns: "/run/netns/cni-1", addresses: ["198.18.1.7", "2001:db8::7"], previousResult: PREVIOUS,
      },
    });
  });

  test("DEL needs neither namespace nor result: both may be gone", () => {
    const { prevResult: _, ...config } = CONFIG;
    expect(call({ CNI_COMMAND: "DEL", CNI_NETNS: undefined }, config).ok).toBeTrue();
  });

  test("VERSION and STATUS need no pod; GC has the containers that are valid", () => {
    expect(parseCall({ CNI_COMMAND: "VERSION" }, '{"cniVersion":"1.1.0"}')).toMatchObject({ ok: true, value: { config: { cniVersion: "1.1.0" } } });
    expect(parseCall({ CNI_COMMAND: "STATUS" }, JSON.stringify(CONFIG)).ok).toBeTrue();
    const collected = parseCall({ CNI_COMMAND: "GC" }, JSON.stringify({ ...CONFIG, cniVersion: "1.1.0", "cni.dev/valid-attachments": [{ containerID: "a", ifname: "eth0" }, { containerID: "b", ifname: "eth0" }] }));
    expect(collected).toMatchObject({ ok: true, value: { command: "GC", validContainerIds: ["a", "b"] } });
  });

  test("every version that is announced is taken", () => {
    for (const cniVersion of VERSIONS) expect(call({}, { ...CONFIG, cniVersion }).ok).toBeTrue();
  });

  const REFUSED: readonly [string, Record<string, string | undefined>, object | string, keyof typeof ERROR_CODES, string][] = [
    ["a command that is none", { CNI_COMMAND: "RUN" }, CONFIG, "badEnvironment", 'CNI_COMMAND is "RUN"'],
    ["input that is no JSON", {}, "{", "decoding", "no JSON object"],
    ["a list as input", {}, "[]", "decoding", "no JSON object"],
    ["a version of the future", {}, { ...CONFIG, cniVersion: "2.0.0" }, "incompatibleVersion", '"2.0.0", this plugin takes 0.3.0'],
    ["no socket", {}, { ...CONFIG, socket: undefined }, "badConfiguration", "socket is not set"],
    ["a relative socket", {}, { ...CONFIG, socket: "run/x" }, "badConfiguration", "absolute path"],
    ["no excluded namespaces", {}, { ...CONFIG, excludedNamespaces: "kube-system" }, "badConfiguration", "excludedNamespaces"],
    ["no plugin before this one", {}, { ...CONFIG, prevResult: undefined }, "badConfiguration", "it must come after one that does"],
    ["an address without its length", {}, { ...CONFIG, prevResult: { ips: [{ address: "198.18.1.7" }] } }, "badConfiguration", 'the address "198.18.1.7"'],
    ["no namespace", { CNI_NETNS: "" }, CONFIG, "badEnvironment", "CNI_NETNS"],
    ["a container id with a path in it", { CNI_CONTAINERID: "../x" }, CONFIG, "badEnvironment", "CNI_CONTAINERID"],
    ["an interface's name that is too long", { CNI_IFNAME: "interface-number1" }, CONFIG, "badEnvironment", "CNI_IFNAME"],
    ["no pod", { CNI_ARGS: "IgnoreUnknown=1" }, CONFIG, "badEnvironment", "K8S_POD_NAMESPACE"],
    ["a pod's name with a path in it", { CNI_ARGS: "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=../../secrets/x" }, CONFIG, "badEnvironment", "K8S_POD_NAME"],
  ];
  for (const [what, environment, config, code, words] of REFUSED) {
    test(`refused, with a code of the specification: ${what}`, () => {
      const refused = call(environment, config);
      expect(refused.ok ? null : refused.error.code).toBe(ERROR_CODES[code]);
      expect(refused.ok ? "" : refused.error.message).toContain(words);
    });
  }

  test("an error is the JSON that runtimes read", () => {
    expect(JSON.parse(formatPluginError({ code: 11, message: "later", details: "" }, "1.0.0"))).toEqual({ cniVersion: "1.0.0", code: 11, msg: "later" });
  });
});
