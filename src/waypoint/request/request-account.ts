// What will be told of one request when it has ended, gathered while it goes on. Whoever decides or sees something writes it here; nobody
// decides by it. It is the record that logs, metrics and spans are made from.

import type { Provenance } from "../../core/fault.ts";
import type { SocketAddress } from "../../core/ip.ts";
import type { SpiffeId } from "../../core/spiffe.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import type { InjectedFault } from "../../policy/http/plan.ts";
import { type ReasonCode, reasonEntry } from "../../policy/http/reason-codes.ts";
import type { FieldLookup } from "../../policy/http/request.ts";
import { type FailedAttempt, keepFields, type RequestRecord } from "../../telemetry/request-record.ts";
import type { RequestTrace } from "../../telemetry/request-trace.ts";
import type { ServiceTelemetry } from "../../telemetry/service-telemetry.ts";
import { GrpcMessageCounter } from "../../wire/grpc/message-counter.ts";
import { decodeGrpcMessage } from "../../wire/grpc/status.ts";
import { type HttpFields, ListFields } from "../../wire/http/fields.ts";
import type { Client } from "../downstream/client.ts";
import type { Cluster } from "../upstream/cluster.ts";
import type { UpstreamVersion } from "../upstream/endpoint-pool.ts";
import { endpointIdentity } from "../upstream/endpoint-identity.ts";
import type { RequestObserver } from "./observer.ts";
import type { RequestHead } from "./request-head.ts";
import type { ServiceView } from "../upstream/service-view.ts";
import type { HttpVersion } from "../channel/streams.ts";

const NO_INJECTED: readonly InjectedFault[] = Object.freeze([]);
const NO_FAILED: readonly FailedAttempt[] = Object.freeze([]);
const NO_RULES: readonly Provenance[] = Object.freeze([]);
const NO_FIELDS = keepFields(new ListFields([]), []);

export class RequestAccount implements RequestRecord {
  readonly client: Client;
  readonly head: RequestHead;
  readonly version: HttpVersion;
  readonly isGrpc: boolean;
  readonly startedMs: number;
  /** The configuration by which it is decided. */
  readonly view: ServiceView;
  requestId = "";
  trace: RequestTrace | null = null;
  /** What the endpoint's proxy calls the connection that the answer came on. */
  connectionTraceId: string | null = null;
  requestFields: FieldLookup = NO_FIELDS;
  responseFields: FieldLookup | null = null;
  attemptStartedMs = 0;
  answeredMs = 0;
  endedMs = 0;
  status = 0;
  grpcStatus: number | null = null;
  code: ReasonCode | null = null;
  detail = "";
  provenance: Provenance | null = null;
  /** Where none decided: the ALLOW policies of which none matched. */
  unmatched: readonly Provenance[] = NO_RULES;
  routeId: string | null = null;
  ruleName: string | null = null;
  /** Of the service that the client named, whatever a rule sends it to; null until that is decided. */
  named: Cluster | null = null;
  servedBy: Cluster | null = null;
  endpoint: Workload | null = null;
  upstreamAddress: string | null = null;
  upstreamVersion: UpstreamVersion | null = null;
  attempts = 0;
  failedAttempts: readonly FailedAttempt[] = NO_FAILED;
  injected: readonly InjectedFault[] = NO_INJECTED;
  requestBytes = 0;
  responseBytes = 0;
  /** Given the bytes of the bodies; null where messages are not counted. */
  readonly sentMessages: GrpcMessageCounter | null;
  readonly receivedMessages: GrpcMessageCounter | null;
  /** As it came. */
  #grpcMessage = "";
  #flags = "";

  constructor(client: Client, view: ServiceView, head: RequestHead, version: HttpVersion, startedMs: number) {
    this.client = client;
    this.view = view;
    this.head = head;
    this.version = version;
    this.startedMs = startedMs;
    this.isGrpc = (head.fields.value("content-type") ?? "").startsWith("application/grpc");
    const counts = this.isGrpc && view.telemetry.metrics?.nothing !== true;
    this.sentMessages = counts ? new GrpcMessageCounter() : null;
    this.receivedMessages = counts ? new GrpcMessageCounter() : null;
  }

