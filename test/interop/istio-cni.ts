// Istio's own CNI on a node of a test network: its node agent (`install-cni`) beside a real API server, and its plugin, called as a container
// runtime would call it. ISTIO_CNI_AGENT_BIN and ISTIO_CNI_PLUGIN_BIN name the programs. The agent has the paths of its image and of its
// DaemonSet in a root of its own, so that nothing of the machine's is written; it finds pods that are there already in /host/proc.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bringPort, needsSocat } from "../kit/bring-port.ts";
import { needsBinary, firstReason, needsProgram, type SkipReason } from "../kit/skip.ts";
import { until } from "../kit/until.ts";
import type { Node, RunResult, Workload } from "../kit/network.ts";
import type { ApiServer } from "../kubernetes/api-server.ts";

export const needsIstioCni: SkipReason = firstReason(needsBinary("ISTIO_CNI_AGENT_BIN"), needsBinary("ISTIO_CNI_PLUGIN_BIN"), needsSocat, needsProgram("nft"));

const READY_MS = 60_000;
const READINESS_URL = "http://127.0.0.1:8000/readyz";
/** What a node's own CNI has written before a mesh comes. */
const CONFLIST = { cniVersion: "1.0.0", name: "pods", plugins: [{ type: "bridge", bridge: "cni0" }] };
/** As its chart has them. */
const SELECTORS = "- podSelector:\n    matchLabels: {istio.io/dataplane-mode: ambient}\n- podSelector:\n    matchExpressions:\n    - {key: istio.io/dataplane-mode, operator: NotIn, values: [none]}\n  namespaceSelector:\n    matchLabels: {istio.io/dataplane-mode: ambient}\n";

/**
 * Arguments: the root to make, this node's own folder, the folder of the plugin's program, then the command. Whoever has a `/host` sees the
 * node through it; `/run` is the container's own.
 */
const IN_ITS_IMAGE = `
root=$1 own=$2 plugin=$3; shift 3
mount -t tmpfs tmpfs "$root"
for each in /*; do
  case $each in /run | /opt | /host) continue ;; esac
  if [ -L "$each" ]; then cp -P "$each" "$root/"; elif [ -d "$each" ]; then mkdir "$root$each"; mount --rbind "$each" "$root$each"; fi
done
mkdir -p "$root/run/secrets/kubernetes.io" "$root/opt/cni/bin" "$root/host/run" "$root/host/opt/cni/bin" "$root/host/proc"
mkdir "$root/host/var"
ln -s ../run "$root/host/var/run"
ln -s "$own/serviceaccount" "$root/run/secrets/kubernetes.io/serviceaccount"
mount --rbind /run "$root/host/run"
mount --bind "$own/bin" "$root/host/opt/cni/bin"
mount --bind "$own/proc" "$root/host/proc"
cp "$plugin" "$root/opt/cni/bin/istio-cni"
exec chroot "$root" "$@"
`;

export interface IstioCniOptions {
  readonly server: ApiServer;
  readonly node: Node;
  /** Whose rules: its own nftables, or iptables. */
  readonly nftables: boolean;
}

export class IstioCni implements AsyncDisposable {
  readonly #options: IstioCniOptions;
  readonly #folder = mkdtempSync(join(tmpdir(), "weft-istio-cni-"));
  readonly #port: string;
  #api: AsyncDisposable | null = null;
  #agent: Bun.Subprocess | null = null;
  #processes = 100;

