// A channel inside a tunnel: one CONNECT stream, at whichever end of it we are.

import type { ByteRange } from "../../wire/http/byte-range.ts";
import { ErrorCode } from "../../wire/http2/errors.ts";
import { type Http2Stream, StreamState } from "../../wire/http2/stream.ts";
import type { TunnelStreamUser } from "../../tunnel/client-tunnel.ts";
import type { CloseCause } from "../../tunnel/close-cause.ts";
import type { TunnelTransport } from "../../tunnel/transport.ts";
import type { Channel } from "./channel.ts";
import { ToldChannel } from "./told-channel.ts";

export class StreamChannel extends ToldChannel implements Channel, TunnelStreamUser {
  readonly #transport: TunnelTransport;
  readonly #stream: Http2Stream;
  #paused = false;
  /** Read while paused; their credit is not given back, so that the stream's window bounds them. */
  #held: Uint8Array[] = [];
  #peerEnded = false;

  constructor(transport: TunnelTransport, stream: Http2Stream) {
    super();
    this.#transport = transport;
    this.#stream = stream;
  }

  write(bytes: Uint8Array): number {
    if (!this.#stream.canSend) return -1;
    return this.#transport.h2.sendData(this.#stream, bytes, false);
  }

  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    while (this.#held.length > 0 && !this.#paused) {
      const chunk = this.#held.shift()!;
      this.user?.onBytes(chunk);
      this.#transport.h2.consumed(this.#stream, chunk.length);
    }
    if (this.#peerEnded) this.tellEnd();
  }

  end(): void {
    this.#transport.h2.endStream(this.#stream);
  }

  close(): void {
    this.end();
  }

  destroy(): void {
    this.user = null;
    this.#held = [];
    if (this.#stream.state !== StreamState.closed) this.#transport.h2.reset(this.#stream, ErrorCode.cancel);
  }

  // The tunnel's events

  onResponse(): void {}

  onStreamData(bytes: ByteRange, end: boolean): void {
    const chunk = bytes.view();
    if (this.#paused) this.#held.push(new Uint8Array(chunk));
    else {
      this.user?.onBytes(chunk);
      this.#transport.h2.consumed(this.#stream, chunk.length);
    }
    if (end) this.onStreamEnd();
  }

  onStreamEnd(): void {
    this.#peerEnded = true;
    if (this.#held.length === 0) this.tellEnd();
  }

  onSendable(): void {
    this.user?.onWritable();
  }

  onStreamReset(_code: number, by: "peer" | "us" | "connection", cause: CloseCause): void {
    this.tellClosed(by === "us" ? "the stream broke HTTP/2" : cause.message);
  }

  onStreamClosed(): void {
    // What was read and not yet handed on comes before the end.
    if (this.#held.length > 0) {
      this.#paused = true;
      this.resume();
    }
    this.tellClosed(null);
  }
}
