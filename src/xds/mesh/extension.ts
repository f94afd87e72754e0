// Our own fields beside Istio's: packed into an `extensions` entry, found again among others'.

import { type DescMessage, type MessageInitShape, type MessageShape, toBinary, create } from "@bufbuild/protobuf";
import type { Provenance } from "../../core/fault.ts";
import { decodeMessage } from "../../wire/protobuf/decode.ts";
import type { Extension } from "../../wire/protobuf/istio/workload/workload_pb.ts";
import type { Origin } from "../../wire/protobuf/weft/mesh/v1/extensions_pb.ts";
import type { Reading } from "./reading.ts";

export const typeUrl = (schema: DescMessage): string => `type.googleapis.com/${schema.typeName}`;

export function packExtension<S extends DescMessage>(schema: S, fields: MessageInitShape<S>): { name: string; config: { typeUrl: string; value: Uint8Array } } {
  return { name: schema.typeName, config: { typeUrl: typeUrl(schema), value: toBinary(schema, create(schema, fields)) } };
}

/** Null when there is none. */
export function findExtension<S extends DescMessage>(schema: S, extensions: readonly Extension[], reading: Reading): MessageShape<S> | null {
  const found = extensions.find(({ config }) => config?.typeUrl === typeUrl(schema));
  if (found?.config === undefined) return null;
  try {
    return decodeMessage(schema, found.config.value);
  } catch (cause) {
    reading.problem(`extensions[${schema.typeName}]`, cause instanceof Error ? cause.message : String(cause));
    return null;
  }
}

export const originOf = ({ kind, namespace, name, fieldPath }: Provenance): { kind: string; namespace: string; name: string; fieldPath: string } => ({ kind, namespace, name, fieldPath });

/** @param version of the resource: what stands for the version of the object. */
export function provenanceOf(origin: Origin | undefined, otherwise: Omit<Provenance, "resourceVersion">, version: string): Provenance {
  const { kind, namespace, name, fieldPath } = origin ?? otherwise;
  return { kind, namespace, name, resourceVersion: version, fieldPath };
}
