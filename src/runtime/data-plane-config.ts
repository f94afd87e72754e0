// What the data threads are told once, made from the settings. Plain data.

import type { TrustDomains } from "../identity/svid.ts";
import { parseLogFilter } from "./log-filter.ts";
import { type Settings, workerThreads } from "./settings.ts";

/** Everything a data thread must know that does not change while it runs. Times in milliseconds. */
export interface DataPlaneConfig {
  readonly node: string;
  readonly network: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly trustDomains: TrustDomains;
  /** `plain` copies between workloads of this node after the same authorisation; `mtls` tunnels to ourselves. */
  readonly sameNode: "plain" | "mtls";
  readonly preserveSource: "require" | "bestEffort" | "off";
  readonly packetMark: number;
  readonly connectTimeoutMs: number;
  readonly tlsTimeoutMs: number;
  readonly http2TimeoutMs: number;
  readonly connectResponseTimeoutMs: number;
  readonly workloadWaitMs: number;
  readonly poolStreamsMax: number;
  readonly poolIdleMs: number;
  readonly keepaliveIdleMs: number;
  readonly halfCloseIdleMs: number;
  readonly streamWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly frameBytes: number;
  /** Of one data thread, for readers that are slow. */
  readonly bufferBytesMax: number;
  readonly accessLog: "off" | "text" | "json";
  /** 1 logs every connection, 0.01 one in a hundred; failures are always logged. */
  readonly accessLogSample: number;
}

export function dataPlaneConfig(settings: Settings): DataPlaneConfig {
  const filter = parseLogFilter(settings.log);
  const silenced = filter.ok && !filter.value.enabled("access", "info") && !filter.value.enabled("access", "error");
  return {
    node: settings.node,
    network: settings.network,
    clusterId: settings.clusterId,
    clusterDomain: settings.clusterDomain,
    trustDomains: { own: settings.trustDomain, aliases: settings.trustDomainAliases },
    sameNode: settings.sameNode,
    preserveSource: settings.preserveSource === "best-effort" ? "bestEffort" : settings.preserveSource,
    packetMark: settings.packetMark,
    connectTimeoutMs: settings.connectTimeoutMs,
    tlsTimeoutMs: settings.tlsTimeoutMs,
    http2TimeoutMs: settings.http2TimeoutMs,
    connectResponseTimeoutMs: settings.connectResponseTimeoutMs,
    workloadWaitMs: settings.workloadWaitMs,
    poolStreamsMax: settings.poolStreamsMax,
    poolIdleMs: settings.poolIdleMs,
    keepaliveIdleMs: settings.keepaliveMs,
    halfCloseIdleMs: settings.halfCloseIdleMs,
    streamWindowBytes: settings.streamWindowBytes,
    connectionWindowBytes: settings.connectionWindowBytes,
    frameBytes: settings.frameBytes,
    bufferBytesMax: Math.floor(settings.bufferBytesMax / workerThreads(settings)),
    accessLog: settings.accessLog === "off" || silenced ? "off" : settings.logFormat,
    accessLogSample: settings.accessLogSample,
  };
}
