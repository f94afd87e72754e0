// Tunnels to this waypoint: each CONNECT names a service or a workload that is bound to it, and the client is whoever the tunnel's certificate names,
// for ztunnels open tunnels in the name of their workloads.

import type { NamespacedName } from "../core/brand.ts";
import { ipFromBytes, type IpAddress, type SocketAddress } from "../core/ip.ts";
import { parseSpiffeId, type SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { L7Store } from "../mesh/l7/l7-store.ts";
import type { MeshStore } from "../mesh/store.ts";
import { connectionFacts, type TrustDomainAliases } from "../policy/connection-facts.ts";
import { judgeInbound } from "../policy/inbound.ts";
import { identityOf, nameOf } from "../policy/waypoints.ts";
import type { CloseCause } from "../tunnel/close-cause.ts";
import type { LiveConnection } from "../tunnel/live-connection.ts";
import type { ServerStreamUser, ServerTunnel, TunnelPlace } from "../tunnel/server-tunnel.ts";
import { formatAuthority } from "../wire/hbone/authority.ts";
import { readConnect } from "../wire/hbone/connect.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { encodeStaticBlock, type HeaderBlock, type HeaderList } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import type { Traceparent } from "../wire/trace/traceparent.ts";
import type { Client } from "./downstream/client.ts";
import { explainUnrecorded } from "./self.ts";
import { labelsOf } from "./upstream/labels.ts";
import { workloadDestination } from "./services/service-directory.ts";
import { StreamChannel } from "./channel/stream-channel.ts";

export interface WaypointPlaceOptions {
  readonly store: MeshStore;
  readonly l7: L7Store;
  readonly gateway: NamespacedName;
  readonly network: string;
  readonly trustDomains: TrustDomainAliases;
  /** This waypoint's record; null while the configuration has none. */
  readonly self: () => Workload | null;
  readonly accept: (channel: StreamChannel, client: Client) => void;
  /** A peer that got no tunnel. */
  readonly failed: (cause: CloseCause) => void;
  /** A peer or a CONNECT that was refused. */
  readonly refused: (code: string, message: string, peerIp: IpAddress) => void;
}

const GRANTED = encodeStaticBlock([":status", "200"]);
const REFUSED = new Map<number, HeaderBlock>([400, 401, 503].map((status) => [status, encodeStaticBlock([":status", String(status)])]));

export class WaypointPlace implements TunnelPlace {
  readonly connections = new Set<LiveConnection>();
  readonly options: WaypointPlaceOptions;

  constructor(options: WaypointPlaceOptions) {
    this.options = options;
  }

  identity(): SpiffeId | null {
    const self = this.options.self();
    return self === null ? null : identityOf(self);
  }

  explainNoIdentity(): string {
    return explainUnrecorded(this.options.gateway);
  }

  open(tunnel: ServerTunnel, stream: Http2Stream): ServerStreamUser {
    return new Connect(this.options, tunnel, stream);
  }

  refused(cause: CloseCause, peerIp: IpAddress): void {
    this.options.failed(cause);
    this.options.refused(cause.code, cause.message, peerIp);
  }
}

/** One CONNECT until it is granted; its bytes are the channel's from then on. */
class Connect implements ServerStreamUser {
  readonly #options: WaypointPlaceOptions;
  readonly #tunnel: ServerTunnel;
  readonly #stream: Http2Stream;

  constructor(options: WaypointPlaceOptions, tunnel: ServerTunnel, stream: Http2Stream) {
    this.#options = options;
    this.#tunnel = tunnel;
    this.#stream = stream;
  }

  request(headers: HeaderList, endStream: boolean): void {
    const { store, self: ownRecord, accept } = this.#options;
    const self = ownRecord();
    if (self === null) return this.#refuse(503, "unknown_waypoint", explainUnrecorded(this.#options.gateway));
    const read = readConnect(headers);
    if (!read.ok) return this.#refuse(400, "bad_request", read.error.reason);
    const { authority, trace } = read.value;
    const verdict = judgeInbound(store, self, { authority, localIp: this.#tunnel.localIp, peer: this.#tunnel.peerIdentity });
    if (verdict.kind === "reject") return this.#refuse(verdict.status, verdict.code, verdict.reason);
    const { port } = authority.kind === "address" ? authority.address : authority;
    const client = verdict.service !== null ? this.#client(serviceDestination(verdict.service, this.#tunnel.localIp), port, trace) : authority.kind === "address" ? this.#workloadClient(authority.address, trace) : null;
    if (client === null) return this.#refuse(400, "not_this_workload", `authority ${formatAuthority(authority)} names neither a service nor a workload that is bound to this waypoint`);
    const channel = new StreamChannel(this.#tunnel.transport, this.#stream);
    this.#stream.user = channel;
    this.#tunnel.transport.h2.respond(this.#stream, GRANTED, false);
    accept(channel, client);
    if (endStream) channel.onStreamEnd();
  }

  /** Null when it is the waypoint itself that was addressed, or nobody. */
  #workloadClient({ ip, port }: SocketAddress, trace: Traceparent | null): Client | null {
    const { store, network, self } = this.#options;
    const workload = store.workloadByAddress(network, ip);
    return workload === undefined || workload.uid === self()?.uid ? null : this.#client({ service: workloadDestination(workload, ip), ip }, port, trace);
  }

  #client({ service, ip: destinationIp }: { readonly service: NamespacedName; readonly ip: IpAddress }, port: number, trace: Traceparent | null): Client {
    const { store, l7, network, trustDomains } = this.#options;
    const { peerIdentity, peerIp, peerPort } = this.#tunnel;
    const workload = store.workloadByAddress(network, peerIp) ?? null;
    const namespace = parseSpiffeId(peerIdentity)?.namespace ?? null;
    return {
      source: { identity: peerIdentity, namespace, labels: labelsOf(workload, l7), ip: peerIp }, workload, address: { ip: peerIp, port: peerPort },
      facts: connectionFacts({ peer: peerIdentity, sourceIp: peerIp, destinationIp, destinationPort: port }, trustDomains),
      destination: { service, port }, sni: null, mutualTls: true, trace, view: null,
    };
  }

  #refuse(status: number, code: string, message: string): void {
    const { h2 } = this.#tunnel.transport;
    h2.respond(this.#stream, REFUSED.get(status) ?? REFUSED.get(503)!, true);
    h2.reset(this.#stream, ErrorCode.noError);
    this.#options.refused(code, `CONNECT from ${this.#tunnel.peerIdentity} refused with ${status}: ${message}`, this.#tunnel.peerIp);
  }

  // Nothing of a stream is heard before it is granted, and after that its channel hears it.

  onResponse(): void {}
  onStreamData(): void {}
  onStreamEnd(): void {}
  onSendable(): void {}
  onStreamReset(): void {}
  onStreamClosed(): void {}
}

function serviceDestination(service: Service, localIp: IpAddress): { readonly service: NamespacedName; readonly ip: IpAddress } {
  return { service: nameOf(service), ip: firstAddress(service) ?? localIp };
}

function firstAddress(service: Service): IpAddress | null {
  const address = service.addresses.find(({ cidr }) => cidr.prefixLength === cidr.bytes.length * 8);
  return address === undefined ? null : ipFromBytes(address.cidr.bytes);
}
