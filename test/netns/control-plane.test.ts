// Two nodes without a directory: a control plane tells the mesh over xDS, a CNI agent on each node its workloads over ZDS, and makes their
// rules. Once with our agents on both, and once with the reference ztunnel (ZTUNNEL_BIN) on one of them, in the mode in which it runs in a
// cluster.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { namespacedName, type WorkloadUid } from "../../src/core/brand.ts";
import { type Workload as WorkloadRecord } from "../../src/mesh/records.ts";
import { needsZtunnel } from "../interop/reference-ztunnel.ts";
import { unsealed } from "../kit/box.ts";
import { TestControlPlane } from "../kit/control-plane.ts";
import { logPath } from "../kit/log-path.ts";
import { ask, serve } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import { match, member, policy, PRESENCE, service, workload } from "../kit/mesh-records.ts";
import { MeshNetwork, type Node, type Workload } from "../kit/network.ts";
import { HTTP_PORT, urlOf } from "../kit/shop.ts";
import { describeUnless, firstReason } from "../kit/skip.ts";

setDefaultTimeout(60_000);

const WEB = "shop/web.shop.svc.cluster.local";
const WEB_VIP = "198.18.250.60";
const READINESS = "http://127.0.0.1:15021/healthz/ready";
/** A denied connection is refused, or ends without an answer, by how far it got. */
const DENIED = /^(?!200 )/;

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

for (const west of ["weft", "ztunnel", "ztunnel that asks for each address"] as const) {
  describeUnless(firstReason(unsealed, west === "weft" ? null : needsZtunnel))(`a control plane and CNI agents, weft on one node and ${west} on the other`, () => {
    let network: MeshNetwork;
    let control: TestControlPlane;
    const nodes = {} as Record<"east" | "west", Node>;
    const carriers = {} as Record<"east" | "west", Carrier>;
    let front: Workload;
    let web: Workload;

    const record = (pod: Workload, services: WorkloadRecord["services"] = []): WorkloadRecord =>
      workload({ name: pod.name, serviceAccount: pod.name, node: pod.node.name, addresses: pod.addresses, workloadType: "pod", services });
    /** Both nodes have what was published last: before that, the other node takes a new workload for a stranger. */
    const told = () =>
      until("both nodes to confirm what was published", 10_000, () =>
        control.xds.xds.clients().filter(({ types }) => types.some(({ ackedState }) => ackedState === control.xds.xds.publishedState)).length === 2);
    const uidOf = (pod: Workload): WorkloadUid => record(pod).uid;
    const get = (client: Workload, host: string, port: number): Promise<string> => ask(client, "get", urlOf(host, port));
    const answered = (client: Workload, host: string, port: number, wanted: RegExp): Promise<string> =>
      until(`${client.name} to get ${wanted} from ${host}:${port}`, 10_000, async () => {
        const answer = await get(client, host, port);
        return wanted.test(answer) ? answer || "nothing" : null;
      }).catch((cause: unknown) => {
        throw new Error(`${String(cause)}\neast: ${carriers.east.log.slice(-2000)}\nwest: ${carriers.west.log.slice(-2000)}`);
      });
    const carrierOf = (node: Node, kind: typeof west): Carrier => {
      const environment = { INPOD_UDS: control.cni(node).path, ...(kind === "ztunnel that asks for each address" ? { XDS_ON_DEMAND: "true", ISTIO_META_DNS_CAPTURE: "false" } : {}) };
      return kind === "weft" ? control.agent("ztunnel", node, environment) : new ReferenceCarrier(node, logPath(control.directory, `${node.name}.log`), { ...control.environmentOf(node), ...environment });
    };

    beforeAll(async () => {
      network = MeshNetwork.create();
      const hub = network.node("hub");
      [nodes.east, nodes.west] = [network.node("east"), network.node("west")];
      [front, web] = [nodes.east.workload("front"), nodes.west.workload("web")];
      await Promise.all([serve(front, "http", HTTP_PORT, "front"), serve(web, "http", HTTP_PORT, "web")]);
      control = await TestControlPlane.start(hub);
      control.publish({
        workloads: [record(front), record(web, member({ [WEB]: { 80: HTTP_PORT } }))],
        services: [service({ name: "web", vips: [WEB_VIP], ports: [{ servicePort: 80, targetPort: HTTP_PORT, name: "http", appProtocol: "" }] })],
      });
      await control.cni(nodes.east).add(front);
      await control.cni(nodes.west).add(web);
      carriers.east = carrierOf(nodes.east, "weft");
      carriers.west = carrierOf(nodes.west, west);
      await Promise.all([carriers.east.start(), carriers.west.start()]);
    }, 60_000);

    afterAll(async () => {
      await Promise.all([carriers.east?.kill(), carriers.west?.kill()]);
      await control?.[Symbol.asyncDispose]();
      await network?.[Symbol.asyncDispose]();
    });

    test("both have been told everything, and refuse nothing of it", async () => {
      const clients = await until("two clients that have confirmed", 10_000, () => {
        const found = control.xds.xds.clients();
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
      control.publish({ policies: [policy({ name: "nobody", action: "deny", rules: [[[match({ principals: [PRESENCE] })]]] })] });
      await answered(front, web.ipv4, HTTP_PORT, DENIED);
      await answered(web, front.ipv4, HTTP_PORT, DENIED);
      control.publish({ removedPolicies: [name] });
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await answered(web, front.ipv4, HTTP_PORT, /^200 front to /);
    });

    test("a workload joins and leaves while the nodes run", async () => {
      for (const node of ["east", "west"] as const) {
        const late = nodes[node].workload(`late-${node}`);
        await serve(late, "http", HTTP_PORT, late.name);
        control.publish({ workloads: [record(late)] });
        await told();
        await control.cni(nodes[node]).add(late);
        const other = node === "east" ? web : front;
        using wire = network.witness(nodes.east, nodes.west);
        await answered(other, late.ipv4, HTTP_PORT, new RegExp(`^200 ${late.name} to `));
        await answered(late, other.ipv4, HTTP_PORT, new RegExp(`^200 ${other.name} to `));
        expect(wire.bytesOnPort(HTTP_PORT)).toBe(0);
        await control.cni(nodes[node]).remove(late);
        control.publish({ removedWorkloads: [uidOf(late)] });
      }
    });

    test("without the control plane everything goes on, and our agent starts again", async () => {
      await control.end();
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
      await carriers.east.kill();
      await carriers.east.start();
      await answered(front, WEB_VIP, 80, /^200 web to /);
      await answered(web, front.ipv4, HTTP_PORT, /^200 front to /);
      await control.serve();
      control.publish({ policies: [policy({ name: "nobody", action: "deny", rules: [[[match({ principals: [PRESENCE] })]]] })] });
      await answered(front, web.ipv4, HTTP_PORT, DENIED);
      await answered(web, front.ipv4, HTTP_PORT, DENIED);
      control.publish({ removedPolicies: [namespacedName("shop", "nobody")] });
      await answered(front, web.ipv4, HTTP_PORT, /^200 web to /);
    });
  });
}
