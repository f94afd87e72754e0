// Every object of an installation, from its values. The one source: `weft install` applies these, the chart in deploy/ is written from
// them (chart.ts), and `weft uninstall` knows by them what there is to take away. Pure.
//
// Names are Istio's where Istio's tools or its other half look for them: the service account and DaemonSet ztunnel, the container
// istio-proxy, the labels app: ztunnel, the folder of the ZDS socket, the ConfigMap istio-ca-root-cert.

import { KINDS } from "../../resources/kinds.ts";
import { pluralOf } from "../../resources/plural.ts";
import { isPlaceholder, type Placeholder, type Values } from "./values.ts";

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string | Placeholder; readonly labels: Readonly<Record<string, string>>; readonly annotations?: Readonly<Record<string, string>> };
  readonly [field: string]: unknown;
}

/** On every object, so that they are found again. */
export const OWNED_BY = { "app.kubernetes.io/part-of": "weft" } as const;
export const CONTROL = "weft-control";
export const ZTUNNEL = "ztunnel";
export const CNI = "weft-cni";
/** Which agents CA and xDS serve: Istio's names for them. */
const TOKEN_AUDIENCE = "istio-ca";
const TOKEN_SECONDS = 43_200;
const XDS_PORT = 15012;
/** Istio's number for its proxies, as user and as group. */
const PROXY_ID = 1337;
/** A node without its agents is a node without its pods. */
const PRIORITY = "system-node-critical";
const TOLERATE_ALL = [{ effect: "NoSchedule", operator: "Exists" }, { key: "CriticalAddonsOnly", operator: "Exists" }, { effect: "NoExecute", operator: "Exists" }];
/** The API's own limit for time to end is none; this leaves the drain its seconds to say goodbye in. */
const GRACE_AFTER_DRAIN_SECONDS = 5;
/** For its pods to be announced as outside and led out. */
const CNI_RELEASE_SECONDS = 35;

/** In the order in which they are applied; taken away in the other. */
export function installObjects(values: Values): KubernetesObject[] {
  return [...serviceAccounts(values), ...controlRights(values), ...cniRights(values), controlService(values), controlDeployment(values), controlBudget(values), cniDaemonSet(values), ztunnelDaemonSet(values)];
}

const labels = (component: string): Record<string, string> => ({ ...OWNED_BY, app: component, "app.kubernetes.io/name": component });
const named = (values: Values, name: string, component = name) => ({ name, namespace: values.namespace, labels: labels(component) });
const clusterWide = (name: string, component = name) => ({ name, labels: labels(component) });

function serviceAccounts(values: Values): KubernetesObject[] {
  return [CONTROL, CNI, ZTUNNEL].map((name) => ({ apiVersion: "v1", kind: "ServiceAccount", metadata: named(values, name) }));
}

interface RoleRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}

const READ = ["get", "list", "watch"];

/** A role over the cluster or in our namespace, and its binding to a service account of ours. */
function granted(values: Values, { name, account, rules, cluster }: { readonly name: string; readonly account: string; readonly rules: readonly RoleRule[]; readonly cluster: boolean }): KubernetesObject[] {
  const metadata = cluster ? clusterWide(name, account) : named(values, name, account);
  const kind = cluster ? "ClusterRole" : "Role";
  return [
    { apiVersion: "rbac.authorization.k8s.io/v1", kind, metadata, rules },
    {
      apiVersion: "rbac.authorization.k8s.io/v1", kind: `${kind}Binding`, metadata,
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind, name },
      subjects: [{ kind: "ServiceAccount", name: account, namespace: values.namespace }],
    },
  ];
}

const WRITE = [...READ, "create", "patch", "delete"];

