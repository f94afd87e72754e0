// The main thread's side of spans and log records: takes them from the data threads, finds the collectors that they are for among the
// mesh's services, and sends them off. What is decided there (queues, repeats, giving up) is the exporter's.

import { nameHalf, type NamespacedName, namespaceHalf } from "../core/brand.ts";
import type { Clock, Random } from "../core/ports.ts";
import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { chooseAddress, targetPortOf } from "../policy/candidates.ts";
import { emptySnapshot, type MeshSnapshot } from "../resources/mesh-delta.ts";
import type { Logger } from "../runtime/logger.ts";
import { VERSION } from "../runtime/version.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import { MetricSeries } from "../telemetry/metric-series.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import { OtlpExporter } from "../telemetry/otlp-exporter.ts";
import type { OtlpResource } from "../telemetry/otlp-messages.ts";
import { OTLP_IN_FLIGHT_RECORDS_MAX } from "../telemetry/otlp-outbox.ts";
import type { OtlpBatch } from "../telemetry/otlp-records.ts";
import { createTransport, type OtlpTransport } from "../telemetry/otlp-transport.ts";

/** The exporter's own rhythm: what lingers goes, what failed is tried again. */
const TICK_MS = 1_000;

export interface CollectorsOptions {
  readonly gateway: NamespacedName;
  readonly node: string;
  readonly network: string;
  readonly clusterId: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export class Collectors {
  /** Shared with the data threads. */
  readonly credit = new LogCredit(new SharedArrayBuffer(4), OTLP_IN_FLIGHT_RECORDS_MAX);
  readonly #network: string;
  readonly #series = new MetricSeries();
  readonly #exporter: OtlpExporter;
  readonly #timer: ReturnType<typeof setInterval>;
  /** The endpoint that this process begins with, so that not all choose the same. */
  readonly #firstTurn: number;
  #mesh: MeshSnapshot = emptySnapshot;
  /** Endpoints by service and port, of the present mesh. */
  readonly #found = new Map<string, readonly CollectorAddress[]>();

  constructor(options: CollectorsOptions) {
    const { clock, random, log } = options;
    const resource = resourceOf(options);
    this.#network = options.network;
    this.#firstTurn = Math.floor(random.next() * 0x10000);
    this.#exporter = new OtlpExporter({
      series: this.#series, clock, random,
      transportOf: (collector) => this.#transport(collector, resource),
      onHealth: ({ name }, signal, failure) => {
        if (failure === null) return log.info(`the collector ${name} takes ${signal} again`);
        log.warn(`the collector ${name} does not take ${signal}: ${failure}; requests are not affected, what it cannot take in time is dropped and counted`, { code: "collector_failed" });
      },
    });
    this.#timer = setInterval(() => this.#exporter.tick(), TICK_MS);
    this.#timer.unref();
  }

  /** Where collectors are found from now on. */
  apply(mesh: MeshSnapshot): void {
    if (mesh === this.#mesh) return;
    this.#mesh = mesh;
    this.#found.clear();
  }

  /** From a data thread, which gets its credit back. */
  take(batches: readonly OtlpBatch[]): void {
    this.credit.giveBack(this.#exporter.take(batches));
  }

  /** An endpoint of the collector's service, without a tunnel; null when it has none that can be reached. */
  resolve({ service, port }: Pick<OtlpCollector, "service" | "port">, turn = 0): CollectorAddress | null {
    const key = `${service}:${port}`;
    let found = this.#found.get(key);
    if (found === undefined) this.#found.set(key, (found = this.#endpoints(service, port)));
    return found.length === 0 ? null : found[(this.#firstTurn + turn) % found.length]!;
  }

  snapshot(): MetricsSnapshot {
    return { connectionKeys: [], connectionValues: new Float64Array(0), cells: this.#series.snapshotCells(), histograms: this.#series.snapshotHistograms() };
  }

  /** Sends what there is, until `signal` at the latest. */
  async drain(signal: AbortSignal): Promise<void> {
    clearInterval(this.#timer);
    await this.#exporter.drain(signal);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  /** One endpoint as long as it takes what is sent, then the next. */
  #transport(collector: OtlpCollector, resource: OtlpResource): OtlpTransport {
    let turn = 0;
    const transport = createTransport(collector, resource, (wanted) => this.resolve(wanted, turn));
    return {
      async send(payload, signal) {
        const outcome = await transport.send(payload, signal);
        if (outcome.kind === "retry") turn++;
        return outcome;
      },
      close: () => transport.close(),
    };
  }

  #endpoints(name: NamespacedName, port: number): CollectorAddress[] {
    const service = this.#mesh.services.get(name);
    if (service === undefined) return [];
    const found: CollectorAddress[] = [];
    for (const workload of this.#mesh.workloads.values()) {
      const address = this.#addressOf(workload, service, name, port);
      if (address !== null) found.push(address);
    }
    return found;
  }

  #addressOf(workload: Workload, service: Service, name: NamespacedName, port: number): CollectorAddress | null {
    const membership = workload.services.find((each) => each.service === name);
    if (membership === undefined || workload.network !== this.#network || workload.capacity <= 0) return null;
    if (workload.status === "unhealthy" && !service.loadBalancing.allowUnhealthy) return null;
    const targetPort = targetPortOf({ workload, ports: membership.ports }, service, port);
    const host = chooseAddress(workload.addresses, service.ipFamilies, 4) ?? (workload.addresses.length === 0 ? workload.hostname : "");
    return targetPort === null || host === "" ? null : { host, port: targetPort };
  }
}

export interface CollectorAddress {
  readonly host: string;
  readonly port: number;
}

/** As Istio's waypoints name themselves: `NAME.NAMESPACE`. */
function resourceOf({ gateway, node, clusterId }: CollectorsOptions): OtlpResource {
  const namespace = namespaceHalf(gateway);
  return {
    attributes: [
      ["service.name", `${nameHalf(gateway)}.${namespace}`], ["service.namespace", namespace], ["service.version", VERSION], ["k8s.namespace.name", namespace], ["k8s.cluster.name", clusterId],
      ["host.name", node],
    ],
    scopeName: "weft", scopeVersion: VERSION,
  };
}
