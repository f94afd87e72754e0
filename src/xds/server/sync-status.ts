// What `istioctl proxy-status` asks a control plane for, in the other form of ADS (state of the world): a type of Istio's own, whose
// resources are the clients of this replica and how far each has come. Without IO.

import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { DiscoveryResponseSchema } from "../../wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { ClientConfigSchema } from "../../wire/protobuf/envoy/service/status/v3/csds_pb.ts";
import type { ClientStatus, TypeStatus } from "../serving.ts";

export const SYNC_TYPE = "istio.io/debug/syncz";
const CLIENT_TYPE = "type.googleapis.com/envoy.service.status.v3.ClientConfig";

const [SYNCED, NOT_SENT, STALE, ERROR] = [1, 2, 3, 4];

/** This replica, as it is shown beside its clients. */
export interface ReplicaFacts {
  readonly name: string;
  readonly version: string;
  readonly clusterId: string;
}

export function syncStatus(clients: readonly ClientStatus[], { name, version, clusterId }: ReplicaFacts, nonce: string): MessageInitShape<typeof DiscoveryResponseSchema> {
  return {
    typeUrl: SYNC_TYPE, nonce, versionInfo: nonce,
    controlPlane: { identifier: JSON.stringify({ Component: "weft-control", ID: name, Info: { version } }) },
    resources: clients.map((client) => ({ typeUrl: CLIENT_TYPE, value: toBinary(ClientConfigSchema, create(ClientConfigSchema, clientConfig(client, clusterId))) })),
  };
}

function clientConfig({ id, agentVersion, types }: ClientStatus, clusterId: string): MessageInitShape<typeof ClientConfigSchema> {
  return {
    node: { id, metadata: { CLUSTER_ID: clusterId, NAMESPACE: namespaceOf(id), ISTIO_VERSION: agentVersion } },
    genericXdsConfigs: [...types].sort((a, b) => (a.typeUrl < b.typeUrl ? -1 : 1)).map((type) => ({
      typeUrl: type.typeUrl, versionInfo: String(type.ackedState), configStatus: statusOf(type), ...(type.rejected === null ? {} : { errorState: { details: type.rejected.message } }),
    })),
  };
}

function statusOf({ rejected, sentState, ackedState }: TypeStatus): number {
  if (rejected !== null) return ERROR;
  if (sentState === 0) return NOT_SENT;
  return ackedState < sentState ? STALE : SYNCED;
}

/** Of TYPE~IP~NAME.NAMESPACE~DNS-DOMAIN; a namespace has no dot. */
function namespaceOf(id: string): string {
  const [, , name = ""] = id.split("~");
  return name.slice(name.lastIndexOf(".") + 1);
}
