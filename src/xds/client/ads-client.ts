// The agent's end of delta ADS: keeps one stream to the control plane, whoever serves it, and hands over what comes. Everything is asked
// for again on each stream, with what is held, so that only the difference travels. What is refused is said so by name; the rest is taken.

import { create, type JsonObject, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { pause } from "../../core/pause.ts";
import type { Random } from "../../core/ports.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { GrpcCall } from "../../identity/grpc-call.ts";
import { type GrpcChannelOptions, GrpcChannel } from "../../identity/grpc-channel.ts";
import type { Timers } from "../../net/timers.ts";
import type { GrpcMessageSink } from "../../wire/grpc/message-pieces.ts";
import { AggregatedDiscoveryService, DeltaDiscoveryRequestSchema } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { type ReceivedResource, readResource } from "../resource.ts";
import type { Refusal } from "./records.ts";
import { ResponsePieces, type ResponseRest } from "./response-pieces.ts";

const PATH = `/${AggregatedDiscoveryService.typeName}/${AggregatedDiscoveryService.method.deltaAggregatedResources.name}`;
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
 * alone is confirmed, and taken, at once. A response costs an agent as much as three or four changes in it, so a tenth of a second, which
 * istiod gathers for too, takes a quarter less processor time of a mesh that changes without end than 40 ms.
 */
export const CONFIRM_GATHER_MS = 100;
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
  /** A response has begun. */
  readonly onResponse: () => IncomingResponse;
  readonly onEvent: (event: AdsClientEvent) => void;
  readonly random: Random;
  readonly timers: Timers;
}

/** Takes one response in while it comes. One that never ends, since its stream did, is forgotten. */
export interface IncomingResponse {
  /** @param resource its value is borrowed. */
  add(resource: ReceivedResource): void;
  /**
   * The response is whole, and comes into force.
   * @param about `first`: of its type on its stream. `refused`: what of it could not be added.
   * @returns what of it is refused, those included.
   */
  end(about: { readonly typeUrl: string; readonly removed: readonly string[]; readonly first: boolean; readonly refused: readonly Refusal[] }): readonly Refusal[];
}

type Request = MessageInitShape<typeof DeltaDiscoveryRequestSchema>;

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
    const { types, onEvent } = this.#options;
    const stream = new AdsStream(this.#options, () => {
      this.#retryMs = RETRY_FIRST_MS;
      onEvent({ kind: "connected" });
    });
    const call = prepared.value.call({ path: PATH, timeoutMs: null, signal: this.#end.signal, sink: stream });
    stream.answerBy(call);
    for (const typeUrl of types) call.send(toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, this.#initialRequest(typeUrl))));
    const { status, message } = await call.ended;
    stream.close();
    if (status === "Ok") return { reason: `${address} ended the stream`, how: stream.toldSomething ? "Complete" : "Error" };
    return { reason: `${address}: ${status}: ${message}`, how: "Error" };
  }

  #initialRequest(typeUrl: string): Request {
    const { node, versions } = this.#options;
    return { typeUrl, initialResourceVersions: Object.fromEntries(versions(typeUrl)), node };
  }
}

/** What comes on one stream, and what is answered. */
class AdsStream implements GrpcMessageSink {
  readonly #options: AdsClientOptions;
  readonly #onFirst: () => void;
  readonly #seen = new Set<string>();
  readonly #pieces = new ResponsePieces((bytes) => this.#add(bytes));
  #confirmations: Paced<Uint8Array> | null = null;
  #incoming: IncomingResponse | null = null;
  /** Of the present response. */
  #refused: Refusal[] = [];
  #typeUrl = "";
  #resourceBytes = 0;

  constructor(options: AdsClientOptions, onFirst: () => void) {
    this.#options = options;
    this.#onFirst = onFirst;
  }

  answerBy(call: GrpcCall): void {
    this.#confirmations = new Paced((request) => call.send(request), this.#options.timers);
  }

  get toldSomething(): boolean {
    return this.#seen.size > 0;
  }

  close(): void {
    this.#confirmations?.end();
  }

  begin(): void {
    if (!this.toldSomething) this.#onFirst();
    this.#incoming = this.#options.onResponse();
    [this.#refused, this.#typeUrl, this.#resourceBytes] = [[], "", 0];
  }

  piece(piece: Uint8Array): Result<void, string> {
    return this.#pieces.push(piece);
  }

  end(): Result<void, string> {
    const rest = this.#pieces.end();
    if (!rest.ok) return err(`a response that cannot be read: ${rest.error}`);
    this.#confirmations?.push(this.#take(rest.value));
    this.#seen.add(rest.value.typeUrl);
    return ok(undefined);
  }

  /** Its content says of which type a resource is, before the response has said it. */
  #add(bytes: Uint8Array): void {
    this.#resourceBytes += bytes.length;
    const read = readResource(bytes);
    if (!read.ok) {
      this.#refused.push({ name: "a resource that cannot be read", reason: read.error });
      return;
    }
    if (this.#typeUrl === "") this.#typeUrl = read.value.typeUrl;
    if (this.#typeUrl === read.value.typeUrl) this.#incoming!.add(read.value);
    else this.#refused.push({ name: read.value.name, reason: `its content is of type ${read.value.typeUrl}` });
  }

  /** @returns the answer. */
  #take({ typeUrl, nonce, removed }: ResponseRest): Uint8Array {
    this.#options.onEvent({ kind: "response", typeUrl, bytes: this.#resourceBytes });
    const refusals = this.#incoming!.end({ typeUrl, removed, first: !this.#seen.has(typeUrl), refused: this.#refused });
    this.#incoming = null;
    if (refusals.length === 0) return confirmation(typeUrl, nonce);
    this.#options.onEvent({ kind: "refused", typeUrl, refusals });
    const message = refusals.map(({ name, reason }) => `${name}: ${reason}`).join("; ").slice(0, COMPLAINT_CHARS_MAX);
    return toBinary(DeltaDiscoveryRequestSchema, create(DeltaDiscoveryRequestSchema, { typeUrl, responseNonce: nonce, errorDetail: { code: REFUSED_CODE, message } }));
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

/** By hand: one for each change. */
function confirmation(typeUrl: string, responseNonce: string): Uint8Array {
  const { typeUrl: typeField, responseNonce: nonceField } = DeltaDiscoveryRequestSchema.field;
  return new BinaryWriter().tag(typeField.number, WireType.LengthDelimited).string(typeUrl).tag(nonceField.number, WireType.LengthDelimited).string(responseNonce).finish();
}
