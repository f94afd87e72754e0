// Whether a server's certificate names the server that was meant (RFC 9525). Chain, time and signatures are the TLS stack's; nothing is
// read from the subject, where no name belongs.

import type { CertificateName } from "../../mesh/l7/traffic-policy.ts";

/** The subject alternative names of a certificate. */
export interface PresentedNames {
  readonly dnsNames: readonly string[];
  readonly uris: readonly string[];
  readonly ips: readonly string[];
}

/** Names listed in a message; a certificate may hold a hundred. */
const NAMES_TOLD_MAX = 8;

/** Null when the certificate has one of the wanted names, else what it has and what was wanted. */
export function nameMismatch(presented: PresentedNames, wanted: readonly CertificateName[]): string | null {
  if (wanted.some((name) => shows(presented, name))) return null;
  return `its certificate is for ${listed([...presented.dnsNames, ...presented.uris, ...presented.ips])}, wanted ${listed(wanted.map(({ value }) => value))}`;
}

function shows({ dnsNames, uris, ips }: PresentedNames, { type, value }: CertificateName): boolean {
  switch (type) {
    case "dns": return dnsNames.some((name) => coversHost(name, value));
    case "uri": return uris.includes(value);
    case "any": return uris.includes(value) || ips.includes(value) || dnsNames.some((name) => coversHost(name, value));
    default: return type satisfies never;
  }
}

/** A `*` stands for the whole first label, on either side; never for a public suffix alone such as `*.com`. */
function coversHost(presented: string, wanted: string): boolean {
  const [have, want] = [normal(presented), normal(wanted)];
  if (have === want) return true;
  if (have.startsWith("*.")) return !want.startsWith("*.") && coversLabel(have, want);
  return want.startsWith("*.") && coversLabel(want, have);
}

function coversLabel(wildcard: string, host: string): boolean {
  const suffix = wildcard.slice(1);
  const label = host.length - suffix.length;
  return suffix.indexOf(".", 1) > 0 && label > 0 && host.endsWith(suffix) && !host.slice(0, label).includes(".");
}

const normal = (name: string): string => (name.endsWith(".") ? name.slice(0, -1) : name).toLowerCase();

function listed(names: readonly string[]): string {
  if (names.length === 0) return "no name at all";
  const more = names.length - NAMES_TOLD_MAX;
  return names.slice(0, NAMES_TOLD_MAX).join(", ") + (more > 0 ? ` and ${more} more` : "");
}
