// What the data path tells about its connections: one record for each, from which metrics and the access log are made.
// Counting is an addition to a kept reference; the log line is built once, at the end, and only when it is wanted.

import type { IpAddress, SocketAddress } from "../core/ip.ts";
import type { Clock, Random } from "../core/ports.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Service, Workload } from "../mesh/records.ts";
import type { AuthorisationDecision } from "../policy/authorise.ts";
import type { DataPlaneConfig } from "../runtime/data-plane-config.ts";
import { AccessLog } from "../telemetry/access-log.ts";
import { FLAG_INDEX } from "../telemetry/connection-labels.ts";
import { ConnectionMetrics, type RouteHistograms, type ConnectionCounters } from "../telemetry/connection-metrics.ts";
import type { DecisionSummary } from "../telemetry/decision-record.ts";
import { LogCredit } from "../telemetry/log-batch.ts";
import type { Cell } from "../telemetry/metric-series.ts";
import type { MetricsSnapshot } from "../telemetry/metrics-snapshot.ts";
import type { Baggage } from "../wire/hbone/baggage.ts";
import { RefusalWarnings } from "../tunnel/refusal-warnings.ts";
import { encodeStaticBlock, type HeaderBlock } from "../wire/http2/headers.ts";
import { responseFields } from "../wire/hbone/connect.ts";
import type { CloseCause } from "../tunnel/close-cause.ts";
import type { FromData } from "./messages.ts";
import type { RetireReason } from "../tunnel/client-tunnel.ts";
import type { PlainMeter } from "../tunnel/plain-relay.ts";
import type { RelayMeter } from "../tunnel/relay.ts";
import { setTunnelGauges, type TunnelGauges } from "../tunnel/thread-tunnels.ts";

/** Who decided about a connection. An object rather than a function: the connection itself is one, and ten thousand idle ones need no more. */
export interface DecisionSource {
  decisionSummary(): DecisionSummary | null;
}

/** Everything a connection's metrics and log line are made from, besides its bytes and its end. */
export interface ConnectionFacts {
  readonly reporter: "source" | "destination";
  readonly source: Workload | null;
  readonly destination: Workload | null;
  readonly service: Service | null;
  /** Carried inside this node without a tunnel. */
  readonly nodeLocal: boolean;
  readonly sourceIdentity: SpiffeId | null;
  readonly destinationIdentity: SpiffeId | null;
  readonly sourceAddress: SocketAddress;
  readonly destinationAddress: SocketAddress | null;
  readonly hboneAddress: SocketAddress | null;
  /** Monotonic. */
  readonly openedMs: number;
  readonly mutualTls: boolean;
  /** Asked only when it is logged. */
  readonly decision: DecisionSource;
  /** What the peer says of itself, used where the store does not know it. */
  readonly baggage?: Baggage | null;
  readonly traceId?: string | null;
}

/** Finds a cell by three label values that come from small sets of constants, without building its key anew each time. */
class CellsByThree {
  readonly #make: (first: string, second: string, third: string) => Cell;
  readonly #cells = new Map<string, Map<string, Map<string, Cell>>>();

  constructor(make: (first: string, second: string, third: string) => Cell) {
    this.#make = make;
  }

