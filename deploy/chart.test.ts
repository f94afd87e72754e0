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

  for (const set of [[], ["ztunnel.drainSeconds=1200000", "cni.dnsCapture=false", 'control.tolerations=[{"operator":"Exists"}]', "image=example.test/weft:1"]]) {
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
    const values = valuesFrom("mesh", ["image=a=b", "control.replicas=3", 'cni.nodeSelector={"a":"b"}']);
    expect(values.ok ? [values.value.image, values.value["control.replicas"], values.value["cni.nodeSelector"]] : values.error).toEqual(["a=b", 3, { a: "b" }]);
    const wrong = (setting: string): string => {
      const refused = valuesFrom("mesh", [setting]);
      return refused.ok ? "" : refused.error;
    };
    expect(wrong("imgae=x")).toContain('"imgae" is no value; there are image');
    expect(wrong("control.replicas=two")).toBe('--set control.replicas: "two" is not a number');
    expect(wrong("control.tolerations={}")).toContain("is not a list");
  });
});
