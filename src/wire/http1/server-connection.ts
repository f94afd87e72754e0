// The server's end of an HTTP/1.0 or 1.1 connection (RFC 9112), without IO: bytes in by `receive`, bytes out through `output`, events to
// one handler. It knows no socket, no clock, and no meaning of the requests it carries.
//
//   idle ──bytes──▶ head ──complete──▶ body ──ended──▶ response ──ended──▶ idle, or finishing ──FIN──▶ closed
//                                        └──── 101, or 2xx to CONNECT ────▶ tunnel
//
// One exchange at a time: requests that come behind it wait as bytes, unparsed and bounded, so answers keep their order by themselves.
// What a peer sends never throws: a fault is answered with its status, the connection ends, and what follows is dropped.

import { LENGTH_UNKNOWN } from "../http/content-length.ts";
import { type HttpFields, ListFields } from "../http/fields.ts";
import type { HeaderList } from "../http/header-list.ts";
import { type Host, parseHost } from "../http/host.ts";
import type { HttpResponse } from "../http/message.ts";
import { DEFAULT_PATH_NORMALISATION, type PathNormalisation } from "../http/path.ts";
import { readTarget } from "../http/request-target.ts";
import { BodyDecoder } from "./body-decoder.ts";
import type { Http1Counters } from "./counters.ts";
import { type Http1Code, type Http1Error, peerError, statusOf } from "./errors.ts";
import { HeadFacts, readFacts } from "./framing.ts";
import { HeadOf, HeadParser, Parsed } from "./head-parser.ts";
import type { Http1Limits } from "./limits.ts";
import { Send, SendHalf } from "./send-half.ts";
import { ServerExchange } from "./server-exchange.ts";
import type { TransportEvents } from "./transport-side.ts";
import { CHUNKED, type Framing, type ResponseHeadOptions, UNFRAMED, writeResponseHead } from "./writer.ts";
import { writeText } from "../http/text-output.ts";

export { ServerExchange } from "./server-exchange.ts";

export interface Http1ServerHandler extends TransportEvents {
  /** A valid request. Its fields are borrowed: see `ServerExchange.fields`. */
  onRequest(exchange: ServerExchange): void;
  /** Body, or bytes of a tunnel. `bytes` is a view of what `receive` was given: copy what must outlive the call. */
  onBody(exchange: ServerExchange, bytes: Uint8Array): void;
  /** The last of a request that has a body; in a tunnel, the peer's FIN. */
  onRequestEnd(exchange: ServerExchange, trailers: HeaderList): void;
  /** After `sendBody` took nothing: go on. */
  onSendable(exchange: ServerExchange): void;
  /** The exchange died early: by a fault in the rest of its request, or (null) with the transport. Never after our own `abort`. */
  onAborted(exchange: ServerExchange, error: Http1Error | null): void;
  /** Exactly once for every exchange that was announced, and last. */
  onClosed(exchange: ServerExchange): void;
  /** A fault of the peer, once per connection; the answer is in `output` where there still could be one. */
  onError(error: Http1Error): void;
}

export interface Http1ServerOptions {
  readonly handler: Http1ServerHandler;
  readonly limits?: Http1Limits;
  /** May be shared by all connections of a thread. */
  readonly counters?: Http1Counters;
  readonly pathNormalisation?: PathNormalisation;
  /** Fields for the answer to a fault, e.g. a reason code: name, value, …. */
  readonly errorFields?: (error: Http1Error) => readonly string[];
}

/** What the peer is taking time over; the shell has a deadline for each. */
export type Http1Phase = "idle" | "head" | "body" | "response" | "tunnel" | "finishing" | "closed";

const NO_TRAILERS: HeaderList = [];
const NO_FIELDS = new ListFields([]);

export class Http1ServerConnection extends SendHalf<ServerExchange> {
  private readonly handler: Http1ServerHandler;
  private readonly pathNormalisation: PathNormalisation;
  private readonly errorFields: (error: Http1Error) => readonly string[];
  private readonly parser: HeadParser;
  private readonly facts = new HeadFacts();
  private readonly decoder: BodyDecoder;
  private current: ServerExchange | null = null;
  private draining = false;
  /** While draining: a connection without a request is over. */
  private endsIdle = true;
  /** Too much was pipelined: what comes is dropped, and the present answer is the last. */
  private overflowed = false;
  /** Bytes came right behind the present request's head. */
  private bytesFollow = false;
  private discardLeft = 0;
  private lingerLeft: number;
  private abortive = false;
  /** Requests of one connection nearly always name the same host. */
  private lastHostText = "";
  private lastHost: Host | null = null;

