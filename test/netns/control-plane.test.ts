// Two nodes without a directory: a control plane tells the mesh over xDS, a CNI agent on each node its workloads over ZDS, and makes their
// rules. Once with our agents on both, and once with the reference ztunnel (ZTUNNEL_BIN) on one of them, in the mode in which it runs in a
// cluster.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CaServer } from "../../src/ca/server.ts";
import { newToken, parseTokens } from "../../src/ca/tokens.ts";
import { RULES_OWNER } from "../../src/cni/pod-capture.ts";
import { type MeshedPod, ZdsServer } from "../../src/cni/zds-server.ts";
import { namespacedName, type WorkloadUid } from "../../src/core/brand.ts";
import { systemClock } from "../../src/core/ports.ts";
import { systemTimers } from "../../src/identity/svid-cache.ts";
import { type Workload as WorkloadRecord } from "../../src/mesh/records.ts";
import { REDIRECT_DEFAULTS } from "../../src/net/redirect/options.ts";
import { installRedirect } from "../../src/net/redirect/redirect.ts";
import { missingZtunnel } from "../interop/reference-ztunnel.ts";
import { unsealed } from "../kit/box.ts";
import { HOUR_MS, testCa } from "../kit/certificates.ts";
import { Agent, ask, serve, until } from "../kit/mesh.ts";
import { match, member, policy, PRESENCE, service, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { PublishedMesh } from "../kit/published-mesh.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";
import { TestXdsServer, XDS_SERVER_NAME } from "../kit/xds-server.ts";

setDefaultTimeout(30_000);

const ROOT = join(import.meta.dir, "../..");
const XDS_PORT = 15012;
const CA_PORT = 15013;
const WEB = "shop/web.shop.svc.cluster.local";
const WEB_VIP = "198.18.250.60";
const READINESS = "http://127.0.0.1:15021/healthz/ready";
/** A denied connection is refused, or ends without an answer, by how far it got. */
const DENIED = /^(?!200 )/;

/** The node's CNI agent: its ZDS end, and the rules that it puts into a pod before it tells of it. */
class Cni {
  readonly path: string;
  readonly #pods: MeshedPod[] = [];
  readonly #server: ZdsServer;

  constructor(directory: string, node: Node) {
    this.path = join(directory, `${node.name}.sock`);
    this.#server = new ZdsServer({ path: this.path, pods: () => this.#pods, onConnections: () => {} });
    const listening = this.#server.listen();
    if (!listening.ok) throw new Error(listening.error);
  }

  async add(pod: Workload): Promise<void> {
    const captured = installRedirect(pod.namespaceFd, { ...REDIRECT_DEFAULTS, owner: RULES_OWNER });
    if (!captured.ok) throw new Error(captured.error.message);
    const meshed: MeshedPod = { uid: `uid-of-${pod.name}`, namespace: "shop", name: pod.name, serviceAccount: pod.name, namespaceFd: () => pod.namespaceFd };
    this.#pods.push(meshed);
    if (this.#server.connected === 0) return; // Told when a ztunnel comes.
    const added = await this.#server.add(meshed, 5_000);
    if (!added.ok) throw new Error(added.error);
  }

  async remove(pod: Workload): Promise<void> {
    this.#pods.splice(this.#pods.findIndex(({ name }) => name === pod.name), 1);
    await this.#server.remove(`uid-of-${pod.name}`);
  }

  close(): void {
    this.#server.close();
  }
}

/** Whoever carries the traffic of a node. */
interface Carrier {
  start(): Promise<void>;
  kill(): Promise<void>;
  readonly log: string;
}

class ReferenceCarrier implements Carrier {
  readonly #node: Node;
  readonly #logPath: string;
  readonly #environment: Readonly<Record<string, string>>;
  #process: Bun.Subprocess | null = null;

  constructor(node: Node, logPath: string, environment: Readonly<Record<string, string>>) {
    this.#node = node;
    this.#logPath = logPath;
    this.#environment = environment;
  }

  get log(): string {
    return existsSync(this.#logPath) ? readFileSync(this.#logPath, "utf8") : "";
  }

  async start(): Promise<void> {
    const child = this.#node.exec(["sh", "-c", 'exec "$0" >>"$1" 2>&1', process.env["ZTUNNEL_BIN"]!, this.#logPath], {
      stdout: "ignore", stderr: "ignore", env: { ...this.#environment, SERVICE_ACCOUNT: "ztunnel", PACKET_MARK: "1337", RUST_LOG: "info", DNS_CAPTURE: "false" },
    });
    this.#process = child;
    await until("the reference ztunnel to be ready", 20_000, async () => {
      if (child.exitCode !== null) throw new Error(`the reference ztunnel ended with status ${child.exitCode}:\n${this.log.slice(-3000)}`);
      return (await ask(this.#node, "get", READINESS)).startsWith("200");
    }).catch((cause: unknown) => {
      throw new Error(`${String(cause)}\n${this.log.slice(-3000)}`);
    });
  }

  async kill(): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
  }
}

for (const west of ["weft", "ztunnel"] as const) {
  describeUnless(firstReason(unsealed, west === "weft" ? null : missingZtunnel()))(`a control plane and CNI agents, weft on one node and ${west} on the other`, () => {
    const folder = mkdtempSync(join(tmpdir(), "weft-control-plane-"));
    const ca = testCa({ nowMs: Date.now() - HOUR_MS });
    const { token, sha256 } = newToken();
    const mesh = new PublishedMesh();
    let network: MeshNetwork;
    let hub: Node;
    let xds: TestXdsServer;
    let certificates: CaServer;
    const nodes = {} as Record<"east" | "west", Node>;
    const cni = {} as Record<"east" | "west", Cni>;
    const carriers = {} as Record<"east" | "west", Carrier>;
    let front: Workload;
    let web: Workload;

    const record = (pod: Workload, services: WorkloadRecord["services"] = []): WorkloadRecord =>
      workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod", services });
    const publish = (...change: Parameters<PublishedMesh["change"]>): void => xds.xds.publish(mesh.change(...change));
    /** Both nodes have what was published last: before that, the other node takes a new workload for a stranger. */
    const told = () =>
      until("both nodes to confirm what was published", 10_000, () =>
        xds.xds.clients().filter(({ types }) => types.some(({ ackedState }) => ackedState === xds.xds.publishedState)).length === 2);
    const uidOf = (pod: Workload): WorkloadUid => record(pod).uid;
    const get = (client: Workload, host: string, port: number): Promise<string> => ask(client, "get", urlOf(host, port));
    const answered = (client: Workload, host: string, port: number, wanted: RegExp): Promise<string> =>
      until(`${client.name} to get ${wanted} from ${host}:${port}`, 10_000, async () => {
        const answer = await get(client, host, port);
        return wanted.test(answer) ? answer || "nothing" : null;
      }).catch((cause: unknown) => {
        throw new Error(`${String(cause)}\neast: ${carriers.east.log.slice(-2000)}\nwest: ${carriers.west.log.slice(-2000)}`);
      });

    async function serveXds(): Promise<void> {
      xds = await TestXdsServer.start({ ca, token, host: hub.ipv4, port: XDS_PORT, inside: (listen) => hub.inside(listen) });
      if (mesh.mesh.workloads.size > 0) xds.xds.publish(new PublishedMesh().change({ workloads: [...mesh.mesh.workloads.values()], services: [...mesh.mesh.services.values()], policies: [...mesh.mesh.policies.values()] }));
    }

    function environmentOf(node: Node): Record<string, string> {
      return {
        XDS_ADDRESS: `https://${hub.ipv4}:${XDS_PORT}`, CA_ADDRESS: `https://${hub.ipv4}:${CA_PORT}`, XDS_ROOT_CA: join(folder, "root.pem"), CA_ROOT_CA: join(folder, "root.pem"),
        ALT_XDS_HOSTNAME: XDS_SERVER_NAME, ALT_CA_HOSTNAME: XDS_SERVER_NAME, AUTH_TOKEN: join(folder, "token"), INPOD_UDS: cni[node.name as "east"].path, NODE_NAME: node.name,
        POD_NAME: `ztunnel-${node.name}`, POD_NAMESPACE: "istio-system", INSTANCE_IP: node.ipv4, CLUSTER_ID: "Kubernetes",
      };
    }

    function weftOn(node: Node): Carrier {
      const environment = Object.entries(environmentOf(node)).map(([name, value]) => `${name}=${value}`);
      return new Agent(node, ["env", ...environment, process.execPath, join(ROOT, "src/main.ts"), "ztunnel", "--state", join(folder, `state-${node.name}`)], join(folder, `${node.name}.log`));
    }

    beforeAll(async () => {
      writeFileSync(join(folder, "root.pem"), ca.rootPem);
      writeFileSync(join(folder, "token"), token, { mode: 0o600 });
      network = MeshNetwork.create();
      hub = network.node("hub");
      [nodes.east, nodes.west] = [network.node("east"), network.node("west")];
      [front, web] = [nodes.east.workload("front"), nodes.west.workload("web")];
      await Promise.all([serve(front, "http", HTTP_PORT, "front"), serve(web, "http", HTTP_PORT, "web")]);
      const tokens = parseTokens(JSON.stringify({ tokens: [{ name: "nodes", sha256, namespaces: "all" }] }));
      if (!tokens.ok) throw new Error(tokens.error);
      certificates = new CaServer({
        authority: ca.authority, tokens: tokens.value, clock: systemClock, timers: systemTimers, serverNames: [{ kind: "dns", dnsName: XDS_SERVER_NAME }], record: () => {}, onEvent: () => {},
      });
      let listening: Promise<unknown> = Promise.resolve();
      hub.inside(() => void (listening = certificates.listen({ host: hub.ipv4, port: CA_PORT })));
      await listening;
      await serveXds();
      publish({
        workloads: [record(front), record(web, member({ [WEB]: { 80: HTTP_PORT } }))],
        services: [service({ name: "web", vips: [WEB_VIP], ports: [{ servicePort: 80, targetPort: HTTP_PORT, name: "http", appProtocol: "" }] })],
      });
      for (const node of ["east", "west"] as const) cni[node] = new Cni(folder, nodes[node]);
      await cni.east.add(front);
      await cni.west.add(web);
      carriers.east = weftOn(nodes.east);
      carriers.west = west === "weft" ? weftOn(nodes.west) : new ReferenceCarrier(nodes.west, join(folder, "west.log"), environmentOf(nodes.west));
      await Promise.all([carriers.east.start(), carriers.west.start()]);
    }, 60_000);

    afterAll(async () => {
      await Promise.all([carriers.east?.kill(), carriers.west?.kill()]);
      for (const agent of Object.values(cni)) agent.close();
      await xds?.[Symbol.asyncDispose]();
      certificates?.destroy();
      await network?.[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    });

    test("both have been told everything, and refuse nothing of it", async () => {
      const clients = await until("two clients that have confirmed", 10_000, () => {
        const found = xds.xds.clients();
        return found.length === 2 && found.every(({ types }) => types.length === 2 && types.every(({ sentState, ackedState }) => sentState === ackedState)) ? found : null;
      });
      expect(new Set(clients.map(({ view }) => (view.kind === "node" ? view.node : "")))).toEqual(new Set(["east", "west"]));
      expect(clients.flatMap(({ types }) => types.map(({ rejected }) => rejected))).toEqual([null, null, null, null]);
    });

    test("traffic between the nodes goes through a tunnel, in both directions, by address and by service", async () => {
      using wire = network.witness(nodes.east, nodes.west);
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await answered(front, WEB_VIP, 80, /^200 web to /);
      await answered(web, front.ipv4, HTTP_PORT, /^200 front to /);
      if (web.ipv6 !== null) await answered(front, web.ipv6, HTTP_PORT, /^200 web to /);
      expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
      expect(wire.bytesOnPort(15008)).toBeGreaterThan(0);
    });

    test("a policy is in force when it is told, at either node, and no more when it is gone", async () => {
      const name = namespacedName("shop", "nobody");
      publish({ policies: [policy({ name: "nobody", action: "deny", rules: [[[match({ principals: [PRESENCE] })]]] })] });
      await answered(front, web.ipv4, HTTP_PORT, DENIED);
      await answered(web, front.ipv4, HTTP_PORT, DENIED);
      publish({ removedPolicies: [name] });
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await answered(web, front.ipv4, HTTP_PORT, /^200 front to /);
    });

    test("a workload joins and leaves while the nodes run", async () => {
      for (const node of ["east", "west"] as const) {
        const late = nodes[node].workload(`late-${node}`);
        await serve(late, "http", HTTP_PORT, late.name);
        publish({ workloads: [record(late)] });
        await told();
        await cni[node].add(late);
        const other = node === "east" ? web : front;
        using wire = network.witness(nodes.east, nodes.west);
        await answered(other, late.ipv4, HTTP_PORT, new RegExp(`^200 ${late.name} to `));
        await answered(late, other.ipv4, HTTP_PORT, new RegExp(`^200 ${other.name} to `));
        expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
        await cni[node].remove(late);
        publish({ removedWorkloads: [uidOf(late)] });
      }
    });

    test("without the control plane everything goes on, and our agent starts again", async () => {
      await xds[Symbol.asyncDispose]();
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await carriers.east.kill();
      await carriers.east.start();
      await answered(front, WEB_VIP, 80, /^200 web to /);
      await answered(web, front.ipv4, HTTP_PORT, /^200 front to /);
      await serveXds();
      publish({ policies: [policy({ name: "nobody", action: "deny", rules: [[[match({ principals: [PRESENCE] })]]] })] });
      await answered(front, web.ipv4, HTTP_PORT, DENIED);
      await answered(web, front.ipv4, HTTP_PORT, DENIED);
      publish({ removedPolicies: [namespacedName("shop", "nobody")] });
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
    });
  });
}
