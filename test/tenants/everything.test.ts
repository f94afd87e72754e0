// Every kind with which a tenant could reach into another namespace, tried one after the other: what the bank's pods, clients and waypoint
// have of the mesh is the same as without it, but for what the tenant's own clients are given.

import { describe, expect } from "bun:test";
import { namespacedName } from "../../src/core/brand.ts";
import { atOnce } from "../../src/core/steps.ts";
import type { ClusterEvaluation } from "../../src/resources/cluster/cluster-set.ts";
import { WaypointIndex, type WaypointRecords } from "../../src/xds/server/waypoint-index.ts";
import { item } from "../kit/bad-input.ts";
import { cluster, gateway, type Json, namespace, object, pod, saidOf, service, serviceEntry, TENANT, VICTIM, wayOf, workloadEntry } from "./tenant-cluster.ts";

const [GATEWAY_API, SECURITY, NETWORKING] = ["gateway.networking.k8s.io/v1", "security.istio.io/v1", "networking.istio.io/v1"];
const USES = { "istio.io/use-waypoint": "wp" };
const secret = (at: string, name: string, data: Readonly<Record<string, string>>): Json => ({ apiVersion: "v1", kind: "Secret", metadata: { name, namespace: at }, data: Object.fromEntries(Object.entries(data).map(([key, text]) => [key, btoa(text)])) });
const KEY = "-----BEGIN PRIVATE KEY-----\nbank's alone\n-----END PRIVATE KEY-----\n";

/** The bank with a waypoint, a client certificate for its vault, and what each of these may meet. */
const bank: readonly Json[] = [
  namespace(VICTIM, USES), namespace("shop"), pod("shop", "client", "198.18.3.3"), gateway(VICTIM, "wp"), service(VICTIM, "wp", "198.19.0.99", { selector: { "gateway.networking.k8s.io/gateway-name": "wp" }, ports: [{ name: "mesh", port: 15008 }] }),
  pod(VICTIM, "wp-1", "198.18.1.99", { labels: { "gateway.networking.k8s.io/gateway-name": "wp", "networking.istio.io/tunnel": "http" } }),
  service(VICTIM, "plain", "198.19.0.98", {}, { labels: { "istio.io/use-waypoint": "none" } }), pod(VICTIM, "plain", "198.18.1.98"),
  object(NETWORKING, "VirtualService", VICTIM, "vault", { hosts: ["vault.bank.svc.cluster.local"], http: [{ match: [{ uri: { prefix: "/d" } }], delegate: { name: "leaf" } }, { route: [{ destination: { host: "vault" } }] }] }),
  object(NETWORKING, "VirtualService", VICTIM, "leaf", { exportTo: ["."], http: [{ timeout: "7s", route: [{ destination: { host: "vault" } }] }] }),
  object(NETWORKING, "DestinationRule", VICTIM, "vault", { host: "vault", trafficPolicy: { tls: { mode: "MUTUAL", credentialName: "client" } } }),
  secret(VICTIM, "client", { "tls.crt": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "tls.key": KEY, "ca.crt": "" }),
  object(SECURITY, "AuthorizationPolicy", VICTIM, "vault", { targetRefs: [{ group: "", kind: "Service", name: "vault" }], action: "ALLOW", rules: [{ from: [{ source: { namespaces: ["shop"] } }] }] }),
];
const tenant: readonly Json[] = [namespace(TENANT, USES), gateway(TENANT, "wp"), service(TENANT, "web", "198.19.0.6"), pod(TENANT, "web", "198.18.6.6"), pod(TENANT, "client", "198.18.6.7")];

function toldTo(at: string, evaluation: ClusterEvaluation): WaypointRecords {
  const index = new WaypointIndex();
  atOnce(index.update({ delta: { ...evaluation.delta, services: [...evaluation.mesh.services.values()] }, l7Delta: { ...evaluation.l7Delta, routes: [...evaluation.l7.routes.values()] } }));
  return index.recordsOf(namespacedName(at, "wp"), evaluation.l7, (name) => evaluation.mesh.services.get(name));
}