  constructor(options: Http1ServerOptions) {
    super(options.handler, options.limits, options.counters);
    this.handler = options.handler;
    this.pathNormalisation = options.pathNormalisation ?? DEFAULT_PATH_NORMALISATION;
    this.errorFields = options.errorFields ?? ((): readonly string[] => []);
    this.parser = new HeadParser(this.limits);
    this.parser.reset(HeadOf.request);
    this.decoder = new BodyDecoder(this.limits);
    this.lingerLeft = this.limits.lingerBytesMax;
  }

  // ── What callers ask ──────────────────────────────────────────────────────────────────────────────────────────────────────

  get phase(): Http1Phase {
    const exchange = this.current;
    if (this.isClosed) return "closed";
    if (exchange !== null && exchange.isTunnel) return "tunnel";
    if (this.isFinished) return "finishing";
    if (exchange === null) return this.parser.isUnderWay ? "head" : "idle";
    return exchange.requestDone ? "response" : "body";
  }

  /** The exchange under way: what a deadline or a shutdown is about. */
  get exchange(): ServerExchange | null {
    return this.current !== null && !this.current.isClosed ? this.current : null;
  }

  /** The response was cut short: end the transport with a reset, so that the client cannot take it for whole. */
  get needsReset(): boolean {
    return this.abortive;
  }

  // ── Sending ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

  /** A 1xx other than 101. Not sent to HTTP/1.0, which does not know them (RFC 9110, section 15.2). */
  inform(exchange: ServerExchange, status: number, fields: HttpFields = NO_FIELDS): void {
    if (!this.canRespond(exchange)) return;
    if (status < 100 || status > 199 || status === 101) throw new RangeError(`http1: ${status} is no interim response`);
    if (status === 100) exchange.continueSent = true;
    if (exchange.minor === 0) return;
    this.writeHead({ status, fields, framing: UNFRAMED, connection: "" });
    this.counters.informationalResponses++;
  }

  /**
   * The final response, or 101 to a request with `upgrade`. With `endStream` no body follows; without, `sendBody` and `endBody` do.
   * `response.contentLength` frames the body; unknown, it is chunked, and towards HTTP/1.0 ends with the connection.
   * Does nothing when the exchange can no longer be answered.
   */
  respond(exchange: ServerExchange, response: HttpResponse, endStream: boolean): void {
    if (!this.canRespond(exchange)) return;
    const { status, fields } = response;
    exchange.responseStarted = true;
    this.counters.responses++;
    if (status === 101 || (exchange.method === "CONNECT" && status >= 200 && status <= 299)) {
      this.openTunnel(exchange, response);
      return;
    }
    if (status < 200) throw new RangeError(`http1: ${status} is no final response`);
    const framing = this.frame(exchange, response, endStream);
    const keep = this.keepsConnection(exchange);
    exchange.keepAlive = keep;
    this.writeHead({ status, fields, framing, connection: keep ? (exchange.minor === 0 ? "keep-alive" : "") : "close" });
    if (endStream) this.sent(exchange);
  }

  /** The response cannot be completed: the connection dies, so that nobody takes the part for the whole. `onClosed` follows. */
  override abort(exchange: ServerExchange): void {
    if (exchange !== this.current || exchange.isClosed) return;
    this.abortive = exchange.responseStarted || exchange.isTunnel;
    this.close();
    this.closeExchange(exchange);
  }

  /**
   * The next response that begins says that it is the last one, and is. `now`: without a request under way, or after a response that
   * has not said so, the connection ends; a request that is on its way then is lost. `afterNext`: it waits for one, and the caller ends
   * it by `timeOut` when none comes.
   */
  drain(idle: "now" | "afterNext" = "now"): void {
    if (this.draining) return;
    this.draining = true;
    this.endsIdle = idle === "now";
    if (this.endsIdle && this.current === null && !this.parser.isUnderWay && this.heldCount === 0) this.endConnection();
  }

