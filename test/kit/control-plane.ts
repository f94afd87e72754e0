// A control plane of the test's own for nodes in the box: xDS and a CA on a node that nobody else uses, and a CNI agent for each other
// node, which tells its pods (ZDS) and makes their rules. Agents are started with `environmentOf`.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CaServer } from "../../src/ca/server.ts";
import { newToken, parseTokens, type TokenVerifier } from "../../src/ca/tokens.ts";
import { RULES_OWNER } from "../../src/cni/pod-capture.ts";
import { type MeshedPod, ZdsServer } from "../../src/cni/zds-server.ts";
import { formatSocketAddress, type IpAddress, isIpv6 } from "../../src/core/ip.ts";
import { type Clock, systemClock } from "../../src/core/ports.ts";
import { systemTimers } from "../../src/net/timers.ts";
import { REDIRECT_DEFAULTS } from "../../src/net/redirect/options.ts";
import { installRedirect } from "../../src/net/redirect/redirect.ts";
import { type TestCa, testCa } from "./certificates.ts";
import { logPath } from "./log-path.ts";
import { Agent } from "./mesh.ts";
import type { Node, Place, Workload } from "./network.ts";
import { PublishedMesh } from "./published-mesh.ts";
import { TestXdsServer, XDS_SERVER_NAME } from "./xds-server.ts";

const ROOT = join(import.meta.dir, "../..");
const XDS_PORT = 15012;
const CA_PORT = 15013;

/** A node's CNI agent: its ZDS end, and the rules that it puts into a pod before it tells of it. */
export class TestCni {
  readonly path: string;
  readonly #pods: MeshedPod[] = [];
  readonly #server: ZdsServer;

  constructor(directory: string, node: Node) {
    this.path = join(directory, `${node.name}.sock`);
    this.#server = new ZdsServer({ path: this.path, pods: () => this.#pods, onConnections: () => {} });
    const listening = this.#server.listen();
    if (!listening.ok) throw new Error(listening.error);
  }

  /** Resolves when the ztunnel has answered; at once when there is none yet. */
  async add(pod: Workload): Promise<void> {
    this.#redirect(pod);
    const meshed = this.#meshed(pod);
    this.#pods.push(meshed);
    if (this.#server.connected === 0) return;
    const added = await this.#server.add(meshed, 5_000);
    if (!added.ok) throw new Error(added.error);
  }

  /** A pod that runs outside the mesh: told first, then captured if the ztunnel says that it can be. @returns why it cannot yet, or null. */
  async join(pod: Workload): Promise<string | null> {
    const meshed = this.#meshed(pod);
    const added = await this.#server.add(meshed, 5_000, true);
    if (!added.ok) return added.error;
    this.#redirect(pod);
    this.#pods.push(meshed);
    return null;
  }

  #meshed(pod: Workload): MeshedPod {
    return { uid: `uid-of-${pod.name}`, namespace: "shop", name: pod.name, serviceAccount: pod.name, namespaceFd: () => pod.namespaceFd };
  }

  #redirect(pod: Workload): void {
    const captured = installRedirect(pod.namespaceFd, { ...REDIRECT_DEFAULTS, owner: RULES_OWNER });
    if (!captured.ok) throw new Error(captured.error.message);
  }

  async remove(pod: Workload): Promise<void> {
    this.#pods.splice(this.#pods.findIndex(({ name }) => name === pod.name), 1);
    await this.#server.remove(`uid-of-${pod.name}`);
  }

  close(): void {
    this.#server.close();
  }
}

