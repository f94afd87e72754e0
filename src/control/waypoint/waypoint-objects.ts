// What a Gateway of a waypoint class becomes in the cluster: ServiceAccount, Deployment, Service, PodDisruptionBudget, and where asked
// for a HorizontalPodAutoscaler. Names and labels are those that Istio's tools look for. Pure.

import { GATEWAY_NAME, NATIVE_TUNNEL, WAYPOINT_FOR } from "../../resources/annotations.ts";
import { HBONE_PORT } from "../../resources/kinds/gateway.ts";
import { apiVersionOf, type ResourceType } from "../../runtime/kubernetes/api-path.ts";
import { isJson, type Json } from "../json.ts";
import { overlay } from "./overlay.ts";

export const MANAGED_LABEL = "gateway.istio.io/managed";
export const MANAGED_BY = "weft.dev-waypoint";
const CLASS_LABEL = "gateway.networking.k8s.io/gateway-class-name";
const READINESS_PORT = 15021;
const METRICS_PORT = 15020;
/** No user of the machine has it; the binary needs nothing of anybody. */
const USER = 65_532;

export const MANAGED_TYPES = {
  serviceAccount: { group: "", version: "v1", plural: "serviceaccounts", kind: "ServiceAccount", namespaced: true },
  service: { group: "", version: "v1", plural: "services", kind: "Service", namespaced: true },
  deployment: { group: "apps", version: "v1", plural: "deployments", kind: "Deployment", namespaced: true },
  podDisruptionBudget: { group: "policy", version: "v1", plural: "poddisruptionbudgets", kind: "PodDisruptionBudget", namespaced: true },
  horizontalPodAutoscaler: { group: "autoscaling", version: "v2", plural: "horizontalpodautoscalers", kind: "HorizontalPodAutoscaler", namespaced: true },
} as const satisfies Readonly<Record<string, ResourceType>>;
export type ManagedKey = keyof typeof MANAGED_TYPES;
export const MANAGED_KEYS: readonly ManagedKey[] = ["serviceAccount", "service", "deployment", "podDisruptionBudget", "horizontalPodAutoscaler"];

export interface WaypointGateway {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly className: string;
  readonly labels: Readonly<Record<string, string>>;
  /** `spec.infrastructure`. */
  readonly infrastructure: { readonly labels: Readonly<Record<string, string>>; readonly annotations: Readonly<Record<string, string>>; readonly parameters: string | null };
}

export interface WaypointEnvironment {
  readonly image: string;
  readonly imagePullPolicy: string;
  /** `HOST:PORT` of the control plane. */
  readonly controlAddress: string;
  readonly audience: string;
  readonly trustDomain: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly network: string;
  readonly rootNamespace: string;
}

export interface ManagedObject {
  readonly key: ManagedKey;
  readonly object: Json;
}

