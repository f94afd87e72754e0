// Parents and backends that routes refer to.

import type { FieldPath } from "../diagnostic.ts";
import type { BackendTarget, RouteParent } from "../../mesh/l7/route.ts";
import type { BackendObject, ParentRef } from "../route-parts.ts";
import { GATEWAY_GROUP } from "../route-parts.ts";
import type { Report } from "../resource.ts";
import { ACCEPTED, type Condition, condition, type ConditionReason } from "./status.ts";
import type { View } from "./view.ts";
import type { Host } from "./world.ts";

const ISTIO_GROUP = "networking.istio.io";
const isCore = (group: string): boolean => group === "" || group === "core";

export interface AttachedParent {
  readonly path: FieldPath;
  /** Empty when it was not accepted. */
  readonly parents: readonly RouteParent[];
  readonly accepted: Condition;
}

/** What a route is about. */
export type Carries = "requests" | "connections";

/** Parents that are ours to answer for; a Gateway of another controller is not among them. */
export function attachParents(refs: readonly ParentRef[], { namespace, carries }: { readonly namespace: string; readonly carries: Carries }, view: View, report: Report): AttachedParent[] {
  const attached: AttachedParent[] = [];
  refs.forEach((ref, index) => {
    const path = ["spec", "parentRefs", index];
    const refuse = (reason: ConditionReason, message: string): void => {
      report("error", "not_attached", path, `${message}; nothing is routed by it there`);
      attached.push({ path, parents: [], accepted: condition("Accepted", false, reason, message) });
    };
    const { group = GATEWAY_GROUP, kind = "Gateway", name } = ref;
    const at = ref.namespace ?? namespace;
    if (kind === "Gateway" && group === GATEWAY_GROUP) {
      if (view.ask((world) => world.waypointGateway(at, name)) === null) report("info", "not_supported", path, `found the Gateway ${at}/${name}, which is no waypoint: not ours to route for`);
      else refuse("NotAllowedByListeners", `found the waypoint ${at}/${name} as parent; routes are attached to the services behind it`);
      return;
    }
    const isService = kind === "Service" && isCore(group);
    if (!isService && !(kind === "ServiceEntry" && group === ISTIO_GROUP)) {
      refuse("NoMatchingParent", `found the kind ${kind} of group ${JSON.stringify(group)}, expected a Service (with group: "") or a ServiceEntry (with group: ${ISTIO_GROUP})`);
      return;
    }
    const service = isService ? view.ask((world) => world.service(at, name)) : null;
    const hosts = isService ? (service === null ? [] : [service]) : (view.ask((world) => world.entry(at, name)) ?? []);
    if (hosts.length === 0) return refuse("NoMatchingParent", `found the ${kind} ${at}/${name}, which is not there`);
    if (hosts[0]!.headless) return refuse("UnsupportedValue", `found the headless Service ${at}/${name}; its clients connect to its endpoints and by-pass every route`);
    const port = ref.sectionName === undefined ? ref.port : hosts[0]!.ports.find((one) => one.name === ref.sectionName)?.number;
    const known = hosts[0]!.ports.map((one) => (one.name === "" ? String(one.number) : `${one.name} (${one.number})`)).join(", ");
    if (ref.sectionName !== undefined && port === undefined) return refuse("NoMatchingParent", `found the port name ${JSON.stringify(ref.sectionName)}, expected one of ${known}`);
    if (port !== undefined && (!hosts[0]!.ports.some((one) => one.number === port) || (ref.port !== undefined && ref.port !== port))) {
      return refuse("NoMatchingParent", `found the port ${ref.port ?? port}${ref.sectionName === undefined ? "" : ` named ${ref.sectionName}`}, expected one of ${known}`);
    }
    const covered = hosts[0]!.ports.filter((one) => port === undefined || one.number === port);
    const other = covered.length > 0 && covered.every(({ protocol }) => protocol !== null && (protocol === "http") === (carries === "connections"));
    if (other && carries === "connections") return refuse("UnsupportedValue", `found ports that are declared as HTTP: what comes there is read as requests, for which HTTPRoute and GRPCRoute are`);
    if (other) report("warning", "not_attached", path, "found ports that are declared as TCP or TLS: nobody reads requests there, and it has no effect");
    reportUnbound(hosts[0]!, path, "routes", report);
    // A route beside its clients holds for them alone; one beside the service for everybody.
    const clientNamespace = at === namespace ? null : namespace;
    attached.push({ path, parents: hosts.map((host) => ({ service: host.service, port: port ?? null, clientNamespace })), accepted: ACCEPTED });
  });
  return attached;
}

/** What is said of a service that no waypoint reads for has no effect, or little, which its writer must know. */
export function reportUnbound(host: Host, path: FieldPath, what: "routes" | "traffic", report: Report): void {
  if (host.isRead) return;
  const how = "label the service or its namespace with istio.io/use-waypoint";
  if (what === "routes") report("warning", "missing_waypoint", path, `${host.hostname} is bound to no waypoint: nothing is routed there; ${how}`);
  else report("info", "missing_waypoint", path, `${host.hostname} is bound to no waypoint: this holds only for requests that a route of another service sends there; ${how}`);
}

export interface ResolvedBackend {
  readonly target: BackendTarget;
  /** Null when it was found. */
  readonly fault: Condition | null;
}

/** What is not found is told and becomes a target that answers 500. Whether it may be named: guarded-backends.ts. */
export function resolveBackend(ref: BackendObject, namespace: string, at: FieldPath, view: View, report: Report): ResolvedBackend {
  const invalid = (reason: ConditionReason, message: string): ResolvedBackend => {
    report("error", "unresolved_reference", at, `${message}; its share of the requests gets 500`);
    return { target: { kind: "invalid", reason: message }, fault: condition("ResolvedRefs", false, reason, message) };
  };
  const { group = "", kind = "Service", name, port } = ref;
  const where = ref.namespace ?? namespace;
  let host: Host | null;
  if (kind === "Service" && isCore(group)) host = view.ask((world) => world.service(where, name));
  else if (kind === "Hostname" && group === ISTIO_GROUP) host = view.ask((world) => world.host(name, namespace, where));
  else return invalid("InvalidKind", `found a backend of kind ${kind}, group ${JSON.stringify(group)}, expected a Service, or a Hostname of ${ISTIO_GROUP}`);
  if (host === null) return invalid("BackendNotFound", `found the backend ${kind === "Service" ? `${where}/${name}` : name}, which no Service or ServiceEntry is`);
  if (port === undefined) return invalid("UnsupportedProtocol", `found no port, which a reference to ${host.hostname} needs`);
  if (!host.ports.some((one) => one.number === port)) return invalid("BackendNotFound", `found the port ${port}, which ${host.hostname} does not have; it has ${host.ports.map((one) => one.number).join(", ") || "none"}`);
  return { target: { kind: "service", service: host.service, port, subset: null }, fault: null };
}
