// The client's end of an HTTP/1.1 connection (RFC 9112), without IO: bytes in by `receive`, bytes out through `output`, events to one
// handler. One request at a time. It can be used again only after an exchange that ended cleanly on both sides: a byte too many, a body
// cut short, a response before its request had ended, and the connection is spent.
//
// What a server sends never throws: a fault ends the connection, and the exchange with it.

import { LENGTH_UNKNOWN } from "../http/content-length.ts";
import type { HeaderList } from "../http/header-list.ts";
import { BodyDecoder } from "./body-decoder.ts";
import { ClientExchange, IncomingResponse } from "./client-exchange.ts";
import type { Http1Counters } from "./counters.ts";
import { type Http1Code, type Http1Error, peerError } from "./errors.ts";
import { HeadFacts, readFacts } from "./framing.ts";
import { HeadOf, HeadParser, Parsed } from "./head-parser.ts";
import type { Http1Limits } from "./limits.ts";
import { Send, SendHalf } from "./send-half.ts";
import type { TransportEvents } from "./transport-side.ts";
import { CHUNKED, type Framing, type OutgoingRequest, UNFRAMED, writeRequestHead } from "./writer.ts";

export { ClientExchange, IncomingResponse, outgoingRequest } from "./client-exchange.ts";
export type { OutgoingRequest } from "./writer.ts";

export interface Http1ClientHandler extends TransportEvents {
  /** A 1xx before the response; never 101. */
  onInformational(exchange: ClientExchange, response: IncomingResponse): void;
  /** The response, or 101, or 2xx to CONNECT: then `exchange.isTunnel`. With `endStream` no body follows. */
  onResponse(exchange: ClientExchange, response: IncomingResponse, endStream: boolean): void;
  /** Body, or bytes of a tunnel. `bytes` is a view of what `receive` was given: copy what must outlive the call. */
  onBody(exchange: ClientExchange, bytes: Uint8Array): void;
  /** The last of a response that has a body; in a tunnel, the peer's FIN. */
  onResponseEnd(exchange: ClientExchange, trailers: HeaderList): void;
  /** After `sendBody` took nothing: go on. */
  onSendable(exchange: ClientExchange): void;
  /** The exchange died early: by a fault of the server, or (null) with the transport. Never after our own `abort`. */
  onAborted(exchange: ClientExchange, error: Http1Error | null): void;
  /** Exactly once for every exchange, and last. The connection may be asked for the next request from here, if it is `reusable`. */
  onClosed(exchange: ClientExchange): void;
  /** A fault of the server, once per connection. */
  onError(error: Http1Error): void;
}

export interface Http1ClientOptions {
  readonly handler: Http1ClientHandler;
  readonly limits?: Http1Limits;
  /** May be shared by all connections of a thread. */
  readonly counters?: Http1Counters;
}

const NO_TRAILERS: HeaderList = [];
const UNEXPECTED_BYTES = peerError("unexpectedBytes", "the server sent bytes that no request asked for");
/** Requests with these say that they have no body (RFC 9110, section 8.6). */
const METHODS_WITH_BODY = new Set(["POST", "PUT", "PATCH"]);

export class Http1ClientConnection extends SendHalf<ClientExchange> {
  private readonly handler: Http1ClientHandler;
  private readonly parser: HeadParser;
  private readonly facts = new HeadFacts();
  private readonly decoder: BodyDecoder;
  private current: ClientExchange | null = null;
  private draining = false;
  private sawBytes = false;
  /** Bytes followed the response that ends now. Known before anybody can ask for the next request, whose response they would become. */
  private trailing = false;

  constructor(options: Http1ClientOptions) {
    super(options.handler, options.limits, options.counters);
    this.handler = options.handler;
    this.parser = new HeadParser(this.limits);
    this.parser.reset(HeadOf.response);
    this.decoder = new BodyDecoder(this.limits);
  }

  // ── What callers ask ──────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A request may be sent now. */
  get reusable(): boolean {
    return this.current === null && !this.isClosed && !this.isFinished && !this.draining && !this.inputEnded && this.heldCount === 0;
  }

  get exchange(): ClientExchange | null {
    return this.current;
  }

  /** Something came back for the present, or the last, request: after this it may not be repeated for being unanswered. */
  get answered(): boolean {
    return this.sawBytes;
  }

  // ── Sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** Null when the connection is not `reusable`. Without `endStream`, `sendBody` and `endBody` follow. */
  request(request: OutgoingRequest, endStream: boolean): ClientExchange | null {
    if (!this.reusable) return null;
    const exchange = new ClientExchange(request, endStream);
    if (exchange.mayBecomeTunnel && !endStream) throw new Error("http1: a request for a tunnel has no body; its bytes come after the answer");
    this.parser.reset(HeadOf.response);
    const pending = this.output.pendingBytes;
    writeRequestHead(this.output, request, frame(exchange, request, endStream), !endStream);
    this.current = exchange;
    this.sawBytes = false;
    this.counters.requests++;
    this.wrote(pending);
    return exchange;
  }

