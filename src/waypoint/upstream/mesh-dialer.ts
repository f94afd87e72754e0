// The ways to an endpoint: through a tunnel to its node's ztunnel, through a gateway to its network, plainly, or by the mesh's mutual TLS
// with the server itself. A name is resolved first. Failures are told later, never before `dial` has returned.

import { formatSocketAddress, type IpAddress } from "../../core/ip.ts";
import type { Random } from "../../core/ports.ts";
import { unreachable } from "../../core/result.ts";
import { judgePeer } from "../../identity/peer-identity.ts";
import type { Workload } from "../../mesh/records.ts";
import type { MeshStore } from "../../mesh/store.ts";
import type { DueList } from "../../net/due-list.ts";
import { Balancer } from "../../policy/balance.ts";
import { type Picked, primaryFamily } from "../../policy/candidates.ts";
import { acceptedIdentities, chooseGateway, explainOutbound, type TunnelDecision, withAddress } from "../../policy/outbound.ts";
import { HBONE_PORT } from "../../policy/ports.ts";
import { identityOf, nameOf } from "../../policy/waypoints.ts";
import type { TunnelContext } from "../../tunnel/context.ts";
import type { NameResolver } from "../../tunnel/name-resolver.ts";
import type { DialWay, EndpointDialer } from "./cluster.ts";
import { dialHbone, type TunnelWay } from "./hbone-dialer.ts";
import type { WaypointConfig } from "../messages.ts";
import { type ChannelOwner, type ConnectFailure, dialPlain, type PendingChannel } from "../channel/plain-channel.ts";
import { isWorkloadDestination } from "../services/service-directory.ts";
import { dialTls } from "./tls-dialer.ts";

export interface MeshDialerOptions {
  readonly config: Pick<WaypointConfig, "network" | "namespaceFd" | "packetMark">;
  readonly store: MeshStore;
  readonly tunnels: TunnelContext;
  readonly names: NameResolver;
  readonly random: Random;
  readonly due: () => DueList;
  /** This waypoint's record; null while the configuration has none. */
  readonly self: () => Workload | null;
}

/** One dial, wherever it has got to. */
interface Dial {
  readonly target: Picked;
  readonly way: DialWay;
  readonly owner: ChannelOwner;
  readonly timeoutMs: number;
  readonly nowMs: number;
}

export class MeshDialer implements EndpointDialer {
  readonly #options: MeshDialerOptions;
  /** Among the instances of gateways. */
  readonly #balancer: Balancer;

  constructor(options: MeshDialerOptions) {
    this.#options = options;
    this.#balancer = new Balancer({ random: options.random });
  }

  dial(target: Picked, way: DialWay, owner: ChannelOwner, timeoutMs: number, nowMs: number): PendingChannel {
    const dial: Dial = { target, way, owner, timeoutMs, nowMs };
    if (this.#isFar(target.workload)) return this.#throughGateway(dial);
    if (target.ip === null) return this.#resolve(target.workload.hostname, dial, (ip) => this.#dialAt(ip, dial));
    // What it was when the endpoints were looked at last may have changed since.
    const refusal = way.refusal?.(target.ip) ?? null;
    return refusal === null ? this.#dialAt(target.ip, dial) : failLater(owner, refusal, "forbidden");
  }

  isTunnelled({ workload }: Picked): boolean {
    return this.#isFar(workload) || takesTunnels(workload);
  }

  /** On another network, hence behind its gateway. */
  #isFar(workload: Workload): boolean {
    return workload.network !== this.#options.config.network;
  }

