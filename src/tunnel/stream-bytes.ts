// One CONNECT stream as a Node stream, with flow control both ways: what its reader has not taken keeps the window closed, and what
// the tunnel has not taken keeps its writer waiting. Knows nothing of what the bytes are.

import { Duplex } from "node:stream";
import type { ByteRange } from "../wire/http/byte-range.ts";
import { ErrorCode } from "../wire/http2/errors.ts";
import { type Http2Stream, StreamState } from "../wire/http2/stream.ts";
import type { TunnelStreamUser } from "./client-tunnel.ts";
import { type CloseCause, causes } from "./close-cause.ts";
import type { TunnelTransport } from "./transport.ts";

export interface StreamBytesEvents {
  /** The status that CONNECT was answered with; 0 when it was not a number. */
  onAnswer(status: number): void;
  /** The stream is over without an end of its own. May come more than once. */
  onLost(cause: CloseCause): void;
}

export class StreamBytes implements TunnelStreamUser {
  readonly duplex: Duplex;
  readonly #transport: TunnelTransport;
  readonly #events: StreamBytesEvents;
  #stream: Http2Stream | null = null;
  /** Written, and not yet taken by the tunnel. */
  #unsent: { chunk: Uint8Array; readonly done: () => void } | null = null;
  #owedBytes = 0;
  #ended = false;

  constructor(transport: TunnelTransport, events: StreamBytesEvents) {
    this.#transport = transport;
    this.#events = events;
    this.duplex = new Duplex({
      allowHalfOpen: true,
      read: () => this.#giveCredit(),
      write: (chunk: Uint8Array, _encoding, done) => {
        this.#unsent = { chunk, done };
        this.#send();
      },
      final: (done) => {
        if (this.#stream !== null && this.#stream.state !== StreamState.closed) this.#transport.h2.endStream(this.#stream);
        done();
      },
    });
  }

  /** The stream whose user this is; before any event of it. */
  carry(stream: Http2Stream): void {
    this.#stream = stream;
  }

  /** Ends both directions now. Idempotent. */
  close(): void {
    this.#unsent = null;
    if (this.#stream !== null && this.#stream.state !== StreamState.closed) this.#transport.h2.reset(this.#stream, ErrorCode.cancel);
    this.duplex.destroy();
  }

  onResponse(status: number, _headers: unknown, ended: boolean): void {
    this.#events.onAnswer(status);
    if (ended) this.onStreamEnd();
  }

  onStreamData(bytes: ByteRange, end: boolean): void {
    this.#owedBytes += bytes.length;
    if (!this.#ended && this.duplex.push(Buffer.from(bytes.view()))) this.#giveCredit();
    if (end) this.onStreamEnd();
  }

  onStreamEnd(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.duplex.push(null);
  }

  onStreamReset(_code: number, by: "peer" | "us" | "connection", cause: CloseCause): void {
    if (by !== "us") this.#events.onLost(cause);
  }

  onSendable(): void {
    this.#send();
  }

  onStreamClosed(): void {
    this.#events.onLost(causes.tunnelLost("the stream that carried the inner tunnel ended"));
  }

  #send(): void {
    const unsent = this.#unsent;
    if (unsent === null || this.#stream === null || this.#stream.state === StreamState.closed) return;
    const taken = this.#transport.h2.sendData(this.#stream, unsent.chunk, false);
    if (taken < unsent.chunk.length) {
      unsent.chunk = unsent.chunk.subarray(taken);
      return;
    }
    this.#unsent = null;
    unsent.done();
  }

  #giveCredit(): void {
    if (this.#owedBytes > 0 && this.#stream !== null) this.#transport.h2.consumed(this.#stream, this.#owedBytes);
    this.#owedBytes = 0;
  }
}
