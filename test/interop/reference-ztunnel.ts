// The reference ztunnel for one place of a test network: dedicated mode, mesh from a file, certificates from our CA by the gRPC service
// that it speaks with any CA. ZTUNNEL_BIN names its binary. Capture is our own rules: the ports and marks are the same.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { NOTHING_EXCLUDED, REDIRECT_DEFAULTS } from "../../src/net/redirect/options.ts";
import { installRedirect } from "../../src/net/redirect/redirect.ts";
import { logPath } from "../kit/log-path.ts";
import { ask, type Mesh } from "../kit/mesh.ts";
import { until } from "../kit/until.ts";
import type { Workload } from "../kit/network.ts";
import { needsBinary, type SkipReason } from "../kit/skip.ts";

const READY_MS = 20_000;
const READINESS_URL = "http://127.0.0.1:15021/healthz/ready";
const CA_PORT = 15012;

export const needsZtunnel: SkipReason = needsBinary("ZTUNNEL_BIN");

export interface ReferenceWorkload {
  readonly workload: Workload;
  /** `namespace/hostname` to port mapping, service port first. */
  readonly services: Readonly<Record<string, Ports>>;
  /** Its network, where there are several. */
  readonly network?: string;
  /** What is addressed to it itself goes through this one. */
  readonly waypoint?: Workload;
}

export interface ReferenceMesh {
  readonly workloads: readonly ReferenceWorkload[];
  /** By `namespace/hostname`. */
  readonly services: Readonly<Record<string, { readonly vips: readonly string[]; readonly ports: Ports; readonly identities?: readonly string[]; readonly waypoint?: Workload }>>;
  /** Ports of the place itself that nobody may reach. */
  readonly deniedPorts: readonly number[];
  /** The network of the place, and the gateway to every other one. */
  readonly network?: { readonly own: string; readonly gateway: { readonly place: Workload; readonly network: string; readonly namespace: string; readonly serviceAccount: string } };
}

export class ReferenceZtunnel implements AsyncDisposable {
  readonly #process: Bun.Subprocess;
  readonly #logPath: string;

  private constructor(process: Bun.Subprocess, logPath: string) {
    this.#process = process;
    this.#logPath = logPath;
  }

  /** Starts it for a workload of namespace `shop` whose service account is its name. */
  static async start(mesh: Mesh, place: Workload, known: ReferenceMesh): Promise<ReferenceZtunnel> {
    const ca = mesh.agents[0]!.node;
    const configuration = join(mesh.directory, "ztunnel.yaml");
    const log = logPath(mesh.directory, "ztunnel.log");
    writeFileSync(configuration, stringify(localConfiguration(known)));
    // The proxy's own calls to the CA carry no mark.
    const captured = installRedirect(place.namespaceFd, { ...REDIRECT_DEFAULTS, owner: "reference", dnsCapture: false, exclusions: { ...NOTHING_EXCLUDED, outboundPorts: [CA_PORT] } });
    if (!captured.ok) throw new Error(captured.error.message);
    const child = place.exec(["sh", "-c", 'exec "$0" >"$1" 2>&1', process.env["ZTUNNEL_BIN"]!, log], {
      stdout: "ignore", stderr: "ignore", cwd: mesh.directory,
      env: {
        LOCAL_XDS_PATH: configuration, XDS_ADDRESS: "", CA_ADDRESS: `https://${ca.ipv4}:${CA_PORT}`, CA_ROOT_CA: join(mesh.directory, `state-${ca.name}`, "ca/root-cert.pem"),
        AUTH_TOKEN: join(mesh.directory, "token"), PROXY_MODE: "dedicated", PROXY_WORKLOAD_INFO: `shop/${place.name}/${place.name}`, NODE_NAME: place.node.name,
        CLUSTER_ID: "Kubernetes", PACKET_MARK: "1337", DNS_CAPTURE: "false", RUST_LOG: "info", NETWORK: known.network?.own ?? "",
      },
    });
    const ztunnel = new ReferenceZtunnel(child, log);
    await until("the reference ztunnel to be ready", READY_MS, async () => {
      if (child.exitCode !== null) throw new Error(`the reference ztunnel ended with status ${child.exitCode}:\n${ztunnel.log.slice(-3000)}`);
      return (await ask(place, "get", READINESS_URL)).startsWith("200");
    });
    return ztunnel;
  }

  get log(): string {
    return existsSync(this.#logPath) ? readFileSync(this.#logPath, "utf8") : "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill();
    await this.#process.exited;
  }
}

type Ports = Readonly<Record<number, number>>;
/** Its keys are numbers, which a JSON object cannot have. */
const portMap = (ports: Ports): Map<number, number> => new Map(Object.entries(ports).map(([from, to]) => [Number(from), to]));

/** What it reads as its whole mesh. */
function localConfiguration({ workloads, services, deniedPorts, network }: ReferenceMesh): object {
  const gateway = network?.gateway;
  const wayTo = (of: string): object => (gateway === undefined || of === network?.own ? {} : { networkGateway: { destination: `${gateway.network}/${gateway.place.ipv4}`, hboneMtlsPort: 15008 } });
  const gateways = gateway === undefined ? [] : [{
    uid: `Kubernetes//Pod/${gateway.namespace}/${gateway.place.name}`, name: gateway.place.name, namespace: gateway.namespace, trustDomain: "cluster.local", serviceAccount: gateway.serviceAccount,
    workloadIps: [gateway.place.ipv4], protocol: "HBONE", node: gateway.place.node.name, network: gateway.network, services: {},
  }];
  const through = (waypoint: Workload | undefined): object => (waypoint === undefined ? {} : { waypoint: { destination: `${network?.own ?? ""}/${waypoint.ipv4}`, hboneMtlsPort: 15008 } });
  return {
    workloads: [...gateways, ...workloads.map(({ workload, services: memberships, network: of = "", waypoint }) => ({
      uid: `Kubernetes//Pod/shop/${workload.name}`, name: workload.name, workloadName: workload.name, workloadType: "deployment", canonicalName: workload.name, namespace: "shop", trustDomain: "cluster.local", serviceAccount: workload.name,
      workloadIps: workload.addresses, protocol: "HBONE", node: workload.node.name, network: of, ...wayTo(of), ...through(waypoint), services: Object.fromEntries(Object.entries(memberships).map(([name, ports]) => [name, portMap(ports)])),
    }))],
    services: Object.entries(services).map(([name, { vips, ports, identities = [], waypoint }]) => {
      const [namespace, hostname] = name.split("/") as [string, string];
      return { name: hostname.split(".")[0], namespace, hostname, vips: vips.map((vip) => `${network?.own ?? ""}/${vip}`), ports: portMap(ports), subjectAltNames: identities, canonical: true, ...through(waypoint) };
    }),
    policies: deniedPorts.length === 0 ? [] : [{ name: "denied", namespace: "shop", scope: "Namespace", action: "Deny", dryRun: false, rules: [[[{ destinationPorts: deniedPorts }]]] }],
  };
}
