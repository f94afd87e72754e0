// One service, port and subset as requests are sent to it: which endpoint, over which connection, within which limits. Lives as long as
// the service; what the configuration says of it may change meanwhile.

import type { IpAddress } from "../../core/ip.ts";
import { nameHalf, type NamespacedName, namespaceHalf } from "../../core/brand.ts";
import type { Random } from "../../core/ports.ts";
import type { HealthCheck, TrafficPolicy } from "../../mesh/l7/traffic-policy.ts";
import type { Service, Workload } from "../../mesh/records.ts";
import type { CompiledFault } from "../../policy/http/compiled-rule.ts";
import type { AdaptiveLimit } from "../../policy/upstream/adaptive-concurrency.ts";
import { CircuitBreaker } from "../../policy/upstream/circuit-breaker.ts";
import type { UpstreamEndpoint } from "../../policy/upstream/endpoint.ts";
import type { LabelSource } from "../../policy/upstream/labels.ts";
import { RetryBudgetState } from "../../policy/upstream/retry-budget.ts";
import type { LocalRateLimiter } from "../../policy/upstream/rate-limit/local.ts";
import type { ViewFacts } from "../../policy/upstream/view-facts.ts";
import type { UpstreamSettings } from "../../policy/upstream/settings.ts";
import type { NameSource, RefreshRequest } from "../../policy/upstream/endpoint-list.ts";
import { Upstream } from "../../policy/upstream/upstream.ts";
import { type Picked, primaryFamily } from "../../policy/candidates.ts";
import type { ClusterLabels, ClusterState } from "../../telemetry/upstream-metrics.ts";
import { declaresHttp2 } from "../downstream/declared-protocol.ts";
import { type ClusterRules, type ClusterRulesPlace, compileClusterRules, same } from "./cluster-rules.ts";
import { endpointAddress } from "./endpoint-address.ts";
import { EndpointPool, type EndpointWay, type UpstreamVersion } from "./endpoint-pool.ts";
import { HealthChecks, type ProbeGate } from "./health-checks.ts";
import { HealthProbe, type ProbePlace } from "./health-probe.ts";
import type { RequestObserver } from "../request/observer.ts";
import { randomTraceparent } from "../../wire/trace/traceparent.ts";
import type { ChannelOwner, PendingChannel } from "../channel/plain-channel.ts";
import { dynamicHost } from "../services/dynamic-host.ts";
import type { ServiceDirectory } from "../services/service-directory.ts";
import { dialTls } from "./tls-dialer.ts";
import type { UpstreamHost } from "./upstream.ts";

/** How an endpoint is to be reached, beside where it is. */
export interface DialWay {
  readonly service: Service;
  readonly servicePort: number;
  /** Where there is no tunnel, the mesh's mutual TLS is made with the server itself, which is offered these protocols; null: plainly. */
  readonly meshTls: readonly string[] | null;
  /** Why an address that a name leads to may not be reached, or null; null for names that the configuration has. */
  readonly refusal: ((ip: IpAddress) => string | null) | null;
  /** What the other end of a tunnel is told; null: a trace of its own. */
  readonly traceparent: string | null;
}

export interface DialWishes {
  /** Protocols to offer where TLS is originated. */
  readonly alpn: readonly string[];
  /** And where it is the mesh's own. */
  readonly meshAlpn: readonly string[];
  readonly traceparent: string | null;
}

/** Reaches endpoints, however they are reached: plainly, or through their node's ztunnel. */
export interface EndpointDialer {
  /** Fails through `owner`, always after it returned. */
  dial(target: Picked, way: DialWay, owner: ChannelOwner, timeoutMs: number, nowMs: number): PendingChannel;
  /** By HBONE: to the endpoint, or to the gateway before its network. The other end is told of the trace then. */
  isTunnelled(target: Picked): boolean;
}

export interface ClusterContext extends ClusterRulesPlace {
  readonly directory: ServiceDirectory;
  readonly random: Random;
  readonly labels: LabelSource;
  readonly host: UpstreamHost;
  readonly dialer: EndpointDialer;
  /** Null: endpoints that are known by a name are resolved when they are dialled. */
  readonly names: NameSource | null;
  /** Why a name that a client chose may not lead to an address; null when it may. */
  readonly egressRefusal: (ip: IpAddress, allowPrivate: boolean) => string | null;
  readonly observer: Pick<RequestObserver, "upstream" | "endpointNews">;
  readonly probes: ProbeGate;
  /** This waypoint's own record: where it is, for localities. */
  readonly self: () => Workload;
}