  protected override sent(exchange: ClientExchange): void {
    exchange.requestDone = true;
    if (!exchange.isTunnel) return;
    this.finish();
    if (exchange.responseDone) this.endExchange(exchange);
  }

  /** Nobody wants the response any more: the connection dies with it. `onClosed` follows. */
  override abort(exchange: ClientExchange): void {
    if (exchange !== this.current) return;
    this.close();
    this.closeExchange(exchange);
  }

  /** No more requests; the present exchange goes on to its end. */
  drain(): void {
    this.draining = true;
    if (this.current === null) this.close();
  }

  /** The transport is gone. */
  transportClosed(): void {
    if (this.isClosed) return;
    this.close();
    this.abortExchange(null);
  }

  // ── Receiving ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

  protected override run(chunk: Uint8Array, from: number): number {
    const end = chunk.length;
    let at = from;
    while (at < end && !this.isClosed) {
      const exchange = this.current;
      if (exchange === null) {
        this.fault(UNEXPECTED_BYTES.code, UNEXPECTED_BYTES.message);
        return end;
      }
      this.sawBytes = true;
      if (this.paused) break;
      if (exchange.isTunnel) {
        const bytes = at === 0 ? chunk : chunk.subarray(at);
        at = end;
        this.counters.bodyBytesReceived += bytes.length;
        this.handler.onBody(exchange, bytes);
      } else if (!exchange.responseStarted) {
        at = this.receiveHead(exchange, chunk, at, end);
      } else {
        at = this.receiveBody(exchange, chunk, at, end);
      }
    }
    return at;
  }

  private receiveHead(exchange: ClientExchange, chunk: Uint8Array, at: number, end: number): number {
    const parser = this.parser;
    const parsed = parser.parse(chunk, at, end);
    if (parsed === Parsed.needMore) return end;
    if (parsed === Parsed.fault) {
      this.fault(parser.faultCode, parser.faultMessage);
      return end;
    }
    const { next, head } = parser;
    const { facts } = this;
    if (!readFacts(head, facts)) {
      this.fault(facts.faultCode, facts.faultMessage);
      return end;
    }
    const { status } = head;
    if (status === 101 || (exchange.method === "CONNECT" && status >= 200 && status <= 299)) this.openTunnel(exchange);
    else if (status < 200) this.beInformed(exchange);
    else this.beginResponse(exchange, next < end);
    return next;
  }

  private openTunnel(exchange: ClientExchange): void {
    const { head } = this.parser;
    if (head.status === 101 && (exchange.upgrade === null || this.facts.upgrade !== exchange.upgrade)) {
      this.fault("unexpectedUpgrade", "the server changed to a protocol that was not asked for");
      return;
    }
    this.counters.responses++;
    this.counters.tunnels++;
    exchange.responseStarted = true;
    exchange.isTunnel = true;
    exchange.requestDone = false;
    exchange.keepAlive = false;
    exchange.send = Send.raw;
    this.handler.onResponse(exchange, new IncomingResponse(head.status, head), false);
  }

  private beInformed(exchange: ClientExchange): void {
    const { head } = this.parser;
    this.counters.informationalResponses++;
    if (++exchange.informationalCount > this.limits.informationalResponsesMax) {
      this.fault("informationalFlood", `more than ${this.limits.informationalResponsesMax} interim responses to one request`);
      return;
    }
    this.handler.onInformational(exchange, new IncomingResponse(head.status, head));
    this.parser.reset(HeadOf.response);
  }

  private beginResponse(exchange: ClientExchange, bytesFollow: boolean): void {
    const { head } = this.parser;
    const { facts, decoder } = this;
    const { status } = head;
    this.counters.responses++;
    exchange.responseStarted = true;
    exchange.keepAlive = facts.keepAlive;
    let contentLength = facts.contentLength;
    if (exchange.method === "HEAD" || status === 204 || status === 304) {
      // A server that announces a body where none can be may well send one.
      if (status === 204) {
        if (facts.chunked || contentLength > 0) exchange.keepAlive = false;
        contentLength = LENGTH_UNKNOWN;
      }
      decoder.beginNone();
    } else if (facts.chunked) {
      decoder.beginChunked();
    } else if (contentLength !== LENGTH_UNKNOWN) {
      decoder.beginLength(contentLength);
    } else {
      decoder.beginUntilClose();
      exchange.keepAlive = false;
    }
    const endStream = decoder.isDone;
    if (endStream) this.trailing = bytesFollow;
    this.handler.onResponse(exchange, new IncomingResponse(status, head, contentLength), endStream);
    if (endStream && exchange === this.current) this.responseEnded(exchange);
  }

