// Double HBONE: a second TLS and HTTP/2 connection inside a CONNECT stream to a network gateway, so that the gateway carries
// bytes it cannot read. One inner tunnel for each application connection, as the other implementations do; the outer one is pooled.

import { Duplex } from "node:stream";
import { formatSocketAddress } from "../core/ip.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import { judgePeer } from "../identity/peer-identity.ts";
import { cancelDeadline, type DeadlineHandle, type Expiring } from "../net/deadlines.ts";
import { connectTlsOverStream, type StreamTls, type TlsContext } from "../net/tls.ts";
import { Http2Connection, type Http2Handler } from "../wire/http2/connection.ts";
import { ErrorCode, errorName, type Http2Error } from "../wire/http2/errors.ts";
import { type HeaderBlock, type HeaderList, headerValue } from "../wire/http2/headers.ts";
import type { Http2Stream } from "../wire/http2/stream.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { DataPlaneContext } from "./context.ts";
import type { OutboundTunnel, TunnelStreamUser } from "./outbound-tunnel.ts";
import { TunnelTransport } from "./transport.ts";

export interface InnerTunnelOptions {
  readonly outer: OutboundTunnel;
  readonly outerStream: Http2Stream;
  readonly tls: TlsContext;
  readonly acceptedIdentities: readonly SpiffeId[];
  /** The inner CONNECT request. */
  readonly connectBlock: HeaderBlock;
  /** Owner of the inner stream: told of the answer, or of the failure to get so far (by "connection"). */
  readonly user: TunnelStreamUser;
}

export class InnerTunnel implements Http2Handler, Expiring {
  readonly transport: TunnelTransport;
  /** The inner CONNECT; null until the inner handshake is done. */
  stream: Http2Stream | null = null;
  peerIdentity: SpiffeId | null = null;
  readonly #context: DataPlaneContext;
  readonly #options: InnerTunnelOptions;
  readonly #outer: StreamBytes;
  readonly #tls: StreamTls;
  #deadline: DeadlineHandle | null;
  #writable = true;
  #cause: CloseCause | null = null;

