// One call of a collector, over gRPC or over HTTP with protobuf (OTLP, "OTLP/gRPC" and "OTLP/HTTP"): what was sent, what it said, and
// whether sending it again makes sense. Libraries come into memory with the first call of their kind.

import type { OtlpCollector } from "../mesh/l7/telemetry.ts";
import type { OtlpResource, PartialSuccess } from "./otlp-messages.ts";
import type { LogRecord, SpanRecord } from "./otlp-records.ts";

export type OtlpPayload =
  | { readonly signal: "traces"; readonly records: readonly SpanRecord[] }
  | { readonly signal: "logs"; readonly records: readonly LogRecord[] };
export type OtlpSignal = OtlpPayload["signal"];

export type ExportOutcome =
  | { readonly kind: "ok"; readonly partial: PartialSuccess }
  /** @param afterMs what the collector asked for; null for nothing. */
  | { readonly kind: "retry"; readonly afterMs: number | null; readonly message: string }
  | { readonly kind: "refused"; readonly message: string };

export interface OtlpTransport {
  /** Never rejects. */
  send(payload: OtlpPayload, signal: AbortSignal): Promise<ExportOutcome>;
  close(): void;
}

/** Where a collector is found now; null when its service has no address. */
export type ResolveCollector = (collector: OtlpCollector) => { readonly host: string; readonly port: number } | null;

const DEFAULT_PATHS = { traces: "/v1/traces", logs: "/v1/logs" } as const;
/** A collector's answer is a count and a sentence. */
const ANSWER_BYTES_MAX = 64 * 1024;
const RETRYABLE_STATUS = new Set([429, 502, 503, 504]);
const RETRY_AFTER_MS_MAX = 300_000;
const USER_AGENT = "weft-otlp";

export function createTransport(collector: OtlpCollector, resource: OtlpResource, resolve: ResolveCollector): OtlpTransport {
  return collector.protocol === "grpc" ? new GrpcTransport(collector, resource, resolve) : new HttpTransport(collector, resource, resolve);
}

function whereabouts(collector: OtlpCollector, resolve: ResolveCollector): { readonly origin: string } | { readonly outcome: ExportOutcome } {
  const found = resolve(collector);
  if (found === null) return { outcome: { kind: "retry", afterMs: null, message: `the collector ${collector.name} (${collector.service}:${collector.port}) has no address now` } };
  return { origin: `http://${found.host.includes(":") ? `[${found.host}]` : found.host}:${found.port}` };
}

class HttpTransport implements OtlpTransport {
  readonly #collector: OtlpCollector;
  readonly #resource: OtlpResource;
  readonly #resolve: ResolveCollector;

  constructor(collector: OtlpCollector, resource: OtlpResource, resolve: ResolveCollector) {
    this.#collector = collector;
    this.#resource = resource;
    this.#resolve = resolve;
  }

