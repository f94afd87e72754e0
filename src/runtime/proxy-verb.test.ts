// Every name that the chart of Istio's ztunnel, or that ztunnel, takes from its environment: honoured, spoken of at the start, or told in
// docs/kubernetes.md. None is passed over.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { proxyArguments } from "./proxy-verb.ts";
import { entries, parseSettings, workerThreads } from "./settings.ts";
import { UNSUPPORTED_VARIABLES } from "./settings-table.ts";

/** manifests/charts/ztunnel/templates/daemonset.yaml of istio/istio at 86c9f01f. */
const CHART = [
  "CA_ADDRESS", "XDS_ADDRESS", "LOG_FORMAT", "NETWORK", "RUST_LOG", "RUST_BACKTRACE", "ISTIO_META_CLUSTER_ID", "INPOD_ENABLED", "TERMINATION_GRACE_PERIOD_SECONDS", "POD_NAME", "POD_NAMESPACE", "NODE_NAME", "INSTANCE_IP",
  "SERVICE_ACCOUNT", "ZTUNNEL_CPU_LIMIT", "ZTUNNEL_RESOURCE_CPU_LIMIT", "ZTUNNEL_RESOURCE_CPU_REQUEST", "CRL_PATH", "ENABLE_CLUSTER_TRUST_BUNDLE_API",
];
/** What istio/ztunnel at 62d82653 reads beside them: src/config.rs, src/xds, src/tls, src/telemetry.rs. */
const PROGRAM = [
  "ALT_CA_HOSTNAME", "ALT_XDS_HOSTNAME", "AUTHZ_POLICY_INFO_LOGGING", "AUTH_TOKEN", "CA_HEADER_", "CA_ROOT_CA", "CLUSTER_DOMAIN", "CLUSTER_ID", "COMPLIANCE_POLICY", "CONNECTION_TERMINATION_DEADLINE", "ENABLE_ORIG_SRC", "ENABLE_PROXY",
  "ENABLE_RESPONSE_BAGGAGE", "FAKE_CA", "HTTP2_CONNECTION_WINDOW_SIZE", "HTTP2_FRAME_SIZE", "HTTP2_STREAM_WINDOW_SIZE", "INPOD_PORT_REUSE", "INPOD_UDS", "IPV6_ENABLED", "ISTIO_METAJSON_", "ISTIO_META_", "ISTIO_META_DNS_CAPTURE",
  "ISTIO_META_DNS_PROXY_ADDR", "KEEPALIVE_ENABLED", "KEEPALIVE_INTERVAL", "KEEPALIVE_RETRIES", "KEEPALIVE_TIME", "KUBERNETES_SERVICE_HOST", "LOCALHOST_APP_TUNNEL", "LOCAL_XDS", "LOCAL_XDS_PATH", "PACKET_MARK",
  "POOL_MAX_STREAMS_PER_CONNECTION", "POOL_UNUSED_RELEASE_TIMEOUT", "PREFERED_SERVICE_NAMESPACE", "PROXY_CONFIG", "PROXY_MODE", "PROXY_WORKLOAD_INFO", "SECRET_TTL", "TLS12_ENABLED", "TRUST_DOMAIN", "UNSTABLE_ENABLE_SOCKS5",
  "USER_TIMEOUT_ENABLED", "XDS_HEADER_", "XDS_ON_DEMAND", "XDS_ROOT_CA", "ZTUNNEL_WORKER_THREADS",
];

const DOCS = readFileSync(join(import.meta.dir, "../../docs/kubernetes.md"), "utf8");
const SECTION = DOCS.slice(DOCS.indexOf("\n## In place of Istio's ztunnel\n")).split("\n## ")[1] ?? "";

/** What the chart gives by its own defaults. */
const DEFAULT_ENVIRONMENT = {
  CA_ADDRESS: "istiod.istio-system.svc:15012", XDS_ADDRESS: "istiod.istio-system.svc:15012", RUST_LOG: "info", RUST_BACKTRACE: "1", ISTIO_META_CLUSTER_ID: "Kubernetes", INPOD_ENABLED: "true", TERMINATION_GRACE_PERIOD_SECONDS: "30",
  POD_NAME: "ztunnel-x7k2p", POD_NAMESPACE: "istio-system", NODE_NAME: "node-1", INSTANCE_IP: "198.18.1.2", SERVICE_ACCOUNT: "ztunnel", ZTUNNEL_CPU_LIMIT: "16", ZTUNNEL_RESOURCE_CPU_REQUEST: "1", KUBERNETES_SERVICE_HOST: "198.19.0.1",
};