/** docs/control-plane.md has the table. */
function controlRights(values: Values): KubernetesObject[] {
  const watched = [...kindsByGroup()].map(([group, resources]) => ({ apiGroups: [group], resources, verbs: READ }));
  const statuses = watched.map(({ apiGroups, resources }) => ({ apiGroups, resources: resources.map((resource) => `${resource}/status`), verbs: ["patch"] }));
  return [
    ...granted(values, {
      name: CONTROL, account: CONTROL, cluster: true,
      rules: [
        { apiGroups: [""], resources: ["nodes", "namespaces", "pods"], verbs: READ },
        { apiGroups: ["discovery.k8s.io"], resources: ["endpointslices"], verbs: READ },
        ...watched,
        // What it says about what it read.
        ...statuses,
        // Whether a service has the waypoint that it asks for.
        { apiGroups: [""], resources: ["services/status"], verbs: ["patch"] },
        { apiGroups: ["gateway.networking.k8s.io"], resources: ["gatewayclasses"], verbs: ["create"] },
        { apiGroups: ["gateway.networking.x-k8s.io"], resources: ["xmeshes"], verbs: [...READ, "create"] },
        { apiGroups: ["gateway.networking.x-k8s.io"], resources: ["xmeshes/status"], verbs: ["patch"] },
        // Whose token it is.
        { apiGroups: ["authentication.k8s.io"], resources: ["tokenreviews"], verbs: ["create"] },
        // The trust bundle in every namespace, and what a Gateway of ours asks for.
        { apiGroups: [""], resources: ["configmaps"], verbs: [...READ, "create", "patch"] },
        { apiGroups: [""], resources: ["services", "serviceaccounts"], verbs: WRITE },
        { apiGroups: ["apps"], resources: ["deployments"], verbs: WRITE },
        { apiGroups: ["policy"], resources: ["poddisruptionbudgets"], verbs: WRITE },
        { apiGroups: ["autoscaling"], resources: ["horizontalpodautoscalers"], verbs: WRITE },
      ],
    }),
    ...granted(values, {
      name: CONTROL, account: CONTROL, cluster: false,
      rules: [
        { apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "update"] },
        { apiGroups: [""], resources: ["secrets"], verbs: ["get", "create", "update"] },
      ],
    }),
  ];
}

/** Every kind that means something to the mesh and is not the cluster's own. */
function kindsByGroup(): Map<string, string[]> {
  const groups = new Map<string, string[]>();
  for (const kind of KINDS) {
    if (kind.group === "") continue;
    const resources = groups.get(kind.group) ?? [];
    resources.push(pluralOf(kind.kind));
    groups.set(kind.group, resources);
  }
  return groups;
}

function cniRights(values: Values): KubernetesObject[] {
  return [
    ...granted(values, {
      name: CNI, account: CNI, cluster: true,
      rules: [
        { apiGroups: [""], resources: ["pods", "namespaces"], verbs: READ },
        // Annotations are among what the status subresource may change; the pod itself is not.
        { apiGroups: [""], resources: ["pods/status"], verbs: ["patch"] },
        { apiGroups: [""], resources: ["events"], verbs: ["create"] },
      ],
    }),
    ...granted(values, { name: CNI, account: CNI, cluster: false, rules: [{ apiGroups: ["apps"], resources: ["daemonsets"], resourceNames: [CNI], verbs: ["get"] }] }),
  ];
}

function controlService(values: Values): KubernetesObject {
  return {
    apiVersion: "v1", kind: "Service", metadata: named(values, CONTROL),
    spec: { selector: { app: CONTROL }, ports: [{ name: "grpc-xds", port: XDS_PORT, targetPort: XDS_PORT, protocol: "TCP" }, { name: "http-metrics", port: 15020, targetPort: 15020, protocol: "TCP" }] },
  };
}

/** Variables are texts, whatever the value is. */
const variable = (name: string, value: unknown) => ({ name, value: text`${value}` });
const fromField = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });

function meshVariables(values: Values): object[] {
  return [
    variable("TRUST_DOMAIN", values.trustDomain), variable("ISTIO_META_CLUSTER_ID", values.clusterId), variable("NETWORK", values.network), variable("CLUSTER_DOMAIN", values.clusterDomain),
    variable("RUST_LOG", values.logLevel), variable("LOG_FORMAT", values.logFormat),
  ];
}

const READ_ONLY = { allowPrivilegeEscalation: false, privileged: false, readOnlyRootFilesystem: true };
const ready = (port: number, host?: string) => ({ httpGet: { path: "/healthz/ready", port, ...(host === undefined ? {} : { host }) }, periodSeconds: 2, failureThreshold: 3 });
const metricsAnnotations = (port: number) => ({ "prometheus.io/scrape": "true", "prometheus.io/port": String(port), "prometheus.io/path": "/metrics" });

function controlDeployment(values: Values): KubernetesObject {
  return {
    apiVersion: "apps/v1", kind: "Deployment", metadata: named(values, CONTROL),
    spec: {
      replicas: values["control.replicas"],
      selector: { matchLabels: { app: CONTROL } },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: {
        // By its revision istioctl finds whom to ask.
        metadata: { labels: { ...labels(CONTROL), "istio.io/dataplane-mode": "none", "istio.io/rev": "default" }, annotations: metricsAnnotations(15020) },
        spec: {
          serviceAccountName: CONTROL,
          imagePullSecrets: values.imagePullSecrets,
          nodeSelector: values["control.nodeSelector"],
          tolerations: values["control.tolerations"],
          priorityClassName: "system-cluster-critical",
          topologySpreadConstraints: [{ maxSkew: 1, topologyKey: "kubernetes.io/hostname", whenUnsatisfiable: "ScheduleAnyway", labelSelector: { matchLabels: { app: CONTROL } } }],
          securityContext: { runAsNonRoot: true, runAsUser: PROXY_ID, runAsGroup: PROXY_ID, fsGroup: PROXY_ID, seccompProfile: { type: "RuntimeDefault" } },
          containers: [{
            name: "discovery", image: values.image, imagePullPolicy: values.imagePullPolicy, args: ["control"],
            env: [fromField("POD_NAME", "metadata.name"), fromField("POD_NAMESPACE", "metadata.namespace"), ...meshVariables(values), variable("ROOT_NAMESPACE", values.namespace), variable("SERVICE_CIDRS", values["control.serviceCidrs"]),
              variable("CA_TRUSTED_NODE_ACCOUNTS", text`${values.namespace}/${ZTUNNEL}`), variable("WEFT_STATE", "/var/lib/weft"),
              variable("WAYPOINT_IMAGE", values.image), variable("WAYPOINT_PULL_POLICY", values.imagePullPolicy)],
            ports: [{ name: "grpc-xds", containerPort: XDS_PORT }, { name: "http-metrics", containerPort: 15020 }],
            readinessProbe: ready(15021),
            securityContext: { ...READ_ONLY, capabilities: { drop: ["ALL"] } },
            resources: values["control.resources"],
            volumeMounts: [{ name: "state", mountPath: "/var/lib/weft" }],
          }],
          volumes: [{ name: "state", emptyDir: { medium: "Memory", sizeLimit: "16Mi" } }],
        },
      },
    },
  };
}

function controlBudget(values: Values): KubernetesObject {
  return { apiVersion: "policy/v1", kind: "PodDisruptionBudget", metadata: named(values, CONTROL), spec: { maxUnavailable: 1, selector: { matchLabels: { app: CONTROL } } } };
}

