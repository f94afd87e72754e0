// `weft waypoint` as a process of its own, configured by a directory, with servers on addresses of this box's loopback.

import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { must, NamespaceLinks } from "../../src/net/links.ts";
import { until } from "./mesh.ts";
import { ip } from "./mesh-records.ts";

const ROOT = join(import.meta.dir, "../..");
const GATEWAY = JSON.stringify({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: "shop" },
  spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] },
});
const NAMESPACE = JSON.stringify({ apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } });

/** Addresses of 198.18.0.0/15 for servers, on loopback. */
export function loopbackAddresses(...addresses: readonly string[]): void {
  using links = must(NamespaceLinks.open(null));
  for (const address of addresses) must(links.addAddress(must(links.loopback()), ip(address), 32));
}

/** A Service of `shop` with one endpoint, which is no workload of the mesh's own. */
export function serviceYaml(name: string, address: string, targetPort: number, port: { readonly name?: string; readonly port?: number } = {}): string {
  const entry = { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: { name, namespace: "shop" }, spec: { address, labels: { app: name, version: `of-${name}` }, serviceAccount: "web" } };
  const service = {
    apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop" },
    spec: { clusterIP: `198.18.250.${address.slice(address.lastIndexOf(".") + 1)}`, selector: { app: name }, ports: [{ name: port.name ?? "http", port: port.port ?? 80, targetPort }] },
  };
  return `${JSON.stringify(entry)}\n---\n${JSON.stringify(service)}`;
}

export class WaypointRole implements AsyncDisposable {
  readonly #directory = mkdtempSync(join(tmpdir(), "weft-waypoint-"));
  readonly url = "http://127.0.0.1:8080";
  #process: Bun.Subprocess | null = null;

  constructor() {
    mkdirSync(this.#config);
    this.write("waypoint.yaml", `${NAMESPACE}\n---\n${GATEWAY}`);
  }

  get #config(): string {
    return join(this.#directory, "config");
  }

  get log(): string {
    return readFileSync(join(this.#directory, "log"), "utf8");
  }

  get process(): Bun.Subprocess {
    if (this.#process === null) throw new Error("the waypoint was not started");
    return this.#process;
  }

  /** A whole file at once, as everything that writes configuration should. */
  write(name: string, yaml: string): void {
    writeFileSync(join(this.#directory, name), yaml);
    renameSync(join(this.#directory, name), join(this.#config, name));
  }

  remove(name: string): void {
    rmSync(join(this.#config, name));
  }

  /** @param service of `shop`, at port 80, which is served at `url`. */
  async start(service: string, ...more: readonly string[]): Promise<void> {
    this.#process = Bun.spawn(
      [process.execPath, join(ROOT, "src/main.ts"), "waypoint", "--config", this.#config, "--state", join(this.#directory, "state"), "--gateway", "shop/waypoint", "--log-format", "json",
        "--serve", `127.0.0.1:8080=shop/${service}.shop.svc.cluster.local:80`, ...more],
      { stdout: "ignore", stderr: Bun.file(join(this.#directory, "log")) },
    );
    await until("the waypoint to be ready", 20_000, () => fetch("http://127.0.0.1:15021/healthz/ready").then(({ ok }) => ok, () => false)).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.log}`);
    });
  }

  /** Lines about requests so far. */
  get requests(): readonly Record<string, unknown>[] {
    return this.log.split("\n").filter((line) => line.includes('"scope":"access"')).map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process?.kill("SIGKILL");
    await this.#process?.exited;
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
