import { expect, test } from "bun:test";
import { type ClusterView, clustersText, type EndpointView, mergeClusters } from "./clusters-view.ts";

const endpoint = (over: Partial<EndpointView> = {}): EndpointView => ({
  address: "198.18.0.1:8080", workload: "Kubernetes//Pod/shop/web-1", locality: "", weight: 1, health: "unchecked", healthFailure: "", outlier: "healthy", ejectedFor: "", ejections: 0, activeRequests: 2,
  latencyMs: 1.23456, failureShare: 0, ...over,
});
const cluster = (endpoints: EndpointView[], over: Partial<ClusterView> = {}): ClusterView => ({
  name: "shop/web:80", endpoints, connections: 3, waiting: 1, limits: [{ resource: "activeRequests", inUse: 2, limit: 10, refused: 0 }], ...over,
});

test("threads are merged: load is added, what is worst is shown, and how many eject", () => {
  const [merged, ...more] = mergeClusters([
    [cluster([endpoint()])],
    [cluster([endpoint({ outlier: "ejected", ejectedFor: "consecutive5xx", ejections: 1, latencyMs: 9, failureShare: 0.5 }), endpoint({ address: "198.18.0.2:8080" })], { limits: [{ resource: "activeRequests", inUse: 1, limit: 10, refused: 4 }] })],
  ]);
  expect(more).toEqual([]);
  expect(merged).toMatchObject({ connections: 6, waiting: 2, limits: [{ resource: "activeRequests", inUse: 3, limit: 20, refused: 4 }] });
  expect(merged!.endpoints.map(({ address, activeRequests, latencyMs, failureShare, threads, ejectedBy }) => [address, activeRequests, latencyMs, failureShare, threads, ejectedBy]))
    .toEqual([["198.18.0.1:8080", 4, 9, 0.5, 2, 1], ["198.18.0.2:8080", 2, 1.23456, 0, 1, 0]]);
});

test("as text: one fact a line, in Envoy's form", () => {
  const text = clustersText(mergeClusters([
    [cluster([endpoint(), endpoint({ address: "198.18.0.2:8080", health: "unhealthy", healthFailure: "status 503", locality: "r/z/" })], { limits: [{ resource: "connections", inUse: 3, limit: 5, refused: 2 }] })],
    [cluster([endpoint({ outlier: "ejected", ejectedFor: "successRate", ejections: 2 })], { limits: [{ resource: "connections", inUse: 0, limit: 5, refused: 0 }] })],
  ]));
  for (const line of [
    "shop/web:80::cx_active::6", "shop/web:80::limit_connections::3/10", "shop/web:80::refused_connections::2", "shop/web:80::198.18.0.1:8080::rq_active::4", "shop/web:80::198.18.0.1:8080::latency_ms::1.235",
    "shop/web:80::198.18.0.1:8080::health_flags::/failed_outlier_check (successRate, 1 of 2 threads)", "shop/web:80::198.18.0.1:8080::ejections::2",
    "shop/web:80::198.18.0.2:8080::health_flags::/failed_active_hc (status 503)", "shop/web:80::198.18.0.2:8080::locality::r/z/",
  ]) expect(text.split("\n")).toContain(line);
  expect(clustersText([])).toBe("");
});

test("an endpoint that nothing is wrong with is what its checks say, in the word that JSON has", () => {
  expect(clustersText(mergeClusters([[cluster([endpoint()])]]))).toContain("::health_flags::unchecked\n");
  expect(clustersText(mergeClusters([[cluster([endpoint({ health: "healthy" })])]]))).toContain("::health_flags::healthy\n");
});

test("no limit is said so", () => {
  const none = [cluster([], { limits: [{ resource: "activeRetries", inUse: 1, limit: null, refused: 0 }] })];
  const merged = mergeClusters([none, none]);
  expect(merged[0]!.limits[0]).toMatchObject({ inUse: 2, limit: null });
  expect(clustersText(merged)).toContain("shop/web:80::limit_activeRetries::2/none\n");
});
