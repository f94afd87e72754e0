// One agent under attack: a node with an agent and a workload behind it, and a rival on another node that has no agent and speaks to the
// agent's ports itself. The rival has the CA's own keys, so it can show any certificate, good or forged.
//
//   await using siege = await Siege.open({ flags: ["--tls-timeout", "1s"] });
//   using peer = await HbonePeer.open(siege.rival, siege.hbone, siege.leaf());
//   await siege.counted("weft_tunnel_handshakes_failed_total", { code: "tls_failed" }, 1, async () => { ... });
//   await siege.lives();                                    // honest traffic still passes

import { createPrivateKey, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { IpAddress, SocketAddress } from "../../src/core/ip.ts";
import type { Issuer } from "../../src/ca/authority.ts";
import { writePem } from "../../src/wire/x509/pem.ts";
import { type Forgery, forge, goodLeafExtensions, HOUR_MS, mustRead, newEcKey, spkiOf } from "./certificates.ts";
import { HbonePeer, type Leaf, RawPeer } from "./hostile-peer.ts";
import { type Agent, documents, entryYaml, Mesh, type MeshOptions, namespaceYaml, serve } from "./mesh.ts";
import { until } from "./until.ts";
import { MeshNetwork, type NetworkOptions, type Node, type Workload } from "./network.ts";
import { ECHO_PORT, GREETER_PORT, GREETING, HTTP_PORT } from "./shop.ts";
import { sumOfSamples } from "./process-figures.ts";

const COUNTED_MS = 5_000;
export const RIVAL_ID = "spiffe://cluster.local/ns/shop/sa/rival";

export interface SiegeOptions extends Omit<MeshOptions, "nodes"> {
  readonly network?: NetworkOptions;
  /** Further configuration, e.g. policies. */
  readonly yaml?: readonly string[];
}

/** Names of a metric's samples with their values. */
export type Samples = ReadonlyMap<string, number>;

export class Siege implements AsyncDisposable {
  readonly network: MeshNetwork;
  readonly mesh: Mesh;
  readonly east: Node;
  readonly west: Node;
  /** In the mesh, on the agent's node, with the servers of shop.ts. */
  readonly far: Workload;
  /** In the mesh, on the agent's node: a client of honest traffic outwards. */
  readonly client: Workload;
  /** On the node without an agent. */
  readonly rival: Workload;
  /** A second source address for attacks. */
  readonly second: Workload;
  issuer!: Issuer;
  root!: Issuer;
  rootPem = "";

  private constructor(options: SiegeOptions) {
    this.network = MeshNetwork.create(options.network);
    [this.west, this.east] = [this.network.node("west"), this.network.node("east")];
    [this.far, this.client] = [this.west.workload("far"), this.west.workload("client")];
    [this.rival, this.second] = [this.east.workload("rival"), this.east.workload("second")];
    // A test that failed half way may have left connections: they are not waited for.
    this.mesh = Mesh.create({ ...options, nodes: [this.west], flags: ["--drain", "500ms", ...(options.flags ?? [])] });
  }

  static async open(options: SiegeOptions = {}): Promise<Siege> {
    const siege = new Siege(options);
    try {
      await Promise.all([serve(siege.far, "http", HTTP_PORT, "far"), serve(siege.far, "echo", ECHO_PORT), serve(siege.far, "greeter", GREETER_PORT, GREETING)]);
      siege.mesh.write("shop.yaml", documents(namespaceYaml("shop", true), entryYaml(siege.far), entryYaml(siege.client), ...(options.yaml ?? [])));
      await siege.mesh.start();
      for (const name of ["far", "client"]) await siege.agent.logged(new RegExp(`/shop/${name} is in the mesh`));
      siege.#readAuthority();
      return siege;
    } catch (error) {
      await siege[Symbol.asyncDispose]();
      throw error;
    }
  }

  get agent(): Agent {
    return this.mesh.agent(this.west);
  }

  get hbone(): SocketAddress {
    return { ip: this.far.ipv4, port: 15008 };
  }

  at(port: number, ip: IpAddress = this.far.ipv4): SocketAddress {
    return { ip, port };
  }

  /** A certificate from the mesh's CA, good unless told otherwise, and its key. `chain` PEMs follow the leaf. */
  leaf(over: Partial<Omit<Forgery, "spkiDer">> & { readonly key?: KeyObject; readonly chain?: readonly string[] } = {}): Leaf {
    const { key = newEcKey(), chain, ...forgery } = over;
    const issuer = forgery.issuer ?? this.issuer;
    const nowMs = Date.now();
    const der = forge({ notBeforeMs: nowMs - HOUR_MS, notAfterMs: nowMs + HOUR_MS, extensions: goodLeafExtensions(RIVAL_ID), ...forgery, issuer, spkiDer: spkiOf(key) });
    return { certificatePem: [writePem("CERTIFICATE", der), ...(chain ?? issuer.chainPem)].join(""), keyPem: key.export({ type: "pkcs8", format: "pem" }) as string };
  }

  /** An honest tunnel: the rival with its own good certificate. */
  async tunnel(from: Workload = this.rival): Promise<HbonePeer> {
    return await HbonePeer.open(from, this.hbone, this.leaf());
  }

  /** Honest traffic still passes: a new tunnel, a CONNECT, bytes there and back. */
  async lives(): Promise<true> {
    using peer = await this.tunnel(this.second);
    const id = peer.connect(`${this.far.ipv4}:${ECHO_PORT}`);
    const status = await peer.status(id);
    if (status !== "200") throw new Error(`honest CONNECT was answered ${status}`);
    peer.fill(id, 100);
    await until("the echo", COUNTED_MS, () => peer.bodyOf(id).length === 100);
    return true;
  }

  /** Runs the body and awaits that the metric's samples with these labels have grown by `least` or more. @returns what the body did. */
  async counted<T>(name: string, labels: Readonly<Record<string, string>>, least: number, body: () => T | Promise<T>): Promise<T> {
    const before = await this.metric(name, labels);
    const result = await body();
    await until(`${name} ${JSON.stringify(labels)} to grow by ${least} from ${before}`, COUNTED_MS, async () => (await this.metric(name, labels)) - before >= least);
    return result;
  }

  /** The sum of a metric's samples with these labels, read by this process: fast enough to be asked often. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return sumOfSamples(await this.scrape(), name, labels);
  }

  async scrape(): Promise<string> {
    using raw = await RawPeer.open(this.west, { ip: this.west.ipv4, port: 15020 });
    await raw.write("GET /metrics HTTP/1.1\r\nhost: west\r\nconnection: close\r\n\r\n");
    await raw.closed;
    return Buffer.from(raw.received).toString();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.mesh[Symbol.asyncDispose]();
    await this.network[Symbol.asyncDispose]();
  }

  #readAuthority(): void {
    const folder = join(this.mesh.directory, "state-west/ca");
    const stored = JSON.parse(readFileSync(join(folder, "authority.json"), "utf8")) as Record<"roots" | "issuers", { certificatePem: string; privateKeyPem: string }[]>;
    const issuerOf = (name: "roots" | "issuers"): Issuer => {
      const { certificatePem, privateKeyPem } = stored[name][0]!;
      return { certificate: mustRead(derOf(certificatePem)), key: createPrivateKey(privateKeyPem), chainPem: name === "roots" ? [] : [certificatePem] };
    };
    this.root = issuerOf("roots");
    this.issuer = issuerOf("issuers");
    this.rootPem = stored.roots[0]!.certificatePem;
  }
}

const derOf = (pem: string): Uint8Array => Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ""), "base64");
