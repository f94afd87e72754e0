// `weft uninstall`: takes an installation away without cutting anybody off. The CNI agents go first, and are waited for: each leads the pods
// of its node out of the mesh, waits for what is open to end, which the ztunnels still carry, and takes plugin and rules away. Then everything
// else.

import { parseArgs } from "node:util";
import { z } from "zod";
import type { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { FIELD_MANAGER, removeObject } from "../install/apply.ts";
import { ownDefinitions } from "../install/definitions.ts";
import { describeObject, objectPath } from "../install/object-paths.ts";
import { CNI, CONTROL, installObjects, type KubernetesObject } from "../install/objects.ts";
import { defaultValues, NAMESPACE_DEFAULT } from "../install/values.ts";
import { CLUSTER_OPTIONS, EXIT_FAILED, EXIT_OK, fail, openCluster, type VerbContext } from "./context.ts";

type Removable = Pick<KubernetesObject, "apiVersion" | "kind" | "metadata">;

/** For pods to end, beyond the time that each of them is given. */
const GONE_MS = 120_000;

export async function uninstall(args: readonly string[], context: VerbContext): Promise<number> {
  const { values: flags } = parseArgs({
    args: [...args], strict: true,
    options: { ...CLUSTER_OPTIONS, namespace: { type: "string", short: "n", default: NAMESPACE_DEFAULT }, "keep-ca": { type: "boolean", default: false }, "keep-crds": { type: "boolean", default: false }, "dry-run": { type: "boolean", default: false } },
  });
  const { namespace } = flags;
  const objects = [...(flags["keep-crds"] ? [] : ownDefinitions()), ...installObjects(defaultValues(namespace))].reverse();
  const agents = objects.filter(({ kind, metadata }) => kind === "DaemonSet" && metadata.name === CNI);
  const rest = objects.filter((object) => !agents.includes(object));
  const cluster = openCluster(flags, context);
  if (!cluster.ok) return fail(context, cluster.error);
  const client = cluster.value;
  if (flags["dry-run"]) {
    const { objects: made, unseen } = await left(client, namespace, flags["keep-ca"]);
    const status = await tell(client, [...agents, ...rest, ...made], context);
    return unseen === null ? status : fail(context, unseen);
  }
  const troubles: string[] = [];
  const remove = async (object: Removable, waitMs: number): Promise<void> => {
    const removed = await removeObject(client, object, waitMs);
    if (!removed.ok) troubles.push(removed.error);
    else if (removed.value === "removed") context.print(`${describeObject(object)} removed\n`);
  };
  for (const object of agents) {
    const graceSeconds = await graceOf(client, object);
    if (graceSeconds > 0) context.print(`${describeObject(object)}: pods leave the mesh, and what is open through it may go on for up to ${graceSeconds} s\n`);
    await remove(object, graceSeconds * 1000 + GONE_MS);
  }
  if (troubles.length > 0) return fail(context, `${troubles.join("\n")}\nThe rest stays: without the ztunnels, pods that are still in the mesh would be cut off. Try again`);
  for (const object of rest) await remove(object, object.kind === "Deployment" ? GONE_MS : 0);
  const { objects: made, unseen } = await left(client, namespace, flags["keep-ca"]);
  for (const object of made) await remove(object, 0);
  if (unseen !== null) troubles.push(unseen);
  for (const trouble of troubles) context.complain(`weft: ${trouble}\n`);
  if (troubles.length > 0) return EXIT_FAILED;
  context.print(`the mesh is gone${flags["keep-ca"] ? "; the CA's keys are kept" : ""}. Namespace ${namespace} and the labels of others are left as they are\n`);
  return EXIT_OK;
}

const agentsSchema = z.looseObject({ spec: z.looseObject({ template: z.looseObject({ spec: z.looseObject({ terminationGracePeriodSeconds: z.number() }) }) }) });

/** Seconds that its pods are given to end, as they were installed; 0 where there are none. */
async function graceOf(client: KubernetesClient, object: Removable): Promise<number> {
  const found = await client.get(objectPath(object));
  return found.ok ? (agentsSchema.safeParse(found.value).data?.spec.template.spec.terminationGracePeriodSeconds ?? 0) : 0;
}

/** What a removal would find, looked up one by one; nothing is changed. */
async function tell(client: KubernetesClient, objects: readonly Removable[], context: VerbContext): Promise<number> {
  let there = 0;
  for (const object of objects) {
    const found = await client.get(objectPath(object));
    if (!found.ok && found.error.status !== 404) return fail(context, `cannot look for ${describeObject(object)}: ${found.error.message}`);
    if (!found.ok) continue;
    there += 1;
    context.print(`${describeObject(object)} would be removed\n`);
  }
  context.print(`looked at ${client.origin} for ${objects.length} objects: ${there} are there and would be removed${there < objects.length ? `, ${objects.length - there} are not there` : ""}\n`);
  return EXIT_OK;
}

const listSchema = z.looseObject({ items: z.array(z.looseObject({ metadata: z.looseObject({ name: z.string(), namespace: z.string(), managedFields: z.array(z.looseObject({ manager: z.string().optional() })).nullish() }) })) });

/**
 * What the control plane made by itself: its Lease, its keys, and the trust bundle in every namespace; those of another mesh are left.
 * `unseen`: why the trust bundles are not among it, and stay; null when they are.
 */
async function left(client: KubernetesClient, namespace: string, keepCa: boolean): Promise<{ readonly objects: Removable[]; readonly unseen: string | null }> {
  const object = (apiVersion: string, kind: string, name: string, where: string) => ({ apiVersion, kind, metadata: { name, namespace: where, labels: {} } });
  const bundles = await client.get(`/api/v1/configmaps?fieldSelector=metadata.name%3Distio-ca-root-cert`);
  const own = [object("coordination.k8s.io/v1", "Lease", CONTROL, namespace), ...(keepCa ? [] : [object("v1", "Secret", "weft-ca", namespace)])];
  const stay = (why: string) => ({ objects: own, unseen: `the ConfigMaps istio-ca-root-cert of the namespaces cannot be listed and stay: ${why}` });
  if (!bundles.ok) return stay(bundles.error.message);
  const parsed = listSchema.safeParse(bundles.value);
  if (!parsed.success) return stay(z.prettifyError(parsed.error));
  const ours = parsed.data.items.filter(({ metadata }) => (metadata.managedFields ?? []).some(({ manager }) => manager === FIELD_MANAGER));
  return { objects: [...own, ...ours.map(({ metadata }) => object("v1", "ConfigMap", metadata.name, metadata.namespace))], unseen: null };
}
