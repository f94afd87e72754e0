// The chart and `weft install` are one: the committed files are what the objects say, every value has its place, and helm, where there is
// one, renders what `weft install` would apply.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { chartFiles } from "../src/cli/install/chart.ts";
import { ownDefinitions } from "../src/cli/install/definitions.ts";
import { installObjects, type KubernetesObject } from "../src/cli/install/objects.ts";
import { valuesFrom } from "../src/cli/install/set-values.ts";
import { defaultValues, VALUES } from "../src/cli/install/values.ts";
import { WATCHED_RESOURCES } from "../src/control/source/watched-kinds.ts";
import { VERSION } from "../src/runtime/version.ts";
import { needsProgram, testUnless } from "../test/kit/skip.ts";

const CHART = join(import.meta.dir, "chart");
const objects = installObjects(defaultValues("mesh"));
const find = (kind: string, name: string): KubernetesObject => {
  const found = objects.find((object) => object.kind === kind && object.metadata.name === name);
  if (found === undefined) throw new Error(`no ${kind} ${name}`);
  return found;
};

describe("the chart", () => {
  test("is what the objects say: after a change, npm run chart", () => {
    const files = chartFiles(VERSION);
    for (const [path, text] of files) expect(existsSync(join(CHART, path)) ? readFileSync(join(CHART, path), "utf8") : "", path).toBe(text);
    expect(readdirSync(CHART, { recursive: true, encoding: "utf8" }).filter((path) => files.has(path)).sort()).toEqual([...files.keys()].sort());
  });

  test("every value is used in a template", () => {
    const text = [...chartFiles(VERSION)].filter(([path]) => path.startsWith("templates/")).map(([, template]) => template).join("\n");
    expect(Object.keys(VALUES).filter((name) => !text.includes(`.Values.${name}`))).toEqual([]);
  });

  const helm = needsProgram("helm");
  testUnless(helm)("helm finds nothing to complain of", () => {
    const lint = Bun.spawnSync(["helm", "lint", "--strict", CHART]);
    expect(lint.stdout.toString()).toContain("0 chart(s) failed");
  });

  for (const set of [[], ["ztunnel.drainSeconds=1200000", "cni.dnsCapture=false", 'control.tolerations=[{"operator":"Exists"}]', "image=example.test/weft:1", 'imagePullSecrets=[{"name":"registry"}]']]) {
    testUnless(helm)(`helm renders what weft install applies${set.length === 0 ? "" : ", with values set"}`, () => {
      const values = valuesFrom("mesh", set);
      if (!values.ok) throw new Error(values.error);
      const given = set.flatMap((each) => [each.startsWith("image=") ? "--set-string" : "--set-json", each]);
      const rendered = Bun.spawnSync(["helm", "template", "weft", CHART, "--namespace", "mesh", ...given]);
      expect(rendered.stderr.toString()).toBe("");
      const byName = (list: readonly KubernetesObject[]) => new Map(list.map((object) => [`${object.kind} ${object.metadata.name}`, object]));
      const found = parseAllDocuments(rendered.stdout.toString()).map((document) => document.toJS() as KubernetesObject).filter((object) => object !== null);
      expect(byName(found)).toEqual(byName(JSON.parse(JSON.stringify([...ownDefinitions(), ...installObjects(values.value)])) as KubernetesObject[]));
    });
  }
});

describe("the objects", () => {
  test("the control plane may read whatever it watches", () => {
    const { rules } = find("ClusterRole", "weft-control") as unknown as { rules: { apiGroups: string[]; resources: string[]; verbs: string[] }[] };
    const may = (group: string, resource: string, verb: string): boolean => rules.some((rule) => rule.apiGroups.includes(group) && rule.resources.includes(resource) && rule.verbs.includes(verb));
    const lacking = WATCHED_RESOURCES.flatMap(({ types }) => types).filter(({ group, plural }) => !["get", "list", "watch"].every((verb) => may(group, plural, verb)));
    expect(lacking.map(({ group, plural }) => `${group}/${plural}`)).toEqual([]);
  });

  test("nobody may read secrets of other namespaces, or change a pod", () => {
    const cluster = objects.filter(({ kind }) => kind === "ClusterRole") as unknown as { metadata: { name: string }; rules: { resources: string[]; verbs: string[] }[] }[];
    const rights = cluster.flatMap(({ metadata, rules }) => rules.flatMap(({ resources, verbs }) => resources.flatMap((resource) => verbs.map((verb) => `${metadata.name} ${verb} ${resource}`))));
    expect(rights.filter((right) => / (secrets|\*)$/.test(right) || / (create|update|patch|delete) pods$/.test(right))).toEqual([]);
  });

  test("least privilege: read-only roots, nothing escalates, capabilities by name", () => {
    for (const object of objects.filter(({ kind }) => kind === "DaemonSet" || kind === "Deployment")) {
      const { spec } = object as unknown as { spec: { template: { spec: { containers: { securityContext: { readOnlyRootFilesystem: boolean; allowPrivilegeEscalation: boolean; privileged: boolean; capabilities: { drop: string[]; add?: string[] } } }[] } } } };
      for (const { securityContext } of spec.template.spec.containers) {
        expect(securityContext).toMatchObject({ readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, privileged: false });
        expect(securityContext.capabilities.drop).toEqual(["ALL"]);
      }
    }
  });

  test("the agents' own namespace is never captured, nor does it wait for them", () => {
    expect(JSON.stringify(find("DaemonSet", "weft-cni"))).toContain('{"name":"EXCLUDE_NAMESPACES","value":"kube-system,mesh"}');
  });
});

