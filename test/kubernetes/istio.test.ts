// Our image in Istio's own charts, on a cluster of nodes: istiod, Istio's CNI, and our ztunnel where theirs was. A load goes through all of
// it, and no request of it may fail: from Istio's ztunnel to ours, one of ours after the other, Istio's CNI replaced, and back.
//
//   besides the cluster: ISTIO_CHARTS (manifests/charts of istio/istio), ISTIOD_IMAGE, ISTIO_CNI_IMAGE and ISTIO_ZTUNNEL_IMAGE (on its nodes), ISTIOCTL_BIN

import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { describeUnless, firstReason, needsBinary, needsProgram, type SkipReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { appPod, Cluster, KUBECONFIG, namespaceObject, needsCluster, type PodNow, serviceObject, WAIT_MS, WEFT_IMAGE } from "./cluster.ts";
import { SHOWS_MS } from "./eventually.ts";
import { LoadCounts } from "./load-counts.ts";
import { MeshLogs } from "./mesh-logs.ts";

const ISTIO = "istio-system";
const SHOP = "weft-e2e-istio";
const OUTSIDE = "weft-e2e-istio-outside";
const LONG = 240_000;
const HOST = `web.${SHOP}.svc.cluster.local`;

const environment = (name: string): string => process.env[name] ?? "";
const needsValue = (name: string): SkipReason => (environment(name) === "" ? `${name} is not set` : null);
const needsIstio = firstReason(needsCluster, needsBinary("ISTIO_CHARTS"), ...["ISTIOD_IMAGE", "ISTIO_CNI_IMAGE", "ISTIO_ZTUNNEL_IMAGE"].map(needsValue), needsBinary("ISTIOCTL_BIN"), needsProgram("helm"));

describeUnless(needsIstio)("our image in Istio's charts", () => {
  let cluster: Cluster;
  let logs: MeshLogs;
  let near: string;
  let far: string;
  let load: LoadCounts;
  let asked = 0;

  const run = async (argv: readonly string[]): Promise<string> => {
    const child = Bun.spawn([...argv, "--kubeconfig", KUBECONFIG], { env: { PATH: process.env["PATH"], HOME: "/nonexistent", HELM_CACHE_HOME: "/tmp/weft-helm", HELM_CONFIG_HOME: "/tmp/weft-helm", HELM_DATA_HOME: "/tmp/weft-helm" }, stdout: "pipe", stderr: "pipe" });
    const [out, complaint, status] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
    if (status !== 0) throw new Error(`${argv.join(" ")}: status ${status}: ${complaint}\n${out}`);
    return out;
  };
  const istioctl = (...args: readonly string[]): Promise<string> => run([environment("ISTIOCTL_BIN"), ...args]);
  const chart = (release: string, path: string, ...values: readonly string[]): Promise<string> =>
    run(["helm", "upgrade", "--install", release, join(environment("ISTIO_CHARTS"), path), "--namespace", ISTIO, "--create-namespace", "--wait", "--timeout", "3m", ...values.flatMap((value) => ["--set", value])]);
  const ztunnel = (image: string): Promise<string> => chart("ztunnel", "ztunnel", `image=${image}`, "imagePullPolicy=Never");
  const images = async (): Promise<string[]> => (await cluster.pods(ISTIO, "app=ztunnel")).map((pod) => (pod as PodNow & { spec: { containers: { image: string }[] } }).spec.containers[0]!.image);
  /** The DaemonSet has nothing left of what it was before. */
  const rolled = (name: string): Promise<unknown> => until(`${name} to have rolled out`, WAIT_MS, async () => {
    const set = await cluster.get<{ metadata: { generation: number }; status: { observedGeneration: number; desiredNumberScheduled: number; updatedNumberScheduled?: number; numberAvailable?: number; currentNumberScheduled: number } }>(`/apis/apps/v1/namespaces/${ISTIO}/daemonsets/${name}`);
    const { status } = set!;
    return status.observedGeneration === set!.metadata.generation && status.updatedNumberScheduled === status.desiredNumberScheduled && status.numberAvailable === status.desiredNumberScheduled;
  });
  const restart = async (name: string): Promise<void> => {
    await cluster.merge(`/apis/apps/v1/namespaces/${ISTIO}/daemonsets/${name}`, { spec: { template: { metadata: { annotations: { "weft.dev/restarted": String(asked++) } } } } });
    await rolled(name);
  };
  /** What a new pod there has to say of the shop. */
  const says = async (namespace: string, node: string): Promise<string> => {
    const pod = appPod({ name: `ask-${asked++}`, namespace, node, args: ["get", `http://${HOST}/`] });
    await cluster.apply(pod);
    const { log } = await cluster.finished(namespace, pod.metadata.name);
    await cluster.remove(pod);
    return log;
  };

  beforeAll(async () => {
    cluster = new Cluster();
    logs = new MeshLogs(cluster, ISTIO);
    [near = "", far = near] = await cluster.nodes();
    await chart("istio-base", "base");
    await chart("istiod", "istio-control/istio-discovery", "profile=ambient", `image=${environment("ISTIOD_IMAGE")}`, "global.imagePullPolicy=Never", "autoscaleEnabled=false");
    await chart("istio-cni", "istio-cni", "profile=ambient", `image=${environment("ISTIO_CNI_IMAGE")}`, "pullPolicy=Never");
    await ztunnel(environment("ISTIO_ZTUNNEL_IMAGE"));
    await cluster.apply(namespaceObject(SHOP, { "istio.io/dataplane-mode": "ambient" }), namespaceObject(OUTSIDE));
    for (const namespace of [SHOP, OUTSIDE]) await until("the service account", SHOWS_MS, () => cluster.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
    await cluster.apply(appPod({ name: "web", namespace: SHOP, node: far, args: ["serve", "8080", "9000"], labels: { app: "web" }, probe: 8080 }), serviceObject("web", SHOP, 8080, 9000));
    await cluster.ready(SHOP, "web");
    await cluster.apply(appPod({ name: "load", namespace: SHOP, node: near, args: ["load", `http://${HOST}/`, `${HOST}:9000`], labels: { app: "load" } }));
    await cluster.ready(SHOP, "load");
    load = new LoadCounts(cluster, SHOP, ["load"], logs);
    await load.begun();
  }, 2 * LONG);

  afterAll(async () => {
    if (cluster === undefined) return;
    for (const namespace of [SHOP, OUTSIDE]) await cluster.remove(namespaceObject(namespace), WAIT_MS);
    for (const release of ["ztunnel", "istio-cni", "istiod", "istio-base"]) await run(["helm", "uninstall", release, "--namespace", ISTIO, "--wait", "--ignore-not-found"]);
    const kept = await cluster.get<{ items: { metadata: { name: string } }[] }>("/apis/apiextensions.k8s.io/v1/customresourcedefinitions");
    for (const { metadata: { name } } of kept!.items) if (name.endsWith(".istio.io")) await cluster.client.request({ method: "DELETE", path: `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}` });
    await cluster.remove(namespaceObject(ISTIO), WAIT_MS);
    await logs[Symbol.asyncDispose]();
  }, LONG);

  test("takes the place of Istio's ztunnel, node by node", async () => {
    await load.withoutLoss(async () => {
      await ztunnel(WEFT_IMAGE);
      await rolled("ztunnel");
    });
    await until("only ours to be left", WAIT_MS, async () => (await images()).every((image) => image === WEFT_IMAGE));
    const said = await Promise.all((await cluster.pods(ISTIO, "app=ztunnel")).map(({ metadata: { name } }) => cluster.log(ISTIO, name, "istio-proxy")));
    for (const log of said) expect(log).not.toMatch(/has no effect|\terror\tweft|\twarn\tconfig/);
  }, LONG);

  test("keeps what istiod's policies ask: the shop is reached through tunnels alone", async () => {
    expect(await says(OUTSIDE, near)).toStartWith("got 200 web ");
    await cluster.client.request({ method: "POST", path: `/apis/security.istio.io/v1/namespaces/${SHOP}/peerauthentications`, body: { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "default", namespace: SHOP }, spec: { mtls: { mode: "STRICT" } } } });
    await until("a stranger to be refused", WAIT_MS, async () => (await says(OUTSIDE, near)).startsWith("failed"));
    expect(await says(SHOP, near)).toStartWith("got 200 web ");
    expect(await says(SHOP, far)).toStartWith("got 200 web ");
    // The kubelet's probes are no strangers.
    await cluster.ready(SHOP, "web");
  }, LONG);

  test("istioctl and istiod see what they are used to", async () => {
    expect(await istioctl("ztunnel-config", "workload", "--node", far)).toMatch(new RegExp(`^${SHOP} +web +\\S+ +${far} +None +HBONE$`, "m"));
    expect(await istioctl("ztunnel-config", "policy", "--node", far)).toMatch(/^istio-system +istio_converted_static_strict +Deny +WorkloadSelector$/m);
    expect(await istioctl("ztunnel-config", "certificate", "--node", far)).toMatch(new RegExp(`^spiffe://cluster\\.local/ns/${SHOP}/sa/default +Leaf +Available +true `, "m"));
    expect(await istioctl("ztunnel-config", "connections", "--node", near)).toMatch(new RegExp(`^load\\.${SHOP} +Outbound +load\\.${SHOP}:\\d+ +web\\.${SHOP}:15008 +web\\.${SHOP}\\.svc\\.cluster\\.local:\\d+ +HBONE$`, "m"));
    expect(await istioctl("ztunnel-config", "log")).toContain("current log level is info");
    expect((await istioctl("proxy-status")).match(/^ztunnel-\S+ .* 2 \(WADS,WDS\)$/gm)).toHaveLength((await cluster.nodes()).length);
  }, LONG);

  test("one of ours after the other, and Istio's CNI replaced", async () => {
    await load.withoutLoss(() => restart("ztunnel"));
    await load.withoutLoss(() => restart("istio-cni-node"));
    expect(await says(SHOP, near)).toStartWith("got 200 web ");
  }, LONG);

  test("gives the place back", async () => {
    await load.withoutLoss(async () => {
      await ztunnel(environment("ISTIO_ZTUNNEL_IMAGE"));
      await rolled("ztunnel");
    });
    expect(await says(SHOP, near)).toStartWith("got 200 web ");
  }, LONG);
});