  #dialAt(ip: IpAddress, dial: Dial): PendingChannel {
    const { target: { workload, targetPort }, way } = dial;
    if (!takesTunnels(workload)) return way.meshTls === null ? this.#plain(ip, dial, dial.owner, dial.timeoutMs, dial.nowMs) : this.#meshTls(ip, way.meshTls, dial);
    return this.#tunnel({
      tunnelTo: { ip, port: HBONE_PORT }, authority: { kind: "address", address: { ip, port: targetPort } }, acceptedIdentities: acceptedIdentities(workload, way.service), workload, inner: null,
    }, dial);
  }

  #plain(ip: IpAddress, { target }: Dial, owner: ChannelOwner, timeoutMs: number, nowMs: number): PendingChannel {
    const { config, tunnels, due } = this.#options;
    return dialPlain({ namespaceFd: config.namespaceFd, to: { ip, port: target.targetPort }, mark: config.packetMark, keepalive: tunnels.keepalive, timeoutMs }, owner, due(), nowMs);
  }

  #tunnel(way: TunnelWay, dial: Dial, told?: (reached: boolean) => void): PendingChannel {
    const { config, tunnels, due, random, self: ownRecord } = this.#options;
    const { service, traceparent } = dial.way;
    const self = ownRecord();
    if (self === null) return failLater(dial.owner, `${way.workload.uid} is reached by tunnel only, and the configuration has no record of this waypoint to have an identity from`);
    return dialHbone({ namespaceFd: config.namespaceFd, context: tunnels, due: due(), random, self, way, serviceHost: isWorkloadDestination(nameOf(service)) ? null : service.hostname, traceparent, timeoutMs: dial.timeoutMs, ...(told === undefined ? {} : { told }) }, dial.owner, dial.nowMs);
  }

  /** Which endpoint of the service answers is the gateway's choice. */
  #throughGateway(dial: Dial): PendingChannel {
    const { store, self: ownRecord } = this.#options;
    const { target: { workload }, way: { service, servicePort }, owner, nowMs } = dial;
    const self = ownRecord();
    if (self === null) return failLater(owner, `${workload.uid} is on the network ${workload.network}, and the configuration has no record of this waypoint to have an identity from`);
    const decision = chooseGateway(store, this.#balancer, self, { service, servicePort, far: workload, nowMs });
    switch (decision.kind) {
      case "tunnel": return this.#tunnel(wayOf(decision), dial, this.#noteOf(decision.destination));
      case "resolve": return this.#resolve(decision.hostname, dial, (ip) => this.#tunnel(wayOf(withAddress(decision, ip) as TunnelDecision), dial, this.#noteOf(decision.destination)));
      case "refuse":
      case "plain":
      case "passthrough": return failLater(owner, explainOutbound(decision));
      default: return unreachable(decision);
    }
  }

  /** An instance of a gateway that cannot be reached is left out for a while; how many connections each has is not counted. */
  #noteOf({ uid }: Workload): (reached: boolean) => void {
    return (reached) => {
      const nowMs = this.#options.tunnels.nowMs();
      if (!reached) return this.#balancer.failed(uid, nowMs);
      this.#balancer.connected(uid, nowMs);
      this.#balancer.closed(uid);
    };
  }

  /** Mutual TLS as the mesh has it, with a server that ends it itself: a sidecar, or an application with an SVID. */
  #meshTls(ip: IpAddress, alpn: readonly string[], dial: Dial): PendingChannel {
    const { tunnels, due, self: ownRecord } = this.#options;
    const { target: { workload, targetPort }, way: { service }, owner, timeoutMs, nowMs } = dial;
    const self = ownRecord();
    if (self === null) return failLater(owner, `${workload.uid} wants the mesh's mutual TLS, and the configuration has no record of this waypoint to have an identity from`);
    const identity = identityOf(self);
    const anyOf = acceptedIdentities(workload, service);
    const later = new LaterChannel();
    queueMicrotask(() => void (later.cancelled || tunnels.identities.whenAvailable(identity, (available) => {
      if (later.cancelled) return;
      const context = available ? tunnels.identities.tlsContext(identity) : null;
      if (context === null) return owner.connectFailed(`the waypoint has ${tunnels.identities.explain(identity)}`, "tls");
      const judge = (chain: readonly Uint8Array[], chainError: string | null): string | null => {
        if (chainError !== null) return `its certificate does not verify: ${chainError}`;
        const judged = judgePeer(chain, { role: "server", anyOf }, tunnels.clock.wallMs());
        return judged.ok ? tunnels.revocations.find(judged.value.chain) : judged.error.message;
      };
      later.pending = dialTls({
        due: due(), dial: (inner, ms, now) => this.#plain(ip, dial, inner, ms, now), handshake: { context, sni: service.hostname, alpn }, judge, name: formatSocketAddress({ ip, port: targetPort }), timeoutMs,
      }, owner, nowMs);
    })));
    return later;
  }

  #resolve(hostname: string, { owner, nowMs, way }: Dial, found: (ip: IpAddress) => PendingChannel): PendingChannel {
    const { names, self: ownRecord } = this.#options;
    const later = new LaterChannel();
    // A name that is known already answers at once, and whoever dials is not told before it has what it asked for.
    queueMicrotask(() => {
      if (later.cancelled) return;
      names.resolve(hostname, primaryFamily(ownRecord() ?? NO_RECORD), nowMs, (ip) => {
        if (later.cancelled) return;
        if (ip === null) owner.connectFailed(`the name ${hostname} has no address: ${names.failure(hostname) ?? "no answer"}`, "connect");
        else {
          const refusal = way.refusal?.(ip) ?? null;
          const other = refusal === null ? ip : names.addresses(hostname, nowMs).find((one) => way.refusal!(one) === null);
          if (other !== undefined) later.pending = found(other);
          else owner.connectFailed(`the name ${hostname} may not lead there: ${refusal}`, "forbidden");
        }
      });
    });
    return later;
  }
}

const takesTunnels = ({ tunnelProtocol }: Workload): boolean => tunnelProtocol !== "TCP";

const NO_RECORD = { addresses: [] };

const wayOf = ({ tunnelTo, authority, acceptedIdentities: accepted, destination, inner }: TunnelDecision): TunnelWay => ({ tunnelTo, authority, acceptedIdentities: accepted, workload: destination, inner });

/** Stands for a channel whose dialling has yet to begin. */
class LaterChannel implements PendingChannel {
  cancelled = false;
  pending: PendingChannel | null = null;

  cancel(): void {
    this.cancelled = true;
    this.pending?.cancel();
  }
}

function failLater(owner: ChannelOwner, message: string, what: ConnectFailure = "connect"): PendingChannel {
  const later = new LaterChannel();
  queueMicrotask(() => {
    if (!later.cancelled) owner.connectFailed(message, what);
  });
  return later;
}
