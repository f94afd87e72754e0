// What the agent keeps of a pod: who it is, whether it wants to be in the mesh, and what the rules in its namespace depend on.

import { z } from "zod";

/** Where the kubelet looks whether a container lives. Ports by number; names are resolved. */
export interface Pod {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  readonly serviceAccount: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly hostNetwork: boolean;
  readonly addresses: readonly string[];
  /** Its containers have ended for good, or it is about to be removed and none runs any more. */
  readonly ended: boolean;
  readonly probePorts: readonly number[];
}

const portReference = z.union([z.int(), z.string()]);
const handlerSchema = z.looseObject({
  httpGet: z.looseObject({ port: portReference, host: z.string().optional() }).optional(),
  tcpSocket: z.looseObject({ port: portReference, host: z.string().optional() }).optional(),
  grpc: z.looseObject({ port: z.int() }).optional(),
});
const containerSchema = z.looseObject({
  ports: z.array(z.looseObject({ name: z.string().optional(), containerPort: z.int() })).nullish(),
  livenessProbe: handlerSchema.optional(), readinessProbe: handlerSchema.optional(), startupProbe: handlerSchema.optional(),
  lifecycle: z.looseObject({ postStart: handlerSchema.optional(), preStop: handlerSchema.optional() }).optional(),
});
const podSchema = z.looseObject({
  metadata: z.looseObject({
    uid: z.string(), namespace: z.string(), name: z.string(),
    labels: z.record(z.string(), z.string()).nullish(), annotations: z.record(z.string(), z.string()).nullish(),
  }),
  spec: z.looseObject({
    nodeName: z.string().optional(), serviceAccountName: z.string().optional(), hostNetwork: z.boolean().optional(),
    containers: z.array(containerSchema).nullish(), initContainers: z.array(containerSchema).nullish(),
  }),
  status: z.looseObject({ phase: z.string().optional(), podIPs: z.array(z.looseObject({ ip: z.string().optional() })).nullish() }).optional(),
});

/** Null for what is no pod. */
export function parsePod(object: unknown): Pod | null {
  const parsed = podSchema.safeParse(object);
  if (!parsed.success) return null;
  const { metadata, spec, status } = parsed.data;
  return {
    uid: metadata.uid,
    namespace: metadata.namespace,
    name: metadata.name,
    node: spec.nodeName ?? "",
    serviceAccount: spec.serviceAccountName || "default",
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
    hostNetwork: spec.hostNetwork === true,
    addresses: (status?.podIPs ?? []).flatMap(({ ip }) => (ip === undefined || ip === "" ? [] : [ip])),
    ended: status?.phase === "Succeeded" || status?.phase === "Failed",
    probePorts: probePorts([...(spec.containers ?? []), ...(spec.initContainers ?? [])]),
  };
}

type Container = z.infer<typeof containerSchema>;

function probePorts(containers: readonly Container[]): number[] {
  const ports = new Set<number>();
  for (const container of containers) {
    for (const handler of [container.livenessProbe, container.readinessProbe, container.startupProbe, container.lifecycle?.postStart, container.lifecycle?.preStop]) {
      if (handler === undefined) continue;
      // A handler with a host of its own does not come to this pod.
      const references = [handler.httpGet, handler.tcpSocket].flatMap((action) => (action === undefined || (action.host ?? "") !== "" ? [] : [action.port]));
      if (handler.grpc !== undefined) references.push(handler.grpc.port);
      for (const reference of references) {
        const port = typeof reference === "number" ? reference : numberOf(reference, container);
        if (port !== null && port > 0 && port < 65_536) ports.add(port);
      }
    }
  }
  return [...ports].sort((a, b) => a - b);
}

/** A port's name, or its number as text, which the API takes too. */
function numberOf(reference: string, container: Container): number | null {
  const named = container.ports?.find(({ name }) => name === reference)?.containerPort;
  return named ?? (/^\d{1,5}$/.test(reference) ? Number(reference) : null);
}

const namespaceSchema = z.looseObject({ metadata: z.looseObject({ name: z.string(), labels: z.record(z.string(), z.string()).nullish() }) });

/** Name and labels; null for what is no object with a name. */
export function parseNamespace(object: unknown): { readonly name: string; readonly labels: Readonly<Record<string, string>> } | null {
  const parsed = namespaceSchema.safeParse(object);
  return parsed.success ? { name: parsed.data.metadata.name, labels: parsed.data.metadata.labels ?? {} } : null;
}
