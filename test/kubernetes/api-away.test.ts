// A control plane whose API server is cut off, says nothing, and comes back with its history gone: what it serves meanwhile, what it says of
// itself, what that costs, and what everybody has afterwards.

import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { parseTrustDomain, spiffeId } from "../../src/core/spiffe.ts";
import { createRequest } from "../../src/identity/csr.ts";
import { GrpcCertificateSource } from "../../src/identity/grpc-certificate-source.ts";
import { Relay } from "../kit/relay.ts";
import { describeUnless } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { XdsAgent } from "../kit/xds-agent.ts";
import { type ApiServer, apply, installDefinitions, needsKubernetes, remove, startApiServer } from "./api-server.ts";
import { CONTROL_NAMESPACE, type ControlRole, startControl } from "./control-role.ts";
import { SHOWS_MS } from "./eventually.ts";
import { namespace, node, pod, service, serviceAccount, tokenFor } from "./objects.ts";

const PODS = 50;
const uid = (n: number): string => `Kubernetes//Pod/shop/web-${n}`;
const web = (n: number) => pod(`web-${n}`, "shop", { labels: { app: "web" }, node: "node1", ip: `198.18.1.${1 + n}`, serviceAccount: "web", ports: [{ name: "http", containerPort: 8080 }] });
const deny = (name: string) => ({ apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name, namespace: "shop" }, spec: { action: "DENY", rules: [{ from: [{ source: { namespaces: [name] } }] }] } });

/** How long it is away: several attempts of every list, ever less often. */
const AWAY_MS = 20_000;
/** Of one core, while it is: a loop without a pause takes all of it. */
const AWAY_CPU_SHARE = 0.2;
const AWAY_GROWTH_BYTES = 64 * 1024 * 1024;
/** Of some thirty lists in that time, each asked again after 0.2 s, then after twice as long. */
const AWAY_ATTEMPTS_MAX = 600;
/** Nothing for 20 s, two questions of 8 s each, and a machine with much else to do. */
const SILENCE_NOTICED_MS = 60_000;
/** What an agent of ours waits for a certificate. */
const AGENT_WAITS_MS = 10_000;

