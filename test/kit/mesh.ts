// A mesh in the sealed box: Weft's agents on the nodes of a MeshNetwork, and their configuration.
//
//   await using network = MeshNetwork.create();
//   const [a, b] = [network.node("a"), network.node("b")];
//   await using mesh = await Mesh.create({ nodes: [a, b] });        // the first node brings the CA
//   mesh.write("shop.yaml", yamlOf(...));                           // applied within a second
//   await mesh.start();                                             // both agents, until ready
//   await mesh.agent(a).logged(/decision=allow/);                   // waits for words in a log
//   const dump = await mesh.agent(a).admin("GET", "/config_dump");
//   await mesh.agent(b).kill(); await mesh.agent(b).start();
//
// What an agent did, read as it tells it:
//
//   const mark = mesh.agent(b).mark();                              // from here on
//   const [line] = await mesh.agent(b).connections({ direction: "inbound", "src.workload": "client" }, mark);
//   line["src.identity"], line["close"], line["reason"], ...
//   await mesh.agent(a).metric("istio_tcp_connections_opened_total", { reporter: "source" });
//
// Programs for workloads: `program("http", 8080, "hello")` is an argv for Place.exec (see programs.ts). Most tests want the ready-made
// mesh of shop.ts.

import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { newToken } from "../../src/ca/tokens.ts";
import { logPath } from "./log-path.ts";
import type { MeshNetwork, Node, Place, Workload } from "./network.ts";
import { residentBytes, sumOfSamples } from "./process-figures.ts";
import { until } from "./until.ts";

const ROOT = join(import.meta.dir, "../..");
const READY_MS = 20_000;
/** Of the access log, where the line that was waited for did not come. */
const OTHER_LINES_SHOWN = 5;
const LOG_CHARS_SHOWN = 2_000;

/** An argv that runs one of programs.ts. */
export function program(name: string, ...args: readonly (string | number)[]): string[] {
  return [process.execPath, join(import.meta.dir, "programs.ts"), name, ...args.map(String)];
}

/** Runs a program in a place and returns what it printed. */
export async function ask(place: Place, name: string, ...args: readonly (string | number)[]): Promise<string> {
  return (await place.run(program(name, ...args))).stdout.trimEnd();
}

/** Starts a server of programs.ts and waits until it listens. */
export async function serve(place: Place, name: string, port: number, ...args: readonly (string | number)[]): Promise<void> {
  place.exec(program(name, port, ...args), { stdout: "ignore", stderr: "inherit" });
  await place.listening(port);
}

export interface MeshOptions {
  readonly nodes: readonly Node[];
  /** Further flags for every agent. */
  readonly flags?: readonly string[];
  /** Further flags for one of them. */
  readonly flagsOf?: (node: Node) => readonly string[];
  /** The program: the sources by default, a compiled binary where one is given. */
  readonly weft?: readonly string[];
}

export class Mesh implements AsyncDisposable {
  readonly directory: string;
  readonly configDirectory: string;
  readonly #agents = new Map<Node, Agent>();

  private constructor(options: MeshOptions) {
    this.directory = mkdtempSync(join(tmpdir(), "weft-mesh-"));
    this.configDirectory = join(this.directory, "config");
    mkdirSync(this.configDirectory);
    const [first] = options.nodes;
    if (first === undefined) throw new Error("a mesh has at least one node");
    const { token, sha256 } = newToken();
    const tokenPath = join(this.directory, "token");
    const tokensPath = join(this.directory, "tokens.json");
    writeFileSync(tokenPath, token, { mode: 0o600 });
    writeFileSync(tokensPath, JSON.stringify({ tokens: [{ name: "nodes", sha256, namespaces: "all" }] }), { mode: 0o600 });
    const weft = options.weft ?? [process.execPath, join(ROOT, "src/main.ts")];
    for (const node of options.nodes) {
      const state = join(this.directory, `state-${node.name}`);
      const ca = node === first
        ? ["--ca-listen", `${first.ipv4}:15012`, "--ca-tokens", tokensPath]
        : ["--ca-address", `${first.ipv4}:15012`, "--ca-root", join(this.directory, `state-${first.name}`, "ca/root-cert.pem"), "--auth-token", tokenPath];
      const argv = [...weft, "up", "--config", this.configDirectory, "--state", state, "--node", node.name, ...ca, ...(options.flags ?? []), ...(options.flagsOf?.(node) ?? [])];
      this.#agents.set(node, new Agent(node, argv, logPath(this.directory, `${node.name}.log`)));
    }
  }

  static create(options: MeshOptions): Mesh {
    return new Mesh(options);
  }

  agent(node: Node): Agent {
    const agent = this.#agents.get(node);
    if (agent === undefined) throw new Error(`no agent on ${node.name}`);
    return agent;
  }

