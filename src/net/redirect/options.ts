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
  /** Health probes: TCP from these addresses to these ports is left alone. Null where there are none. */
  readonly probes: { readonly addresses: readonly IpAddress[]; readonly ports: readonly number[] } | null;
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

export const NOTHING_EXCLUDED: CaptureExclusions = { outboundPorts: [], inboundPorts: [], outboundCidrs: [], uids: [], cgroups: [] };

/** Istio's ports and marks, everything captured. Spread it and say what differs; `owner` has no default. */
export const REDIRECT_DEFAULTS: Omit<RedirectOptions, "owner"> = {
  scope: "workload",
  ports: { outbound: 15001, inboundPlaintext: 15006, inboundHbone: 15008, dns: 15053 },
  dnsCapture: true,
  inboundCapture: true,
  probes: null,
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
