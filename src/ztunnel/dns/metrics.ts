// What the DNS proxy counts, as a port: the owner maps it to istio_dns_* with the labels of section "DNS" of the metrics table.

import { RecordType, recordTypeName } from "../../wire/dns/types.ts";

export type DnsProtocol = "udp" | "tcp";

export interface DnsLabels {
  /** `A`, `AAAA`, …, `other`: a bounded set. */
  readonly queryType: string;
  readonly protocol: DnsProtocol;
}

/** Why a question was not taken. */
export type DnsRefusal = "malformed" | "not a query" | "not implemented" | "zone transfer" | "rate" | "busy" | "connections" | "slow reader";

export interface DnsMetrics {
  request(labels: DnsLabels): void;
  upstream(labels: DnsLabels): void;
  upstreamFailure(labels: DnsLabels): void;
  upstreamDuration(labels: DnsLabels, seconds: number): void;
  refused(reason: DnsRefusal): void;
  /** A reply from upstream that answers no question of ours. */
  badReply(reason: string): void;
}

/** Zone transfers take many messages, and belong between name servers. */
export const ZONE_TRANSFERS: ReadonlySet<number> = new Set([251, 252]);

export function dnsLabels(type: number, protocol: DnsProtocol): DnsLabels {
  return { queryType: type === RecordType.OPT ? "other" : recordTypeName(type), protocol };
}
