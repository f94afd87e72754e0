// One question to one endpoint: is it well? By a connection of its own, made the way that traffic's are, so that what fails for requests
// fails here. One answer, within its time.

import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import type { HealthCheck } from "../../mesh/l7/traffic-policy.ts";
import type { Due } from "../../net/due-list.ts";
import { GRPC_STATUS } from "../../policy/http/reason-codes.ts";
import { frameGrpcMessage, readGrpcMessage } from "../../wire/grpc/message.ts";
import { parseGrpcStatusField } from "../../wire/grpc/status.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { type HeaderList, headerValue } from "../../wire/http/header-list.ts";
import { parseHost } from "../../wire/http/host.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import type { ChannelWithUser } from "../channel/channel.ts";
import type { EndpointWay, UpstreamVersion } from "./endpoint-pool.ts";
import type { ChannelOwner, PendingChannel } from "../channel/plain-channel.ts";
import type { UpstreamFailure, UpstreamStream, UpstreamUser } from "../channel/streams.ts";
import type { UpstreamConnection, UpstreamConnectionOwner } from "./upstream.ts";
import { Http1Upstream } from "./upstream-http1.ts";
import { Http2Upstream } from "./upstream-http2.ts";

/** What a probe needs to know of the endpoint. */
export interface ProbePlace extends EndpointWay {
  /** Host name of its service. */
  readonly serviceHost: string;
  /** What its servers speak where the probe itself does not say. */
  readonly version: UpstreamVersion;
}

/** @param why null when it passed; for a person: `HTTP 503, wanted 200`. */
export type ProbeDone = (why: string | null) => void;

const GRPC_PATH = "/grpc.health.v1.Health/Check";
/** ServingStatus of grpc.health.v1. */
const SERVING = 1;
const STATUS_WORDS = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/** The answer of a health service has a handful of bytes. */
const ANSWER_BYTES_MAX = 1024;
const AGENT = "weft-health-check";

export class HealthProbe implements ChannelOwner, UpstreamConnectionOwner, UpstreamUser, Due {
  dueMs: number;
  dueIndex = -1;
  readonly #place: ProbePlace;
  readonly #probe: HealthCheck["probe"];
  readonly #timeoutMs: number;
  readonly #done: ProbeDone;
  #pending: PendingChannel | null = null;
  #connection: UpstreamConnection | null = null;
  #stream: UpstreamStream | null = null;
  #unsent: Uint8Array | null = null;
  #chunks: Uint8Array[] = [];
  #receivedBytes = 0;
  #answer: { readonly status: number; readonly headers: HeaderList } | null = null;
  #over = false;

  /** @param done once, never before this returned; not after `cancel`. */
  constructor(place: ProbePlace, probe: HealthCheck["probe"], timeoutMs: number, done: ProbeDone) {
    const { host } = place;
    this.#place = place;
    this.#probe = probe;
    this.#timeoutMs = timeoutMs;
    this.#done = done;
    const nowMs = host.nowMs();
    this.dueMs = nowMs + timeoutMs;
    host.due.add(this);
    this.#pending = place.dial(this, this.#version, null, timeoutMs, nowMs);
  }

  /** Nobody wants the answer any more. */
  cancel(): void {
    this.#end();
  }

