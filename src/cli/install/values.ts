// What may be chosen about an installation, with its defaults. One table for `weft install --set`, for the chart's values.yaml and for
// docs: a value that is not here cannot be set. Each is checked as whoever reads it will: an agent by its own settings table, the API by shape.

import { z } from "zod";
import { err, ok, type Result } from "../../core/result.ts";
import { DURATION_MS_MAX, integer, oneOf, type SettingType, text } from "../../runtime/setting-types.ts";
import { SETTINGS } from "../../runtime/settings-table.ts";

/** In a chart a value is not known yet: an expression stands in its place. See chart.ts. */
export interface Placeholder {
  readonly placeholder: string;
}

export const isPlaceholder = (value: unknown): value is Placeholder => typeof value === "object" && value !== null && "placeholder" in value;

type Leaf = string | number | boolean | readonly unknown[] | { readonly [key: string]: unknown };

/** @returns what is wanted instead, or null. */
type Check = (given: unknown) => string | null;

interface Definition<T extends Leaf> {
  readonly fallback: T;
  readonly help: string;
  readonly check: Check;
  /** Of a map, how many dots part the names in it: 0, a key is one name whatever dots it has; 1, a section and a key. */
  readonly sections?: number;
}

type Reader = Pick<SettingType<unknown>, "wanted" | "parse">;

/** A value that reaches an agent as a variable: its own words for what it takes. */
function value<T extends string | number | boolean>(fallback: T, help: string, type: Reader): Definition<T> {
  return {
    fallback, help,
    check(given) {
      const parsed = type.parse(String(given), "flag");
      return parsed.ok ? null : `${type.wanted}${parsed.error === "" ? "" : `: ${parsed.error}`}`;
    },
  };
}

function shaped<T extends Leaf>(fallback: T, help: string, schema: z.ZodType, wanted: string, sections?: number): Definition<T> {
  return { fallback, help, check: (given) => (schema.safeParse(given).success ? null : wanted), ...(sections === undefined ? {} : { sections }) };
}

/** As JSON and as Kubernetes has it; empty adds nothing. */
type Json = { readonly [key: string]: unknown };
const noList: readonly unknown[] = [];

const quantities = z.record(z.string(), z.union([z.string(), z.number()]));
const resources = (requests: Json, help = "Requests and limits"): Definition<Json> =>
  shaped<Json>({ requests }, help, z.strictObject({ requests: quantities.optional(), limits: quantities.optional(), claims: z.array(z.looseObject({ name: z.string() })).optional() }), 'requests and limits, such as {"limits":{"memory":"1Gi"}}', 1);
const nodeSelector = (help: string): Definition<Json> =>
  shaped<Json>({ "kubernetes.io/os": "linux" }, help, z.record(z.string().min(1), z.string()), 'labels of nodes, each value a text, such as {"disk":"ssd"}', 0);

/** More would not be faster: one writes, all serve. */
const REPLICAS_MAX = 100;
/** As an agent counts them; beyond that it would refuse to start. */
const DRAIN_SECONDS_MAX = Math.floor(DURATION_MS_MAX / 1000);
const absolutePath = text("PATH", "an absolute path", /^\/[\x21-\x7e]*$/);

/** The mesh's own namespace is put behind a comma, so that an empty list would not be one. */
const namespaceList: Reader = { wanted: "namespaces separated by commas, one at least", parse: (given, origin): Result<unknown, string> => (given === "" ? err("") : SETTINGS.excludedNamespaces.type.parse(given, origin)) };

const probeAddresses: Reader = {
  wanted: "IP addresses separated by commas, one of each family at most",
  parse(given, origin): Result<unknown, string> {
    const parsed = SETTINGS.probeAddresses.type.parse(given, origin);
    if (!parsed.ok) return parsed;
    const ofFamily = (six: boolean) => parsed.value.filter((ip) => ip.includes(":") === six).length;
    return given !== "" && ofFamily(true) <= 1 && ofFamily(false) <= 1 ? ok(parsed.value) : err("");
  },
};

export const VALUES = {
  image: value("weft:0.1.0", "Image of every part", SETTINGS.waypointImage.type),
  imagePullPolicy: value("IfNotPresent", "When the image is pulled: IfNotPresent, Always or Never", SETTINGS.waypointPullPolicy.type),
  imagePullSecrets: shaped(noList, 'Secrets of this namespace with which the image is pulled, such as [{"name":"registry"}]', z.array(z.strictObject({ name: z.string().min(1) })), 'a list of names of Secrets, such as [{"name":"registry"}]'),
  trustDomain: value("cluster.local", "Trust domain of the mesh", SETTINGS.trustDomain.type),
  clusterId: value("Kubernetes", "Name of this cluster", SETTINGS.clusterId.type),
  network: value("", "Network of this cluster, where there are several", SETTINGS.network.type),
  clusterDomain: value("cluster.local", "DNS domain of services", SETTINGS.clusterDomain.type),
  logLevel: value("info", "Log filter of every part, such as info,access=off", SETTINGS.log.type),
  logFormat: value("text", "text or json", oneOf(["text", "json"])),
  "control.replicas": value(2, "Replicas of the control plane", integer(1, REPLICAS_MAX)),
  "control.serviceCidrs": value("", "Ranges that nothing else uses, one of each family at most, from which hosts of ServiceEntries without addresses get theirs; none: they are reached by whatever addresses their names have", SETTINGS.serviceCidrs.type),
  "control.resources": resources({ cpu: "100m", memory: "256Mi" }),
  "control.nodeSelector": nodeSelector("Where it may run"),
  "control.tolerations": shaped(noList, "Taints it tolerates", z.array(z.looseObject({})), 'a list of tolerations, such as [{"operator":"Exists"}]'),
  "ztunnel.resources": resources({ cpu: "200m", memory: "128Mi" }),
  "ztunnel.drainSeconds": value(600, "How long connections may go on in an agent that has been replaced or is ending", integer(0, DRAIN_SECONDS_MAX, "SECONDS")),
  "ztunnel.nodeSelector": nodeSelector("Nodes in the mesh; the same as cni.nodeSelector"),
  "ztunnel.workers": value("1", "Data threads: a number, a share of the processors such as 50%, or 0 for one a processor", SETTINGS.workers.type),
  "cni.resources": resources({ cpu: "20m", memory: "64Mi" }),
  "cni.nodeSelector": nodeSelector("Nodes in the mesh"),
  "cni.binDir": value("/opt/cni/bin", "Where the container runtime has its CNI plugins, on the node", absolutePath),
  "cni.confDir": value("/etc/cni/net.d", "Where the container runtime has its CNI configuration, on the node", absolutePath),
  "cni.excludeNamespaces": value("kube-system", "Namespaces that are never in the mesh and whose pods start without the agent, separated by commas; the mesh's own is added", namespaceList),
  "cni.probes": value("source", "How kubelet probes pass the mesh by: source, exempt or off", SETTINGS.probes.type),
  "cni.probeAddresses": value("169.254.7.127,fd16:9254:7127:1337:ffff:ffff:ffff:ffff", "Addresses that nobody has, from which probes reach pods", probeAddresses),
  "cni.dnsCapture": value(true, "Whether the mesh answers the DNS questions of its pods", SETTINGS.dnsCapture.type),
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
