// Objects of a cluster in few words.

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
