// Every setting: its flag, its variables, its type, default, roles and help. Flags beat variables beat defaults.
// Variables carry the reference's names where it has one.

import { hostname } from "node:os";
import { type Cidr, formatSocketAddress, type IpAddress, parseIp, parsePort, parseSocketAddress, type SocketAddress } from "../core/ip.ts";
import { err, ok } from "../core/result.ts";
import { parseTrustDomain, type TrustDomain } from "../core/spiffe.ts";
import { parseLogFilter } from "./log-filter.ts";
import * as type from "./setting-types.ts";

export const ROLES = ["up", "ztunnel", "waypoint", "ca", "control", "cni"] as const;
export type Role = (typeof ROLES)[number];

export type Group = "Configuration" | "Identity" | "Data path" | "Time limits" | "Kubernetes" | "Listening" | "Logs" | "Lifecycle";
export const GROUPS: readonly Group[] = ["Configuration", "Identity", "Data path", "Time limits", "Kubernetes", "Listening", "Logs", "Lifecycle"];

export interface SettingSpec<T = unknown> {
  readonly flag: string;
  /** First one that is set and not empty counts. */
  readonly variables: readonly string[];
  readonly type: type.SettingType<T>;
  /** Undefined makes the setting optional (`fallback` null) or required (see `required`). */
  readonly fallback: T;
  readonly required?: readonly Role[];
  readonly roles: readonly Role[];
  readonly group: Group;
  readonly help: string;
}

const NODE: readonly Role[] = ["up", "ztunnel"];
/** Whoever carries traffic. */
const MESH: readonly Role[] = ["up", "ztunnel", "waypoint"];
const WAYPOINT: readonly Role[] = ["waypoint"];
/** Whoever may be told its configuration by a control plane. */
const TOLD: readonly Role[] = ["ztunnel", "waypoint"];
const CA: readonly Role[] = ["up", "ca"];
const CONTROL: readonly Role[] = ["control"];
/** Whoever makes records of configuration. */
const CONFIGURED: readonly Role[] = [...MESH, "control"];
const ISSUER: readonly Role[] = [...CA, "control"];
const CNI: readonly Role[] = ["cni"];
const ALL: readonly Role[] = ROLES;
/** Whoever redirects traffic, itself or for others. */
const CAPTURE: readonly Role[] = ["up", "ztunnel", "cni"];
/** Whoever must know which node it is on. */
const ON_NODE: readonly Role[] = ["up", "ztunnel", "waypoint", "cni"];
/** Whoever has keys or state of its own. */
const KEEPING: readonly Role[] = ["up", "ztunnel", "waypoint", "ca", "control"];

function spec<T>(flag: string, variables: readonly string[], settingType: type.SettingType<T>, fallback: T, roles: readonly Role[], group: Group, help: string): SettingSpec<T> {
  return { flag, variables, type: settingType, fallback, roles, group, help };
}

/** A setting whose absence is null. */
function optional<T>(flag: string, variables: readonly string[], settingType: type.SettingType<T>, roles: readonly Role[], group: Group, help: string, required: readonly Role[] = []): SettingSpec<T | null> {
  return { flag, variables, type: settingType as type.SettingType<T | null>, fallback: null, required, roles, group, help };
}

const DEFAULT_TRUST_DOMAIN = parseTrustDomain("cluster.local") as TrustDomain;
const listening = (ip: string, port: number): SocketAddress => ({ ip: parseIp(ip) as IpAddress, port });

/** RFC 1035 and what Kubernetes allows as a node or cluster name. */
const NAME = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/;
const name = (placeholder: string) => type.text(placeholder, "a name of letters, digits, dots and hyphens, at most 253", NAME);

const logFilterText: type.SettingType<string> = {
  placeholder: "FILTER",
  wanted: "levels and scopes such as info,access=off,ztunnel=debug",
  parse(value) {
    const filter = parseLogFilter(value);
    return filter.ok ? ok(value) : filter;
  },
  format: (value) => value,
};

/** `namespace/name` of a Gateway. */
const gatewayName = type.text("NAMESPACE/NAME", "a namespace and a name with a slash between them", /^[a-z0-9-]{1,63}\/[a-z0-9.-]{1,253}$/);

