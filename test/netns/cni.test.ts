// The CNI plugin as a process, the agent it asks, a ztunnel that only acknowledges, and an API in memory: what a container runtime sees,
// and what is in the pod's namespace afterwards.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent } from "../../src/cni/agent.ts";
import { PLUGIN_TYPE } from "../../src/cni/conflist.ts";
import { Installer, type InstallerState } from "../../src/cni/installer.ts";
import { VERSIONS } from "../../src/cni/plugin-call.ts";
import { listenForPlugins, type PluginSocket } from "../../src/cni/plugin-socket.ts";
import { type IpAddress } from "../../src/core/ip.ts";
import { seededRandom, systemClock } from "../../src/core/ports.ts";
import { receiveWithDescriptors, sendWithDescriptors } from "../../src/net/fd-passing.ts";
import { close, SOCK_SEQPACKET } from "../../src/net/libc.ts";
import { namespaceIdentity } from "../../src/net/namespace.ts";
import { connectUnix } from "../../src/net/unix-socket.ts";
import { KubernetesClient } from "../../src/runtime/kubernetes/client.ts";
import { WorkloadRequestSchema, WorkloadResponseSchema, ZdsHelloSchema } from "../../src/wire/protobuf/istio/workload/zds/zds_pb.ts";
import { unsealed } from "../kit/box.ts";
import { Answerer, Conversation } from "../kit/conversation.ts";
import { FakeKubernetesApi } from "../kit/kubernetes-api.ts";
import { until } from "../kit/until.ts";
import { MeshNetwork, type Workload } from "../kit/network.ts";
import { describeUnless, firstReason, needsProgram } from "../kit/skip.ts";
import { quietLog } from "../kit/quiet-log.ts";

/** Longer than anything here takes on a busy machine. */
const WAIT_MS = 10_000;
const MAIN = join(import.meta.dir, "../../src/main.ts");
const UID = "6a0b3d8e-6d1f-4f0a-8f8e-0d6f6d1c2b3a";
const MARK = 0x539;
const REDIRECTION = "ambient.istio.io/redirection";

/** A ztunnel of which only the acknowledgements are real. */
class Acknowledger implements Disposable {
  /** `add web-1 4026531840:7`, `del UID`, `snapshot`. */
  readonly heard: string[] = [];
  readonly #fd: number;
  readonly #timer: ReturnType<typeof setInterval>;
  #changed = Promise.withResolvers<void>();
  /** What it says to an addition; empty accepts it. */
  refuseWith = "";

