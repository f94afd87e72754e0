// What the store and the policy engine must answer, said as plainly as possible: lists and scans, nothing kept. The indexed code is
// compared with this.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../../src/core/brand.ts";
import { cidrContains, type IpAddress } from "../../src/core/ip.ts";
import { parseSpiffeId, type TrustDomain } from "../../src/core/spiffe.ts";
import type { AuthorizationPolicy, MeshDelta, PolicyMatch, PortMapping, Service, StringMatch, Workload } from "../../src/mesh/records.ts";
import type { AuthorisationSubject } from "../../src/policy/connection-facts.ts";

export class MeshModel {
  workloads: Workload[] = [];
  services: Service[] = [];
  policies: AuthorizationPolicy[] = [];

  apply(delta: MeshDelta): void {
    for (const s of delta.services) put(this.services, s, (x) => namespacedName(x.namespace, x.hostname));
    for (const w of delta.workloads) put(this.workloads, w, (x) => x.uid);
    for (const p of delta.policies) put(this.policies, p, (x) => namespacedName(x.namespace, x.name));
    this.workloads = this.workloads.filter((w) => !delta.removedWorkloads.includes(w.uid));
    this.services = this.services.filter((s) => !delta.removedServices.includes(namespacedName(s.namespace, s.hostname)));
    this.policies = this.policies.filter((p) => !delta.removedPolicies.includes(namespacedName(p.namespace, p.name)));
  }

  workload(uid: WorkloadUid): Workload | undefined {
    return this.workloads.find((w) => w.uid === uid);
  }

  /** Pods before others, HBONE before not, the last to have appeared first. */
  workloadByAddress(network: string, ip: IpAddress): Workload | undefined {
    const owners = this.workloads.filter((w) => !w.hostNetwork && w.network === network && w.addresses.includes(ip)).reverse();
    const pods = owners.filter((w) => w.uid.includes("//Pod/"));
    const kind = pods.length > 0 ? pods : owners;
    return kind.find((w) => w.tunnelProtocol === "HBONE") ?? kind[0];
  }

  serviceByAddress(network: string, ip: IpAddress, clientNamespace: string): Service | undefined {
    const owners = this.services
      .filter((s) => s.visibility === "public" || s.namespace === clientNamespace)
      .flatMap((s) => s.addresses.filter((a) => a.network === network && cidrContains(a.cidr, ip)).map((a) => ({ s, length: a.cidr.prefixLength })));
    const longest = Math.max(...owners.map((o) => o.length));
    const ranked = byPreference(owners.filter((o) => o.length === longest).map((o) => o.s));
    return ranked.find((s) => s.namespace === clientNamespace) ?? ranked[0];
  }

  servicesByHostname(hostname: string): Service[] {
    return byPreference(this.services.filter((s) => s.hostname.toLowerCase() === hostname.toLowerCase()));
  }

  endpoints(name: NamespacedName): { uid: WorkloadUid; ports: readonly PortMapping[] }[] {
    return this.workloads
      .flatMap((w) => {
        const membership = w.services.find((m) => m.service === name);
        return membership === undefined ? [] : [{ uid: w.uid, ports: membership.ports }];
      })
      .sort((a, b) => (a.uid < b.uid ? -1 : 1));
  }

  policiesFor(w: Workload): { bound: AuthorizationPolicy[]; missing: NamespacedName[] } {
    const nameOf = (p: AuthorizationPolicy): NamespacedName => namespacedName(p.namespace, p.name);
    return {
      bound: this.policies.filter((p) => p.scope === "global" || (p.scope === "namespace" && p.namespace === w.namespace) || w.authorizationPolicies.includes(nameOf(p))),
      missing: w.authorizationPolicies.filter((name) => !this.policies.some((p) => nameOf(p) === name)),
    };
  }