/** @param parameters by the key of what each is laid over, as `parametersRef` gives them; null for none. */
export function waypointObjects(gateway: WaypointGateway, environment: WaypointEnvironment, parameters: Readonly<Partial<Record<ManagedKey, Json>>> | null): ManagedObject[] {
  const { namespace, name, uid, className, infrastructure } = gateway;
  const selector = { [GATEWAY_NAME]: name };
  const labels = { ...infrastructure.labels, ...selector, [CLASS_LABEL]: className, [MANAGED_LABEL]: MANAGED_BY };
  const head = (key: ManagedKey, more: Readonly<Record<string, string>> = {}): Json => ({
    apiVersion: apiVersionOf(MANAGED_TYPES[key]), kind: MANAGED_TYPES[key].kind,
    metadata: {
      name, namespace, labels: { ...labels, ...more }, annotations: { ...infrastructure.annotations },
      ownerReferences: [{ apiVersion: "gateway.networking.k8s.io/v1", kind: "Gateway", name, uid, controller: true, blockOwnerDeletion: false }],
    },
  });
  const use = gateway.labels[WAYPOINT_FOR];
  const made: Partial<Record<ManagedKey, Json>> = {
    serviceAccount: head("serviceAccount"),
    service: {
      ...head("service", use === undefined ? {} : { [WAYPOINT_FOR]: use }),
      spec: { type: "ClusterIP", ipFamilyPolicy: "PreferDualStack", selector, ports: [{ name: "mesh", port: HBONE_PORT, protocol: "TCP", appProtocol: "hbone" }, { name: "status-port", port: READINESS_PORT, protocol: "TCP", appProtocol: "tcp" }] },
    },
    deployment: { ...head("deployment"), spec: deployment(gateway, environment, labels, selector, parameters?.horizontalPodAutoscaler === undefined) },
    // One at a time: never in the way of a node that is emptied, even with a single instance.
    podDisruptionBudget: { ...head("podDisruptionBudget"), spec: { maxUnavailable: 1, selector: { matchLabels: selector } } },
  };
  // An autoscaler without bounds of somebody's choice would be a guess.
  if (parameters?.horizontalPodAutoscaler !== undefined) {
    made.horizontalPodAutoscaler = { ...head("horizontalPodAutoscaler"), spec: { scaleTargetRef: { apiVersion: "apps/v1", kind: "Deployment", name }, minReplicas: 1, maxReplicas: 5 } };
  }
  return MANAGED_KEYS.flatMap((key): ManagedObject[] => {
    const base = made[key];
    if (base === undefined) return [];
    const over = parameters?.[key];
    const laid = over === undefined ? base : protect(base, overlay(base, over));
    const object = key === "deployment" && over !== undefined ? confine(laid, name) : laid;
    return [{ key, object }];
  });
}

/** Whatever is laid over: it stays the object of this Gateway, selected by its name. */
function protect(base: Json, laid: unknown): Json {
  if (!isJson(laid)) return base;
  const [from, to] = [base["metadata"], laid["metadata"]];
  if (!isJson(from)) return laid;
  const labels = { ...(isJson(to) && isJson(to["labels"]) ? to["labels"] : {}), ...(isJson(from["labels"]) ? from["labels"] : {}) };
  return { ...laid, apiVersion: base["apiVersion"], kind: base["kind"], metadata: { ...(isJson(to) ? to : {}), name: from["name"], namespace: from["namespace"], ownerReferences: from["ownerReferences"], labels } };
}

/**
 * Who may write a Gateway need not be allowed to run pods: the overlay chooses no other service account, nothing of the node, and no
 * privileges.
 */
function confine(object: Json, serviceAccountName: string): Json {
  const at = (value: unknown, field: string): Json => (isJson(value) && isJson(value[field]) ? value[field] : {});
  const spec = at(object, "spec");
  const template = at(spec, "template");
  const pod = at(template, "spec");
  const { hostNetwork: _, hostPID: __, hostIPC: ___, serviceAccount: ____, ...rest } = pod;
  const unprivileged = (containers: unknown): unknown => (Array.isArray(containers)
    ? containers.map((one: unknown) => (isJson(one) ? { ...one, securityContext: { ...at(one, "securityContext"), privileged: false, allowPrivilegeEscalation: false } } : one)) : containers);
  const volumes = Array.isArray(rest["volumes"]) ? rest["volumes"].filter((volume: unknown) => !(isJson(volume) && "hostPath" in volume)) : rest["volumes"];
  const confined = {
    ...rest, serviceAccountName, volumes, containers: unprivileged(rest["containers"]), ...(rest["initContainers"] === undefined ? {} : { initContainers: unprivileged(rest["initContainers"]) }),
  };
  return { ...object, spec: { ...spec, template: { ...template, spec: confined } } };
}

