// Our node agent under Istio's control plane and CA, over a real Kubernetes API: what it is told, the certificates that it gets, and what
// becomes of it when either of the two is killed. And Istio's operator program reading what our agent tells of itself.
//
//   KUBE_BIN_DIR, ISTIOD_BIN (pilot-discovery of istio.io/istio), ISTIOCTL_BIN

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ZdsServer, type MeshedPod } from "../../src/cni/zds-server.ts";
import { MeshNetwork, type Workload } from "../kit/network.ts";
import { freePorts } from "../kit/ports.ts";
import { describeUnless, firstReason, testUnless } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { type ApiServer, apply, installDefinitions, needsKubernetes, remove, startApiServer } from "../kubernetes/api-server.ts";
import { SHOWS_MS } from "../kubernetes/eventually.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "../kubernetes/objects.ts";
import { type Istiod, needsIstioctl, needsIstiod, startIstiod } from "./istiod.ts";

const ROOT = join(import.meta.dir, "../..");
const ISTIO = "istio-system";
const IDENTITY = "spiffe://cluster.local/ns/shop/sa/web";
const ADMIN_PORT = 22_100;

interface Dump {
  readonly workloads: readonly { readonly uid: string; readonly protocol: string; readonly services: readonly string[]; readonly authorizationPolicies: readonly string[]; readonly locality: { readonly zone: string } }[];
  readonly services: readonly { readonly hostname: string; readonly vips: readonly string[] }[];
  readonly policies: readonly { readonly name: string; readonly namespace: string; readonly action: string; readonly scope: string }[];
  readonly certificates: readonly { readonly identity: string; readonly state: string; readonly certChain: readonly { readonly serialNumber: string }[] }[];
  readonly diagnostics?: readonly unknown[];
}

setDefaultTimeout(120_000);

