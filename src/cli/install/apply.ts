// Objects into the cluster and out of it: server-side apply, so that a second time changes nothing and what others have set stays theirs;
// removal in the other order, each waited for where the next depends on its being gone.

import { z } from "zod";
import { err, ok, type Result } from "../../core/result.ts";
import { APPLY_PATCH } from "../../runtime/kubernetes/api.ts";
import type { KubernetesClient } from "../../runtime/kubernetes/client.ts";
import { describeObject, objectPath } from "./object-paths.ts";
import type { KubernetesObject } from "./objects.ts";

/** The name under which the API notes what is ours. */
export const FIELD_MANAGER = "weft";

export type Applied = "created" | "changed" | "unchanged";

const versionSchema = z.looseObject({ metadata: z.looseObject({ resourceVersion: z.string(), creationTimestamp: z.string().optional() }) });

export async function applyObject(client: KubernetesClient, object: KubernetesObject): Promise<Result<Applied, string>> {
  const path = objectPath(object);
  const before = await client.get(path);
  if (!before.ok && before.error.status !== 404) return err(before.error.message);
  const applied = await client.request({ method: "PATCH", path, query: { fieldManager: FIELD_MANAGER, force: "true" }, body: object, contentType: APPLY_PATCH });
  if (!applied.ok) return err(`${describeObject(object)} cannot be applied: ${applied.error.message}`);
  if (!before.ok) return ok("created");
  const [was, is] = [before.value, applied.value].map((each) => versionSchema.safeParse(each).data?.metadata.resourceVersion);
  return ok(was === is ? "unchanged" : "changed");
}

const GONE_POLL_MS = 250;

/** Removes it and what belongs to it. @param waitMs until it is gone, with its pods; 0 does not wait. */
export async function removeObject(client: KubernetesClient, object: Pick<KubernetesObject, "apiVersion" | "kind" | "metadata">, waitMs: number): Promise<Result<"removed" | "absent", string>> {
  const path = objectPath(object);
  const removed = await client.request({ method: "DELETE", path, body: { apiVersion: "v1", kind: "DeleteOptions", propagationPolicy: waitMs > 0 ? "Foreground" : "Background" } });
  if (!removed.ok) return removed.error.status === 404 ? ok("absent") : err(`${describeObject(object)} cannot be removed: ${removed.error.message}`);
  for (const deadline = performance.now() + waitMs; waitMs > 0; await Bun.sleep(GONE_POLL_MS)) {
    const there = await client.get(path);
    if (!there.ok && there.error.status === 404) break;
    if (!there.ok && there.error.status !== 0) return err(there.error.message);
    if (performance.now() >= deadline) return err(`${describeObject(object)} is not gone after ${Math.round(waitMs / 1000)} s`);
  }
  return ok("removed");
}
