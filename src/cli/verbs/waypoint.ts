// `weft waypoint apply|list|delete`: a Gateway of our class, which the control plane makes a waypoint of; and the label by which a namespace
// uses it. Nothing that kubectl could not do.

import { parseArgs } from "node:util";
import { stringify } from "yaml";
import { z } from "zod";
import { USE_WAYPOINT, WAYPOINT_FOR } from "../../resources/annotations.ts";
import { HBONE_PORT, HBONE_PROTOCOL, WAYPOINT_CLASSES } from "../../resources/kinds/gateway.ts";
import { MERGE_PATCH } from "../../runtime/kubernetes/api.ts";
import type { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { applyObject, removeObject } from "../install/apply.ts";
import { describeObject, objectPath } from "../install/object-paths.ts";
import type { KubernetesObject } from "../install/objects.ts";
import { unready } from "./install.ts";
import { CLUSTER_OPTIONS, EXIT_OK, EXIT_USAGE, fail, openCluster, table, type VerbContext } from "./context.ts";

const CLASS = "weft-waypoint";
const API_VERSION = "gateway.networking.k8s.io/v1";
const FOR = ["service", "workload", "all", "none"];
const SERVING_MS = 120_000;
const SERVING_POLL_MS = 500;

export async function waypoint([verb, ...args]: readonly string[], context: VerbContext): Promise<number> {
  const { values: flags } = parseArgs({
    args, strict: true,
    options: {
      ...CLUSTER_OPTIONS, namespace: { type: "string", short: "n" }, name: { type: "string", default: "waypoint" }, for: { type: "string", default: "service" },
      "enroll-namespace": { type: "boolean", default: false }, wait: { type: "boolean", default: false }, "dry-run": { type: "boolean", default: false },
    },
  });
  if (!FOR.includes(flags.for)) return fail(context, `--for ${JSON.stringify(flags.for)} is not one of ${FOR.join(", ")}`, EXIT_USAGE);
  if (flags["dry-run"] && verb === "apply") {
    context.print(stringify(gateway(flags.name, flags.namespace ?? "default", flags.for)));
    return EXIT_OK;
  }
  const cluster = openCluster(flags, context);
  if (!cluster.ok) return fail(context, cluster.error);
  const client = cluster.value;
  if (verb === "list") return await list(client, flags.namespace ?? null, context);
  const namespace = flags.namespace ?? client.namespace;
  const object = gateway(flags.name, namespace, flags.for);
  if (verb === "delete") {
    const removed = await removeObject(client, object, 0);
    if (!removed.ok) return fail(context, removed.error);
    context.print(`${describeObject(object)} ${removed.value}\n`);
    return EXIT_OK;
  }
  const applied = await applyObject(client, object);
  if (!applied.ok) return fail(context, `${applied.error}${applied.error.includes("404") ? ": are the CRDs of the Gateway API installed?" : ""}`);
  context.print(`${describeObject(object)} ${applied.value}\n`);
  // A namespace that used a waypoint before anybody serves there would be cut off until then.
  if (flags.wait || flags["enroll-namespace"]) {
    const waiting = await untilServing(client, object);
    if (waiting !== null) return fail(context, `${describeObject(object)} does not serve after ${SERVING_MS / 1000} s: ${waiting}${flags["enroll-namespace"] ? `; namespace ${namespace} does not use it yet` : ""}`);
  }
  if (flags["enroll-namespace"]) {
    const labelled = await client.request({ method: "PATCH", path: `/api/v1/namespaces/${namespace}`, body: { metadata: { labels: { [USE_WAYPOINT]: flags.name } } }, contentType: MERGE_PATCH });
    if (!labelled.ok) return fail(context, labelled.error.message);
    context.print(`namespace ${namespace} uses it (label ${USE_WAYPOINT}: ${flags.name})\n`);
  }
  return EXIT_OK;
}

function gateway(name: string, namespace: string, waypointFor: string): KubernetesObject {
  return {
    apiVersion: API_VERSION, kind: "Gateway", metadata: { name, namespace, labels: { [WAYPOINT_FOR]: waypointFor } },
    spec: { gatewayClassName: CLASS, listeners: [{ name: "mesh", port: HBONE_PORT, protocol: HBONE_PROTOCOL }] },
  };
}

const conditionSchema = z.looseObject({ type: z.string(), status: z.string(), message: z.string().optional() });
const gatewaySchema = z.looseObject({
  metadata: z.looseObject({ name: z.string(), namespace: z.string(), labels: z.record(z.string(), z.string()).nullish() }),
  spec: z.looseObject({ gatewayClassName: z.string() }),
  status: z.looseObject({ conditions: z.array(conditionSchema).nullish() }).optional(),
});
type FoundGateway = z.infer<typeof gatewaySchema>;

const programmed = ({ status }: FoundGateway) => status?.conditions?.find(({ type }) => type === "Programmed");

async function list(client: KubernetesClient, namespace: string | null, context: VerbContext): Promise<number> {
  const answer = await client.get(`/apis/${API_VERSION}/${namespace === null ? "" : `namespaces/${namespace}/`}gateways`);
  if (!answer.ok) return fail(context, answer.error.message);
  const found = z.looseObject({ items: z.array(gatewaySchema) }).parse(answer.value).items.filter(({ spec }) => WAYPOINT_CLASSES.includes(spec.gatewayClassName));
  const rows = found.map((each) => [each.metadata.namespace, each.metadata.name, each.spec.gatewayClassName, each.metadata.labels?.[WAYPOINT_FOR] ?? "service", programmed(each)?.status ?? "Unknown"]);
  context.print(found.length === 0 ? "no waypoints\n" : table([["NAMESPACE", "NAME", "CLASS", "FOR", "PROGRAMMED"], ...rows]));
  return EXIT_OK;
}

/** @returns null once it is programmed and has an instance that is ready, else what is missing still. */
async function untilServing(client: KubernetesClient, object: KubernetesObject): Promise<string | null> {
  for (const deadline = performance.now() + SERVING_MS; ; await Bun.sleep(SERVING_POLL_MS)) {
    const waiting = await notServing(client, object);
    if (waiting === null || performance.now() >= deadline) return waiting;
  }
}

async function notServing(client: KubernetesClient, object: KubernetesObject): Promise<string | null> {
  const answer = await client.get(objectPath(object));
  if (!answer.ok) return answer.error.message;
  const condition = programmed(gatewaySchema.parse(answer.value));
  if (condition?.status !== "True") return condition?.message ?? "it has no status; does weft control run?";
  const { name, namespace } = object.metadata;
  const instances = await client.get(`/apis/apps/v1/namespaces/${namespace}/deployments/${name}`);
  if (!instances.ok) return instances.error.message;
  const why = unready(instances.value);
  return why === null ? null : `Deployment ${namespace}/${name}: ${why}`;
}
