// core/v1 Pod: a workload of a cluster. Of an object of many KiB some twenty fields are kept, and what pods of one owner have alike is
// kept once: a control plane holds every pod of the cluster.

import { z } from "zod";
import { type IpAddress, parseIp } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { BYPASS_INBOUND_CAPTURE, INBOUND_BINDING, REDIRECTION, WAYPOINT_CANARY_WEIGHT } from "../annotations.ts";
import { dnsLabel, dnsSubdomain, type Labels } from "../object-meta.ts";
import { Sharing } from "../sharing.ts";

/** Annotations that mean something to the mesh; the others are not kept. */
const ANNOTATIONS_KEPT: readonly string[] = [REDIRECTION, INBOUND_BINDING, BYPASS_INBOUND_CAPTURE, WAYPOINT_CANARY_WEIGHT];
const HASH_LABEL = "pod-template-hash";
/** A CronJob names its jobs after itself and the minute. */
const CRON_JOB_RUN = /^(.+)-\d{8,10}$/;
const TERMINAL: readonly string[] = ["Succeeded", "Failed"];

const text = z.string().nullish();
const container = z.object({
  restartPolicy: text,
  ports: z.array(z.object({ name: text, containerPort: z.number().int(), protocol: text })).nullish(),
});
const schema = z.object({
  metadata: z.object({
    name: dnsSubdomain, namespace: dnsLabel, uid: z.string(), labels: z.record(z.string(), z.string()).nullish(), annotations: z.record(z.string(), z.string()).nullish(),
    deletionTimestamp: text, ownerReferences: z.array(z.object({ kind: z.string(), name: z.string(), controller: z.boolean().nullish() })).nullish(),
  }),
  spec: z.object({ nodeName: text, serviceAccountName: text, hostNetwork: z.boolean().nullish(), containers: z.array(container).nullish(), initContainers: z.array(container).nullish() }).nullish(),
  status: z.object({ phase: text, podIP: text, podIPs: z.array(z.object({ ip: z.string() })).nullish(), conditions: z.array(z.object({ type: z.string(), status: z.string() })).nullish() }).nullish(),
});

export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** "" until it is scheduled. */
  readonly node: string;
  readonly serviceAccount: string;
  readonly hostNetwork: boolean;
  readonly addresses: readonly IpAddress[];
  readonly ready: boolean;
  /** It has ended, or is being deleted. */
  readonly phase: "living" | "leaving" | "ended";
  /** Name of what made it (a Deployment, a CronJob), which is what people call the workload; its own without one. */
  readonly owner: string;
  /** Of its containers' TCP ports those with a name. */
  readonly ports: Readonly<Record<string, number>>;
}

/** Pods of a Deployment differ in name and address; the rest is the same thousand times. */
const shared = new Sharing();

/** Reads an object of the API; the error says which field is not as it must be. */
export function readPod(value: unknown): Result<Pod, string> {
  const read = schema.safeParse(value);
  if (!read.success) return err(z.prettifyError(read.error));
  const { metadata, spec, status } = read.data;
  const labels = metadata.labels ?? {};
  return ok({
    namespace: shared.text(metadata.namespace),
    name: metadata.name,
    uid: metadata.uid,
    labels: shared.record(labels),
    annotations: shared.record(Object.fromEntries(Object.entries(metadata.annotations ?? {}).filter(([key]) => ANNOTATIONS_KEPT.includes(key)))),
    node: shared.text(spec?.nodeName ?? ""),
    serviceAccount: shared.text(spec?.serviceAccountName || "default"),
    hostNetwork: spec?.hostNetwork ?? false,
    addresses: addressesOf(status ?? {}),
    ready: status?.conditions?.some(({ type, status: holds }) => type === "Ready" && holds === "True") ?? false,
    phase: TERMINAL.includes(status?.phase ?? "") ? "ended" : typeof metadata.deletionTimestamp === "string" ? "leaving" : "living",
    owner: ownerOf(metadata.name, metadata.ownerReferences?.find(({ controller }) => controller === true), labels),
    ports: shared.record(namedPorts([...(spec?.containers ?? []), ...(spec?.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === "Always")])),
  });
}

function addressesOf(status: { readonly podIP?: string | null | undefined; readonly podIPs?: readonly { readonly ip: string }[] | null | undefined }): readonly IpAddress[] {
  const listed = status.podIPs ?? [];
  const texts = listed.length > 0 ? listed.map(({ ip }) => ip) : [status.podIP ?? ""];
  return texts.flatMap((address) => parseIp(address) ?? []);
}

function ownerOf(pod: string, controller: { readonly kind: string; readonly name: string } | undefined, labels: Labels): string {
  if (controller === undefined) return pod;
  const { kind, name } = controller;
  const suffix = `-${labels[HASH_LABEL] ?? ""}`;
  if (kind === "ReplicaSet" && suffix.length > 1 && name.endsWith(suffix)) return shared.text(name.slice(0, -suffix.length));
  return shared.text(kind === "Job" ? (CRON_JOB_RUN.exec(name)?.[1] ?? name) : name);
}

function namedPorts(containers: readonly z.output<typeof container>[]): Record<string, number> {
  const ports: Record<string, number> = {};
  for (const { ports: listed } of containers) {
    for (const { name, containerPort, protocol } of listed ?? []) {
      if (typeof name === "string" && name !== "" && (protocol ?? "TCP") === "TCP" && !Object.hasOwn(ports, name)) ports[name] = containerPort;
    }
  }
  return ports;
}
