// What the control plane's own work costs: the first evaluation of a whole cluster, and of one change each of a pod, a policy, a service
// and a route, in processor time of the thread that does it. No API server, no network: `bun bench/micro/evaluation.ts [PODS]`.

import { parseTrustDomain } from "../../src/core/spiffe.ts";
import { type ClusterKind, ClusterSet } from "../../src/resources/cluster/cluster-set.ts";

type Json = Readonly<Record<string, unknown>>;

const pods = Number(process.argv[2] ?? 10_000);
const services = pods / 10;
const namespaces = Math.max(10, pods / 100);
const rules = pods / 10;
const NODES = 50;
const ROUNDS = 30;

const set = new ClusterSet({ node: "", clusterId: "Kubernetes", clusterDomain: "cluster.local", trustDomain: parseTrustDomain("cluster.local")!, network: "", rootNamespace: "istio-system", serviceCidrs: [] });
const ip = (i: number): string => `198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
const at = (i: number): string => `ns-${i % namespaces}`;
const put = (kind: ClusterKind, object: Json): void => void set.upsert(kind, object);

const pod = (i: number, address = ip(i)): Json => ({
  apiVersion: "v1", kind: "Pod", metadata: { name: `pod-${i}`, namespace: at(i), uid: `uid-${i}`, labels: { app: `app-${i % services}`, "pod-template-hash": "5d8f7c" }, annotations: { "ambient.istio.io/redirection": "enabled" }, ownerReferences: [{ controller: true, kind: "ReplicaSet", name: `app-${i % services}-5d8f7c` }] },
  spec: { nodeName: `node-${i % NODES}`, serviceAccountName: `app-${i % services}`, containers: [{ name: "app", ports: [{ name: "http", containerPort: 8080 }] }] }, status: { phase: "Running", podIP: address, podIPs: [{ ip: address }], conditions: [{ type: "Ready", status: "True" }] },
});
const service = (i: number, port = 80): Json => ({ apiVersion: "v1", kind: "Service", metadata: { name: `app-${i}`, namespace: at(i) }, spec: { clusterIP: ip(0x1_8000 + i), selector: { app: `app-${i}` }, ports: [{ name: "http", port, targetPort: 8080 }] } });
const route = (i: number, path = "/"): Json => ({
  apiVersion: "gateway.networking.k8s.io/v1", kind: "HTTPRoute", metadata: { name: `app-${i}`, namespace: at(i), creationTimestamp: "2026-01-01T00:00:00Z" },
  spec: { parentRefs: [{ group: "", kind: "Service", name: `app-${i % services}` }], rules: [{ matches: [{ path: { type: "PathPrefix", value: path } }], backendRefs: [{ name: `app-${i % services}`, port: 80 }] }] },
});
const policy = (i: number, account = "front"): Json => ({ apiVersion: "security.istio.io/v1", kind: "AuthorizationPolicy", metadata: { name: `app-${i}`, namespace: at(i) }, spec: { selector: { matchLabels: { app: `app-${i % services}` } }, action: "ALLOW", rules: [{ from: [{ source: { principals: [`cluster.local/ns/${at(i)}/sa/${account}`] } }] }] } });
const gateway = (i: number): Json => ({ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", metadata: { name: "waypoint", namespace: `ns-${i}` }, spec: { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15008, protocol: "HBONE" }] } });

/** Milliseconds of this thread: what else runs on the machine does not count. */
function threadMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
}

function timed(name: string, work: () => void): void {
  const startMs = threadMs();
  work();
  console.log(`${name.padEnd(44)} ${(threadMs() - startMs).toFixed(0).padStart(7)} ms`);
}

timed("objects taken", () => {
  for (let i = 0; i < NODES; i++) put("Node", { apiVersion: "v1", kind: "Node", metadata: { name: `node-${i}`, labels: { "topology.kubernetes.io/zone": `z${i % 3}` } } });
  for (let i = 0; i < namespaces; i++) put("Namespace", { apiVersion: "v1", kind: "Namespace", metadata: { name: `ns-${i}`, labels: i % 2 === 0 ? { "istio.io/use-waypoint": "waypoint" } : {} } });
  for (let i = 0; i < namespaces; i += 2) put("Gateway", gateway(i));
  for (let i = 0; i < services; i++) put("Service", service(i));
  for (let i = 0; i < rules; i++) put("HTTPRoute", route(i));
  for (let i = 0; i < rules; i++) put("AuthorizationPolicy", policy(i));
  for (let i = 0; i < pods; i++) put("Pod", pod(i));
});
timed("everything for the first time", () => void set.evaluate());
Bun.gc(true);
console.log(`${"resident".padEnd(44)} ${(process.memoryUsage.rss() / 1024 / 1024).toFixed(0).padStart(7)} MiB, heap ${(process.memoryUsage().heapUsed / 1024 / 1024).toFixed(0)} MiB`);

const kinds: readonly (readonly [name: string, change: (round: number) => void])[] = [
  ["a pod", (round) => put("Pod", pod(round, ip(0x1_7000 + round)))],
  ["a policy", (round) => put("AuthorizationPolicy", policy(round, "back"))],
  ["a service", (round) => put("Service", service(round, 81))],
  ["a route", (round) => put("HTTPRoute", route(round, "/other"))],
  ["a namespace's label", (round) => put("Namespace", { apiVersion: "v1", kind: "Namespace", metadata: { name: `ns-${round % namespaces}`, labels: { "istio.io/use-waypoint": "waypoint", round: String(round) } } })],
];
for (const [name, change] of kinds) {
  const took: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    change(round);
    const startMs = threadMs();
    set.evaluate();
    took.push(threadMs() - startMs);
  }
  took.sort((a, b) => a - b);
  console.log(`${`${name} changed: median, most of ${ROUNDS}`.padEnd(44)} ${took[ROUNDS >> 1]!.toFixed(1).padStart(7)} ms ${took.at(-1)!.toFixed(1)} ms`);
}
