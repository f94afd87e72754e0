// The messages of Envoy's authorisation and rate limit protocols as bytes. Loaded when one is first needed: the library and its schemas cost
// each data thread megabytes, which most never need.

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { CheckRequestSchema, type CheckResponse, CheckResponseSchema } from "../../wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { RateLimitRequestSchema, type RateLimitResponse, RateLimitResponseSchema } from "../../wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";

export const encodeCheck = (question: MessageInitShape<typeof CheckRequestSchema>): Uint8Array => toBinary(CheckRequestSchema, create(CheckRequestSchema, question));
export const encodeRateLimit = (question: MessageInitShape<typeof RateLimitRequestSchema>): Uint8Array => toBinary(RateLimitRequestSchema, create(RateLimitRequestSchema, question));

/** Null for bytes that are no such message: the caller says whose fault it is. */
export const decodeCheck = (bytes: Uint8Array): CheckResponse | null => decoded(() => fromBinary(CheckResponseSchema, bytes));
export const decodeRateLimit = (bytes: Uint8Array): RateLimitResponse | null => decoded(() => fromBinary(RateLimitResponseSchema, bytes));

function decoded<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch {
    // The library throws on anything that it cannot read.
    return null;
  }
}
