// A workload that lives on this node: where its network namespace is and how its traffic is to be captured.
// Plain data, made by whoever knows the node's workloads (a directory, a CNI plugin) and read by the agent.

import type { WorkloadUid } from "../core/brand.ts";
import type { Provenance } from "../core/fault.ts";
import type { Cidr, IpAddress } from "../core/ip.ts";

/** A namespace file such as `/run/netns/web`, or the host's own (a virtual machine that is one workload). */
export type NetworkNamespace = { readonly kind: "path"; readonly path: string } | { readonly kind: "host" };

/** Inclusive; a single user is a range of one. */
export interface UidRange {
  readonly first: number;
  readonly last: number;
}

/** Traffic that is left alone. Users and cgroups name the process that sends; the rest looks at the packet. */
export interface CaptureExclusions {
  readonly outboundPorts: readonly number[];
  readonly inboundPorts: readonly number[];
  readonly outboundCidrs: readonly Cidr[];
  readonly uids: readonly UidRange[];
  /** Paths below the cgroup v2 mount, without a leading slash. */
  readonly cgroups: readonly string[];
}

export interface LocalWorkload {
  readonly uid: WorkloadUid;
  readonly namespace: string;
  readonly name: string;
  readonly networkNamespace: NetworkNamespace;
  readonly addresses: readonly IpAddress[];
  /** False: known, but its traffic is left alone (not opted in). */
  readonly captured: boolean;
  /** False: inbound plaintext goes to the application without passing through us. */
  readonly inboundCapture: boolean;
  /** Null follows the agent's own setting. */
  readonly dnsCapture: boolean | null;
  readonly exclusions: CaptureExclusions;
  readonly provenance: Provenance;
}