function cniDaemonSet(values: Values): KubernetesObject {
  return {
    apiVersion: "apps/v1", kind: "DaemonSet", metadata: named(values, CNI),
    spec: {
      selector: { matchLabels: { app: CNI } },
      // One at a time on a node: the socket and the plugin's list have one owner. Pods that start meanwhile wait in the plugin.
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1 } },
      template: {
        metadata: { labels: { ...labels(CNI), "istio.io/dataplane-mode": "none" }, annotations: metricsAnnotations(15014) },
        spec: {
          serviceAccountName: CNI,
          // With a network of its own it would wait for its own plugin; the processes of the node lead to the namespaces of its pods.
          hostNetwork: true, hostPID: true, dnsPolicy: "ClusterFirstWithHostNet",
          imagePullSecrets: values.imagePullSecrets, nodeSelector: values["cni.nodeSelector"], tolerations: TOLERATE_ALL, priorityClassName: PRIORITY,
          // When the mesh goes, it ends with the last connection of the pods that it has led out.
          terminationGracePeriodSeconds: plus(values["ztunnel.drainSeconds"], CNI_RELEASE_SECONDS + GRACE_AFTER_DRAIN_SECONDS),
          securityContext: { seccompProfile: { type: "RuntimeDefault" } },
          containers: [{
            name: "cni", image: values.image, imagePullPolicy: values.imagePullPolicy, args: ["cni"],
            env: [
              fromField("NODE_NAME", "spec.nodeName"), variable("RUST_LOG", values.logLevel), variable("LOG_FORMAT", values.logFormat),
              variable("CNI_BIN_DIR", "/host/opt/cni/bin"), variable("CNI_CONF_DIR", "/host/etc/cni/net.d"), variable("CNI_SOCKET", "/run/weft/cni.sock"),
              variable("EXCLUDE_NAMESPACES", text`${values["cni.excludeNamespaces"]},${values.namespace}`), variable("DAEMONSET", text`${values.namespace}/${CNI}`),
              variable("PROBES", values["cni.probes"]), variable("HOST_PROBE_ADDRESSES", values["cni.probeAddresses"]), variable("DNS_CAPTURE", values["cni.dnsCapture"]),
              variable("CONNECTION_TERMINATION_DEADLINE", text`${values["ztunnel.drainSeconds"]}s`),
              // In the node's own network these must not be in anybody's way.
              variable("ADMIN_ADDRESS", "127.0.0.1:15013"), variable("METRICS_ADDRESS", "[::]:15014"), variable("READINESS_ADDRESS", "127.0.0.1:15017"),
            ],
            readinessProbe: ready(15017, "127.0.0.1"),
            // Enter namespaces and write rules there (SYS_ADMIN, NET_ADMIN), find those of other users' processes (SYS_PTRACE).
            securityContext: { ...READ_ONLY, runAsUser: 0, runAsGroup: 0, runAsNonRoot: false, capabilities: { drop: ["ALL"], add: ["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "DAC_OVERRIDE"] } },
            resources: values["cni.resources"],
            volumeMounts: [
              { name: "cni-bin", mountPath: "/host/opt/cni/bin" }, { name: "cni-conf", mountPath: "/host/etc/cni/net.d" },
              { name: "run", mountPath: "/run/weft" }, { name: "ztunnel", mountPath: "/var/run/ztunnel" },
            ],
          }],
          volumes: [
            { name: "cni-bin", hostPath: { path: values["cni.binDir"] } }, { name: "cni-conf", hostPath: { path: values["cni.confDir"] } },
            { name: "run", hostPath: { path: "/run/weft", type: "DirectoryOrCreate" } }, { name: "ztunnel", hostPath: { path: "/var/run/ztunnel", type: "DirectoryOrCreate" } },
          ],
        },
      },
    },
  };
}

function ztunnelDaemonSet(values: Values): KubernetesObject {
  const control = text`${CONTROL}.${values.namespace}.svc:${XDS_PORT}`;
  const drain = values["ztunnel.drainSeconds"];
  return {
    apiVersion: "apps/v1", kind: "DaemonSet", metadata: named(values, ZTUNNEL),
    spec: {
      selector: { matchLabels: { app: ZTUNNEL } },
      // The new one serves before the old one is told to end, and the old one's connections go on.
      updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
      template: {
        metadata: { labels: { ...labels(ZTUNNEL), "istio.io/dataplane-mode": "none", "sidecar.istio.io/inject": "false" }, annotations: metricsAnnotations(15020) },
        spec: {
          serviceAccountName: ZTUNNEL,
          imagePullSecrets: values.imagePullSecrets, nodeSelector: values["ztunnel.nodeSelector"], tolerations: TOLERATE_ALL, priorityClassName: PRIORITY,
          terminationGracePeriodSeconds: plus(drain, GRACE_AFTER_DRAIN_SECONDS),
          securityContext: { seccompProfile: { type: "RuntimeDefault" } },
          containers: [{
            name: "istio-proxy", image: values.image, imagePullPolicy: values.imagePullPolicy, args: ["ztunnel"],
            env: [
              variable("XDS_ADDRESS", control), variable("CA_ADDRESS", control), variable("XDS_ROOT_CA", "/var/run/secrets/istio/root-cert.pem"), variable("CA_ROOT_CA", "/var/run/secrets/istio/root-cert.pem"),
              variable("AUTH_TOKEN", "/var/run/secrets/tokens/istio-token"), variable("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock"), variable("ROOT_NAMESPACE", values.namespace),
              fromField("POD_NAME", "metadata.name"), fromField("POD_NAMESPACE", "metadata.namespace"), fromField("NODE_NAME", "spec.nodeName"), fromField("INSTANCE_IP", "status.podIP"),
              fromField("SERVICE_ACCOUNT", "spec.serviceAccountName"), ...meshVariables(values), variable("ZTUNNEL_WORKER_THREADS", values["ztunnel.workers"]),
              variable("CONNECTION_TERMINATION_DEADLINE", text`${drain}s`), variable("WEFT_STATE", "/var/lib/weft"),
            ],
            ports: [{ name: "ztunnel-stats", containerPort: 15020 }],
            readinessProbe: ready(15021),
            securityContext: { ...READ_ONLY, runAsUser: 0, runAsGroup: PROXY_ID, runAsNonRoot: false, capabilities: { drop: ["ALL"], add: ["NET_ADMIN", "SYS_ADMIN", "NET_RAW"] } },
            resources: values["ztunnel.resources"],
            volumeMounts: [
              { name: "istiod-ca-cert", mountPath: "/var/run/secrets/istio", readOnly: true }, { name: "istio-token", mountPath: "/var/run/secrets/tokens", readOnly: true },
              { name: "ztunnel", mountPath: "/var/run/ztunnel" }, { name: "state", mountPath: "/var/lib/weft" },
            ],
          }],
          volumes: [
            { name: "istiod-ca-cert", configMap: { name: "istio-ca-root-cert" } },
            { name: "istio-token", projected: { sources: [{ serviceAccountToken: { path: "istio-token", audience: TOKEN_AUDIENCE, expirationSeconds: TOKEN_SECONDS } }] } },
            { name: "ztunnel", hostPath: { path: "/var/run/ztunnel", type: "DirectoryOrCreate" } },
            { name: "state", emptyDir: { medium: "Memory", sizeLimit: "64Mi" } },
          ],
        },
      },
    },
  };
}

/** A text around values, some of which may be placeholders: then it is one itself. */
function text(parts: TemplateStringsArray, ...inserted: readonly unknown[]): string | Placeholder {
  const whole = parts.map((part, i) => part + (i < inserted.length ? String(inserted[i]) : "")).join("");
  return inserted.some(isPlaceholder) ? { placeholder: `printf ${JSON.stringify(parts.map((part, i) => part.replaceAll("%", "%%") + (i < inserted.length ? "%v" : "")).join(""))} ${inserted.map((value) => (isPlaceholder(value) ? `(${value.placeholder})` : JSON.stringify(String(value)))).join(" ")}` } : whole;
}

function plus(value: number | Placeholder, more: number): number | Placeholder {
  return isPlaceholder(value) ? { placeholder: `add (${value.placeholder}) ${more}` } : value + more;
}
