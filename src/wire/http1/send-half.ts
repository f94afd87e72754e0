// The body that an HTTP/1 connection sends, the same for both roles: framed as its head said, held back while the socket is behind, and
// never shorter or longer than announced.

import { isForbiddenTrailer } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import { writeBytes } from "../http/text-output.ts";
import { TransportSide } from "./transport-side.ts";
import { writeChunk, writeLastChunk } from "./writer.ts";

/** How a body goes out. */
export const Send = { nothing: 0, length: 1, chunked: 2, raw: 3 } as const;
export type Send = (typeof Send)[keyof typeof Send];

export interface SendingExchange {
  send: Send;
  /** Of a body of known length. */
  sendLeft: number;
  /** The sender was told that nothing was taken, and wants to know when it is. */
  waiting: boolean;
}

const NO_TRAILERS: HeaderList = [];

export abstract class SendHalf<Exchange extends SendingExchange> extends TransportSide {
  /** Throws when the caller broke the order of calls. */
  protected abstract canSend(exchange: Exchange): boolean;
  /** All of our message is written, or our half of the tunnel. */
  protected abstract sent(exchange: Exchange): void;
  abstract abort(exchange: Exchange): void;

  /**
   * Queues `bytes`, all or nothing: returns their number, or 0 when the socket is behind; then keep them and offer them again in
   * `onSendable`. Copies. 0 also after the exchange ended: see its `isClosed`. Bytes of a response that has no body (HEAD, 204, 304)
   * count as taken.
   */
  sendBody(exchange: Exchange, bytes: Uint8Array): number {
    if (!this.canSend(exchange)) return 0;
    if (exchange.send === Send.nothing) return bytes.length;
    if (bytes.length === 0) return 0;
    const pending = this.output.pendingBytes;
    if (pending >= this.limits.outputDataBytesMax) {
      exchange.waiting = true;
      this.counters.stalledOnOutput++;
      return 0;
    }
    if (exchange.send === Send.chunked) writeChunk(this.output, bytes);
    else {
      if (exchange.send === Send.length && (exchange.sendLeft -= bytes.length) < 0) throw new Error("http1: more body than Content-Length said");
      writeBytes(this.output, bytes);
    }
    this.counters.bodyBytesSent += bytes.length;
    this.wrote(pending);
    return bytes.length;
  }

  /** Ends the message, or our half of the tunnel. A body shorter than its Content-Length ends as `abort` does. */
  endBody(exchange: Exchange, trailers: readonly string[] = NO_TRAILERS): void {
    if (!this.canSend(exchange)) return;
    if (exchange.send === Send.length && exchange.sendLeft > 0) return this.abort(exchange);
    if (exchange.send === Send.chunked) {
      const pending = this.output.pendingBytes;
      writeLastChunk(this.output, trailers.length === 0 ? trailers : allowedTrailers(trailers));
      this.wrote(pending);
    }
    exchange.waiting = false;
    this.sent(exchange);
  }
}

function allowedTrailers(trailers: readonly string[]): HeaderList {
  const allowed: HeaderList = [];
  for (let i = 0; i < trailers.length; i += 2) if (!isForbiddenTrailer(trailers[i]!)) allowed.push(trailers[i]!, trailers[i + 1]!);
  return allowed;
}