/** All that the bank, and a third namespace at the bank, have to do with. */
function bankOf(evaluation: ClusterEvaluation): unknown {
  const { mesh } = evaluation;
  const records = toldTo(VICTIM, evaluation);
  const notTenants = (clientNamespace: string | null): boolean => clientNamespace !== TENANT;
  return {
    workloads: [...mesh.workloads.values()].filter((one) => one.namespace === VICTIM), services: [...mesh.services.values()].filter((one) => one.namespace === VICTIM),
    policies: [...mesh.policies.values()].filter((one) => one.namespace === VICTIM || one.scope === "global"),
    ways: ["198.18.1.1:80", "198.19.0.1:80", "198.19.0.98:80", "198.18.1.98:80"].flatMap((to) => ["bank/client", "shop/client"].map((from) => `${from} ${to} ${wayOf(to, evaluation, from)}`)),
    routes: [...records.routes.values()].map((route) => ({ ...route, parents: route.parents.filter(({ service: to, clientNamespace }) => to.startsWith(`${VICTIM}/`) && notTenants(clientNamespace)) })).filter(({ parents }) => parents.length > 0),
    // Routes of the tenant's clients may lead to what is the tenant's.
    traffic: [...records.trafficPolicies].filter(([name]) => name.startsWith(`${VICTIM}/`)).map(([name, all]) => [name, all.filter(({ clientNamespace }) => notTenants(clientNamespace))]).filter(([, all]) => all!.length > 0),
    access: [records.requestPolicies, records.requestAuthentications, records.loginPolicies, records.telemetry, records.waypoints],
  };
}

