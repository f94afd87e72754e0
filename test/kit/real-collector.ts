// A real OpenTelemetry collector as a process, with what it passes on: what it could not read it would not. OTELCOL_BIN names one with the
// otlp receiver and the otlp_http exporter.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "./until.ts";
import { needsBinary, type SkipReason } from "./skip.ts";

const GRPC_PORT = 4317;
const HTTP_PORT = 4318;
const SINK_PORT = 4319;

export const needsCollector: SkipReason = needsBinary("OTELCOL_BIN");

/** OTLP as JSON (OTLP, "JSON Protobuf Encoding"): ids in hexadecimal, numbers of 64 bits as text. */
export interface JsonSpan { traceId: string; spanId: string; parentSpanId: string; name: string; kind: number; startTimeUnixNano: string; endTimeUnixNano: string; traceState?: string; status: { code?: number; message?: string }; attributes: JsonAttribute[] }
export interface JsonLog { traceId: string; severityText: string; body: { stringValue: string }; attributes: JsonAttribute[] }
export interface JsonAttribute { key: string; value: { stringValue?: string; intValue?: string; arrayValue?: { values: { stringValue: string }[] } } }
interface JsonTraces { resourceSpans: { resource: { attributes: JsonAttribute[] }; scopeSpans: { spans: JsonSpan[] }[] }[] }
interface JsonLogs { resourceLogs: { scopeLogs: { logRecords: JsonLog[] }[] }[] }

export class RealCollector implements AsyncDisposable {
  readonly grpcPort = GRPC_PORT;
  readonly httpPort = HTTP_PORT;
  spans: JsonSpan[] = [];
  logs: JsonLog[] = [];
  /** `service.name` of each batch of spans. */
  services: string[] = [];
  readonly #directory = mkdtempSync(join(tmpdir(), "weft-otelcol-"));
  readonly #sink: Bun.Server<undefined>;
  readonly #process: Bun.Subprocess;

  private constructor(host: string) {
    this.#sink = Bun.serve({ hostname: "127.0.0.1", port: SINK_PORT, fetch: (received) => this.#take(received) });
    const config = {
      receivers: { otlp: { protocols: { grpc: { endpoint: `${host}:${GRPC_PORT}` }, http: { endpoint: `${host}:${HTTP_PORT}` } } } },
      exporters: { otlp_http: { endpoint: `http://127.0.0.1:${SINK_PORT}`, encoding: "json", compression: "none", sending_queue: { enabled: false }, retry_on_failure: { enabled: false } } },
      service: {
        telemetry: { metrics: { level: "none" } },
        pipelines: { traces: { receivers: ["otlp"], exporters: ["otlp_http"] }, logs: { receivers: ["otlp"], exporters: ["otlp_http"] } },
      },
    };
    const path = join(this.#directory, "config.yaml");
    writeFileSync(path, JSON.stringify(config));
    this.#process = Bun.spawn([process.env["OTELCOL_BIN"]!, "--config", `file:${path}`], { stdout: "ignore", stderr: Bun.file(join(this.#directory, "log")) });
  }

  static async start(host = "127.0.0.1"): Promise<RealCollector> {
    const collector = new RealCollector(host);
    const asked = { method: "POST", body: "{}", headers: { "content-type": "application/json" } };
    await until("the collector answers", 30_000, async () => ((await fetch(`http://${host}:${HTTP_PORT}/v1/traces`, asked).catch(() => null))?.ok === true ? true : null));
    return collector;
  }

  /** Forgets what came so far. */
  clear(): void {
    this.spans = [];
    this.logs = [];
    this.services = [];
  }

  async #take(received: Request): Promise<Response> {
    const body: unknown = await received.json();
    if (new URL(received.url).pathname === "/v1/traces") {
      const { resourceSpans } = body as JsonTraces;
      this.services.push(...resourceSpans.map(({ resource }) => resource.attributes.find(({ key }) => key === "service.name")!.value.stringValue!));
      this.spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
    } else {
      this.logs.push(...(body as JsonLogs).resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords)));
    }
    return Response.json({});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.kill();
    await this.#process.exited;
    await this.#sink.stop(true);
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
