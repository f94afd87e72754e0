// Objects of a cluster in few words.

import type { Api } from "../../src/runtime/kubernetes/api.ts";
import type { KubeObject } from "./api-server.ts";

type Labels = Readonly<Record<string, string>>;

export const namespace = (name: string, labels: Labels = {}): KubeObject => ({ apiVersion: "v1", kind: "Namespace", metadata: { name, labels } });
export const node = (name: string, labels: Labels = {}): KubeObject => ({ apiVersion: "v1", kind: "Node", metadata: { name, labels } });

export const service = (name: string, at: string, spec: Readonly<Record<string, unknown>>, labels: Labels = {}): KubeObject => ({ apiVersion: "v1", kind: "Service", metadata: { name, namespace: at, labels }, spec });

export interface PodWords {
  readonly labels: Labels;
  readonly annotations?: Labels;
  readonly node: string;
  readonly ip: string;
  readonly serviceAccount?: string;
  readonly ready?: boolean;
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
}

/** One that runs and is ready, unless it says otherwise. */
export function pod(name: string, at: string, { labels, annotations = {}, node: nodeName, ip, serviceAccount = "default", ready = true, ports = [] }: PodWords): KubeObject {
  return {
    apiVersion: "v1", kind: "Pod", metadata: { name, namespace: at, labels, annotations },
    spec: { nodeName, serviceAccountName: serviceAccount, containers: [{ name: "app", image: "localhost/none", ports: ports.map((port) => ({ protocol: "TCP", ...port })) }] },
    status: { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
  };
}

export const serviceAccount = (name: string, at: string): KubeObject => ({ apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace: at } });

/** As the kubelet asks for it for a projected volume. */
export async function tokenFor(client: Api, account: string, at: string, { audience, pod: boundTo }: { readonly audience: string; readonly pod?: string }): Promise<string> {
  let bound: Record<string, unknown> = {};
  if (boundTo !== undefined) {
    const found = await client.request({ method: "GET", path: `/api/v1/namespaces/${at}/pods/${boundTo}` });
    if (!found.ok) throw new Error(found.error.message);
    bound = { boundObjectRef: { apiVersion: "v1", kind: "Pod", name: boundTo, uid: (found.value as { metadata: { uid: string } }).metadata.uid } };
  }
  const answer = await client.request({
    method: "POST", path: `/api/v1/namespaces/${at}/serviceaccounts/${account}/token`,
    body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: { audiences: [audience], expirationSeconds: 3600, ...bound } },
  });
  if (!answer.ok) throw new Error(answer.error.message);
  return (answer.value as { status: { token: string } }).status.token;
}
