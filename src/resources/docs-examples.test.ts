// Every YAML block of the documentation, through the parser that a directory goes through: not a single remark. What a block leaves out
// because the page has said it before is added here, once for all of them.

import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describeDiagnostic, documents, evaluate } from "./test-kit.ts";

const ROOT = join(import.meta.dir, "../..");
const PAGES = [...readdirSync(join(ROOT, "docs")).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`), "README.md"].sort();
const text = (page: string): string => readFileSync(join(ROOT, page), "utf8");
const blocksOf = (page: string): string[] => [...text(page).matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map((match) => match[1]!);

/** Objects that are no mesh configuration: the API server's own, which no directory has. */
const OF_THE_CLUSTER = /^kind: (Role|RoleBinding|ConfigMap)$/m;

/** Pages that other tests hold: src/resources/configuration-doc.test.ts reads all blocks together, test/netns/readme.test.ts runs the block. */
const READ_ELSEWHERE = ["docs/configuration.md", "README.md"];

const service = (name: string, last: number, selector: string): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop, labels: { istio.io/use-waypoint: waypoint } }
spec: { clusterIP: 198.18.255.${last}, selector: ${selector}, ports: [{ name: http, port: 80, targetPort: 8080 }] }
`;
const server = (name: string, last: number, labels: string): string => `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: { name: ${name}, namespace: shop }
spec: { address: 198.18.1.${last}, labels: ${labels}, serviceAccount: web }
`;

/** By kind and name; what a block has itself is not added. */
const PLACE: Readonly<Record<string, string>> = {
  "Namespace shop": `{ apiVersion: v1, kind: Namespace, metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } } }\n`,
  "Gateway waypoint": `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: waypoint, namespace: shop }
spec: { gatewayClassName: weft-waypoint, listeners: [{ name: mesh, port: 15008, protocol: HBONE }] }
`,
  "WorkloadEntry waypoint-1": `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: waypoint-1
  namespace: shop
  annotations: { weft.dev/node: a, weft.dev/netns: /run/netns/waypoint-1 }
  labels: { gateway.networking.k8s.io/gateway-name: waypoint, networking.istio.io/tunnel: http }
spec: { address: 198.18.1.20, serviceAccount: waypoint }
`,
  "Service web": service("web", 100, "{ app: web }"),
  "Service web-v1": service("web-v1", 101, "{ app: web, version: v1 }"),
  "Service web-v2": service("web-v2", 102, "{ app: web, version: v2 }"),
  "WorkloadEntry web-1": server("web-1", 100, "{ app: web, version: v1 }"),
  "WorkloadEntry web-2": server("web-2", 101, "{ app: web, version: v2 }"),
  "WorkloadEntry cart-1": server("cart-1", 102, "{ app: cart, version: v1 }"),
  "WorkloadEntry cart-2": server("cart-2", 103, "{ app: cart, version: v2 }"),
};

/** The place without what the block has, by kind and name. */
function placeFor(block: string): string[] {
  const own = new Set(block.split(/^---\n/m).map((each) => `${/^kind: (\w+)/m.exec(each)?.[1]} ${/\bname: ([\w-]+)/.exec(each)?.[1]}`));
  return Object.entries(PLACE).filter(([key]) => !own.has(key)).map(([, yaml]) => yaml);
}

describe.each(PAGES.filter((page) => !READ_ELSEWHERE.includes(page) && blocksOf(page).some((block) => !OF_THE_CLUSTER.test(block))))("%s", (page) => {
  test.each(blocksOf(page).map((block, i) => [i + 1, block] as const).filter(([, block]) => !OF_THE_CLUSTER.test(block)))("block %d is read without a remark", (_, block) => {
    const evaluation = evaluate(documents(block, ...placeFor(block)));
    expect(evaluation.diagnostics.map(describeDiagnostic)).toEqual([]);
    expect(evaluation.resourceCount).toBe(documents(block, ...placeFor(block)).match(/^(\{.*)?\bkind: /gm)!.length);
  });
});

test("the documentation has no configuration in a block that is not called YAML", () => {
  const unnamed = PAGES.flatMap((page) => [...text(page).matchAll(/^```(?!yaml\n)\w*\n[\s\S]*?^```/gm)].filter(([block]) => /^apiVersion: /m.test(block)).map(([block]) => `${page}: ${block.slice(0, 80)}`));
  expect(unnamed).toEqual([]);
  expect(PAGES.flatMap(blocksOf).length).toBeGreaterThan(40);
});