function deployment({ namespace, name, infrastructure }: WaypointGateway, environment: WaypointEnvironment, labels: Readonly<Record<string, string>>, selector: Json, fixedReplicas: boolean): Json {
  const field = (path: string): Json => ({ fieldRef: { fieldPath: path } });
  const variables: Readonly<Record<string, string | Json>> = {
    XDS_ADDRESS: environment.controlAddress, CA_ADDRESS: environment.controlAddress, XDS_ROOT_CA: "/var/run/secrets/istio/root-cert.pem", CA_ROOT_CA: "/var/run/secrets/istio/root-cert.pem", AUTH_TOKEN: "/var/run/secrets/tokens/istio-token",
    WAYPOINT_GATEWAY: `${namespace}/${name}`, TRUST_DOMAIN: environment.trustDomain, CLUSTER_ID: environment.clusterId, CLUSTER_DOMAIN: environment.clusterDomain, NETWORK: environment.network, ROOT_NAMESPACE: environment.rootNamespace,
    WEFT_STATE: "/var/lib/weft", NODE_NAME: field("spec.nodeName"), POD_NAME: field("metadata.name"), POD_NAMESPACE: field("metadata.namespace"), INSTANCE_IP: field("status.podIP"), SERVICE_ACCOUNT: field("spec.serviceAccountName"),
    TERMINATION_GRACE_PERIOD_SECONDS: "30",
  };
  return {
    ...(fixedReplicas ? { replicas: 1 } : {}),
    selector: { matchLabels: selector },
    strategy: { type: "RollingUpdate", rollingUpdate: { maxSurge: "25%", maxUnavailable: 0 } },
    template: {
      metadata: {
        labels: { ...labels, [NATIVE_TUNNEL]: "http", "istio.io/dataplane-mode": "none", "sidecar.istio.io/inject": "false", "service.istio.io/canonical-name": name },
        annotations: { ...infrastructure.annotations, "prometheus.io/scrape": "true", "prometheus.io/port": String(METRICS_PORT), "prometheus.io/path": "/metrics" },
      },
      spec: {
        serviceAccountName: name, automountServiceAccountToken: false, terminationGracePeriodSeconds: 30, enableServiceLinks: false,
        securityContext: { runAsNonRoot: true, runAsUser: USER, runAsGroup: USER, fsGroup: USER, seccompProfile: { type: "RuntimeDefault" } },
        containers: [{
          name: "istio-proxy", image: environment.image, imagePullPolicy: environment.imagePullPolicy, args: ["waypoint"],
          env: Object.entries(variables).map(([variable, value]) => (typeof value === "string" ? { name: variable, value } : { name: variable, valueFrom: value })),
          ports: [{ name: "hbone", containerPort: HBONE_PORT, protocol: "TCP" }, { name: "metrics", containerPort: METRICS_PORT, protocol: "TCP" }, { name: "status-port", containerPort: READINESS_PORT, protocol: "TCP" }],
          readinessProbe: { httpGet: { path: "/healthz/ready", port: READINESS_PORT }, periodSeconds: 2, failureThreshold: 3 },
          startupProbe: { httpGet: { path: "/healthz/ready", port: READINESS_PORT }, periodSeconds: 1, failureThreshold: 60 },
          resources: { requests: { cpu: "100m", memory: "128Mi" }, limits: { memory: "1Gi" } },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] }, readOnlyRootFilesystem: true, privileged: false },
          volumeMounts: [{ name: "istio-token", mountPath: "/var/run/secrets/tokens", readOnly: true }, { name: "istiod-ca-cert", mountPath: "/var/run/secrets/istio", readOnly: true }, { name: "state", mountPath: "/var/lib/weft" }, { name: "tmp", mountPath: "/tmp" }],
        }],
        volumes: [
          { name: "istio-token", projected: { sources: [{ serviceAccountToken: { audience: environment.audience, expirationSeconds: 43_200, path: "istio-token" } }] } },
          { name: "istiod-ca-cert", configMap: { name: "istio-ca-root-cert" } },
          { name: "state", emptyDir: { medium: "Memory", sizeLimit: "64Mi" } },
          { name: "tmp", emptyDir: { sizeLimit: "64Mi" } },
        ],
      },
    },
  };
}
