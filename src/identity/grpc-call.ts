// One gRPC call over an HTTP/2 session of a channel: messages go out as they are made, and what comes is read while it comes. The library's
// client hands over whole messages, and holds the last one: of a control plane's that is megabytes.

import { type ClientHttp2Stream, constants, type IncomingHttpHeaders } from "node:http2";
import { formatGrpcTimeout } from "../policy/upstream/grpc-timeout.ts";
import { frameGrpcMessage } from "../wire/grpc/message.ts";
import { GrpcMessagePieces, type GrpcMessageSink } from "../wire/grpc/message-pieces.ts";
import { decodeGrpcMessage, GRPC_STATUS_NAMES, type GrpcStatusName, grpcStatusOfHttp, parseGrpcStatusField } from "../wire/grpc/status.ts";

/** How a call ended. */
export interface GrpcEnd {
  readonly status: GrpcStatusName;
  /** In the server's words, or ours where it said nothing. */
  readonly message: string;
}

export interface GrpcCallOptions {
  /** Of a service: `/package.Service/Method`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly messageBytesMax: number;
  /** For the whole of it; null for a stream that stays. */
  readonly timeoutMs: number | null;
  /** Ends the call. */
  readonly signal: AbortSignal;
  readonly sink: GrpcMessageSink;
}

/** What opens a stream: the sessions of a channel. */
export interface GrpcSessions {
  request(method: string, path: string, headers: Record<string, string>, options: object): Promise<ClientHttp2Stream>;
}

const USER_AGENT = "grpc-weft/1";

export class GrpcCall {
  /** Resolves once, however it ends. */
  readonly ended: Promise<GrpcEnd>;
  readonly #end: (end: GrpcEnd) => void;
  readonly #pieces: GrpcMessagePieces;
  #stream: ClientHttp2Stream | null = null;
  /** What the server said in its headers or trailers. */
  #said: GrpcEnd | null = null;
  #over = false;
  /** Messages that the stream is not there for yet. */
  #waiting: Uint8Array[] = [];
  #endAsked = false;

  constructor(sessions: GrpcSessions, options: GrpcCallOptions) {
    this.#pieces = new GrpcMessagePieces(options.sink, options.messageBytesMax);
    const { promise, resolve } = Promise.withResolvers<GrpcEnd>();
    this.ended = promise;
    this.#end = resolve;
    const { signal, timeoutMs } = options;
    const aborted = (): void => this.#finish({ status: "Canceled", message: "given up" });
    if (signal.aborted) {
      aborted();
      return;
    }
    signal.addEventListener("abort", aborted);
    const timer = timeoutMs === null ? null : setTimeout(() => this.#finish({ status: "DeadlineExceeded", message: `no answer within ${timeoutMs} ms` }), timeoutMs);
    void promise.then(() => {
      signal.removeEventListener("abort", aborted);
      if (timer !== null) clearTimeout(timer);
    });
    const headers = {
      ...options.headers, "content-type": "application/grpc", "user-agent": USER_AGENT, te: "trailers", ...(timeoutMs === null ? {} : { "grpc-timeout": formatGrpcTimeout(timeoutMs) }),
    };
    sessions.request("POST", options.path, headers, {}).then((stream) => this.#opened(stream), (cause: unknown) => this.#finish({ status: "Unavailable", message: wordsOf(cause) }));
  }

  /** @param message kept until it is sent. */
  send(message: Uint8Array): void {
    const framed = frameGrpcMessage(message);
    if (this.#stream === null) this.#waiting.push(framed);
    else if (!this.#over) this.#stream.write(framed);
  }

  /** Nothing more is sent. */
  end(): void {
    this.#endAsked = true;
    if (!this.#over) this.#stream?.end();
  }

  #opened(stream: ClientHttp2Stream): void {
    if (this.#over) return stream.close(constants.NGHTTP2_CANCEL);
    this.#stream = stream;
    stream.on("response", (headers) => this.#answered(headers));
    stream.on("trailers", (trailers) => (this.#said ??= statusIn(trailers)));
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("end", () => this.#bodyEnded());
    stream.on("error", (cause: unknown) => this.#finish(this.#said ?? { status: "Unavailable", message: wordsOf(cause) }));
    stream.on("close", () => this.#closed(stream.rstCode));
    for (const framed of this.#waiting.splice(0)) stream.write(framed);
    if (this.#endAsked) stream.end();
  }

  #answered(headers: IncomingHttpHeaders & { readonly ":status"?: number | undefined }): void {
    const httpStatus = headers[":status"] ?? 0;
    const said = statusIn(headers);
    if (httpStatus !== 200) return this.#finish(said ?? { status: grpcStatusOfHttp(httpStatus), message: `HTTP ${httpStatus}` });
    const type = headers["content-type"] ?? "";
    if (!/^application\/grpc(?:\+proto)?(?:;|$)/.test(type)) return this.#finish({ status: "Unknown", message: `content of type ${JSON.stringify(type.slice(0, 100))}, wanted application/grpc` });
    // All there is to a call that fails at once.
    if (said !== null) this.#finish(said);
  }

  #receive(chunk: Buffer): void {
    if (this.#over) return;
    try {
      const taken = this.#pieces.push(chunk);
      if (!taken.ok) this.#finish({ status: "Internal", message: taken.error });
    } catch (cause) {
      // A mistake of ours with what came: the call is lost, and what it was told of before stays in force.
      this.#finish({ status: "Unknown", message: cause instanceof Error ? (cause.stack ?? cause.message) : String(cause) });
    }
  }

  #bodyEnded(): void {
    const cut = this.#pieces.within ? { status: "Internal" as const, message: "the body ended within a message" } : null;
    if (this.#said !== null) this.#finish(cut !== null && this.#said.status === "Ok" ? cut : this.#said);
  }

  #closed(resetCode: number | undefined): void {
    this.#finish(this.#said ?? endOfReset(resetCode ?? constants.NGHTTP2_NO_ERROR));
  }

  #finish(end: GrpcEnd): void {
    if (this.#over) return;
    this.#over = true;
    this.#waiting = [];
    if (this.#stream !== null && !this.#stream.closed) this.#stream.close(end.status === "Ok" ? constants.NGHTTP2_NO_ERROR : constants.NGHTTP2_CANCEL);
    this.#end(end);
  }
}

function statusIn(headers: IncomingHttpHeaders): GrpcEnd | null {
  const field = headers["grpc-status"];
  const status = parseGrpcStatusField(Array.isArray(field) ? field.join(", ") : field);
  if (status === null) return null;
  const message = headers["grpc-message"];
  return { status: GRPC_STATUS_NAMES[status] ?? "Unknown", message: typeof message === "string" ? decodeGrpcMessage(message) : "" };
}

/** gRPC, "Errors": what an RST_STREAM says of a call. */
function endOfReset(code: number): GrpcEnd {
  const message = code === constants.NGHTTP2_NO_ERROR ? "the stream ended without a status" : `the stream was reset with the code ${code}`;
  switch (code) {
    case constants.NGHTTP2_REFUSED_STREAM:
      return { status: "Unavailable", message };
    case constants.NGHTTP2_CANCEL:
      return { status: "Canceled", message };
    case constants.NGHTTP2_ENHANCE_YOUR_CALM:
      return { status: "ResourceExhausted", message };
    case constants.NGHTTP2_INADEQUATE_SECURITY:
      return { status: "PermissionDenied", message };
    default:
      return { status: code === constants.NGHTTP2_NO_ERROR ? "Unavailable" : "Internal", message };
  }
}

const wordsOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause));
