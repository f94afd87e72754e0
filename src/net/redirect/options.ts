// What is captured in a namespace, and what is left alone.

import type { IpAddress } from "../../core/ip.ts";
import type { CaptureExclusions } from "../../mesh/local-workload.ts";

/** A mark on packets or connections; only the bits of the mask are ours. */
export interface Mark {
  readonly value: number;
  readonly mask: number;
}

export interface RedirectPorts {
  readonly outbound: number;
  readonly inboundPlaintext: number;
  readonly inboundHbone: number;
  readonly dns: number;
}

export interface RedirectOptions {
  /** Names the process that holds the rules: unique to it, 1 to 40 of letters, digits, dot, dash, underscore. */
  readonly owner: string;
  /** `host`: forwarded packets are not ours, and SSH is left alone unless `captureSsh`. */
  readonly scope: "workload" | "host";
  readonly ports: RedirectPorts;
  readonly dnsCapture: boolean;
  /** False (ingress mode): inbound plaintext reaches the application directly; HBONE still works. */
  readonly inboundCapture: boolean;
  /** Addresses that health probes come from; TCP from and to them is left alone. */
  readonly probeAddresses: readonly IpAddress[];
  readonly exclusions: CaptureExclusions;
  /** Only these inbound ports are captured; null for all. Exclusions still count. */
  readonly inboundPortsOnly: readonly number[] | null;
  readonly captureSsh: boolean;
  /** On every packet of our own sockets. */
  readonly packetMark: Mark;
  /** On every connection that we opened towards an application from its client's address. */
  readonly connectionMark: Mark;
  /** Routing table and rule priority that bring the replies of those connections back to us. */
  readonly routeTable: number;
  readonly rulePriority: number;
}

export const SSH_PORT = 22;

/** Address that kubelet's probes are given on the host side by an Istio CNI, for those who want to leave it alone. */
export const ISTIO_PROBE_ADDRESSES = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"] as unknown as readonly IpAddress[];

export const NOTHING_EXCLUDED: CaptureExclusions = { outboundPorts: [], inboundPorts: [], outboundCidrs: [], uids: [], cgroups: [] };

/** Istio's ports and marks, everything captured. Spread it and say what differs; `owner` has no default. */
export const REDIRECT_DEFAULTS: Omit<RedirectOptions, "owner"> = {
  scope: "workload",
  ports: { outbound: 15001, inboundPlaintext: 15006, inboundHbone: 15008, dns: 15053 },
  dnsCapture: true,
  inboundCapture: true,
  probeAddresses: [],
  exclusions: NOTHING_EXCLUDED,
  inboundPortsOnly: null,
  captureSsh: false,
  packetMark: { value: 0x539, mask: 0xfff },
  connectionMark: { value: 0x111, mask: 0xfff },
  routeTable: 100,
  rulePriority: 32764,
};

/** Each exclusion is a rule that the first packet of a connection passes; more belong into a CIDR or a range. */
export const EXCLUSION_RULES_MAX = 4096;
