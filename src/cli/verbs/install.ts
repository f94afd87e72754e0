// `weft install`: the objects of objects.ts into the cluster, one after the other, and then waited for. Again is an upgrade.

import { parseArgs } from "node:util";
import { stringify } from "yaml";
import { z } from "zod";
import type { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { integer } from "../../runtime/setting-types.ts";
import { applyObject } from "../install/apply.ts";
import { ownDefinitions } from "../install/definitions.ts";
import { describeObject, objectPath } from "../install/object-paths.ts";
import { installObjects, type KubernetesObject, OWNED_BY } from "../install/objects.ts";
import { valuesFrom } from "../install/set-values.ts";
import { NAMESPACE_DEFAULT } from "../install/values.ts";
import { CLUSTER_OPTIONS, EXIT_OK, EXIT_USAGE, fail, openCluster, type VerbContext } from "./context.ts";

const READY_POLL_MS = 500;
const READY_SECONDS_DEFAULT = 120;
/** Beyond a day nobody waits. */
const readySeconds = integer(1, 86_400, "SECONDS");
/** As the API has it (RFC 1123). */
const NAMESPACE = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;

export async function install(args: readonly string[], context: VerbContext): Promise<number> {
  const { values: flags } = parseArgs({
    args: [...args], strict: true, allowNegative: true,
    options: {
      ...CLUSTER_OPTIONS, namespace: { type: "string", short: "n", default: NAMESPACE_DEFAULT }, set: { type: "string", multiple: true, default: [] },
      "dry-run": { type: "boolean", default: false }, wait: { type: "boolean", default: true }, timeout: { type: "string", default: String(READY_SECONDS_DEFAULT) },
    },
  });
  if (!NAMESPACE.test(flags.namespace)) return fail(context, `--namespace: ${JSON.stringify(flags.namespace)} is no name of a namespace: lower-case letters, digits and hyphens, at most 63`, EXIT_USAGE);
  const seconds = readySeconds.parse(flags.timeout, "flag");
  if (!seconds.ok) return fail(context, `--timeout: ${JSON.stringify(flags.timeout)} is not ${readySeconds.wanted}`, EXIT_USAGE);
  const values = valuesFrom(flags.namespace, flags.set);
  if (!values.ok) return fail(context, values.error, EXIT_USAGE);
  const objects = [namespaceObject(flags.namespace), ...ownDefinitions(), ...installObjects(values.value)];
  if (flags["dry-run"]) {
    context.print(objects.map((object) => stringify(object, { lineWidth: 0 })).join("---\n"));
    return EXIT_OK;
  }
  const cluster = openCluster(flags, context);
  if (!cluster.ok) return fail(context, cluster.error);
  for (const object of objects) {
    const applied = await applyObject(cluster.value, object);
    if (!applied.ok) return fail(context, `${applied.error}\nWhat was applied before it stays; mend the cause and install again`);
    context.print(`${describeObject(object)} ${applied.value}\n`);
  }
  if (!flags.wait) return EXIT_OK;
  const waiting = await untilReady(cluster.value, objects, seconds.value * 1000);
  if (waiting !== null) return fail(context, `not ready after ${seconds.value} s: ${waiting}`);
  context.print("ready. To have a namespace in the mesh: kubectl label namespace NAME istio.io/dataplane-mode=ambient\n");
  return EXIT_OK;
}

/** A namespace that is there keeps what it has; the agents in it need what a restricted one would refuse. */
export function namespaceObject(name: string): KubernetesObject {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name, labels: { ...OWNED_BY, "pod-security.kubernetes.io/enforce": "privileged" } } };
}

const workloadSchema = z.looseObject({
  metadata: z.looseObject({ generation: z.number() }),
  spec: z.looseObject({ replicas: z.number().optional() }),
  status: z.looseObject({
    observedGeneration: z.number().optional(), updatedReplicas: z.number().optional(), availableReplicas: z.number().optional(),
    desiredNumberScheduled: z.number().optional(), updatedNumberScheduled: z.number().optional(), numberAvailable: z.number().optional(),
  }),
});

/** @returns what is not ready, or null. */
async function untilReady(client: KubernetesClient, objects: readonly KubernetesObject[], limitMs: number): Promise<string | null> {
  const deadline = performance.now() + limitMs;
  for (const object of objects.filter(({ kind }) => kind === "Deployment" || kind === "DaemonSet")) {
    for (;;) {
      const answer = await client.get(objectPath(object));
      const why = answer.ok ? unready(answer.value) : answer.error.message;
      if (why === null) break;
      if (performance.now() >= deadline) return `${describeObject(object)}: ${why}; kubectl describe and its pods' logs say more`;
      await Bun.sleep(READY_POLL_MS);
    }
  }
  return null;
}

/** What keeps a Deployment or DaemonSet from being ready; null when it is. */
export function unready(object: unknown): string | null {
  const parsed = workloadSchema.safeParse(object);
  if (!parsed.success) return "it has no status yet";
  const { metadata, spec, status } = parsed.data;
  if ((status.observedGeneration ?? 0) < metadata.generation) return "it has not been looked at yet";
  const wanted = status.desiredNumberScheduled ?? spec.replicas ?? 1;
  const updated = status.updatedNumberScheduled ?? status.updatedReplicas ?? 0;
  const available = status.numberAvailable ?? status.availableReplicas ?? 0;
  return updated >= wanted && available >= wanted ? null : `${updated} of ${wanted} pods are up to date, ${available} available`;
}