  /** The shell's deadline for this phase has passed. A request under way is answered with 408; an idle connection just ends. */
  timeOut(): void {
    if (this.isClosed) return;
    if (this.isFinished) this.close();
    else if (this.parser.isUnderWay && this.current === null) this.fault("timeout", "the request head did not arrive in time");
    else if (this.current !== null && !this.current.requestDone) this.fault("timeout", "the request body did not arrive in time");
    else if (this.current === null) this.endConnection();
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
      if (exchange !== null && exchange.isTunnel) {
        if (this.paused) break;
        const bytes = at === 0 ? chunk : chunk.subarray(at);
        at = end;
        this.counters.bodyBytesReceived += bytes.length;
        this.handler.onBody(exchange, bytes);
      } else if (this.isFinished) {
        this.linger(end - at);
        at = end;
      } else if (this.overflowed) {
        at = end;
      } else if (exchange === null) {
        // Who does not read the answers gets no more of them: the next request waits for the socket.
        if (this.output.pendingBytes >= this.limits.outputDataBytesMax) break;
        at = this.receiveHead(chunk, at, end);
      } else if (exchange.requestDone || this.paused) {
        break;
      } else {
        at = this.receiveBody(exchange, chunk, at, end);
      }
    }
    return at;
  }

  private receiveHead(chunk: Uint8Array, at: number, end: number): number {
    const parser = this.parser;
    const parsed = parser.parse(chunk, at, end);
    if (parsed === Parsed.needMore) return end;
    if (parsed === Parsed.fault) {
      this.fault(parser.faultCode, parser.faultMessage);
      return end;
    }
    const next = parser.next;
    this.bytesFollow = next < end;
    this.beginRequest();
    return next;
  }

  private beginRequest(): void {
    const { facts } = this;
    const head = this.parser.head;
    this.counters.requests++;
    if (!readFacts(head, facts)) return this.fault(facts.faultCode, facts.faultMessage);
    if (facts.hostCount > 1) return this.fault("severalHosts", "more than one Host");
    if (facts.hostCount === 0 && head.minor === 1) return this.fault("noHost", "HTTP/1.1 without Host");
    if (facts.hostCount === 1 && (this.lastHost === null || !head.valueIs(facts.hostAt, this.lastHostText))) {
      const text = head.valueAt(facts.hostAt);
      const host = parseHost(text);
      if (!host.ok) return this.fault("badHost", `in Host, ${host.error}`);
      this.lastHostText = text;
      this.lastHost = host.value;
    }
    const method = head.method();
    const target = readTarget({ method, target: head.target(), host: facts.hostCount === 0 ? null : this.lastHost }, this.pathNormalisation);
    if (!target.ok) return this.fault(target.error.code, target.error.message);
    const hasBody = facts.chunked || facts.contentLength > 0;
    if (hasBody && (method === "CONNECT" || method === "TRACE")) return this.fault("unexpectedBody", `${method} with a body`);
    if (facts.chunked) this.decoder.beginChunked();
    else this.decoder.beginLength(hasBody ? facts.contentLength : 0);
    const exchange = new ServerExchange({
      method,
      target: target.value,
      fields: head,
      minor: head.minor,
      contentLength: facts.chunked ? LENGTH_UNKNOWN : hasBody ? facts.contentLength : 0,
      hasBody,
      acceptsTrailers: facts.acceptsTrailers,
      expectsContinue: facts.expectsContinue && hasBody,
      upgrade: hasBody || method === "CONNECT" ? null : facts.upgrade,
      keepAlive: facts.keepAlive,
    });
    this.current = exchange;
    this.handler.onRequest(exchange);
  }

  private receiveBody(exchange: ServerExchange, chunk: Uint8Array, from: number, end: number): number {
    const { decoder } = this;
    const at = decoder.decode(chunk, from, end, this);
    if (decoder.isFaulty) {
      this.fault(decoder.faultCode, decoder.faultMessage);
      return end;
    }
    if (decoder.isDone && this.current === exchange && !this.isClosed && !this.isFinished) this.requestEnded(exchange);
    return at;
  }

  /** For the decoder. */
  onBodyBytes(bytes: Uint8Array): boolean {
    const exchange = this.current!;
    this.counters.bodyBytesReceived += bytes.length;
    if (exchange.discarding) {
      this.discardLeft -= bytes.length;
      if (this.discardLeft >= 0) return true;
      this.endConnection();
      return false;
    }
    this.handler.onBody(exchange, bytes);
    return !this.paused && !this.isClosed && !this.isFinished;
  }

  private requestEnded(exchange: ServerExchange): void {
    exchange.requestDone = true;
    this.counters.chunksReceived += this.decoder.chunks;
    const { trailers } = this.decoder;
    if (trailers.length > 0) this.counters.trailersReceived++;
    if (!exchange.discarding) this.handler.onRequestEnd(exchange, trailers);
    if (exchange.responseDone && this.current === exchange) this.endExchange(exchange);
  }

  protected override endOfInput(): void {
    const exchange = this.current;
    if (exchange !== null && exchange.isTunnel) {
      exchange.requestDone = true;
      this.handler.onRequestEnd(exchange, NO_TRAILERS);
      if (exchange.responseDone && this.current === exchange) this.endTunnel(exchange);
      return;
    }
    if (exchange === null || this.isFinished) {
      if (this.parser.isUnderWay && !this.isFinished) this.reportFault(peerError("truncated", "the connection ended within a request head"));
      this.close();
      return;
    }
    // Whoever ends its half after a whole request waits for the answer.
    if (exchange.requestDone) return;
    const error = peerError("truncated", "the connection ended within a request body");
    this.reportFault(error);
    this.close();
    this.abortExchange(error);
  }

  protected override heldTooMuch(bytes: number): boolean {
    const exchange = this.current;
    if (exchange === null || (exchange.requestDone && !exchange.mayBecomeTunnel)) {
      if (bytes <= this.limits.pipelinedBytesMax) return true;
      this.counters.pipelineOverflows++;
      if (exchange === null) {
        this.endConnection();
        return false;
      }
      this.overflowed = true;
      this.dropHeld();
      this.want(false);
      return false;
    }
    if (bytes <= this.limits.heldBytesMax) return true;
    this.fault("heldOverflow", `more than ${this.limits.heldBytesMax} bytes arrived while none could be taken`);
    return false;
  }

  protected override outputConsumed(): void {
    const exchange = this.current;
    if (this.output.pendingBytes >= this.limits.outputDataBytesMax) return;
    if (exchange === null) {
      this.advance();
    } else if (exchange.waiting) {
      exchange.waiting = false;
      this.handler.onSendable(exchange);
    }
  }

  // ── The response and the end ──────────────────────────────────────────────────────────────────────────────────────────────

  private canRespond(exchange: ServerExchange): boolean {
    if (exchange !== this.current || this.isClosed || exchange.isClosed) return false;
    if (exchange.responseStarted) throw new Error("http1: a second response to one request");
    return true;
  }

  protected override canSend(exchange: ServerExchange): boolean {
    if (exchange !== this.current || this.isClosed || exchange.responseDone) return false;
    if (!exchange.responseStarted) throw new Error("http1: a body before its response");
    return true;
  }

  private frame(exchange: ServerExchange, response: HttpResponse, endStream: boolean): Framing {
    const { status, contentLength } = response;
    if (status === 204) return UNFRAMED;
    if (exchange.method === "HEAD" || status === 304) return contentLength === LENGTH_UNKNOWN ? UNFRAMED : { kind: "length", bytes: contentLength };
    if (endStream) {
      if (contentLength > 0) throw new Error("http1: a response ended before the body that its Content-Length promises");
      return { kind: "length", bytes: 0 };
    }
    if (contentLength !== LENGTH_UNKNOWN) {
      exchange.send = Send.length;
      exchange.sendLeft = contentLength;
      return { kind: "length", bytes: contentLength };
    }
    if (exchange.minor === 0) {
      exchange.send = Send.raw;
      exchange.keepAlive = false;
      return UNFRAMED;
    }
    exchange.send = Send.chunked;
    return CHUNKED;
  }

  private keepsConnection(exchange: ServerExchange): boolean {
    if (!exchange.keepAlive || this.draining || this.overflowed) return false;
    // A refused CONNECT: what its client may have sent already, for a tunnel, is on its way and is no request.
    if (exchange.method === "CONNECT") return false;
    if (this.inputEnded && this.heldCount === 0) return false;
    // The client may or may not send the body that it asked about: whatever comes next could be either.
    if (exchange.expectsContinue && !exchange.continueSent && this.decoder.receivedBytes === 0 && !exchange.requestDone) return false;
    // Bytes that were meant for a tunnel which is not opened are no request.
    return !(exchange.mayBecomeTunnel && (this.bytesFollow || this.heldCount > 0));
  }

  private writeHead(options: ResponseHeadOptions): void {
    const pending = this.output.pendingBytes;
    writeResponseHead(this.output, options);
    this.wrote(pending);
  }

  private openTunnel(exchange: ServerExchange, response: HttpResponse): void {
    const { status, fields } = response;
    const { upgrade } = exchange;
    if (status === 101) {
      if (upgrade === null) throw new Error("http1: 101 to a request that asks for no other protocol");
      this.writeHead({ status, fields, framing: UNFRAMED, connection: { upgrade } });
    } else {
      this.writeHead({ status, fields, framing: UNFRAMED, connection: "" });
    }
    exchange.isTunnel = true;
    exchange.requestDone = false;
    exchange.keepAlive = false;
    exchange.send = Send.raw;
    this.counters.tunnels++;
    if (this.heldCount > 0) this.advance();
    else if (this.inputEnded) this.endOfInput();
  }

  protected override sent(exchange: ServerExchange): void {
    exchange.responseDone = true;
    if (exchange.isTunnel) {
      if (exchange.requestDone) this.endTunnel(exchange);
      else this.finish();
      return;
    }
    if (exchange.requestDone) {
      this.endExchange(exchange);
      return;
    }
    this.counters.earlyResponses++;
    // The length of a chunked body is not known; it gets the same budget, counted as it comes.
    const { leftBytes } = this.decoder;
    if (exchange.keepAlive && (leftBytes === Number.POSITIVE_INFINITY || leftBytes <= this.limits.earlyDrainBytesMax)) {
      exchange.discarding = true;
      this.discardLeft = this.limits.earlyDrainBytesMax;
      this.closeExchange(exchange);
      this.resume();
      return;
    }
    this.current = null;
    this.closeExchange(exchange);
    this.endConnection();
  }

  private endExchange(exchange: ServerExchange): void {
    this.current = null;
    this.paused = false;
    this.closeExchange(exchange);
    if (!exchange.keepAlive || this.overflowed) {
      this.endConnection();
      return;
    }
    this.parser.reset(HeadOf.request);
    if (this.heldCount > 0) {
      this.counters.pipelinedRequests++;
      this.advance();
    } else if ((this.draining && this.endsIdle) || this.inputEnded) this.endConnection();
  }

  private endTunnel(exchange: ServerExchange): void {
    this.finish();
    this.close();
    this.closeExchange(exchange);
  }

  /** `onClosed`, once. The exchange may stay `current` while the rest of its request is dropped. */
  private closeExchange(exchange: ServerExchange): void {
    if (exchange.isClosed) return;
    exchange.isClosed = true;
    this.handler.onClosed(exchange);
  }

  /** All answers are out: say no more, and drop what still comes until the peer has read them. */
  private endConnection(): void {
    if (this.isFinished || this.isClosed) return;
    this.parser.reset(HeadOf.request);
    this.finish();
    this.dropHeld();
    if (this.inputEnded) this.close();
  }

  private linger(bytes: number): void {
    this.lingerLeft -= bytes;
    if (this.lingerLeft < 0) this.close();
  }

  private close(): void {
    this.isClosed = true;
    this.finish();
    this.dropHeld();
  }

  private abortExchange(error: Http1Error | null): void {
    const exchange = this.current;
    this.current = null;
    if (exchange === null || exchange.isClosed) return;
    this.handler.onAborted(exchange, error);
    this.closeExchange(exchange);
  }

  private reportFault(error: Http1Error): void {
    this.counters.fault(error.code);
    this.handler.onError(error);
  }

  private fault(code: Http1Code, message: string): void {
    const error = peerError(code, message);
    const exchange = this.current;
    if (exchange !== null && (exchange.responseStarted || exchange.isClosed)) {
      // Too late for another status. Cutting the response is all that is left, unless it went out whole.
      this.abortive = !exchange.responseDone;
      this.reportFault(error);
      if (exchange.responseDone) {
        this.current = null;
        this.endConnection();
        return;
      }
      this.close();
      this.abortExchange(error);
      return;
    }
    this.current = null;
    this.writeError(error, exchange?.method === "HEAD");
    this.reportFault(error);
    if (exchange !== null) {
      this.handler.onAborted(exchange, error);
      this.closeExchange(exchange);
    }
    this.endConnection();
  }

  private writeError(error: Http1Error, isHead: boolean): void {
    const body = `${error.message}\n`;
    const fields = ListFields.of(["content-type", "text/plain", ...this.errorFields(error)]);
    this.writeHead({ status: statusOf(error.code), fields, framing: { kind: "length", bytes: body.length }, connection: "close" });
    if (!isHead) writeText(this.output, body);
  }
}
