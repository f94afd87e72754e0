// Whether a service has the waypoint that its labels ask for, in the terms of Istio's condition `istio.io/WaypointBound`.

import { WAYPOINT_FOR } from "./annotations.ts";
import type { GatewayName, WaypointAdmission } from "./waypoint-admission.ts";
import type { WaypointName } from "./waypoint-binding.ts";

export type BindingReason = "WaypointAccepted" | "AttachmentDenied" | "WaypointIsNotReady" | "UnsupportedTrafficType";

export interface WaypointBinding {
  readonly bound: boolean;
  readonly reason: BindingReason;
  readonly message: string;
}

export const describeGateway = ({ namespace, name }: GatewayName): string => `${namespace}/${name}`;

/** How to let the others in, for whoever owns the waypoint. */
export const howToAllow = (waypoint: GatewayName, from: string): string =>
  `Gateway ${describeGateway(waypoint)} takes no objects of namespace ${from}: its owner lets them in with allowedRoutes.namespaces of the listener for HBONE (from: All, or a Selector)`;

/** @param takes whether the waypoint is for services; one that the object itself names always is. */
export function bindingOf(bound: WaypointName, from: string, takes: boolean, admission: WaypointAdmission): WaypointBinding {
  const name = describeGateway(bound);
  if (!admission.has(bound)) return { bound: false, reason: "WaypointIsNotReady", message: `waypoint ${name} is not there: nothing is sent until it is` };
  if (!bound.allowed) return { bound: false, reason: "AttachmentDenied", message: `${howToAllow(bound, from)}. Until then nothing is sent to it` };
  if (!takes) return { bound: false, reason: "UnsupportedTrafficType", message: `waypoint ${name} is not for services (its label ${WAYPOINT_FOR}): it is passed by` };
  if (bound.refusedCanary !== null) return { bound: false, reason: "AttachmentDenied", message: `${howToAllow(bound.refusedCanary, from)}. All goes through ${name}` };
  return { bound: true, reason: "WaypointAccepted", message: `Successfully attached to waypoint ${name}` };
}