  get(first: string, second: string, third: string): Cell {
    let bySecond = this.#cells.get(first);
    if (bySecond === undefined) this.#cells.set(first, (bySecond = new Map()));
    let byThird = bySecond.get(second);
    if (byThird === undefined) bySecond.set(second, (byThird = new Map()));
    let cell = byThird.get(third);
    if (cell === undefined) byThird.set(third, (cell = this.#make(first, second, third)));
    return cell;
  }
}

type Direction = "inbound" | "outbound";
/** How a request for a stream was met: at once, by a new tunnel, by one that others wait for too, or not at all. */
type PoolOutcome = "hit" | "opened" | "waited" | "refused";

export class Reporter {
  readonly #clusterId: string;
  readonly #clock: Clock;
  readonly #post: (message: FromData) => void;
  readonly #metrics = new ConnectionMetrics();
  readonly #log: AccessLog;
  readonly #socketsOpen: Record<ConnectionFacts["reporter"], Cell>;
  readonly #poolRequests: Record<PoolOutcome, Cell>;
  readonly #warnings: RefusalWarnings;
  readonly #closedCells = new CellsByThree((reporter, code, blame) => this.#metrics.cell("weft_connections_closed_total", { reporter, code, blame }));
  readonly #decisionCells = new CellsByThree((reporter, verdict, reason) => this.#metrics.cell("weft_policy_decisions_total", { reporter, verdict, reason }));
  readonly #okBlocks = new WeakMap<Workload, HeaderBlock>();

  /** @param logCredit shared with the writer of the log, so that lines under way are bounded. */
  constructor(config: DataPlaneConfig, world: { clock: Clock; random: Random }, post: (message: FromData) => void, logCredit: SharedArrayBuffer | null) {
    this.#clusterId = config.clusterId;
    this.#clock = world.clock;
    this.#post = post;
    const nowMs = (): number => world.clock.monotonicMs();
    this.#warnings = new RefusalWarnings(nowMs, this.#metrics.cell("weft_log_lines_dropped_total", { where: "warnings" }));
    this.#log = new AccessLog({
      format: config.accessLog, sample: config.accessLogSample, random: world.random,
      post: (lines, lineCount) => post({ kind: "log", lines, lineCount }),
      ...(logCredit === null ? {} : { credit: new LogCredit(logCredit) }),
    });
    const poolRequests = (outcome: string) => this.#metrics.cell("weft_pool_requests_total", { outcome });
    this.#poolRequests = { hit: poolRequests("hit"), opened: poolRequests("opened"), waited: poolRequests("waited"), refused: poolRequests("refused") };
    this.#socketsOpen = {
      source: this.#metrics.cell("istio_tcp_sockets_open", { reporter: "source" }),
      destination: this.#metrics.cell("istio_tcp_sockets_open", { reporter: "destination" }),
    };
  }

  open(facts: ConnectionFacts): ReportedConnection {
    const counters = this.#metrics.labelSet({
      reporter: facts.reporter, source: facts.source, destination: facts.destination, service: facts.service,
      sourceIdentity: facts.sourceIdentity, destinationIdentity: facts.destinationIdentity, mutualTls: facts.mutualTls,
      sourceDescription: facts.source === null ? describeBaggage(facts.baggage) : null,
    });
    const route = this.#metrics.route(facts.reporter, facts.nodeLocal ? "node_local" : facts.mutualTls ? "tunnel" : "plain", facts.service);
    if (facts.nodeLocal) this.#metrics.cell("weft_node_local_connections_total", { reporter: facts.reporter }).value++;
    this.#socketsOpen[facts.reporter].value++;
    return new ReportedConnection(this, facts, counters, route);
  }

  closed(connection: ReportedConnection, cause: CloseCause, nowMs: number): void {
    const { facts } = connection;
    this.#socketsOpen[facts.reporter].value--;
    this.#closedCells.get(facts.reporter, cause.code, cause.blame).value++;
    if (!this.#log.wants(cause.code !== "clean")) return;
    this.#log.write({
      reporter: facts.reporter, source: facts.source, destination: facts.destination, service: facts.service,
      sourceDescription: facts.source === null ? describeBaggage(facts.baggage) : null,
      sourceIdentity: facts.sourceIdentity, destinationIdentity: facts.destinationIdentity,
      sourceAddress: facts.sourceAddress, destinationAddress: facts.destinationAddress, hboneAddress: facts.hboneAddress,
      nodeLocal: facts.nodeLocal, mutualTls: facts.mutualTls, traceId: facts.traceId ?? null, decision: facts.decision.decisionSummary(),
      closedMs: this.#clock.wallMs(), durationMs: nowMs - facts.openedMs, connectMs: connection.connectMs,
      sentBytes: connection.sentBytes, receivedBytes: connection.receivedBytes, close: cause,
    });
  }

  /** The 200 of this workload, encoded once for each version of its record. */
  okBlock(destination: Workload): HeaderBlock {
    let block = this.#okBlocks.get(destination);
    if (block === undefined) this.#okBlocks.set(destination, (block = encodeStaticBlock(responseFields(destination, this.#clusterId))));
    return block;
  }

  authorised(reporter: ConnectionFacts["reporter"], decision: AuthorisationDecision): void {
    this.#decisionCells.get(reporter, decision.allowed ? "allow" : "deny", decision.reason).value++;
    for (const { wouldAllow } of decision.dryRun) this.#metrics.cell("weft_policy_dry_run_total", { would: wouldAllow ? "allow" : "deny" }).value++;
  }

  sourceNotPreserved(): void {
    this.#metrics.cell("weft_source_not_preserved_total", {}).value++;
  }

  endpointRetried(): void {
    this.#metrics.cell("weft_endpoint_retries_total", {}).value++;
  }

  poolRequest(outcome: PoolOutcome): void {
    this.#poolRequests[outcome].value++;
  }

  tunnelRetired(reason: RetireReason): void {
    this.#metrics.cell("weft_pool_tunnels_retired_total", { reason }).value++;
  }

  tunnelOpened(direction: Direction): void {
    this.#metrics.cell("weft_tunnels_opened_total", { direction }).value++;
  }

  tunnelClosed(direction: Direction): void {
    this.#metrics.cell("weft_tunnels_closed_total", { direction }).value++;
  }

  tunnelFailed(direction: Direction, cause: CloseCause): void {
    this.#metrics.cell("weft_tunnel_handshakes_failed_total", { direction, code: cause.code }).value++;
    if (cause.code === "certificate_revoked") {
      this.#metrics.cell("istio_crl_policy_rejections_total", { reporter: direction === "inbound" ? "destination" : "source" }).value++;
    }
  }

  /** A peer was turned away before its handshake, or in its midst. Counted only: a storm must not become a storm of log lines. */
  handshakeRefused(reason: "source" | "total" | "failures" | "evicted" | "full"): void {
    this.#metrics.cell("weft_handshakes_refused_total", { reason }).value++;
  }

  bufferPressed(): void {
    this.#metrics.cell("weft_buffer_pressure_total", {}).value++;
  }

  bufferShed(why: "limit" | "stalled"): void {
    this.#metrics.cell("weft_buffer_shed_total", { why }).value++;
  }

  http2Fatal(counter: string): void {
    this.#metrics.cell("weft_http2_fatal_total", { counter }).value++;
  }

  /** A peer that did not get as far as a connection: a warning with its address, as it has no access log line. */
  refusedTunnel(cause: CloseCause, peerIp: IpAddress, destination: Workload | null): void {
    this.tunnelFailed("inbound", cause);
    if (this.#warnings.take()) this.#post({ kind: "warning", code: cause.code, message: `${cause.message}${destination === null ? "" : ` (for ${destination.uid})`}`, peer: peerIp });
  }

  tick(nowMs: number): void {
    this.#metrics.tick(nowMs);
    this.flush();
  }

  flush(): void {
    this.#log.flush();
  }

  snapshot(tunnels: TunnelGauges, ejected: number): MetricsSnapshot {
    setTunnelGauges(this.#metrics, tunnels);
    this.#metrics.cell("weft_endpoints_ejected", {}).value = ejected;
    this.#metrics.cell("weft_log_lines_total", {}).value = this.#log.madeCount;
    this.#metrics.cell("weft_log_lines_dropped_total", { where: "data" }).value = this.#log.droppedCount;
    return this.#metrics.snapshot();
  }
}

/** One connection as it is reported. `sent` counts bytes towards the client, `received` bytes from it, at either end. */
export class ReportedConnection implements PlainMeter, RelayMeter {
  readonly facts: ConnectionFacts;
  readonly #reporter: Reporter;
  readonly #counters: ConnectionCounters;
  readonly #route: RouteHistograms;
  sentBytes = 0;
  receivedBytes = 0;
  connectMs: number | null = null;
  #socketIsClient = true;
  #twin: ReportedConnection | null = null;
  #closed = false;

  constructor(reporter: Reporter, facts: ConnectionFacts, counters: ConnectionCounters, route: RouteHistograms) {
    this.#reporter = reporter;
    this.facts = facts;
    this.#counters = counters;
    this.#route = route;
  }

  /** The relay's plain socket is the client's (at the source) … */
  asClientSocket(): RelayMeter {
    this.#socketIsClient = true;
    return this;
  }

  /** … or the application's (at the destination). */
  asServerSocket(): RelayMeter {
    this.#socketIsClient = false;
    return this;
  }

  /** Counts for both ends at once: the same bytes are the source's and the destination's. */
  joined(twin: ReportedConnection): PlainMeter {
    this.#twin = twin;
    return this;
  }

  toServer(bytes: number): void {
    this.#receive(bytes);
    if (this.#twin !== null) this.#twin.#receive(bytes);
  }

  toClient(bytes: number): void {
    this.#send(bytes);
    if (this.#twin !== null) this.#twin.#send(bytes);
  }

  fromSocket(bytes: number): void {
    if (this.#socketIsClient) this.#receive(bytes);
    else this.#send(bytes);
  }

  toSocket(bytes: number): void {
    if (this.#socketIsClient) this.#send(bytes);
    else this.#receive(bytes);
  }

  /** The path is usable. Called once, by connections that get so far. */
  established(nowMs: number): void {
    if (this.connectMs !== null) return;
    this.connectMs = nowMs - this.facts.openedMs;
    this.#counters.opened++;
    this.#counters.open++;
    this.#route.connectSeconds.observe(this.connectMs / 1000);
  }

  close(cause: CloseCause, nowMs: number): void {
    if (this.#closed) return;
    this.#closed = true;
    const flag = FLAG_INDEX[cause.flags];
    if (this.connectMs === null) {
      this.#counters.failed[flag]!++;
    } else {
      this.#counters.open--;
      this.#counters.closed[flag]!++;
      this.#route.sentBytes.observe(this.sentBytes);
      this.#route.receivedBytes.observe(this.receivedBytes);
      this.#route.durationSeconds.observe((nowMs - this.facts.openedMs) / 1000);
    }
    this.#reporter.closed(this, cause, nowMs);
  }

  #send(bytes: number): void {
    this.sentBytes += bytes;
    this.#counters.sentBytes += bytes;
  }

  #receive(bytes: number): void {
    this.receivedBytes += bytes;
    this.#counters.receivedBytes += bytes;
  }
}

function describeBaggage(baggage: Baggage | null | undefined) {
  if (baggage === null || baggage === undefined) return null;
  return {
    workloadName: baggage.workloadName, namespace: baggage.namespace, canonicalName: baggage.serviceName, canonicalRevision: baggage.serviceVersion,
    clusterId: baggage.clusterId, region: baggage.region, zone: baggage.zone,
  };
}