  // ── What is written ───────────────────────────────────────────────────────────────────────────────────────────────────────

  /** From the head as it came, before anything changes it: what will be told of it, and the id that it goes on with. */
  begin(observer: RequestObserver): void {
    const { head: { fields }, view: { telemetry } } = this;
    if (telemetry.requestFields.length > 0) this.requestFields = keepFields(fields, telemetry.requestFields);
    this.trace = observer.trace(fields, telemetry);
    this.requestId = observer.requestId(fields);
  }

  /** One of Envoy's response flags. */
  flag(flag: string): void {
    if (flag !== "") this.#flags += this.#flags === "" ? flag : `,${flag}`;
  }

  /** A sentence for a person. */
  note(text: string): void {
    if (text !== "") this.detail += this.detail === "" ? text : `; ${text}`;
  }

  /** An answer of ours, or what ended one that had begun; the first counts. */
  blame(code: ReasonCode): void {
    this.code ??= code;
    this.flag(reasonEntry(code).flag);
  }

  /** The head of the answer, as it goes to the client. */
  answered(fields: HttpFields): void {
    const { responseFields } = this.telemetry;
    if (responseFields.length > 0) this.responseFields = keepFields(fields, responseFields);
  }

  /** @param message null for none. */
  grpcEnded(status: number | null, message: string | null): void {
    this.grpcStatus = status ?? this.grpcStatus;
    this.#grpcMessage = message ?? this.#grpcMessage;
  }

  /** An attempt that gives no answer which goes on. */
  failed(attempt: FailedAttempt): void {
    this.failedAttempts = this.failedAttempts === NO_FAILED ? [attempt] : [...this.failedAttempts, attempt];
  }

  // ── What is read at the end ───────────────────────────────────────────────────────────────────────────────────────────────

  get telemetry(): ServiceTelemetry {
    return this.view.telemetry;
  }

  get traceId(): string | null {
    return this.trace?.traceId ?? this.client.trace?.traceId ?? null;
  }

  get sourceTraceId(): string | null {
    const ofTunnel = this.client.trace?.traceId ?? null;
    return ofTunnel === this.traceId ? null : ofTunnel;
  }

  get endpointTraceId(): string | null {
    return this.connectionTraceId === this.traceId ? null : this.connectionTraceId;
  }

  get source(): Workload | null {
    return this.client.workload;
  }

  get sourceDescription(): null {
    return null;
  }

  get sourceIdentity(): SpiffeId | null {
    return this.client.source.identity;
  }

  get sourceAddress(): SocketAddress {
    return this.client.address;
  }

  get mutualTls(): boolean {
    return this.client.mutualTls;
  }

  get service(): Service | null {
    return this.view.toldService;
  }

  get destinationAddress(): SocketAddress {
    const { destinationIp, destinationPort } = this.client.facts;
    return { ip: destinationIp, port: destinationPort };
  }

  get scheme(): string {
    return this.head.scheme;
  }

  get method(): string {
    return this.head.method;
  }

  get host(): string {
    return this.head.host;
  }

  get authorityPort(): number | null {
    return this.head.authorityPort;
  }

  get path(): string {
    return this.head.path;
  }

  get pathReceived(): string | null {
    return this.head.pathReceived;
  }

  get query(): string {
    return this.head.query;
  }

  get cluster(): string | null {
    return this.servedBy?.name ?? null;
  }

  get endpointIdentity(): SpiffeId | null {
    return endpointIdentity(this.endpoint);
  }

  get grpcMessage(): string {
    return decodeGrpcMessage(this.#grpcMessage);
  }

  get flags(): string {
    return this.#flags === "" ? "-" : this.#flags;
  }

  get requestMessages(): number {
    return this.receivedMessages?.count ?? 0;
  }

  get responseMessages(): number {
    return this.sentMessages?.count ?? 0;
  }
}
