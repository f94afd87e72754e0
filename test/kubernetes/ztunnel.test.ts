// Istio's ztunnel under our control plane: its xDS and its certificates come from us, it takes everything that it is told, and a control
// plane that is killed costs it nothing.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { needsZtunnel } from "../interop/reference-ztunnel.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { type ApiServer, apply, installDefinitions, needsKubernetes, remove, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { until } from "../kit/until.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "./objects.ts";

interface Dump {
  readonly workloads: readonly { readonly uid: string; readonly protocol: string; readonly status: string; readonly services: readonly string[]; readonly authorizationPolicies?: readonly string[]; readonly waypoint?: unknown; readonly locality?: { readonly zone: string } }[];
  readonly services: readonly { readonly hostname: string; readonly vips: readonly string[]; readonly ports: Record<string, number> }[];
  readonly policies: readonly { readonly name: string; readonly action: string; readonly scope: string }[];
  readonly certificates: readonly { readonly identity: string; readonly state: string }[];
}

describeUnless(firstReason(needsKubernetes, needsZtunnel))("Istio's ztunnel under our control plane", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-ztunnel-"));
  let server: ApiServer;
  let control: ControlRole;
  let ztunnel: Bun.Subprocess;

  const log = (): string => readFileSync(join(folder, "ztunnel.log"), "utf8");
  const dump = async (): Promise<Dump | null> => fetch("http://127.0.0.1:15000/config_dump").then(async (answer) => (await answer.json()) as Dump, () => null);
  const dumpWhen = (holds: (dump: Dump) => boolean, what: string): Promise<Dump> => until(what, SHOWS_MS, async () => {
    const found = await dump();
    return found !== null && holds(found) ? found : null;
  }).catch((cause: unknown) => {
    throw new Error(`${String(cause)}\n${log().slice(-3000)}`);
  });
  const web = (name: string, ip: string) => pod(name, "shop", { labels: { app: "web" }, annotations: { "ambient.istio.io/redirection": "enabled" }, node: "node1", ip, serviceAccount: "web", ports: [{ name: "http", containerPort: 8080 }] });

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), node("node1", { "topology.kubernetes.io/zone": "z1" }), serviceAccount("ztunnel", CONTROL_NAMESPACE),
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, annotations: { "ambient.istio.io/redirection": "enabled" }, node: "node1", ip: "127.0.0.1", serviceAccount: "ztunnel" }),
      service("web", "shop", { clusterIP: "198.19.0.80", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }), web("web-1", "198.18.1.9"));
    await apply(server.client,
      { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "web", namespace: "shop" }, spec: { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/front"] } }] }, { to: [{ operation: { methods: ["GET"] } }] }] } },
      { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "default", namespace: "shop" }, spec: { mtls: { mode: "STRICT" } } });
    control = startControl(server, "control-1");
    await control.ready();
    const roots = await until("the roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${CONTROL_NAMESPACE}/configmaps/istio-ca-root-cert` });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    writeFileSync(join(folder, "root.pem"), roots);
    writeFileSync(join(folder, "token"), await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" }));
    const address = `https://127.0.0.1:${control.port}`;
    ztunnel = Bun.spawn([process.env["ZTUNNEL_BIN"]!], {
      stdio: ["ignore", Bun.file(join(folder, "ztunnel.log")), Bun.file(join(folder, "ztunnel.log"))], cwd: folder,
      env: {
        XDS_ADDRESS: address, CA_ADDRESS: address, XDS_ROOT_CA: join(folder, "root.pem"), CA_ROOT_CA: join(folder, "root.pem"), ALT_XDS_HOSTNAME: `istiod.${CONTROL_NAMESPACE}.svc`, ALT_CA_HOSTNAME: `istiod.${CONTROL_NAMESPACE}.svc`,
        AUTH_TOKEN: join(folder, "token"), PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: `${CONTROL_NAMESPACE}/ztunnel-1/ztunnel`, NODE_NAME: "node1", POD_NAME: "ztunnel-1", POD_NAMESPACE: CONTROL_NAMESPACE, INSTANCE_IP: "127.0.0.1",
        CLUSTER_ID: "Kubernetes", DNS_CAPTURE: "false", RUST_LOG: "info",
      },
    });
  }, 240_000);

  afterAll(async () => {
    ztunnel?.kill("SIGKILL");
    await ztunnel?.exited;
    await control?.kill();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("is told of workloads, services and policies", async () => {
    const seen = await dumpWhen(({ workloads, policies }) => workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-1") && policies.length === 2, "workloads and policies");
    expect(seen.workloads.find(({ uid }) => uid === "Kubernetes//Pod/shop/web-1")).toMatchObject({ protocol: "HBONE", status: "Healthy", services: ["shop/web.shop.svc.cluster.local"], authorizationPolicies: ["shop/converted_peer_authentication_default", "shop/web"], locality: { zone: "z1" } });
    expect(seen.services.find(({ hostname }) => hostname === "web.shop.svc.cluster.local")).toMatchObject({ vips: ["/198.19.0.80"], ports: { "80": 0 } });
    expect(seen.policies.map(({ name, action }) => [name, action]).sort()).toEqual([["converted_peer_authentication_default", "Deny"], ["web", "Allow"]]);
  }, 60_000);

  test("refuses nothing of it, as the control plane sees", async () => {
    const clients = async () => ((await (await fetch(`http://127.0.0.1:${control.adminPort}/config_dump`)).json()) as { clients: { id: string; types: { typeUrl: string; ackedState: number; sentState: number; rejected: unknown }[] }[] }).clients;
    const [client] = await until("everything is confirmed", SHOWS_MS, async () => {
      const found = await clients();
      return found.length === 1 && found[0]!.types.length === 2 && found[0]!.types.every(({ ackedState, sentState }) => ackedState === sentState) ? found : null;
    });
    expect(client!.id).toStartWith("ztunnel~");
    expect(client!.types.map(({ rejected }) => rejected)).toEqual([null, null]);
  }, 60_000);

  test("has a certificate of ours as soon as it needs one", async () => {
    // Whoever comes to its tunnel port is shown one, and shows none himself: that is as far as it goes.
    const socket = tls.connect({ host: "127.0.0.1", port: 15008, ALPNProtocols: ["h2"], rejectUnauthorized: false });
    socket.on("error", () => {});
    const seen = await dumpWhen(({ certificates }) => certificates.some(({ state }) => state === "Available"), "a certificate");
    socket.destroy();
    expect(seen.certificates.map(({ identity }) => identity)).toContain(`spiffe://cluster.local/ns/${CONTROL_NAMESPACE}/sa/ztunnel`);
  }, 60_000);

  test("hears of changes, and of what is gone", async () => {
    await apply(server.client, web("web-2", "198.18.1.10"));
    await dumpWhen(({ workloads }) => workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-2"), "the new pod");
    await remove(server.client, web("web-1", "198.18.1.9"));
    await dumpWhen(({ workloads }) => !workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-1"), "the pod is gone");
  }, 60_000);

  test("a control plane that is killed and comes back with nothing on disk costs it nothing; what changed meanwhile arrives", async () => {
    await control.kill();
    await apply(server.client, web("web-3", "198.18.1.11"));
    await remove(server.client, web("web-2", "198.18.1.10"));
    expect((await dump())?.workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-2")).toBe(true);
    await control.restart();
    const seen = await dumpWhen(({ workloads }) => workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-3") && !workloads.some(({ uid }) => uid === "Kubernetes//Pod/shop/web-2"), "what changed meanwhile");
    expect(seen.policies.length).toBe(2);
  }, 120_000);
});
