// A collector of spans and log records, by OTLP over HTTP and over gRPC: keeps what it gets, read with the messages of the public protos,
// and can be slow, refuse or be away. What tests look at is flat: ids in hexadecimal, attributes by name.

import { fromBinary } from "@bufbuild/protobuf";
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { ExportLogsServiceRequestSchema } from "../../src/wire/protobuf/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts";
import { ExportTraceServiceRequestSchema } from "../../src/wire/protobuf/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts";
import type { KeyValue } from "../../src/wire/protobuf/opentelemetry/proto/common/v1/common_pb.ts";

export type Attributes = Readonly<Record<string, unknown>>;

export interface CollectedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly traceState: string;
  readonly name: string;
  readonly kind: "server" | "client" | "other";
  readonly startedNs: bigint;
  readonly endedNs: bigint;
  /** Null when the span is no error. */
  readonly error: string | null;
  readonly attributes: Attributes;
  readonly resource: Attributes;
}

export interface CollectedLog {
  readonly body: string;
  readonly severity: string;
  readonly traceId: string;
  readonly spanId: string;
  readonly attributes: Attributes;
  readonly resource: Attributes;
}

const SERVER = 2;
const CLIENT = 3;
const ERROR = 2;
const GRPC_PREFIX_BYTES = 5;
const GRPC_UNAVAILABLE = 14;

export class OtlpCollectorServer implements AsyncDisposable {
  readonly spans: CollectedSpan[] = [];
  readonly logs: CollectedLog[] = [];
  /** Header fields of each call. */
  readonly calls: { readonly path: string; readonly headers: Readonly<Record<string, string>> }[] = [];
  /** `away`: calls fail, and may be made again. `stuck`: they are never answered. */
  mood: "well" | "away" | "stuck" = "well";
  readonly #http: Bun.Server<undefined>;
  readonly #grpc: Http2Server;
  readonly #sessions = new Set<ServerHttp2Session>();

  private constructor(host: string, ports: { readonly http: number; readonly grpc: number }) {
    this.#http = Bun.serve({ hostname: host, port: ports.http, idleTimeout: 0, fetch: (request) => this.#onHttp(request) });
    this.#grpc = createServer();
    this.#grpc.on("session", (session) => {
      this.#sessions.add(session);
      session.on("error", () => {});
      session.on("close", () => this.#sessions.delete(session));
    });
    this.#grpc.on("stream", (stream: ServerHttp2Stream, headers: object) => this.#onGrpc(stream, headers as Record<string, string>));
    this.#grpc.listen(ports.grpc, host);
  }

  static async start(host = "127.0.0.1", ports: { readonly http: number; readonly grpc: number } = { http: 0, grpc: 0 }): Promise<OtlpCollectorServer> {
    const server = new OtlpCollectorServer(host, ports);
    if (!server.#grpc.listening) await new Promise<void>((resolve) => server.#grpc.once("listening", () => resolve()));
    return server;
  }

  get httpPort(): number {
    return this.#http.port!;
  }

  get grpcPort(): number {
    return (this.#grpc.address() as AddressInfo).port;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const session of this.#sessions) session.destroy();
    this.#grpc.close();
    await this.#http.stop(true);
  }

  async #onHttp(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    const body = new Uint8Array(await request.arrayBuffer());
    this.calls.push({ path, headers: Object.fromEntries(request.headers) });
    if (this.mood === "stuck") return new Promise<Response>(() => {});
    if (this.mood === "away") return new Response(null, { status: 503 });
    this.#take(path.endsWith("traces") ? "traces" : "logs", body);
    return new Response(new Uint8Array(0), { headers: { "content-type": "application/x-protobuf" } });
  }

  #onGrpc(stream: ServerHttp2Stream, headers: Record<string, string>): void {
    const chunks: Buffer[] = [];
    const path = headers[":path"]!;
    stream.on("error", () => {});
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      this.calls.push({ path, headers });
      if (this.mood === "stuck") return;
      const away = this.mood === "away";
      if (!away) this.#take(path.includes("TraceService") ? "traces" : "logs", Buffer.concat(chunks).subarray(GRPC_PREFIX_BYTES));
      stream.respond({ ":status": 200, "content-type": "application/grpc+proto" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": String(away ? GRPC_UNAVAILABLE : 0) }));
      if (away) stream.end();
      // An empty message: everything was taken.
      else stream.end(Buffer.alloc(GRPC_PREFIX_BYTES));
    });
  }

  #take(signal: "traces" | "logs", body: Uint8Array): void {
    if (signal === "traces") {
      for (const { resource, scopeSpans } of fromBinary(ExportTraceServiceRequestSchema, body).resourceSpans) {
        for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
          this.spans.push({
            traceId: span.traceId.toHex(), spanId: span.spanId.toHex(), parentSpanId: span.parentSpanId.toHex(), traceState: span.traceState, name: span.name,
            kind: span.kind === SERVER ? "server" : span.kind === CLIENT ? "client" : "other", startedNs: span.startTimeUnixNano, endedNs: span.endTimeUnixNano,
            error: span.status?.code === ERROR ? span.status.message : null, attributes: attributesOf(span.attributes), resource: attributesOf(resource?.attributes ?? []),
          });
        }
      }
      return;
    }
    for (const { resource, scopeLogs } of fromBinary(ExportLogsServiceRequestSchema, body).resourceLogs) {
      for (const log of scopeLogs.flatMap(({ logRecords }) => logRecords)) {
        this.logs.push({
          body: String(log.body?.value.value), severity: log.severityText, traceId: log.traceId.toHex(), spanId: log.spanId.toHex(), attributes: attributesOf(log.attributes),
          resource: attributesOf(resource?.attributes ?? []),
        });
      }
    }
  }
}

function attributesOf(list: readonly KeyValue[]): Attributes {
  return Object.fromEntries(list.map(({ key, value }) => [key, valueOf(value)]));
}

/** Whole numbers of 64 bits as numbers: none in these tests is larger. */
function valueOf(value: KeyValue["value"]): unknown {
  const inner = value?.value;
  if (inner?.case === "arrayValue") return inner.value.values.map(valueOf);
  return inner?.case === "intValue" ? Number(inner.value) : inner?.value;
}