const daemonSetName = type.text("NAMESPACE/NAME", "a namespace and a name with a slash between them", /^[a-z0-9-]{1,63}\/[a-z0-9.-]{1,253}$/);

const namespaces: type.SettingType<readonly string[]> = {
  placeholder: "NAMESPACE,...",
  wanted: "namespaces separated by commas",
  parse(value) {
    const names = value === "" ? [] : value.split(",");
    const bad = names.find((each) => !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(each));
    return bad === undefined ? ok(names) : err(`${JSON.stringify(bad)} is none`);
  },
  format: (names) => names.join(","),
};

/** Istio's: link-local and unique local, so that no network has them. */
const PROBE_ADDRESSES = ["169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"].map((ip) => parseIp(ip) as IpAddress) as readonly IpAddress[];

/** A port of this process for clients that come without a tunnel. */
export interface ServedPort {
  readonly at: SocketAddress;
  readonly namespace: string;
  /** Host name of the service. */
  readonly hostname: string;
  readonly port: number;
}

const servedPorts: type.SettingType<readonly ServedPort[]> = {
  placeholder: "IP:PORT=NAMESPACE/HOSTNAME:PORT,...",
  wanted: "addresses with the service of each, such as 0.0.0.0:8080=shop/web.shop.svc.cluster.local:80",
  parse(value) {
    const served: ServedPort[] = [];
    for (const part of value === "" ? [] : value.split(",")) {
      const match = /^(.+)=([a-z0-9-]{1,63})\/((?:\*\.)?[a-z0-9.-]{1,253}):(\d{1,5})$/.exec(part);
      const at = match === null ? null : parseSocketAddress(match[1]!);
      const port = match === null ? null : parsePort(match[4]!);
      if (match === null || at === null || port === null || port === 0) return err(JSON.stringify(part));
      served.push({ at, namespace: match[2]!, hostname: match[3]!, port });
    }
    return ok(served);
  },
  format: (served) => served.map(({ at, namespace, hostname, port }) => `${formatSocketAddress(at)}=${namespace}/${hostname}:${port}`).join(","),
};

/** Istio's own share of traces. */
const SAMPLING_DEFAULT = 0.01;

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

