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
  readonly provenance: Provenance;
}
