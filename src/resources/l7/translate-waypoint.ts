// Gateways of a waypoint class into waypoints of the model.

import { namespacedName } from "../../core/brand.ts";
import type { ClientCertificate, Waypoint } from "../../mesh/l7/waypoint.ts";
import { WAYPOINT_FOR } from "../annotations.ts";
import type { FieldPath } from "../diagnostic.ts";
import { secretText } from "../kinds/config-map.ts";
import { type GatewayResource, WAYPOINT_USES } from "../kinds/gateway.ts";
import { type Placed, provenanceOf, type Report } from "../resource.ts";
import { serviceHostname } from "../waypoint-binding.ts";
import { ACCEPTED, condition, RESOLVED, type ResourceStatus } from "./status.ts";
import type { View } from "./view.ts";

export interface TranslatedWaypoint {
  readonly waypoint: Waypoint;
  readonly status: ResourceStatus;
}

export function translateWaypoint(placed: Placed<GatewayResource>, view: View, report: Report): TranslatedWaypoint {
  const { kind, namespace, name, labels, resourceVersion } = placed.resource;
  const clientCertificate = clientCertificateOf(placed.resource, view, report);
  const service = namespacedName(namespace, serviceHostname(name, namespace, view.options.clusterDomain));
  return {
    waypoint: { name, namespace, service, serves: WAYPOINT_USES.find((use) => use === labels[WAYPOINT_FOR]) ?? "service", clientCertificate, provenance: provenanceOf(placed) },
    status: { kind, namespace, name, resourceVersion, parents: [], conditions: [
      ACCEPTED, condition("Programmed", true, "Programmed"),
      ...(clientCertificate === null ? [] : [clientCertificate.kind === "given" ? RESOLVED : condition("ResolvedRefs", false, "InvalidClientCertificateRef", clientCertificate.reason)]),
    ] },
  };
}

/** What cannot be had breaks what needs it: no backend is spoken to as a stranger that was to be spoken to as this Gateway. */
function clientCertificateOf({ namespace, spec }: GatewayResource, view: View, report: Report): ClientCertificate | null {
  const older = spec.tls?.backend?.clientCertificateRef == null;
  const ref = spec.tls?.backend?.clientCertificateRef ?? spec.backendTLS?.clientCertificateRef;
  if (ref === undefined || ref === null) return null;
  const at: FieldPath = older ? ["spec", "backendTLS", "clientCertificateRef"] : ["spec", "tls", "backend", "clientCertificateRef"];
  const broken = (field: readonly string[], reason: string): ClientCertificate => {
    report("error", "fail_closed", [...at, ...field], `${reason}; requests to backends with a BackendTLSPolicy get 500`);
    return { kind: "broken", reason };
  };
  const { group = "", kind = "Secret", name } = ref;
  if (kind !== "Secret" || group !== "") return broken(["kind"], `found the kind ${kind} of group ${JSON.stringify(group)}, expected a Secret of group ""`);
  if (ref.namespace !== undefined && ref.namespace !== namespace) return broken(["namespace"], `found the namespace ${ref.namespace}, expected the Gateway's own, ${namespace}`);
  const secret = view.ask((world) => world.secret(namespace, name));
  if (secret === null) return broken(["name"], `found the Secret ${namespace}/${name}, which is not there`);
  const [certificatePem, keyPem] = [secretText(secret, "tls.crt"), secretText(secret, "tls.key")];
  if (certificatePem === undefined || keyPem === undefined) return broken(["name"], `found the Secret ${namespace}/${name} without tls.crt and tls.key`);
  return { kind: "given", certificatePem, keyPem };
}
