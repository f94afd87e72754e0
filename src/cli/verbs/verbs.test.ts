// The operator's verbs against an API in memory: what is applied and what is left, in which order, and what is said.

import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ApiObject, FakeKubernetesApi } from "../../../test/kit/kubernetes-api.ts";
import { until } from "../../../test/kit/until.ts";
import { ownDefinitions } from "../install/definitions.ts";
import { installObjects } from "../install/objects.ts";
import { defaultValues } from "../install/values.ts";
import { runOperatorVerb } from "../operator-verbs.ts";
import { check } from "./check.ts";
import type { VerbContext } from "./context.ts";
import { install } from "./install.ts";
import { uninstall } from "./uninstall.ts";
import { waypoint } from "./waypoint.ts";

const WAIT_MS = 10_000;

let api: FakeKubernetesApi;
let folder: string;

beforeEach(() => {
  api = new FakeKubernetesApi();
  folder = mkdtempSync(join(tmpdir(), "weft-verbs-"));
  writeFileSync(join(folder, "config"), JSON.stringify(api.kubeconfig));
});
afterEach(() => {
  api[Symbol.dispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function run(verb: (args: readonly string[], context: VerbContext) => Promise<number>, ...args: readonly string[]) {
  let [out, err] = ["", ""];
  const context: VerbContext = { environment: { KUBECONFIG: join(folder, "config") }, print: (text) => void (out += text), complain: (text) => void (err += text) };
  return { status: await verb(args, context), out, err };
}

const count = 1 + ownDefinitions().length + installObjects(defaultValues("mesh")).length;

describe("install", () => {
  test("every object once; again changes nothing; a value that is set changes what it is about", async () => {
    const first = await run(install, "--no-wait", "-n", "mesh");
    expect([first.status, first.err, first.out.match(/ created$/gm)?.length]).toEqual([0, "", count]);
    expect(api.everything).toContain("daemonsets mesh/weft-cni");
    const again = await run(install, "--no-wait", "-n", "mesh");
    expect(again.out.match(/ unchanged$/gm)?.length).toBe(count);
    const changed = await run(install, "--no-wait", "-n", "mesh", "--set", "control.replicas=3");
    expect(changed.out.split("\n").filter((line) => line.endsWith(" changed"))).toEqual(["Deployment mesh/weft-control changed"]);
  });

  test("a dry run prints all and asks nobody", async () => {
    const { status, out } = await run(install, "--dry-run");
    expect([status, out.split("---\n").length, api.requests.length]).toEqual([0, count, 0]);
  });

  test("a refusal ends it, with what was refused, by whom, and what to do", async () => {
    api.refuseWith = 403;
    const { status, err } = await run(install, "--no-wait");
    expect(status).toBe(1);
    expect(err).toContain("answered 403 Refused: told to refuse");
    expect(err).toContain("install again");
  });

  test.each([["--timeout", "soon", "a whole number from 1"], ["--timeout", "0", "a whole number from 1"], ["--namespace", "My_Mesh", "no name of a namespace"], ["--set", "cni.probes=foo", "one of source, exempt, off"]])(
    "%s %s is refused before anybody is asked", async (flag, value, why) => {
      expect(await run(install, flag, value)).toMatchObject({ status: 64, out: "", err: expect.stringContaining(why) });
      expect(api.requests).toEqual([]);
    },
  );

  test("a flag that is none is told with the verb's usage", async () => {
    const { status, err } = await run((args, context) => runOperatorVerb("install", args, context), "--nmaespace", "x");
    expect(status).toBe(64);
    expect(err).toContain("--nmaespace");
    expect(err).toContain("Usage: weft install");
  });
});

describe("uninstall", () => {
  const removed = (): string[] => api.requests.filter((line) => line.startsWith("DELETE")).map((line) => line.slice(line.lastIndexOf("/") + 1));

  test("the CNI agents first, then everything; what the control plane made too, and nothing of another mesh", async () => {
    await run(install, "--no-wait", "-n", "mesh", "--set", "ztunnel.drainSeconds=100");
    const bundle = (namespace: string, manager: string): ApiObject => ({ metadata: { name: "istio-ca-root-cert", namespace, managedFields: [{ manager }] } });
    api.put("configmaps", bundle("shop", "weft"));
    api.put("configmaps", bundle("theirs", "pilot-discovery"));
    api.put("secrets", { metadata: { name: "weft-ca", namespace: "mesh" } });
    const { status, out } = await run(uninstall, "-n", "mesh");
    expect([status, removed()[0]]).toEqual([0, "weft-cni"]);
    expect(out).toStartWith("DaemonSet mesh/weft-cni: pods leave the mesh, and what is open through it may go on for up to 140 s\n");
    expect(out).toContain("the mesh is gone");
    expect(api.everything).toEqual(["configmaps theirs/istio-ca-root-cert", "namespaces mesh"]);
  });

  test("keys and definitions are kept when told to", async () => {
    await run(install, "--no-wait", "-n", "mesh");
    api.put("secrets", { metadata: { name: "weft-ca", namespace: "mesh" } });
    await run(uninstall, "-n", "mesh", "--keep-ca", "--keep-crds");
    expect(api.everything).toEqual([...ownDefinitions().map(({ metadata }) => `customresourcedefinitions ${metadata.name}`), "namespaces mesh", "secrets mesh/weft-ca"].sort());
  });

  test("a dry run looks and changes nothing; what is not there is not listed", async () => {
    const nothing = await run(uninstall, "-n", "mesh", "--dry-run");
    expect(nothing.out).toMatch(/^looked at http:\/\/127\.0\.0\.1:\d+ \(.*\) for \d+ objects: 0 are there and would be removed, \d+ are not there\n$/);
    await run(install, "--no-wait", "-n", "mesh");
    const before = api.everything;
    const { status, out } = await run(uninstall, "-n", "mesh", "--dry-run");
    expect([status, out.match(/ would be removed$/gm)?.length, removed()]).toEqual([0, count - 1, []]);
    expect(out.startsWith("DaemonSet mesh/weft-cni would be removed\n")).toBe(true);
    expect(api.everything).toEqual(before);
  });

  test("a dry run that cannot look says so, and lists nothing", async () => {
    api.refuseWith = 403;
    const { status, out, err } = await run(uninstall, "--dry-run");
    expect([status, out]).toEqual([1, ""]);
    expect(err).toContain("cannot look for DaemonSet istio-system/weft-cni");
  });

  test("trust bundles that cannot be listed are told of: the mesh is not gone while they stay", async () => {
    api.fixed.set("/api/v1/configmaps", { kind: "ConfigMapList", items: "none" });
    const { status, out, err } = await run(uninstall);
    expect([status, out]).toEqual([1, ""]);
    expect(err).toMatch(/^weft: the ConfigMaps istio-ca-root-cert of the namespaces cannot be listed and stay: /);
    expect((await run(uninstall, "--dry-run")).status).toBe(1);
  });

  test("a second time there is nothing to remove", async () => {
    expect((await run(uninstall)).status).toBe(0);
  });
});

describe("waypoint", () => {
  test("apply makes a Gateway and has the namespace use it; list shows it; delete removes it", async () => {
    api.put("namespaces", { metadata: { name: "shop" } });
    const applied = run(waypoint, "apply", "-n", "shop", "--enroll-namespace", "--for", "all");
    const made = await until("the Gateway", WAIT_MS, () => api.get("gateways", "shop/waypoint"));
    api.put("gateways", { ...made, status: { conditions: [{ type: "Programmed", status: "True" }] } });
    // Programmed, and nobody serves: whoever used it now would be cut off.
    const asked = () => api.requests.filter((line) => line.includes("/deployments/waypoint")).length;
    await until("it looks for an instance", WAIT_MS, () => asked() > 0);
    expect(api.get("namespaces", "shop")?.metadata["labels"]).toBeUndefined();
    const replicas = { metadata: { name: "waypoint", namespace: "shop", generation: 1 }, spec: { replicas: 1 }, status: { observedGeneration: 1, updatedReplicas: 1 } };
    api.put("deployments", replicas);
    const before = asked();
    await until("it looks again", WAIT_MS, () => asked() > before + 1);
    expect(api.get("namespaces", "shop")?.metadata["labels"]).toBeUndefined();
    api.put("deployments", { ...replicas, status: { ...replicas.status, availableReplicas: 1 } });
    expect((await applied).status).toBe(0);
    expect(api.get("gateways", "shop/waypoint")).toMatchObject({ metadata: { labels: { "istio.io/waypoint-for": "all" } }, spec: { gatewayClassName: "weft-waypoint" } });
    expect(api.get("namespaces", "shop")?.metadata["labels"]).toEqual({ "istio.io/use-waypoint": "waypoint" });
    expect((await run(waypoint, "list")).out).toMatch(/^shop +waypoint +weft-waypoint +all +True$/m);
    await run(waypoint, "delete", "-n", "shop");
    expect((await run(waypoint, "list")).out).toBe("no waypoints\n");
  });

  test("a purpose that is none is refused before anybody is asked", async () => {
    expect(await run(waypoint, "apply", "--for", "everything")).toMatchObject({ status: 64, err: expect.stringContaining("not one of service, workload, all, none") });
    expect(api.requests).toEqual([]);
  });
});

describe("check", () => {
  const node = (name: string, nodeInfo: object) => ({ metadata: { name }, status: { nodeInfo: { operatingSystem: "linux", architecture: "amd64", kernelVersion: "6.1.0-9-amd64", containerRuntimeVersion: "containerd://1.7.0", ...nodeInfo } } });

  beforeEach(() => {
    api.fixed.set("/version", { major: "1", minor: "31", gitVersion: "v1.31.0" });
    api.fixed.set("/apis", { groups: [{ name: "gateway.networking.k8s.io" }] });
    api.fixed.set("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", { status: { allowed: true } });
    api.put("nodes", node("a", {}));
  });

  test("a cluster that will do: nothing is in the way, and what is missing says what it costs", async () => {
    const { status, out } = await run(check, "--before-install");
    expect(status).toBe(0);
    expect(out).toContain("ok    1 nodes can carry the mesh");
    expect(out).toContain("note  security.istio.io is not there");
    expect(out).toContain("nothing is in the way");
  });

  test("an old cluster, an old kernel, no rights, another mesh: each is in the way, by name", async () => {
    api.put("nodes", node("b", { kernelVersion: "4.19.0" }));
    api.put("nodes", node("c", { architecture: "s390x" }));
    api.put("daemonsets", { metadata: { name: "istio-cni-node", namespace: "istio-system", labels: {} } });
    api.fixed.set("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", { status: { allowed: false } });
    const { status, out } = await run(check, "--before-install");
    expect(status).toBe(1);
    expect(out).toContain("BAD   you may not create namespaces, clusterroles");
    expect(out).toContain("BAD   node b: kernel 4.19.0, 5.2 or later is needed");
    expect(out).toContain("BAD   node c: there is no program for s390x");
    expect(out).toContain("BAD   DaemonSet istio-system/istio-cni-node of another mesh");
    expect(out).toContain("4 in the way");
  });

  test("after the installation: what is not there, and what is not ready", async () => {
    const { status, out } = await run(check);
    expect(status).toBe(1);
    expect(out).toContain("BAD   istio-system/ztunnel is not installed: weft install");
  });
});
