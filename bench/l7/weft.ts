// Our side: `weft waypoint` with the resources that ask for the features, and, for tunnels, `weft ca` beside it.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Server } from "../lib/process.ts";
import { weftCommand } from "../peers/weft.ts";
import { DENIED_HEADER, type Features, ISSUER, type Materials, requestPath, routePath, SERVER_NAME, TRACE_PERCENT, TRACES_PATH } from "./features.ts";
import type { L7Process } from "./peer.ts";
import { BACKEND, BACKEND_PORTS } from "./servers.ts";

const PORTS = { h1: 10_080, h2: 10_081, grpc: 10_082 } as const;
const SERVICE_PORTS = { h1: 80, h2: 81, grpc: 82, traces: 83 } as const;
const WAYPOINT = "198.18.7.2";
const VIP = "198.18.250.10";
const HOST = "web.shop.svc.cluster.local";
const CA_ADDRESS = "127.0.0.1:15012";
/** Rules that one HTTPRoute may have. */
const RULES_MAX = 16;

/** Where the tunnels for the service end, and what their CONNECT names. */
export const WEFT_TUNNEL = { port: 15_008, authority: `${VIP}:${SERVICE_PORTS.h2}` } as const;

export function startWeft(features: Features, materials: Materials, name: string): L7Process {
  const directory = join(materials.directory, `weft-${name}`);
  const config = join(directory, "config");
  mkdirSync(config, { recursive: true });
  writeFileSync(join(config, "web.yaml"), resources(features, materials).map((resource) => JSON.stringify(resource)).join("\n---\n"));
  const served = Object.entries(PORTS).map(([kind, port]) => `127.0.0.1:${port}=shop/${HOST}:${SERVICE_PORTS[kind as keyof typeof PORTS]}`).join(",");
  const log = features.log ? ["--access-log", "on", "--log-file", join(directory, "access.log")] : ["--access-log", "off"];
  const ca = features.mtls ? startCa(directory, materials) : null;
  const server = new Server({
    argv: [...weftCommand(), "waypoint", "--config", config, "--state", join(directory, "state"), "--gateway", "shop/waypoint", "--workers", "1", "--service-cidrs", "198.18.240.0/24", "--serve", served, ...log, ...(ca?.flags ?? [])],
    logFile: join(directory, "log"),
  });
  return { server, ports: PORTS, helpers: ca === null ? [] : [ca.server] };
}

function startCa(directory: string, { authority, root }: Materials): { readonly server: Server; readonly flags: readonly string[] } {
  const token = Buffer.from(crypto.getRandomValues(new Uint8Array(32))).toString("hex");
  const [tokenFile, tokensFile] = [join(directory, "token"), join(directory, "tokens.json")];
  writeFileSync(tokenFile, token, { mode: 0o600 });
  writeFileSync(tokensFile, JSON.stringify({ tokens: [{ name: "waypoint", sha256: createHash("sha256").update(token).digest("hex"), namespaces: "all" }] }), { mode: 0o600 });
  const server = new Server({
    argv: [...weftCommand(), "ca", "--state", join(directory, "ca"), "--ca-listen", CA_ADDRESS, "--ca-tokens", tokensFile, "--ca-certificate", authority.certificate, "--ca-key", authority.key, "--ca-trust-bundle", root,
      "--admin-address", "127.0.0.1:16000", "--metrics-address", "127.0.0.1:16020", "--readiness-address", "127.0.0.1:16021"],
    logFile: join(directory, "ca.log"),
  });
  return { server, flags: ["--ca-address", CA_ADDRESS, "--ca-root", root, "--auth-token", tokenFile] };
}

const object = (apiVersion: string, kind: string, name: string, spec: object, namespace = "shop"): object => ({ apiVersion, kind, metadata: { name, namespace }, spec });
const TARGET = { targetRefs: [{ group: "", kind: "Service", name: "web" }] } as const;

