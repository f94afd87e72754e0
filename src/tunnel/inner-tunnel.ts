// Double HBONE: a tunnel inside a CONNECT stream to a network gateway, which carries bytes that it cannot read. Both tunnels are
// pooled: the outer one by the gateway, this one by the service behind it.
//
//   pool ─▶ tunnel to the gateway ─▶ CONNECT service:port ─200─▶ TLS with the far workload ─▶ HTTP/2 ─▶ CONNECT streams of applications

import { formatSocketAddress } from "../core/ip.ts";
import { cancelDeadline } from "../net/deadlines.ts";
import { connectTlsOverStream, type StreamTls, type TlsContext } from "../net/tls.ts";
import { type ChannelEnd, ClientTunnel, type TunnelOwner, type TunnelTarget, type TunnelThrough } from "./client-tunnel.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import { connectRefusal } from "./connect-refusal.ts";
import type { TunnelContext } from "./context.ts";
import type { PoolWaiter } from "./pool.ts";
import { StreamBytes } from "./stream-bytes.ts";

/** `gateway`: waiting for a tunnel to it; `connect`: for its answer; `tls`, `done`: what is heard from here on is the far workload. */
type Step = "gateway" | "connect" | "tls" | "done";

export class InnerTunnel extends ClientTunnel implements PoolWaiter {
  cancelled = false;
  readonly #tls: TlsContext;
  readonly #through: TunnelThrough;
  #step: Step = "gateway";
  #bytes: StreamBytes | null = null;
  #secure: StreamTls | null = null;
  #writable = true;

  constructor(context: TunnelContext, target: TunnelTarget, through: TunnelThrough, tls: TlsContext, owner: TunnelOwner) {
    super(context, target, owner);
    this.#through = through;
    this.#tls = tls;
  }

  override open(): void {
    this.context.pool.acquire(this.#through.gateway, this);
  }

  override get beyondGateway(): boolean {
    return this.#step === "tls" || this.#step === "done";
  }

  protected override attempt(what: string): string {
    return `${what} through the gateway ${formatSocketAddress(this.target.tunnelTo)}`;
  }

  protected override setupTimedOut(): void {
    const { connectResponseTimeoutMs, tlsTimeoutMs } = this.context.config;
    if (this.#step === "connect") this.destroy(causes.connectTimeout(`${this.attempt("CONNECT")}: no answer within ${connectResponseTimeoutMs} ms`));
    else this.destroy(causes.tlsFailed(`${this.attempt("TLS handshake")}: the far workload did not finish it within ${tlsTimeoutMs} ms`));
  }

  protected override endChannel(how: ChannelEnd): void {
    this.cancelled = true;
    if (how === "clean" && this.#secure !== null) this.#secure.end();
    else this.lingered();
  }

  protected override lingered(): void {
    this.#secure?.destroy();
    this.#bytes?.close();
  }

  // 1. A stream to the gateway, and its answer

  tunnelAvailable(outer: ClientTunnel): void {
    if (this.closed) return;
    const bytes = new StreamBytes(outer.transport, { onAnswer: (status) => this.#answered(status), onLost: (cause) => this.#streamLost(cause) });
    const stream = outer.openStream(this.#through.connectBlock(), bytes);
    if (stream === null) return this.destroy(causes.tunnelLost(`${this.attempt("CONNECT")}: no stream could be opened`));
    bytes.carry(stream);
    this.#step = "connect";
    this.#bytes = bytes;
    this.deadline = this.context.deadlines.response.add(this, this.context.nowMs());
  }

  tunnelUnavailable(cause: CloseCause): void {
    this.destroy(cause);
  }

  #answered(status: number): void {
    if (this.closed || this.#step !== "connect") return;
    cancelDeadline(this.deadline);
    if (status !== 200) return this.destroy(connectRefusal(status, this.target.tunnelTo, "gateway"));
    this.#startTls(this.#bytes!);
  }

  #streamLost(cause: CloseCause): void {
    if (!this.closed) this.destroy(cause);
  }

  // 2. TLS with the far workload, inside that stream

  #startTls(bytes: StreamBytes): void {
    this.#step = "tls";
    this.deadline = this.context.deadlines.tls.add(this, this.context.nowMs());
    this.#secure = connectTlsOverStream(bytes.duplex, this.#tls, {
      onSecure: (chain, alpn) => {
        if (this.closed) return;
        this.#step = "done";
        this.secured(chain, alpn, { write: (bytes, offset, length) => this.#write(bytes.subarray(offset, offset + length)) });
      },
      onData: (chunk) => this.received(chunk),
      onDrain: () => {
        this.#writable = true;
        this.transport.onDrain();
      },
      onEnd: () => this.channelClosed("the far workload, or the gateway, closed the connection", false),
      onClose: (error) => {
        this.channelClosed(error?.message ?? "the far workload, or the gateway, closed the connection", error !== null);
        bytes.close();
      },
    });
  }

  /** node:tls keeps what it is given and then says whether it wants more. */
  #write(chunk: Uint8Array): number {
    if (!this.#writable) return 0;
    this.#writable = this.#secure!.write(chunk);
    return chunk.length;
  }
}
