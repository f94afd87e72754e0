// Plaintext from outside the mesh, redirected to port 15006: no identity, so only what the policies allow to everybody,
// then forwarded to the application from the client's own address.

import { formatSocketAddress, type IpAddress, type OrigDst } from "../core/ip.ts";
import type { Workload } from "../mesh/records.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import { originalDestination, remoteAddress } from "../net/original-destination.ts";
import { authorise, type AuthorisationDecision, explainAuthorisation } from "../policy/authorise.ts";
import { judgePlaintext } from "../policy/inbound.ts";
import { summariseAuthorisation } from "../telemetry/decision-record.ts";
import { type CloseCause, causes } from "../tunnel/close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import { Dialled, type DialOwner } from "../tunnel/dialled.ts";
import { EarlyBytes } from "../tunnel/early-bytes.ts";
import type { PlainEnd, PlainSocket, SocketError } from "../tunnel/endpoint-socket.ts";
import type { LiveConnection, LiveConnectionDescription } from "../tunnel/live-connection.ts";
import type { LocalWorkload } from "./local-workloads.ts";
import { PlainRelay } from "../tunnel/plain-relay.ts";
import type { ReportedConnection } from "./report.ts";

export class InboundPlaintext implements PlainEnd, DialOwner, Expiring, LiveConnection {
  readonly #context: DataPlaneContext;
  readonly #local: LocalWorkload;
  readonly #openedMs: number;
  #socket!: PlainSocket;
  #to: OrigDst | null = null;
  #sourceIp: IpAddress | null = null;
  #sourcePort = 0;
  #destination: Workload | null = null;
  #decision: AuthorisationDecision | null = null;
  #early: EarlyBytes | null;
  #dialled: Dialled | null = null;
  #relay: PlainRelay | null = null;
  #report: ReportedConnection | null = null;
  #deadline: DeadlineHandle | null = null;
  #closed = false;

  constructor(context: DataPlaneContext, local: LocalWorkload) {
    this.#context = context;
    this.#local = local;
    this.#openedMs = context.nowMs();
    this.#early = new EarlyBytes(context.budget);
  }

  onOpen(socket: PlainSocket): void {
    this.#socket = socket;
    const { fd } = socket as unknown as { fd: number };
    this.#to = originalDestination(fd);
    const peer = remoteAddress(fd);
    this.#sourceIp = peer?.ip ?? null;
    this.#sourcePort = peer?.port ?? 0;
    this.#local.connections.add(this);
    const full = this.#context.admission.refusal(fd);
    if (full !== null) return this.#close(causes.ourLimit(full));
    if (this.#to === null || this.#sourceIp === null) return this.#close(causes.originalDestinationUnknown);
    this.#judgeFirst();
  }

  #judgeFirst(): void {
    const destination = this.#context.store.workload(this.#local.uid);
    if (destination === undefined) {
      this.#deadline ??= this.#context.deadlines.workload.add(this, this.#context.nowMs());
      return;
    }
    cancelDeadline(this.#deadline);
    this.#destination = destination;
    const to = this.#to!;
    const verdict = judgePlaintext(this.#context.store, destination, to);
    if (verdict.kind === "reject") return this.#close(causes.illegalDestination(verdict.reason));
    const decision = authorise(this.#context.store, destination, this.#facts(), this.#context.config.trustDomains);
    this.#decision = decision;
    this.#context.reporter.authorised("destination", decision);
    if (!decision.allowed) return this.#close(causes.policyDenied(explainAuthorisation(decision)));
    this.#dialled = new Dialled(this.#context, this, to);
    this.#dialled.start(this.#local.sockets, this.#sourceIp);
  }

  dialConnected(socket: PlainSocket): void {
    this.#dialled = null;
    const early = this.#early!;
    early.release();
    this.#early = null;
    this.#reported().established(this.#context.nowMs());
    const relay = new PlainRelay({
      client: this.#socket,
      server: socket,
      meter: this.#reported(),
      halfCloseIdle: this.#context.deadlines.halfClose,
      nowMs: this.#context.nowMs,
      budget: this.#context.budget,
      onFinished: (cause) => this.#end(cause),
    });
    this.#relay = relay;
    relay.start(early.chunks, early.ended, early.paused);
  }

  dialFailed(cause: CloseCause): void {
    this.#dialled = null;
    this.#close(cause);
  }

  onDrain(): void {}

  onData(chunk: Uint8Array): void {
    this.#early?.add(this.#socket, chunk);
  }

  onEnd(): void {
    if (this.#early !== null) this.#early.ended = true;
  }

  onClose(error: SocketError | null): void {
    if (this.#relay === null) this.#close(error === null ? causes.socketClosedEarly : causes.socketReset(error.code ?? error.message));
  }

  onDeadline(): void {
    this.#deadline = null;
    this.#close(causes.workloadUnknown(`the configuration does not know ${this.#local.uid}; waited ${this.#context.config.workloadWaitMs} ms for it`));
  }

  judgeAgain(): void {
    if (this.#closed) return;
    if (this.#destination === null) return this.#judgeFirst();
    const destination = this.#context.store.workload(this.#local.uid);
    if (destination === undefined) return;
    const verdict = judgePlaintext(this.#context.store, destination, this.#to!);
    if (verdict.kind === "reject") return this.destroy(causes.policyChanged(verdict.reason));
    const decision = authorise(this.#context.store, destination, this.#facts(), this.#context.config.trustDomains);
    this.#decision = decision;
    if (!decision.allowed) this.destroy(causes.policyChanged(explainAuthorisation(decision)));
  }

  destroy(cause: CloseCause): void {
    if (this.#relay !== null) this.#relay.destroy(cause);
    else this.#close(cause);
  }

  describe(): LiveConnectionDescription | null {
    if (this.#relay === null) return null;
    return {
      direction: "inbound", source: formatSocketAddress({ ip: this.#sourceIp!, port: this.#sourcePort }),
      asked: null, reached: formatSocketAddress(this.#to!), protocol: "TCP", openedMs: this.#openedMs,
    };
  }

  #facts() {
    return { peer: null, sourceIp: this.#sourceIp!, destinationIp: this.#to!.ip, destinationPort: this.#to!.port };
  }

  #close(cause: CloseCause): void {
    if (this.#closed) return;
    this.#end(cause);
    this.#dialled?.cancel();
    this.#socket.terminate();
  }

  #end(cause: CloseCause): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#early?.release();
    this.#early = null;
    cancelDeadline(this.#deadline);
    this.#local.connections.delete(this);
    this.#reported().close(cause, this.#context.nowMs());
  }

  #reported(): ReportedConnection {
    this.#report ??= this.#context.reporter.open({
      reporter: "destination",
      source: this.#sourceIp === null ? null : (this.#context.store.workloadByAddress(this.#context.config.network, this.#sourceIp) ?? null),
      destination: this.#destination,
      service: null,
      nodeLocal: false,
      sourceIdentity: null,
      destinationIdentity: null,
      sourceAddress: { ip: this.#sourceIp ?? ("0.0.0.0" as IpAddress), port: this.#sourcePort },
      destinationAddress: this.#to,
      hboneAddress: null,
      openedMs: this.#openedMs,
      mutualTls: false,
      decision: { decisionSummary: () => (this.#decision === null ? null : summariseAuthorisation(this.#decision)) },
    });
    return this.#report;
  }
}
