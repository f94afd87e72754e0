// The kinds of L7 records as types of resources: what each is called, and its JSON both ways.

import { create, toBinary } from "@bufbuild/protobuf";
import { z } from "zod";
import { type NamespacedName, namespacedName } from "../../core/brand.ts";
import { err, ok, type Result } from "../../core/result.ts";
import type { LoginPolicy, RequestAuthentication, RequestPolicy } from "../../mesh/l7/access.ts";
import type { L7Snapshot } from "../../mesh/l7/delta.ts";
import type { Route } from "../../mesh/l7/route.ts";
import type { TelemetryPolicy } from "../../mesh/l7/telemetry.ts";
import type { TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { Waypoint } from "../../mesh/l7/waypoint.ts";
import type { WorkloadLabels } from "../../mesh/l7/workload-labels.ts";
import { decode } from "../../wire/protobuf/decode.ts";
import { RecordSchema } from "../../wire/protobuf/weft/l7/v1/l7_pb.ts";
import { encodeResource, type EncodedResource, type ReceivedResource } from "../resource.ts";
import { loginPolicy, requestAuthentication, requestPolicy } from "./access.ts";
import { route, waypoint, withUnreadRules } from "./route.ts";
import { workloadLabels } from "./workload-labels.ts";
import { telemetryPolicy, trafficPolicies } from "./traffic.ts";

/** The record of each kind, by the name of its map in L7Snapshot. */
export interface L7Records {
  readonly waypoints: Waypoint;
  readonly routes: Route;
  readonly trafficPolicies: readonly TrafficPolicy[];
  readonly requestPolicies: RequestPolicy;
  readonly requestAuthentications: RequestAuthentication;
  readonly loginPolicies: LoginPolicy;
  readonly telemetry: TelemetryPolicy;
  readonly workloadLabels: WorkloadLabels;
}
export type L7Kind = keyof L7Records & keyof L7Snapshot;

export interface L7Codec<T> {
  readonly typeUrl: string;
  /** What a record is called; null for one that has no name (no traffic policy at all). */
  nameOf(record: T): string | null;
  /** The error is our own fault: a record that its schema does not know. */
  encode(name: string, record: T): Result<EncodedResource, string>;
  decode(received: ReceivedResource): Result<T, string>;
}

/** @param reduced of JSON that the schema refuses, what of it may be in force without opening anything; null for none. */
function codec<T>(kind: string, schema: z.ZodType<T>, nameOf: (record: T) => string | null, reduced: (json: unknown) => unknown = () => null): L7Codec<T> {
  const typeUrl = `type.googleapis.com/weft.l7.v1.${kind}`;
  return {
    typeUrl,
    nameOf,
    encode(name, record) {
      const written = z.safeEncode(schema, record);
      if (!written.success) return err(`${kind} ${name}: ${z.prettifyError(written.error)}`);
      return ok(encodeResource(name, typeUrl, toBinary(RecordSchema, create(RecordSchema, { json: JSON.stringify(written.data) }))));
    },
    decode({ name, value }) {
      const read = decode(RecordSchema, value);
      if (!read.ok) return read;
      const json = parseJson(read.value.json);
      if (!json.ok) return json;
      const whole = z.safeDecode(schema, json.value);
      const part = whole.success ? null : z.safeDecode(schema, reduced(json.value));
      const record = part?.success === true ? part : whole;
      if (!record.success) return err(z.prettifyError(record.error).replaceAll("\n", "; "));
      const own = nameOf(record.data);
      return own === name ? ok(record.data) : err(`the resource is named ${JSON.stringify(name)}, its content calls itself ${JSON.stringify(own)}`);
    },
  };
}

const ofObject = ({ namespace, name }: { readonly namespace: string; readonly name: string }): NamespacedName => namespacedName(namespace, name);

export const L7_CODECS: { readonly [K in L7Kind]: L7Codec<L7Records[K]> } = {
  waypoints: codec("Waypoint", waypoint, ofObject),
  routes: codec("Route", route, ({ id }) => id, withUnreadRules),
  trafficPolicies: codec("TrafficPolicies", trafficPolicies, ([first, ...rest]) => (first !== undefined && rest.every(({ service }) => service === first.service) ? first.service : null)),
  requestPolicies: codec("RequestPolicy", requestPolicy, ofObject),
  requestAuthentications: codec("RequestAuthentication", requestAuthentication, ofObject),
  loginPolicies: codec("LoginPolicy", loginPolicy, ofObject),
  telemetry: codec("TelemetryPolicy", telemetryPolicy, ofObject),
  workloadLabels: codec("WorkloadLabels", workloadLabels, ({ uid }) => uid),
};

function parseJson(text: string): Result<unknown, string> {
  try {
    return ok(JSON.parse(text));
  } catch (cause) {
    return err(`not JSON: ${cause instanceof Error ? cause.message : String(cause)}`);
  }
}