describeUnless(needsKubernetes)("a control plane whose API server is away", () => {
  let server: ApiServer;
  let relay: Relay;
  let control: ControlRole;
  let behind: { readonly kubeconfig: string };
  let rootsPem: string;
  let token: string;
  const agents: XdsAgent[] = [];

  const agent = (withToken = token): XdsAgent => {
    const made = new XdsAgent({ port: control.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, token: withToken, node: "node1" });
    agents.push(made);
    return made;
  };
  const freshToken = () => tokenFor(server.client, "ztunnel", CONTROL_NAMESPACE, { audience: "istio-ca", pod: "ztunnel-1" });
  /** Null for a certificate, else the CA's words. */
  async function askCa(withToken: string): Promise<string | null> {
    const source = new GrpcCertificateSource({ address: `127.0.0.1:${control.port}`, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootCaPath: rootsPem, token: { kind: "literal", value: withToken }, clusterId: "Kubernetes", headers: {}, impersonate: true });
    const wanted = spiffeId(parseTrustDomain("cluster.local")!, "shop", "web");
    const issued = await source.issue({ spiffeId: wanted, csrPem: createRequest(wanted).csrPem, lifetimeMs: 3_600_000, signal: AbortSignal.timeout(AGENT_WAITS_MS) });
    source.destroy();
    return issued.ok ? null : issued.error.message;
  }

  beforeAll(async () => {
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, namespace(CONTROL_NAMESPACE), namespace("shop"), node("node1"), serviceAccount("ztunnel", CONTROL_NAMESPACE), serviceAccount("web", "shop"),
      pod("ztunnel-1", CONTROL_NAMESPACE, { labels: { app: "ztunnel" }, node: "node1", ip: "198.18.0.9", serviceAccount: "ztunnel" }),
      service("web", "shop", { clusterIP: "198.19.0.80", selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }), deny("thieves"));
    for (let n = 0; n < PODS; n++) await apply(server.client, web(n));
    const written = readFileSync(server.kubeconfig, "utf8");
    const [, port] = /https:\/\/127\.0\.0\.1:(\d+)/.exec(written) ?? [];
    relay = await Relay.to(Number(port));
    behind = { kubeconfig: `${server.kubeconfig}-relayed` };
    writeFileSync(behind.kubeconfig, written.replace(`127.0.0.1:${port}`, `127.0.0.1:${relay.port}`), { mode: 0o600 });
    control = startControl(behind, "control-1", [], "info");
    await control.ready();
    rootsPem = await until("the roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert" });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    });
    token = await freshToken();
    await until("an agent has everything", SHOWS_MS, () => (agents[0] ?? agent()).versions.has("shop/thieves"));
    expect(await askCa(token)).toBeNull();
  }, 240_000);

  afterAll(async () => {
    await Promise.all(agents.map((one) => one[Symbol.asyncDispose]()));
    await control?.kill();
    await relay?.[Symbol.asyncDispose]();
    await server?.stop();
  });

  test("cut off: it serves what it knows to whom it knows, says so, and neither works nor grows", async () => {
    const known = agents[0]!.versions;
    const unknown = await freshToken();
    relay.mode = "cut";
    await until("the readiness says what is away", SHOWS_MS, async () => /^200 ready\n.*Kubernetes API: \d+ of \d+ lists are not followed, what they said last is in force: .*127\.0\.0\.1/s.test(await control.readiness()));
    const [cpu, bytes, failures, sinceMs] = [control.cpuSeconds(), control.residentBytes(), await control.metric("weft_control_api_failures_total"), performance.now()];

    // Tokens that were reviewed a moment ago are good, for xDS and for the CA.
    const late = agent();
    await until("an agent that comes now has everything", SHOWS_MS, () => late.versions.size === known.size);
    expect([...late.versions].sort()).toEqual([...known].sort());
    expect(await askCa(token)).toBeNull();
    // One that nobody has reviewed is not taken, and is not called bad either.
    expect(await askCa(unknown)).toContain("could not be checked, try again");
    const stranger = agent(unknown);
    await until("a stranger is told to try again", SHOWS_MS, () => stranger.ends.some((reason) => reason.includes("Unavailable") && reason.includes("could not be checked, try again")));
    await stranger[Symbol.asyncDispose]();

    await until("it has been away for long", 2 * AWAY_MS, () => performance.now() - sinceMs > AWAY_MS);
    const seconds = (performance.now() - sinceMs) / 1000;
    expect((control.cpuSeconds() - cpu) / seconds).toBeLessThan(AWAY_CPU_SHARE);
    expect(control.residentBytes() - bytes).toBeLessThan(AWAY_GROWTH_BYTES);
    expect(await control.metric("weft_control_api_failures_total") - failures).toBeLessThan(AWAY_ATTEMPTS_MAX);
    expect(await control.metric("weft_control_leader")).toBe(0);
    expect(agents[0]!.streams.length).toBe(1);
    expect(agents[0]!.removed).toEqual([]);
  }, 120_000);

  test("back, with its history gone: it lists anew, and agents hear of what changed and of nothing else", async () => {
    const [told, gone] = [agents[0]!.streams[0]!.resources, await control.metric("weft_control_watches_gone_total")];
    await remove(server.client, web(0));
    await apply(server.client, web(PODS), deny("robbers"));
    await server.restart();
    relay.mode = "passes";
    await until("what changed arrives", SHOWS_MS, () => agents[0]!.versions.has(uid(PODS)) && agents[0]!.versions.has("shop/robbers") && !agents[0]!.versions.has(uid(0)));
    expect(await control.metric("weft_control_watches_gone_total")).toBeGreaterThan(gone);
    await until("the readiness has nothing to say", SHOWS_MS, async () => /^200 ready\n?$/.test(await control.readiness()));
    expect(agents[0]!.removed).toEqual([uid(0)]);
    expect(agents[0]!.streams[0]!.resources - told).toBe(2);
    expect(await askCa(await freshToken())).toBeNull();
    await until("it writes again", SHOWS_MS, async () => (await control.metric("weft_control_leader")) === 1);
  }, 180_000);

  test("an API server that says nothing: who asks is told so before giving up, and everything goes on when it speaks", async () => {
    const unknown = await freshToken();
    relay.mode = "silent";
    expect(await askCa(unknown)).toContain("could not be checked, try again");
    await until("the silence is noticed, long before a watch could tell of it", SILENCE_NOTICED_MS, async () => (await control.readiness()).includes("and the server does not answer"));
    const late = agent();
    await until("an agent that comes now has everything", SHOWS_MS, () => late.versions.size === agents[0]!.versions.size);
    await apply(server.client, web(PODS + 1));
    relay.mode = "passes";
    await until("what changed arrives", SHOWS_MS, () => agents[0]!.versions.has(uid(PODS + 1)));
    expect(agents[0]!.streams.length).toBe(1);
  }, 180_000);

  test("a replica that begins meanwhile waits, says for what, and serves nobody half of the cluster", async () => {
    relay.mode = "cut";
    const second = startControl(behind, "control-2", [], "info");
    try {
      await until("its readiness says what it waits for", SHOWS_MS, async () => /^503 not ready: CA: .*127\.0\.0\.1/s.test(await second.readiness()));
      relay.mode = "passes";
      await second.ready();
      const there = new XdsAgent({ port: second.port, serverName: `istiod.${CONTROL_NAMESPACE}.svc`, rootsPem, token, node: "node1" });
      agents.push(there);
      await until("an agent has the same from it", SHOWS_MS, () => there.isTold(1));
      expect([...there.versions].sort()).toEqual([...agents[0]!.versions].sort());
    } finally {
      await second.kill();
    }
  }, 120_000);
});