describeUnless(firstReason(needsKubernetes, needsIstiod))("our agent under istiod", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-istiod-agent-"));
  const pods: MeshedPod[] = [];
  const zds = new ZdsServer({ path: join(folder, "zds.sock"), pods: () => pods, onConnections: () => {} });
  let network: MeshNetwork;
  let local: Workload;
  let server: ApiServer;
  let istiod: Istiod;
  let agent: Bun.Subprocess | null = null;

  const log = async (): Promise<string> => await Bun.file(join(folder, "log")).text().catch(() => "");
  const dump = (): Promise<Dump | null> => fetch(`http://127.0.0.1:${ADMIN_PORT}/config_dump`).then(async (answer) => (await answer.json()) as Dump, () => null);
  const dumpWhen = async (what: string, holds: (dump: Dump) => boolean): Promise<Dump> => {
    let last: Dump | null = null;
    return await until(what, SHOWS_MS, async () => {
      last = await dump();
      return last !== null && holds(last) ? last : null;
    }).catch(async (cause: unknown) => {
      throw new Error(`${String(cause)}\nthe last one: ${JSON.stringify(last).slice(0, 2000)}\nagent:\n${(await log()).slice(-3000)}\nistiod:\n${istiod.log().slice(-2000)}`);
    });
  };
  const hasPod = (name: string) => ({ workloads }: Dump): boolean => workloads.some(({ uid }) => uid === `Kubernetes//Pod/shop/${name}`);
  const web = (name: string, ip: string) => pod(name, "shop", { labels: { app: "web" }, annotations: { "ambient.istio.io/redirection": "enabled" }, node: "node1", ip, serviceAccount: "web", ports: [{ name: "http", containerPort: 8080 }] });
  const startAgent = (): void => {
    const address = `https://127.0.0.1:${istiod.port}`;
    const ports = { "--admin-address": `127.0.0.1:${ADMIN_PORT}`, "--metrics-address": `127.0.0.1:${ADMIN_PORT + 1}`, "--readiness-address": `127.0.0.1:${ADMIN_PORT + 2}` };
    agent = Bun.spawn([process.execPath, join(ROOT, "src/main.ts"), "ztunnel", "--state", join(folder, "state"), "--log", "info", "--log-file", join(folder, "log"), ...Object.entries(ports).flat()], {
      stdio: ["ignore", "ignore", "inherit"],
      env: {
        ...process.env, XDS_ADDRESS: address, CA_ADDRESS: address, XDS_ROOT_CA: join(folder, "root.pem"), CA_ROOT_CA: join(folder, "root.pem"), ALT_XDS_HOSTNAME: `istiod.${ISTIO}.svc`, ALT_CA_HOSTNAME: `istiod.${ISTIO}.svc`,
        AUTH_TOKEN: join(folder, "token"), NODE_NAME: "node1", POD_NAME: "ztunnel-1", POD_NAMESPACE: ISTIO, INSTANCE_IP: "198.18.0.1", CLUSTER_ID: "Kubernetes", INPOD_UDS: join(folder, "zds.sock"), DNS_CAPTURE: "false",
      },
    });
  };
  const endAgent = async (): Promise<void> => {
    agent?.kill("SIGKILL");
    await agent?.exited;
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    local = network.node("node1").workload("web-1");
    pods.push({ uid: "uid-of-web-1", namespace: "shop", name: "web-1", serviceAccount: "web", namespaceFd: () => local.namespaceFd });
    expect(zds.listen()).toMatchObject({ ok: true });
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(ISTIO), namespace("shop", { "istio.io/dataplane-mode": "ambient" }), node("node1", { "topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1" }),
      serviceAccount("ztunnel", ISTIO), serviceAccount("web", "shop"), pod("ztunnel-1", ISTIO, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.0.1", serviceAccount: "ztunnel" }),
      service("web", "shop", { clusterIP: "198.19.0.80", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }), web("web-1", local.ipv4),
      { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "web", namespace: "shop" }, spec: { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/front"] } }], to: [{ operation: { ports: ["8080"] } }] }] } },
      { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "default", namespace: "shop" }, spec: { mtls: { mode: "STRICT" } } });
    istiod = await startIstiod(server);
    const roots = await until("istiod's roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${ISTIO}/configmaps/istio-ca-root-cert` });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    writeFileSync(join(folder, "root.pem"), roots);
    writeFileSync(join(folder, "token"), await tokenFor(server.client, "ztunnel", ISTIO, { audience: "istio-ca", pod: "ztunnel-1" }), { mode: 0o600 });
    startAgent();
  }, 300_000);

  afterAll(async () => {
    await endAgent();
    zds.close();
    await istiod?.end();
    await server?.stop();
    await network?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("knows workloads, services and policies", async () => {
    const seen = await dumpWhen("workloads, services and policies", (one) => hasPod("web-1")(one) && one.policies.length >= 2 && one.services.length >= 1);
    expect(seen.workloads.find(({ uid }) => uid === "Kubernetes//Pod/shop/web-1")).toMatchObject({ protocol: "HBONE", services: ["shop/web.shop.svc.cluster.local"], locality: { zone: "z1" } });
    expect(seen.services.find(({ hostname }) => hostname === "web.shop.svc.cluster.local")?.vips).toEqual(["/198.19.0.80"]);
    expect(seen.policies.map(({ namespace: at, name, action }) => `${at}/${name} ${action}`).sort()).toContain("shop/web Allow");
    expect(seen.policies.filter(({ action }) => action === "Deny").length).toBeGreaterThan(0);
  });

  test("refuses nothing of it", async () => {
    await dumpWhen("web-1", hasPod("web-1"));
    const metrics = await (await fetch(`http://127.0.0.1:${ADMIN_PORT + 1}/metrics`)).text();
    expect(metrics.match(/^weft_xds_refused_total\S* [1-9].*$/gm) ?? []).toEqual([]);
    expect(metrics).toMatch(/^istio_xds_message_total\{[^}]*Address[^}]*\} [1-9]/m);
  });

  test("has a certificate of istiod's CA for the workload of its node, and for no other", async () => {
    const seen = await dumpWhen("the certificate", ({ certificates }) => certificates.some(({ identity, state }) => identity === IDENTITY && state === "Available"));
    expect(seen.certificates.map(({ identity }) => identity)).toEqual([IDENTITY]);
    await until("readiness", SHOWS_MS, () => fetch(`http://127.0.0.1:${ADMIN_PORT + 2}/healthz/ready`).then((answer) => answer.ok, () => false));
  });

  test("hears of what comes, changes and goes", async () => {
    await apply(server.client, web("web-2", "198.18.9.2"));
    await dumpWhen("web-2", hasPod("web-2"));
    await remove(server.client, web("web-2", "198.18.9.2"), { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "web", namespace: "shop" } });
    await dumpWhen("web-2 and the policy to be gone", (one) => !hasPod("web-2")(one) && !one.policies.some(({ name }) => name === "web"));
  });

  testUnless(needsIstioctl)("every ztunnel-config of istioctl reads what the agent tells of itself", async () => {
    const file = join(folder, "dump.json");
    await dumpWhen("the certificate", ({ certificates }) => certificates.some(({ state }) => state === "Available"));
    writeFileSync(file, await (await fetch(`http://127.0.0.1:${ADMIN_PORT}/config_dump`)).text());
    const asked = (...args: readonly string[]): string => {
      const done = Bun.spawnSync([process.env["ISTIOCTL_BIN"]!, "ztunnel-config", ...args, "--file", file], { env: { HOME: folder, KUBECONFIG: server.kubeconfig } });
      expect(done.stderr.toString().replaceAll(/^.*memory is not limited.*\n/gm, "")).toBe("");
      expect(done.exitCode).toBe(0);
      return done.stdout.toString();
    };
    const json = (...args: readonly string[]): unknown => JSON.parse(asked(...args, "--output", "json"));
    const rows = (table: string): string[] => table.trim().split("\n").slice(1);
    const pod = new RegExp(`^shop +web-1 +${local.ipv4.replaceAll(".", "\\.")} +node1 +None +HBONE$`, "m");

    expect(asked("workload")).toMatch(pod);
    expect(asked("workload", "--workload-namespace", "shop", "--address", local.ipv4)).toMatch(pod);
    expect(rows(asked("workload", "--workload-namespace", "nobody"))).toEqual([]);
    expect(json("workload")).toContainEqual(expect.objectContaining({ uid: "Kubernetes//Pod/shop/web-1", workloadIps: [local.ipv4], protocol: "HBONE", serviceAccount: "web", node: "node1", status: "Healthy", locality: { region: "r1", zone: "z1" } }));
    expect(asked("workload", "--output", "yaml")).toContain("uid: Kubernetes//Pod/shop/web-1");

    expect(asked("service")).toMatch(/^shop +web +198\.19\.0\.80 +None +1\/1$/m);
    expect(rows(asked("service", "--service-namespace", "nobody"))).toEqual([]);
    expect(json("service")).toContainEqual(expect.objectContaining({
      hostname: "web.shop.svc.cluster.local", vips: ["/198.19.0.80"], ports: { 80: 0 },
      endpoints: { "Kubernetes//Pod/shop/web-1": expect.objectContaining({ workloadUid: "Kubernetes//Pod/shop/web-1", port: { 80: 8080 } }) },
    }));

    expect(asked("policy")).toMatch(/^istio-system +istio_converted_static_strict +Deny +WorkloadSelector$/m);
    expect(rows(asked("policy", "--policy-namespace", "shop")).every((row) => row.startsWith("shop "))).toBe(true);
    expect(json("policy")).toContainEqual(expect.objectContaining({ name: "istio_converted_static_strict", action: "Deny", rules: [[[{ notPrincipals: [expect.objectContaining({ Presence: expect.anything() })] }]]] }));

    for (const kind of ["Leaf", "Root"]) expect(asked("certificate")).toMatch(new RegExp(`^${IDENTITY} +${kind} +Available +true +[0-9a-f]+ +\\S+Z +\\S+Z$`, "m"));
    expect(json("certificate")).toContainEqual(expect.objectContaining({ identity: IDENTITY, state: "Available", certChain: expect.arrayContaining([expect.objectContaining({ pem: expect.stringMatching(/^LS0tLS1CRUdJTi/) })]) }));

    expect(rows(asked("connections"))).toEqual([]);
    expect(json("connections")).toContainEqual(expect.objectContaining({ info: expect.objectContaining({ name: "web-1", namespace: "shop", serviceAccount: "web" }) }));

    const everything = asked("all", "--with-headers");
    for (const part of ["WORKLOAD INFO", "SERVICE INFO", "POLICY INFO", "SECRET INFO", "CONNECTIONS INFO"]) expect(everything).toContain(`------ ${part} ------`);
    expect(everything).toMatch(pod);
  });

  test("a waypoint of ours, of which istiod cannot speak, lets nothing pass and says why", async () => {
    const address = `127.0.0.1:${istiod.port}`;
    const log = join(folder, "waypoint.log");
    const [adminPort, metricsPort, readinessPort] = await freePorts(3);
    const ports = ["--admin-address", `127.0.0.1:${adminPort}`, "--metrics-address", `127.0.0.1:${metricsPort}`, "--readiness-address", `127.0.0.1:${readinessPort}`];
    const waypoint = Bun.spawn([process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--gateway", "shop/waypoint", "--state", join(folder, "waypoint"), "--log-file", log, ...ports], {
      stdio: ["ignore", "ignore", "inherit"],
      env: {
        ...process.env, XDS_ADDRESS: address, CA_ADDRESS: address, XDS_ROOT_CA: join(folder, "root.pem"), CA_ROOT_CA: join(folder, "root.pem"), ALT_XDS_HOSTNAME: `istiod.${ISTIO}.svc`, ALT_CA_HOSTNAME: `istiod.${ISTIO}.svc`,
        AUTH_TOKEN: join(folder, "token"), NODE_NAME: "node1", POD_NAME: "waypoint-1", POD_NAMESPACE: ISTIO, INSTANCE_IP: "198.18.0.2",
      },
    });
    try {
      await until(() => "the waypoint to say what is missing", SHOWS_MS, async () => /no Gateway shop\/waypoint.*is this control plane `weft control`\?/.test(await Bun.file(log).text().catch(() => "")));
      await until("its readiness to name what it waits for", SHOWS_MS, async () => {
        const answer = await fetch(`http://127.0.0.1:${readinessPort}/healthz/ready`);
        return answer.status === 503 && /^not ready: identity: the configuration has no instance of the Gateway shop\/waypoint/.test(await answer.text());
      });
    } finally {
      waypoint.kill("SIGKILL");
      await waypoint.exited;
    }
  });

  test("a killed istiod costs it nothing; what changed meanwhile arrives", async () => {
    await dumpWhen("web-1", hasPod("web-1"));
    await istiod.kill();
    await apply(server.client, web("web-3", "198.18.9.3"));
    expect((await dump())?.workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-1")).toBe(true);
    await istiod.start();
    await dumpWhen("web-3", hasPod("web-3"));
  });

  test("starts anew with istiod away: with what it was told last and its certificate", async () => {
    const before = await dumpWhen("web-3", hasPod("web-3"));
    // Addresses that change one after the other are written four times a second.
    await until("web-3 on disk", SHOWS_MS, () => readFileSync(join(folder, "state/xds/resources.log")).includes("shop/web-3"));
    await istiod.kill();
    await endAgent();
    startAgent();
    const after = await dumpWhen("what it knew", ({ certificates, workloads }) => workloads.length === before.workloads.length && certificates.some(({ state }) => state === "Available"));
    expect(after.certificates[0]?.certChain[0]?.serialNumber).toBe(before.certificates[0]!.certChain[0]!.serialNumber);
    expect(after.policies).toEqual(before.policies);
    await apply(server.client, web("web-4", "198.18.9.4"));
    await remove(server.client, web("web-3", "198.18.9.3"));
    await istiod.start();
    await dumpWhen("web-4, and web-3 gone", (one) => hasPod("web-4")(one) && !hasPod("web-3")(one));
  });
});
