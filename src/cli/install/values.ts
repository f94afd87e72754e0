// What may be chosen about an installation, with its defaults. One table for `weft install --set`, for the chart's values.yaml and for
// docs: a value that is not here cannot be set.

/** In a chart a value is not known yet: an expression stands in its place. See chart.ts. */
export interface Placeholder {
  readonly placeholder: string;
}

export const isPlaceholder = (value: unknown): value is Placeholder => typeof value === "object" && value !== null && "placeholder" in value;

type Leaf = string | number | boolean | readonly unknown[] | { readonly [key: string]: unknown };

interface Definition<T extends Leaf> {
  readonly fallback: T;
  readonly help: string;
}

const value = <T extends Leaf>(fallback: T, help: string): Definition<T> => ({ fallback, help });

/** As JSON and as Kubernetes has it; empty adds nothing. */
type Json = { readonly [key: string]: unknown };
const noList: readonly unknown[] = [];

export const VALUES = {
  image: value("weft:0.1.0", "Image of every part"),
  imagePullPolicy: value("IfNotPresent", "When the image is pulled"),
  trustDomain: value("cluster.local", "Trust domain of the mesh"),
  clusterId: value("Kubernetes", "Name of this cluster"),
  network: value("", "Network of this cluster, where there are several"),
  clusterDomain: value("cluster.local", "DNS domain of services"),
  logLevel: value("info", "Log filter of every part, such as info,access=off"),
  logFormat: value("text", "text or json"),
  "control.replicas": value(2, "Replicas of the control plane"),
  "control.resources": value<Json>({ requests: { cpu: "100m", memory: "256Mi" } }, "Requests and limits"),
  "control.nodeSelector": value<Json>({ "kubernetes.io/os": "linux" }, "Where it may run"),
  "control.tolerations": value(noList, "Taints it tolerates"),
  "ztunnel.resources": value<Json>({ requests: { cpu: "200m", memory: "128Mi" } }, "Requests and limits"),
  "ztunnel.drainSeconds": value(600, "How long connections may go on in an agent that has been replaced or is ending"),
  "ztunnel.nodeSelector": value<Json>({ "kubernetes.io/os": "linux" }, "Nodes in the mesh; the same as cni.nodeSelector"),
  "ztunnel.workers": value("1", "Data threads: a number, a share of the processors such as 50%, or 0 for one a processor"),
  "cni.resources": value<Json>({ requests: { cpu: "20m", memory: "64Mi" } }, "Requests and limits"),
  "cni.nodeSelector": value<Json>({ "kubernetes.io/os": "linux" }, "Nodes in the mesh"),
  "cni.binDir": value("/opt/cni/bin", "Where the container runtime has its CNI plugins, on the node"),
  "cni.confDir": value("/etc/cni/net.d", "Where the container runtime has its CNI configuration, on the node"),
  "cni.excludeNamespaces": value("kube-system", "Namespaces that are never in the mesh and whose pods start without the agent, separated by commas; the mesh's own is added"),
  "cni.probes": value("source", "How kubelet probes pass the mesh by: source, exempt or off"),
  "cni.probeAddresses": value("169.254.7.127,fd16:9254:7127:1337:ffff:ffff:ffff:ffff", "Addresses that nobody has, from which probes reach pods"),
  "cni.dnsCapture": value(true, "Whether the mesh answers the DNS questions of its pods"),
} as const;

export type ValueName = keyof typeof VALUES;
type Widened<T> = T extends string ? string : T extends number ? number : T extends boolean ? boolean : T;
export type Values = { readonly [K in ValueName]: Widened<(typeof VALUES)[K]["fallback"]> | Placeholder } & {
  /** Where everything is; the chart's is the release's. */
  readonly namespace: string | Placeholder;
};

export const NAMESPACE_DEFAULT = "istio-system";

export function defaultValues(namespace: string): Values {
  const fallbacks = Object.fromEntries(Object.entries(VALUES).map(([name, { fallback }]) => [name, fallback]));
  return { ...(fallbacks as Omit<Values, "namespace">), namespace };
}