  get agents(): Agent[] {
    return [...this.#agents.values()];
  }

  /** Replaces a configuration file as an operator's tool would: written beside it, then renamed. */
  write(name: string, yaml: string): void {
    const beside = join(this.directory, `${name}.new`);
    writeFileSync(beside, yaml);
    chmodSync(beside, 0o644);
    renameSync(beside, join(this.configDirectory, name));
  }

  /** Takes a configuration file away, if it is there. */
  remove(name: string): void {
    rmSync(join(this.configDirectory, name), { force: true });
  }

  /** Starts every agent, the one with the CA first, and waits until all are ready. */
  async start(): Promise<void> {
    for (const agent of this.agents) await agent.start();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.agents.map((agent) => agent.stop()));
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class Agent {
  readonly node: Place;
  readonly argv: readonly string[];
  readonly #logPath: string;
  #process: Bun.Subprocess | null = null;
  #starts = 0;

  constructor(node: Place, argv: readonly string[], logPath: string) {
    this.node = node;
    this.argv = argv;
    this.#logPath = logPath;
  }

  get pid(): number {
    if (this.#process === null) throw new Error(`the agent of ${this.node.name} is not running`);
    return this.#process.pid;
  }

  /** Memory it holds now. */
  residentBytes(): number {
    return residentBytes(this.pid);
  }

  /** Everything it has logged, over all its starts. */
  get log(): string {
    return existsSync(this.#logPath) ? readFileSync(this.#logPath, "utf8") : "";
  }

  /** Starts one more process with the same arguments, without waiting for anything. The caller ends it. */
  spawn(flags: readonly string[] = []): Bun.Subprocess {
    return this.node.exec([...this.argv, ...flags, "--log-file", this.#logPath], { stdout: "ignore", stderr: "inherit" });
  }

  /** Starts a process that takes the place of the running one, and waits until it is ready. @returns the one that was replaced, which drains. */
  async replace(flags: readonly string[] = []): Promise<Bun.Subprocess> {
    const replaced = this.#process;
    if (replaced === null) throw new Error(`the agent of ${this.node.name} is not running`);
    await this.start(flags);
    return replaced;
  }

  /** Starts it and waits until it says that it is ready. */
  async start(flags: readonly string[] = []): Promise<void> {
    const before = this.log.length;
    this.#starts++;
    this.#process = this.spawn(flags);
    const { exited } = this.#process;
    let status: number | null = null;
    void exited.then((code) => (status = code));
    await until(() => `the agent of ${this.node.name} to be ready; its log:\n${this.log.slice(before).slice(-2000)}`, READY_MS, () => {
      if (status !== null) throw new Error(`the agent of ${this.node.name} ended with status ${status}; its log:\n${this.log.slice(before).slice(-4000)}`);
      return /\tinfo\tweft\tready\b/.test(this.log.slice(before));
    });
  }

  /** The first line that matches, once there is one. @param from length of the log from which on it counts. */
  async logged(pattern: RegExp, from = 0, timeoutMs = 5_000): Promise<string> {
    return await until(() => `${pattern} in the log of ${this.node.name}, which ends with\n${this.log.slice(from).slice(-LOG_CHARS_SHOWN)}`, timeoutMs, () => this.log.slice(from).split("\n").find((line) => pattern.test(line)));
  }

  /** Asks the admin port, which is on the node's own loopback. */
  async admin(method: "GET" | "POST", path: string, port = 15000): Promise<string> {
    const answer = await ask(this.node, method.toLowerCase(), `http://127.0.0.1:${port}${path}`);
    const status = answer.slice(0, 3);
    if (status !== "200") throw new Error(`${method} ${path} on ${this.node.name}: ${answer.slice(0, 300)}`);
    return answer.slice(4);
  }

  async metrics(): Promise<string> {
    return await this.admin("GET", "/metrics", 15020);
  }

  /** The sum of a metric's samples that carry these labels; 0 where there are none. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return sumOfSamples(await this.metrics(), name, labels);
  }

  /** Where the log ends now: what comes later is read with it. */
  mark(): number {
    return this.log.length;
  }

  /** Lines of the access log that have these fields, once there is one. @param from a mark. */
  async connections(fields: AccessFields, from: number, timeoutMs = 5_000): Promise<AccessFields[]> {
    const others = (): string => this.log.slice(from).split("\n").filter((line) => line.includes("\taccess\t")).slice(-OTHER_LINES_SHOWN).join("\n");
    return await until(() => `an access log line with ${JSON.stringify(fields)} on ${this.node.name}; the last ones are:\n${others()}`, timeoutMs, () => {
      const found = this.connectionsSoFar(fields, from);
      return found.length === 0 ? null : found;
    });
  }

  /** The same without waiting, so that none may be the answer. */
  connectionsSoFar(fields: AccessFields, from: number): AccessFields[] {
    return this.log.slice(from).split("\n").filter((line) => line.includes("\taccess\t")).map(readAccessLine)
      .filter((line) => Object.entries(fields).every(([name, value]) => line[name] === value));
  }

  /** Lines of the access log of its waypoints: what stands in Envoy's form by name, then the fields behind it. */
  requestsSoFar(): AccessFields[] {
    return this.log.split("\n").map(readRequestLine).filter((line) => line !== null);
  }

  /** SIGTERM, and its exit status. */
  async stop(): Promise<number | null> {
    return await this.#end("SIGTERM");
  }

  /** SIGKILL: nothing is cleaned up. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async #end(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    const running = this.#process;
    this.#process = null;
    if (running === null) return null;
    running.kill(signal);
    return await running.exited;
  }
}

/** Fields of one access log line, without quotes. */
export type AccessFields = Readonly<Record<string, string>>;

const REQUEST_LINE = /^\[[0-9T:.Z-]+\] "(?<method>\S+) (?<path>\S+) (?<protocol>\S+)" (?<status>\d+) (?<flags>\S+) (?<details>\S+) - "-" \d+ \d+ \d+ \S+ "[^"]*" "(?<agent>[^"]*)" "(?<request_id>[^"]*)" "(?<authority>[^"]*)" "(?<upstream>[^"]*)" (?<cluster>\S+) /;

function readRequestLine(line: string): AccessFields | null {
  const groups = REQUEST_LINE.exec(line)?.groups;
  return groups === undefined ? null : { ...readAccessLine(line), ...groups };
}

function readAccessLine(line: string): AccessFields {
  const pairs = line.matchAll(/[ \t]([a-z_.]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))/g);
  return Object.fromEntries([...pairs].map(([, name, quoted, bare]) => [name!, quoted ?? bare ?? ""]));
}

// YAML, in mesh words

export interface EntryOptions {
  readonly namespace?: string;
  readonly serviceAccount?: string;
  /** Labels or annotations beyond what follows from the workload. */
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  /** For selectors; the workload's name by default. */
  readonly app?: string;
  /** Its network, where that is not the node's. */
  readonly network?: string;
  /** False: its IPv6 address is the only one that is told. */
  readonly ipv4?: false;
}

export const namespaceYaml = (name: string, ambient: boolean): string =>
  `apiVersion: v1\nkind: Namespace\nmetadata:\n  name: ${name}\n  labels: { istio.io/dataplane-mode: ${ambient ? "ambient" : "none"} }\n`;

/** A WorkloadEntry for a workload of the network; app and service account are its name. */
export function entryYaml(workload: Workload, options: EntryOptions = {}): string {
  const extra = workload.ipv6 === null || options.ipv4 === false ? {} : { "weft.dev/addresses": workload.ipv6 };
  const annotations = { "weft.dev/node": workload.node.name, "weft.dev/netns": workload.namespacePath, ...extra, ...options.annotations };
  return JSON.stringify({
    apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry",
    metadata: { name: workload.name, namespace: options.namespace ?? "shop", annotations, labels: options.labels ?? {} },
    spec: { address: options.ipv4 === false ? workload.ipv6 : workload.ipv4, labels: { app: options.app ?? workload.name }, serviceAccount: options.serviceAccount ?? workload.name, ...(options.network === undefined ? {} : { network: options.network }) },
  });
}

export interface ServiceOptions {
  readonly namespace?: string;
  readonly clusterIPs: readonly string[];
  /** Which workloads: those whose app is the service's name by default. */
  readonly selector?: Readonly<Record<string, string>>;
  /** From the service's port to the workload's. */
  readonly ports: Readonly<Record<number, number>>;
}

export function serviceYaml(name: string, options: ServiceOptions): string {
  const ports = Object.entries(options.ports).map(([port, targetPort]) => ({ name: `tcp-${port}`, port: Number(port), targetPort }));
  return JSON.stringify({
    apiVersion: "v1", kind: "Service", metadata: { name, namespace: options.namespace ?? "shop" },
    spec: { clusterIP: options.clusterIPs[0], clusterIPs: options.clusterIPs, selector: options.selector ?? { app: name }, ports },
  });
}

/** An AuthorizationPolicy or PeerAuthentication of the namespace. */
export const policyYaml = (kind: "AuthorizationPolicy" | "PeerAuthentication", spec: object, name = "under-test"): string =>
  JSON.stringify({ apiVersion: "security.istio.io/v1", kind, metadata: { name, namespace: "shop" }, spec });

export const documents = (...parts: readonly string[]): string => parts.join("\n---\n");

export type { MeshNetwork };
