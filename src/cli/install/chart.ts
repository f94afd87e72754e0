// The Helm chart, written from the same objects as `weft install` applies: each value is an expression instead of a value. `npm run chart`
// writes it to deploy/chart, and a test compares. A chart has no Namespace object: helm has one already.

import { stringify } from "yaml";
import { ownDefinitions } from "./definitions.ts";
import { installObjects, type KubernetesObject } from "./objects.ts";
import { isPlaceholder, type Placeholder, VALUES, type Values } from "./values.ts";

/** Path in the chart and its text. */
export function chartFiles(version: string): Map<string, string> {
  const files = new Map<string, string>([["Chart.yaml", chartYaml(version)], ["values.yaml", valuesYaml()], ["templates/NOTES.txt", NOTES]]);
  for (const [name, objects] of byComponent([...ownDefinitions(), ...installObjects(placeholders())])) {
    files.set(`templates/${name}.yaml`, objects.map(template).join("---\n"));
  }
  return files;
}

const NOTES = `The mesh is in namespace {{ .Release.Namespace }}. To have a namespace in it:

  kubectl label namespace NAME istio.io/dataplane-mode=ambient

Where pod security is enforced the agents need this, which a chart cannot set:

  kubectl label namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged

To take the mesh away use weft uninstall, or remove the DaemonSet weft-cni first and wait until it is gone: the agents lead the pods
out of the mesh while the ztunnels are still there.

  kubectl delete daemonset weft-cni -n {{ .Release.Namespace }} --cascade=foreground
  helm uninstall {{ .Release.Name }} -n {{ .Release.Namespace }} --wait
`;

function placeholders(): Values {
  const of = (expression: string): Placeholder => ({ placeholder: expression });
  // Helm reads every number as a fraction, and prints large ones as such.
  const all = Object.entries(VALUES).map(([name, { fallback }]) => [name, of(typeof fallback === "number" ? `int .Values.${name}` : `.Values.${name}`)]);
  return { ...(Object.fromEntries(all) as Omit<Values, "namespace">), namespace: of(".Release.Namespace") };
}

function chartYaml(version: string): string {
  return stringify({ apiVersion: "v2", name: "weft", description: "An ambient service mesh in one program", type: "application", version, appVersion: version });
}

/** Dotted names are nested, with each value's help above it. */
function valuesYaml(): string {
  const lines = ["# What may be chosen about an installation. `weft install --set NAME=VALUE` takes the same names:",
    "# texts as they are, lists and maps as JSON, and of a map also one name in it (ztunnel.nodeSelector.disk=ssd)."];
  let section = "";
  for (const [name, { fallback, help }] of Object.entries(VALUES)) {
    const [head, leaf] = name.includes(".") ? (name.split(".") as [string, string]) : ["", name];
    if (head !== section) {
      lines.push("", `${head}:`);
      section = head;
    }
    const indent = head === "" ? "" : "  ";
    lines.push(`${indent}# ${help}.`, ...stringify({ [leaf]: fallback }, { lineWidth: 0 }).trimEnd().split("\n").map((line) => indent + line));
  }
  return `${lines.join("\n")}\n`;
}

function byComponent(objects: readonly KubernetesObject[]): Map<string, KubernetesObject[]> {
  const files = new Map<string, KubernetesObject[]>();
  for (const object of objects) {
    const name = object.metadata.labels["app"] ?? "weft";
    files.set(name, [...(files.get(name) ?? []), object]);
  }
  return files;
}

/** Marks around an expression in the text that the YAML library writes; nothing else has them. */
const [OPEN, CLOSE] = ["\u27e6", "\u27e7"];

function template(object: KubernetesObject): string {
  const marked = stringify(mark(object), { lineWidth: 0, singleQuote: false });
  return marked.split("\n").map((line) => {
    const match = new RegExp(`^(\\s*(?:- )?)(?:([A-Za-z.]+): )?"?${OPEN}(.*)${CLOSE}"?$`).exec(line);
    if (match === null) return line;
    const [, indent = "", key, quoted = ""] = match;
    const expression = quoted.replaceAll('\\"', '"');
    // As JSON every value is what it is: texts quoted, numbers bare, lists and maps on one line.
    return `${indent}${key === undefined ? "" : `${key}: `}{{ ${expression} | toJson }}`;
  }).join("\n");
}

function mark(value: unknown): unknown {
  if (isPlaceholder(value)) return `${OPEN}${value.placeholder}${CLOSE}`;
  if (Array.isArray(value)) return value.map(mark);
  if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, mark(each)]));
  return value;
}
