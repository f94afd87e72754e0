// What will be told of one request when it has ended, gathered while it goes on. Whoever decides or sees something writes it here; nobody
// decides by it.

import type { Provenance } from "../core/fault.ts";
import type { Workload } from "../mesh/records.ts";
import type { InjectedFault } from "../policy/http/plan.ts";
import { type ReasonCode, reasonEntry } from "../policy/http/reason-codes.ts";
import type { Client } from "./client.ts";
import type { Cluster } from "./cluster.ts";
import type { UpstreamVersion } from "./endpoint-pool.ts";
import type { EndedRequest } from "./observer.ts";
import type { RequestHead } from "./request-head.ts";
import type { ServiceView } from "./service-view.ts";
import type { HttpVersion } from "./streams.ts";

const NO_INJECTED: readonly InjectedFault[] = Object.freeze([]);

export class RequestAccount implements EndedRequest {
  readonly client: Client;
  readonly head: RequestHead;
  readonly version: HttpVersion;
  readonly isGrpc: boolean;
  readonly startedMs: number;
  view: ServiceView | null = null;
  attemptStartedMs = 0;
  answeredMs = 0;
  endedMs = 0;
  status = 0;
  grpcStatus: number | null = null;
  code: ReasonCode | null = null;
  detail = "";
  provenance: Provenance | null = null;
  routeName: string | null = null;
  servedBy: Cluster | null = null;
  endpoint: Workload | null = null;
  upstreamAddress: string | null = null;
  upstreamVersion: UpstreamVersion | null = null;
  attempts = 0;
  injected: readonly InjectedFault[] = NO_INJECTED;
  requestBytes = 0;
  responseBytes = 0;
  #flags = "";

  constructor(client: Client, head: RequestHead, version: HttpVersion, startedMs: number) {
    this.client = client;
    this.head = head;
    this.version = version;
    this.startedMs = startedMs;
    this.isGrpc = (head.fields.value("content-type") ?? "").startsWith("application/grpc");
  }

  get cluster(): string | null {
    return this.servedBy?.name ?? null;
  }

  get flags(): string {
    return this.#flags === "" ? "-" : this.#flags;
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
}
