// Who a client says it is: the node message of its first request. Istio's form: TYPE~IP~NAME.NAMESPACE~DNS-DOMAIN, and metadata.

import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import type { NamespacedName } from "../core/brand.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { Node } from "../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import type { ClientView } from "./serving.ts";

const ID_CHARS_MAX = 1024;
/** Metadata by which a waypoint of ours says whose it is. */
export const GATEWAY_METADATA = "WEFT_GATEWAY";
export const VERSION_METADATA = "WEFT_VERSION";

export interface NodeIdentity {
  readonly id: string;
  readonly view: ClientView;
  readonly agentVersion: string;
}

/** The error is for the client. */
export function readNode(node: Node | undefined): Result<NodeIdentity, string> {
  if (node === undefined || node.id === "") return err("the first request of a stream has no node with an id");
  if (node.id.length > ID_CHARS_MAX || !/^[\x21-\x7e]+$/.test(node.id)) return err(`the node's id is longer than ${ID_CHARS_MAX} characters, or has some that do not print`);
  const metadata: JsonObject = node.metadata ?? {};
  const agentVersion = text(metadata[VERSION_METADATA]) || text(metadata["ISTIO_VERSION"]);
  const type = node.id.slice(0, node.id.indexOf("~"));
  if (type === "ztunnel") return ok({ id: node.id, agentVersion, view: { kind: "node", node: text(metadata["NODE_NAME"]) } });
  if (type !== "waypoint") return err(`a client of type ${JSON.stringify(type)} is not served here, but ztunnel~… and waypoint~… with the metadata ${GATEWAY_METADATA}`);
  const gateway = text(metadata[GATEWAY_METADATA]);
  if (!/^[^/]+\/[^/]+$/.test(gateway)) return err(`a waypoint names its Gateway as namespace/name in the metadata ${GATEWAY_METADATA}, found ${JSON.stringify(gateway)}; Istio's own waypoints (Envoy) are not served here`);
  return ok({ id: node.id, agentVersion, view: { kind: "waypoint", gateway: gateway as NamespacedName } });
}

const text = (value: JsonValue | undefined): string => (typeof value === "string" ? value : "");
