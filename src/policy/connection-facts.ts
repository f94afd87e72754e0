// Who is on the other side of a connection, in the form that rules are compared with: the same for connections and for requests.

import type { IpAddress } from "../core/ip.ts";
import { parseSpiffeId, type SpiffeId, type TrustDomain } from "../core/spiffe.ts";

/** What is known of a connection when it is judged. */
export interface AuthorisationSubject {
  /** Identity the peer proved; null on plain TCP. */
  readonly peer: SpiffeId | null;
  readonly sourceIp: IpAddress;
  readonly destinationIp: IpAddress;
  /** The application's port, never the tunnel's. */
  readonly destinationPort: number;
}

/** Trust domains that name the same identities. A principal in one of them is compared under each. */
export interface TrustDomainAliases {
  readonly own: TrustDomain;
  readonly aliases: readonly TrustDomain[];
}

export interface ConnectionFacts {
  /** The SPIFFE ID less its scheme, under each alias of its trust domain; empty without an identity. */
  readonly principals: readonly string[];
  readonly namespace: string | null;
  /** `namespace/name`. */
  readonly serviceAccount: string | null;
  readonly sourceIp: IpAddress;
  readonly destinationIp: IpAddress;
  readonly destinationPort: number;
}

export function connectionFacts(subject: AuthorisationSubject, trustDomains: TrustDomainAliases | null): ConnectionFacts {
  const { sourceIp, destinationIp, destinationPort } = subject;
  const parts = subject.peer === null ? null : parseSpiffeId(subject.peer);
  if (parts === null) return { principals: NO_PRINCIPALS, namespace: null, serviceAccount: null, sourceIp, destinationIp, destinationPort };
  return {
    principals: principalsOf(parts.id, parts.trustDomain, trustDomains),
    namespace: parts.namespace,
    serviceAccount: `${parts.namespace}/${parts.serviceAccount}`,
    sourceIp, destinationIp, destinationPort,
  };
}

const NO_PRINCIPALS: readonly string[] = Object.freeze([]);

function principalsOf(id: SpiffeId, domain: TrustDomain, trustDomains: TrustDomainAliases | null): readonly string[] {
  const principal = id.slice("spiffe://".length);
  if (trustDomains === null || trustDomains.aliases.length === 0) return [principal];
  const domains = [trustDomains.own, ...trustDomains.aliases];
  if (!domains.includes(domain)) return [principal];
  const rest = principal.slice(domain.length);
  return [...new Set([principal, ...domains.map((other) => other + rest)])];
}
