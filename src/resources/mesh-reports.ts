// What is to be told of a mesh that is right by the letter: what selects nothing, and what two claim.

import { namespacedName, type WorkloadUid } from "../core/brand.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { Workload } from "../mesh/records.ts";
import { NETNS } from "./annotations.ts";
import { policySelector } from "./kinds/authorization-policy.ts";
import { peerSelector } from "./kinds/peer-authentication.ts";
import { entryLabels, type WorkloadEntryResource } from "./kinds/workload-entry.ts";
import type { MeshContext } from "./namespace-context.ts";
import type { NamespaceResources } from "./namespace-resources.ts";
import { type Placed, type ReportFor, sourceOf, type TranslationOptions } from "./resource.ts";
import { SelectorIndex } from "./selector.ts";
import { serviceHostname } from "./waypoint-binding.ts";

export function reportUnselected(namespace: NamespaceResources, selected: ReadonlySet<string>, mesh: MeshContext, options: TranslationOptions, reportFor: ReportFor): void {
  for (const placed of namespace.services) {
    const { name, namespace: at, spec } = placed.resource;
    if (Object.keys(spec.selector ?? {}).length === 0) {
      reportFor(placed)("warning", "selects_nothing", ["spec"], "has no selector, so it has no endpoints; endpoints are the WorkloadEntries that a selector finds");
    } else if (!selected.has(namespacedName(at, serviceHostname(name, at, options.clusterDomain)))) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${at}: the service has no endpoints`);
    }
  }
  for (const placed of namespace.policies) {
    const { name, namespace: at, spec } = placed.resource;
    if (policySelector(placed.resource) === null || spec?.action === "AUDIT" || mesh.rootPolicies.includes(placed)) continue;
    if (!selected.has(namespacedName(at, name))) reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${at}: nothing is protected by it`);
  }
  for (const placed of namespace.peers) {
    const selector = peerSelector(placed.resource);
    if (selector === null) continue;
    const index = new SelectorIndex<true>();
    index.add(selector, true);
    if (!namespace.entries.some(({ resource }) => index.selecting(entryLabels(resource)).length > 0)) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], `selects no WorkloadEntry of namespace ${placed.resource.namespace}`);
    }
  }
}

export function reportRootUnselected(mesh: MeshContext, workloads: ReadonlyMap<WorkloadUid, Workload>, reportFor: ReportFor): void {
  if (mesh.rootPolicies.length === 0) return;
  const selected = new Set<string>();
  for (const workload of workloads.values()) for (const policy of workload.authorizationPolicies) selected.add(policy);
  for (const placed of mesh.rootPolicies) {
    const { namespace, name, spec } = placed.resource;
    if (spec?.action !== "AUDIT" && !selected.has(namespacedName(namespace, name))) {
      reportFor(placed)("warning", "selects_nothing", ["spec", "selector"], "selects no WorkloadEntry of any namespace: nothing is protected by it");
    }
  }
}

/**
 * In order of uid. Traffic of a namespace that two entries claim could be told to neither: the first has it, the other is reported
 * and not captured; as its record still asks for a tunnel, nobody reaches it in plain text.
 */
export function oneForEachNamespace(local: readonly { readonly workload: LocalWorkload; readonly placed: Placed<WorkloadEntryResource> }[], reportFor: ReportFor): LocalWorkload[] {
  const owners = new Map<string, Placed<WorkloadEntryResource>>();
  const kept: LocalWorkload[] = [];
  for (const { workload, placed } of [...local].sort((a, b) => (a.workload.uid < b.workload.uid ? -1 : 1))) {
    const key = workload.networkNamespace.kind === "host" ? "host" : workload.networkNamespace.path;
    const owner = owners.get(key);
    if (owner === undefined) {
      owners.set(key, placed);
      kept.push(workload);
    } else {
      reportFor(placed)("error", "conflict", ["metadata", "annotations", NETNS],
        `found the network namespace ${key}, which WorkloadEntry ${owner.resource.namespace}/${owner.resource.name} (${sourceOf(owner)}) has too; one workload each, this one is not captured`);
    }
  }
  return kept;
}
