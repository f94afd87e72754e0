// What people run on a cluster, all of it in the mesh: a service with two ports, TCP without a protocol, gRPC, a StatefulSet behind a headless
// service, a Job, a pod that asks before it starts, a pod in the node's network, endpoints that are not ready, a name for somebody else's
// service, a waypoint with routes and canaries under load, and policies of both layers, each asked by friend and stranger.

import { afterAll, beforeAll, expect, test } from "bun:test";
import type { KubernetesObject } from "../../src/cli/install/objects.ts";
import { install } from "../../src/cli/verbs/install.ts";
import { status } from "../../src/cli/verbs/status.ts";
import { uninstall } from "../../src/cli/verbs/uninstall.ts";
import { waypoint } from "../../src/cli/verbs/waypoint.ts";
import { APPLY_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { describeUnless, needsBinary, testUnless } from "../kit/skip.ts";
import { appPod, appPodSpec, Cluster, KUBECONFIG, namespaceObject, needsCluster, needsDualStack, type PodNow, serviceObject, WAIT_MS, WEFT_IMAGE } from "./cluster.ts";
import { testDefinitions } from "./definitions.ts";
import { SHOWS_MS } from "./eventually.ts";
import { LoadCounts } from "./load-counts.ts";
import { MeshLogs } from "./mesh-logs.ts";
import { until } from "../kit/until.ts";

const SHOP = "weft-e2e-kinds";
const OUTSIDE = "weft-e2e-kinds-outside";
/** Addresses of hosts outside; nobody in the cluster has any of them. */
const OUTSIDE_CIDRS = "198.18.240.0/20,2001:db8:ff::/112";
const LONG = 240_000;
const dualStack = await needsDualStack();

describeUnless(needsCluster)("what people run, in the mesh", () => {
  let cluster: Cluster;
  let logs: MeshLogs;
  let near: string;
  let far: string;
  let asked = 0;

  const host = (service: string) => `${service}.${SHOP}.svc.cluster.local`;
  /** Asks from a new pod of the namespace, as often as it takes: what was applied a moment ago is on its way. */
  const says = async (args: readonly string[], wanted: RegExp, node = near): Promise<string> =>
    until(`${args.join(" ")} says ${wanted}`, WAIT_MS, async () => {
      const name = `ask-${asked++}`;
      const pod = appPod({ name, namespace: SHOP, node, args });
      await cluster.apply(pod);
      const { log } = await cluster.finished(SHOP, name);
      await cluster.remove(pod);
      return wanted.test(log) ? log : null;
    });
  const raw = async (path: string, body: object): Promise<void> => {
    const applied = await cluster.client.request({ method: "PATCH", path, query: { fieldManager: "test", force: "true" }, body, contentType: APPLY_PATCH });
    if (!applied.ok) throw new Error(applied.error.message);
  };
  const called = (pod: string) => new RegExp(`^(got ${pod}\\n?){8}$`);
  const service = (name: string, spec: object): KubernetesObject => ({ apiVersion: "v1", kind: "Service", metadata: { name, namespace: SHOP, labels: {} }, spec });
  const definitions = () => testDefinitions().filter(({ kind }) => ["Gateway", "GatewayClass", "HTTPRoute", "GRPCRoute", "AuthorizationPolicy", "ServiceEntry"].includes(kind));
  const definitionPath = (name: string) => `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;

  beforeAll(async () => {
    cluster = new Cluster();
    logs = new MeshLogs(cluster, "istio-system");
    const nodes = await cluster.nodes();
    [near = "", far = near] = nodes;
    for (const { object } of definitions()) await raw(definitionPath(object.metadata.name), object);
    for (const namespace of [SHOP, OUTSIDE]) await cluster.remove(namespaceObject(namespace), WAIT_MS);
    const addresses = process.env["WEFT_PROBE_ADDRESSES"];
    await cluster.weft(install, ["--set", `image=${WEFT_IMAGE}`, "--set", "imagePullPolicy=Never", "--set", "control.replicas=1", "--set", "ztunnel.drainSeconds=5", "--set", `control.serviceCidrs=${OUTSIDE_CIDRS}`, ...(addresses === undefined ? [] : ["--set", `cni.probeAddresses=${addresses}`])]);
    await cluster.apply(namespaceObject(SHOP, { "istio.io/dataplane-mode": "ambient" }));
    await until("the service account", SHOWS_MS, () => cluster.get(`/api/v1/namespaces/${SHOP}/serviceaccounts/default`));
  }, LONG);

  afterAll(async () => {
    if (cluster === undefined) return;
    for (const namespace of [SHOP, OUTSIDE]) await cluster.remove(namespaceObject(namespace), WAIT_MS);
    await cluster.weft(uninstall, []);
    for (const { object } of definitions()) await cluster.client.request({ method: "DELETE", path: definitionPath(object.metadata.name) });
    await logs[Symbol.asyncDispose]();
  }, LONG);

  test("a service with two ports, on another node", async () => {
    await cluster.apply(
      appPod({ name: "two", namespace: SHOP, node: far, args: ["serve", "8080,8081"], labels: { app: "two" }, probe: 8081 }),
      service("two", { selector: { app: "two" }, ports: [{ name: "http", port: 80, targetPort: 8080 }, { name: "http-more", port: 81, targetPort: 8081 }] }),
    );
    await cluster.ready(SHOP, "two");
    expect((await says(["get", `http://${host("two")}/`, `http://${host("two")}:81/`], /^got 200 two .*\ngot 200 two /)).split("\n")).not.toContain("failed");
  }, LONG);

  test("TCP of a server that speaks first, and a Job that asks it", async () => {
    await cluster.apply(appPod({ name: "tcp", namespace: SHOP, node: far, args: ["tcp", "7000"], labels: { app: "tcp" } }), service("tcp", { selector: { app: "tcp" }, ports: [{ name: "tcp", port: 7000 }] }));
    await says(["ask", `${host("tcp")}:7000`], /^got tcp greets/);
    await cluster.apply({
      apiVersion: "batch/v1", kind: "Job", metadata: { name: "job", namespace: SHOP, labels: {} },
      spec: { backoffLimit: 0, template: { metadata: { labels: { app: "job" } }, spec: appPodSpec({ node: near, args: ["ask", `${host("tcp")}:7000`] }) } },
    });
    await until("the Job has succeeded", WAIT_MS, async () => (await cluster.get<{ status: { succeeded?: number } }>(`/apis/batch/v1/namespaces/${SHOP}/jobs/job`))?.status.succeeded === 1);
  }, LONG);

  test("a StatefulSet behind a headless service: each by its name", async () => {
    await cluster.apply(
      service("db", { clusterIP: "None", selector: { app: "db" }, ports: [{ name: "http", port: 8080 }] }),
      {
        apiVersion: "apps/v1", kind: "StatefulSet", metadata: { name: "db", namespace: SHOP, labels: {} },
        spec: { serviceName: "db", replicas: 2, podManagementPolicy: "Parallel", selector: { matchLabels: { app: "db" } }, template: { metadata: { labels: { app: "db" } }, spec: appPodSpec({ node: far, args: ["serve", "8080"], probe: 8080 }) } },
      },
    );
    await cluster.ready(SHOP, "db-0", "db-1");
    for (const name of ["db-0", "db-1"]) await says(["get", `http://${name}.${host("db")}:8080/`], new RegExp(`^got 200 ${name} `));
    await says(["get", `http://${host("db")}:8080/`], /^got 200 db-[01] /);
  }, LONG);

  test("a pod in the node's own network, endpoints that are not ready, and a name for another's service", async () => {
    await cluster.apply(
      appPod({ name: "host", namespace: SHOP, node: far, args: ["serve", "18098"], labels: { app: "host" }, probe: 18098, hostNetwork: true }), service("host", { selector: { app: "host" }, ports: [{ name: "http", port: 80, targetPort: 18098 }] }),
      appPod({ name: "unready", namespace: SHOP, node: far, args: ["serve", "8080"], labels: { app: "unready" }, probe: 1 }), service("unready", { publishNotReadyAddresses: true, selector: { app: "unready" }, ports: [{ name: "http", port: 80, targetPort: 8080 }] }),
      service("other", { type: "ExternalName", externalName: host("two") }),
    );
    await cluster.ready(SHOP, "host");
    await says(["get", `http://${host("host")}/`], /^got 200 host /);
    await says(["get", `http://${host("unready")}/`], /^got 200 unready /);
    await says(["get", `http://${host("other")}/`], /^got 200 two /);
  }, LONG);

  test("gRPC, and a pod whose first container asks before the second starts", async () => {
    await cluster.apply(appPod({ name: "calls", namespace: SHOP, node: far, args: ["serve", "8080", "9000"], labels: { app: "calls" }, probe: 8080 }), serviceObject("calls", SHOP, 8080, 9000));
    await cluster.ready(SHOP, "calls");
    await says(["call", `${host("calls")}:9000`, "8"], called("calls"));
    const pod = appPod({ name: "begins", namespace: SHOP, node: near, initArgs: ["get", `http://${host("calls")}/`], args: ["get", `http://${host("calls")}/`] });
    await cluster.apply(pod);
    expect(await cluster.finished(SHOP, "begins")).toMatchObject({ succeeded: true });
    expect(await cluster.log(SHOP, "begins", "first")).toMatch(/^got 200 calls /);
  }, LONG);

  testUnless(needsBinary("ISTIOCTL_BIN"))("istioctl reads an agent through its pod's port, and the control plane through its own", async () => {
    const istioctl = async (...args: readonly string[]): Promise<string> => {
      const child = Bun.spawn([process.env["ISTIOCTL_BIN"]!, ...args, "--kubeconfig", KUBECONFIG], { env: { HOME: "/nonexistent", PATH: process.env["PATH"] }, stdout: "pipe", stderr: "pipe" });
      const [out, complaint, exitStatus] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
      if (exitStatus !== 0) throw new Error(`istioctl ${args.join(" ")}: ${complaint}`);
      return out;
    };
    const config = (...args: readonly string[]): Promise<string> => istioctl("ztunnel-config", ...args, "--node", far);
    expect(await config("workload")).toMatch(new RegExp(`^${SHOP} +two +\\S+ +${far} +None +HBONE$`, "m"));
    expect(await config("service")).toMatch(new RegExp(`^${SHOP} +two +\\S+ +None +1/1$`, "m"));
    expect(await config("policy")).toMatch(/^NAMESPACE +POLICY NAME +ACTION +SCOPE/m);
    expect(await config("certificate")).toMatch(new RegExp(`^spiffe://cluster\\.local/ns/${SHOP}/sa/default +Leaf +Available +true `, "m"));
    expect(await config("connections")).toMatch(/^WORKLOAD +DIRECTION +LOCAL/m);
    expect(await config("all")).toContain("two");
    // A pod of the shop stands for the agent of its node.
    expect(await istioctl("ztunnel-config", "workload", `two.${SHOP}`)).toMatch(new RegExp(`^${SHOP} +two `, "m"));

    const levels = async (...args: readonly string[]): Promise<string[]> => (await istioctl("ztunnel-config", "log", ...args)).match(/(?<=current log level is ).*/g) ?? [];
    const before = await levels();
    expect(before.length).toBe((await cluster.pods("istio-system", "app=ztunnel")).length);
    expect((await levels("--level", "ca:debug")).every((level) => level.includes("ca=debug"))).toBe(true);
    expect((await levels()).every((level) => level.includes("ca=debug"))).toBe(true);
    await levels("--reset");

    const status = await istioctl("proxy-status", "--xds-label", "app=weft-control", "-n", "istio-system");
    expect(status.match(/^ztunnel\S* /gm)).toHaveLength(before.length);
  }, LONG);

  /** Of a Service, in Kubernetes' order. */
  const clusterIps = async (name: string): Promise<readonly string[]> => (await cluster.get<{ spec: { clusterIPs: string[] } }>(`/api/v1/namespaces/${SHOP}/services/${name}`))!.spec.clusterIPs;
  const podIps = async (name: string): Promise<readonly string[]> => (await cluster.get<PodNow>(`/api/v1/namespaces/${SHOP}/pods/${name}`))!.status.podIPs!.map(({ ip }) => ip);
  const isV6 = (ip: string): boolean => ip.includes(":");
  const urlOf = (ip: string, port = 80): string => `http://${isV6(ip) ? `[${ip}]` : ip}:${port}/`;
  const asks = async (url: string): Promise<string> => (await cluster.proxied(SHOP, "asker", 8080, `/ask?url=${encodeURIComponent(url)}`)).trim();

  test("a host outside, which a ServiceEntry alone knows: its name has an address of the mesh's own, and leads there", async () => {
    await raw(`/apis/networking.istio.io/v1/namespaces/${SHOP}/serviceentries/outside`, {
      apiVersion: "networking.istio.io/v1", kind: "ServiceEntry", metadata: { name: "outside", namespace: SHOP },
      spec: { hosts: ["outside.example.com"], location: "MESH_EXTERNAL", resolution: "STATIC", ports: [{ number: 80, name: "http", protocol: "HTTP", targetPort: 18098 }], endpoints: (await podIps("host")).map((address) => ({ address })) },
    });
    await says(["get", "http://outside.example.com/"], /^got 200 host /);
  }, LONG);

  testUnless(dualStack)("both IP families: by either address of a service and of a pod, by the name of a service of IPv6 alone and of a headless one, with the client's own address", async () => {
    const ports = [{ name: "http", port: 80, targetPort: 8080 }];
    await cluster.apply(
      appPod({ name: "both", namespace: SHOP, node: far, args: ["serve", "8080"], labels: { app: "both" }, probe: 8080 }), service("both", { ipFamilyPolicy: "RequireDualStack", selector: { app: "both" }, ports }),
      service("six", { ipFamilyPolicy: "SingleStack", ipFamilies: ["IPv6"], selector: { app: "both" }, ports }), service("each", { clusterIP: "None", ipFamilyPolicy: "RequireDualStack", selector: { app: "both" }, ports }),
      appPod({ name: "asker", namespace: SHOP, node: near, args: ["serve", "8080"], labels: { app: "asker" }, probe: 8080 }),
    );
    await cluster.ready(SHOP, "both", "asker");
    const [vips, addresses, own] = [await clusterIps("both"), await podIps("both"), await podIps("asker")];
    const [own6 = "none", vip6 = "none"] = [own.find(isV6), vips.find(isV6)];
    const seenAs = (v6: boolean): string => `got 200 both saw ${own.find((ip) => isV6(ip) === v6)}`;
    const asked: readonly (readonly [url: string, answers: readonly string[]])[] = [
      ...vips.map((ip) => [urlOf(ip), [seenAs(isV6(ip))]] as const), ...addresses.map((ip) => [urlOf(ip, 8080), [seenAs(isV6(ip))]] as const),
      [`http://${host("six")}/`, [seenAs(true)]], [`http://${host("both")}/`, [seenAs(true), seenAs(false)]], [`http://${host("each")}:8080/`, [seenAs(true), seenAs(false)]],
    ];
    expect(asked.length).toBe(7);
    for (const [url, answers] of asked) {
      let last = "";
      await until(() => `${url} says ${answers.join(" or ")}; the last answer was ${last}`, SHOWS_MS, async () => answers.includes((last = await asks(url))));
    }
    const path = `/apis/security.istio.io/v1/namespaces/${SHOP}/authorizationpolicies/no-six`;
    await raw(path, { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "no-six", namespace: SHOP }, spec: { selector: { matchLabels: { app: "both" } }, action: "DENY", rules: [{ from: [{ source: { ipBlocks: [`${own6}/128`] } }] }] } });
    await until("the asker's IPv6 address is refused", SHOWS_MS, async () => (await asks(urlOf(vip6))).startsWith("failed"));
    for (const ip of vips.filter((one) => !isV6(one))) expect(await asks(urlOf(ip))).toBe(seenAs(false));
    expect((await cluster.client.request({ method: "DELETE", path })).ok).toBeTrue();
    await until("it is let in again", SHOWS_MS, async () => (await asks(urlOf(vip6))) === seenAs(true));
  }, LONG);

  test("a waypoint: routes by weight of HTTP and of gRPC are followed, and moved under load without a failed request; status shows it", async () => {
    for (const version of ["one", "next"]) {
      await cluster.apply(appPod({ name: version, namespace: SHOP, node: far, args: ["serve", "8080", "9000"], labels: { app: version, shop: "web" }, probe: 8080 }), serviceObject(version, SHOP, 8080, 9000));
    }
    await cluster.apply(service("web", { selector: { shop: "web" }, ports: [{ name: "http", port: 80, targetPort: 8080 }, { name: "grpc", port: 9000 }] }));
    await cluster.ready(SHOP, "one", "next");
    await cluster.apply(appPod({ name: "load", namespace: SHOP, node: near, args: ["load", `http://${host("web")}/`, `${host("web")}:9000`], labels: { app: "load" } }));
    await cluster.ready(SHOP, "load");
    const load = new LoadCounts(cluster, SHOP, ["load"], logs);
    await load.begun();
    await load.withoutLoss(async () => void (await cluster.weft(waypoint, ["apply", "-n", SHOP, "--enroll-namespace", "--wait"])));
    const route = async (weight: number): Promise<void> => {
      for (const { kind, plural, port } of [{ kind: "HTTPRoute", plural: "httproutes", port: 80 }, { kind: "GRPCRoute", plural: "grpcroutes", port: 9000 }]) {
        await raw(`/apis/gateway.networking.k8s.io/v1/namespaces/${SHOP}/${plural}/web`, {
          apiVersion: "gateway.networking.k8s.io/v1", kind, metadata: { name: "web", namespace: SHOP },
          spec: { parentRefs: [{ group: "", kind: "Service", name: "web", port }], rules: [{ backendRefs: [{ name: "one", port, weight: 100 - weight }, { name: "next", port, weight }] }] },
        });
      }
    };
    const eight = Array.from({ length: 8 }, () => `http://${host("web")}/`);
    for (const [weight, pod] of [[0, "one"], [50, "(?:one|next)"], [100, "next"]] as const) {
      await load.withoutLoss(async () => {
        await route(weight);
        await says(["get", ...eight], new RegExp(`^(got 200 ${pod} .*\\n){8}$`));
        await says(["call", `${host("web")}:9000`, "8"], called(pod));
      });
    }
    expect(await cluster.weft(status, [])).toContain(`waypoint ${SHOP}/waypoint`);
  }, LONG);

  testUnless(dualStack)("the waypoint of a service of both families: it is reached by either, and its Gateway shows both of its addresses", async () => {
    const { status: { addresses } } = (await cluster.get<{ status: { addresses: { type: string; value: string }[] } }>(`/apis/gateway.networking.k8s.io/v1/namespaces/${SHOP}/gateways/waypoint`))!;
    expect(addresses).toEqual([...(await clusterIps("waypoint")).map((value) => ({ type: "IPAddress", value })), { type: "Hostname", value: host("waypoint") }]);
    expect(addresses.filter(({ value }) => isV6(value)).length).toBe(1);
    const instances = (await cluster.pods(SHOP, "gateway.networking.k8s.io/gateway-name=waypoint")).flatMap(({ status: { podIPs = [] } }) => podIPs.map(({ ip }) => `got 200 both saw ${ip}`));
    for (const ip of await clusterIps("both")) expect(instances).toContain(await asks(urlOf(ip)));
  }, LONG);

  test("policies, each asked by a friend and by a stranger: by the ztunnel for pods, by the waypoint for a service", async () => {
    await cluster.apply(namespaceObject(OUTSIDE, { "istio.io/dataplane-mode": "ambient" }));
    for (const namespace of [SHOP, OUTSIDE]) await until("the service account", SHOWS_MS, () => cluster.get(`/api/v1/namespaces/${namespace}/serviceaccounts/default`));
    await cluster.apply({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "friend", namespace: SHOP, labels: {} } });
    await cluster.apply(
      appPod({ name: "friend", namespace: SHOP, node: near, args: ["serve", "8080"], serviceAccount: "friend", labels: { app: "friend" }, probe: 8080 }),
      appPod({ name: "stranger", namespace: SHOP, node: far, args: ["serve", "8080"], labels: { app: "stranger" }, probe: 8080 }),
      appPod({ name: "outsider", namespace: OUTSIDE, node: near, args: ["serve", "8080"], labels: { app: "outsider" }, probe: 8080 }),
    );
    await cluster.ready(SHOP, "friend", "stranger");
    await cluster.ready(OUTSIDE, "outsider");
    const askers = [["friend", SHOP], ["stranger", SHOP], ["outsider", OUTSIDE]] as const;
    /** Their answers in this order: a status, or "cut" where the connection was. */
    const answers = async (method: string, url: string): Promise<string> =>
      (await Promise.all(askers.map(async ([name, namespace]) => /^(?:got )?(\d+)/.exec(await cluster.proxied(namespace, name, 8080, `/ask?method=${method}&url=${encodeURIComponent(url)}`))?.[1] ?? "cut"))).join(" ");
    const pod = (await cluster.get<PodNow>(`/api/v1/namespaces/${SHOP}/pods/two`))!.status.podIP!;
    const [direct, other, through] = [`http://${pod}:8080/`, `http://${pod}:8081/`, `http://${host("two")}/`];
    const principal = `cluster.local/ns/${SHOP}/sa/friend`;
    const [onPod, onService] = [{ selector: { matchLabels: { app: "two" } } }, { targetRefs: [{ group: "", kind: "Service", name: "two" }] }];
    type Asked = readonly [method: string, url: string, wanted: string];
    const matrix: readonly (readonly [name: string, spec: object, ...asked: readonly Asked[]])[] = [
      ["nobody", { ...onPod, action: "ALLOW" }, ["GET", direct, "cut cut cut"]],
      ["allow-identity", { ...onPod, action: "ALLOW", rules: [{ from: [{ source: { principals: [principal] } }] }] }, ["GET", direct, "200 cut cut"], ["GET", other, "200 cut cut"]],
      ["allow-namespace", { ...onPod, action: "ALLOW", rules: [{ from: [{ source: { namespaces: [SHOP] } }] }] }, ["GET", direct, "200 200 cut"]],
      ["deny-identity", { ...onPod, action: "DENY", rules: [{ from: [{ source: { principals: [principal] } }] }] }, ["GET", direct, "cut 200 200"]],
      ["deny-port", { ...onPod, action: "DENY", rules: [{ from: [{ source: { notPrincipals: [principal] } }], to: [{ operation: { ports: ["8081"] } }] }] }, ["GET", direct, "200 200 200"], ["GET", other, "200 cut cut"]],
      // What a ztunnel cannot read of a rule that allows, does not allow.
      ["allow-method-at-the-pod", { ...onPod, action: "ALLOW", rules: [{ to: [{ operation: { methods: ["GET"] } }] }] }, ["GET", direct, "cut cut cut"]],
      ["allow-method", { ...onService, action: "ALLOW", rules: [{ from: [{ source: { principals: [principal] } }] }, { from: [{ source: { namespaces: [SHOP] } }], to: [{ operation: { methods: ["GET"] } }] }] }, ["GET", through, "200 200 403"], ["POST", through, "200 403 403"]],
      ["deny-path", { ...onService, action: "DENY", rules: [{ from: [{ source: { notNamespaces: [SHOP] } }], to: [{ operation: { paths: ["/private*"] } }] }] }, ["GET", through, "200 200 200"], ["GET", `${through}private`, "200 200 403"]],
    ];
    for (const [name, spec, ...asked] of matrix) {
      const path = `/apis/security.istio.io/v1/namespaces/${SHOP}/authorizationpolicies/${name}`;
      await raw(path, { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: SHOP }, spec });
      for (const [method, url, wanted] of asked) {
        let last = "";
        await until(() => `${name}: ${method} ${url} for ${askers.map(([asker]) => asker).join(", ")}: ${wanted}; the last answers were ${last}`, SHOWS_MS, async () => (last = await answers(method, url)) === wanted);
      }
      const removed = await cluster.client.request({ method: "DELETE", path });
      expect(removed.ok).toBeTrue();
      for (const url of [direct, other, through]) await until(`without ${name} everybody is let in`, SHOWS_MS, async () => (await answers("GET", url)) === "200 200 200");
    }
  }, LONG);
});
