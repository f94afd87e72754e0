// What the status of an object should be, from what its translation says and what stands there now. Entries of other controllers, and
// the moments at which nothing changed, are kept. Pure.

import { formatFieldPath } from "../../resources/diagnostic.ts";
import { REMOTE_CLASSES } from "../../resources/remote-gateway.ts";
import type { ClusterDiagnostic } from "../../resources/cluster/cluster-diagnostic.ts";
import type { WaypointBinding } from "../../resources/waypoint-status.ts";
import type { Condition, ResourceStatus } from "../../resources/l7/status.ts";
import { type Json, sameJson } from "../json.ts";

/** How the Gateway API calls us, in GatewayClasses and in statuses. */
export const CONTROLLER_NAME = "weft.dev/waypoint";
/** Condition on kinds whose status has no place for a controller's name. */
const OWN_CONDITION = "weft.dev/Accepted";
/** Istio's, on services that ask for a waypoint. */
const BOUND_CONDITION = "istio.io/WaypointBound";
/** The Gateway API's own bounds. */
const MESSAGE_CHARS_MAX = 32_000;
const ENTRIES_MAX = 32;
const ANCESTORS_MAX = 16;

/** An object with a status, as it stands in the API. */
export interface StatusSubject {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly generation: number;
  readonly spec: Json;
  readonly status: Json;
}

export interface GatewayAddress {
  readonly type: "IPAddress" | "Hostname";
  readonly value: string;
}

/** What is known about it; `null` where nothing is. */
export interface Finding {
  readonly status: ResourceStatus | null;
  readonly diagnostics: readonly ClusterDiagnostic[];
  /** Of a waypoint's Gateway: the addresses of its Service, and the name by which it is reached; none while it cannot be. */
  readonly addresses: readonly GatewayAddress[];
  /** Of a Service or ServiceEntry: whether it has the waypoint that it asks for; null when it asks for none. */
  readonly binding: WaypointBinding | null;
}

const ROUTES: readonly string[] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];
/** Of the Gateway API: a status for each target. */
const ANCESTOR_POLICIES: readonly string[] = ["BackendTLSPolicy", "XBackendTrafficPolicy"];
/** Ours and Istio's: one condition for the whole. */
const WHOLE: readonly string[] = [
  "TrafficPolicy", "LoginPolicy", "TokenIntrospection", "MeshConfig", "AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication", "VirtualService", "DestinationRule", "Telemetry", "ServiceEntry", "WorkloadEntry",
];
export const KINDS_WITH_STATUS: ReadonlySet<string> = new Set(["Gateway", "GatewayClass", "Service", ...ROUTES, ...ANCESTOR_POLICIES, ...WHOLE]);

/** The fields of the status that are ours, as they should be; null when they are so already, or the object is none of our affair. */
export function wantedStatus(subject: StatusSubject, finding: Finding, now: string): Json | null {
  const wanted = wantedFields(subject, finding, now);
  if (wanted === null) return null;
  return Object.entries(wanted).every(([field, value]) => sameJson(subject.status[field], value)) ? null : wanted;
}

function wantedFields(subject: StatusSubject, finding: Finding, now: string): Json | null {
  const { kind } = subject;
  if (ROUTES.includes(kind)) return perReference(subject, finding, now, { list: "parents", refs: "parentRefs", ref: "parentRef", own: isMeshParent, max: ENTRIES_MAX });
  if (ANCESTOR_POLICIES.includes(kind)) return perReference(subject, finding, now, { list: "ancestors", refs: "targetRefs", ref: "ancestorRef", own: () => true, max: ANCESTORS_MAX });
  if (kind === "GatewayClass") return finding.status === null ? null : { conditions: conditions(subject.status["conditions"], finding.status.conditions, subject, now) };
  if (kind === "Gateway") return isRemote(subject) ? remoteGateway(subject, finding, now) : gateway(subject, finding, now);
  if (kind === "Service") return service(subject, finding, now);
  return whole(subject, finding, now);
}

interface Entries {
  readonly list: "parents" | "ancestors";
  readonly refs: "parentRefs" | "targetRefs";
  readonly ref: "parentRef" | "ancestorRef";
  /** Whether a reference may be ours at all. */
  readonly own: (ref: Json) => boolean;
  readonly max: number;
}

