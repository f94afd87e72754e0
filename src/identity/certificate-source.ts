// The port through which a node gets its certificates. Implemented in-process by the CA (ca/in-process-source.ts) and over gRPC
// (grpc-certificate-source.ts).

import type { Fault } from "../core/fault.ts";
import type { Result } from "../core/result.ts";
import type { SpiffeId } from "../core/spiffe.ts";

export interface IssuedChain {
  /** PEM, one certificate each: leaf first, then intermediates. */
  readonly chainPem: readonly string[];
  /** PEM; one or more root certificates. */
  readonly trustBundlePem: string;
}

/**
 * `refused`: the CA said no (it may say yes later: authorisation races at workload start are normal).
 * `unavailable`: it could not be asked. `bad_reply`: what came back cannot be used. `aborted`: nobody wants the answer any more.
 */
export type IssueFaultCode = "refused" | "unavailable" | "bad_reply" | "aborted";
export type IssueFault = Fault<IssueFaultCode>;

export interface IssueRequest {
  readonly spiffeId: SpiffeId;
  readonly csrPem: string;
  /** Lifetime asked for; the CA may refuse one beyond its own. */
  readonly lifetimeMs: number;
  readonly signal: AbortSignal;
}

export interface CertificateSource {
  issue(request: IssueRequest): Promise<Result<IssuedChain, IssueFault>>;
}
