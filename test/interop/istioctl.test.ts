// Istio's operator program against our control plane, over a real Kubernetes API: who is connected, and how far each has come.
//
//   KUBE_BIN_DIR, ISTIOCTL_BIN

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { type ApiServer, apply, installDefinitions, needsKubernetes, startApiServer } from "../kubernetes/api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "../kubernetes/control-role.ts";
import { SHOWS_MS } from "../kubernetes/eventually.ts";
import { namespace, node, pod, serviceAccount, tokenFor } from "../kubernetes/objects.ts";
import { followXds } from "../kubernetes/xds-client.ts";
import { needsIstioctl } from "./istiod.ts";

setDefaultTimeout(120_000);

describeUnless(firstReason(needsKubernetes, needsIstioctl))("istioctl against our control plane", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-istioctl-"));
  const stop = new AbortController();
  let server: ApiServer;
  let control: ControlRole;
  let client: Promise<unknown> = Promise.resolve();

  /** What it prints without what it says of its own surroundings. */
  const proxyStatus = async (...flags: readonly string[]): Promise<{ readonly status: number; readonly text: string }> => {
    const child = Bun.spawn([process.env["ISTIOCTL_BIN"]!, "proxy-status", "--xds-address", `127.0.0.1:${control.port}`, ...flags], { env: { HOME: folder, KUBECONFIG: server.kubeconfig }, stdout: "pipe", stderr: "pipe" });
    const [out, complaint, status] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text(), child.exited]);
    return { status, text: status === 0 ? out : complaint };
  };

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), node("node1"), serviceAccount("ztunnel", CONTROL_NAMESPACE), serviceAccount("default", CONTROL_NAMESPACE), serviceAccount("default", "shop"),
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.0.1", serviceAccount: "ztunnel" }));
    control = startControl(server, "control-1");
    await control.ready();
    const rootsPem = await until("the roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${CONTROL_NAMESPACE}/configmaps/istio-ca-root-cert` });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    const token = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    client = followXds({ port: control.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, token, node: "node1", onAddress: () => {}, onRemoved: () => {}, onResponse: () => {} }, stop.signal).catch(() => {});
  }, 240_000);

  afterAll(async () => {
    stop.abort();
    await client;
    await control?.kill();
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("proxy-status names each client, the replica that serves it, and what it follows", async () => {
    let last = "";
    await until(() => `a line of the client; the last answer:\n${last}`, SHOWS_MS, async () => (last = (await proxyStatus()).text).includes("ztunnel~"));
    expect(last).toMatch(/^NAME +CLUSTER +ISTIOD +VERSION +SUBSCRIBED TYPES$/m);
    expect(last).toMatch(/^ztunnel~198\.18\.0\.1~zt\.istio-system~\S+ +Kubernetes +control-1 .* 2 \(\S+,\S+\)$/m);
    await until(() => `both types to be confirmed; the last answer:\n${last}`, SHOWS_MS, async () => /^ztunnel~.* SYNCED .*SYNCED .*control-1/m.test((last = (await proxyStatus("-v", "1")).text)));
  });

  test("as JSON, and of one namespace alone", async () => {
    const { status, text } = await proxyStatus("-o", "json");
    expect(status).toBe(0);
    expect(JSON.parse(text)).toMatchObject({ typeUrl: "istio.io/debug/syncz", resources: [{ node: { id: expect.stringMatching(/^ztunnel~/) }, genericXdsConfigs: [{ configStatus: "SYNCED" }, { configStatus: "SYNCED" }] }] });
    expect((await proxyStatus("-n", "shop")).text).not.toContain("ztunnel~");
  });

  test("one who is not of the mesh's own namespace is refused, with the reason", async () => {
    const { status, text } = await proxyStatus("--istioNamespace", "shop");
    expect(status).not.toBe(0);
    expect(text).toContain(`shop/default may not ask about the agents: wanted a service account of namespace ${CONTROL_NAMESPACE}`);
  });
});
