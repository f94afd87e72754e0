// An upstream over a store, for tests and simulations of balancing: endpoints by name, settings that differ from the defaults in a
// few fields, a clock that the test moves.

import { type Random, seededRandom } from "../../src/core/ports.ts";
import { emptyTrafficPolicy } from "../../src/mesh/l7/merge-traffic.ts";
import type { ConnectionLimits, TrafficPolicy } from "../../src/mesh/l7/traffic-policy.ts";
import type { Service, Workload } from "../../src/mesh/records.ts";
import { MeshStore } from "../../src/mesh/store.ts";
import { Attempt } from "../../src/policy/upstream/attempt.ts";
import type { UpstreamEndpoint } from "../../src/policy/upstream/endpoint.ts";
import { type LabelSource, NO_LABELS } from "../../src/policy/upstream/labels.ts";
import type { Outcome } from "../../src/policy/upstream/outcome.ts";
import type { RequestFacts } from "../../src/policy/upstream/request-facts.ts";
import { effectiveSettings, type UpstreamSettings } from "../../src/policy/upstream/settings.ts";
import type { NameSource } from "../../src/policy/upstream/endpoint-list.ts";
import type { Pick, UpstreamPickRequest } from "../../src/policy/upstream/pick.ts";
import { Upstream } from "../../src/policy/upstream/upstream.ts";
import { delta, ip, member, service, serviceName, uid, workload } from "./mesh-records.ts";

const SERVICE = service({ name: "web" });
const NAME = serviceName(SERVICE);

/** A record that says nothing but what the test gives. */
export function trafficPolicy(fields: Partial<TrafficPolicy>): TrafficPolicy {
  return { ...emptyTrafficPolicy(NAME), ...fields };
}

/** For tests that set one of them. */
export const NO_LIMITS: ConnectionLimits = {
  connectionsMax: null, pendingRequestsMax: null, activeRequestsMax: null, activeRetriesMax: null, requestsPerConnectionMax: null, connectTimeoutMs: null, idleTimeoutMs: null,
  connectionAgeMaxMs: null, upgradeToHttp2: null,
};

export const DEFAULT_SETTINGS: UpstreamSettings = effectiveSettings(null, null)!;

/** An endpoint of the service named by its uid. */
export const endpoint = (name: string, fields: Partial<Workload> = {}): Workload =>
  workload({ name, uid: uid(name), addresses: [ip("198.18.0.1")], services: member({ [NAME]: { 80: 8080 } }), ...fields });

export const endpoints = (count: number, fields: (i: number) => Partial<Workload> = () => ({})): Workload[] =>
  Array.from({ length: count }, (_, i) => endpoint(`e${i}`, fields(i)));

export interface FixtureOptions {
  readonly settings?: Partial<UpstreamSettings>;
  readonly service?: Partial<Service>;
  readonly source?: Workload;
  readonly seed?: number;
  readonly labels?: LabelSource;
}

export class UpstreamFixture {
  readonly store = new MeshStore();
  readonly upstream: Upstream;
  readonly random: Random;
  readonly source: Workload;
  nowMs = 0;
  names: NameSource | null = null;

  constructor(workloads: readonly Workload[], options: FixtureOptions = {}) {
    this.random = seededRandom(options.seed ?? 7);
    this.source = options.source ?? workload({ name: "client", locality: { region: "", zone: "", subzone: "" } });
    this.store.apply(delta({ services: [{ ...SERVICE, ...options.service }], workloads }));
    this.upstream = new Upstream({ settings: { ...DEFAULT_SETTINGS, ...options.settings }, random: this.random, labels: options.labels ?? NO_LABELS });
    this.refresh();
  }

  refresh(): boolean {
    return this.upstream.refresh({
      service: this.store.service(NAME)!, endpoints: this.store.endpointSet(NAME)!, source: this.source, servicePort: 80, portFallback: null, anyNetwork: false, family: 4, names: this.names,
    }, this.nowMs);
  }

  /** Adds or replaces endpoints. */
  add(...workloads: readonly Workload[]): void {
    this.store.apply(delta({ workloads }));
    this.refresh();
  }

  remove(...names: readonly string[]): void {
    this.store.apply(delta({ removedWorkloads: names.map(uid) }));
    this.refresh();
  }

  pick(request: Partial<UpstreamPickRequest> = {}): Pick {
    return this.upstream.pick({ nowMs: this.nowMs, hash: 0, tried: [], sticky: null, mayProbe: true, ...request });
  }

  name(request: Partial<UpstreamPickRequest> = {}): string {
    const pick = this.pick(request);
    return pick.endpoint === null ? pick.reason : pick.endpoint.target.workload.uid;
  }

  of(name: string): UpstreamEndpoint {
    const found = this.upstream.endpoint(uid(name));
    if (found === undefined) throw new Error(`no endpoint ${name}`);
    return found;
  }

  /** How often each was picked. */
  tally(count: number, request: (i: number) => Partial<UpstreamPickRequest> = () => ({})): Record<string, number> {
    const counts: Record<string, number> = {};
    for (let i = 0; i < count; i++) {
      const name = this.name(request(i));
      counts[name] = (counts[name] ?? 0) + 1;
    }
    return counts;
  }

  /** One whole request at an endpoint, without picking. */
  request(name: string, outcome: Outcome, latencyMs = 5, retryAfterMs = -1): void {
    const attempt = new Attempt();
    attempt.start(this.upstream, { endpoint: this.of(name), reason: "balanced" }, this.nowMs);
    attempt.settle(outcome, this.nowMs + latencyMs, retryAfterMs);
    attempt.end(this.nowMs + latencyMs);
  }

  /** Requests that are answered at once by whoever is picked. */
  serve(count: number, outcomeOf: (name: string) => Outcome, latencyMs = 5): void {
    for (let i = 0; i < count; i++) {
      const attempt = new Attempt();
      const name = attempt.start(this.upstream, this.pick(), this.nowMs).target.workload.uid;
      attempt.settle(outcomeOf(name), this.nowMs + latencyMs);
      attempt.end(this.nowMs + latencyMs);
    }
  }
}

/** A request as decisions see it. */
export function requestFacts(fields: {
  readonly headers?: Readonly<Record<string, string>>; readonly cookies?: Readonly<Record<string, string>>; readonly query?: Readonly<Record<string, string>>;
  readonly claims?: Readonly<Record<string, string>>; readonly path?: string; readonly sourceIp?: string | null; readonly identity?: string | null;
}): RequestFacts {
  return {
    header: (name) => fields.headers?.[name] ?? null,
    cookie: (name) => fields.cookies?.[name] ?? null,
    query: (name) => fields.query?.[name] ?? null,
    claim: (path) => fields.claims?.[path.join(".")] ?? null,
    path: fields.path ?? "/", sourceIp: fields.sourceIp ?? null, identity: fields.identity ?? null,
  };
}

