// The store, the policy engine and the path decisions over a mesh that changes at random: whatever the history, every answer equals
// that of plain lists, and no decision breaks a promise of its own.

import { deepStrictEqual as equal, ok as holds } from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { seededRandom } from "../../src/core/ports.ts";
import type { TrustDomain } from "../../src/core/spiffe.ts";
import type { Service, Workload } from "../../src/mesh/records.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { authorise, explainAuthorisation } from "../../src/policy/authorise.ts";
import type { AuthorisationSubject } from "../../src/policy/connection-facts.ts";
import { Balancer } from "../../src/policy/balance.ts";
import { judgeInbound, judgePlaintext } from "../../src/policy/inbound.ts";
import { chooseOutbound, explainOutbound } from "../../src/policy/outbound.ts";
import { OWN_PORTS } from "../../src/policy/ports.ts";
import { identityOf, isWaypointIdentity, isWaypointInstance, nameOf } from "../../src/policy/waypoints.ts";
import { formatSocketAddress } from "../../src/core/ip.ts";
import { MeshModel } from "../kit/mesh-model.ts";
import { delta, RandomMesh } from "../kit/mesh-records.ts";

export const name = "mesh";

const OWN = "cluster.local" as TrustDomain;
const ALIAS = "old.example" as TrustDomain;

