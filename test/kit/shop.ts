// The mesh that most tests with real traffic use: two nodes with an agent each, and one workload of every sort.
//
//   await using shop = await Shop.open();                     // { flags, ... } as Mesh.create
//
//   east: client, near                in the mesh (namespace `shop`)
//         stranger                    not in the configuration at all: no agent, no identity
//         legacy                      in the configuration, labelled out of the mesh
//   west: far                         in the mesh
//         faraway                     in the configuration, labelled out of the mesh
//
// near, far, legacy and faraway run the servers of SERVERS. `web` is a service over near and far: by VIP and VIP6, ports 80 and 90.
//
//   await shop.curl(client, far.ipv4)                          "far to 198.18.1.10"
//   await shop.under(policy, { settled }, async () => ...)     a policy for the length of a body
//   shop.wire()                                                a witness of the wire between the nodes

import { ask, documents, entryYaml, Mesh, namespaceYaml, program, serve, serviceYaml, type MeshOptions } from "./mesh.ts";
import { promised } from "./fair-time.ts";
import { MeshNetwork, type Node, type Place, type Workload } from "./network.ts";
import type { WireWitness } from "./witness.ts";

export const HTTP_PORT = 8080;
export const ECHO_PORT = 9000;
export const GREETER_PORT = 9100;
export const FAREWELL_PORT = 9200;
export const GREETING = "220 ready when you are";
export const VIP = "198.18.250.10";
export const VIP6 = "2001:db8:250::10";
export const SERVICE_HTTP = 80;
export const SERVICE_ECHO = 90;

/** A change of the configuration is in force within this time. */
export const CHANGE_MS = 1_000;
/** An agent that was killed carries traffic again within this time. */
export const RESTART_MS = 2_000;

export type Family = 4 | 6;

export const addressOf = (place: Place, family: Family): string => {
  const address = family === 4 ? place.ipv4 : place.ipv6;
  if (address === null) throw new Error(`${place.name} has no IPv6 address`);
  return address;
};

export const urlOf = (host: string, port: number, path = "/"): string => `http://${host.includes(":") ? `[${host}]` : host}:${port}${path}`;

export interface ShopOptions extends Omit<MeshOptions, "nodes"> {
  /** Whether the namespace starts in the mesh; true by default. */
  readonly ambient?: boolean;
}

export class Shop implements AsyncDisposable {
  readonly network: MeshNetwork;
  readonly mesh: Mesh;
  readonly east: Node;
  readonly west: Node;
  readonly client: Workload;
  readonly near: Workload;
  readonly far: Workload;
  readonly stranger: Workload;
  readonly legacy: Workload;
  readonly faraway: Workload;

  private constructor(options: ShopOptions) {
    this.network = MeshNetwork.create();
    [this.east, this.west] = [this.network.node("east"), this.network.node("west")];
    [this.client, this.near, this.stranger, this.legacy] = [this.east.workload("client"), this.east.workload("near"), this.east.workload("stranger"), this.east.workload("legacy")];
    [this.far, this.faraway] = [this.west.workload("far"), this.west.workload("faraway")];
    this.mesh = Mesh.create({ ...options, nodes: [this.east, this.west] });
  }

  static async open(options: ShopOptions = {}): Promise<Shop> {
    const shop = new Shop(options);
    try {
      await Promise.all([shop.near, shop.far, shop.legacy, shop.faraway].map((place) => serveAll(place)));
      shop.label(options.ambient ?? true);
      await shop.mesh.start();
      if (options.ambient ?? true) await shop.attached();
      return shop;
    } catch (error) {
      await shop[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Both agents have their workloads of the mesh. @param from marks of [east, west]. */
  async attached(from: readonly [number, number] = [0, 0]): Promise<void> {
    const { east, west, mesh } = this;
    for (const [node, names, since] of [[east, ["client", "near"], from[0]], [west, ["far"], from[1]]] as const) {
      for (const name of names) await mesh.agent(node).logged(new RegExp(`/shop/${name} is in the mesh`), since);
    }
  }

  /** Writes the shop with its namespace in the mesh or out of it. */
  label(ambient: boolean): void {
    const out = { labels: { "istio.io/dataplane-mode": "none" } };
    this.mesh.write("shop.yaml", documents(
      namespaceYaml("shop", ambient),
      ...[this.client, this.near, this.far].map((workload) => entryYaml(workload, workload === this.client ? {} : { labels: { role: "server" } })),
      ...[this.legacy, this.faraway].map((workload) => entryYaml(workload, out)),
      serviceYaml("web", { clusterIPs: this.network.hasIpv6 ? [VIP, VIP6] : [VIP], selector: { role: "server" }, ports: { [SERVICE_HTTP]: HTTP_PORT, [SERVICE_ECHO]: ECHO_PORT } }),
    ));
  }

  /** `200 far to 198.18.1.10`, or `failed ...`. */
  async get(from: Place, host: string, port = HTTP_PORT): Promise<string> {
    return await ask(from, "get", urlOf(host, port));
  }

  /** The last line of a program of programs.ts; throws unless it ended well. */
  async ok(from: Place, name: string, ...args: readonly (string | number)[]): Promise<string> {
    const { exitCode, stdout, stderr } = await from.run(program(name, ...args));
    const last = stdout.trimEnd().split("\n").at(-1) ?? "";
    if (exitCode !== 0 || !last.startsWith("ok")) throw new Error(`${name} ${args.join(" ")} from ${from.name}: ${last} (status ${exitCode}) ${stderr}`);
    return last;
  }

  /** Puts a configuration file in force for the length of a body, and waits for its end to be in force too. */
  async under(yaml: string, settled: { readonly on: () => Promise<boolean>; readonly off: () => Promise<boolean> }, body: () => Promise<void>): Promise<void> {
    this.mesh.write("under-test.yaml", yaml);
    try {
      await promised("the change to be in force", CHANGE_MS, settled.on);
      await body();
    } finally {
      this.mesh.remove("under-test.yaml");
      await promised("the change to be gone", CHANGE_MS, settled.off);
    }
  }

  /** Watches the wire between the nodes. Dispose it. */
  wire(): WireWitness {
    return this.network.witness(this.east, this.west);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mesh[Symbol.asyncDispose]();
    await this.network[Symbol.asyncDispose]();
  }
}

async function serveAll(place: Place): Promise<void> {
  await Promise.all([
    serve(place, "http", HTTP_PORT, place.name), serve(place, "echo", ECHO_PORT),
    serve(place, "greeter", GREETER_PORT, GREETING),
  ]);
}