function resources(features: Features, { jwks, root, waypoint }: Materials): object[] {
  const targets = features.mtls ? { h1: BACKEND_PORTS.h1, h2: BACKEND_PORTS.tls, grpc: BACKEND_PORTS.tls } : { h1: BACKEND_PORTS.h1, h2: BACKEND_PORTS.h2, grpc: BACKEND_PORTS.h2 };
  const ports = [
    { name: "http", port: SERVICE_PORTS.h1, targetPort: targets.h1 }, { name: "http2", port: SERVICE_PORTS.h2, targetPort: targets.h2 },
    { name: "grpc", port: SERVICE_PORTS.grpc, targetPort: targets.grpc }, { name: "http-traces", port: SERVICE_PORTS.traces, targetPort: BACKEND_PORTS.h1 },
  ];
  return [
    { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } },
    object("gateway.networking.k8s.io/v1", "Gateway", "waypoint", { gatewayClassName: "weft-waypoint", listeners: [{ name: "mesh", port: 15_008, protocol: "HBONE" }] }),
    object("networking.istio.io/v1", "WorkloadEntry", "web", { address: BACKEND, labels: { app: "web" }, serviceAccount: "web" }),
    // Its own record: which identity it has.
    { apiVersion: "networking.istio.io/v1", kind: "WorkloadEntry", metadata: { name: "waypoint", namespace: "shop", labels: { "gateway.networking.k8s.io/gateway-name": "waypoint" } },
      spec: { address: WAYPOINT, labels: { "gateway.networking.k8s.io/gateway-name": "waypoint" }, serviceAccount: "waypoint" } },
    { apiVersion: "v1", kind: "Service", metadata: { name: "web", namespace: "shop", labels: { "istio.io/use-waypoint": "waypoint" } }, spec: { clusterIP: VIP, selector: { app: "web" }, ports } },
    ...routes(features.routes),
    ...(features.mtls ? [
      { apiVersion: "v1", kind: "Secret", metadata: { name: "web-tls", namespace: "shop" }, stringData: { "ca.crt": readFileSync(root, "utf8"), "tls.crt": readFileSync(waypoint.chain, "utf8"), "tls.key": readFileSync(waypoint.key, "utf8") } },
      object("networking.istio.io/v1", "DestinationRule", "web", { host: HOST, trafficPolicy: { portLevelSettings: [{ port: { number: SERVICE_PORTS.h2 }, tls: { mode: "MUTUAL", credentialName: "web-tls", sni: SERVER_NAME } }] } }),
    ] : []),
    ...(features.jwt ? [
      object("security.istio.io/v1", "RequestAuthentication", "web", { ...TARGET, jwtRules: [{ issuer: ISSUER, jwks, forwardOriginalToken: true }] }),
      object("security.istio.io/v1", "AuthorizationPolicy", "token", { ...TARGET, action: "DENY", rules: [{ from: [{ source: { notRequestPrincipals: ["*"] } }] }] }),
    ] : []),
    ...(features.policy ? [
      object("security.istio.io/v1", "AuthorizationPolicy", "deny", { ...TARGET, action: "DENY", rules: [{ when: [{ key: `request.headers[${DENIED_HEADER}]`, values: ["yes"] }] }] }),
      object("security.istio.io/v1", "AuthorizationPolicy", "allow", { ...TARGET, action: "ALLOW", rules: [{ to: [{ operation: { methods: ["GET", "POST"], paths: [requestPath(features), "/other/*"] } }] }] }),
    ] : []),
    ...(features.trace ? [
      object("weft.dev/v1alpha1", "MeshConfig", "mesh", { extensionProviders: [{ name: "traces", opentelemetry: { service: `shop/${HOST}`, port: SERVICE_PORTS.traces, http: { path: TRACES_PATH } } }] }, "istio-system"),
      object("telemetry.istio.io/v1", "Telemetry", "mesh", { tracing: [{ providers: [{ name: "traces" }], randomSamplingPercentage: TRACE_PERCENT }] }, "istio-system"),
    ] : []),
  ];
}

function routes(count: number): object[] {
  const paths = count === 0 ? ["/"] : Array.from({ length: count }, (_, i) => routePath(i));
  const rules = paths.map((value) => ({ matches: [{ path: { type: "PathPrefix", value } }], backendRefs: [{ name: "web", port: SERVICE_PORTS.h2 }] }));
  // A route goes to one port of the service; those of the other protocols have the service's own, where there is no route.
  const parentRefs = [{ group: "", kind: "Service", name: "web", port: SERVICE_PORTS.h2 }];
  const routes: object[] = [];
  for (let at = 0; at < rules.length; at += RULES_MAX) routes.push(object("gateway.networking.k8s.io/v1", "HTTPRoute", `web-${at / RULES_MAX}`, { parentRefs, rules: rules.slice(at, at + RULES_MAX) }));
  if (count > 0) return routes;
  for (const port of [SERVICE_PORTS.h1, SERVICE_PORTS.grpc]) {
    routes.push(object("gateway.networking.k8s.io/v1", "HTTPRoute", `web-${port}`, {
      parentRefs: [{ group: "", kind: "Service", name: "web", port }], rules: [{ matches: [{ path: { type: "PathPrefix", value: "/" } }], backendRefs: [{ name: "web", port }] }],
    }));
  }
  return routes;
}