  private receiveBody(exchange: ClientExchange, chunk: Uint8Array, from: number, end: number): number {
    const { decoder } = this;
    const at = decoder.decode(chunk, from, end, this);
    if (decoder.isFaulty) {
      this.fault(decoder.faultCode, decoder.faultMessage);
      return end;
    }
    if (decoder.isDone && this.current === exchange) {
      this.trailing = at < end;
      this.counters.chunksReceived += decoder.chunks;
      this.endOfBody(exchange);
    }
    return at;
  }

  /** For the decoder. */
  onBodyBytes(bytes: Uint8Array): boolean {
    this.counters.bodyBytesReceived += bytes.length;
    this.handler.onBody(this.current!, bytes);
    return !this.paused && !this.isClosed;
  }

  private endOfBody(exchange: ClientExchange): void {
    const { trailers } = this.decoder;
    if (trailers.length > 0) this.counters.trailersReceived++;
    this.handler.onResponseEnd(exchange, trailers);
    if (exchange === this.current) this.responseEnded(exchange);
  }

  protected override endOfInput(): void {
    const exchange = this.current;
    if (exchange === null) {
      this.close();
      return;
    }
    if (exchange.isTunnel) {
      exchange.responseDone = true;
      this.handler.onResponseEnd(exchange, NO_TRAILERS);
      if (exchange.requestDone && exchange === this.current) this.endExchange(exchange);
      return;
    }
    if (exchange.responseStarted && this.decoder.endOfConnection()) {
      this.endOfBody(exchange);
      return;
    }
    const what = exchange.responseStarted ? "within the response body" : this.sawBytes ? "within the response head" : "before it answered";
    this.fault("truncated", `the server ended the connection ${what}`);
  }

  protected override heldTooMuch(bytes: number): boolean {
    if (bytes <= this.limits.heldBytesMax) return true;
    this.fault("heldOverflow", `more than ${this.limits.heldBytesMax} bytes arrived while none could be taken`);
    return false;
  }

  protected override outputConsumed(): void {
    const exchange = this.current;
    if (exchange === null || !exchange.waiting || this.output.pendingBytes >= this.limits.outputDataBytesMax) return;
    exchange.waiting = false;
    this.handler.onSendable(exchange);
  }

  // ── The end ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  protected override canSend(exchange: ClientExchange): boolean {
    if (exchange !== this.current || this.isClosed || exchange.requestDone) {
      if (exchange === this.current && exchange.mayBecomeTunnel && !exchange.responseStarted) throw new Error("http1: bytes for a tunnel before it was granted");
      return false;
    }
    return true;
  }

  private responseEnded(exchange: ClientExchange): void {
    exchange.responseDone = true;
    // On the wire a body of known length has ended with its last byte, whether or not `endBody` was called yet.
    if (!exchange.requestDone && !(exchange.send === Send.length && exchange.sendLeft === 0)) {
      this.counters.earlyResponses++;
      exchange.keepAlive = false;
    }
    this.endExchange(exchange);
  }

  private endExchange(exchange: ClientExchange): void {
    this.current = null;
    this.paused = false;
    const lasts = exchange.keepAlive && !this.draining && !this.inputEnded;
    if (!lasts || this.trailing) this.close();
    // After a response that was the last anyway, nobody looks at what follows.
    if (lasts && this.trailing) this.report(UNEXPECTED_BYTES);
    this.closeExchange(exchange);
    // Not before: `onClosed` may still look at the fields. And not over the next request, which has done it itself.
    if (this.current === null) this.parser.reset(HeadOf.response);
  }

  private closeExchange(exchange: ClientExchange): void {
    this.current = null;
    if (exchange.isClosed) return;
    exchange.isClosed = true;
    this.handler.onClosed(exchange);
  }

  private close(): void {
    this.isClosed = true;
    this.finish();
    this.dropHeld();
  }

  private abortExchange(error: Http1Error | null): void {
    const exchange = this.current;
    if (exchange === null) return;
    this.handler.onAborted(exchange, error);
    this.closeExchange(exchange);
  }

  private fault(code: Http1Code, message: string): void {
    const error = peerError(code, message);
    this.close();
    this.report(error);
    this.abortExchange(error);
  }

  private report(error: Http1Error): void {
    this.counters.fault(error.code);
    this.handler.onError(error);
  }
}

function frame(exchange: ClientExchange, request: OutgoingRequest, endStream: boolean): Framing {
  if (endStream) return METHODS_WITH_BODY.has(request.method) ? { kind: "length", bytes: 0 } : UNFRAMED;
  if (request.contentLength !== LENGTH_UNKNOWN) {
    exchange.send = Send.length;
    exchange.sendLeft = request.contentLength;
    return { kind: "length", bytes: request.contentLength };
  }
  exchange.send = Send.chunked;
  return CHUNKED;
}