  constructor(context: DataPlaneContext, options: InnerTunnelOptions) {
    this.#context = context;
    this.#options = options;
    this.transport = new TunnelTransport(new Http2Connection({ role: "client", settings: context.http2.client, handler: this, nowMs: context.nowMs }), context.nowMs());
    this.#outer = new StreamBytes(options.outer.transport, options.outerStream, (cause) => this.destroy(cause));
    options.outerStream.user = this.#outer;
    this.#deadline = context.deadlines.tls.add(this, context.nowMs());
    this.#tls = connectTlsOverStream(this.#outer.duplex, options.tls, {
      onSecure: (chain, alpn) => this.#secure(chain, alpn),
      onData: (chunk) => this.transport.receive(chunk, context.nowMs()),
      onDrain: () => {
        this.#writable = true;
        this.transport.onDrain();
      },
      onEnd: () => this.destroy(causes.tunnelLost(`the tunnel inside the one through ${this.#at()} was closed by its peer`)),
      onClose: (error) => this.destroy(causes.tlsFailed(`TLS inside the tunnel through ${this.#at()}: ${error?.message ?? "closed"}`)),
    });
  }

  /** Ends the inner tunnel and the outer stream. Idempotent; the first cause is the one reported. */
  destroy(cause: CloseCause): void {
    if (this.#cause !== null) return;
    this.#cause = cause;
    cancelDeadline(this.#deadline);
    if (this.stream === null) this.#options.user.onStreamReset(ErrorCode.connectError, "connection", cause);
    this.transport.h2.receiveEnd();
    this.transport.detach();
    this.#tls.destroy();
    this.#outer.close();
  }

  onDeadline(): void {
    this.#deadline = null;
    this.destroy(causes.tlsFailed(`TLS inside the tunnel through ${this.#at()}: not finished within ${this.#context.config.tlsTimeoutMs} ms`));
  }

  #secure(chain: Uint8Array[], alpn: string | false): void {
    if (this.#cause !== null) return;
    cancelDeadline(this.#deadline);
    const at = this.#at();
    if (alpn !== "h2") return this.destroy(causes.tlsFailed(`TLS inside the tunnel through ${at}: ALPN is ${alpn || "absent"}, wanted h2`));
    const judged = judgePeer(chain, { role: "server", anyOf: this.#options.acceptedIdentities }, this.#context.clock.wallMs());
    if (!judged.ok) return this.destroy(causes.identityRefused(`HBONE inside the tunnel through ${at} refused: ${judged.error.message}`));
    const revoked = this.#context.revocations.find(judged.value.chain);
    if (revoked !== null) return this.destroy(causes.certificateRevoked(`HBONE inside the tunnel through ${at} refused: ${revoked}`));
    this.peerIdentity = judged.value.id;
    this.transport.attach({ write: (bytes) => this.#write(bytes) });
    const stream = this.transport.h2.request(this.#options.connectBlock, false);
    if (stream === null) return this.destroy(causes.http2Failed(`HTTP/2 inside the tunnel through ${at} takes no streams`));
    stream.user = this.#options.user;
    this.stream = stream;
    this.transport.flush();
  }

  /** node:tls keeps what it is given and then says whether it wants more. */
  #write(bytes: Uint8Array): number {
    if (!this.#writable) return 0;
    this.#writable = this.#tls.write(bytes);
    return bytes.length;
  }

  #at(): string {
    return formatSocketAddress(this.#options.outer.target.tunnelTo);
  }

  // HTTP/2 inside: one stream.

  onRequest(): void {}
  onInformational(): void {}
  onSettings(): void {}
  onGoaway(): void {}
  onPong(): void {}

  onResponse(stream: Http2Stream, headers: HeaderList, endStream: boolean): void {
    const status = headerValue(headers, ":status") ?? "";
    (stream.user as TunnelStreamUser).onResponse(/^[0-9]{3}$/.test(status) ? Number(status) : 0, headers, endStream);
  }

  onData(stream: Http2Stream, chunk: Uint8Array, endStream: boolean): void {
    (stream.user as TunnelStreamUser).onStreamData(chunk, endStream);
  }

  onTrailers(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onStreamEnd();
  }

  onSendable(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onSendable();
  }

  onReset(stream: Http2Stream, code: number, by: "peer" | "us" | "connection"): void {
    const cause = this.#cause ?? causes.streamReset(code, errorName(code));
    (stream.user as TunnelStreamUser).onStreamReset(code, by, cause);
  }

  onClosed(stream: Http2Stream): void {
    (stream.user as TunnelStreamUser).onStreamClosed();
    this.transport.flush();
    this.destroy(causes.clean);
  }

  onFatal(error: Http2Error): void {
    this.destroy(causes.tunnelLost(`HTTP/2 inside the tunnel through ${this.#at()}: ${error.message}`));
  }

  onOutput(): void {
    this.transport?.schedule();
  }
}

/** One HTTP/2 stream as a Node stream, with flow control both ways: what TLS has not taken keeps its window closed. */
class StreamBytes implements TunnelStreamUser {
  readonly duplex: Duplex;
  readonly #transport: TunnelTransport;
  readonly #stream: Http2Stream;
  readonly #lost: (cause: CloseCause) => void;
  /** Written by TLS and not yet taken by the tunnel. */
  #unsent: { chunk: Uint8Array; readonly done: () => void } | null = null;
  #owedBytes = 0;

  constructor(transport: TunnelTransport, stream: Http2Stream, lost: (cause: CloseCause) => void) {
    this.#transport = transport;
    this.#stream = stream;
    this.#lost = lost;
    this.duplex = new Duplex({
      allowHalfOpen: true,
      read: () => this.#giveCredit(),
      write: (chunk: Uint8Array, _encoding, done) => {
        this.#unsent = { chunk, done };
        this.#send();
      },
      final: (done) => {
        transport.h2.endStream(stream);
        done();
      },
    });
  }

  close(): void {
    this.#unsent = null;
    this.#transport.h2.reset(this.#stream, ErrorCode.cancel);
    this.duplex.destroy();
  }

  onResponse(): void {}

  onStreamData(chunk: Uint8Array, end: boolean): void {
    this.#owedBytes += chunk.length;
    if (this.duplex.push(Buffer.from(chunk))) this.#giveCredit();
    if (end) this.onStreamEnd();
  }

  onStreamEnd(): void {
    this.duplex.push(null);
  }

  onStreamReset(_code: number, by: "peer" | "us" | "connection", cause: CloseCause): void {
    if (by !== "us") this.#lost(cause);
  }

  onSendable(): void {
    this.#send();
  }

  onStreamClosed(): void {
    this.#lost(causes.tunnelLost("the stream that carried the inner tunnel ended"));
  }

  #send(): void {
    const unsent = this.#unsent;
    if (unsent === null) return;
    const taken = this.#transport.h2.sendData(this.#stream, unsent.chunk, false);
    if (taken < unsent.chunk.length) {
      unsent.chunk = unsent.chunk.subarray(taken);
      return;
    }
    this.#unsent = null;
    unsent.done();
  }

  #giveCredit(): void {
    if (this.#owedBytes > 0) this.#transport.h2.consumed(this.#stream, this.#owedBytes);
    this.#owedBytes = 0;
  }
}