export class TestControlPlane implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "weft-control-plane-"));
  readonly mesh = new PublishedMesh();
  readonly hub: Node;
  readonly #address: IpAddress;
  readonly #ca: TestCa;
  readonly #token = newToken();
  readonly #tokens: TokenVerifier;
  readonly #clock: Clock;
  #certificates: CaServer | null = null;
  readonly #cni = new Map<Node, TestCni>();
  #xds: TestXdsServer | null = null;

  private constructor(hub: Node, address: IpAddress, clock: Clock) {
    this.hub = hub;
    this.#address = address;
    // As new as an installation's.
    this.#ca = testCa({ nowMs: clock.wallMs() });
    writeFileSync(join(this.directory, "root.pem"), this.#ca.rootPem);
    writeFileSync(join(this.directory, "token"), this.#token.token, { mode: 0o600 });
    const tokens = parseTokens(JSON.stringify({ tokens: [{ name: "nodes", sha256: this.#token.sha256, namespaces: "all" }] }));
    if (!tokens.ok) throw new Error(tokens.error);
    this.#tokens = tokens.value;
    this.#clock = clock;
  }

  /** @param address the hub's, by which it is reached. @param clock of the CA. */
  static async start(hub: Node, address: IpAddress = hub.ipv4, clock: Clock = systemClock): Promise<TestControlPlane> {
    const made = new TestControlPlane(hub, address, clock);
    await made.serve();
    return made;
  }

  get xds(): TestXdsServer {
    if (this.#xds === null) throw new Error("xDS is not served now");
    return this.#xds;
  }

  /** A process that starts anew: it knows what there is, and nothing of its clients. */
  async serve(): Promise<void> {
    const certificates = (this.#certificates = new CaServer({
      authority: this.#ca.authority, tokens: this.#tokens, clock: this.#clock, timers: systemTimers, serverNames: [{ kind: "dns", dnsName: XDS_SERVER_NAME }], record: () => {}, onEvent: () => {},
    }));
    let listening: Promise<unknown> = Promise.resolve();
    this.hub.inside(() => void (listening = certificates.listen({ host: this.#address, port: CA_PORT })));
    await listening;
    this.#xds = await TestXdsServer.start({ ca: this.#ca, token: this.#token.token, host: this.#address, port: XDS_PORT, inside: (listen) => this.hub.inside(listen) });
    const { workloads, services, policies } = this.mesh.mesh;
    if (workloads.size > 0) this.#xds.xds.publish(new PublishedMesh().change({ workloads: [...workloads.values()], services: [...services.values()], policies: [...policies.values()] }, this.mesh.l7));
  }

  /** As a kill would: nobody tells anything, nobody signs anything. */
  async end(): Promise<void> {
    this.#certificates?.destroy();
    this.#certificates = null;
    await this.#xds?.[Symbol.asyncDispose]();
    this.#xds = null;
  }

  publish(...change: Parameters<PublishedMesh["change"]>): void {
    this.xds.xds.publish(this.mesh.change(...change));
  }

  cni(node: Node): TestCni {
    let cni = this.#cni.get(node);
    if (cni === undefined) this.#cni.set(node, (cni = new TestCni(this.directory, node)));
    return cni;
  }

  /** The variables that a chart gives to an agent. */
  environmentOf(place: Place): Record<string, string> {
    const at = (port: number): string => `https://${formatSocketAddress({ ip: this.#address, port })}`;
    return {
      XDS_ADDRESS: at(XDS_PORT), CA_ADDRESS: at(CA_PORT), XDS_ROOT_CA: join(this.directory, "root.pem"), CA_ROOT_CA: join(this.directory, "root.pem"),
      ALT_XDS_HOSTNAME: XDS_SERVER_NAME, ALT_CA_HOSTNAME: XDS_SERVER_NAME, AUTH_TOKEN: join(this.directory, "token"), NODE_NAME: place.name, POD_NAME: `agent-${place.name}`, POD_NAMESPACE: "istio-system",
      INSTANCE_IP: isIpv6(this.#address) ? place.ipv6! : place.ipv4, CLUSTER_ID: "Kubernetes",
    };
  }

  /** Our own agent of a role. @param weft the program: these sources, or one that was built of others. */
  agent(role: "ztunnel" | "waypoint", place: Place, environment: Readonly<Record<string, string>> = {}, weft: readonly string[] = [process.execPath, join(ROOT, "src/main.ts")]): Agent {
    const variables = Object.entries({ ...this.environmentOf(place), ...environment }).map(([name, value]) => `${name}=${value}`);
    return new Agent(place, ["env", ...variables, ...weft, role, "--state", join(this.directory, `state-${place.name}`)], logPath(this.directory, `${place.name}.log`));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const cni of this.#cni.values()) cni.close();
    await this.end();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
