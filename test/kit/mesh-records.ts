// Mesh records for tests: whole ones from the few fields a test is about, and random ones from a seed, out of a small world in which
// addresses, names and accounts collide often.

import { type NamespacedName, namespacedName, type WorkloadUid } from "../../src/core/brand.ts";
import type { Provenance } from "../../src/core/fault.ts";
import { type Cidr, type IpAddress, parseCidr, parseIp } from "../../src/core/ip.ts";
import type { Random } from "../../src/core/ports.ts";
import { type SpiffeId, spiffeId, type TrustDomain } from "../../src/core/spiffe.ts";
import type {
  AuthorizationPolicy, GatewayAddress, LoadBalancing, LoadBalancingScope, MeshDelta, PolicyMatch, Service, StringMatch, WeightedWaypoint, Workload,
} from "../../src/mesh/records.ts";

export const TRUST_DOMAIN = "cluster.local" as TrustDomain;

export const ip = (text: string): IpAddress => {
  const parsed = parseIp(text);
  if (parsed === null) throw new Error(`not an address: ${text}`);
  return parsed;
};
export const cidr = (text: string): Cidr => {
  const parsed = parseCidr(text);
  if (parsed === null) throw new Error(`not a CIDR: ${text}`);
  return parsed;
};
export const uid = (text: string): WorkloadUid => text as WorkloadUid;
export const identity = (namespace: string, serviceAccount: string, trustDomain = "cluster.local"): SpiffeId =>
  spiffeId(trustDomain as TrustDomain, namespace, serviceAccount);

export function provenance(kind: string, namespace: string, name: string): Provenance {
  return { kind, namespace, name, resourceVersion: "1", fieldPath: "" };
}

/** An HBONE pod `shop/NAME` at 198.18.0.1 unless told otherwise. */
export function workload(fields: Partial<Workload> & { readonly name: string }): Workload {
  const namespace = fields.namespace ?? "shop";
  return {
    uid: uid(`Kubernetes//Pod/${namespace}/${fields.name}`), namespace, clusterId: "Kubernetes", trustDomain: TRUST_DOMAIN, serviceAccount: "default",
    network: "", node: "node-1", addresses: [ip("198.18.0.1")], hostname: "", tunnelProtocol: "HBONE", nativeTunnel: false, hostNetwork: false,
    canonicalName: fields.name, canonicalRevision: "latest", workloadType: "deployment", workloadName: fields.name, app: fields.name, version: "v1",
    locality: { region: "r1", zone: "z1", subzone: "" }, status: "healthy", capacity: 1, services: [], authorizationPolicies: [], waypoints: [],
    networkGateway: null, applicationTunnel: null, provenance: provenance("Pod", namespace, fields.name), ...fields,
  };
}

/** A member of services, each port mapped as `servicePort: targetPort`. */
export function member(services: Readonly<Record<string, Readonly<Record<number, number>>>>): Workload["services"] {
  return Object.entries(services).map(([name, ports]) => ({
    service: name as NamespacedName, ports: Object.entries(ports).map(([servicePort, targetPort]) => ({ servicePort: Number(servicePort), targetPort })),
  }));
}

export const STANDARD: LoadBalancing = { mode: "standard", scopes: [], allowUnhealthy: false };

/** A public Kubernetes service `shop/NAME.shop.svc.cluster.local` with port 80 to 8080 and no address unless told otherwise. */
export function service(fields: Partial<Omit<Service, "addresses">> & { readonly name: string; readonly vips?: readonly string[]; readonly network?: string }): Service {
  const { vips = [], network = "", ...rest } = fields;
  const namespace = fields.namespace ?? "shop";
  return {
    namespace, hostname: `${fields.name}.${namespace}.svc.cluster.local`, addresses: vips.map((text) => ({ network, cidr: cidr(text) })),
    ports: [{ servicePort: 80, targetPort: 8080, name: "http", appProtocol: "" }], subjectAltNames: [], waypoints: [], loadBalancing: STANDARD,
    ipFamilies: "automatic", canonical: true, visibility: "public", headless: false, provenance: provenance("Service", namespace, fields.name), ...rest,
  };
}

export const serviceName = (s: Service): NamespacedName => namespacedName(s.namespace, s.hostname);

export const NO_FIELDS: PolicyMatch = {
  namespaces: [], notNamespaces: [], serviceAccounts: [], notServiceAccounts: [], principals: [], notPrincipals: [], sourceIps: [], notSourceIps: [],
  destinationIps: [], notDestinationIps: [], destinationPorts: [], notDestinationPorts: [],
};
export const match = (fields: Partial<PolicyMatch>): PolicyMatch => ({ ...NO_FIELDS, ...fields });
export const exact = (value: string): StringMatch => ({ kind: "exact", value });
export const prefix = (value: string): StringMatch => ({ kind: "prefix", value });
export const suffix = (value: string): StringMatch => ({ kind: "suffix", value });
export const PRESENCE: StringMatch = { kind: "presence" };