export interface ClusterTarget {
  readonly service: NamespacedName;
  readonly port: number;
  readonly subset: string | null;
  readonly clientNamespace: string | null;
}

/** The wildcard that a host is under, with all of its hosts: what they may have at once is bounded for all together. */
export interface WildcardCluster {
  readonly cluster: Cluster;
  /** Closes an idle connection to another host under it. False when there is none. */
  makeRoom(besides: Cluster): boolean;
}

/** What the port's servers speak; `asClient`: what the client of the moment speaks, as it would without us between. */
export type ServerProtocol = "HTTP/1.1" | "HTTP/2" | "asClient";

const HTTP1_ALPN = "http/1.1";
const HTTP2_ALPN = "h2";
/** As sidecars of the mesh tell each other what is inside. */
const MESH_ALPN: Readonly<Record<UpstreamVersion, readonly string[]>> = { "HTTP/1.1": ["istio-http/1.1", "istio", HTTP1_ALPN], "HTTP/2": ["istio-h2", "istio", HTTP2_ALPN] };

interface Pooled {
  /** Where its connections go: a workload that came back elsewhere gets new ones. */
  readonly address: string;
  readonly pool: EndpointPool;
}

export class Cluster {
  readonly target: ClusterTarget;
  /** `shop/web.shop.svc.cluster.local:80|v2`. */
  readonly name: string;
  /** Whose policies hold: the service itself, or the wildcard that its host is under. */
  readonly owner: NamespacedName;
  /** By which its servers are known, where the request does not say. */
  readonly host: string;
  readonly upstream: Upstream;
  readonly breaker: CircuitBreaker;
  readonly budget: RetryBudgetState;
  readonly #context: ClusterContext;
  readonly #pools = new Map<UpstreamEndpoint, Pooled>();
  /** Of endpoints that are gone or elsewhere, until their last request has ended. */
  readonly #leaving = new Set<EndpointPool>();
  #rules: ClusterRules;
  #health: HealthChecks | null = null;
  #service: Service | null = null;
  #lastRefresh: RefreshRequest | null = null;
  #protocol: ServerProtocol = "asClient";
  #closed = false;
  #labels: ClusterLabels | null = null;
  /** A client chose its name. */
  readonly #isDynamic: boolean;
  readonly #wildcard: WildcardCluster | null;

  /** @param wildcard of a host under one; null for any other. */
  constructor(context: ClusterContext, target: ClusterTarget, policy: TrafficPolicy | null, settings: UpstreamSettings, wildcard: WildcardCluster | null = null) {
    const dynamic = dynamicHost(target.service);
    this.#context = context;
    this.target = target;
    this.owner = dynamic?.service ?? target.service;
    this.host = dynamic?.host ?? nameHalf(target.service);
    this.#isDynamic = dynamic !== null;
    this.name = `${namespaceHalf(target.service)}/${this.host}:${target.port}${target.subset === null ? "" : `|${target.subset}`}`;
    this.#rules = this.#compile(policy, settings, null);
    this.upstream = new Upstream({ settings, random: context.random, labels: context.labels });
    this.#wildcard = wildcard;
    this.breaker = new CircuitBreaker(settings.limits, wildcard === null ? null : { breaker: wildcard.cluster.breaker, name: wildcard.cluster.name });
    this.budget = new RetryBudgetState(settings.retryBudget, { requests: () => this.breaker.inUse("activeRequests"), retries: () => this.breaker.inUse("activeRetries") });
    this.#health = this.#healthChecks();
  }

