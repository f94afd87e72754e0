// Who is at the other end of a connection from a client, and what the connection is for: found once, used by every request on it.

import type { NamespacedName } from "../../core/brand.ts";
import type { SocketAddress } from "../../core/ip.ts";
import type { Workload } from "../../mesh/records.ts";
import type { ConnectionFacts } from "../../policy/connection-facts.ts";
import type { RequestSource } from "../../policy/http/request.ts";
import type { Traceparent } from "../../wire/trace/traceparent.ts";
import type { ServiceView } from "../upstream/service-view.ts";

/** The service and port that clients meant when they connected. */
export interface Destination {
  readonly service: NamespacedName;
  readonly port: number;
}

export interface Client {
  readonly source: RequestSource;
  /** Null when the caller is no workload that we know. */
  readonly workload: Workload | null;
  readonly address: SocketAddress;
  readonly facts: ConnectionFacts;
  readonly destination: Destination;
  /** Server name of the client's own TLS; null without. */
  readonly sni: string | null;
  /** Whether somebody proved who it is. */
  readonly mutualTls: boolean;
  /** What the tunnel's CONNECT says; null without one. */
  readonly trace: Traceparent | null;
  /** What the configuration said when it was last looked at; see `ServiceViews.of`. */
  view: ServiceView | null;
}
