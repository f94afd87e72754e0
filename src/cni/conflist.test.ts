import { describe, expect, test } from "bun:test";
import { PLUGIN_TYPE, type PluginEntry, withoutPlugin, withPlugin } from "./conflist.ts";

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