describe("--set", () => {
  test("texts as they are, the rest as JSON, and words for what is wrong", () => {
    const values = valuesFrom("mesh", ["logLevel=info,access=off", "control.replicas=3", 'cni.nodeSelector={"a":"b"}']);
    expect(values.ok ? [values.value.logLevel, values.value["control.replicas"], values.value["cni.nodeSelector"]] : values.error).toEqual(["info,access=off", 3, { a: "b" }]);
    const wrong = (setting: string): string => {
      const refused = valuesFrom("mesh", [setting]);
      return refused.ok ? "" : refused.error;
    };
    expect(wrong("imgae=x")).toContain('"imgae" is no value; there are image');
    expect(wrong("control.replicas=two")).toBe('--set control.replicas: "two" is not a number');
    expect(wrong("control.tolerations={}")).toContain("is not a list as JSON");
    expect(wrong("control.nodeSelector=disk")).toBe('--set control.nodeSelector: "disk" is not a map as JSON, such as {"a":"b"}');
  });

  test("of a map one name, which leaves the others; dots of a label's key part nothing", () => {
    const values = valuesFrom("mesh", ["ztunnel.nodeSelector.disk=ssd", "cni.nodeSelector.example.test/pool=a", String.raw`control.nodeSelector.example\.test/pool=b`, "ztunnel.resources.limits.memory=1Gi"]);
    if (!values.ok) throw new Error(values.error);
    expect(values.value["ztunnel.nodeSelector"]).toEqual({ "kubernetes.io/os": "linux", disk: "ssd" });
    expect(values.value["cni.nodeSelector"]).toEqual({ "kubernetes.io/os": "linux", "example.test/pool": "a" });
    expect(values.value["control.nodeSelector"]).toEqual({ "kubernetes.io/os": "linux", "example.test/pool": "b" });
    expect(values.value["ztunnel.resources"]).toEqual({ requests: { cpu: "200m", memory: "128Mi" }, limits: { memory: "1Gi" } });
  });

  test("every default passes its own check", () => {
    expect(Object.entries(VALUES).filter(([, { fallback, check }]) => check(fallback) !== null).map(([name]) => name)).toEqual([]);
  });

  const refused = [
    ["cni.probes=foo", "one of source, exempt, off"], ["logFormat=xml", "one of text, json"], ["logLevel=access=loud", "levels and scopes"], ["ztunnel.workers=lots", "a number of threads"],
    ["ztunnel.drainSeconds=-5", "a whole number from 0 to 2147483"], ["ztunnel.drainSeconds=1.5", "a whole number"], ["ztunnel.drainSeconds=2147484", "a whole number"],
    ["control.replicas=0", "a whole number from 1"], ["imagePullPolicy=never", "one of IfNotPresent, Always, Never"], ["image=", "the name of an image"], ["image=a b", "the name of an image"],
    ["trustDomain=Cluster", "a trust domain"], ["clusterId=", "a name of letters"], ["cni.binDir=opt/cni/bin", "an absolute path"], ["cni.excludeNamespaces=", "one at least"],
    ["cni.excludeNamespaces=a,,b", "namespaces separated by commas"], ["cni.probeAddresses=198.18.0.1,198.18.0.2", "one of each family at most"], ["cni.probeAddresses=here", "IP addresses"],
    ["cni.dnsCapture=yes", "a boolean"], ['cni.nodeSelector={"disk":1}', "labels of nodes"], ['ztunnel.resources={"limit":{}}', "requests and limits"], ["ztunnel.resources.limit.memory=1Gi", "requests and limits"],
    ["ztunnel.resources.memory=1Gi", "a name in it"], ['imagePullSecrets=["registry"]', "a list of names of Secrets"], ["control.replicas.x=1", "is no value"], ["imagePullSecrets.0=registry", "is no value"],
  ] as const;
  test.each(refused)("what would not start is refused: %s", (setting, wanted) => {
    const values = valuesFrom("mesh", [setting]);
    expect(values.ok ? "taken" : values.error).toContain(wanted);
  });
});
