// The configuration of an agent as a client alone: our client of xDS with the records it keeps, and what each of its streams brought.

import { seededRandom } from "../../src/core/ports.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { systemTimers } from "../../src/net/timers.ts";
import { AdsClient } from "../../src/xds/client/ads-client.ts";
import { L7_READER } from "../../src/xds/client/l7-reader.ts";
import { XdsRecords } from "../../src/xds/client/records.ts";
import { L7_CODECS } from "../../src/xds/l7/kinds.ts";
import { GATEWAY_METADATA } from "../../src/xds/node-message.ts";
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from "../../src/xds/resource.ts";

const MESH_TYPES = [ADDRESS_TYPE, AUTHORIZATION_TYPE];

export interface XdsAgentOptions {
  readonly port: number;
  readonly serverName: string;
  readonly rootsPem: string;
  readonly token: string;
  readonly node: string;
  /** `namespace/name` of the Gateway whose waypoint it is; a ztunnel without. */
  readonly gateway?: string;
}

/** What came on one stream. */
export interface StreamCount {
  resources: number;
  removals: number;
  /** Types that have been told of. */
  readonly types: Set<string>;
}

export class XdsAgent implements AsyncDisposable {
  readonly records: XdsRecords;
  /** The present one is the last. */
  readonly streams: StreamCount[] = [];
  /** Why the streams before it ended. */
  readonly ends: string[] = [];
  /** What it refused, with the reason. */
  readonly refused: string[] = [];
  /** Names of what was taken away on any stream. */
  readonly removed: string[] = [];
  readonly #types: readonly string[];
  readonly #client: AdsClient;
  readonly #running: Promise<void>;

  constructor({ port, serverName, rootsPem, token, node, gateway }: XdsAgentOptions) {
    this.records = new XdsRecords(gateway === undefined ? null : L7_READER, new MeshStore());
    this.#types = gateway === undefined ? MESH_TYPES : [...MESH_TYPES, ...Object.values(L7_CODECS).map(({ typeUrl }) => typeUrl)];
    const [type, metadata] = gateway === undefined ? ["ztunnel", {}] : ["waypoint", { [GATEWAY_METADATA]: gateway }];
    this.#client = new AdsClient({
      channel: { address: `127.0.0.1:${port}`, serverName, rootCa: rootsPem, token: { kind: "literal", value: token }, clusterId: "Kubernetes", headers: {} },
      node: { id: `${type}~198.18.0.1~agent.istio-system~istio-system.svc.cluster.local`, metadata: { NODE_NAME: node, ...metadata } }, types: this.#types, random: seededRandom(1), timers: systemTimers,
      versions: (typeUrl) => this.records.versions(typeUrl),
      onResponse: () => {
        const stream = this.streams.at(-1)!;
        const intake = this.records.begin();
        return {
          add: (resource) => {
            stream.resources++;
            intake.add(resource);
          },
          end: (end) => {
            stream.types.add(end.typeUrl);
            stream.removals += end.removed.length;
            this.removed.push(...end.removed);
            const refused = [...end.refused, ...intake.end(end).refused];
            this.refused.push(...refused.map(({ name, reason }) => `${name}: ${reason}`));
            return refused;
          },
        };
      },
      onEvent: (event) => {
        if (event.kind === "connected") this.streams.push({ resources: 0, removals: 0, types: new Set() });
        if (event.kind === "disconnected") this.ends.push(event.reason);
      },
    });
    this.#running = this.#client.run();
  }

  /** The stream of this number (the first is 1) stands, and each type was told of once on it. */
  isTold(stream: number): boolean {
    return (this.streams[stream - 1]?.types.size ?? 0) === this.#types.length;
  }

  /** Name to version of everything it has. */
  get versions(): ReadonlyMap<string, string> {
    return new Map(this.#types.flatMap((typeUrl) => [...this.records.versions(typeUrl)]));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.#running;
  }
}