export const SETTINGS = {
  config: optional("config", ["WEFT_CONFIG", "LOCAL_XDS_PATH"], type.path, MESH, "Configuration", "Directory of YAML resources; watched, a change is in force within a second", ["up"]),
  xdsAddress: optional("xds-address", ["XDS_ADDRESS"], type.hostPort, TOLD, "Configuration", "Control plane that tells the configuration over xDS, instead of --config"),
  xdsRoot: optional("xds-root", ["XDS_ROOT_CA"], type.pathOrPem, TOLD, "Configuration", "Root certificates that the control plane's own certificate is checked against; SYSTEM for those of the machine"),
  xdsHostname: optional("xds-hostname", ["ALT_XDS_HOSTNAME"], name("NAME"), TOLD, "Configuration", "Name expected in the control plane's certificate, where it is not the host of --xds-address"),
  instanceIp: spec("instance-ip", ["INSTANCE_IP"], type.text("IP", "an IP address", /^[0-9A-Fa-f:.]{2,45}$/), "127.0.0.1", TOLD, "Configuration", "Address of this pod, told to the control plane"),
  state: spec("state", ["WEFT_STATE", "STATE_DIRECTORY"], type.path, "/var/lib/weft", KEEPING, "Configuration", "Directory for keys, certificates and the last good configuration; only the owner may read it. One process has it at a time: another role on this machine needs another one"),
  node: spec("node", ["NODE_NAME"], name("NAME"), hostname(), ON_NODE, "Configuration", "Name of this node"),
  network: spec("network", ["NETWORK", "ISTIO_META_NETWORK"], type.text("NAME", "a name", /^[A-Za-z0-9._-]{0,253}$/), "", CONFIGURED, "Configuration", "Network this node is on, where there are several"),
  clusterId: spec("cluster-id", ["CLUSTER_ID", "ISTIO_META_CLUSTER_ID"], name("NAME"), "Kubernetes", CONFIGURED, "Configuration", "Cluster this node belongs to"),
  clusterDomain: spec("cluster-domain", ["CLUSTER_DOMAIN"], name("DOMAIN"), "cluster.local", CONFIGURED, "Configuration", "DNS domain of services"),

  rootNamespace: spec("root-namespace", ["ROOT_NAMESPACE"], name("NAMESPACE"), "istio-system", CONFIGURED, "Configuration", "Namespace whose policies apply to the whole mesh"),
  remoteGatewayNamespaces: spec("remote-gateway-namespaces", ["REMOTE_GATEWAY_NAMESPACES"], type.nameList, [] as readonly string[], CONFIGURED, "Configuration", "Namespaces whose Gateways to other networks hold for the whole mesh, beside --root-namespace"),
  serviceCidrs: spec("service-cidrs", ["SERVICE_CIDRS"], type.cidrList, [] as readonly Cidr[], CONFIGURED, "Configuration", "Ranges, one of each family at most, from which services without clusterIP get an address; none by default"),

  kubeconfig: optional("kubeconfig", ["KUBECONFIG"], type.path, CONTROL, "Configuration", "How to reach the Kubernetes API, in a form that kubectl takes; a pod needs none"),
  watchNamespaces: spec("watch-namespaces", ["WATCH_NAMESPACES"], type.nameList, [] as readonly string[], CONTROL, "Configuration", "Namespaces to watch where no more is allowed; all of them when none is given"),
  podNamespace: spec("pod-namespace", ["POD_NAMESPACE"], name("NAMESPACE"), "istio-system", [...CONTROL, ...TOLD], "Configuration", "Namespace of this pod; of the control plane, where its Lease and the keys of its CA are"),
  podName: spec("pod-name", ["POD_NAME"], name("NAME"), hostname(), [...CONTROL, ...TOLD], "Configuration", "Name of this pod, which no other has"),
  nodeAccounts: spec("node-accounts", ["CA_TRUSTED_NODE_ACCOUNTS"], type.accountList, ["istio-system/ztunnel"] as readonly string[], CONTROL, "Identity", "Service accounts of node agents: they are told everything, and have certificates for the pods of their node"),
  tokenAudience: spec("token-audience", ["TOKEN_AUDIENCE"], name("NAME"), "istio-ca", CONTROL, "Identity", "Audience that the tokens of agents are for"),
  waypointImage: optional("waypoint-image", ["WAYPOINT_IMAGE"], type.text("IMAGE", "the name of an image", /^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}$/), CONTROL, "Configuration", "Image of the waypoints that Gateways ask for; without one none are run"),
  waypointPullPolicy: spec("waypoint-pull-policy", ["WAYPOINT_PULL_POLICY"], type.oneOf(["IfNotPresent", "Always", "Never"]), "IfNotPresent", CONTROL, "Configuration", "When the image of a waypoint is pulled"),
  controlAddress: optional("control-address", ["CONTROL_ADDRESS"], type.hostPort, CONTROL, "Configuration", "Where the waypoints that it runs reach the control plane; weft-control.NAMESPACE.svc:15012 unless given"),
  serverNames: spec("server-names", ["SERVER_NAMES"], type.nameList, [] as readonly string[], CONTROL, "Identity", "Further DNS names by which agents reach the control plane, beside those of its usual Services"),

  trustDomain: spec("trust-domain", ["TRUST_DOMAIN"], type.trustDomain, DEFAULT_TRUST_DOMAIN, KEEPING, "Identity", "Trust domain of the identities here"),
  trustDomainAliases: spec("trust-domain-aliases", ["TRUST_DOMAIN_ALIASES"], type.trustDomainList, [] as readonly TrustDomain[], MESH, "Identity", "Other trust domains whose workloads are treated as our own"),
  certificateLifetimeMs: spec("certificate-lifetime", ["SECRET_TTL"], type.lifetime, 24 * HOUR, KEEPING, "Identity", "Lifetime of workload certificates; renewed at half of it"),
  certificateLifetimeMaxMs: spec("certificate-lifetime-max", ["MAX_WORKLOAD_CERT_TTL"], type.lifetime, 90 * 24 * HOUR, ISSUER, "Identity", "Longest lifetime the CA grants"),
  caAddress: optional("ca-address", ["CA_ADDRESS"], type.hostPort, MESH, "Identity", "CA that signs workload certificates; `weft up` without it brings its own", ["ztunnel"]),
  caRoot: optional("ca-root", ["CA_ROOT_CA"], type.pathOrPem, MESH, "Identity", "Root certificates that the CA's own certificate is checked against; SYSTEM for those of the machine"),
  caHostname: optional("ca-hostname", ["ALT_CA_HOSTNAME"], name("NAME"), MESH, "Identity", "Name expected in the CA's certificate, where it is not the host of --ca-address"),
  authToken: optional("auth-token", ["AUTH_TOKEN"], type.pathOrPem, MESH, "Identity", "File with the token shown to the CA, read anew for each request"),
  crl: optional("crl", ["CRL_PATH"], type.path, MESH, "Identity", "Certificate revocation list, PEM or DER; watched, and applied to live connections too"),
  sessionKey: optional("session-key", ["SESSION_KEY"], type.path, ["up", "waypoint"], "Identity", "File with the secret that sessions of session persistence are signed with, the same for all instances of a waypoint; without it each keeps one of its own in --state"),
  caTokens: optional("ca-tokens", ["CA_TOKENS"], type.path, CA, "Identity", "File of the tokens accepted from nodes and the identities each may ask for", ["ca"]),
  caCertificate: optional("ca-certificate", ["CA_CERT"], type.path, CA, "Identity", "Intermediate certificate to sign with (PEM, its chain after it) instead of making one"),
  caKey: optional("ca-key", ["CA_KEY"], type.path, CA, "Identity", "Private key of --ca-certificate (PEM)"),
  caTrustBundle: optional("ca-trust-bundle", ["CA_TRUST_BUNDLE"], type.path, CA, "Identity", "Root certificates above --ca-certificate (PEM)"),

  sameNode: spec("same-node", ["SAME_NODE"], type.oneOf(["plain", "mtls"]), "plain", NODE, "Data path", "Traffic between workloads of this node: authorised and copied, or tunnelled to ourselves"),
  pathNormalization: spec("path-normalization", ["PATH_NORMALIZATION"], type.oneOf(["BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES"]), "BASE", ["up", "waypoint"], "Data path", "What of a request's path is brought to one form before rules look at it, in Istio's words; with BASE //admin is another path than /admin"),
  ruleHeader: spec("rule-header", ["RULE_HEADER"], type.oneOf(["mesh", "always", "never"]), "mesh", ["up", "waypoint"], "Data path", "Whom x-weft-rule tells, of an answer that a waypoint makes itself, the rule it comes from: callers of the mesh that ask for themselves, everybody or nobody"),
  preserveSource: spec("preserve-source", ["ENABLE_ORIG_SRC"], type.oneOf(["best-effort", "require", "off"], { true: "require", false: "off" }), "best-effort", NODE, "Data path", "Whether applications see the client's own address"),
  packetMark: spec("packet-mark", ["PACKET_MARK"], type.mark, 0x539, CAPTURE, "Data path", "Mark of our own packets, by which the rules leave them alone"),
  ipv6: spec("ipv6", ["IPV6_ENABLED"], type.boolean, true, NODE, "Data path", "Give out IPv6 addresses of services in answers to DNS questions; IPv6 is captured all the same"),
  dnsCapture: spec("dns-capture", ["DNS_CAPTURE", "ISTIO_META_DNS_CAPTURE"], type.boolean, true, CAPTURE, "Data path", "Answer the DNS questions of workloads about services; everything else is forwarded"),
  workers: spec("workers", ["ZTUNNEL_WORKER_THREADS"], type.workerCount, { kind: "count", count: 1 } as type.WorkerCount, MESH, "Data path", "Data threads: a number, a share of the processors, or 0 for one per processor"),
  processors: optional("processors", ["ZTUNNEL_RESOURCE_CPU_LIMIT", "ZTUNNEL_CPU_LIMIT"], type.processors, MESH, "Data path", "Processors that a share of --workers is of; those of the machine unless given"),
  poolStreamsMax: spec("pool-streams-max", ["POOL_MAX_STREAMS_PER_CONNECTION"], type.integer(1, 10_000), 100, MESH, "Data path", "Connections carried by one tunnel at once"),
  poolIdleMs: spec("pool-idle", ["POOL_UNUSED_RELEASE_TIMEOUT"], type.timeout, 5 * MINUTE, MESH, "Data path", "How long a tunnel without connections is kept"),
  streamWindowBytes: spec("http2-stream-window", ["HTTP2_STREAM_WINDOW_SIZE"], type.integer(65_535, 0x7fff_ffff, "BYTES"), 4 * 1024 * 1024, MESH, "Data path", "HTTP/2 window of one connection inside a tunnel"),
  connectionWindowBytes: spec("http2-connection-window", ["HTTP2_CONNECTION_WINDOW_SIZE"], type.integer(65_535, 0x7fff_ffff, "BYTES"), 16 * 1024 * 1024, MESH, "Data path", "HTTP/2 window of one tunnel; larger than a stream's, or one stalled connection stalls the others"),
  frameBytes: spec("http2-frame", ["HTTP2_FRAME_SIZE"], type.integer(16_384, 16_777_215, "BYTES"), 1024 * 1024, MESH, "Data path", "Largest HTTP/2 frame accepted and sent"),
  bufferBytesMax: spec("buffer-limit", ["BUFFER_LIMIT"], type.integer(4 * 1024 * 1024, 0xff_ffff_ffff, "BYTES"), 256 * 1024 * 1024, MESH, "Data path", "Bytes kept for readers that are slow, over all connections; beyond half of it tunnels are held back, at the limit the slowest are ended"),

  connectTimeoutMs: spec("connect-timeout", ["CONNECT_TIMEOUT"], type.timeout, 10 * SECOND, MESH, "Time limits", "TCP connect, to an application or to another node"),
  tlsTimeoutMs: spec("tls-timeout", ["TLS_TIMEOUT"], type.timeout, 10 * SECOND, MESH, "Time limits", "TLS handshake, either direction"),
  http2TimeoutMs: spec("http2-timeout", ["HTTP2_TIMEOUT"], type.timeout, 10 * SECOND, MESH, "Time limits", "First HTTP/2 SETTINGS of the other side"),
  connectResponseTimeoutMs: spec("tunnel-response-timeout", ["CONNECT_RESPONSE_TIMEOUT"], type.timeout, 15 * SECOND, MESH, "Time limits", "Answer to CONNECT; covers the far side's own connect"),
  workloadWaitMs: spec("workload-wait", ["WORKLOAD_WAIT"], type.timeout, 5 * SECOND, MESH, "Time limits", "How long a first connection waits for the configuration to name its workload, or this waypoint"),
  keepaliveMs: spec("keepalive", ["KEEPALIVE_TIME"], type.timeout, 3 * MINUTE, MESH, "Time limits", "Silence after which TCP asks whether the other side is still there"),
  halfCloseIdleMs: spec("half-close-idle", ["HALF_CLOSE_IDLE"], type.duration, HOUR, NODE, "Time limits", "A connection of which one side has ended and the other is silent is ended after this; 0 never"),

  gateway: optional("gateway", ["WAYPOINT_GATEWAY"], gatewayName, WAYPOINT, "Listening", "Gateway of a waypoint class that this process is: which policies and routes hold here", WAYPOINT),
  serve: spec("serve", ["WAYPOINT_SERVE"], servedPorts, [] as readonly ServedPort[], WAYPOINT, "Listening", "Ports for clients without a tunnel, and the service that each is for"),

  zdsSocket: spec("zds-socket", ["ZTUNNEL_UDS_ADDRESS", "INPOD_UDS"], type.path, "/var/run/ztunnel/ztunnel.sock", [...CNI, "ztunnel"], "Kubernetes", "Socket at which the ztunnels of this node are told of its pods; with --config they are not asked for there"),
  cniSocket: spec("cni-socket", ["CNI_SOCKET"], type.path, "/run/weft/cni.sock", CNI, "Kubernetes", "Socket at which the plugin asks; the same path inside and outside"),
  cniBinDirectory: optional("cni-bin-dir", ["CNI_BIN_DIR"], type.path, CNI, "Kubernetes", "Directory of the runtime's CNI plugins, into which the plugin is put, as seen from here; without it the plugin is not installed"),
  cniConfigDirectory: spec("cni-config-dir", ["CNI_CONF_DIR"], type.path, "/host/etc/cni/net.d", CNI, "Kubernetes", "Directory of the runtime's CNI configuration, as seen from here"),
  excludedNamespaces: spec("exclude-namespaces", ["EXCLUDE_NAMESPACES"], namespaces, ["kube-system"] as readonly string[], CNI, "Kubernetes", "Namespaces whose pods are never in the mesh and start without the agent, as what the mesh needs must"),
  probes: spec("probes", ["PROBES"], type.oneOf(["source", "exempt", "off"]), "source", CNI, "Kubernetes", "Kubelet probes pass the mesh by: rules on the node that give them --probe-addresses; `exempt`, where something else gives them those; `off`, they are traffic like any other"),
  probeAddresses: spec("probe-addresses", ["HOST_PROBE_ADDRESSES"], type.addressList, PROBE_ADDRESSES, CNI, "Kubernetes", "Addresses that nobody has, one of each family at most, from which probes reach pods in the mesh"),
  daemonSet: optional("daemonset", ["DAEMONSET"], daemonSetName, CNI, "Kubernetes", "DaemonSet whose removal means that the mesh goes from this node; without it, it never does"),

  adminAddress: spec("admin-address", ["ADMIN_ADDRESS"], type.listenAddress, listening("127.0.0.1", 15000), ALL, "Listening", "Administration: configuration dump, log level, quit; keep it on loopback"),
  metricsAddress: spec("metrics-address", ["METRICS_ADDRESS"], type.listenAddress, listening("::", 15020), ALL, "Listening", "Prometheus metrics"),
  readinessAddress: spec("readiness-address", ["READINESS_ADDRESS"], type.listenAddress, listening("::", 15021), ALL, "Listening", "Readiness"),
  caListen: optional("ca-listen", ["CA_LISTEN"], type.listenAddress, ISSUER, "Listening", "Address at which the CA serves other nodes; off unless given with `weft up`; of a control plane, with xDS beside it"),

  log: spec("log", ["RUST_LOG", "WEFT_LOG"], logFilterText, "info", ALL, "Logs", "What is logged: a level, and levels of single scopes"),
  logFormat: spec("log-format", ["LOG_FORMAT"], type.oneOf(["text", "json"], { plain: "text" }), "text", ALL, "Logs", "Form of the log, the access log included"),
  logFile: optional("log-file", ["LOG_FILE"], type.path, ALL, "Logs", "File to append the log to, instead of standard error"),
  accessLog: spec("access-log", ["ACCESS_LOG"], type.oneOf(["on", "off"]), "on", MESH, "Logs", "One line per connection, of a waypoint per request"),
  accessLogQuery: spec("access-log-query", ["ACCESS_LOG_QUERY"], type.oneOf(["redacted", "full"]), "redacted", ["up", "waypoint"], "Logs", "Whether logs and spans of requests show queries, which may hold tokens and search words"),
  traceSampling: spec("trace-sampling", ["TRACE_SAMPLING"], type.share, SAMPLING_DEFAULT, ["up", "waypoint"], "Logs", "Share of the traces begun at a waypoint that is reported, where no Telemetry says otherwise; traces that others began keep what was decided"),
  accessLogSample: spec("access-log-sample", ["ACCESS_LOG_SAMPLE"], type.share, 1, MESH, "Logs", "Share of the clean connections that is logged; failures always are"),

  drainMs: optional("drain", ["CONNECTION_TERMINATION_DEADLINE"], type.duration, ALL, "Lifecycle", "How long connections may go on after SIGTERM; 5s, or what --grace-period leaves"),
  handoverDrainMs: spec("handover-drain", ["HANDOVER_DRAIN"], type.duration, HOUR, MESH, "Lifecycle", "How long connections may go on in this process after another has taken its place"),
  onStop: spec("on-stop", ["ON_STOP"], type.oneOf(["hold", "release"]), "hold", NODE, "Lifecycle", "What a stop does to captured traffic: `hold` leaves the rules, nothing passes unguarded until the next start; `release` takes them away, it flows outside the mesh"),
  gracePeriodMs: optional("grace-period", ["TERMINATION_GRACE_PERIOD_SECONDS"], type.duration, ALL, "Lifecycle", "When whoever stops us will kill us: the drain ends 5s earlier, 1s if it is 10s or less"),
  handover: spec("handover", ["HANDOVER"], type.boolean, true, MESH, "Lifecycle", "Take the listening ports over from a running process of the same --state, and give them to the next one"),
} as const;

