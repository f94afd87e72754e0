// A client of the xDS port written from the public protos alone: subscribes, confirms, and says what it was told.

import { fromBinary } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { AggregatedDiscoveryService, type DeltaDiscoveryRequest, type DeltaDiscoveryResponse, ResourceSchema } from "../../src/wire/protobuf/envoy/service/discovery/v3/ads_pb.ts";
import { type Address, AddressSchema } from "../../src/wire/protobuf/istio/workload/workload_pb.ts";
import { Pushed } from "../kit/pushed.ts";

export const ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address";
export const AUTHORIZATION_TYPE = "type.googleapis.com/istio.security.Authorization";

export interface XdsClientOptions {
  readonly port: number;
  readonly serverName: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly node: string;
  readonly onAddress: (name: string, address: Address) => void;
  readonly onRemoved: (typeUrl: string, name: string) => void;
  readonly onResponse: (typeUrl: string, count: number) => void;
}

/** Runs until `signal` is aborted or the server ends the stream. */
export async function followXds(options: XdsClientOptions, signal: AbortSignal): Promise<void> {
  const transport = createGrpcTransport({ baseUrl: `https://localhost:${options.port}`, nodeOptions: { ca: options.rootsPem, servername: options.serverName } });
  const client = createClient(AggregatedDiscoveryService, transport);
  const requests = new Pushed<DeltaDiscoveryRequest>();
  const ask = (request: Readonly<Record<string, unknown>>): void => requests.push(request as unknown as DeltaDiscoveryRequest);
  const node = { id: `ztunnel~198.18.0.1~zt.istio-system~istio-system.svc.cluster.local`, metadata: { NODE_NAME: options.node } };
  for (const typeUrl of [ADDRESS_TYPE, AUTHORIZATION_TYPE]) ask({ typeUrl, node });
  const responses = client.deltaAggregatedResources(requests, { headers: { authorization: `Bearer ${options.token}`, clusterid: "Kubernetes" }, signal });
  for await (const response of responses) {
    take(response, options);
    ask({ typeUrl: response.typeUrl, responseNonce: response.nonce });
  }
}

function take({ typeUrl, resources, removedResources }: DeltaDiscoveryResponse, { onAddress, onRemoved, onResponse }: XdsClientOptions): void {
  for (const bytes of typeUrl === ADDRESS_TYPE ? resources : []) {
    const { name, resource } = fromBinary(ResourceSchema, bytes);
    if (resource !== undefined) onAddress(name, fromBinary(AddressSchema, resource.value));
  }
  for (const name of removedResources) onRemoved(typeUrl, name);
  onResponse(typeUrl, resources.length);
}
