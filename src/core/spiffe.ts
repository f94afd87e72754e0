// SPIFFE IDs of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT.
// Strict: one canonical form, so equal IDs are equal strings. Source: SPIFFE-ID specification, sections 2 and 2.3.

import type { Brand } from "./brand.ts";

export type SpiffeId = Brand<string, "SpiffeId">;
export type TrustDomain = Brand<string, "TrustDomain">;

/** SPIFFE-ID section 2.3: an ID may not exceed 2048 bytes. */
export const SPIFFE_ID_BYTES_MAX = 2048;
/** SPIFFE-ID section 2.1: a trust domain may not exceed 255 bytes. */
export const TRUST_DOMAIN_BYTES_MAX = 255;

const TRUST_DOMAIN = /^[a-z0-9._-]+$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;

export interface SpiffeParts {
  readonly trustDomain: TrustDomain;
  readonly namespace: string;
  readonly serviceAccount: string;
}

export function parseTrustDomain(text: string): TrustDomain | null {
  if (text.length === 0 || text.length > TRUST_DOMAIN_BYTES_MAX || !TRUST_DOMAIN.test(text)) return null;
  return text as TrustDomain;
}

/** Splits an ID into its parts. Returns null unless `text` is exactly the canonical form; nothing is trimmed, decoded or folded. */
export function parseSpiffeId(text: string): (SpiffeParts & { readonly id: SpiffeId }) | null {
  if (text.length > SPIFFE_ID_BYTES_MAX || !text.startsWith("spiffe://")) return null;
  const [domain, ns, namespace, sa, serviceAccount, ...rest] = text.slice("spiffe://".length).split("/");
  if (rest.length > 0 || ns !== "ns" || sa !== "sa") return null;
  const trustDomain = parseTrustDomain(domain ?? "");
  if (trustDomain === null || !isSegment(namespace) || !isSegment(serviceAccount)) return null;
  return { id: text as SpiffeId, trustDomain, namespace, serviceAccount };
}

/** Builds the ID of a workload. The parts come from parsed resources; a bad one throws, as that is our own fault. */
export function spiffeId(trustDomain: TrustDomain, namespace: string, serviceAccount: string): SpiffeId {
  const id = parseSpiffeId(`spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`);
  if (id === null) throw new Error(`not a SPIFFE ID: trust domain ${trustDomain}, namespace ${namespace}, service account ${serviceAccount}`);
  return id.id;
}

function isSegment(text: string | undefined): text is string {
  return text !== undefined && SEGMENT.test(text) && text !== "." && text !== "..";
}