/** Each iteration applies one random delta and asks a few random questions. Throws with the seed and the iteration. */
export function run({ seed, iterations }: { readonly seed: number; readonly iterations: number }): { iterations: number } {
  const world = new World(seed);
  for (let i = 0; i < iterations; i++) {
    try {
      world.change();
      world.askStore();
      world.askPolicy();
      world.askOutbound();
      world.askInbound();
      if (i % 250 === 249) world.compareWithRebuilt();
    } catch (cause) {
      throw new Error(`mesh: seed ${seed}, iteration ${i}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  }
  return { iterations };
}

class World {
  readonly #mesh: RandomMesh;
  readonly #store = new MeshStore();
  readonly #model = new MeshModel();
  readonly #balancer: Balancer;
  #nowMs = 0;

  constructor(seed: number) {
    const random = seededRandom(seed);
    this.#mesh = new RandomMesh(random);
    this.#balancer = new Balancer({ random });
  }

  change(): void {
    const change = this.#mesh.delta();
    const before = this.#store.counts();
    // What comes as it is here already changes nothing.
    const news = {
      workloads: change.workloads.filter((w) => !isDeepStrictEqual(this.#model.workload(w.uid), w)), services: change.services.filter((s) => !this.#model.services.some((known) => isDeepStrictEqual(known, s))),
      policies: change.policies.filter((p) => !this.#model.policies.some((known) => isDeepStrictEqual(known, p))),
    };
    const touched = this.#store.apply(change);
    this.#model.apply(change);
    for (const w of news.workloads) holds(touched.workloadsChanged.has(w.uid), "an upserted workload is not among the changed");
    for (const s of news.services) holds(touched.servicesChanged.has(nameOf(s)), "an upserted service is not among the changed");
    holds(news.policies.length === 0 || touched.policiesChanged, "an upserted policy went unnoticed");
    const after = this.#store.counts();
    equal([after.workloads, after.services, after.policies], [this.#model.workloads.length, this.#model.services.length, this.#model.policies.length]);
    if (before.workloads > after.workloads) holds(touched.workloadsChanged.size > 0, "a workload vanished unannounced");
    for (const uid of touched.workloadsChanged) this.#balancer.workloadChanged(uid);
    this.#nowMs += this.#mesh.below(2000);
  }

  askStore(): void {
    const { network, namespace, anyAddress, uid, hostname, serviceName } = this.#mesh;
    for (let i = 0; i < 3; i++) {
      const [net, ip, client] = [network(), anyAddress(), namespace()];
      equal(this.#store.workloadByAddress(net, ip), this.#model.workloadByAddress(net, ip));
      equal(this.#store.serviceByAddress(net, ip, client), this.#model.serviceByAddress(net, ip, client));
    }
    const id = uid();
    equal(this.#store.workload(id), this.#model.workload(id));
    const host = hostname();
    equal(this.#store.servicesByHostname(host), this.#model.servicesByHostname(host));
    this.#compareEndpoints(this.#store, serviceName());
  }

  #compareEndpoints(store: MeshStore, name: ReturnType<RandomMesh["serviceName"]>): void {
    const endpoints = store.endpoints(name).map((e) => ({ uid: e.workload.uid, ports: e.ports })).sort((a, b) => (a.uid < b.uid ? -1 : 1));
    equal(endpoints, this.#model.endpoints(name));
    for (const { workload } of store.endpoints(name)) holds(store.workload(workload.uid) === workload, "an endpoint of a workload that is gone");
  }

  askPolicy(): void {
    const w = this.#anyWorkload();
    if (w === undefined) return;
    const mesh = this.#mesh;
    const subject: AuthorisationSubject = {
      peer: mesh.chance(0.2) ? null : mesh.identity(), sourceIp: mesh.anyAddress(), destinationIp: mesh.anyAddress(), destinationPort: mesh.port(),
    };
    const aliased = mesh.chance(0.5);
    const decision = authorise(this.#store, w, subject, aliased ? { own: OWN, aliases: [ALIAS] } : null);
    const expected = this.#model.authorise(w, subject, aliased ? [OWN, ALIAS] : []);
    equal([decision.allowed, decision.reason], [expected.allowed, expected.reason], explainAuthorisation(decision));
    holds((decision.policy !== null) === (decision.reason === "allowed by" || decision.reason === "denied by"), "a rule decided and is not named, or the reverse");
    holds((decision.missing.length > 0) === (decision.reason === "policy not delivered"), "missing policies are named exactly when they decide");
    const matched = decision.dryRun.filter((v) => v.policy.fieldPath !== "").map((v) => `${v.policy.namespace}/${v.policy.name}`);
    equal(new Set(matched), expected.dryRunMatches);
    equal(authorise(this.#store, w, subject, aliased ? { own: OWN, aliases: [ALIAS] } : null), decision, "asked twice, answered differently");
  }

  askOutbound(): void {
    const mesh = this.#mesh;
    const source = this.#anyWorkload();
    if (source === undefined) return;
    const dst = { ip: mesh.anyAddress(), port: mesh.port() };
    const exclude = new Set(mesh.some(2, mesh.uid));
    const d = chooseOutbound(this.#store, this.#balancer, source, dst, this.#nowMs, { exclude });
    explainOutbound(d);
    const service = this.#model.serviceByAddress(source.network, dst.ip, source.namespace);
    const workload = this.#model.workloadByAddress(source.network, dst.ip);
    switch (d.kind) {
      case "passthrough":
        equal(d.to, dst);
        holds(workload === undefined, "a known workload was passed through");
        holds(service === undefined || service.loadBalancing.mode === "passthrough", "a known service was passed through");
        holds(service === undefined || service.waypoints.length === 0 || isWaypointInstance(this.#store, service.waypoints, source), "passed around a waypoint");
        break;
      case "refuse":
        holds(d.reason.length > 0 && d.code.length > 0, "a refusal without a reason");
        break;
      case "plain":
        holds(d.destination.tunnelProtocol === "TCP", "plain TCP to a workload of the mesh");
        holds(d.destination.addresses.includes(d.to.ip), "not an address of the destination");
        this.#notAround(source, d.service, d.destination);
        this.#wellPicked(source, d.service, d.destination, exclude);
        break;
      case "resolve":
        holds(d.destination.hostname === d.hostname, "a name of something else");
        break;
      case "tunnel":
        holds(d.destination.addresses.includes(d.tunnelTo.ip), "the tunnel does not go to its destination");
        holds(d.acceptedIdentities.includes(identityOf(d.destination)), "the destination's own identity would be refused");
        holds((d.role === "gateway") === (d.inner !== null), "double HBONE through a gateway, and only there");
        if (d.role === "endpoint") {
          holds(d.destination.network === source.network, "an address of another network was dialled");
          this.#notAround(source, d.service, d.destination);
          this.#wellPicked(source, d.service, d.destination, exclude);
        }
        if (d.role === "waypoint") {
          equal(d.authority, { kind: "address", address: dst });
          const bound = d.reason === "service waypoint" ? d.service!.waypoints : workload!.waypoints;
          holds(isWaypointInstance(this.#store, bound, d.destination), "sent to something that is not the waypoint");
        }
        if (mesh.chance(0.3)) this.#balancer.connected(d.destination.uid, this.#nowMs);
        else if (mesh.chance(0.5)) this.#balancer.failed(d.destination.uid, this.#nowMs);
        if (mesh.chance(0.3)) this.#balancer.closed(d.destination.uid);
        break;
      default:
        d satisfies never;
    }
  }

  /** Direct traffic is right only where no waypoint stands, or the source is it. */
  #notAround(source: Workload, service: Service | null, destination: Workload): void {
    const bound = service === null ? destination.waypoints : service.waypoints;
    holds(bound.length === 0 || isWaypointInstance(this.#store, bound, source), "went around a waypoint");
  }

  #wellPicked(source: Workload, service: Service | null, destination: Workload, exclude: ReadonlySet<string>): void {
    if (service === null || service.loadBalancing.mode === "passthrough") return;
    holds(destination.services.some((m) => m.service === nameOf(service)), "not an endpoint of the service");
    holds(!exclude.has(destination.uid), "an excluded endpoint was picked");
    holds(destination.status === "healthy" || service.loadBalancing.allowUnhealthy, "an unhealthy endpoint was picked");
    holds(destination.capacity > 0, "a drained endpoint was picked");
    if (service.loadBalancing.mode === "strict" && service.loadBalancing.scopes.includes("node")) holds(destination.node === source.node, "left the node against a strict rule");
  }

  askInbound(): void {
    const mesh = this.#mesh;
    const w = this.#anyWorkload();
    if (w === undefined) return;
    const localIp = w.addresses[0] ?? mesh.address();
    const address = { ip: mesh.chance(0.4) ? localIp : mesh.anyAddress(), port: mesh.port() };
    const authority = mesh.chance(0.5) ? { kind: "address" as const, address } : { kind: "hostname" as const, hostname: mesh.hostname(), port: mesh.port() };
    const peer = mesh.chance(0.2) ? null : mesh.identity();
    const d = judgeInbound(this.#store, w, { authority, localIp, peer });
    if (d.kind === "deliver") {
      holds(!OWN_PORTS.has(d.to.port), "delivered to a port of the mesh");
      const own = d.to.ip === localIp || w.addresses.includes(d.to.ip) || (w.applicationTunnel !== null && ["127.0.0.1", "::1"].includes(d.to.ip));
      holds(own, `delivered to ${formatSocketAddress(d.to)}, which is not the workload's`);
      const addressedItself = authority.kind === "address" && (address.ip === localIp || w.addresses.includes(address.ip));
      const bound = addressedItself ? w.waypoints : authority.kind === "hostname" ? (d.service?.waypoints ?? []) : [];
      holds(bound.length === 0 || isWaypointInstance(this.#store, bound, w) || (peer !== null && isWaypointIdentity(this.#store, bound, peer)), "reached around a waypoint");
    } else {
      holds(d.reason.length > 0, "a refusal without a reason");
    }
    const plain = judgePlaintext(this.#store, w, address);
    if (plain.kind === "deliver") {
      equal(plain.to, address);
      holds(w.waypoints.length === 0 || isWaypointInstance(this.#store, w.waypoints, w), "plain TCP reached a workload around its waypoint");
    }
  }

  /** The same end state, reached in one step, answers the same. */
  compareWithRebuilt(): void {
    const rebuilt = new MeshStore();
    rebuilt.apply(delta({ workloads: this.#model.workloads, services: this.#model.services, policies: this.#model.policies }));
    equal(rebuilt.counts(), this.#store.counts());
    const sorted = (store: MeshStore) => [...store.workloads()].sort((a, b) => (a.uid < b.uid ? -1 : 1));
    equal(sorted(rebuilt), sorted(this.#store));
    for (const s of this.#model.services) this.#compareEndpoints(rebuilt, nameOf(s));
    for (const w of this.#model.workloads) {
      equal(rebuilt.policiesFor(rebuilt.workload(w.uid)!), this.#store.policiesFor(this.#store.workload(w.uid)!));
    }
  }

  #anyWorkload(): Workload | undefined {
    const known = this.#model.workloads;
    return known.length === 0 ? undefined : this.#store.workload(this.#mesh.of(known).uid);
  }
}