const parsed = (args: readonly string[], environment: Readonly<Record<string, string>>) => {
  const [role, ...flags] = proxyArguments(args, environment);
  expect(role).toBe("ztunnel");
  const settings = parseSettings("ztunnel", flags, environment);
  if (!settings.ok) throw new Error(settings.error.join("\n"));
  return settings.value;
};

test.each([...CHART, ...PROGRAM])("%s is honoured, or it is said what becomes of it", (name) => {
  const honoured = entries().some(([, spec]) => spec.roles.includes("ztunnel") && spec.variables.includes(name));
  const spoken = UNSUPPORTED_VARIABLES.some((each) => each.name === name && each.roles?.includes("ztunnel") !== true);
  const told = SECTION.includes(`\`${name}\``) || SECTION.includes(`\`${name}*\``);
  expect([honoured, spoken, told]).toContain(true);
});

describe("weft proxy ztunnel", () => {
  test("with the chart's own variables is complete, keeps to the chart's volumes, and has nothing to complain of", () => {
    const { settings, warnings } = parsed(["ztunnel"], DEFAULT_ENVIRONMENT);
    expect(warnings).toEqual([]);
    expect(settings).toMatchObject({
      xdsAddress: { host: "istiod.istio-system.svc", port: 15012 }, caAddress: { host: "istiod.istio-system.svc", port: 15012 }, xdsRoot: "/var/run/secrets/istio/root-cert.pem", caRoot: "/var/run/secrets/istio/root-cert.pem",
      authToken: "/var/run/secrets/tokens/istio-token", zdsSocket: "/var/run/ztunnel/ztunnel.sock", state: join(tmpdir(), "weft"), node: "node-1", podName: "ztunnel-x7k2p", instanceIp: "198.18.1.2", gracePeriodMs: 30_000, crl: null,
    });
    for (const [setting, port] of [["adminAddress", 15000], ["metricsAddress", 15020], ["readinessAddress", 15021]] as const) expect(settings[setting].port).toBe(port);
  });

  test("a flag or a variable beats the volumes of the chart", () => {
    const { settings } = parsed(["ztunnel", "--state=/state"], { ...DEFAULT_ENVIRONMENT, XDS_ROOT_CA: "SYSTEM", AUTH_TOKEN: "/token" });
    expect(settings).toMatchObject({ state: "/state", xdsRoot: "SYSTEM", caRoot: "/var/run/secrets/istio/root-cert.pem", authToken: "/token" });
    expect(parsed([], { ...DEFAULT_ENVIRONMENT, WEFT_STATE: "/elsewhere" }).settings.state).toBe("/elsewhere");
  });

  test("another kind of proxy is refused", () => {
    const [, ...flags] = proxyArguments(["sidecar"], DEFAULT_ENVIRONMENT);
    expect(parseSettings("ztunnel", flags, DEFAULT_ENVIRONMENT)).toEqual({ ok: false, error: [expect.stringContaining('"sidecar" is not understood')] });
  });

  test("a share of the processors is one of those that its limit gives it", () => {
    const share = (more: Readonly<Record<string, string>>): number => workerThreads(parsed(["ztunnel"], { ...DEFAULT_ENVIRONMENT, ZTUNNEL_WORKER_THREADS: "50%", ...more }).settings);
    expect(share({})).toBe(8);
    expect(share({ ZTUNNEL_RESOURCE_CPU_LIMIT: "4" })).toBe(2);
    expect(share({ ZTUNNEL_RESOURCE_CPU_LIMIT: "1500m" })).toBe(1);
    expect(share({ ZTUNNEL_RESOURCE_CPU_LIMIT: "2.5" })).toBe(2);
  });

  test("what a variable asks for that is so anyway needs no word, and anything else does", () => {
    for (const { name, unless } of UNSUPPORTED_VARIABLES) if (unless !== undefined) expect(parsed(["ztunnel"], { ...DEFAULT_ENVIRONMENT, [name]: unless }).warnings).toEqual([]);
    expect(parsed(["ztunnel"], { ...DEFAULT_ENVIRONMENT, LOCALHOST_APP_TUNNEL: "false" }).warnings).toEqual([expect.stringContaining("LOCALHOST_APP_TUNNEL is set and has no effect")]);
    expect(() => parsed(["ztunnel"], { ...DEFAULT_ENVIRONMENT, ENABLE_PROXY: "false" })).toThrow("ENABLE_PROXY is set");
  });
});