  /**
   * The configuration says something else of it. What was learned stays: latencies, ejections, counts, buckets of limits that are the same,
   * and connections, unless they were made by another TLS.
   */
  reconfigure(policy: TrafficPolicy | null, settings: UpstreamSettings): void {
    const before = this.#rules;
    if (before.policy === policy && same(before.clientCertificate, this.#context.clientCertificate())) return;
    this.#rules = this.#compile(policy, settings, before);
    this.upstream.reconfigure(settings);
    this.breaker.reconfigure(settings.limits);
    this.budget.reconfigure(settings.retryBudget);
    // What its servers speak is said by the settings too.
    if (this.#service !== null) this.#protocol = protocolOf(this.#service, this.target.port, settings);
    if (!same(before.settings.healthCheck, settings.healthCheck)) {
      this.#health?.stop();
      this.#health = this.#healthChecks();
      this.#health?.sync(this.upstream.endpoints);
    }
    if (same(before.settings.tls, settings.tls) && same(before.clientCertificate, this.#rules.clientCertificate)) return;
    for (const [endpoint, { pool }] of this.#pools) this.#letGo(endpoint, pool);
  }

  /** What the settings were made from. */
  get policy(): TrafficPolicy | null {
    return this.#rules.policy;
  }

  get settings(): UpstreamSettings {
    return this.#rules.settings;
  }

  /** Null without adaptive concurrency. */
  get adaptive(): AdaptiveLimit | null {
    return this.#rules.adaptive;
  }

  get faults(): readonly CompiledFault[] {
    return this.#rules.faults;
  }

  /** Null without limits. */
  get rateLimiter(): LocalRateLimiter<ViewFacts> | null {
    return this.#rules.rateLimiter;
  }

  /** What of the settings cannot be enforced, or why nothing may be sent; null when all is well. */
  get broken(): string | null {
    return this.#rules.broken;
  }

  /** Why TLS with its endpoints cannot be had, so that nothing may be sent; null when it can, or is not asked for. */
  get tlsBroken(): string | null {
    return this.#rules.tlsBroken;
  }

  get labels(): ClusterLabels {
    const { service, port, subset } = this.target;
    return (this.#labels ??= { destination_service_namespace: namespaceHalf(service), destination_service_name: this.#context.directory.find(service)?.service.name ?? this.host, port: String(port), subset: subset ?? "" });
  }

  /** Requests are under way. */
  get busy(): boolean {
    return this.breaker.inUse("activeRequests") > 0;
  }

  /** A host whose limits are counted with all of that wildcard. */
  isUnder(wildcard: Cluster): boolean {
    return this.#wildcard?.cluster === wildcard;
  }

  /** Closes one connection that nobody uses. False when there is none. */
  closeIdle(): boolean {
    return [...this.#pools.values()].some(({ pool }) => pool.closeIdle());
  }

  get protocol(): ServerProtocol {
    return this.#protocol;
  }

  get pools(): Iterable<Pooled> {
    return this.#pools.values();
  }

  /** Takes over the endpoints of the moment; cheap when nothing changed. False when the service is not known. */
  refresh(nowMs: number): boolean {
    const request = this.#refreshRequest();
    if (request === null) return false;
    if (this.#service !== request.service) {
      this.#service = request.service;
      this.#protocol = protocolOf(request.service, this.target.port, this.settings);
    }
    if (this.upstream.refresh(request, nowMs)) {
      this.#retireMoved();
      this.#health?.sync(this.upstream.endpoints);
    }
    return true;
  }

  /** Why no endpoint could be picked. */
  explainNothing(): string {
    const request = this.#refreshRequest();
    if (request === null) return `${this.name} is not known`;
    const why = this.upstream.explainNoEndpoint(request);
    const { unhealthy } = this.upstream.counts();
    const parts = Object.entries(why).filter(([key, count]) => key !== "endpoints" && key !== "excluded" && count > 0).map(([key, count]) => `${count} ${key}`);
    if (unhealthy > 0) parts.push(`${unhealthy} failed ${unhealthy === 1 ? "its" : "their"} health check (${this.upstream.endpoints.map((endpoint) => this.healthFailure(endpoint)).find((text) => text !== "") ?? ""})`);
    return `${this.name} has ${why.endpoints} endpoints${parts.length === 0 ? "" : `: ${parts.join(", ")}`}`;
  }

  poolOf(endpoint: UpstreamEndpoint): EndpointPool {
    let pooled = this.#pools.get(endpoint);
    if (pooled === undefined) this.#pools.set(endpoint, (pooled = this.#makePool(endpoint)));
    return pooled.pool;
  }

  /** A channel to one of its endpoints, by TLS where that is asked for. Fails through `owner`, always after it returned. */
  dial(target: Picked, { alpn, meshAlpn, traceparent }: DialWishes, owner: ChannelOwner, timeoutMs: number, nowMs: number): PendingChannel {
    const { dialer, host } = this.#context;
    const way: DialWay = { service: this.#service!, servicePort: this.target.port, meshTls: this.settings.tls.mode === "mesh" ? meshAlpn : null, refusal: this.#refusal(), traceparent };
    const { origin } = this.#rules;
    if (origin === null) return dialer.dial(target, way, owner, timeoutMs, nowMs);
    return dialTls({
      due: host.due, dial: (inner, ms, now) => dialer.dial(target, way, inner, ms, now), handshake: origin.handshake(alpn), judge: (chain, error) => origin.judge(chain, error), name: endpointAddress(target), timeoutMs,
    }, owner, nowMs);
  }

  /** Periodic work: ejection intervals, hash tables. */
  tick(nowMs: number): void {
    this.upstream.tick(nowMs);
    this.upstream.maintain();
    // Names that nobody asks for are forgotten; its endpoints are looked at again only when one of them has changed.
    for (const hostname of this.upstream.hostnames) this.#context.names?.addresses(hostname, nowMs);
    this.refresh(nowMs);
    this.#tellTransitions();
    for (const pool of this.#leaving) if (isEmpty(pool)) this.#leaving.delete(pool);
  }

  /** The configuration says something else now: idle connections close, requests under way go on. */
  retire(): void {
    this.#closed = true;
    this.#health?.stop();
    this.#health = null;
    for (const { pool } of this.#pools.values()) pool.retire();
  }

  destroy(): void {
    this.#closed = true;
    this.#health?.stop();
    this.#health = null;
    for (const pool of this.#allPools()) pool.destroy();
  }

  /** For metrics and the admin pages. */
  state(): ClusterState {
    const { usable, ejected, unhealthy } = this.upstream.counts();
    return { labels: this.labels, breaker: this.breaker, endpoints: { usable, ejected, unhealthy } };
  }

  /** What the last failed health check of an endpoint was; "" without one. */
  healthFailure(endpoint: UpstreamEndpoint): string {
    return this.#health?.lastFailure(endpoint) ?? "";
  }

  /** Nothing is left of it after `retire`. */
  get empty(): boolean {
    for (const pool of this.#allPools()) if (!isEmpty(pool)) return false;
    return true;
  }

  *#allPools(): Iterable<EndpointPool> {
    for (const { pool } of this.#pools.values()) yield pool;
    yield* this.#leaving;
  }

  #makePool(endpoint: UpstreamEndpoint): Pooled {
    const way = this.#wayTo(endpoint.target);
    const pool = new EndpointPool({
      ...way, breaker: this.breaker, limits: () => this.settings.limits,
      makeRoom: () => [...this.#pools].some(([other, pooled]) => other !== endpoint && pooled.pool.closeIdle()) || (this.#wildcard?.makeRoom(this) ?? false),
      told: (outcome) => this.#context.observer.upstream.connection(this.labels, outcome),
    });
    if (this.#closed) pool.retire();
    return { address: way.name, pool };
  }

  #wayTo(target: Picked): EndpointWay {
    return {
      host: this.#context.host, name: endpointAddress(target), scheme: this.#rules.origin === null ? "http" : "https",
      dial: (owner, version, traceparent, timeoutMs, nowMs) => this.dial(target, { alpn: this.#alpn(version), meshAlpn: MESH_ALPN[version], traceparent }, owner, timeoutMs, nowMs),
      traceparent: (ofWaiter) => (this.#context.dialer.isTunnelled(target) ? ofWaiter ?? randomTraceparent(this.#context.random) : null),
      spoken: (version, alpn) => this.#spoken(version, alpn),
      mayDeclineHttp2: () => this.#rules.origin === null && this.#protocol === "asClient",
    };
  }

  #healthChecks(): HealthChecks | null {
    const { healthCheck: check } = this.settings;
    const { host, random, probes, observer } = this.#context;
    if (check === null || this.#closed) return null;
    return new HealthChecks({
      check, due: host.due, nowMs: host.nowMs, random, gate: probes,
      probe: (endpoint, done) => new HealthProbe(this.#probePlace(endpoint, check), check.probe, check.timeoutMs, done),
      answered: (passed) => observer.upstream.healthCheck(this.labels, passed ? "passed" : "failed"),
      changed: (endpoint, to, why) => {
        const first = endpoint.health === "unknown";
        this.upstream.setHealth(endpoint, to, host.nowMs());
        // That all is well from the start is no news.
        if (first && to === "healthy") return;
        observer.endpointNews({ code: to === "healthy" ? "endpoint_healthy" : "endpoint_unhealthy", message: `${this.name}: the endpoint ${endpointAddress(endpoint.target)} is ${to}: ${why}` });
      },
    });
  }

  #probePlace(endpoint: UpstreamEndpoint, { port }: HealthCheck): ProbePlace {
    const target = port === null ? endpoint.target : { ...endpoint.target, targetPort: port };
    return { ...this.#wayTo(target), serviceHost: this.host, version: this.#protocol === "HTTP/2" ? "HTTP/2" : "HTTP/1.1" };
  }

  #tellTransitions(): void {
    const { observer } = this.#context;
    for (const transition of this.upstream.takeTransitions()) {
      const { endpoint, kind, reason } = transition;
      observer.upstream.transition(this.labels, transition);
      observer.endpointNews({
        code: kind === "ejected" ? "endpoint_ejected" : "endpoint_restored",
        message: `${this.name}: the endpoint ${endpointAddress(endpoint.target)} is ${kind === "ejected" ? `out of service: ${reason}` : `back in service: ${reason}`}`,
      });
    }
  }

  /** A server that is declared to speak HTTP/2 is offered nothing else; one that may speak what its client does, what that is and what is below it. */
  #alpn(version: UpstreamVersion): readonly string[] {
    if (version === "HTTP/1.1") return [HTTP1_ALPN];
    return this.#protocol === "HTTP/2" ? [HTTP2_ALPN] : [HTTP2_ALPN, HTTP1_ALPN];
  }

  /** A server that agrees on nothing speaks HTTP/1.1, unless it is declared to speak HTTP/2. */
  #spoken(version: UpstreamVersion, alpn: string | null): UpstreamVersion {
    if (this.#rules.origin === null || this.#protocol === "HTTP/2") return version;
    return alpn === HTTP2_ALPN ? "HTTP/2" : "HTTP/1.1";
  }

  #compile(policy: TrafficPolicy | null, settings: UpstreamSettings, before: ClusterRules | null): ClusterRules {
    return compileClusterRules(policy, settings, before, this, this.#context);
  }

  #retireMoved(): void {
    for (const [endpoint, { address, pool }] of this.#pools) {
      if (!endpoint.gone && endpointAddress(endpoint.target) === address) continue;
      this.#letGo(endpoint, pool);
    }
  }

  #letGo(endpoint: UpstreamEndpoint, pool: EndpointPool): void {
    this.#pools.delete(endpoint);
    pool.retire();
    this.#leaving.add(pool);
  }

  #refreshRequest(): RefreshRequest | null {
    const { directory, self, names } = this.#context;
    const { service: name, port } = this.target;
    const found = directory.find(name);
    if (found === null) return null;
    const { service, endpoints, anyPort } = found;
    const source = self();
    const last = this.#lastRefresh;
    if (last !== null && last.service === service && last.endpoints === endpoints && last.source === source && !this.#isDynamic) return last;
    return (this.#lastRefresh = { service, endpoints, source, servicePort: port, portFallback: anyPort ? port : null, anyNetwork: false, family: primaryFamily(source), names: this.#allowed(names) });
  }

  #refusal(): DialWay["refusal"] {
    const { dynamicHosts } = this.settings;
    return !this.#isDynamic || dynamicHosts === null ? null : (ip) => this.#context.egressRefusal(ip, dynamicHosts.allowPrivate);
  }

  /** Addresses that may not be reached are none; where there is no other, whoever dials says why. */
  #allowed(names: NameSource | null): NameSource | null {
    const refusal = this.#refusal();
    if (names === null || refusal === null) return names;
    return { version: names.version, addresses: (hostname, nowMs) => names.addresses(hostname, nowMs).filter((ip) => refusal(ip) === null) };
  }
}

const isEmpty = ({ connections, waiting }: EndpointPool): boolean => connections + waiting === 0;

function protocolOf(service: Service, port: number, settings: UpstreamSettings): ServerProtocol {
  const { upgradeToHttp2 } = settings.limits;
  if (upgradeToHttp2 === true || declaresHttp2(service, port)) return "HTTP/2";
  return upgradeToHttp2 === false ? "HTTP/1.1" : "asClient";
}
