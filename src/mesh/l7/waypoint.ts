// A waypoint that the configuration asks for: a Gateway of one of the waypoint classes.

import type { NamespacedName } from "../../core/brand.ts";
import type { Provenance } from "../../core/fault.ts";

export interface Waypoint {
  readonly name: string;
  readonly namespace: string;
  /** The service by whose name and addresses it is reached. */
  readonly service: NamespacedName;
  /** What may be bound to it. */
  readonly serves: "service" | "workload" | "all" | "none";
  /** Shown to backends whose policy asks for the Gateway's own; null for none. */
  readonly clientCertificate: ClientCertificate | null;
  readonly provenance: Provenance;
}

export type ClientCertificate =
  | { readonly kind: "given"; readonly certificatePem: string; readonly keyPem: string }
  /** It was asked for and cannot be had: requests that need it get 500 with this reason. */
  | { readonly kind: "broken"; readonly reason: string };
