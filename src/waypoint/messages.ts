// What crosses between a waypoint's main thread (configuration, certificates, admin) and its data threads (requests). Plain data only.

import type { NamespacedName } from "../core/brand.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { L7Delta } from "../mesh/l7/delta.ts";
import type { MeshNews } from "../mesh/store.ts";
import type { RuleTelling } from "../policy/http/rule-header.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import type { ClusterView } from "../runtime/clusters-view.ts";
import type { LineBytes } from "../telemetry/log-batch.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import type { OtlpBatch } from "../telemetry/otlp-records.ts";
import type { RoleTelemetry } from "../telemetry/service-telemetry.ts";
import type { IdentityNews } from "../tunnel/thread-tunnels.ts";
import type { PathNormalisation } from "../wire/http/path.ts";
import type { Destination } from "./downstream/client.ts";
import type { EndpointNews } from "./request/observer.ts";

/** What a data thread is told once. */
export interface WaypointConfig {
  /** `namespace/name` of the Gateway. */
  readonly gateway: NamespacedName;
  readonly network: string;
  readonly pathNormalisation: PathNormalisation;
  /** Issuers and login providers are never asked at addresses of this machine: others than its operator name them. */
  readonly remoteIssuersOnly: boolean;
  /** Where it listens and dials from. */
  readonly namespaceFd: number;
  /** Of sockets towards endpoints; 0 for none. */
  readonly packetMark: number;
  readonly tunnels: DataPlaneConfig;
  /** What is told of requests where no Telemetry resource says otherwise. */
  readonly telemetry: Omit<RoleTelemetry, "environment">;
  /** Whom answers of its own tell which rule they come from. */
  readonly ruleTelling: RuleTelling;
  /** Signs sessions; the same for all threads. */
  readonly sessionKey: Uint8Array;
}

/** What a data thread may have under way to the main one: see LogCredit. */
export interface TelemetryCredits {
  readonly lines: SharedArrayBuffer;
  readonly otlp: SharedArrayBuffer;
}

/** A listening descriptor for clients without a tunnel, and what they mean when they connect to it. */
export interface PlainListener {
  readonly fd: number;
  readonly destination: Destination;
}

export type ToWaypoint =
  | { readonly kind: "configure"; readonly config: WaypointConfig; readonly credits: TelemetryCredits | null; readonly pulse: SharedArrayBuffer | null }
  | { readonly kind: "mesh"; readonly news: MeshNews | null; readonly l7Delta: L7Delta }
  | IdentityNews
  /** `hboneFds`: for tunnels; none without certificates. */
  | { readonly kind: "listen"; readonly listeners: readonly PlainListener[]; readonly hboneFds: readonly number[] }
  | { readonly kind: "snapshot"; readonly question: string }
  /** Nothing goes on: memory is to be given back. */
  | { readonly kind: "collectGarbage" }
  /** Again: the drain that is under way is to end earlier. */
  | { readonly kind: "drain"; readonly deadlineMs: number };

/** Beside answers: to `configure` ("ready"), `listen`, `snapshot`, and `drain` ("drained": connections closed by force). */
export type FromWaypoint =
  | { readonly kind: "needSvid"; readonly spiffeId: SpiffeId }
  | { readonly kind: "log"; readonly lines: LineBytes; readonly lineCount: number }
  | { readonly kind: "otlp"; readonly batches: readonly OtlpBatch[] }
  | { readonly kind: "endpoint"; readonly news: EndpointNews }
  | { readonly kind: "warning"; readonly code: string; readonly message: string }
  /** Whether the configuration has a record of this waypoint, hence an identity for it: with the first configuration, and when it changes. */
  | { readonly kind: "recorded"; readonly isRecorded: boolean };

/** What one data thread has at the moment. */
export interface WaypointSnapshot {
  readonly connections: number;
  readonly requests: number;
  readonly passedThrough: number;
  readonly clusters: readonly ClusterView[];
  readonly metrics: readonly MetricsSnapshot[];
}
