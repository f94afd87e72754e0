// An X.509-SVID as it travels between the threads of this process. The private key never leaves the process but to the
// owner-only state directory.

import type { SpiffeId, TrustDomain } from "../core/spiffe.ts";

export interface Svid {
  readonly spiffeId: SpiffeId;
  /** Leaf first, then intermediates; PEM. */
  readonly certificateChainPem: string;
  /** PKCS#8 PEM, P-256. */
  readonly privateKeyPem: string;
  /** Roots that came with this certificate; PEM, one or more blocks. */
  readonly trustBundlePem: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Lower-case hex of the leaf's serial number. */
  readonly serial: string;
}

/** Who asks for a certificate, most urgent first: a connection is waiting; a workload appeared; the old one is at half-life. */
export type SvidPriority = "realtime" | "warmup" | "background";

/** What this node accepts as a peer, beyond the chain: its own trust domain and the operator's aliases of it. */
export interface TrustDomains {
  readonly own: TrustDomain;
  readonly aliases: readonly TrustDomain[];
}