const vault = { group: "", kind: "Service", name: "vault" };
const targets = { targetRefs: [vault] };
const elsewhere = { targetRefs: [{ ...vault, namespace: VICTIM }] };
const ATTACKS: Readonly<Record<string, readonly Json[]>> = {
  "HTTPRoute": [object(GATEWAY_API, "HTTPRoute", TENANT, "a", { parentRefs: [{ ...vault, namespace: VICTIM }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] })],
  "GRPCRoute": [object(GATEWAY_API, "GRPCRoute", TENANT, "a", { parentRefs: [{ ...vault, namespace: VICTIM }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] })],
  "TCPRoute": [object(GATEWAY_API, "TCPRoute", TENANT, "a", { parentRefs: [{ ...vault, namespace: VICTIM }], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] })],
  "TLSRoute": [object(GATEWAY_API, "TLSRoute", TENANT, "a", { parentRefs: [{ ...vault, namespace: VICTIM }], hostnames: ["a.example"], rules: [{ backendRefs: [{ name: "web", port: 80 }] }] })],
  "ReferenceGrant": [object(GATEWAY_API, "ReferenceGrant", TENANT, "a", { from: [{ group: GATEWAY_API.split("/")[0], kind: "HTTPRoute", namespace: VICTIM }], to: [{ group: "", kind: "Service" }] })],
  "BackendTLSPolicy": [object(GATEWAY_API, "BackendTLSPolicy", TENANT, "a", { ...targets, validation: { hostname: "a.example", wellKnownCACertificates: "System" } })],
  "XBackendTrafficPolicy": [object("gateway.networking.x-k8s.io/v1alpha1", "XBackendTrafficPolicy", TENANT, "a", { ...targets, retryConstraint: { budget: { percent: 1 } } })],
  "VirtualService for all": [object(NETWORKING, "VirtualService", TENANT, "vault", { hosts: ["*"], exportTo: ["*", VICTIM], http: [{ route: [{ destination: { host: "web" } }] }] })],
  "VirtualService, another's delegate": [object(NETWORKING, "VirtualService", TENANT, "leaf", { exportTo: ["*", VICTIM], http: [{ route: [{ destination: { host: "web" } }] }] })],
  "DestinationRule for all": [object(NETWORKING, "DestinationRule", TENANT, "a", { host: "*.svc.cluster.local", exportTo: ["*", VICTIM], trafficPolicy: { tls: { mode: "DISABLE" }, connectionPool: { tcp: { maxConnections: 1 } } } })],
  "DestinationRule by a short name": [object(NETWORKING, "DestinationRule", TENANT, "a", { host: "vault.bank", exportTo: ["*"], subsets: [{ name: "s", labels: { app: "grab" } }], trafficPolicy: { outlierDetection: { consecutive5xxErrors: 1 } } })],
  "AuthorizationPolicy, target elsewhere": [object(SECURITY, "AuthorizationPolicy", TENANT, "vault", { ...elsewhere, action: "DENY", rules: [{}] })],
  "AuthorizationPolicy, target of that name": [object(SECURITY, "AuthorizationPolicy", TENANT, "vault", { ...targets, action: "DENY", rules: [{}] }), object(SECURITY, "AuthorizationPolicy", TENANT, "wp", { targetRefs: [{ group: "gateway.networking.k8s.io", kind: "Gateway", name: "wp" }, { group: "gateway.networking.k8s.io", kind: "GatewayClass", name: "weft-waypoint" }], action: "DENY", rules: [{}] })],
  "AuthorizationPolicy that cannot be read": [object(SECURITY, "AuthorizationPolicy", TENANT, "vault", { nonsense: true })],
  "PeerAuthentication": [object(SECURITY, "PeerAuthentication", TENANT, "default", { mtls: { mode: "STRICT" }, selector: { matchLabels: { app: "vault" } }, portLevelMtls: { 8080: { mode: "DISABLE" } } }), object(SECURITY, "PeerAuthentication", TENANT, "all", { mtls: { mode: "DISABLE" } })],
  "RequestAuthentication": [object(SECURITY, "RequestAuthentication", TENANT, "a", { ...elsewhere, jwtRules: [{ issuer: "https://grab.example", jwksUri: "https://grab.example/keys" }] }), object(SECURITY, "RequestAuthentication", TENANT, "b", { ...targets, jwtRules: [{ issuer: "https://grab.example" }] })],
  "Telemetry": [object("telemetry.istio.io/v1", "Telemetry", TENANT, "a", { accessLogging: [{ disabled: true }], tracing: [{ disableSpanReporting: true }] }), object("telemetry.istio.io/v1", "Telemetry", TENANT, "b", { ...elsewhere, accessLogging: [{ disabled: true }] })],
  "TrafficPolicy": [object("weft.dev/v1alpha1", "TrafficPolicy", TENANT, "a", { ...elsewhere, faults: [{ abort: { httpStatus: 503 } }] }), object("weft.dev/v1alpha1", "TrafficPolicy", TENANT, "b", { targetRefs: [vault, { group: "gateway.networking.k8s.io", kind: "Gateway", name: "wp" }], faults: [{ abort: { httpStatus: 503 } }] })],
  "LoginPolicy": [object("weft.dev/v1alpha1", "LoginPolicy", TENANT, "a", { ...elsewhere, issuer: "https://grab.example", clientId: "a", clientSecretRef: { name: "client", key: "tls.key" }, cookie: { keysRef: { name: "client" } } }), object("weft.dev/v1alpha1", "LoginPolicy", TENANT, "b", { nonsense: true })],
  "TokenIntrospection": [object("weft.dev/v1alpha1", "TokenIntrospection", TENANT, "a", { ...targets, issuer: "a", url: "https://grab.example", clientId: "a", clientSecretRef: { name: "client" } })],
  "MeshConfig": [object("weft.dev/v1alpha1", "MeshConfig", TENANT, "mesh", { extensionProviders: [{ name: "grab", envoyFileAccessLog: {} }], defaultProviders: { accessLogging: ["grab"] } })],
  "Gateways": [gateway(TENANT, "vault", { listener: { allowedRoutes: { namespaces: { from: "All" } } } }), object(GATEWAY_API, "GatewayClass", "", "grab", { controllerName: "weft.dev/waypoint" })],
  "a Service with outside addresses": [service(TENANT, "web2", "198.19.0.16", { externalIPs: ["198.19.0.1", "198.18.1.1"], loadBalancerIP: "198.19.0.1", type: "LoadBalancer" })],
  "an alias in DNS": [object("v1", "Service", TENANT, "vault", { type: "ExternalName", externalName: "vault.bank.svc.cluster.local" })],
  "pods with others' labels": [pod(TENANT, "vault", "198.18.6.16", { labels: { app: "vault", "gateway.networking.k8s.io/gateway-name": "wp", "istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": VICTIM, "kubernetes.io/service-name": "vault" } })],
  "entries": [serviceEntry("a", { hosts: ["vault.bank", "*.bank.svc.cluster.local", "a.example"], addresses: ["198.18.0.0/15", "198.19.0.1"], endpoints: [{ address: "198.18.1.1" }], subjectAltNames: ["spiffe://cluster.local/ns/bank/sa/vault"] }), workloadEntry(TENANT, "a", "198.18.1.1"), workloadEntry(TENANT, "b", "198.19.0.1", { labels: { app: "vault" } })],
};

