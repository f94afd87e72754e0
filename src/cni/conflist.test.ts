import { describe, expect, test } from "bun:test";
import { listOfOne, oneOfList, PLUGIN_TYPE, type PluginEntry, withoutPlugin, withPlugin } from "./conflist.ts";

const ENTRY: PluginEntry = { type: PLUGIN_TYPE, socket: "/run/weft/cni.sock", excludedNamespaces: ["kube-system"] };
const LIST = { cniVersion: "1.0.0", name: "pods", plugins: [{ type: "bridge", bridge: "cni0" }, { type: "portmap", capabilities: { portMappings: true } }] };
const text = (value: unknown): string => JSON.stringify(value);
const value = (result: ReturnType<typeof withPlugin>): unknown => (result.ok ? (result.value === null ? null : JSON.parse(result.value)) : result.error);

describe("the list of plugins", () => {
  test("ours comes last, the others stay as they are", () => {
    expect(value(withPlugin(text(LIST), ENTRY))).toEqual({ ...LIST, plugins: [...LIST.plugins, ENTRY] });
  });

  test("a second time changes nothing", () => {
    expect(value(withPlugin(text({ ...LIST, plugins: [...LIST.plugins, ENTRY] }), ENTRY))).toBeNull();
  });

  test("another plugin that was put after ours, and an entry of another release, are put right", () => {
    const late = { type: "tuning" };
    expect(value(withPlugin(text({ ...LIST, plugins: [...LIST.plugins, ENTRY, late] }), ENTRY))).toEqual({ ...LIST, plugins: [...LIST.plugins, late, ENTRY] });
    expect(value(withPlugin(text({ ...LIST, plugins: [...LIST.plugins, { ...ENTRY, socket: "/old" }] }), ENTRY))).toEqual({ ...LIST, plugins: [...LIST.plugins, ENTRY] });
  });

  test("away: what is left is what was there", () => {
    const installed = withPlugin(text(LIST), ENTRY);
    expect(value(withoutPlugin(installed.ok ? installed.value! : ""))).toEqual(LIST);
    expect(value(withoutPlugin(text(LIST)))).toBeNull();
  });

  test("what is no list is left alone, with the reason", () => {
    expect(value(withPlugin("{", ENTRY))).toBe("it is no JSON");
    expect(value(withPlugin("[]", ENTRY))).toBe("it is no JSON object");
    expect(value(withPlugin('{"type":"bridge"}', ENTRY))).toBe("it has no list of plugins");
    expect(value(withPlugin('{"plugins":[]}', ENTRY))).toContain("nothing to be chained to");
  });
});

describe("a configuration of one plugin", () => {
  const ONE = { cniVersion: "0.4.0", name: "pods", type: "bridge", bridge: "cni0", ipam: { type: "host-local" } };
  const listOf = (one: unknown): unknown => value(listOfOne(text(one), "10-pods.conf", ENTRY));

  test("becomes a list of it and ours, under its own name and version", () => {
    expect(listOf(ONE)).toEqual({ cniVersion: "0.4.0", name: "pods", plugins: [{ type: "bridge", bridge: "cni0", ipam: { type: "host-local" } }, { ...ENTRY, convertedFrom: "10-pods.conf" }] });
  });

  test.each([[{ type: "bridge" }], [{ type: "bridge", cniVersion: "0.2.0", name: "" }]])("of a version without chains, or without a name: %p", (one) => {
    expect(listOf(one)).toEqual({ cniVersion: "0.3.1", name: "k8s-pod-network", plugins: [{ type: "bridge" }, { ...ENTRY, convertedFrom: "10-pods.conf" }] });
  });

  test("is what it was when ours goes, also after a change of ours", () => {
    const list = listOfOne(text(ONE), "10-pods.conf", ENTRY);
    const again = withPlugin(list.ok ? list.value : "", { ...ENTRY, socket: "/new" });
    const back = oneOfList(again.ok ? again.value! : "");
    expect([back?.file, JSON.parse(back?.text ?? "")]).toEqual(["10-pods.conf", ONE]);
    expect(value(withPlugin(list.ok ? list.value : "", ENTRY))).toBeNull();
  });

  test("is no more where others have joined it, or it was a list from the first", () => {
    const list = { ...LIST, plugins: [{ type: "bridge" }, { ...ENTRY, convertedFrom: "10-pods.conf" }, { type: "tuning" }] };
    expect([oneOfList(text(list)), oneOfList(text({ ...LIST, plugins: [{ type: "bridge" }, ENTRY] })), oneOfList("{")]).toEqual([null, null, null]);
  });

  test("that names no plugin is left alone, with the reason", () => {
    expect(listOf({ name: "pods" })).toBe("it names no plugin (type)");
    expect(listOf([ONE])).toBe("it is no JSON object");
  });
});
