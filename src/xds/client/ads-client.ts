// The agent's end of delta ADS: keeps one stream to the control plane, whoever serves it, and hands over what comes. Everything is asked
// for again on each stream, with what is held, so that only the difference travels. What is refused is said so by name; the rest is taken.

import { create, type JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { pause } from "../../core/pause.ts";
import type { Random } from "../../core/ports.ts";
import { Pushed } from "../../core/pushed.ts";
import { type GrpcChannelOptions, GrpcChannel } from "../../identity/grpc-channel.ts";
import type { Timers } from "../../net/timers.ts";
import { AggregatedDiscoveryService, type DeltaDiscoveryRequest, DeltaDiscoveryRequestSchema, type DeltaDiscoveryResponse } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { type ReceivedResource, readResource } from "../resource.ts";
import type { Refusal, Response } from "./records.ts";

/** One response: the first holds the whole mesh. Twice what the reference takes. */
export const RESPONSE_BYTES_MAX = 400 * 1024 * 1024;
export const CONNECT_TIMEOUT_MS = 5_000;
/** First and longest wait before the next attempt; the reference's. Each is shortened by chance, so that agents do not come at once. */
export const RETRY_FIRST_MS = 10;
export const RETRY_MS_MAX = 15_000;
/** A stream that ended in order is begun again within this: the server wants its clients spread, not away. */
const REJOIN_MS = 500;
/**
 * After a confirmation the next one waits this long: the server gathers meanwhile, and tells of many changes at once. A change that comes
 * alone is confirmed, and taken, at once.
 */
export const CONFIRM_GATHER_MS = 40;
/** A refusal names what it can of what is wrong. */
const COMPLAINT_CHARS_MAX = 16 * 1024;
/** gRPC's INVALID_ARGUMENT: what a refused response is answered with. */
const REFUSED_CODE = 3;

export interface AdsClientOptions {
  readonly channel: Omit<GrpcChannelOptions, "responseBytesMax">;
  readonly node: { readonly id: string; readonly metadata: JsonObject };
  /** In the order in which they are asked for. */
  readonly types: readonly string[];
  /** What is held of a type, name to version. */
  readonly versions: (typeUrl: string) => ReadonlyMap<string, string>;
  /** Takes a response in. @returns what of it is refused. */
  readonly onResponse: (response: Response) => readonly Refusal[];
  readonly onEvent: (event: AdsClientEvent) => void;
  readonly random: Random;
  readonly timers: Timers;
}

export type AdsClientEvent =
  /** The first response of a stream has come. */
  | { readonly kind: "connected" }
  /** `how` in the reference's words. */
  | { readonly kind: "disconnected"; readonly reason: string; readonly how: "ConnectionError" | "Error" | "Complete"; readonly retryMs: number }
  | { readonly kind: "response"; readonly typeUrl: string; readonly bytes: number }
  | { readonly kind: "refused"; readonly typeUrl: string; readonly refusals: readonly Refusal[] };

export class AdsClient {
  readonly #options: AdsClientOptions;
  readonly #channel: GrpcChannel;
  readonly #end = new AbortController();
  #retryMs = RETRY_FIRST_MS;

  constructor(options: AdsClientOptions) {
    this.#options = options;
    this.#channel = new GrpcChannel({ ...options.channel, responseBytesMax: RESPONSE_BYTES_MAX });
  }

  /** Resolves when `close` was called. */
  async run(): Promise<void> {
    while (!this.#end.signal.aborted) {
      const outcome = await this.#stream();
      if (this.#end.signal.aborted) break;
      const { random, onEvent } = this.#options;
      let waitMs: number;
      if (outcome.how === "Complete") waitMs = random.next() * REJOIN_MS;
      else {
        waitMs = this.#retryMs * (0.5 + random.next() / 2);
        this.#retryMs = Math.min(RETRY_MS_MAX, this.#retryMs * 2);
      }
      onEvent({ kind: "disconnected", ...outcome, retryMs: Math.round(waitMs) });
      await pause(this.#options.timers, waitMs, this.#end.signal);
    }
    this.#channel.destroy();
  }

  close(): void {
    this.#end.abort();
  }

  /** One stream, until it ends. */
  async #stream(): Promise<{ readonly reason: string; readonly how: "ConnectionError" | "Error" | "Complete" }> {
    const prepared = this.#channel.prepare();
    if (!prepared.ok) return { reason: prepared.error, how: "ConnectionError" };
    const { address } = this.#options.channel;
    const failure = await prepared.value.connect(CONNECT_TIMEOUT_MS);
    if (failure !== null) return { reason: `connecting to ${address}: ${failure}`, how: "ConnectionError" };
    const { types } = this.#options;
    // The first requests, then at most one answer for each response that came.
    const outgoing = new Pushed(types.map((typeUrl) => this.#initialRequest(typeUrl)));
    const seen = new Set<string>();
    const confirmations = new Paced<DeltaDiscoveryRequest>((request) => outgoing.push(request), this.#options.timers);
    try {
      const client = createClient(AggregatedDiscoveryService, prepared.value.transport);
      for await (const response of client.deltaAggregatedResources(outgoing, { headers: prepared.value.headers, signal: this.#end.signal })) {
        if (seen.size === 0) {
          this.#retryMs = RETRY_FIRST_MS;
          this.#options.onEvent({ kind: "connected" });
        }
        confirmations.push(this.#take(response, !seen.has(response.typeUrl)));
        seen.add(response.typeUrl);
      }
      return { reason: `${address} ended the stream`, how: seen.size > 0 ? "Complete" : "Error" };
    } catch (cause) {
      const error = ConnectError.from(cause);
      return { reason: `${address}: ${Code[error.code]}: ${error.rawMessage}`, how: "Error" };
    } finally {
      confirmations.end();
      outgoing.end();
    }
  }

  #initialRequest(typeUrl: string): DeltaDiscoveryRequest {
    const { node, versions } = this.#options;
    return create(DeltaDiscoveryRequestSchema, {
      typeUrl, initialResourceVersions: Object.fromEntries(versions(typeUrl)), node,
    });
  }

  /** @returns the answer. */
  #take(response: DeltaDiscoveryResponse, first: boolean): DeltaDiscoveryRequest {
    const { typeUrl, nonce } = response;
    const resources: ReceivedResource[] = [];
    const refusals: Refusal[] = [];
    this.#options.onEvent({ kind: "response", typeUrl, bytes: response.resources.reduce((sum, { length }) => sum + length, 0) });
    // The stream holds its last response until the next comes: not what was in it.
    for (const bytes of response.resources.splice(0)) {
      const read = readResource(bytes);
      if (!read.ok) refusals.push({ name: "a resource that cannot be read", reason: read.error });
      else if (read.value.typeUrl !== typeUrl) refusals.push({ name: read.value.name, reason: `its content is of type ${read.value.typeUrl}` });
      else resources.push(read.value);
    }
    refusals.push(...this.#options.onResponse({ typeUrl, resources, removed: response.removedResources, first }));
    if (refusals.length === 0) return create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce: nonce });
    this.#options.onEvent({ kind: "refused", typeUrl, refusals });
    const message = refusals.map(({ name, reason }) => `${name}: ${reason}`).join("; ").slice(0, COMPLAINT_CHARS_MAX);
    return create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce: nonce, errorDetail: { code: REFUSED_CODE, message } });
  }
}

/** Lets the first of several through at once, and the others when a time has passed since, together and in their order. */
class Paced<T> {
  readonly #through: (value: T) => void;
  readonly #timers: Timers;
  readonly #waiting: T[] = [];
  #cancel: (() => void) | null = null;

  constructor(through: (value: T) => void, timers: Timers) {
    this.#through = through;
    this.#timers = timers;
  }

  push(value: T): void {
    if (this.#cancel !== null) {
      this.#waiting.push(value);
      return;
    }
    this.#through(value);
    this.#cancel = this.#timers.after(CONFIRM_GATHER_MS, () => this.#passed());
  }

  end(): void {
    this.#cancel?.();
  }

  #passed(): void {
    this.#cancel = null;
    const waiting = this.#waiting.splice(0);
    for (const value of waiting) this.#through(value);
    if (waiting.length > 0) this.#cancel = this.#timers.after(CONFIRM_GATHER_MS, () => this.#passed());
  }
}