/** One entry for each reference that is ours; those of other controllers as they stand. Null for an object of others alone. */
function perReference(subject: StatusSubject, finding: Finding, now: string, { list, refs, ref: field, own, max }: Entries): Json | null {
  const found = items(subject.status[list]);
  const others = found.filter((entry) => entry["controllerName"] !== CONTROLLER_NAME);
  const ours = found.filter((entry) => entry["controllerName"] === CONTROLLER_NAME);
  const made = items(subject.spec[refs]).flatMap((reference, index): Json[] => {
    if (!own(reference)) return [];
    const path = formatFieldPath(["spec", refs, index]);
    const said = finding.status?.parents.find((parent) => formatFieldPath(parent.path) === path);
    const given = said?.conditions ?? (finding.status === null && finding.diagnostics.length > 0 ? [unread(finding.diagnostics)] : null);
    if (given === null) return [];
    const before = ours.find((entry) => sameJson(entry[field], reference));
    return [{ [field]: reference, controllerName: CONTROLLER_NAME, conditions: conditions(before?.["conditions"], given, subject, now) }];
  });
  return made.length === 0 && ours.length === 0 ? null : { [list]: [...others, ...made].slice(0, max) };
}

/** References of routes to anything else are a gateway's. */
function isMeshParent(ref: Json): boolean {
  const group = typeof ref["group"] === "string" ? ref["group"] : "gateway.networking.k8s.io";
  const kind = typeof ref["kind"] === "string" ? ref["kind"] : "Gateway";
  return (kind === "Service" && (group === "" || group === "core")) || (kind === "ServiceEntry" && group === "networking.istio.io");
}

/** An object that cannot be read is not in force as it stands, for whatever it refers to. */
function unread(diagnostics: readonly ClusterDiagnostic[]): Condition {
  return { type: "Accepted", status: false, reason: "UnsupportedValue", message: sentence(diagnostics) };
}

function gateway(subject: StatusSubject, finding: Finding, now: string): Json | null {
  if (finding.status === null && finding.diagnostics.length === 0) return null;
  const { addresses } = finding;
  const accepted: readonly Condition[] = finding.status?.conditions.filter(({ type }) => type === "Accepted") ?? [{ type: "Accepted", status: false, reason: "Invalid", message: sentence(finding.diagnostics) }];
  const programmed: Condition = addresses.length > 0 && accepted[0]?.status === true
    ? { type: "Programmed", status: true, reason: "Programmed", message: "" }
    : { type: "Programmed", status: false, reason: accepted[0]?.status === true ? "AddressNotAssigned" : "Invalid", message: accepted[0]?.status === true ? "its Service has no address yet" : "it is not accepted" };
  const before = items(subject.status["listeners"]);
  const listeners = items(subject.spec["listeners"]).map((listener) => {
    const known = before.find((entry) => entry["name"] === listener["name"]);
    const isHbone = listener["protocol"] === "HBONE";
    const given: readonly Condition[] = [
      isHbone ? { type: "Accepted", status: true, reason: "Accepted", message: "" } : { type: "Accepted", status: false, reason: "UnsupportedProtocol", message: "a waypoint is reached by HBONE alone" },
      { ...programmed, ...(isHbone ? {} : { status: false, reason: "Invalid" as const, message: "it is not accepted" }) },
      { type: "ResolvedRefs", status: true, reason: "ResolvedRefs", message: "" },
    ];
    return { name: listener["name"], supportedKinds: [], attachedRoutes: 0, conditions: conditions(known?.["conditions"], given, subject, now) };
  });
  return { conditions: conditions(subject.status["conditions"], [...accepted, programmed], subject, now), listeners, addresses };
}

const isRemote = ({ spec }: StatusSubject): boolean => typeof spec["gatewayClassName"] === "string" && REMOTE_CLASSES.includes(spec["gatewayClassName"]);

