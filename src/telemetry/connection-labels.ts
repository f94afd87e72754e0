// The 27 labels of Istio's TCP metrics, from what the data path knows of a connection. Absent values read "unknown", as Istio has it.

import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";

export type ReporterRole = "source" | "destination" | "waypoint";
/** Of a connection, or of a request on it. */
export type RequestProtocol = "tcp" | "http" | "grpc";

/** Istio's response_flags, in the order in which counters keep them: the index is `FLAG_INDEX`. */
export const RESPONSE_FLAGS = [
  "-", "DENY", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE", "NETWORK_POLICY", "IDENTITY_ERROR", "CERT_REVOKED",
] as const;
export type ResponseFlags = (typeof RESPONSE_FLAGS)[number];
export const FLAG_INDEX = Object.fromEntries(RESPONSE_FLAGS.map((flag, i) => [flag, i])) as Readonly<Record<ResponseFlags, number>>;

/** All label names but response_flags, which differs between the opening and the end of one connection. Values are kept in this order. */
export const CONNECTION_LABEL_NAMES = [
  "reporter",
  "source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
  "source_principal", "source_app", "source_version", "source_cluster",
  "destination_service", "destination_service_namespace", "destination_service_name",
  "destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
  "destination_principal", "destination_app", "destination_version", "destination_cluster",
  "request_protocol", "connection_security_policy",
  "source_region", "source_zone", "destination_region", "destination_zone",
] as const;

/** What is known of one end when its workload is not: from the peer's baggage. */
export interface PeerDescription {
  readonly workloadName: string;
  readonly namespace: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly clusterId: string;
  readonly region: string;
  readonly zone: string;
}

export interface ConnectionLabels {
  readonly reporter: ReporterRole;
  readonly source: Workload | null;
  readonly destination: Workload | null;
  readonly service: Service | null;
  /** Proved by a certificate; null on plain TCP. */
  readonly sourceIdentity: SpiffeId | null;
  readonly destinationIdentity: SpiffeId | null;
  readonly mutualTls: boolean;
  /** Stands in for a source that the store does not know. */
  readonly sourceDescription?: PeerDescription | null;
}

/** Ends a value inside a key; cannot occur in a value, see `clean`. */
export const KEY_SEPARATOR = "\x1f";
/** Longer values are cut: a label is a name, not a document. */
export const LABEL_CHARS_MAX = 512;

/** The values in the order of CONNECTION_LABEL_NAMES, joined: equal keys are equal label sets. */
export function connectionKey(labels: ConnectionLabels): string {
  return labelValues(labels, "tcp").join(KEY_SEPARATOR);
}

/** In the order of CONNECTION_LABEL_NAMES. */
export function labelValues(labels: ConnectionLabels, protocol: RequestProtocol): string[] {
  const { service } = labels;
  return [
    labels.reporter,
    ...endOf(labels.source, labels.sourceIdentity, labels.sourceDescription ?? null),
    value(service?.hostname), value(service?.namespace), value(service?.name),
    ...endOf(labels.destination, labels.destinationIdentity, null),
    protocol, labels.mutualTls ? "mutual_tls" : "unknown",
    ...localityOf(labels.source, labels.sourceDescription ?? null), ...localityOf(labels.destination, null),
  ];
}

/** The key of the series that takes what no longer fits. */
export function overflowKey(reporter: ReporterRole): string {
  return [reporter, ...CONNECTION_LABEL_NAMES.slice(1).map(() => "overflow")].join(KEY_SEPARATOR);
}

function endOf(workload: Workload | null, identity: SpiffeId | null, peer: PeerDescription | null): string[] {
  if (workload === null) {
    return [
      value(peer?.workloadName), value(peer?.canonicalName), value(peer?.canonicalRevision), value(peer?.namespace),
      value(identity), value(peer?.canonicalName), value(peer?.canonicalRevision), value(peer?.clusterId),
    ];
  }
  return [
    value(workload.workloadName), value(workload.canonicalName), value(workload.canonicalRevision), value(workload.namespace),
    value(identity), value(workload.app || workload.canonicalName), value(workload.version || workload.canonicalRevision), value(workload.clusterId),
  ];
}

function localityOf(workload: Workload | null, peer: PeerDescription | null): string[] {
  return workload === null ? [value(peer?.region), value(peer?.zone)] : [value(workload.locality.region), value(workload.locality.zone)];
}

function value(text: string | null | undefined): string {
  return text === null || text === undefined || text === "" ? "unknown" : clean(text);
}

/** Control characters become `?`, so that no value can forge a key or break a line; overlong values are cut. */
export function clean(text: string): string {
  const short = text.length > LABEL_CHARS_MAX ? text.slice(0, LABEL_CHARS_MAX) : text;
  return /[\x00-\x1f\x7f]/.test(short) ? short.replace(/[\x00-\x1f\x7f]/g, "?") : short;
}