  async send(payload: OtlpPayload, signal: AbortSignal): Promise<ExportOutcome> {
    const at = whereabouts(this.#collector, this.#resolve);
    if ("outcome" in at) return at.outcome;
    const url = `${at.origin}${this.#collector.path === "" ? DEFAULT_PATHS[payload.signal] : this.#collector.path}`;
    try {
      const messages = await import("./otlp-messages.ts");
      const body = payload.signal === "traces"
        ? messages.encodeTraceRequest(this.#resource, payload.records)
        : messages.encodeLogsRequest(this.#resource, payload.records);
      const headers = new Headers([...this.#collector.headers.map(([name, value]): [string, string] => [name, value]), ["content-type", "application/x-protobuf"], ["user-agent", USER_AGENT]]);
      const response = await fetch(url, { method: "POST", body, headers, redirect: "error", signal });
      const answer = await readAnswer(response);
      if (response.ok) return { kind: "ok", partial: partialOf(() => (payload.signal === "traces" ? messages.decodeTraceResponse(answer) : messages.decodeLogsResponse(answer))) };
      const message = `${url} answered ${response.status}`;
      return RETRYABLE_STATUS.has(response.status) ? { kind: "retry", afterMs: retryAfter(response.headers.get("retry-after")), message } : { kind: "refused", message };
    } catch (error) {
      return { kind: "retry", afterMs: null, message: `${url}: ${error instanceof Error ? error.message : String(error)}` };
    }
  }

  close(): void {}
}

/** Bytes beyond the limit are not read: they could say nothing that is looked at. */
async function readAnswer(response: Response): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = response.body?.getReader();
  if (reader === undefined) return new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > ANSWER_BYTES_MAX) {
      await reader.cancel();
      return new Uint8Array(0);
    }
    chunks.push(value);
  }
  return Buffer.concat(chunks);
}

/** An answer that cannot be read says that the call was taken, and no more. */
function partialOf(decode: () => PartialSuccess): PartialSuccess {
  try {
    return decode();
  } catch {
    return { rejected: 0, message: "" };
  }
}

/** Seconds; a date would need a clock that agrees with the collector's. */
function retryAfter(text: string | null): number | null {
  return text !== null && /^[0-9]{1,6}$/.test(text) ? Math.min(Number(text) * 1000, RETRY_AFTER_MS_MAX) : null;
}

interface GrpcChannel {
  readonly origin: string;
  call(payload: OtlpPayload, signal: AbortSignal): Promise<PartialSuccess>;
  close(): void;
}

class GrpcTransport implements OtlpTransport {
  readonly #collector: OtlpCollector;
  readonly #resource: OtlpResource;
  readonly #resolve: ResolveCollector;
  #channel: GrpcChannel | null = null;

  constructor(collector: OtlpCollector, resource: OtlpResource, resolve: ResolveCollector) {
    this.#collector = collector;
    this.#resource = resource;
    this.#resolve = resolve;
  }

  async send(payload: OtlpPayload, signal: AbortSignal): Promise<ExportOutcome> {
    const at = whereabouts(this.#collector, this.#resolve);
    if ("outcome" in at) return at.outcome;
    try {
      const channel = await this.#open(at.origin);
      return { kind: "ok", partial: await channel.call(payload, signal) };
    } catch (error) {
      return this.#explain(at.origin, error);
    }
  }

  close(): void {
    this.#channel?.close();
    this.#channel = null;
  }

  async #open(origin: string): Promise<GrpcChannel> {
    if (this.#channel !== null && this.#channel.origin === origin) return this.#channel;
    this.close();
    const [{ createClient }, { createGrpcTransport, Http2SessionManager }, traces, logs, messages] = await Promise.all([
      import("@connectrpc/connect"), import("@connectrpc/connect-node"), import("../wire/protobuf/opentelemetry/proto/collector/trace/v1/trace_service_pb.ts"),
      import("../wire/protobuf/opentelemetry/proto/collector/logs/v1/logs_service_pb.ts"), import("./otlp-messages.ts"),
    ]);
    const sessions = new Http2SessionManager(origin);
    const transport = createGrpcTransport({ baseUrl: origin, sessionManager: sessions, readMaxBytes: ANSWER_BYTES_MAX });
    const traceClient = createClient(traces.TraceService, transport);
    const logsClient = createClient(logs.LogsService, transport);
    const headers = this.#collector.headers.map(([name, value]): [string, string] => [name, value]);
    const call: GrpcChannel["call"] = async (payload, signal) => {
      if (payload.signal === "traces") return messages.tracePartial(await traceClient.export(messages.traceRequest(this.#resource, payload.records), { headers, signal }));
      return messages.logsPartial(await logsClient.export(messages.logsRequest(this.#resource, payload.records), { headers, signal }));
    };
    return (this.#channel = { origin, call, close: () => sessions.abort() });
  }

  async #explain(origin: string, error: unknown): Promise<ExportOutcome> {
    const { Code, ConnectError } = await import("@connectrpc/connect");
    const { code, rawMessage } = ConnectError.from(error);
    const message = `${origin}: ${Code[code]}: ${rawMessage}`;
    // OTLP, "Failures": the statuses after which the same records may be sent again.
    switch (code) {
      case Code.Canceled: case Code.DeadlineExceeded: case Code.Aborted: case Code.OutOfRange: case Code.Unavailable: case Code.DataLoss: case Code.ResourceExhausted:
        return { kind: "retry", afterMs: null, message };
      // A connection that broke, and not an answer of the collector.
      case Code.Unknown: case Code.Internal:
        this.close();
        return { kind: "retry", afterMs: null, message };
      default:
        return { kind: "refused", message };
    }
  }
}
