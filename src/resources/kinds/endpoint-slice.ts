// discovery.k8s.io EndpointSlice, of services without a selector: endpoints that somebody listed by hand. Those that Kubernetes lists
// for a selector say nothing that the pods do not say better.

import { z } from "zod";
import { type IpAddress, parseIp } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { dnsLabel, dnsSubdomain } from "../object-meta.ts";

/** Label: the Service it belongs to. */
export const SLICE_SERVICE = "kubernetes.io/service-name";
/** Kubernetes' own bound on one slice. */
const ENDPOINTS_MAX = 1000;

const text = z.string().nullish();
const schema = z.object({
  metadata: z.object({ name: dnsSubdomain, namespace: dnsLabel, labels: z.record(z.string(), z.string()).nullish() }),
  addressType: z.string(),
  endpoints: z.array(z.object({
    addresses: z.array(z.string()), conditions: z.object({ ready: z.boolean().nullish() }).nullish(),
    targetRef: z.object({ kind: text, namespace: text, name: text, uid: text }).nullish(),
  })).max(ENDPOINTS_MAX).nullish(),
  ports: z.array(z.object({ name: text, port: z.number().int().nullish(), protocol: text })).nullish(),
});

/** An endpoint of which nothing but its address is known. */
export interface ListedEndpoint {
  readonly address: IpAddress;
  readonly ready: boolean;
}

export interface EndpointSlice {
  readonly namespace: string;
  readonly name: string;
  /** Name of its Service, in its namespace. */
  readonly service: string;
  /** TCP ports by the name of the service's port; "" for one without. */
  readonly ports: ReadonlyMap<string, number>;
  /** Pods of its own namespace that it names, by their uid: a slice of one namespace says nothing of another's pods. */
  readonly pods: ReadonlySet<string>;
  readonly endpoints: readonly ListedEndpoint[];
  /** It lists names in place of addresses, and nothing of it is used. */
  readonly ofNames: boolean;
}

/** @returns null for a slice of no service. */
export function readEndpointSlice(value: unknown): Result<EndpointSlice | null, string> {
  const read = schema.safeParse(value);
  if (!read.success) return err(z.prettifyError(read.error));
  const { metadata: { namespace, name, labels }, addressType, endpoints, ports } = read.data;
  const service = labels?.[SLICE_SERVICE];
  if (service === undefined) return ok(null);
  if (addressType === "FQDN") return ok({ namespace, name, service, ports: new Map(), pods: new Set(), endpoints: [], ofNames: true });
  const pods = new Set<string>();
  const listed = new Map<IpAddress, ListedEndpoint>();
  for (const { addresses, conditions, targetRef } of endpoints ?? []) {
    if (targetRef?.kind === "Pod") {
      if (typeof targetRef.uid === "string" && (targetRef.namespace ?? namespace) === namespace) pods.add(targetRef.uid);
      continue;
    }
    // Kubernetes gives one address for each endpoint, and leaves more without a meaning.
    const address = parseIp(addresses[0] ?? "");
    if (address !== null && !listed.has(address)) listed.set(address, { address, ready: conditions?.ready ?? true });
  }
  const tcp = (ports ?? []).filter(({ protocol }) => (protocol ?? "TCP") === "TCP");
  return ok({ namespace, name, service, ports: new Map(tcp.flatMap(({ name: port, port: number }) => (typeof number === "number" ? [[port ?? "", number] as const] : []))), pods, endpoints: [...listed.values()], ofNames: false });
}