  get #version(): UpstreamVersion {
    return this.#probe.kind === "grpc" ? "HTTP/2" : this.#place.version;
  }

  connected(channel: ChannelWithUser, alpn: string | null): void {
    this.#pending = null;
    if (this.#over) return channel.destroy();
    const probe = this.#probe;
    if (probe.kind === "tcp") {
      // At once: a server that does not end its side would keep the connection.
      channel.destroy();
      return this.#finish(null);
    }
    const { host, name, scheme, spoken } = this.#place;
    const options = { host, owner: this, channel, name, scheme, traceId: null, findOutMs: null, idleTimeoutMs: this.#timeoutMs };
    const connection = (this.#connection = spoken(this.#version, alpn) === "HTTP/2" ? new Http2Upstream(options) : new Http1Upstream(options));
    channel.user = connection;
    const body = probe.kind === "grpc" ? frameGrpcMessage(checkRequest(probe.service)) : null;
    this.#stream = connection.request(this.#request(body?.length ?? 0), body === null, this);
    if (this.#stream === null) return this.#finish("the connection took no request");
    this.#unsent = body;
    this.onUpstreamSendable();
  }

  connectFailed(message: string): void {
    this.#pending = null;
    this.#finish(message);
  }

  onDue(): void {
    this.#finish(`no answer in ${this.#timeoutMs} ms`);
  }

  #request(bodyBytes: number): HttpRequest {
    const probe = this.#probe;
    const grpc = probe.kind === "grpc";
    const fields = ["user-agent", AGENT, ...(grpc ? ["content-type", "application/grpc", "te", "trailers"] : []), ...(probe.kind === "http" ? probe.headers.flat() : [])];
    const host = parseHost((probe.kind === "http" ? probe.host : null) ?? this.#place.serviceHost);
    return {
      method: grpc ? "POST" : "GET", target: { scheme: this.#place.scheme, host: host.ok ? host.value : null, path: probe.kind === "http" ? probe.path : GRPC_PATH, pathReceived: null, query: "" },
      fields: new ListFields(fields), contentLength: bodyBytes, hasBody: bodyBytes > 0, acceptsTrailers: grpc, expectsContinue: false, upgrade: null,
    };
  }

  // The answer

  onInformational(): void {}

  onResponse({ status, fields }: HttpResponse, endStream: boolean): void {
    const headers: HeaderList = [];
    fields.appendTo(headers);
    this.#answer = { status, headers };
    // Of HTTP the status says all.
    if (this.#probe.kind === "http") this.#finish(judgeStatus(status, this.#probe.statuses));
    else if (endStream) this.#judgeGrpc([]);
  }

  onTunnel(): void {
    this.#finish("another protocol was granted that nobody asked for");
  }

  onResponseBody(bytes: Uint8Array): void {
    this.#receivedBytes += bytes.length;
    if (this.#receivedBytes > ANSWER_BYTES_MAX) return this.#finish(`an answer of more than ${ANSWER_BYTES_MAX} bytes, which is none of a health service`);
    this.#chunks.push(new Uint8Array(bytes));
    this.#stream?.consumed(bytes.length);
  }

  onResponseEnd(trailers: HeaderList): void {
    this.#judgeGrpc(trailers);
  }

  onUpstreamSendable(): void {
    const bytes = this.#unsent;
    if (bytes === null || this.#stream === null) return;
    const taken = this.#stream.send(bytes);
    this.#unsent = taken < bytes.length ? bytes.subarray(taken) : null;
    if (this.#unsent === null) this.#stream.end([]);
  }

  onUpstreamFailed({ message }: UpstreamFailure): void {
    this.#stream = null;
    this.#finish(message);
  }

  #judgeGrpc(trailers: HeaderList): void {
    const { status, headers } = this.#answer!;
    if (status !== 200) return this.#finish(`HTTP ${status}, wanted a gRPC answer`);
    const grpc = parseGrpcStatusField(headerValue(trailers, "grpc-status") ?? headerValue(headers, "grpc-status"));
    if (grpc !== GRPC_STATUS.OK) return this.#finish(grpc === GRPC_STATUS.UNIMPLEMENTED ? "it has no grpc.health.v1.Health service (gRPC status 12)" : `gRPC status ${grpc ?? "missing"}, wanted 0`);
    const message = readGrpcMessage(Buffer.concat(this.#chunks));
    if (!message.ok) return this.#finish(message.error);
    const serving = servingStatus(message.value);
    if (serving === null) return this.#finish("its answer is no HealthCheckResponse");
    this.#finish(serving === SERVING ? null : `${STATUS_WORDS[serving] ?? `status ${serving}`}, wanted SERVING`);
  }

  // The connection

  hasRoom(): void {}
  retired(): void {}
  declined(): void {}

  gone(): void {}

  #finish(why: string | null): void {
    if (this.#over) return;
    this.#end();
    this.#done(why);
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#place.host.due.remove(this);
    this.#pending?.cancel();
    this.#stream = null;
    this.#connection?.destroy();
  }
}

function judgeStatus(status: number, wanted: readonly number[]): string | null {
  return wanted.includes(status) ? null : `HTTP ${status}, wanted ${wanted.join(" or ")}`;
}

/** HealthCheckRequest: field 1 is the name of the service; "" is the server as a whole. */
function checkRequest(service: string): Uint8Array {
  const writer = new BinaryWriter();
  if (service !== "") writer.tag(1, WireType.LengthDelimited).string(service);
  return writer.finish();
}

/** Field 1 of a HealthCheckResponse; 0 (UNKNOWN) where it is left out, null where the message does not parse. */
function servingStatus(message: Uint8Array): number | null {
  try {
    const reader = new BinaryReader(message);
    let status = 0;
    while (reader.pos < reader.len) {
      const [field, type] = reader.tag();
      if (field === 1 && type === WireType.Varint) status = reader.int32();
      else reader.skip(type, field);
    }
    return status;
  } catch {
    return null;
  }
}
