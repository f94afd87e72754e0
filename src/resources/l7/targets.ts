// What the targetRefs of a policy name, as hosts and as targets of the model.

import { type NamespacedName, namespacedName } from "../../core/brand.ts";
import type { AccessTarget } from "../../mesh/l7/access.ts";
import type { FieldPath } from "../diagnostic.ts";
import { WAYPOINT_CLASSES } from "../kinds/gateway.ts";
import { type Attachment, type TargetRef, targetKind, targetPath, targetsOf } from "../targets.ts";
import type { Report, ResourceOf } from "../resource.ts";
import type { View } from "./view.ts";
import type { Host } from "./world.ts";

/** @param consequence what it means that a target is not there, for the message. */
export function accessTargets(resource: ResourceOf<string, Attachment | null | undefined>, consequence: string, view: View, report: Report): AccessTarget[] {
  const found: AccessTarget[] = [];
  targetsOf(resource.spec).forEach((ref, index) => {
    const at = targetPath(resource.spec, index);
    if (!inOwnNamespace(ref, resource.namespace, at, report)) return;
    switch (targetKind(ref)) {
      case "Service":
      case "ServiceEntry": {
        const hosts = targetHosts(ref, resource.namespace, view);
        if (hosts.length === 0) report("error", "unresolved_reference", [...at, "name"], `found the ${ref.kind} ${resource.namespace}/${ref.name}, which is not there; ${consequence}`);
        const without = hosts.find((host) => !host.isRead);
        if (without !== undefined) report("warning", "missing_waypoint", [...at, "name"], `${without.hostname} is bound to no waypoint: nothing reads its requests, so that ${consequence}; label it with istio.io/use-waypoint`);
        found.push(...hosts.map((host): AccessTarget => ({ kind: "service", service: host.service })));
        return;
      }
      case "Gateway": {
        const gateway = view.ask((world) => world.waypointGateway(resource.namespace, ref.name));
        if (gateway === null) report("error", "unresolved_reference", [...at, "name"], `found the Gateway ${resource.namespace}/${ref.name}, which is no waypoint; ${consequence}`);
        // Kept all the same: it holds as soon as the waypoint is there.
        found.push({ kind: "waypoint", gateway: namespacedName(resource.namespace, ref.name) });
        return;
      }
      case "GatewayClass": {
        if (resource.namespace !== view.options.rootNamespace || !WAYPOINT_CLASSES.includes(ref.name)) {
          report("error", "unresolved_reference", at, `found the GatewayClass ${ref.name}, expected ${WAYPOINT_CLASSES.join(" or ")}, in a resource of ${view.options.rootNamespace}; ${consequence}`);
          return;
        }
        const names = view.ask((world) => world.waypointsOfClass(ref.name));
        for (const name of names === "" ? [] : names.split(" ")) found.push({ kind: "waypoint", gateway: splitName(name) });
        return;
      }
      case null:
        report("error", "unresolved_reference", at, `found the kind ${ref.kind} of group ${JSON.stringify(ref.group ?? "")}, expected Service (group ""), ServiceEntry (networking.istio.io), Gateway or GatewayClass (gateway.networking.k8s.io); ${consequence}`);
    }
  });
  return found;
}

/** Services that a reference of kind Service or ServiceEntry names. */
export function targetHosts(ref: Pick<TargetRef, "group" | "kind" | "name">, namespace: string, view: View): readonly Host[] {
  switch (targetKind(ref)) {
    case "Service": {
      const host = view.ask((world) => world.service(namespace, ref.name));
      return host === null ? [] : [host];
    }
    case "ServiceEntry":
      return view.ask((world) => world.entry(namespace, ref.name)) ?? [];
    case "Gateway":
    case "GatewayClass":
    case null:
      return [];
  }
}

function inOwnNamespace(ref: TargetRef, namespace: string, at: FieldPath, report: Report): boolean {
  if (ref.namespace === undefined || ref.namespace === "" || ref.namespace === namespace) return true;
  report("error", "unresolved_reference", [...at, "namespace"], `found ${JSON.stringify(ref.namespace)}, expected a target of its own namespace, ${namespace}`);
  return false;
}

function splitName(text: string): NamespacedName {
  const slash = text.indexOf("/");
  return namespacedName(text.slice(0, slash), text.slice(slash + 1));
}