/** One that leads to another network stands there by itself, at the addresses that it names: what there is to say is whether it is used. */
function remoteGateway(subject: StatusSubject, { diagnostics }: Finding, now: string): Json {
  const faults = diagnostics.filter(({ severity, code }) => severity === "error" || code === "conflict");
  const reason = faults.length === 0 ? "Accepted" : faults.some(({ code }) => code === "not_allowed") ? "NamespaceNotAllowed" : faults.some(({ severity }) => severity === "error") ? "Invalid" : "NotUsed";
  const accepted = { type: "Accepted", status: faults.length === 0, reason, message: sentence(faults) };
  const programmed = faults.length === 0 ? { type: "Programmed", status: true, reason: "Programmed", message: "" } : { type: "Programmed", status: false, reason: "Invalid", message: "it is not accepted" };
  return { conditions: conditions(subject.status["conditions"], [accepted, programmed], subject, now) };
}

/** Of Kubernetes' own kind nothing is ours but the binding, and what is left out of it, while something is; null where there is none of either, and was none. */
function service(subject: StatusSubject, { binding, diagnostics }: Finding, now: string): Json | null {
  const lacks = diagnostics.filter(({ code }) => code === "too_many_memberships");
  const wanted: WantedCondition[] = [
    ...(binding === null ? [] : [bound(binding)]),
    ...(lacks.length === 0 ? [] : [{ type: OWN_CONDITION, status: false, reason: "TooManyServices", message: sentence(lacks) }]),
  ];
  const ours = items(subject.status["conditions"]).filter(({ type }) => type === BOUND_CONDITION || type === OWN_CONDITION);
  if (wanted.length === 0 && ours.length === 0) return null;
  const others = items(subject.status["conditions"]).filter((one) => !ours.includes(one) || wanted.some(({ type }) => type === one["type"]));
  return { conditions: conditions(others, wanted, subject, now) };
}

const bound = ({ bound: holds, reason, message }: WaypointBinding): WantedCondition => ({ type: BOUND_CONDITION, status: holds, reason, message });

function whole(subject: StatusSubject, { diagnostics, binding }: Finding, now: string): Json {
  const errors = diagnostics.filter(({ severity }) => severity === "error");
  const own = { type: OWN_CONDITION, status: errors.length === 0, reason: errors.length === 0 ? "Accepted" : "Invalid", message: sentence(errors.length > 0 ? errors : diagnostics) };
  const found = items(subject.status["conditions"]).filter(({ type }) => binding !== null || type !== BOUND_CONDITION);
  return { conditions: conditions(found, binding === null ? [own] : [own, bound(binding)], subject, now) };
}

interface WantedCondition {
  readonly type: string;
  readonly status: boolean;
  readonly reason: string;
  readonly message: string;
}

/** Ours in the place of what we said before, with the moment of the last change; other types as they stand. */
function conditions(found: unknown, wanted: readonly WantedCondition[], { generation }: StatusSubject, now: string): Json[] {
  const before = items(found);
  const others = before.filter((entry) => !wanted.some(({ type }) => type === entry["type"]) && !isStale(entry, wanted));
  const made = wanted.map(({ type, status, reason, message }): Json => {
    const text = status ? "True" : "False";
    const known = before.find((entry) => entry["type"] === type);
    return {
      type, status: text, reason, message: message.slice(0, MESSAGE_CHARS_MAX),
      // A Service has no generation, and the API server keeps none of 0: it would be missed, and written, for ever.
      ...(generation === 0 ? {} : { observedGeneration: generation }),
      lastTransitionTime: known !== undefined && known["status"] === text && typeof known["lastTransitionTime"] === "string" ? known["lastTransitionTime"] : now,
    };
  });
  return [...others, ...made];
}

/** A condition that is there only while it holds. */
const isStale = (entry: Json, wanted: readonly WantedCondition[]): boolean => entry["type"] === "PartiallyInvalid" && wanted.some(({ type }) => type === "Accepted");

function sentence(diagnostics: readonly ClusterDiagnostic[]): string {
  return diagnostics.slice(0, 8).map(({ fieldPath, message }) => (fieldPath === "" ? message : `${fieldPath}: ${message}`)).join("; ");
}

function items(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter((item): item is Json => item !== null && typeof item === "object") : [];
}
