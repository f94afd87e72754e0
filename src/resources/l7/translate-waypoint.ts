// Gateways of a waypoint class into waypoints of the model.

import { namespacedName } from "../../core/brand.ts";
import type { ClientCertificate, Waypoint } from "../../mesh/l7/waypoint.ts";
import { WAYPOINT_FOR } from "../annotations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { secretText } from "../kinds/config-map.ts";
import { type GatewayResource, WAYPOINT_USES } from "../kinds/gateway.ts";
import { type Placed, provenanceOf, type Report } from "../resource.ts";
import { GATEWAY_GROUP } from "../route-parts.ts";
import { serviceHostname } from "../waypoint-binding.ts";
import { ACCEPTED, type Condition, condition, RESOLVED, type ResourceStatus } from "./status.ts";
import type { View } from "./view.ts";

export interface TranslatedWaypoint {
  readonly waypoint: Waypoint;
  readonly status: ResourceStatus;
}

export function translateWaypoint(placed: Placed<GatewayResource>, view: View, report: Report): TranslatedWaypoint {
  const { kind, namespace, name, labels, resourceVersion } = placed.resource;
  const { certificate: clientCertificate, conditions } = clientCertificateOf(placed.resource, view, report);
  const service = namespacedName(namespace, serviceHostname(name, namespace, view.options.clusterDomain));
  return {
    waypoint: { name, namespace, service, serves: WAYPOINT_USES.find((use) => use === labels[WAYPOINT_FOR]) ?? "service", clientCertificate, provenance: provenanceOf(placed) },
    status: { kind, namespace, name, resourceVersion, parents: [], conditions: [ACCEPTED, condition("Programmed", true, "Programmed"), ...conditions] },
  };
}

interface ReadCertificate {
  readonly certificate: ClientCertificate | null;
  /** What the Gateway's status says of it. */
  readonly conditions: readonly Condition[];
}

/** What cannot be had breaks what needs it: no backend is spoken to as a stranger that was to be spoken to as this Gateway. */
function clientCertificateOf({ namespace, spec }: GatewayResource, view: View, report: Report): ReadCertificate {
  const older = spec.tls?.backend?.clientCertificateRef == null;
  const ref = spec.tls?.backend?.clientCertificateRef ?? spec.backendTLS?.clientCertificateRef;
  if (ref === undefined || ref === null) return { certificate: null, conditions: [] };
  const at: FieldPath = older ? ["spec", "backendTLS", "clientCertificateRef"] : ["spec", "tls", "backend", "clientCertificateRef"];
  const broken = (field: readonly string[], reason: string, refused: Condition["reason"] = "InvalidClientCertificateRef"): ReadCertificate => {
    report("error", "fail_closed", [...at, ...field], `${reason}; requests to backends with a BackendTLSPolicy get 500`);
    return { certificate: { kind: "broken", reason }, conditions: [condition("ResolvedRefs", false, refused, reason)] };
  };
  const { group = "", kind = "Secret", name } = ref;
  if (kind !== "Secret" || group !== "") return broken(["kind"], `found the kind ${kind} of group ${JSON.stringify(group)}, expected a Secret of group ""`);
  const place = ref.namespace ?? namespace;
  // Whether it is there at all is nothing to tell those who may not name it.
  if (place !== namespace && !view.ask((world) => world.grants({ group: GATEWAY_GROUP, kind: "Gateway", namespace }, { group: "", kind: "Secret", namespace: place, name }))) {
    return broken(["namespace"], `found the Secret ${place}/${name} of another namespace, and no ReferenceGrant there that lets Gateways of ${namespace} name it`, "RefNotPermitted");
  }
  const secret = view.ask((world) => world.secret(place, name));
  if (secret === null) return broken(["name"], `found the Secret ${place}/${name}, which is not there`);
  const [certificatePem, keyPem] = [secretText(secret, "tls.crt"), secretText(secret, "tls.key")];
  if (certificatePem === undefined || keyPem === undefined) return broken(["name"], `found the Secret ${place}/${name} without tls.crt and tls.key`);
  return { certificate: { kind: "given", certificatePem, keyPem }, conditions: [RESOLVED] };
}
