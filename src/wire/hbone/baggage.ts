// The `baggage` header of HBONE: who the source (or, on a 200, the destination) workload is. For telemetry only: nothing is
// authorised by it. W3C Baggage, section 3; the keys and their order are those that Istio's ztunnel sends.

import { percentDecode } from "./percent.ts";

export type BaggageWorkloadType = "pod" | "deployment" | "job" | "cronjob";

/** What one peer says of a workload. An absent value is the empty string. */
export interface Baggage {
  readonly clusterId: string;
  readonly namespace: string;
  readonly workloadType: BaggageWorkloadType;
  readonly workloadName: string;
  /** Canonical service name and revision. */
  readonly serviceName: string;
  readonly serviceVersion: string;
  readonly region: string;
  readonly zone: string;
}

/** The part of a workload record that baggage is made of. */
export interface BaggageSource {
  readonly clusterId: string;
  readonly namespace: string;
  readonly workloadType: BaggageWorkloadType;
  readonly workloadName: string;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly locality: { readonly region: string; readonly zone: string };
}

export const emptyBaggage: Baggage = {
  clusterId: "", namespace: "", workloadType: "deployment", workloadName: "", serviceName: "", serviceVersion: "", region: "", zone: "",
};

/** W3C Baggage section 3.3.2: what every participant must carry. More is not read, and never sent. */
export const BAGGAGE_BYTES_MAX = 8192;
export const BAGGAGE_MEMBERS_MAX = 64;
/** Kubernetes names have at most 253 characters; a longer value only inflates labels and logs. */
export const BAGGAGE_VALUE_CHARS_MAX = 256;

export function baggageOf(workload: BaggageSource): Baggage {
  return {
    clusterId: workload.clusterId,
    namespace: workload.namespace,
    workloadType: workload.workloadType,
    workloadName: workload.workloadName,
    serviceName: workload.canonicalName,
    serviceVersion: workload.canonicalRevision,
    region: workload.locality.region,
    zone: workload.locality.zone,
  };
}

/** The header value; empty when nothing is known (then the header is left out). Values that cannot be carried are left out. */
export function encodeBaggage(baggage: Baggage): string {
  let text = "";
  for (const [key, value] of members(baggage)) {
    if (!isCarried(value)) continue;
    const member = `${key}=${encodeValue(value)}`;
    if (text.length + 1 + member.length > BAGGAGE_BYTES_MAX) continue;
    text = text === "" ? member : `${text},${member}`;
  }
  return text;
}

/**
 * Reads every `baggage` line of one message as one list. Never fails: unknown keys and malformed members (no `=`, empty value,
 * bad percent-encoding, bytes that are not UTF-8, control characters, too long) are skipped, and of a key given twice the last
 * readable value stands.
 * @param lines header values as one char per byte.
 */
export function decodeBaggage(lines: readonly string[]): Baggage {
  if (lines.length !== 1) return readLines(lines);
  const line = lines[0]!;
  if (line !== lastLine) {
    lastBaggage = readLines(lines);
    lastLine = line;
  }
  return lastBaggage;
}

/** A peer's connections come in runs of the same workload, with the same line. */
let lastLine = "";
let lastBaggage: Baggage = emptyBaggage;

function readLines(lines: readonly string[]): Baggage {
  const found = { ...emptyBaggage } as { -readonly [K in keyof Baggage]: Baggage[K] };
  let bytesLeft = BAGGAGE_BYTES_MAX;
  let membersLeft = BAGGAGE_MEMBERS_MAX;
  for (const line of lines) {
    if (line.length > bytesLeft) break;
    bytesLeft -= line.length;
    for (const member of line.split(",", membersLeft)) {
      membersLeft--;
      readMember(member, found);
    }
  }
  return found;
}

function readMember(member: string, into: { -readonly [K in keyof Baggage]: Baggage[K] }): void {
  const equals = member.indexOf("=");
  if (equals < 0) return;
  const field = fieldOfKey.get(trimBlanks(member.slice(0, equals)));
  if (field === undefined) return;
  const properties = member.indexOf(";", equals);
  const value = decodeValue(trimBlanks(member.slice(equals + 1, properties < 0 ? undefined : properties)));
  if (value === null) return;
  into[field.name] = value;
  if (field.workloadType !== null) into.workloadType = field.workloadType;
}

interface Field {
  readonly name: Exclude<keyof Baggage, "workloadType">;
  readonly workloadType: BaggageWorkloadType | null;
}

const workloadField = (workloadType: BaggageWorkloadType): Field => ({ name: "workloadName", workloadType });
const fieldOfKey: ReadonlyMap<string, Field> = new Map<string, Field>([
  ["k8s.cluster.name", { name: "clusterId", workloadType: null }],
  ["k8s.namespace.name", { name: "namespace", workloadType: null }],
  ["k8s.deployment.name", workloadField("deployment")],
  ["k8s.cronjob.name", workloadField("cronjob")],
  ["k8s.pod.name", workloadField("pod")],
  ["k8s.job.name", workloadField("job")],
  ["service.name", { name: "serviceName", workloadType: null }],
  ["service.version", { name: "serviceVersion", workloadType: null }],
  ["cloud.region", { name: "region", workloadType: null }],
  ["cloud.availability_zone", { name: "zone", workloadType: null }],
]);

function members(baggage: Baggage): readonly (readonly [string, string])[] {
  return [
    ["k8s.cluster.name", baggage.clusterId],
    ["k8s.namespace.name", baggage.namespace],
    [`k8s.${baggage.workloadType}.name`, baggage.workloadName],
    ["service.name", baggage.serviceName],
    ["service.version", baggage.serviceVersion],
    ["cloud.region", baggage.region],
    ["cloud.availability_zone", baggage.zone],
  ];
}

/** No empty value, none that a reader would refuse. */
function isCarried(value: string): boolean {
  return value !== "" && value.length <= BAGGAGE_VALUE_CHARS_MAX && !CONTROL.test(value) && value.isWellFormed();
}

const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
/** baggage-octet, less `%` (the escape) and `=` (some readers cut the value there). */
const PLAIN = /^[!#-$&-+\--:<>-[\]-~]*$/;
const encoder = new TextEncoder();

function encodeValue(value: string): string {
  if (PLAIN.test(value)) return value;
  let text = "";
  for (const byte of encoder.encode(value)) {
    const char = String.fromCharCode(byte);
    text += PLAIN.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function decodeValue(raw: string): string | null {
  if (raw === "" || raw.length > 9 * BAGGAGE_VALUE_CHARS_MAX) return null;
  const bytes = percentDecode(raw);
  if (bytes === null) return null;
  const value = utf8(bytes);
  return value !== null && isCarried(value) ? value : null;
}

function utf8(bytes: Uint8Array): string | null {
  try {
    return decoder.decode(bytes);
  } catch {
    return null; // the only exception of a fatal decoder: not UTF-8
  }
}

function trimBlanks(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return start === 0 && end === text.length ? text : text.slice(start, end);
}

const isBlank = (code: number): boolean => code === 0x20 || code === 0x09;
