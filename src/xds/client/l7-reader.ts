// How a client reads L7 records, and what stands in the place of one that it cannot. A node is told of none: only a waypoint loads this.

import { z } from "zod";
import { namespacedName } from "../../core/brand.ts";
import type { AccessTarget, RequestPolicy } from "../../mesh/l7/access.ts";
import { decode } from "../../wire/protobuf/decode.ts";
import { RecordSchema } from "../../wire/protobuf/weft/l7/v1/l7_pb.ts";
import { accessTarget } from "../l7/access.ts";
import { L7_CODECS } from "../l7/kinds.ts";
import { list } from "../l7/values.ts";
import type { ReceivedResource } from "../resource.ts";
import { provenance, splitName } from "./stand-in.ts";

export interface L7Reader {
  readonly codecs: typeof L7_CODECS;
  readonly requestPolicyInPlaceOf: typeof requestPolicyInPlaceOf;
}

export const L7_READER: L7Reader = { codecs: L7_CODECS, requestPolicyInPlaceOf };

/** A record without its conditions, and the policies it may have had, is still known by its targets; without them it is about its namespace. */
function requestPolicyInPlaceOf(kind: "requestPolicies" | "loginPolicies", { name, value, version }: ReceivedResource): RequestPolicy | null {
  const { namespace, rest } = splitName(name);
  if (namespacedName(namespace, rest) !== name) return null;
  return {
    name: kind === "requestPolicies" ? rest : `${rest}-login-refused`, namespace, targets: targetsOf(value) ?? [{ kind: "namespace", namespace }], action: { kind: "deny" }, dryRun: false,
    rules: [{ clauses: [], fieldPath: "" }], provenance: provenance(kind === "requestPolicies" ? "AuthorizationPolicy" : "LoginPolicy", namespace, rest, version),
  };
}

const ANY_TARGETS = z.object({ targets: list(accessTarget) });

function targetsOf(value: Uint8Array): readonly AccessTarget[] | null {
  const record = decode(RecordSchema, value);
  if (!record.ok) return null;
  try {
    const read = z.safeDecode(ANY_TARGETS, JSON.parse(record.value.json));
    return read.success && read.data.targets.length > 0 ? read.data.targets : null;
  } catch {
    return null; // It is not JSON: what it is about is not known.
  }
}
