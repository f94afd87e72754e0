// Resources of delta xDS: their types, their names, and the encoding that is made once for all clients.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createHash } from "node:crypto";
import { namespacedName } from "../core/brand.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { AuthorizationPolicy, Service, Workload } from "../mesh/records.ts";
import { decode } from "../wire/protobuf/decode.ts";
import { ResourceSchema } from "../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { AuthorizationSchema } from "../wire/protobuf/istio/security/authorization_pb.ts";
import { AddressSchema } from "../wire/protobuf/istio/workload/workload_pb.ts";
import { readPolicy, writePolicy } from "./mesh/authorization.ts";
import { typeUrl } from "./mesh/extension.ts";
import { readService, writeService } from "./mesh/service.ts";
import { readWorkload, writeWorkload } from "./mesh/workload.ts";

export const ADDRESS_TYPE = typeUrl(AddressSchema);
export const AUTHORIZATION_TYPE = typeUrl(AuthorizationSchema);

/** Bytes of a content hash kept as a version: enough that two contents of one name never meet. */
const VERSION_BYTES = 12;

/** A resource as it goes out. */
export interface EncodedResource {
  readonly name: string;
  /** A hash of the content: the same over restarts and on every replica. */
  readonly version: string;
  /** A Resource message. */
  readonly bytes: Uint8Array;
}

export function encodeResource(name: string, type: string, value: Uint8Array): EncodedResource {
  const version = createHash("sha256").update(value).digest().subarray(0, VERSION_BYTES).toString("base64url");
  return { name, version, bytes: toBinary(ResourceSchema, create(ResourceSchema, { name, version, resource: { typeUrl: type, value } })) };
}

/** The same content under another name: what a client asked for by an address. */
export function renamed({ bytes, version }: EncodedResource, name: string): EncodedResource {
  const resource = fromBinary(ResourceSchema, bytes);
  return { name, version, bytes: toBinary(ResourceSchema, create(ResourceSchema, { ...resource, name })) };
}

export const encodeWorkload = (workload: Workload): EncodedResource =>
  encodeResource(workload.uid, ADDRESS_TYPE, toBinary(AddressSchema, create(AddressSchema, { type: { case: "workload", value: writeWorkload(workload) } })));

export const encodeService = (service: Service): EncodedResource =>
  encodeResource(namespacedName(service.namespace, service.hostname), ADDRESS_TYPE, toBinary(AddressSchema, create(AddressSchema, { type: { case: "service", value: writeService(service) } })));

export const encodePolicy = (policy: AuthorizationPolicy): EncodedResource =>
  encodeResource(namespacedName(policy.namespace, policy.name), AUTHORIZATION_TYPE, toBinary(AuthorizationSchema, writePolicy(policy)));

/** One resource as it came in, its content not looked at yet. */
export interface ReceivedResource {
  readonly name: string;
  readonly version: string;
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

export function readResource(bytes: Uint8Array): Result<ReceivedResource, string> {
  const read = decode(ResourceSchema, bytes);
  if (!read.ok) return read;
  const { name, version, resource } = read.value;
  if (name === "" || resource === undefined) return err(name === "" ? "a resource without a name" : "a resource without content");
  return ok({ name, version, typeUrl: resource.typeUrl, value: resource.value });
}

export type AddressRecord = { readonly kind: "workload"; readonly workload: Workload } | { readonly kind: "service"; readonly service: Service };

/** @returns the record, or what is wrong with it. A content that calls itself otherwise than its resource is refused: it could never be removed. */
export function readAddress({ name, version, value }: ReceivedResource): Result<AddressRecord, string> {
  const message = decode(AddressSchema, value);
  if (!message.ok) return message;
  const { type } = message.value;
  switch (type.case) {
    case "workload": {
      const workload = readWorkload(type.value, version);
      return !workload.ok ? workload : named(name, workload.value.uid, { kind: "workload", workload: workload.value });
    }
    case "service": {
      const service = readService(type.value, version);
      return !service.ok ? service : named(name, namespacedName(service.value.namespace, service.value.hostname), { kind: "service", service: service.value });
    }
    case undefined:
      return err("it is neither a workload nor a service");
  }
}

export function readAuthorization({ name, version, value }: ReceivedResource): Result<AuthorizationPolicy, string> {
  const message = decode(AuthorizationSchema, value);
  if (!message.ok) return message;
  const policy = readPolicy(message.value, version);
  return !policy.ok ? policy : named(name, namespacedName(policy.value.namespace, policy.value.name), policy.value);
}

function named<T>(name: string, own: string, value: T): Result<T, string> {
  return name === own ? ok(value) : err(`the resource is named ${JSON.stringify(name)}, its content calls itself ${JSON.stringify(own)}`);
}