describe("whatever a tenant writes", () => {
  item("every kind, aimed at another namespace", async () => {
    const before = bankOf(cluster(...bank, ...tenant).evaluate());
    expect(JSON.stringify(before)).toContain("tunnel to bank/wp-1");
    for (const [name, objects] of Object.entries(ATTACKS)) {
      const set = cluster(...bank, ...tenant, ...objects);
      const evaluation = set.evaluate();
      expect([name, bankOf(evaluation)]).toEqual([name, before]);
      // An object that is not read would be no attack.
      const unread = [...evaluation.broken.values()].filter(({ diagnostics }) => diagnostics.some(({ severity }) => severity === "error")).length;
      expect([name, unread]).toEqual([name, JSON.stringify(objects).includes('"nonsense"') ? 1 : 0]);
      // And when it comes before the bank does.
      const first = cluster(...tenant, ...objects, ...bank).evaluate();
      expect([name, JSON.stringify(sorted(bankOf(first)))]).toEqual([name, JSON.stringify(sorted(before))]);
    }
  }, 60_000);

  item("every kind at once", async () => {
    const everything = Object.values(ATTACKS).flat();
    expect(sorted(bankOf(cluster(...bank, ...tenant, ...everything).evaluate()))).toEqual(sorted(bankOf(cluster(...bank, ...tenant).evaluate())));
  });

  item("a secret of another namespace, by name", async () => {
    const rules = [
      object(NETWORKING, "DestinationRule", TENANT, "a", { host: "web", trafficPolicy: { tls: { mode: "MUTUAL", credentialName: "client" } } }), ...ATTACKS["LoginPolicy"]!, ...ATTACKS["TokenIntrospection"]!,
      object(GATEWAY_API, "BackendTLSPolicy", TENANT, "a", { targetRefs: [{ group: "", kind: "Service", name: "web" }], validation: { hostname: "a.example", caCertificateRefs: [{ group: "", kind: "ConfigMap", name: "client" }] } }),
    ];
    const set = cluster(...bank, ...tenant, ...rules);
    const evaluation = set.evaluate();
    expect([...set.references()].filter(({ namespace: at }) => at === VICTIM).map(({ name }) => name)).toEqual(["client"]);
    expect(JSON.stringify([...toldTo(TENANT, evaluation).trafficPolicies], null, 1)).not.toContain("bank's alone");
    expect(saidOf(evaluation, "DestinationRule aaa/a").join()).toContain("aaa/client");
  });

  item("a key of another namespace, by a route to its Service", async () => {
    const route = object(GATEWAY_API, "HTTPRoute", TENANT, "a", { parentRefs: [{ group: "", kind: "Service", name: "web" }], rules: [{ backendRefs: [{ name: "vault", namespace: VICTIM, port: 80 }] }] });
    const evaluation = cluster(...bank, ...tenant, service(TENANT, "web", "198.19.0.6"), route).evaluate();
    const [own, others] = [VICTIM, TENANT].map((at) => JSON.stringify([...toldTo(at, evaluation).trafficPolicies]));
    expect(own).toContain("bank's alone");
    expect(others).toContain("vault.bank.svc.cluster.local");
    expect(others).not.toContain("bank's alone");
    expect(others).toContain("is not given to a waypoint of namespace aaa");
  });
});

/** Lists as sets: in which order records come is nobody's affair. */
function sorted(value: unknown): unknown {
  if (value instanceof Map) return sorted([...value]);
  if (Array.isArray(value)) return value.map(sorted).sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, one]) => [key, sorted(one)]));
  return value;
}
