// `weft waypoint` as a process: a directory of YAML, a log, its ports. In a box of its own, so that the usual ports are free.

import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { logPath } from "./log-path.ts";
import { until } from "./until.ts";
import { ip } from "./mesh-records.ts";
import { residentBytes, sumOfSamples } from "./process-figures.ts";

const ROOT = join(import.meta.dir, "../..");
const READY_MS = 20_000;

const json = (...objects: readonly object[]): string => objects.map((object) => JSON.stringify(object)).join("\n---\n");

/** The namespace `shop` and the waypoint that is started here, as one YAML text of two documents. */
export const WAYPOINT_YAML = json({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } }, {
  apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" },
  spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] },
});

/** A Service of `shop` with one endpoint, which is no workload of the mesh's own. */
export function serviceYaml(name: string, address: string, targetPort: number, port = 80): string {
  return json({
    apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: { name, namespace: "shop" }, spec: { address, labels: { app: name, version: `of-${name}` }, serviceAccount: "web" },
  }, {
    apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop" },
    spec: { clusterIP: `198.18.250.${address.slice(address.lastIndexOf(".") + 1)}`, selector: { app: name }, ports: [{ name: "http", port, targetPort }] },
  });
}

/** Addresses on the loopback of this box. */
export function ownAddresses(addresses: readonly string[]): void {
  using links = must(NamespaceLinks.open(null));
  for (const address of addresses) must(links.addAddress(must(links.loopback()), ip(address), 32));
}

/** What curl printed. Complaints of it are the test's own. */
export const curl = async (...args: readonly string[]): Promise<string> => new Response(Bun.spawn(["curl", "-sS", "--max-time", "5", ...args], { stderr: "inherit" }).stdout).text();

export interface WaypointProcessOptions {
  /** By file name; one is better than none: a directory without YAML is no configuration. */
  readonly yaml: Readonly<Record<string, string>>;
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export class WaypointProcess implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), "weft-waypoint-"));
  readonly #options: WaypointProcessOptions;
  #running: Bun.Subprocess | null = null;
  #starts = 0;

  private constructor(options: WaypointProcessOptions) {
    this.#options = options;
    mkdirSync(this.config);
    for (const [name, yaml] of Object.entries(options.yaml)) this.write(name, yaml);
  }

  /** One that is not waited for. */
  static begin(options: WaypointProcessOptions): WaypointProcess {
    const waypoint = new WaypointProcess(options);
    waypoint.spawn();
    return waypoint;
  }

  static async start(options: WaypointProcessOptions): Promise<WaypointProcess> {
    const waypoint = WaypointProcess.begin(options);
    await waypoint.ready();
    return waypoint;
  }

  get config(): string {
    return join(this.directory, "config");
  }

  get process(): Bun.Subprocess {
    return this.#running!;
  }

  /** Of all that were started, one after the other. */
  get log(): string {
    return Array.from({ length: this.#starts }, (_, i) => this.#logOf(i)).join("");
  }

  /** Of the one that was started last. */
  get lastLog(): string {
    return this.#logOf(this.#starts - 1);
  }

  #logOf(start: number): string {
    return readFileSync(logPath(this.directory, `log-${start}`), "utf8");
  }

  /** Lines of the access log as JSON. */
  get lines(): Record<string, unknown>[] {
    return this.log.split("\n").filter((line) => line.includes('"scope":"access"')).map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  /** Another one with the same arguments and more; the one before is the caller's to watch. */
  spawn(more: readonly string[] = []): Bun.Subprocess {
    const { flags = [], env = {} } = this.#options;
    this.#running = Bun.spawn(
      [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", this.config, "--state", join(this.directory, "state"), "--gateway", "shop/waypoint", "--log-format", "json", ...flags, ...more],
      { stdout: "ignore", stderr: Bun.file(logPath(this.directory, `log-${this.#starts++}`)), env: { ...process.env, ...env } },
    );
    return this.#running;
  }

  async ready(): Promise<void> {
    await until("the waypoint to be ready", READY_MS, () => fetch("http://127.0.0.1:15021/healthz/ready").then(({ ok }) => ok, () => false)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.log}`);
    });
  }

  /** As a deployment does: a file is there whole, or not at all. */
  write(name: string, yaml: string): void {
    writeFileSync(join(this.directory, name), yaml);
    renameSync(join(this.directory, name), join(this.config, name));
  }

  remove(name: string): void {
    rmSync(join(this.config, name));
  }

  async dump(path = "config_dump"): Promise<unknown> {
    return (await fetch(`http://127.0.0.1:15000/${path}`)).json();
  }

  /** Memory it holds now. */
  residentBytes(): number {
    return residentBytes(this.process.pid);
  }

  /** Sum of the samples of a metric with these labels. */
  async metric(name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> {
    return sumOfSamples(await (await fetch("http://127.0.0.1:15020/metrics")).text(), name, labels);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#running?.kill("SIGKILL");
    await this.#running?.exited;
    rmSync(this.directory, { recursive: true, force: true });
  }
}
