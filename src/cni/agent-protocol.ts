// What plugin and agent say to each other: one request, one answer, each one packet of JSON on a SEQPACKET socket. With ADD and CHECK
// travels the descriptor of the pod's network namespace, so that the agent needs no view of the runtime's files. Pure; no library, see
// plugin-call.ts.

import { err, ok, type Result } from "../core/result.ts";

/** Both ends are of one installation, but for the moment of an upgrade: what the other does not know, it says so. */
export const PROTOCOL_VERSION = 1;
/** A request with every valid attachment of a full node (GC) is some 20 KB. */
export const PACKET_BYTES_MAX = 160 * 1024;

export interface PodReference {
  readonly containerId: string;
  readonly namespace: string;
  readonly name: string;
  /** Empty where the runtime does not say it. */
  readonly uid: string;
}

export type AgentRequest =
  /** With one descriptor. */
  | { readonly kind: "add"; readonly pod: PodReference; readonly addresses: readonly string[] }
  | { readonly kind: "check"; readonly pod: PodReference }
  | { readonly kind: "del"; readonly pod: PodReference }
  | { readonly kind: "gc"; readonly validContainerIds: readonly string[] }
  | { readonly kind: "status" };

export type AgentAnswer =
  /** `inMesh` is for the plugin's own log line. */
  | { readonly kind: "done"; readonly inMesh: boolean }
  /** `later`: the kubelet will ask again, and it may help. */
  | { readonly kind: "refused"; readonly why: string; readonly later: boolean };

export function encodeRequest(request: AgentRequest): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ version: PROTOCOL_VERSION, ...request }));
}

export function encodeAnswer(answer: AgentAnswer): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ version: PROTOCOL_VERSION, ...answer }));
}

type Fields = Readonly<Record<string, unknown>>;

export function decodeRequest(packet: Uint8Array): Result<AgentRequest, string> {
  const read = readPacket(packet);
  if (!read.ok) return read;
  const fields = read.value;
  switch (fields["kind"]) {
    case "add": {
      const pod = podOf(fields["pod"]);
      const addresses = strings(fields["addresses"]);
      return pod === null || addresses === null ? err("an add without pod or addresses") : ok({ kind: "add", pod, addresses });
    }
    case "check":
    case "del": {
      const pod = podOf(fields["pod"]);
      return pod === null ? err(`a ${fields["kind"]} without pod`) : ok({ kind: fields["kind"], pod });
    }
    case "gc": {
      const validContainerIds = strings(fields["validContainerIds"]);
      return validContainerIds === null ? err("a gc without the valid containers") : ok({ kind: "gc", validContainerIds });
    }
    case "status":
      return ok({ kind: "status" });
    default:
      return err(`a request of unknown kind ${JSON.stringify(fields["kind"])?.slice(0, 80)}`);
  }
}

export function decodeAnswer(packet: Uint8Array): Result<AgentAnswer, string> {
  const read = readPacket(packet);
  if (!read.ok) return read;
  const { kind, inMesh, why, later } = read.value;
  if (kind === "done" && typeof inMesh === "boolean") return ok({ kind, inMesh });
  if (kind === "refused" && typeof why === "string" && typeof later === "boolean") return ok({ kind, why, later });
  return err("an answer of unknown form");
}

function readPacket(packet: Uint8Array): Result<Fields, string> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(packet));
  } catch {
    return err("no JSON");
  }
  if (!isObject(parsed)) return err("no JSON object");
  return parsed["version"] === PROTOCOL_VERSION ? ok(parsed) : err(`version ${JSON.stringify(parsed["version"])} of the protocol, wanted ${PROTOCOL_VERSION}: plugin and agent are of different releases`);
}

function podOf(value: unknown): PodReference | null {
  if (!isObject(value)) return null;
  const { containerId, namespace, name, uid } = value;
  return typeof containerId === "string" && typeof namespace === "string" && typeof name === "string" && typeof uid === "string" ? { containerId, namespace, name, uid } : null;
}

const isObject = (value: unknown): value is Fields => typeof value === "object" && value !== null && !Array.isArray(value);
const strings = (value: unknown): readonly string[] | null => (Array.isArray(value) && value.every((each) => typeof each === "string") ? value : null);
