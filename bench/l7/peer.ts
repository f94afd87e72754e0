// A proxy under measurement, as the series see it.

import type { Server } from "../lib/process.ts";

export type Protocol = "h1" | "h2" | "grpc";
export type PeerName = "weft" | "envoy";

export interface L7Process {
  readonly server: Server;
  /** On loopback, without TLS. */
  readonly ports: Readonly<Record<Protocol, number>>;
  /** Processes that it needs and that are not measured. */
  readonly helpers: readonly Server[];
}