/** A policy of namespace `shop`; `rules` are clauses of matches. */
export function policy(
  fields: Partial<Omit<AuthorizationPolicy, "rules">> & { readonly name: string; readonly rules?: readonly (readonly (readonly PolicyMatch[])[])[] },
): AuthorizationPolicy {
  const { rules = [], ...rest } = fields;
  const namespace = fields.namespace ?? "shop";
  return {
    namespace, scope: "namespace", action: "allow", dryRun: false, provenance: provenance("AuthorizationPolicy", namespace, fields.name),
    rules: rules.map((clauses, i) => ({ clauses: clauses.map((matches) => ({ matches })), fieldPath: `spec.rules[${i}]` })), ...rest,
  };
}

export function delta(fields: Partial<MeshDelta>): MeshDelta {
  return { workloads: [], services: [], policies: [], removedWorkloads: [], removedServices: [], removedPolicies: [], ...fields };
}

/** A waypoint named by its service. */
export const waypoint = (service: string, weight = 1, hboneMtlsPort = 15008): WeightedWaypoint => ({
  gateway: { destination: { kind: "hostname", service: service as NamespacedName }, hboneMtlsPort }, weight,
});
export const gatewayAt = (network: string, address: string, hboneMtlsPort = 15008): GatewayAddress => ({
  destination: { kind: "address", network, ip: ip(address) }, hboneMtlsPort,
});

// ---- a small random world

const NAMESPACES = ["shop", "bank", "istio-system"];
const NETWORKS = ["", "far"];
const ACCOUNTS = ["default", "web", "waypoint"];
const DOMAINS = ["cluster.local", "old.example", "else.example"];
const SCOPES: readonly LoadBalancingScope[] = ["network", "region", "zone", "subzone", "node", "cluster"];
export const RANDOM_PORTS = [80, 443, 8080, 15008, 9000];

export class RandomMesh {
  readonly #random: Random;

  constructor(random: Random) {
    this.#random = random;
  }