  /** The verdict, and for each dry-run policy whether it matches. */
  authorise(w: Workload, subject: AuthorisationSubject, domains: readonly TrustDomain[]): { allowed: boolean; reason: string; dryRunMatches: Set<string> } {
    const { bound, missing } = this.policiesFor(w);
    const matches = (p: AuthorizationPolicy): boolean => policyMatches(p, subject, domains);
    const dryRunMatches = new Set(bound.filter((p) => p.dryRun && matches(p)).map((p) => `${p.namespace}/${p.name}`));
    const enforced = bound.filter((p) => !p.dryRun);
    const allows = enforced.filter((p) => p.action === "allow");
    if (enforced.some((p) => p.action === "deny" && matches(p))) return { allowed: false, reason: "denied by", dryRunMatches };
    if (missing.length > 0) return { allowed: false, reason: "policy not delivered", dryRunMatches };
    if (allows.length === 0) return { allowed: true, reason: "no allow policy", dryRunMatches };
    return allows.some(matches) ? { allowed: true, reason: "allowed by", dryRunMatches } : { allowed: false, reason: "no allow matched", dryRunMatches };
  }
}

function put<T>(list: T[], value: T, key: (value: T) => string): void {
  const at = list.findIndex((other) => key(other) === key(value));
  if (at < 0) list.push(value);
  else list[at] = value;
}

function byPreference(services: readonly Service[]): Service[] {
  const key = (s: Service): string => `${s.canonical ? 0 : 1}|${s.namespace}|${s.hostname}`;
  return [...new Set(services)].sort((a, b) => (key(a) < key(b) ? -1 : 1));
}

export function policyMatches(p: AuthorizationPolicy, subject: AuthorisationSubject, domains: readonly TrustDomain[]): boolean {
  return p.rules.some((rule) => rule.clauses.every((clause) => clause.matches.length === 0 || clause.matches.some((m) => matchHolds(p, m, subject, domains))));
}

function matchHolds(p: AuthorizationPolicy, m: PolicyMatch, subject: AuthorisationSubject, domains: readonly TrustDomain[]): boolean {
  if (Object.values(m).every((field: readonly unknown[]) => field.length === 0)) return p.action === "deny";
  const id = subject.peer === null ? null : parseSpiffeId(subject.peer);
  const names = id === null ? [] : (domains.includes(id.trustDomain) ? domains : [id.trustDomain]).map((d) => `${d}/ns/${id.namespace}/sa/${id.serviceAccount}`);
  const account = (a: { namespace: string; serviceAccount: string }): boolean => id !== null && a.namespace === id.namespace && a.serviceAccount === id.serviceAccount;
  const pairs: readonly (readonly [readonly unknown[], (value: never) => boolean, boolean])[] = [
    [m.namespaces, (s: StringMatch) => id !== null && stringHolds(s, id.namespace), true],
    [m.notNamespaces, (s: StringMatch) => id !== null && stringHolds(s, id.namespace), false],
    [m.serviceAccounts, account, true], [m.notServiceAccounts, account, false],
    [m.principals, (s: StringMatch) => names.some((name) => stringHolds(s, name)), true],
    [m.notPrincipals, (s: StringMatch) => names.some((name) => stringHolds(s, name)), false],
    [m.sourceIps, (c: never) => cidrContains(c, subject.sourceIp), true], [m.notSourceIps, (c: never) => cidrContains(c, subject.sourceIp), false],
    [m.destinationIps, (c: never) => cidrContains(c, subject.destinationIp), true],
    [m.notDestinationIps, (c: never) => cidrContains(c, subject.destinationIp), false],
    [m.destinationPorts, (port: number) => port === subject.destinationPort, true],
    [m.notDestinationPorts, (port: number) => port === subject.destinationPort, false],
  ];
  return pairs.every(([values, holds, wanted]) => values.length === 0 || (values as never[]).some(holds) === wanted);
}

function stringHolds(s: StringMatch, value: string): boolean {
  if (s.kind === "exact") return value === s.value;
  if (s.kind === "prefix") return value.startsWith(s.value);
  if (s.kind === "suffix") return value.endsWith(s.value);
  return value !== "";
}
