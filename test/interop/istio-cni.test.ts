// Our ztunnel as the client of Istio's own CNI, under Istio's own control plane: two nodes, each with Istio's node agent, one with its
// iptables rules, one with its nftables, over a real Kubernetes API. Everything in a pod's namespace but our sockets is theirs.
//
//   KUBE_BIN_DIR, ISTIOD_BIN (pilot-discovery), ISTIO_CNI_AGENT_BIN (install-cni), ISTIO_CNI_PLUGIN_BIN (istio-cni), all of istio.io/istio;
//   and ISTIOCTL_BIN for one of the tests

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bringPort } from "../kit/bring-port.ts";
import { Agent, ask, program, serve } from "../kit/mesh.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { describeUnless, firstReason, needsProgram, testUnless } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import { type ApiServer, apply, installDefinitions, type KubeObject, needsKubernetes, remove, startApiServer } from "../kubernetes/api-server.ts";
import { SHOWS_MS } from "../kubernetes/eventually.ts";
import * as objects from "../kubernetes/objects.ts";
import { IstioCni, needsIstioCni } from "./istio-cni.ts";
import { type Istiod, needsIstioctl, needsIstiod, startIstiod } from "./istiod.ts";

const ROOT = join(import.meta.dir, "../..");
const ISTIO = "istio-system";
const PORT = 8080;
const ECHO_PORT = 9090;
const VIP = "198.19.0.80";
const HOST = "web.shop.svc.cluster.local";
const REDIRECTION = "ambient.istio.io/redirection";
/** Istio's address of the kubelet. */
const PROBE_ADDRESS = "169.254.7.127";
const CONCURRENCY = 8;
/** Connections of one storm: some seconds of them, so that what is done falls into it. */
const STORM = 2_000;

/** The roots, the token, the folder of the CNI's socket; then the command. What is none of the chart's volumes cannot be written where we would. */
const VOLUMES = `
roots=$1 token=$2 sockets=$3; shift 3
mount --bind "$sockets" /mnt
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets/istio/crl /run/secrets/tokens /run/ztunnel
mount --move /mnt /run/ztunnel
cp "$roots" /run/secrets/istio/root-cert.pem
cp "$token" /run/secrets/tokens/istio-token
mount -t tmpfs -o ro tmpfs /var/lib
exec "$@"
`;

setDefaultTimeout(120_000);