  below(n: number): number {
    return Math.floor(this.#random.next() * n);
  }

  chance(p: number): boolean {
    return this.#random.next() < p;
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }

  some<T>(max: number, make: () => T): T[] {
    return Array.from({ length: this.below(max + 1) }, make);
  }

  subset<T>(values: readonly T[]): T[] {
    return values.filter(() => this.chance(0.4));
  }

  namespace = (): string => this.of(NAMESPACES);
  network = (): string => (this.chance(0.8) ? NETWORKS[0]! : NETWORKS[1]!);
  port = (): number => this.of(RANDOM_PORTS);
  address = (): IpAddress => ip(this.chance(0.75) ? `198.18.0.${this.below(24)}` : `2001:db8::${this.below(12).toString(16)}`);
  vip = (): IpAddress => ip(this.chance(0.75) ? `198.19.0.${this.below(12)}` : `2001:db8:1::${this.below(6).toString(16)}`);
  anyAddress = (): IpAddress => (this.chance(0.5) ? this.address() : this.vip());
  uid = (): WorkloadUid => uid(this.chance(0.8) ? `Kubernetes//Pod/shop/w${this.below(24)}` : `Kubernetes/networking.istio.io/WorkloadEntry/shop/w${this.below(6)}`);
  hostname = (): string => `s${this.below(10)}.example`;
  serviceName = (): NamespacedName => namespacedName(this.namespace(), this.hostname());
  policyName = (): NamespacedName => namespacedName(this.namespace(), `p${this.below(8)}`);
  identity = (): SpiffeId => spiffeId((this.chance(0.7) ? DOMAINS[0]! : this.of(DOMAINS)) as TrustDomain, this.namespace(), this.of(ACCOUNTS));

  gateway = (): GatewayAddress => ({
    destination: this.chance(0.5) ? { kind: "hostname", service: this.serviceName() } : { kind: "address", network: this.network(), ip: this.anyAddress() },
    hboneMtlsPort: 15008,
  });
  waypoints = (): WeightedWaypoint[] => (this.chance(0.75) ? [] : [{ gateway: this.gateway(), weight: 1 }, ...this.some(1, () => ({ gateway: this.gateway(), weight: this.below(3) }))]);

  workload(): Workload {
    const id = this.uid();
    return workload({
      uid: id, name: id.slice(id.lastIndexOf("/") + 1), namespace: this.namespace(), trustDomain: (this.chance(0.9) ? DOMAINS[0]! : DOMAINS[1]!) as TrustDomain,
      serviceAccount: this.of(ACCOUNTS), network: this.network(), node: this.of(["", "node-1", "node-2"]), clusterId: this.of(["Kubernetes", "other"]),
      addresses: this.chance(0.1) ? [] : [this.address(), ...this.some(1, this.address)], hostname: this.chance(0.1) ? "host.example" : "",
      tunnelProtocol: this.chance(0.7) ? "HBONE" : "TCP", hostNetwork: this.chance(0.1),
      locality: { region: this.of(["", "r1", "r2"]), zone: this.of(["", "z1", "z2"]), subzone: this.of(["", "s1"]) },
      status: this.chance(0.8) ? "healthy" : "unhealthy", capacity: this.of([1, 1, 1, 1, 0, 5]),
      services: this.some(3, () => ({ service: this.serviceName(), ports: this.subset(RANDOM_PORTS).map((servicePort) => ({ servicePort, targetPort: this.port() })) })),
      authorizationPolicies: this.chance(0.7) ? [] : this.some(3, this.policyName), waypoints: this.waypoints(),
      networkGateway: this.chance(0.3) ? this.gateway() : null,
      applicationTunnel: this.chance(0.1) ? { protocol: this.of(["NONE", "PROXY"] as const), port: this.of([0, 15088]) } : null,
    });
  }

  service(): Service {
    const hostname = this.hostname();
    const mode = this.of(["standard", "standard", "strict", "failover", "passthrough"] as const);
    return {
      ...service({ name: hostname, namespace: this.namespace(), hostname }),
      addresses: this.some(3, () => ({ network: this.network(), cidr: this.chance(0.6) ? cidr(this.vip()) : cidr(`${this.anyAddress()}/${this.of([8, 16, 28, 30, 31])}`) })),
      ports: this.subset(RANDOM_PORTS).map((servicePort) => ({ servicePort, targetPort: this.chance(0.5) ? 0 : this.port(), name: "", appProtocol: "" })),
      subjectAltNames: this.some(1, this.identity), waypoints: this.waypoints(),
      loadBalancing: { mode, scopes: mode === "strict" || mode === "failover" ? this.subset(SCOPES) : [], allowUnhealthy: this.chance(0.1) },
      ipFamilies: this.of(["automatic", "automatic", "ipv4", "ipv6", "dual"] as const), canonical: this.chance(0.5), visibility: this.chance(0.8) ? "public" : "namespace",
    };
  }

  stringMatch(values: readonly string[]): StringMatch {
    const value = this.of(values);
    const cut = this.below(value.length + 1);
    return this.of<StringMatch>([exact(value), exact(value), prefix(value.slice(0, cut)), suffix(value.slice(cut)), PRESENCE]);
  }

  policyMatch(): PolicyMatch {
    const field = <T>(make: () => T): T[] => (this.chance(0.2) ? [make(), ...this.some(2, make)] : []);
    const principal = (): StringMatch => this.stringMatch([this.identity().slice("spiffe://".length)]);
    const account = () => ({ namespace: this.namespace(), serviceAccount: this.of(ACCOUNTS) });
    const range = (): Cidr => cidr(`${this.anyAddress()}/${this.of([0, 16, 29, 31, 32])}`);
    return {
      namespaces: field(() => this.stringMatch(NAMESPACES)), notNamespaces: field(() => this.stringMatch(NAMESPACES)),
      serviceAccounts: field(account), notServiceAccounts: field(account), principals: field(principal), notPrincipals: field(principal),
      sourceIps: this.chance(0.1) ? this.some(9, range) : field(range), notSourceIps: field(range), destinationIps: field(range), notDestinationIps: field(range),
      destinationPorts: field(this.port), notDestinationPorts: field(this.port),
    };
  }

  policy(): AuthorizationPolicy {
    const name = this.policyName();
    const [namespace, short] = name.split("/") as [string, string];
    return policy({
      name: short, namespace, scope: this.of(["global", "namespace", "workload", "workload"] as const), action: this.of(["allow", "deny"] as const), dryRun: this.chance(0.2),
      rules: this.some(3, () => this.some(3, () => this.some(2, () => this.policyMatch()))),
    });
  }

  /** A few changes of each kind; removals often name what is not there. */
  delta(): MeshDelta {
    return delta({
      workloads: this.some(2, () => this.workload()), services: this.some(1, () => this.service()), policies: this.some(1, () => this.policy()),
      removedWorkloads: this.chance(0.3) ? [this.uid()] : [], removedServices: this.chance(0.15) ? [this.serviceName()] : [],
      removedPolicies: this.chance(0.3) ? [this.policyName()] : [],
    });
  }
}
