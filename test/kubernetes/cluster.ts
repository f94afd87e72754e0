// A real cluster for the tests that need nodes: KUBECONFIG says which, WEFT_IMAGE and WEFT_TEST_IMAGE name images that its nodes have
// (the program, and test/kubernetes/app.ts). These tests are not sealed: they speak to that cluster's API and to nothing else.

import { MERGE_PATCH } from "../../src/runtime/kubernetes/api.ts";
import { kubeconfigAccess } from "../../src/runtime/kubernetes/kubeconfig.ts";
import { KubernetesClient } from "../../src/runtime/kubernetes/client.ts";
import { applyObject, removeObject } from "../../src/cli/install/apply.ts";
import type { KubernetesObject } from "../../src/cli/install/objects.ts";
import type { VerbContext } from "../../src/cli/verbs/context.ts";
import { firstReason, type SkipReason } from "../kit/skip.ts";
import { isSealed } from "../runner/sealed.ts";
import { until } from "../kit/until.ts";

const environment = (name: string): string => process.env[name] ?? "";
export const KUBECONFIG = environment("KUBECONFIG");
export const WEFT_IMAGE = environment("WEFT_IMAGE");
const APP_IMAGE = environment("WEFT_TEST_IMAGE");

/** Null where there is a cluster with our images. */
export const needsCluster: SkipReason = firstReason(
  KUBECONFIG === "" ? "needs a Kubernetes cluster: set KUBECONFIG, and run bun test on the file" : null,
  WEFT_IMAGE === "" || APP_IMAGE === "" ? "needs images on the cluster's nodes: set WEFT_IMAGE and WEFT_TEST_IMAGE" : null,
  isSealed() ? "speaks to a cluster, which a sealed box cannot: run bun test on the file" : null,
);

/** Null where pods have addresses of both families. */
export async function needsDualStack(): Promise<SkipReason> {
  if (needsCluster !== null) return needsCluster;
  const pods = await new Cluster().get<{ items: PodNow[] }>("/api/v1/pods");
  return pods!.items.some(({ status }) => (status.podIPs?.length ?? 0) > 1) ? null : "needs a cluster of both IP families: its pods have addresses of one";
}

/** Longer than the slowest thing on a busy machine. */
export const WAIT_MS = 90_000;

export class Cluster {
  readonly client: KubernetesClient;

  constructor() {
    const access = kubeconfigAccess(KUBECONFIG);
    if (!access.ok) throw new Error(access.error);
    this.client = new KubernetesClient(access.value);
  }

  /** The verb as an operator runs it. @returns what it printed; throws with what it complained of. */
  async weft(verb: (args: readonly string[], context: VerbContext) => Promise<number>, args: readonly string[]): Promise<string> {
    let [printed, complained] = ["", ""];
    const status = await verb([...args, "--kubeconfig", KUBECONFIG], {
      environment: process.env, print: (text) => void (printed += text), complain: (text) => void (complained += text),
    });
    if (status !== 0) throw new Error(`status ${status}: ${complained}\n${printed}`);
    return printed;
  }

  async apply(...objects: readonly KubernetesObject[]): Promise<void> {
    for (const object of objects) {
      const applied = await applyObject(this.client, object);
      if (!applied.ok) throw new Error(applied.error);
    }
  }

  async remove(object: KubernetesObject, waitMs = 0): Promise<void> {
    const removed = await removeObject(this.client, object, waitMs);
    if (!removed.ok) throw new Error(removed.error);
  }

  async get<T>(path: string): Promise<T | null> {
    const answer = await this.client.get(path);
    if (answer.ok) return answer.value as T;
    if (answer.error.status === 404) return null;
    throw new Error(answer.error.message);
  }

  async merge(path: string, body: unknown): Promise<void> {
    const patched = await this.client.request({ method: "PATCH", path, body, contentType: MERGE_PATCH });
    if (!patched.ok) throw new Error(patched.error.message);
  }

  async nodes(): Promise<string[]> {
    const list = await this.get<{ items: { metadata: { name: string } }[] }>("/api/v1/nodes");
    return list!.items.map(({ metadata }) => metadata.name).sort();
  }

  async pods(namespace: string, selector = ""): Promise<PodNow[]> {
    const list = await this.get<{ items: PodNow[] }>(`/api/v1/namespaces/${namespace}/pods${selector === "" ? "" : `?labelSelector=${encodeURIComponent(selector)}`}`);
    return list!.items;
  }

  /** As text: the log is none of the API's JSON. */
  async log(namespace: string, pod: string, container = "app"): Promise<string> {
    return await this.#text(`/api/v1/namespaces/${namespace}/pods/${pod}/log?container=${container}`);
  }

  /** Each line of a pod's log since then as it comes, until the log or the signal ends it. @param sinceMs of the wall clock. */
  async followLog(namespace: string, pod: string, sinceMs: number, signal: AbortSignal, line: (text: string) => void): Promise<void> {
    const response = await this.#fetch(`/api/v1/namespaces/${namespace}/pods/${pod}/log?follow=true&sinceTime=${new Date(sinceMs).toISOString()}`, signal);
    const decoder = new TextDecoder();
    let unread = "";
    for await (const chunk of response.body!) {
      const lines = (unread + decoder.decode(chunk, { stream: true })).split("\n");
      unread = lines.pop() ?? "";
      for (const each of lines) line(each);
    }
  }

