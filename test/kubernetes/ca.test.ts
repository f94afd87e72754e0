// The CA of a control plane: whose token, which node, which identities; and one CA for several replicas.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseTrustDomain, type SpiffeId, spiffeId } from "../../src/core/spiffe.ts";
import { createRequest } from "../../src/identity/csr.ts";
import { GrpcCertificateSource } from "../../src/identity/grpc-certificate-source.ts";
import { describeUnless } from "../kit/skip.ts";
import { type ApiServer, apply, needsKubernetes, remove, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { until } from "../kit/until.ts";
import { namespace, node, pod, serviceAccount, tokenFor } from "./objects.ts";

/** Shorter than it goes on serving after it was told to end. */
const STILL_SERVES_MS = 2_000;

const id = (at: string, account: string): SpiffeId => spiffeId(parseTrustDomain("cluster.local")!, at, account);

describeUnless(needsKubernetes)("the CA of a control plane", () => {
  let server: ApiServer;
  let one: ControlRole;
  let two: ControlRole;
  const folder = mkdtempSync(join(tmpdir(), "weft-ca-test-"));

  const rootsIn = async (at: string): Promise<string | null> => {
    const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${at}/configmaps/istio-ca-root-cert` });
    return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] ?? null : null;
  };
  /** The identity of the certificate that came, or the CA's words. */
  const ask = async (role: ControlRole, token: string, wanted: SpiffeId): Promise<{ readonly roots: string } | string> => {
    const rootPath = join(folder, "root.pem");
    writeFileSync(rootPath, await until("roots in namespace shop", SHOWS_MS, () => rootsIn("shop")));
    const source = new GrpcCertificateSource({ address: `127.0.0.1:${role.port}`, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootCaPath: rootPath, token: { kind: "literal", value: token }, clusterId: "Kubernetes", headers: {}, impersonate: true });
    const request = createRequest(wanted);
    const issued = await source.issue({ spiffeId: wanted, csrPem: request.csrPem, lifetimeMs: 3_600_000, signal: AbortSignal.timeout(20_000) });
    source.destroy();
    return issued.ok ? { roots: issued.value.trustBundlePem } : issued.error.message;
  };

  beforeAll(async () => {
    server = await startApiServer();
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), namespace("bank"), node("node1"), node("node2"),
      serviceAccount("ztunnel", CONTROL_NAMESPACE), serviceAccount("web", "shop"), serviceAccount("vault", "bank"));
    await apply(server.client,
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.1.1", serviceAccount: "ztunnel" }),
      pod("web-1", "shop", { labels: { app: "web" }, node: "node1", ip: "198.18.1.2", serviceAccount: "web" }),
      pod("vault-1", "bank", { labels: { app: "vault" }, node: "node2", ip: "198.18.2.2", serviceAccount: "vault" }));
    one = startControl(server, "control-1");
    two = startControl(server, "control-2");
    await Promise.all([one.ready(), two.ready()]);
  }, 240_000);

  afterAll(async () => {
    await one?.kill();
    await two?.kill();
    await server?.stop();
    rmSync(folder, { recursive: true });
  });

  test("a node's agent has certificates for the pods of its node and for no other", async () => {
    const agent = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    expect(await ask(one, agent, id("shop", "web"))).toMatchObject({ roots: expect.stringContaining("BEGIN CERTIFICATE") });
    expect(await ask(one, agent, id("bank", "vault"))).toContain("may not have");
    expect(await ask(two, agent, id(CONTROL_NAMESPACE, "ztunnel"))).toMatchObject({ roots: expect.stringContaining("BEGIN CERTIFICATE") });
  }, 90_000);

  test("anybody else has its own certificate alone, whatever node it is on", async () => {
    const web = await tokenFor(server.client, "web", "shop", { audience: "istio-ca", pod: "web-1" });
    expect(await ask(one, web, id("shop", "web"))).toMatchObject({ roots: expect.any(String) });
    expect(await ask(one, web, id(CONTROL_NAMESPACE, "ztunnel"))).toContain("may not have");
  }, 60_000);

  test("an agent's token that is bound to no pod, or is for somebody else, gives nothing", async () => {
    const unbound = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca" });
    expect(await ask(one, unbound, id("shop", "web"))).toContain("may not have");
    const forOthers = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "vault", pod: "ztunnel-1" });
    expect(await ask(one, forOthers, id("shop", "web"))).toContain("bearer token");
    expect(await ask(one, `${unbound.slice(0, -6)}AAAAAA`, id("shop", "web"))).toContain("bearer token");
  }, 60_000);

  test("all replicas are one CA", async () => {
    const agent = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    const [first, second] = [await ask(one, agent, id("shop", "web")), await ask(two, agent, id("shop", "web"))];
    expect(first).toEqual(second);
  }, 60_000);

  test("a deleted pod's identity is not given again", async () => {
    const agent = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    await remove(server.client, pod("web-1", "shop", { labels: {}, node: "node1", ip: "198.18.1.2" }));
    await until("the identity is refused", SHOWS_MS, async () => typeof (await ask(one, agent, id("shop", "web"))) === "string");
  }, 60_000);

  test("a namespace that comes later has the roots, and has them again when somebody changes them", async () => {
    await apply(server.client, namespace("late"));
    const roots = await until("roots in namespace late", SHOWS_MS, () => rootsIn("late"));
    await server.client.request({ method: "PATCH", path: "/api/v1/namespaces/late/configmaps/istio-ca-root-cert", contentType: "application/merge-patch+json", body: { data: { "root-cert.pem": "forged" } } });
    await until("the roots are as they were", SHOWS_MS, async () => (await rootsIn("late")) === roots);
    expect(await rootsIn("kube-system")).toBeNull();
  }, 60_000);

  test("a namespace that is being deleted is left alone: nothing is written into it, and nobody tries in a loop", async () => {
    await apply(server.client, namespace("leaving"));
    await until("roots in namespace leaving", SHOWS_MS, () => rootsIn("leaving"));
    // No controller runs here that would take its objects away: it stays so.
    await remove(server.client, namespace("leaving"));
    await server.client.request({ method: "DELETE", path: "/api/v1/namespaces/leaving/configmaps/istio-ca-root-cert" });
    await apply(server.client, namespace("after-leaving"));
    await until("roots in namespace after-leaving", SHOWS_MS, () => rootsIn("after-leaving"));
    expect(await rootsIn("leaving")).toBeNull();
    await until("no write waits", SHOWS_MS, async () => (await one.metric("weft_control_writes_waiting")) + (await two.metric("weft_control_writes_waiting")) === 0);
    expect(await one.metric("weft_control_writes_failed_total") + (await two.metric("weft_control_writes_failed_total"))).toBe(0);
  }, 60_000);

  test("one that is to end is not ready from that moment on, and still serves whoever comes", async () => {
    const agent = await tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
    const three = startControl(server, "control-3");
    await three.ready();
    const ended = three.kill("SIGTERM");
    // Whoever balances by readiness sends nobody there any more, and whoever has not looked yet is served.
    expect(await until("it says so", STILL_SERVES_MS, async () => /^503 .*/.exec(await three.readiness())?.[0])).toBe("503 stopping: SIGTERM");
    expect(await ask(three, agent, id("bank", "vault"))).toContain("may not have");
    expect(await three.readiness()).toBe("503 stopping: SIGTERM\n");
    await ended;
  }, 90_000);

  test("when the one that writes is killed, the other writes", async () => {
    const lease = async (): Promise<string> => {
      const answer = await server.client.request({ method: "GET", path: `/apis/coordination.k8s.io/v1/namespaces/${CONTROL_NAMESPACE}/leases/weft-control` });
      return answer.ok ? (answer.value as { spec: { holderIdentity: string } }).spec.holderIdentity : "";
    };
    const holder = await until("somebody holds the Lease", SHOWS_MS, async () => (await lease()) || null);
    const [leader, other] = holder === one.name ? [one, two] : [two, one];
    await leader.kill();
    await until(`${other.name} holds the Lease`, 40_000, async () => (await lease()) === other.name);
    await apply(server.client, namespace("later"));
    expect(await until("roots in namespace later", SHOWS_MS, () => rootsIn("later"))).toContain("BEGIN CERTIFICATE");
  }, 90_000);
});
