// What every tunnel of one data thread shares, whoever runs it: a ztunnel or a waypoint.

import type { Clock } from "../core/ports.ts";
import { DeadlineQueue } from "../net/deadlines.ts";
import type { Keepalive } from "../net/dial.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { DEFAULT_SETTINGS, type LocalSettings } from "../wire/http2/limits.ts";
import type { Admission } from "./admission.ts";
import type { ByteBudget } from "./byte-budget.ts";
import type { RetireReason } from "./client-tunnel.ts";
import type { CloseCause } from "./close-cause.ts";
import type { HandshakeGate } from "./handshakes.ts";
import type { IdentityTable } from "./identity-table.ts";
import type { TunnelPool } from "./pool.ts";
import type { Revocations } from "./revocations.ts";

export interface Http2Tuning {
  readonly client: LocalSettings;
  readonly server: LocalSettings;
  /** Silence after which a PING is sent, and how long its answer may take. */
  readonly pingIdleMs: number;
  readonly pingAnswerMs: number;
}

/** What is told of tunnels, for metrics and logs. */
export interface TunnelReporter {
  poolRequest(outcome: "hit" | "opened" | "waited" | "refused"): void;
  tunnelOpened(direction: TunnelDirection): void;
  tunnelClosed(direction: TunnelDirection): void;
  tunnelFailed(direction: TunnelDirection, cause: CloseCause): void;
  tunnelRetired(reason: RetireReason): void;
  http2Fatal(counter: string): void;
  handshakeRefused(reason: "source" | "total" | "failures" | "evicted" | "full"): void;
  /** What slow readers make us hold has come near its limit; something had to go. */
  bufferPressed(): void;
  bufferShed(why: "limit" | "stalled"): void;
  /** An application sees our address, not the client's. */
  sourceNotPreserved(): void;
}

export type TunnelDirection = "inbound" | "outbound";

export interface TunnelContext {
  readonly config: DataPlaneConfig;
  readonly clock: Clock;
  readonly nowMs: () => number;
  readonly keepalive: Keepalive;
  readonly http2: Http2Tuning;
  readonly deadlines: ReturnType<typeof createDeadlines>;
  readonly admission: Admission;
  readonly budget: ByteBudget;
  readonly handshakes: HandshakeGate;
  readonly identities: IdentityTable;
  readonly revocations: Revocations;
  readonly pool: TunnelPool;
  readonly reporter: TunnelReporter;
}

/** Streams one peer may open in a tunnel: few tunnels carry many connections, as frames of one tunnel share a write. */
const INBOUND_STREAMS_MAX = 1000;
/** Header list of an answer to CONNECT; the request's limit is the engine's default. */
const RESPONSE_HEADER_LIST_BYTES = 16 * 1024;

export function http2Tuning(config: DataPlaneConfig): Http2Tuning {
  const base = { ...DEFAULT_SETTINGS, initialWindowBytes: config.streamWindowBytes, connectionWindowBytes: config.connectionWindowBytes, maxFrameBytes: config.frameBytes };
  return {
    client: { ...base, maxHeaderListBytes: RESPONSE_HEADER_LIST_BYTES },
    server: { ...base, maxConcurrentStreams: INBOUND_STREAMS_MAX },
    pingIdleMs: PING_IDLE_MS,
    pingAnswerMs: PING_ANSWER_MS,
  };
}

/** See CONNECT_RETRIES_MAX in outbound.ts; together about three seconds. */
export const CONNECT_RETRY_MS = 200;
/** How long a tunnel that we ended waits for its peer's end, before its descriptor is taken back. */
export const LINGER_MS = 5_000;
export const PING_IDLE_MS = 10_000;
export const PING_ANSWER_MS = 20_000;

/** Probes of a silent TCP peer: as many as the reference proxy sends. */
const KEEPALIVE_PROBES = 9;

export function keepaliveOf(config: DataPlaneConfig): Keepalive {
  const idleS = Math.max(1, Math.round(config.keepaliveIdleMs / 1000));
  return { idleS, intervalS: idleS, probes: KEEPALIVE_PROBES };
}

export function createDeadlines(config: DataPlaneConfig) {
  return {
    connect: new DeadlineQueue(config.connectTimeoutMs),
    tls: new DeadlineQueue(config.tlsTimeoutMs),
    http2: new DeadlineQueue(config.http2TimeoutMs),
    response: new DeadlineQueue(config.connectResponseTimeoutMs),
    connectRetry: new DeadlineQueue(CONNECT_RETRY_MS),
    linger: new DeadlineQueue(LINGER_MS),
    workload: new DeadlineQueue(config.workloadWaitMs),
    halfClose: new DeadlineQueue(config.halfCloseIdleMs),
  };
}