  /** What a pod's port answers, by way of the API server. */
  async proxied(namespace: string, pod: string, port: number, path: string): Promise<string> {
    return await this.#text(`/api/v1/namespaces/${namespace}/pods/${pod}:${port}/proxy${path}`);
  }

  async ready(namespace: string, ...pods: readonly string[]): Promise<void> {
    for (const name of pods) {
      await until(`pod ${namespace}/${name} is ready`, WAIT_MS, async () => {
        const pod = await this.get<PodNow>(`/api/v1/namespaces/${namespace}/pods/${name}`);
        return pod?.status.conditions?.some(({ type, status }) => type === "Ready" && status === "True") === true;
      });
    }
  }

  /** How a pod that runs once ended: its log, and its exit status. */
  async finished(namespace: string, name: string): Promise<{ readonly log: string; readonly succeeded: boolean }> {
    const phase = await until(`pod ${namespace}/${name} has ended`, WAIT_MS, async () => {
      const pod = await this.get<PodNow>(`/api/v1/namespaces/${namespace}/pods/${name}`);
      return pod?.status.phase === "Succeeded" || pod?.status.phase === "Failed" ? pod.status.phase : null;
    });
    return { log: await this.log(namespace, name), succeeded: phase === "Succeeded" };
  }

  async #text(path: string): Promise<string> {
    return await (await this.#fetch(path)).text();
  }

  async #fetch(path: string, signal?: AbortSignal): Promise<Response> {
    const access = kubeconfigAccess(KUBECONFIG);
    if (!access.ok) throw new Error(access.error);
    const { server, tls, authorization } = access.value;
    const token = await authorization();
    const response = await fetch(`${server}${path}`, { tls, signal, headers: token === null ? {} : { Authorization: token } } as RequestInit);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response;
  }
}

export interface PodNow {
  readonly metadata: { readonly name: string; readonly uid: string; readonly annotations?: Readonly<Record<string, string>>; readonly deletionTimestamp?: string };
  readonly spec: { readonly nodeName?: string };
  readonly status: {
    readonly phase?: string; readonly podIP?: string; readonly podIPs?: readonly { readonly ip: string }[];
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly lastTransitionTime?: string }[];
    readonly containerStatuses?: readonly { readonly restartCount: number }[];
  };
}

export const namespaceObject = (name: string, labels: Readonly<Record<string, string>> = {}): KubernetesObject => ({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });

export interface AppPod {
  readonly name: string;
  readonly namespace: string;
  readonly node: string;
  readonly args: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly serviceAccount?: string;
  /** Port of its HTTP probes. */
  readonly probe?: number;
  readonly initArgs?: readonly string[];
  readonly hostNetwork?: boolean;
  /** Share of a processor that it is promised. */
  readonly cpu?: string;
}

/**
 * Of a pod that names none. A pod without any gets the processor last: on a node of two that starts agents it may wait for seconds, and its
 * requests fail for a reason that is not the mesh's. So many fit a node beside the mesh that all tests' pods do.
 */
const CPU_REQUEST = "50m";

/** A pod of app.ts. It runs once when it serves nothing. */
export function appPod({ name, namespace, labels = {}, ...pod }: AppPod): KubernetesObject {
  return { apiVersion: "v1", kind: "Pod", metadata: { name, namespace, labels }, spec: appPodSpec(pod) };
}

export function appPodSpec({ node, args, serviceAccount = "default", probe, initArgs, hostNetwork = false, cpu = CPU_REQUEST }: Omit<AppPod, "name" | "namespace" | "labels">): object {
  const container = (given: readonly string[]) => ({
    image: APP_IMAGE, imagePullPolicy: "Never", args: given, resources: { requests: { cpu } }, env: [{ name: "POD_NAME", valueFrom: { fieldRef: { fieldPath: "metadata.name" } } }],
  });
  // A second is too little on a busy machine: a container that answers late would be killed for it.
  const probed = { httpGet: { path: "/healthz", port: probe ?? 0 }, periodSeconds: 1, timeoutSeconds: 10, failureThreshold: 3 };
  return {
    nodeName: node, serviceAccountName: serviceAccount, terminationGracePeriodSeconds: 2, restartPolicy: probe === undefined ? "Never" : "Always", hostNetwork,
    ...(initArgs === undefined ? {} : { initContainers: [{ name: "first", ...container(initArgs) }] }),
    containers: [{ name: "app", ...container(args), ...(probe === undefined ? {} : { readinessProbe: probed, livenessProbe: probed }) }],
  };
}

/** @param port of HTTP, 80 of the service. @param grpcPort where it has one, the same of the service. */
export const serviceObject = (name: string, namespace: string, port: number, grpcPort: number | null = null): KubernetesObject => ({
  apiVersion: "v1", kind: "Service", metadata: { name, namespace, labels: {} },
  spec: { selector: { app: name }, ports: [{ name: "http", port: 80, targetPort: port }, ...(grpcPort === null ? [] : [{ name: "grpc", port: grpcPort }])] },
});