describeUnless(firstReason(needsKubernetes, needsIstiod, needsIstioCni, needsProgram("dig"), needsProgram("curl")))("our ztunnel under Istio's CNI", () => {
  const folder = mkdtempSync(join(tmpdir(), "weft-under-istio-cni-"));
  const brought: AsyncDisposable[] = [];
  const running = new Set<Agent>();
  let network: MeshNetwork;
  let east: Node;
  let west: Node;
  /** Clients here, servers there; one that comes later by the plugin, one that nobody has in the mesh. */
  let front: Workload;
  let web: Workload;
  let later: Workload;
  let outside: Workload;
  let server: ApiServer;
  let istiod: Istiod;
  let cniEast: IstioCni;
  let cniWest: IstioCni;
  let eastAgent: Agent;
  let westAgent: Agent;

  const podOf = (at: Workload, { serviceAccount = at.name, labels = {}, namespace = "shop" }: { readonly serviceAccount?: string; readonly labels?: Readonly<Record<string, string>>; readonly namespace?: string } = {}): KubeObject => {
    const one = objects.pod(at.name, namespace, { labels: { app: at.name, ...labels }, node: at.node.name, ip: at.ipv4, serviceAccount, ports: [{ name: "http", containerPort: PORT }] });
    return { ...one, status: { ...(one["status"] as object), podIPs: at.addresses.map((ip) => ({ ip })) } };
  };
  const podNow = async (name: string): Promise<{ readonly metadata: { readonly uid: string; readonly annotations?: Readonly<Record<string, string>> } }> => {
    const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/shop/pods/${name}` });
    if (!answer.ok) throw new Error(answer.error.message);
    return answer.value as Awaited<ReturnType<typeof podNow>>;
  };
  const inMesh = (name: string): Promise<unknown> => until(`Istio's CNI to call ${name} redirected`, SHOWS_MS, async () => (await podNow(name)).metadata.annotations?.[REDIRECTION] === "enabled");
  const told = (name: string): Promise<unknown> => until(`istiod to tell both nodes that ${name} takes HBONE`, SHOWS_MS, async () =>
    (await Promise.all([eastAgent, westAgent].map((agent) => agent.admin("GET", "/config_dump")))).every((dump) => (JSON.parse(dump) as { workloads: readonly { name: string; protocol: string }[] }).workloads.some((each) => each.name === name && each.protocol === "HBONE")));
  const known = async (agent: Agent): Promise<number> => agent.metric("workload_manager_active_proxy_count");
  const url = (host: string, port = PORT): string => `http://${host}:${port}/`;

  /** One more ztunnel of a node, as a DaemonSet starts it: a pod of the API with a token of its own. */
  const ztunnel = async (node: Node, cni: IstioCni, generation: number): Promise<Agent> => {
    const name = `ztunnel-${node.name}-${generation}`;
    const place = node.workload(name);
    await apply(server.client, objects.pod(name, ISTIO, { labels: { app: "ztunnel" }, node: node.name, ip: place.ipv4, serviceAccount: "ztunnel" }));
    writeFileSync(join(folder, `${name}.token`), await objects.tokenFor(server.client, "ztunnel", ISTIO, { audience: "istio-ca", pod: name }), { mode: 0o600 });
    brought.push(await bringPort(place, istiod.port));
    const address = `127.0.0.1:${istiod.port}`;
    // As its chart has it, peerCaCrl enabled: variables, arguments and volumes. But for the address of istiod, which is the box's.
    const variables = {
      CA_ADDRESS: address, XDS_ADDRESS: address, ALT_XDS_HOSTNAME: `istiod.${ISTIO}.svc`, ALT_CA_HOSTNAME: `istiod.${ISTIO}.svc`, RUST_LOG: "info", RUST_BACKTRACE: "1", ISTIO_META_CLUSTER_ID: "Kubernetes", INPOD_ENABLED: "true",
      TERMINATION_GRACE_PERIOD_SECONDS: "30", POD_NAME: name, POD_NAMESPACE: ISTIO, NODE_NAME: node.name, INSTANCE_IP: place.ipv4, SERVICE_ACCOUNT: "ztunnel", ZTUNNEL_CPU_LIMIT: "2", ZTUNNEL_RESOURCE_CPU_REQUEST: "1",
      CRL_PATH: "/var/run/secrets/istio/crl/ca-crl.pem", TMPDIR: join(folder, `tmp-${name}`),
    };
    mkdirSync(variables.TMPDIR);
    const volumes = [join(folder, "root.pem"), join(folder, `${name}.token`), dirname(cni.zdsSocket)];
    const argv = ["unshare", "--mount", "--", "sh", "-euc", VOLUMES, "volumes", ...volumes, "env", ...Object.entries(variables).map(([key, value]) => `${key}=${value}`), process.execPath, join(ROOT, "src/main.ts"), "proxy", "ztunnel"];
    const agent = new Agent(place, argv, join(folder, `${name}.log`));
    running.add(agent);
    return agent;
  };

  beforeAll(async () => {
    network = MeshNetwork.create();
    [east, west] = [network.node("east"), network.node("west")];
    [front, later, outside, web] = [east.workload("front"), east.workload("later"), east.workload("outside"), west.workload("web")];
    await Promise.all([serve(web, "http", PORT, "web"), serve(web, "echo", ECHO_PORT), serve(front, "http", PORT, "front"), serve(later, "http", PORT, "later")]);
    server = await startApiServer();
    await installDefinitions(server.client);
    await apply(server.client, objects.namespace(ISTIO), objects.namespace("shop", { "istio.io/dataplane-mode": "ambient" }), objects.namespace("elsewhere"), objects.node("east"), objects.node("west"), objects.serviceAccount("ztunnel", ISTIO),
      ...["front", "web", "later"].map((name) => objects.serviceAccount(name, "shop")), podOf(front), podOf(web), podOf(outside, { namespace: "elsewhere", serviceAccount: "default" }),
      objects.service("web", "shop", { clusterIP: VIP, selector: { app: "web" }, ports: [{ name: "http", port: 80, targetPort: "http" }] }),
      { apiVersion: "security.istio.io/v1", kind: "PeerAuthentication", metadata: { name: "default", namespace: "shop" }, spec: { mtls: { mode: "STRICT" } } },
      { apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: "web", namespace: "shop" }, spec: { selector: { matchLabels: { app: "web" } }, action: "ALLOW", rules: [{ from: [{ source: { principals: ["cluster.local/ns/shop/sa/front", "cluster.local/ns/shop/sa/later"] } }] }] } });
    istiod = await startIstiod(server);
    writeFileSync(join(folder, "root.pem"), await until("istiod's roots", SHOWS_MS, async () => {
      const answer = await server.client.request({ method: "GET", path: `/api/v1/namespaces/${ISTIO}/configmaps/istio-ca-root-cert` });
      return answer.ok ? (answer.value as { data: Record<string, string> }).data["root-cert.pem"] : null;
    }));
    [cniEast, cniWest] = await Promise.all([
      IstioCni.start({ server, node: east, nftables: false }, [{ workload: front, uid: (await podNow("front")).metadata.uid }]),
      IstioCni.start({ server, node: west, nftables: true }, [{ workload: web, uid: (await podNow("web")).metadata.uid }]),
    ]);
    [eastAgent, westAgent] = [await ztunnel(east, cniEast, 1), await ztunnel(west, cniWest, 1)];
    await Promise.all([eastAgent.start(), westAgent.start()]);
  }, 300_000);

  afterAll(async () => {
    await Promise.all([...running].map((agent) => agent.kill()));
    await Promise.all([cniEast, cniWest].map((cni) => cni?.[Symbol.asyncDispose]()));
    await Promise.all(brought.map((port) => port[Symbol.asyncDispose]()));
    await istiod?.end();
    await server?.stop();
    await network?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("pods that were there come with its snapshot, and are called redirected", async () => {
    await Promise.all(["front", "web"].map(inMesh));
    await Promise.all(["front", "web"].map(told));
    expect(await Promise.all([eastAgent, westAgent].map(known))).toEqual([1, 1]);
    for (const { log } of [eastAgent, westAgent]) expect(log).not.toMatch(/has no effect|\terror\t/);
    expect((await front.run(["iptables", "-t", "nat", "-S"])).stdout).toContain("--to-ports 15001");
    expect((await web.run(["nft", "list", "table", "inet", "istio-ambient-nat"])).stdout).toContain("redirect to :15001");
  });

  test("traffic passes their rules and our sockets, both ways, and nobody on the wire reads it", async () => {
    using wire = network.witness(east, west);
    const mark = westAgent.mark();
    expect(await ask(front, "get", url(VIP, 80))).toBe(`200 web to ${front.ipv4}`);
    expect(await ask(front, "get", url(web.ipv4))).toBe(`200 web to ${front.ipv4}`);
    expect(await ask(web, "get", url(front.ipv4))).toBe(`200 front to ${web.ipv4}`);
    if (web.ipv6 !== null) expect(await ask(front, "get", url(`[${web.ipv6}]`))).toBe(`200 web to ${front.ipv6}`);
    expect(wire.saw("HTTP/1.1")).toBe(false);
    expect(wire.bytesOnPort(15008)).toBeGreaterThan(1000);
    const [line] = await westAgent.connections({ direction: "inbound", "src.identity": "spiffe://cluster.local/ns/shop/sa/front" }, mark);
    expect(line).toMatchObject({ "dst.identity": "spiffe://cluster.local/ns/shop/sa/web" });
  });

  testUnless(needsIstioctl)("istioctl shows the connections of both ends", async () => {
    const talk = front.exec(program("talk", web.ipv4, ECHO_PORT), { stderr: "inherit" });
    const rows = async (agent: Agent): Promise<string> => {
      const file = join(folder, "dump.json");
      writeFileSync(file, await agent.admin("GET", "/config_dump"));
      return Bun.spawnSync([process.env["ISTIOCTL_BIN"]!, "ztunnel-config", "connections", "--file", file], { env: { HOME: folder, KUBECONFIG: server.kubeconfig } }).stdout.toString();
    };
    for (const [agent, wanted] of [[eastAgent, `^front\\.shop +Outbound +front\\.shop:\\d+ +web\\.shop:15008 +web\\.shop:${ECHO_PORT} +HBONE$`], [westAgent, `^web\\.shop +Inbound +web\\.shop:${ECHO_PORT} +front\\.shop:\\d+ +HBONE$`]] as const) {
      let last = "";
      await until(() => `${wanted} in\n${last}`, SHOWS_MS, async () => new RegExp(wanted, "m").test((last = await rows(agent))));
    }
    talk.kill();
  });

  test("a pod's questions for names are answered, with what istiod told of its services", async () => {
    expect((await front.run(["dig", "+short", "+tries=1", "+time=3", "@198.19.0.10", HOST])).stdout.trim()).toBe(VIP);
    expect((await front.run(["dig", "+tcp", "+short", "+tries=1", "+time=3", "@198.19.0.10", HOST])).stdout.trim()).toBe(VIP);
  });

  test("the node's own probes reach a pod that takes nothing in the clear from others", async () => {
    for (const node of [east, west]) {
      const pod = node === east ? front : web;
      expect((await node.run(["curl", "--silent", "--max-time", "5", url(pod.ipv4)])).stdout.trim()).toBe(`${pod.name} to ${PROBE_ADDRESS}`);
    }
    const mark = westAgent.mark();
    expect(await ask(outside, "get", url(web.ipv4))).toStartWith("failed");
const [line] = await westAgent.connections({ direction: "inbound", "src.workload": "outside", decision: "deny" }, mark);
    expect(line!["policy"]).toContain("istio_converted_static_strict");
  });

  test("a new pod starts in the mesh: the plugin returns once we listen in it", async () => {
    await apply(server.client, podOf(later));
    cniEast.runs(later, (await podNow("later")).metadata.uid);
    const added = await cniEast.call("ADD", later, "shop");
    expect(added.exitCode).toBe(0);
    expect(JSON.parse(added.stdout)).toMatchObject({ ips: [{ address: `${later.ipv4}/32` }, {}] });
    await later.listening(15001, 0);
    expect(await ask(later, "get", url(web.ipv4))).toBe(`200 web to ${later.ipv4}`);
    await inMesh("later");
    await told("later");
    expect(await ask(web, "get", url(later.ipv4))).toBe(`200 later to ${web.ipv4}`);
  });

  test("its agent is killed and comes again: what is connected goes on, what came meanwhile is in the mesh", async () => {
    const talk = front.exec(program("talk", web.ipv4, ECHO_PORT), { stderr: "inherit" });
    await cniEast.killAgent();
    expect(await ask(front, "get", url(web.ipv4))).toBe(`200 web to ${front.ipv4}`);
    const refused = await cniEast.call("ADD", later, "shop");
    expect(refused.exitCode).not.toBe(0);
    const mark = eastAgent.mark();
    await cniEast.startAgent();
    await eastAgent.logged(/every workload of this node is known.*workloads=2/, mark, SHOWS_MS);
    expect(await known(eastAgent)).toBe(2);
    expect((await cniEast.call("ADD", later, "shop")).exitCode).toBe(0);
    expect(await ask(later, "get", url(web.ipv4))).toBe(`200 web to ${later.ipv4}`);
    expect(talk.exitCode).toBeNull();
    talk.kill();
  });

  test("a pod that is taken out of the mesh is let go of: its rules are gone, and it is reached in the clear", async () => {
    await apply(server.client, podOf(later, { labels: { "istio.io/dataplane-mode": "none" } }));
    await until("its annotation to be gone", SHOWS_MS, async () => (await podNow("later")).metadata.annotations?.[REDIRECTION] === undefined);
    await until("its listeners to be gone", SHOWS_MS, async () => (await known(eastAgent)) === 1);
    expect((await later.run(["iptables", "-t", "nat", "-S"])).stdout).not.toContain("ISTIO");
    expect(await ask(outside, "get", url(later.ipv4))).toBe(`200 later to ${outside.ipv4}`);
    await remove(server.client, podOf(later));
    expect((await cniEast.call("DEL", later, "shop")).exitCode).toBe(0);
  });

  test("another ztunnel takes a node over, as a DaemonSet with surge has it: no connection is refused or lost", async () => {
    const next = await ztunnel(west, cniWest, 2);
    const storm = front.run(program("storm", web.ipv4, ECHO_PORT, STORM, CONCURRENCY));
    await until("the storm to have begun", SHOWS_MS, async () => (await westAgent.metric("istio_tcp_connections_opened_total", { reporter: "destination" })) > CONCURRENCY);
    await next.start();
    const ended = westAgent.stop();
    const { stdout, stderr } = await storm;
    expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
    expect(await ended).toBe(0);
    westAgent = next;
  });

  test("the program is replaced in its place, with its sockets in their pods: no connection is refused or lost", async () => {
    const storm = front.run(program("storm", web.ipv4, ECHO_PORT, STORM, CONCURRENCY));
    const opened = await westAgent.metric("istio_tcp_connections_opened_total", { reporter: "destination" });
    await until("the storm to have begun", SHOWS_MS, async () => (await westAgent.metric("istio_tcp_connections_opened_total", { reporter: "destination" })) > opened + CONCURRENCY);
    const replaced = await westAgent.replace();
    const { stdout, stderr } = await storm;
    expect(`${stdout.trim().split("\n").at(-1)}${stderr}`).toBe(`ok ${STORM}`);
    expect(await replaced.exited).toBe(0);
    expect(await known(westAgent)).toBe(1);
  });

  test("ours is killed and comes again: nothing passes meanwhile, everything after", async () => {
    await eastAgent.kill();
    expect(await ask(front, "get", url(web.ipv4))).toStartWith("failed");
    await eastAgent.start();
    expect(await known(eastAgent)).toBe(1);
    expect(await ask(front, "get", url(VIP, 80))).toBe(`200 web to ${front.ipv4}`);
  });

  test("a pod that is deleted is let go of", async () => {
    await remove(server.client, podOf(front));
    await until("its listeners to be gone", SHOWS_MS, async () => (await known(eastAgent)) === 0);
  });
});
