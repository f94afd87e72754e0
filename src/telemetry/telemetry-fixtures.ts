// Records for the tests of this folder.

import type { WorkloadUid } from "../core/brand.ts";
import type { IpAddress } from "../core/ip.ts";
import type { SpiffeId, TrustDomain } from "../core/spiffe.ts";
import { type EffectiveTelemetry, mergeTelemetry } from "../mesh/l7/merge-telemetry.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { ConnectionLabels } from "./connection-labels.ts";
import type { DecisionRecord } from "./decision-record.ts";
import { KeptFields, type RequestRecord } from "./request-record.ts";
import { compileTelemetry, type RoleTelemetry } from "./service-telemetry.ts";

const provenance = { kind: "WorkloadEntry", namespace: "shop", name: "web", resourceVersion: "1", fieldPath: "" };

export function workload(name: string, over: Partial<Workload> = {}): Workload {
  return {
    uid: `Kubernetes//Pod/shop/${name}` as WorkloadUid, name, namespace: "shop", clusterId: "Kubernetes", trustDomain: "cluster.local" as TrustDomain,
    serviceAccount: name, network: "", node: "n1", addresses: ["198.18.0.1" as IpAddress], hostname: "", tunnelProtocol: "HBONE", nativeTunnel: false,
    hostNetwork: false, canonicalName: name, canonicalRevision: "latest", workloadType: "deployment", workloadName: name, app: "", version: "",
    locality: { region: "r1", zone: "z1", subzone: "" }, status: "healthy", capacity: 1, services: [], authorizationPolicies: [], waypoints: [],
    networkGateway: null, applicationTunnel: null, provenance, ...over,
  };
}

export const service = {
  name: "web", namespace: "shop", hostname: "web.shop.svc.cluster.local", provenance,
} as unknown as Service;

export const identity = (name: string): SpiffeId => `spiffe://cluster.local/ns/shop/sa/${name}` as SpiffeId;

export function labels(over: Partial<ConnectionLabels> = {}): ConnectionLabels {
  return {
    reporter: "source", source: workload("client"), destination: workload("web"), service, sourceIdentity: identity("client"),
    destinationIdentity: identity("web"), mutualTls: true, ...over,
  };
}

export function record(over: Partial<DecisionRecord> = {}): DecisionRecord {
  return {
    ...labels(), sourceAddress: { ip: "198.18.0.1" as IpAddress, port: 40000 }, destinationAddress: { ip: "198.18.0.2" as IpAddress, port: 80 },
    hboneAddress: { ip: "198.18.0.2" as IpAddress, port: 15008 }, nodeLocal: false,
    decision: { verdict: "allow", reason: "allowed: no allow policy applies", policies: [] }, closedMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    durationMs: 12.4, connectMs: 1.2, sentBytes: 10, receivedBytes: 20, close: { code: "clean", blame: "none", message: "", flags: "-" }, ...over,
  };
}

/** Nothing is configured: requests are counted, and that is all. */
export const role: RoleTelemetry = { accessLog: "off", accessLogSample: 1, logOptions: { query: "redacted" }, collectors: [], sampling: 1, environment: () => undefined };
export const nothingSaid: EffectiveTelemetry = mergeTelemetry([]);

/** A request that an endpoint answered at its first attempt: 100 ms in all, 40 to the head, 30 of them at the endpoint. */
export function request(over: Partial<RequestRecord> = {}): RequestRecord {
  return {
    telemetry: compileTelemetry(nothingSaid, role), source: workload("client"), sourceDescription: null, sourceIdentity: identity("client"),
    sourceAddress: { ip: "198.18.0.1" as IpAddress, port: 40000 }, mutualTls: true, service, destinationAddress: { ip: "198.18.9.9" as IpAddress, port: 80 }, version: "HTTP/1.1",
    scheme: "http", method: "GET", host: "web.shop", authorityPort: null, path: "/cart", pathReceived: null, query: "?token=secret", isGrpc: false,
    requestFields: new KeptFields(["user-agent"], ["curl/8"]), responseFields: null, requestId: "r-1", trace: null, traceId: over.trace?.traceId ?? null, sourceTraceId: null, endpointTraceId: null, routeId: "HTTPRoute/shop/web", ruleName: "cart",
    provenance: { kind: "HTTPRoute", namespace: "shop", name: "web", resourceVersion: "1", fieldPath: "spec.rules[0].matches[0]" }, injected: [], status: 200, grpcStatus: null,
    grpcMessage: "", code: null, flags: "-", detail: "", attempts: 1, failedAttempts: [], cluster: "shop/web.shop.svc.cluster.local:80", endpoint: workload("web"),
    endpointIdentity: identity("web"), upstreamAddress: "198.18.0.2:8080", upstreamVersion: "HTTP/1.1", startedMs: 1000, attemptStartedMs: 1010, answeredMs: 1040, endedMs: 1100,
    requestBytes: 10, responseBytes: 2000, requestMessages: 0, responseMessages: 0, ...over,
  };
}
