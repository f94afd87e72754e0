// What the control plane hands to the xDS server, and what it may ask of it. The server (server.ts) keeps to this; whoever has the
// configuration and whoever knows who is calling are built against it.

import type { ConnectRouter, ContextValues } from "@connectrpc/connect";
import type { NamespacedName } from "../core/brand.ts";
import type { Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { EvaluatedState } from "../resources/evaluated-state.ts";

/** One state of the configuration, and how it came from the one published before. A ConfigState is one, too. */
export type PublishedState = EvaluatedState;

/**
 * What a client is, as its node says: a ztunnel of a node, which is told of every workload, service and L4 policy; or the waypoint of one
 * Gateway, which is told of these and of the L7 configuration that holds there, and nobody else's.
 */
export type ClientView = { readonly kind: "node"; readonly node: string } | { readonly kind: "waypoint"; readonly gateway: NamespacedName };

/** What a client shows to prove who it is. */
export interface Credentials {
  /** Of the `authorization` header; null without one. */
  readonly bearerToken: string | null;
  /** Of a client certificate that chains to our roots; null without one, or where the port does not ask for it. */
  readonly certificateId: SpiffeId | null;
  /** `clusterid` of the metadata; "" when it is not said. */
  readonly clusterId: string;
}

export interface XdsCaller {
  /** For logs and for `weft status`: `istio-system/ztunnel`, a token's name. */
  readonly name: string;
  /** Null when this caller may be what it says it is; else why not, in words. Called once for each stream. */
  refusal(view: ClientView): string | null;
  /** Null when this caller may ask who is connected and how far each has come; else why not. */
  statusRefusal(): string | null;
}

export interface Authenticator {
  /**
   * The error is for the client and for the log: what was shown, what was wanted.
   * @throws when it cannot be checked now: that is no refusal.
   */
  authenticate(credentials: Credentials): Promise<Result<XdsCaller, string>>;
}

/** What one client has of one type. */
export interface TypeStatus {
  readonly typeUrl: string;
  /** `onDemand`: only what it asks for by name. `own`: what holds at its waypoint. */
  readonly subscription: "everything" | "onDemand" | "own";
  /** Number of the published state (1 for the first) up to which it has been told, and up to which it has confirmed. */
  readonly sentState: number;
  readonly ackedState: number;
  readonly resourceCount: number;
  /** The last response that the client refused in part or whole; null since it took one without complaint. */
  readonly rejected: { readonly message: string; readonly state: number; readonly atMs: number } | null;
}

export interface ClientStatus {
  /** Of the node message, e.g. `ztunnel~198.18.0.2~ztunnel-x7.istio-system~istio-system.svc.cluster.local`. */
  readonly id: string;
  readonly caller: string;
  readonly view: ClientView;
  /** Address and port of its connection; "" when the port does not tell. */
  readonly peer: string;
  /** Wall clock. */
  readonly connectedMs: number;
  /** What the client said of its own version; "" when it says nothing. */
  readonly agentVersion: string;
  readonly types: readonly TypeStatus[];
}

export interface XdsServing {
  /** Makes `state` what clients are told from now on. Returns at once; each client is told when it can take it. */
  publish(state: PublishedState): void;
  /** Those connected now. */
  clients(): readonly ClientStatus[];
  /** Number of the state published last; 0 before the first. Clients wait until there is one. */
  readonly publishedState: number;
  /** Puts AggregatedDiscoveryService on a router (connectNodeAdapter({ routes, contextValues })), beside other services of the port. */
  readonly routes: (router: ConnectRouter) => void;
  /** For the same adapter: what the service needs to know of a request's connection. */
  readonly contextValues: (request: { readonly socket: object; readonly stream?: object }) => ContextValues;
  /** Ends every stream, so that clients go to another replica. */
  close(): void;
}
