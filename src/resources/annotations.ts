// Labels and annotations that mean something to us. Istio's keep Istio's names; ours begin with `weft.dev/`.
// docs/configuration.md lists each of them for the operator.

/** Namespace or workload label: `ambient` opts in, `none` opts out; the workload's own label wins. */
export const DATAPLANE_MODE = "istio.io/dataplane-mode";
export const DATAPLANE_MODES = ["ambient", "none"] as const;

/** Namespace, service or workload label: name of the waypoint, or `none`. */
export const USE_WAYPOINT = "istio.io/use-waypoint";
export const USE_WAYPOINT_NAMESPACE = "istio.io/use-waypoint-namespace";
/** Beside these: a second waypoint, and by an annotation of the same object the share, 0 to 100, of what goes through it. */
export const USE_WAYPOINT_CANARY = "istio.io/use-waypoint-canary";
export const USE_WAYPOINT_CANARY_NAMESPACE = "istio.io/use-waypoint-canary-namespace";
export const WAYPOINT_CANARY_WEIGHT = "istio.io/use-waypoint-canary-weight";
/** Label of a waypoint's service: what may use it; `service` by default. */
export const WAYPOINT_FOR = "istio.io/waypoint-for";
/** Workload label: the waypoint (Gateway) whose instance it is. */
export const GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name";
/** Workload label, `http`: the workload ends HBONE itself. */
export const NATIVE_TUNNEL = "networking.istio.io/tunnel";
/** Label of a Gateway of class `istio-remote`: the network that it leads to. */
export const NETWORK = "topology.istio.io/network";
/** Gateway annotations: whose identity it proves, where that is not `NAME-CLASS` in its namespace and our own trust domain. */
export const GATEWAY_SERVICE_ACCOUNT = "gateway.istio.io/service-account";
export const GATEWAY_TRUST_DOMAIN = "gateway.istio.io/trust-domain";
/** Workload annotation, `PROXY` or `PROXY/PORT`: its application takes every connection with a PROXY protocol header. */
export const INBOUND_BINDING = "ambient.istio.io/waypoint-inbound-binding";
/** Workload annotation, `enabled`: somebody else captures it; it is reached by HBONE. */
export const REDIRECTION = "ambient.istio.io/redirection";
/** Workload annotation, `true`: inbound plaintext is left alone. */
export const BYPASS_INBOUND_CAPTURE = "ambient.istio.io/bypass-inbound-capture";
/** Workload annotation, `true` or `false`: overrides the agent's DNS capture. */
export const DNS_CAPTURE = "ambient.istio.io/dns-capture";
/** AuthorizationPolicy annotation, `true`: decides nothing, is only reported. */
export const DRY_RUN = "istio.io/dry-run";
/** Service annotation, the older form of `spec.trafficDistribution`. */
export const TRAFFIC_DISTRIBUTION = "networking.istio.io/traffic-distribution";

/** Workload annotation: comma-separated port numbers whose traffic is left alone. */
export const EXCLUDE_OUTBOUND_PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts";
export const EXCLUDE_INBOUND_PORTS = "traffic.sidecar.istio.io/excludeInboundPorts";
/** Workload annotation: comma-separated CIDRs, destinations that are left alone. */
export const EXCLUDE_OUTBOUND_IP_RANGES = "traffic.sidecar.istio.io/excludeOutboundIPRanges";

/** Workload annotation: name of the node it lives on. */
export const NODE = "weft.dev/node";
/** Workload annotation: its network namespace on that node, an absolute path or `host`. */
export const NETNS = "weft.dev/netns";
export const NETNS_HOST = "host";
/** Workload annotation: comma-separated further IP addresses (dual stack). */
export const ADDRESSES = "weft.dev/addresses";
/** Workload annotation: comma-separated user ids or ranges `1000-1999` whose traffic is left alone. */
export const EXCLUDE_UIDS = "weft.dev/exclude-uids";
/** Workload annotation: comma-separated cgroup v2 paths whose processes are left alone. */
export const EXCLUDE_CGROUPS = "weft.dev/exclude-cgroups";

/** ServiceEntry annotation, `true`: names under its wildcard (DYNAMIC_DNS) may lead to private addresses. */
export const EGRESS_PRIVATE_ADDRESSES = "weft.dev/egress-private-addresses";

export const CANONICAL_NAME = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"] as const;
export const CANONICAL_REVISION = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"] as const;
export const APP = ["app.kubernetes.io/name", "app"] as const;
export const VERSION = ["app.kubernetes.io/version", "version"] as const;
