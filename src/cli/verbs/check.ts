// `weft check`: what the mesh needs of a cluster, one line each: good, worth knowing, or in the way, with what to do. Changes nothing.

import { parseArgs } from "node:util";
import { z } from "zod";
import type { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { CNI, CONTROL, ZTUNNEL } from "../install/objects.ts";
import { NAMESPACE_DEFAULT } from "../install/values.ts";
import { CLUSTER_OPTIONS, EXIT_FAILED, EXIT_OK, fail, openCluster, type VerbContext } from "./context.ts";
import { unready } from "./install.ts";

interface Finding {
  readonly verdict: "good" | "note" | "bad";
  readonly text: string;
}

const good = (text: string): Finding => ({ verdict: "good", text });
const note = (text: string): Finding => ({ verdict: "note", text });
const bad = (text: string): Finding => ({ verdict: "bad", text });
const MARKS = { good: "ok    ", note: "note  ", bad: "BAD   " } as const;

/** Server-side apply, watches with bookmarks and the fields that are used are all there. */
const KUBERNETES_MINOR_MIN = 27;
/** nf_tables translates addresses in tables for both families (inet) from then on. */
const KERNEL_MIN = [5, 2] as const;

export async function check(args: readonly string[], context: VerbContext): Promise<number> {
  const { values: flags } = parseArgs({ args: [...args], strict: true, options: { ...CLUSTER_OPTIONS, namespace: { type: "string", short: "n", default: NAMESPACE_DEFAULT }, "before-install": { type: "boolean", default: false } } });
  const cluster = openCluster(flags, context);
  if (!cluster.ok) return fail(context, cluster.error);
  const client = cluster.value;
  const version = await apiVersion(client);
  const findings = [version];
  if (version.verdict !== "bad") {
    findings.push(...(await permissions(client, flags.namespace)), ...(await nodes(client)), ...(await definitions(client)), ...(await otherMeshes(client)), ...(await podSecurity(client, flags.namespace)));
    if (!flags["before-install"]) findings.push(...(await installation(client, flags.namespace)));
  }
  for (const { verdict, text } of findings) context.print(`${MARKS[verdict]}${text}\n`);
  const inTheWay = findings.filter(({ verdict }) => verdict === "bad").length;
  context.print(inTheWay === 0 ? "\nnothing is in the way\n" : `\n${inTheWay} in the way\n`);
  return inTheWay === 0 ? EXIT_OK : EXIT_FAILED;
}

async function apiVersion(client: KubernetesClient): Promise<Finding> {
  const answer = await client.get("/version");
  if (!answer.ok) return bad(answer.error.message);
  const { major, minor, gitVersion } = z.looseObject({ major: z.string(), minor: z.string(), gitVersion: z.string() }).parse(answer.value);
  const old = major === "1" && Number.parseInt(minor, 10) < KUBERNETES_MINOR_MIN;
  return old ? bad(`Kubernetes ${gitVersion}: 1.${KUBERNETES_MINOR_MIN} or later is needed`) : good(`Kubernetes ${gitVersion} at ${client.origin}`);
}

const NEEDED: readonly { readonly group: string; readonly resource: string; readonly namespaced: boolean }[] = [
  { group: "", resource: "namespaces", namespaced: false }, { group: "rbac.authorization.k8s.io", resource: "clusterroles", namespaced: false },
  { group: "rbac.authorization.k8s.io", resource: "clusterrolebindings", namespaced: false }, { group: "apps", resource: "daemonsets", namespaced: true }, { group: "apps", resource: "deployments", namespaced: true },
];

async function permissions(client: KubernetesClient, namespace: string): Promise<Finding[]> {
  const refused: string[] = [];
  for (const { group, resource, namespaced } of NEEDED) {
    const body = { apiVersion: "authorization.k8s.io/v1", kind: "SelfSubjectAccessReview", spec: { resourceAttributes: { group, resource, verb: "create", ...(namespaced ? { namespace } : {}) } } };
    const answer = await client.request({ method: "POST", path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body });
    if (!answer.ok) return [bad(answer.error.message)];
    if (z.looseObject({ status: z.looseObject({ allowed: z.boolean() }) }).parse(answer.value).status.allowed !== true) refused.push(resource);
  }
  return [refused.length === 0 ? good("you may install") : bad(`you may not create ${refused.join(", ")}: an administrator of the cluster installs the mesh`)];
}

const nodeSchema = z.looseObject({
  metadata: z.looseObject({ name: z.string() }),
  status: z.looseObject({ nodeInfo: z.looseObject({ operatingSystem: z.string(), architecture: z.string(), kernelVersion: z.string(), containerRuntimeVersion: z.string() }) }),
});

async function nodes(client: KubernetesClient): Promise<Finding[]> {
  const answer = await client.get("/api/v1/nodes");
  if (!answer.ok) return [bad(answer.error.message)];
  const found = z.looseObject({ items: z.array(nodeSchema) }).parse(answer.value).items;
  const findings: Finding[] = [];
  const linux = found.filter(({ status }) => status.nodeInfo.operatingSystem === "linux");
  if (linux.length < found.length) findings.push(note(`${found.length - linux.length} nodes do not run Linux: their pods cannot be in the mesh`));
  for (const { metadata: { name }, status: { nodeInfo } } of linux) {
    if (!["amd64", "arm64"].includes(nodeInfo.architecture)) findings.push(bad(`node ${name}: there is no program for ${nodeInfo.architecture}`));
    const [major = 0, minor = 0] = nodeInfo.kernelVersion.split(/[.-]/).map(Number);
    if (major < KERNEL_MIN[0] || (major === KERNEL_MIN[0] && minor < KERNEL_MIN[1])) findings.push(bad(`node ${name}: kernel ${nodeInfo.kernelVersion}, ${KERNEL_MIN.join(".")} or later is needed`));
    if (!/^(containerd|cri-o):/.test(nodeInfo.containerRuntimeVersion)) findings.push(note(`node ${name}: with ${nodeInfo.containerRuntimeVersion} as container runtime, set cni.binDir and cni.confDir to its folders`));
  }
  if (findings.every(({ verdict }) => verdict !== "bad")) findings.push(good(`${linux.length} nodes can carry the mesh`));
  return findings;
}

const GROUPS: readonly { readonly group: string; readonly for: string; readonly how: string }[] = [
  { group: "gateway.networking.k8s.io", for: "waypoints and routes", how: "install the CRDs of the Gateway API, standard channel" },
  { group: "security.istio.io", for: "AuthorizationPolicy, PeerAuthentication and RequestAuthentication", how: "install Istio's CRDs (its chart base)" },
  { group: "networking.istio.io", for: "DestinationRule, VirtualService, ServiceEntry and WorkloadEntry", how: "install Istio's CRDs (its chart base)" },
];

async function definitions(client: KubernetesClient): Promise<Finding[]> {
  const answer = await client.get("/apis");
  if (!answer.ok) return [bad(answer.error.message)];
  const groups = new Set(z.looseObject({ groups: z.array(z.looseObject({ name: z.string() })) }).parse(answer.value).groups.map(({ name }) => name));
  return GROUPS.map(({ group, for: what, how }) => (groups.has(group) ? good(`${group}: ${what}`) : note(`${group} is not there: ${what} cannot be used until it is; ${how}`)));
}

const namedSchema = z.looseObject({ items: z.array(z.looseObject({ metadata: z.looseObject({ name: z.string(), namespace: z.string(), labels: z.record(z.string(), z.string()).nullish() }) })) });

/** Two agents that redirect the same pods, or two that write the same list of plugins, undo each other's work. */
async function otherMeshes(client: KubernetesClient): Promise<Finding[]> {
  const answer = await client.get("/apis/apps/v1/daemonsets");
  if (!answer.ok) return [bad(answer.error.message)];
  const theirs = namedSchema.parse(answer.value).items.filter(({ metadata: { name, labels } }) => labels?.["app.kubernetes.io/part-of"] !== "weft" && (name === "istio-cni-node" || name === ZTUNNEL || name === "linkerd-cni"));
  return theirs.length === 0 ? [good("no other mesh captures pods here")] : theirs.map(({ metadata }) => bad(`DaemonSet ${metadata.namespace}/${metadata.name} of another mesh captures pods: remove it first, or run our ztunnel under it (docs/kubernetes.md)`));
}

async function podSecurity(client: KubernetesClient, namespace: string): Promise<Finding[]> {
  const answer = await client.get(`/api/v1/namespaces/${namespace}`);
  if (!answer.ok) return answer.error.status === 404 ? [good(`namespace ${namespace} will be made`)] : [bad(answer.error.message)];
  const level = z.looseObject({ metadata: z.looseObject({ labels: z.record(z.string(), z.string()).nullish() }) }).parse(answer.value).metadata.labels?.["pod-security.kubernetes.io/enforce"];
  return level === undefined || level === "privileged" ? [] : [note(`namespace ${namespace} enforces the pod security level ${level}; the agents need privileged, which weft install sets`)];
}

async function installation(client: KubernetesClient, namespace: string): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [kind, name] of [["deployments", CONTROL], ["daemonsets", CNI], ["daemonsets", ZTUNNEL]] as const) {
    const answer = await client.get(`/apis/apps/v1/namespaces/${namespace}/${kind}/${name}`);
    if (!answer.ok) {
      findings.push(answer.error.status === 404 ? bad(`${namespace}/${name} is not installed: weft install`) : bad(answer.error.message));
      continue;
    }
    const why = unready(answer.value);
    findings.push(why === null ? good(`${namespace}/${name} is ready`) : bad(`${namespace}/${name}: ${why}; kubectl describe pods -n ${namespace} -l app=${name} says more`));
  }
  return findings;
}