  private constructor(options: IstioCniOptions) {
    this.#options = options;
    const { server, node } = options;
    const kubeconfig = JSON.parse(readFileSync(server.kubeconfig, "utf8")) as { clusters: { cluster: { server: string; "certificate-authority": string } }[]; users: { user: { token: string } }[] };
    const { cluster } = kubeconfig.clusters[0]!;
    this.#port = new URL(cluster.server).port;
    for (const each of ["serviceaccount", "proc/1/ns", "bin", "net.d", "run", "root"]) mkdirSync(join(this.#folder, each), { recursive: true });
    writeFileSync(join(this.#folder, "serviceaccount/token"), kubeconfig.users[0]!.user.token, { mode: 0o600 });
    writeFileSync(join(this.#folder, "serviceaccount/ca.crt"), readFileSync(cluster["certificate-authority"]));
    writeFileSync(join(this.#folder, "net.d/10-pods.conflist"), JSON.stringify(CONFLIST));
    writeFileSync(join(this.#folder, "log"), "");
    // With nftables it tells the kubelet by its user.
    const first = join(this.#folder, "proc/1");
    symlinkSync(`/host${node.namespacePath}`, join(first, "ns/net"));
    writeFileSync(join(first, "comm"), "kubelet\n");
    writeFileSync(join(first, "cmdline"), "/usr/bin/kubelet\0");
    writeFileSync(join(first, "status"), "Name:\tkubelet\nTgid:\t1\nNSpid:\t1\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n");
  }

  /** Starts the agent and waits until it is ready. What is in `runs` at that time is found by it. */
  static async start(options: IstioCniOptions, running: readonly { readonly workload: Workload; readonly uid: string }[] = []): Promise<IstioCni> {
    const cni = new IstioCni(options);
    for (const { workload, uid } of running) cni.runs(workload, uid);
    cni.#api = await bringPort(options.node, Number(cni.#port));
    await cni.startAgent();
    return cni;
  }

  get zdsSocket(): string {
    return join(this.#folder, "run/ztunnel.sock");
  }

  get log(): string {
    return readFileSync(join(this.#folder, "log"), "utf8");
  }

  /** From now on a process of the pod is to be seen in the node's /proc. */
  runs(workload: Workload, uid: string): void {
    const pid = ++this.#processes;
    const folder = join(this.#folder, "proc", String(pid));
    mkdirSync(join(folder, "ns"), { recursive: true });
    symlinkSync(`/host${workload.namespacePath}`, join(folder, "ns/net"));
    writeFileSync(join(folder, "stat"), `${pid} (app) S ${Array.from({ length: 49 }, () => pid).join(" ")}\n`);
    const slice = uid.replaceAll("-", "_");
    writeFileSync(join(folder, "cgroup"), `0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod${slice}.slice/cri-containerd-${"0123456789abcdef".repeat(4)}.scope\n`);
  }

  async startAgent(): Promise<void> {
    const { node, server, nftables } = this.#options;
    const started = node.exec(["unshare", "--mount", "--", "sh", "-euc", IN_ITS_IMAGE, "image", join(this.#folder, "root"), this.#folder, process.env["ISTIO_CNI_PLUGIN_BIN"]!, "sh", "-c", 'exec "$0" --log_output_level=all:debug >>"$1" 2>&1', process.env["ISTIO_CNI_AGENT_BIN"]!, join(this.#folder, "log")], {
      stdout: "ignore", stderr: "inherit",
      env: {
        KUBECONFIG: server.kubeconfig, KUBERNETES_SERVICE_HOST: "127.0.0.1", KUBERNETES_SERVICE_PORT: this.#port, NODE_NAME: node.name, KUBERNETES_NODE_NAME: node.name, POD_NAME: `istio-cni-${node.name}`, POD_NAMESPACE: "istio-system",
        AMBIENT_ENABLED: "true", AMBIENT_DNS_CAPTURE: "true", AMBIENT_IPV6: String(node.ipv6 !== null), AMBIENT_ENABLEMENT_SELECTOR: SELECTORS, AMBIENT_RECONCILE_POD_RULES_ON_STARTUP: "true", NATIVE_NFTABLES: String(nftables),
        // Where both kinds of iptables are, it may install with one and clear up with the other.
        FORCE_IPTABLES_BINARY: "nft", ALLOW_SWITCH_TO_HOST_NS: "true", REPAIR_ENABLED: "false", CHAINED_CNI_PLUGIN: "true", EXCLUDE_NAMESPACES: "kube-system", MOUNTED_CNI_NET_DIR: join(this.#folder, "net.d"), CNI_AGENT_RUN_DIR: join(this.#folder, "run"), ZTUNNEL_UDS_ADDRESS: this.zdsSocket,
      },
    });
    this.#agent = started;
    await until(() => `Istio's CNI agent on ${node.name} to be ready:\n${this.log.slice(-4000)}`, READY_MS, async () => {
      if (started.exitCode !== null) throw new Error(`Istio's CNI agent on ${node.name} ended with status ${started.exitCode}:\n${this.log.slice(-4000)}`);
      return (await node.run(["curl", "--silent", "--fail", "--max-time", "2", READINESS_URL])).exitCode === 0;
    });
  }

  async killAgent(): Promise<void> {
    this.#agent?.kill("SIGKILL");
    await this.#agent?.exited;
    this.#agent = null;
  }

  /** The plugin, with the configuration that the agent has put into the node's list, as the runtime calls it for a new pod. */
  async call(command: "ADD" | "DEL", pod: Workload, namespace: string): Promise<RunResult> {
    const list = JSON.parse(readFileSync(join(this.#folder, "net.d/10-pods.conflist"), "utf8")) as { cniVersion: string; name: string; plugins: { type: string }[] };
    const plugin = list.plugins.find(({ type }) => type === "istio-cni");
    if (plugin === undefined) throw new Error(`Istio's CNI agent has not put its plugin into the list: ${JSON.stringify(list)}`);
    const { cniVersion, name } = list;
    const prevResult = { cniVersion, interfaces: [{ name: "eth0", sandbox: pod.namespacePath }], ips: pod.addresses.map((address) => ({ address: `${address}/${address.includes(":") ? 128 : 32}`, interface: 0 })) };
    return await this.#options.node.run([join(this.#folder, "bin/istio-cni")], {
      stdin: new TextEncoder().encode(JSON.stringify({ ...plugin, cniVersion, name, prevResult })),
      env: {
        CNI_COMMAND: command, CNI_CONTAINERID: "c0ffee", CNI_NETNS: pod.namespacePath, CNI_IFNAME: "eth0", CNI_PATH: join(this.#folder, "bin"),
        CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${pod.name};K8S_POD_INFRA_CONTAINER_ID=c0ffee`,
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killAgent();
    await this.#api?.[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}
