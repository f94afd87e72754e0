// The one record of a connection: who, to whom, what was decided and why, how it ended and who ended it. The access log prints
// it, metrics are counted from it, and whoever asks why a connection failed reads it.

import type { Blame, Provenance } from "../core/fault.ts";
import type { SocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import { type AuthorisationDecision, explainAuthorisation } from "../policy/authorise.ts";
import type { PeerDescription, ReporterRole, ResponseFlags } from "./connection-labels.ts";

/** What was decided about a connection, in words, and what made it so. */
export interface DecisionSummary {
  /** `allow`, `deny`, `tunnel`, `same-node`, `plain`, `passthrough`, `refuse`. */
  readonly verdict: string;
  readonly reason: string;
  /** The rule that decided; or the ALLOW policies of which none matched. */
  readonly policies: readonly Provenance[];
}

/** How a connection ended. */
export interface CloseSummary {
  readonly code: string;
  readonly blame: Blame | "none";
  /** Empty for a clean end. */
  readonly message: string;
  readonly flags: ResponseFlags;
}

export interface DecisionRecord {
  readonly reporter: ReporterRole;
  readonly source: Workload | null;
  readonly destination: Workload | null;
  readonly service: Service | null;
  readonly sourceDescription?: PeerDescription | null;
  /** Proved by a certificate, or by living on this node; null where neither is so. */
  readonly sourceIdentity: SpiffeId | null;
  readonly destinationIdentity: SpiffeId | null;
  readonly sourceAddress: SocketAddress;
  readonly destinationAddress: SocketAddress | null;
  /** Where the tunnel went; null without one. */
  readonly hboneAddress: SocketAddress | null;
  readonly nodeLocal: boolean;
  readonly mutualTls: boolean;
  readonly traceId?: string | null;
  readonly decision: DecisionSummary | null;
  /** Wall clock at the end. */
  readonly closedMs: number;
  readonly durationMs: number;
  /** From accepted to a usable path; null when there never was one. */
  readonly connectMs: number | null;
  /** Towards the client. */
  readonly sentBytes: number;
  /** From the client. */
  readonly receivedBytes: number;
  readonly close: CloseSummary;
}

export function summariseAuthorisation(decision: AuthorisationDecision): DecisionSummary {
  return { verdict: decision.allowed ? "allow" : "deny", reason: explainAuthorisation(decision), policies: decision.policy === null ? decision.unmatched : [decision.policy] };
}