  constructor(path: string) {
    const connected = connectUnix(path, SOCK_SEQPACKET);
    if ("error" in connected) throw new Error(connected.error);
    this.#fd = connected.fd;
    sendWithDescriptors(this.#fd, toBinary(ZdsHelloSchema, create(ZdsHelloSchema, { version: 1 })), []);
    this.#timer = setInterval(() => this.#read(), 2);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    close(this.#fd);
  }

  async hears(line: string): Promise<void> {
    while (!this.heard.includes(line)) await this.#changed.promise;
  }

  #read(): void {
    const into = new Uint8Array(1024);
    for (;;) {
      const receipt = receiveWithDescriptors(this.#fd, into, 1);
      if (receipt.kind === "truncated") throw new Error(receipt.message);
      const { length, fds } = receipt.received;
      if (length <= 0) return;
      const { payload } = fromBinary(WorkloadRequestSchema, into.subarray(0, length));
      this.heard.push(payload.case === "add" ? `add ${payload.value.workloadInfo?.name} ${fds.map(namespaceIdentity).join()}` : payload.case === "del" ? `del ${payload.value.uid}` : payload.case === "keep" ? `keep ${payload.value.uid}` : "snapshot");
      for (const fd of fds) close(fd);
      const error = payload.case === "add" ? this.refuseWith : "";
      sendWithDescriptors(this.#fd, toBinary(WorkloadResponseSchema, create(WorkloadResponseSchema, { payload: { case: "ack", value: { error } } })), []);
      this.#changed.resolve();
      this.#changed = Promise.withResolvers();
    }
  }
}

describeUnless(firstReason(unsealed, needsProgram("nft")))("the CNI plugin and its agent", () => {
  let folder: string;
  let network: MeshNetwork;
  let pod: Workload;
  /** On another node, and nobody's. */
  let elsewhere: Workload;
  let api: FakeKubernetesApi;
  let agent: Agent;
  let plugins: PluginSocket;
  /** What keeps pods out, as the agent says it last. */
  let failing: string | null;
  /** Its log, of what is worth knowing. */
  const said: string[] = [];

  const socket = (): string => join(folder, "cni.sock");
  const zds = (): string => join(folder, "ztunnel.sock");

  const startAgent = async (): Promise<void> => {
    agent = new Agent({
      client: new KubernetesClient(api.access), node: "east", zdsSocket: zds(), excludedNamespaces: ["kube-system"], probeSource: false,
      capture: { dnsCapture: true, packetMark: MARK, probeAddresses: ["198.51.100.7" as IpAddress] },
      log: { ...quietLog("cni"), info: (message) => void said.push(message) }, clock: systemClock, random: seededRandom(1), onFailing: (said) => void (failing = said), onZtunnels: () => {}, drainMs: 60_000,
      times: { announceMs: 20, acceptMs: 10, retryFirstMs: 10, retryMaxMs: 100, startWaitMs: 300 },
    });
    await agent.start();
    const listening = listenForPlugins(socket(), (request, fd) => agent.handle(request, fd), () => {});
    if (!listening.ok) throw new Error(listening.error);
    plugins = listening.value;
  };

  beforeEach(async () => {
    said.length = 0;
    folder = mkdtempSync(join(tmpdir(), "weft-cni-"));
    network = MeshNetwork.create();
    pod = network.node("east").workload("web-1");
    elsewhere = network.node("west").workload("elsewhere");
    api = new FakeKubernetesApi();
    api.put("namespaces", { metadata: { name: "shop", labels: { "istio.io/dataplane-mode": "ambient" } } });
    api.put("namespaces", { metadata: { name: "kube-system", labels: {} } });
    api.put("pods", {
      metadata: { name: "web-1", namespace: "shop", uid: UID }, spec: { nodeName: "east", serviceAccountName: "web", containers: [{ livenessProbe: { tcpSocket: { port: 8080 } } }] }, status: { phase: "Pending" },
    });
    await startAgent();
  });

  afterEach(async () => {
    plugins.close();
    agent.stop();
    api[Symbol.dispose]();
    await network[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const call = async (command: string, change: { readonly namespace?: string; readonly socket?: string; readonly uid?: string; readonly valid?: readonly string[]; readonly cniVersion?: string } = {}) => {
    const config = {
      cniVersion: change.cniVersion ?? "1.1.0", name: "pods", type: PLUGIN_TYPE, socket: change.socket ?? socket(), excludedNamespaces: ["kube-system"],
      prevResult: { cniVersion: "1.1.0", ips: [{ address: `${pod.ipv4}/24` }], interfaces: [] }, "cni.dev/valid-attachments": (change.valid ?? []).map((containerID) => ({ containerID, ifname: "eth0" })),
    };
    const child = Bun.spawn([process.execPath, MAIN], {
      stdin: new TextEncoder().encode(JSON.stringify(config)), stdout: "pipe", stderr: "inherit",
      env: {
        ...process.env, CNI_COMMAND: command, CNI_CONTAINERID: "c0ffee", CNI_NETNS: pod.namespacePath, CNI_IFNAME: "eth0",
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${change.namespace ?? "shop"};K8S_POD_NAME=web-1;K8S_POD_UID=${change.uid ?? UID}`,
      },
    });
    const [text, status] = await Promise.all([new Response(child.stdout).text(), child.exited]);
    return { status, out: text === "" ? null : (JSON.parse(text) as Record<string, unknown>), config };
  };
  const rules = async (): Promise<string> => (await pod.run(["nft", "list", "tables"])).stdout.trim();
  const annotation = (): unknown => (api.get("pods", "shop/web-1")?.metadata["annotations"] as Record<string, string> | undefined)?.[REDIRECTION];

  test("ADD: the ztunnel has the pod's namespace, the rules are in force, the result is passed on, the pod is announced", async () => {
    using ztunnel = new Acknowledger(zds());
    const { status, out, config } = await call("ADD");
    expect(out).toEqual(config.prevResult);
    expect(status).toBe(0);
    expect(ztunnel.heard).toEqual(["snapshot", `add web-1 ${namespaceIdentity(pod.namespaceFd)}`]);
    expect(await rules()).toBe("table inet weft");
    expect((await pod.run(["nft", "list", "table", "inet", "weft"])).stdout).toContain('ip saddr 198.51.100.7 tcp dport 8080');
    await until("the pod to be announced", WAIT_MS, () => annotation() === "enabled");
    expect((await call("CHECK")).status).toBe(0);
    await pod.run(["nft", "flush", "table", "inet", "weft"]);
    const checked = await call("CHECK");
    expect(checked).toMatchObject({ status: 1, out: { code: 11 } });
    expect(checked.out?.["msg"]).toContain("the rules of shop/web-1 are not as they should be");
  });

  test("without a ztunnel the pod does not start, and the error says why and what to do", async () => {
    const { status, out } = await call("ADD");
    expect(status).toBe(1);
    expect(out).toMatchObject({ cniVersion: "1.1.0", code: 11 });
    expect(out?.["msg"]).toContain("shop/web-1 must be in the mesh (the label istio.io/dataplane-mode: ambient of namespace shop) and cannot be");
    expect(out?.["msg"]).toContain("is the DaemonSet ztunnel running here?");
    expect(await rules()).toBe("");
  });

  test("a ztunnel that cannot serve the pod: it does not start", async () => {
    using ztunnel = new Acknowledger(zds());
    ztunnel.refuseWith = "port 15008 is taken";
    const { status, out } = await call("ADD");
    expect(status).toBe(1);
    expect(out?.["msg"]).toContain("port 15008 is taken");
    expect(await rules()).toBe("");
  });

  test("an API that refuses: whether the pod must be in the mesh is not known, so it does not start", async () => {
    using _ztunnel = new Acknowledger(zds());
    api.refuseWith = 403;
    const { status, out } = await call("ADD");
    expect(status).toBe(1);
    expect(out?.["msg"]).toContain("whether shop/web-1 must be in the mesh is not known");
  });

  test("a pod that is not opted in starts as it is; so does one of an excluded namespace, with nobody to ask", async () => {
    using ztunnel = new Acknowledger(zds());
    api.put("namespaces", { metadata: { name: "shop", labels: {} } });
    expect((await call("ADD")).status).toBe(0);
    expect(await rules()).toBe("");
    expect(ztunnel.heard).toEqual(["snapshot"]);
    expect((await call("ADD", { namespace: "kube-system", socket: "/nobody/there.sock" })).status).toBe(0);
  });

  test("a namesake of the pod is not taken for it", async () => {
    using _ztunnel = new Acknowledger(zds());
    const { status, out } = await call("ADD", { uid: "11111111-2222-3333-4444-555555555555" });
    expect(status).toBe(1);
    expect(out?.["msg"]).toContain("another pod shop/web-1");
  });

  test("unlabelled: rules redirect nothing and then go, the ztunnel lets go, the pod is announced as outside", async () => {
    using ztunnel = new Acknowledger(zds());
    await call("ADD");
    await until("the pod to be announced", WAIT_MS, () => annotation() === "enabled");
    api.put("namespaces", { metadata: { name: "shop", labels: {} } });
    await ztunnel.hears(`del ${UID}`);
    expect(annotation()).toBeUndefined();
    await until("the rules to be gone", WAIT_MS, async () => (await rules()) === "");
  });

  /** Plays the ztunnel on one of its ports. */
  const proxyAt = (port: number): Answerer => Answerer.listen(pod, port, () => "proxied.", MARK);
  const sockets = async (state: string, filter: string): Promise<string> => (await pod.run(["ss", "-Htn", "state", state, ...filter.split(" ")])).stdout.trim();
  /** Through the outbound redirection, from a process of the pod. */
  const application = async (): Promise<Conversation> => {
    const talk = await Conversation.open(pod, { ip: elsewhere.ipv4, port: 8080 });
    await talk.receive("proxied.");
    return talk;
  };
  /** What a ztunnel opens for a stream of a tunnel: to the application, from its client's address. */
  const fromTunnel = async (): Promise<Conversation> => {
    const talk = await Conversation.open(pod, { ip: pod.ipv4, port: 8080 }, { mark: MARK, source: elsewhere.ipv4 });
    await talk.receive("application.");
    return talk;
  };
  const unlabel = (): void => api.put("namespaces", { metadata: { name: "shop", labels: {} } });

  const LEAVING: readonly { readonly how: string; readonly leave: () => Promise<void> }[] = [
    { how: "the mesh goes from the node", leave: () => agent.uninstall() },
    { how: "unlabelled", leave: async () => {
      unlabel();
      await until("the rules to be gone", WAIT_MS, async () => (await rules()) === "");
    } },
  ];
  for (const { how, leave } of LEAVING) {
    test.each([["outbound", application], ["from a tunnel", fromTunnel]] as const)(`${how}: a connection %s goes on with the rules that it needs, until it ends`, async (_, open) => {
      using _ztunnel = new Acknowledger(zds());
      using _proxy = proxyAt(15001);
      using _server = Answerer.listen(pod, 8080, () => "application.");
      await call("ADD");
      await until("the pod to be announced", WAIT_MS, () => annotation() === "enabled");
      using talk = await open();
      const gone = leave();
      await until("it is told of", WAIT_MS, () => said.some((line) => line.includes("connections through the mesh that are still open: 1;")));
      await talk.echoes("still here");
      expect(await rules()).toBe("table inet weft");
      talk[Symbol.dispose]();
      await gone;
      expect(await rules()).toBe("");
    }, 3 * WAIT_MS);

    test(`${how}: neither an idle tunnel nor what a closed connection left behind keeps the rules`, async () => {
      using _ztunnel = new Acknowledger(zds());
      // Its peer has ended, and it has not: as of a server that never answers.
      using _outbound = Answerer.listen(pod, 15001, () => "", MARK, "keeps");
      using _hbone = proxyAt(15008);
      await call("ADD");
      await until("the pod to be announced", WAIT_MS, () => annotation() === "enabled");
      using tunnel = await Conversation.open(elsewhere, { ip: pod.ipv4, port: 15008 });
      await tunnel.receive("proxied.");
      const client = pod.exec(["nc", "-d", elsewhere.ipv4, "8080"]);
      await until("its connection", WAIT_MS, async () => (await sockets("established", "sport = :15001")) !== "");
      client.kill();
      await client.exited;
      await until("what is left of it", WAIT_MS, async () => (await sockets("fin-wait-2", "dport = :8080")) !== "" && (await sockets("close-wait", "sport = :15001")) !== "");
      await leave();
      expect(await rules()).toBe("");
      expect(await tunnel.echoes("the tunnel needs no rule")).toBeTrue();
    }, 2 * WAIT_MS);
  }

  const eventsOf = (name: string) => api.everything.filter((id) => id.startsWith(`events shop/${name}.`));

  test("a pod that runs and cannot join: the reason is in its events", async () => {
    using _ztunnel = new Acknowledger(zds());
    api.put("pods", {
      metadata: { name: "lost", namespace: "shop", uid: "11111111-2222-3333-4444-555555555555" }, spec: { nodeName: "east", containers: [] }, status: { phase: "Running", podIPs: [{ ip: "198.18.1.99" }] },
    });
    const [id = ""] = await until("the event", WAIT_MS, () => (eventsOf("lost").length > 0 ? eventsOf("lost") : null));
    expect(api.get("events", id.slice("events ".length))).toMatchObject({
      involvedObject: { kind: "Pod", name: "lost", uid: "11111111-2222-3333-4444-555555555555" }, type: "Warning", reason: "NotInMesh",
      message: "its network namespace was not found: no process of it runs on this node",
    });
  });

  test("another reason soon after is in the readiness, and not in its events", async () => {
    using ztunnel = new Acknowledger(zds());
    const label = (labels: Record<string, string>) => api.put("namespaces", { metadata: { name: "shop", labels } });
    await call("ADD");
    api.put("pods", { ...api.get("pods", "shop/web-1")!, status: { phase: "Running", podIPs: [{ ip: pod.ipv4 }] } });
    label({});
    await ztunnel.hears(`del ${UID}`);
    ztunnel.refuseWith = "port 15008 is taken";
    label({ "istio.io/dataplane-mode": "ambient" });
    await until("the event", WAIT_MS, () => eventsOf("web-1").length > 0);
    ztunnel.refuseWith = "port 15001 is taken";
    await until("the other reason", WAIT_MS, () => failing?.includes(ztunnel.refuseWith));
    // What the agent writes comes in its order: the event of a pod that fails after that is the last.
    api.put("pods", { metadata: { name: "lost", namespace: "shop", uid: "11111111-2222-3333-4444-555555555555" }, spec: { nodeName: "east", containers: [] }, status: { phase: "Running", podIPs: [{ ip: "198.18.1.99" }] } });
    await until("its event", WAIT_MS, () => eventsOf("lost").length > 0);
    expect(eventsOf("web-1")).toHaveLength(1);
  });

  test("DEL ends it, and a DEL with nobody to ask succeeds: no pod is kept by an agent that is away", async () => {
    using ztunnel = new Acknowledger(zds());
    await call("ADD");
    expect((await call("DEL")).status).toBe(0);
    await ztunnel.hears(`del ${UID}`);
    expect((await call("DEL", { socket: "/nobody/there.sock" })).status).toBe(0);
  });

  test("STATUS: ready with a ztunnel, else not available", async () => {
    expect(await call("STATUS")).toMatchObject({ status: 1, out: { code: 50 } });
    using ztunnel = new Acknowledger(zds());
    await ztunnel.hears("snapshot");
    expect((await call("STATUS")).status).toBe(0);
    expect(await call("STATUS", { socket: "/nobody/there.sock" })).toMatchObject({ status: 1, out: { code: 50 } });
  });

  test("GC lets go of what the runtime no longer has, and of nothing that it has; with nobody to ask it says so at once", async () => {
    using ztunnel = new Acknowledger(zds());
    await call("ADD");
    expect((await call("GC", { valid: ["another", "c0ffee"] })).status).toBe(0);
    // What the agent tells its ztunnel comes in its order: CHECK is answered after it.
    expect((await call("CHECK")).status).toBe(0);
    expect(ztunnel.heard).not.toContain(`del ${UID}`);
    expect(await rules()).toBe("table inet weft");
    expect((await call("GC", { valid: ["another"] })).status).toBe(0);
    await ztunnel.hears(`del ${UID}`);
    const startMs = performance.now();
    expect(await call("GC", { socket: "/nobody/there.sock" })).toMatchObject({ status: 1, out: { code: 11 } });
    expect(performance.now() - startMs).toBeLessThan(WAIT_MS);
  });

  test("CHECK: a pod that need not be in the mesh is as it should be; one whose namespace is another is not", async () => {
    using _ztunnel = new Acknowledger(zds());
    await call("ADD");
    expect((await call("CHECK")).status).toBe(0);
    // The runtime made its sandbox anew, and ADD was not called for it.
    const made = pod;
    pod = made.node.workload("web-1-anew");
    expect(await call("CHECK")).toMatchObject({ status: 1, out: { code: 11, msg: expect.stringContaining("its rules are gone") } });
    pod = made;
    api.put("namespaces", { metadata: { name: "shop", labels: {} } });
    expect((await call("CHECK")).status).toBe(0);
  });

  test("VERSION: every version that the plugin takes, and each is answered in itself", async () => {
    using _ztunnel = new Acknowledger(zds());
    const { status, out } = await call("VERSION");
    expect({ status, out }).toEqual({ status: 0, out: { cniVersion: "1.1.0", supportedVersions: [...VERSIONS] } });
    for (const cniVersion of VERSIONS) expect((await call("CHECK", { cniVersion })).out).toMatchObject({ cniVersion, code: 11 });
    expect(await call("ADD", { cniVersion: "2.0.0" })).toMatchObject({ status: 1, out: { code: 1 } });
  });

  test("a second ztunnel is told everything; the newest is asked, and when it goes the first one is told what it missed", async () => {
    using first = new Acknowledger(zds());
    await first.hears("snapshot");
    {
      using second = new Acknowledger(zds());
      await second.hears("snapshot");
      await call("ADD");
      expect(second.heard).toContain(`add web-1 ${namespaceIdentity(pod.namespaceFd)}`);
      expect(first.heard).toEqual(["snapshot"]);
    }
    await first.hears(`add web-1 ${namespaceIdentity(pod.namespaceFd)}`);
  });

  test("the installer: the program and its entry are put there, put back when others write, and taken away without a trace", async () => {
    const [bin, conf] = [join(folder, "bin"), join(folder, "net.d")];
    mkdirSync(bin);
    mkdirSync(conf);
    const program = join(folder, "program");
    writeFileSync(program, "a program", { mode: 0o755 });
    const list = `${JSON.stringify({ cniVersion: "1.0.0", name: "pods", plugins: [{ type: "bridge" }] }, null, 2)}\n`;
    const states: InstallerState[] = [];
    const installer = new Installer({
      program, binDirectory: bin, configDirectory: conf, entry: { type: PLUGIN_TYPE, socket: socket(), excludedNamespaces: [] }, onState: (state) => states.push(state),
    });
    expect(installer.start().ok).toBeTrue();
    expect(states.at(-1)).toMatchObject({ kind: "waiting" });
    const path = join(conf, "10-pods.conflist");
    writeFileSync(path, list);
    await until("the plugin to be in the configuration", WAIT_MS, () => readFileSync(path, "utf8").includes(PLUGIN_TYPE));
    expect(readFileSync(join(bin, PLUGIN_TYPE), "utf8")).toBe("a program");
    writeFileSync(path, list.replace('"pods"', '"others"'));
    await until("the plugin to be in the configuration", WAIT_MS, () => readFileSync(path, "utf8").includes(PLUGIN_TYPE));
    expect(readFileSync(path, "utf8")).toContain('"others"');
    expect(installer.remove()).toEqual([]);
    expect(readFileSync(path, "utf8")).toBe(list.replace('"pods"', '"others"'));
    expect([...new Bun.Glob("**/*").scanSync({ cwd: folder, dot: true, onlyFiles: true })].filter((name) => name.startsWith("bin/") || name.startsWith("net.d/"))).toEqual(["net.d/10-pods.conflist"]);
  });

  test("the installer: whatever others do to the configuration or to the program, the list that the runtime reads has the plugin, and no other has", async () => {
    const [bin, conf] = [join(folder, "others-bin"), join(folder, "others-net.d")];
    for (const directory of [bin, conf]) mkdirSync(directory);
    const program = join(folder, "others-program");
    writeFileSync(program, "a program", { mode: 0o755 });
    const listOf = (name: string) => JSON.stringify({ cniVersion: "1.0.0", name, plugins: [{ type: "bridge" }] });
    const [path, first] = [join(conf, "10-pods.conflist"), join(conf, "05-others.conflist")];
    const has = (file: string): boolean => existsSync(file) && readFileSync(file, "utf8").includes(PLUGIN_TYPE);
    const states: InstallerState[] = [];
    const installer = new Installer({ program, binDirectory: bin, configDirectory: conf, entry: { type: PLUGIN_TYPE, socket: socket(), excludedNamespaces: [] }, onState: (state) => states.push(state) });
    writeFileSync(path, listOf("pods"));
    expect(installer.start().ok).toBeTrue();
    try {
      expect(has(path)).toBeTrue();
      // Another file in its place, as tools write that are careful.
      writeFileSync(`${path}.new`, listOf("renamed"));
      renameSync(`${path}.new`, path);
      await until("the plugin in the renamed list", WAIT_MS, () => has(path) && readFileSync(path, "utf8").includes("renamed"));
      // Half of a list, then the whole.
      writeFileSync(path, listOf("whole").slice(0, 40));
      await until("the installer to say what is wrong", WAIT_MS, () => states.some((state) => state.kind === "waiting" && state.why.includes("no JSON")));
      writeFileSync(path, listOf("whole"));
      await until("the plugin in the whole list", WAIT_MS, () => has(path) && readFileSync(path, "utf8").includes("whole"));
      // A list that the runtime reads before ours, and no more.
      writeFileSync(first, listOf("others"));
      await until("the plugin in the first list alone", WAIT_MS, () => has(first) && !has(path));
      rmSync(first);
      await until("the plugin back in the only list", WAIT_MS, () => has(path));
      // Nothing to be chained to, for a while.
      rmSync(path);
      await until("the installer to wait", WAIT_MS, () => states.at(-1)?.kind === "waiting");
      writeFileSync(path, listOf("again"));
      await until("the plugin in the list that came again", WAIT_MS, () => has(path));
      // The program, taken away: nobody watches that folder, but it is looked at, and with every change of the configuration.
      rmSync(join(bin, PLUGIN_TYPE));
      writeFileSync(path, listOf("once more"));
      await until("the program to be back", 2 * WAIT_MS, () => existsSync(join(bin, PLUGIN_TYPE)) && has(path));
      expect(statSync(join(bin, PLUGIN_TYPE)).mode & 0o777).toBe(0o755);
    } finally {
      installer.stop();
    }
  }, 6 * WAIT_MS);

  test("a configuration of one plugin becomes a list, again when it is written anew, and is given back", async () => {
    const [bin, conf] = [join(folder, "one-bin"), join(folder, "one-net.d")];
    for (const directory of [bin, conf]) mkdirSync(directory);
    const program = join(folder, "one-program");
    writeFileSync(program, "a program");
    const [single, list] = [join(conf, "05-pods.conf"), join(conf, "05-pods.conflist")];
    const one = { cniVersion: "0.3.1", name: "pods", type: "bridge" };
    writeFileSync(single, JSON.stringify(one), { mode: 0o600 });
    // What a runtime would read after it.
    writeFileSync(join(conf, "10-others.conflist"), JSON.stringify({ cniVersion: "1.0.0", name: "others", plugins: [{ type: "ptp" }] }));
    const states: InstallerState[] = [];
    const installer = new Installer({ program, binDirectory: bin, configDirectory: conf, entry: { type: PLUGIN_TYPE, socket: socket(), excludedNamespaces: [] }, onState: (state) => states.push(state) });
    expect(installer.start().ok).toBeTrue();
    expect(states.at(-1)).toEqual({ kind: "installed", file: list, changed: true });
    expect([existsSync(single), statSync(list).mode & 0o777, JSON.parse(readFileSync(list, "utf8")).plugins.map(({ type }: { type: string }) => type)]).toEqual([false, 0o600, ["bridge", PLUGIN_TYPE]]);
    writeFileSync(single, JSON.stringify({ ...one, mtu: 1400 }));
    await until("the new configuration in the list", WAIT_MS, () => !existsSync(single) && readFileSync(list, "utf8").includes("1400"));
    expect(readFileSync(join(conf, "10-others.conflist"), "utf8")).not.toContain(PLUGIN_TYPE);
    expect(installer.remove()).toEqual([]);
    expect([existsSync(list), JSON.parse(readFileSync(single, "utf8")), readdirSync(bin)]).toEqual([false, { ...one, mtu: 1400 }, []]);
  });

  test("a configuration of one plugin beside a list of its name that is another network is left to the operator", () => {
    const [bin, conf] = [join(folder, "two-bin"), join(folder, "two-net.d")];
    for (const directory of [bin, conf]) mkdirSync(directory);
    const other = JSON.stringify({ cniVersion: "1.0.0", name: "others", plugins: [{ type: "ptp" }] });
    writeFileSync(join(conf, "05-pods.conf"), JSON.stringify({ name: "pods", type: "bridge" }));
    writeFileSync(join(conf, "05-pods.conflist"), other);
    const program = join(folder, "two-program");
    writeFileSync(program, "a program");
    const states: InstallerState[] = [];
    const installer = new Installer({ program, binDirectory: bin, configDirectory: conf, entry: { type: PLUGIN_TYPE, socket: socket(), excludedNamespaces: [] }, onState: (state) => states.push(state) });
    expect(installer.start().ok).toBeTrue();
    expect(states.at(-1)).toMatchObject({ kind: "waiting", why: expect.stringContaining("is another network") });
    expect(readFileSync(join(conf, "05-pods.conflist"), "utf8")).toBe(other);
    installer.stop();
  });
});