export type SettingKey = keyof typeof SETTINGS;
type ValueOf<S> = S extends SettingSpec<infer T> ? T : never;
export type Settings = { readonly [K in SettingKey]: ValueOf<(typeof SETTINGS)[K]> };

/** A variable of the reference that means something there and nothing here; set, it is an error or a warning, never silence. */
export interface UnsupportedVariable {
  readonly name: string;
  readonly fatal: boolean;
  readonly message: string;
  /** What it asks for with this value is so anyway. */
  readonly unless?: string;
  /** Where it is supported. */
  readonly roles?: readonly Role[];
}

export const UNSUPPORTED_VARIABLES: readonly UnsupportedVariable[] = [
  { name: "XDS_ADDRESS", fatal: true, message: "`weft up` reads --config; who is told by a control plane are `weft ztunnel` and `weft waypoint`", roles: ROLES.filter((role) => role !== "up") },
  { name: "XDS_ON_DEMAND", fatal: false, unless: "false", message: "everything is asked for: what is not known could not be answered by DNS" },
  { name: "LOCAL_XDS", fatal: true, message: "resources come from files: put them into a directory and name it with LOCAL_XDS_PATH" },
  { name: "PROXY_CONFIG", fatal: false, message: "each of its fields has a variable: XDS_ADDRESS, ADMIN_ADDRESS, METRICS_ADDRESS, ZTUNNEL_WORKER_THREADS, ISTIO_META_*" },
  { name: "FAKE_CA", fatal: true, unless: "false", message: "there is no fake CA; use `weft up`, which brings its own" },
  { name: "TLS12_ENABLED", fatal: false, unless: "false", message: "TLS 1.3 is the only version spoken" },
  { name: "KEEPALIVE_INTERVAL", fatal: false, message: "the interval between probes is KEEPALIVE_TIME" },
  { name: "KEEPALIVE_RETRIES", fatal: false, unless: "9", message: "9 probes are sent" },
  { name: "KEEPALIVE_ENABLED", fatal: false, unless: "true", message: "TCP keep-alive is always on" },
  { name: "USER_TIMEOUT_ENABLED", fatal: false, unless: "false", message: "a peer that is gone is found by keep-alive, and in a tunnel by PING" },
  { name: "ENABLE_PROXY", fatal: true, unless: "true", message: "there is no agent for DNS alone; without capture, traffic does not come here" },
  { name: "INPOD_PORT_REUSE", fatal: false, unless: "true", message: "ports in pods are always shared with a successor" },
  { name: "PROXY_MODE", fatal: false, unless: "shared", message: "workloads come from --config, or from the CNI agent" },
  { name: "PROXY_WORKLOAD_INFO", fatal: false, message: "workloads come from --config, or from the CNI agent" },
  { name: "PREFERED_SERVICE_NAMESPACE", fatal: false, message: "of services with one name that of the client's namespace comes first, then Kubernetes' own" },
  { name: "LOCALHOST_APP_TUNNEL", fatal: false, unless: "true", message: "an application with a tunnel of its own is reached on loopback" },
  { name: "ENABLE_RESPONSE_BAGGAGE", fatal: false, unless: "true", message: "both ends of a tunnel always say who they are" },
  { name: "AUTHZ_POLICY_INFO_LOGGING", fatal: false, unless: "false", message: "the access log names the policy that decided, and weft_policy_dry_run_total counts what dry-run policies would have" },
  { name: "ISTIO_META_DNS_PROXY_ADDR", fatal: false, message: "DNS is answered at port 15053 of loopback, to which the rules lead" },
  { name: "UNSTABLE_ENABLE_SOCKS5", fatal: false, unless: "false", message: "there is no SOCKS5 port in this version" },
  { name: "COMPLIANCE_POLICY", fatal: true, message: "no compliance policy can be promised in this version" },
];
