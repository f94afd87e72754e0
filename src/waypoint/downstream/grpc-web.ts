// A client that speaks gRPC-Web, seen as one that speaks gRPC: on ports that are declared so, as in Istio. Behind it everything is gRPC:
// routes, time limits, retries, answers of our own.

import { ok } from "../../core/result.ts";
import { LENGTH_UNKNOWN } from "../../wire/http/content-length.ts";
import { type HttpFields, ListFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import { frameWebTrailers, WebTextDecoder } from "../../wire/grpc/web.ts";
import { GRPC_STATUS, REASON_HEADER } from "../../policy/http/reason-codes.ts";
import type { NewStream } from "./downstream.ts";
import type { DownstreamUser, HttpVersion } from "../channel/streams.ts";

const WEB_TYPE = /^application\/grpc-web(-text)?(\+[a-z0-9.-]+)?\s*(?:;|$)/i;
/** Encoded at once: what a slow client has not taken of it waits here. */
const TEXT_CHUNK_BYTES = 48 * 1024;
const NO_TRAILERS: HeaderList = [];
const NOTHING = new Uint8Array(0);

/** The stream as gRPC, or the same stream when it is none of gRPC-Web. */
export function withoutGrpcWeb(stream: NewStream): NewStream {
  const match = WEB_TYPE.exec(stream.request.fields.value("content-type") ?? "");
  return match === null ? stream : new GrpcWebStream(stream, { requestIsText: match[1] !== undefined, suffix: match[2] ?? "" });
}

interface WebForm {
  readonly requestIsText: boolean;
  /** Of the content type: `+proto`, or nothing. */
  readonly suffix: string;
}

class GrpcWebStream implements NewStream, DownstreamUser {
  user: DownstreamUser | null = null;
  readonly request: HttpRequest;
  readonly version: HttpVersion;
  readonly #stream: NewStream;
  readonly #suffix: string;
  readonly #decoder: WebTextDecoder | null;
  readonly #answersText: boolean;
  /** The answer is gRPC: its body and trailers are translated. */
  #translates = false;
  #answered = false;
  #unsent: Uint8Array = NOTHING;
  #ends = false;
  #receivedBytes = 0;
  #decodedBytes = 0;
  #consumedBytes = 0;
  #toldBytes = 0;
  #over = false;

  constructor(stream: NewStream, { requestIsText, suffix }: WebForm) {
    this.#stream = stream;
    this.version = stream.version;
    this.#suffix = suffix;
    this.#decoder = requestIsText ? new WebTextDecoder() : null;
    const { request } = stream;
    const { fields } = request;
    const accept = fields.value("accept") ?? "";
    this.#answersText = accept.includes("application/grpc-web-text") || (requestIsText && !accept.includes("application/grpc-web"));
    fields.set("content-type", `application/grpc${suffix}`);
    fields.remove("accept");
    fields.remove("x-grpc-web");
    const { method, target, hasBody, expectsContinue, upgrade } = request;
    this.request = { method, target, fields, contentLength: requestIsText ? LENGTH_UNKNOWN : request.contentLength, hasBody, acceptsTrailers: true, expectsContinue, upgrade };
    stream.user = this;
  }

  get #contentType(): string {
    return `application/grpc-web${this.#answersText ? "-text" : ""}${this.#suffix === "" ? "+proto" : this.#suffix}`;
  }

  // ── Towards the client ────────────────────────────────────────────────────────────────────────────────────────────────────

  keepHead(): void {
    this.#stream.keepHead();
  }

  inform(status: number, fields: HttpFields): void {
    this.#stream.inform(status, fields);
  }

  respond(response: HttpResponse, endStream: boolean): void {
    this.#answered = true;
    const { status, fields } = response;
    this.#translates = (fields.value("content-type") ?? "").startsWith("application/grpc");
    if (!this.#translates) return this.#stream.respond(response, endStream);
    fields.set("content-type", this.#contentType);
    // Without a body the status stands in the head, where clients of gRPC-Web look too.
    this.#stream.respond({ status, fields, contentLength: endStream ? response.contentLength : LENGTH_UNKNOWN }, endStream);
  }

  openTunnel(response: HttpResponse): void {
    this.#stream.openTunnel(response);
  }

  send(bytes: Uint8Array): number {
    if (!this.#translates || !this.#answersText) return this.#stream.send(bytes);
    if (!this.#flush()) return 0;
    const taken = bytes.subarray(0, TEXT_CHUNK_BYTES);
    // Padded at the end of each piece, so that a client can read what has come.
    this.#unsent = Buffer.from(Buffer.from(taken.buffer, taken.byteOffset, taken.length).toString("base64"), "latin1");
    return this.#flush() && taken.length < bytes.length ? taken.length + this.send(bytes.subarray(taken.length)) : taken.length;
  }

  end(trailers: HeaderList): void {
    if (!this.#translates) return this.#stream.end(trailers);
    const frame = frameWebTrailers(trailers);
    const last = this.#answersText ? Buffer.from(Buffer.from(frame).toString("base64"), "latin1") : frame;
    this.#unsent = this.#unsent.length === 0 ? last : new Uint8Array(Buffer.concat([this.#unsent, last]));
    this.#ends = true;
    this.#flush();
  }

  reset(): void {
    this.#over = true;
    this.#stream.reset();
  }

  /** True when nothing is left to be sent. */
  #flush(): boolean {
    if (this.#unsent.length > 0) this.#unsent = this.#unsent.subarray(this.#stream.send(this.#unsent));
    if (this.#unsent.length > 0) return false;
    if (this.#ends) {
      this.#ends = false;
      this.#stream.end(NO_TRAILERS);
    }
    return true;
  }

  // ── From the client ───────────────────────────────────────────────────────────────────────────────────────────────────────

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  /** Base64 is longer than what it stands for: the rest is given back once everything that was decoded is. */
  consumed(bytes: number): void {
    this.#consumedBytes += bytes;
    const owed = (this.#consumedBytes >= this.#decodedBytes ? this.#receivedBytes : this.#consumedBytes) - this.#toldBytes;
    if (owed <= 0) return;
    this.#toldBytes += owed;
    this.#stream.consumed(owed);
  }

  onRequestBody(bytes: Uint8Array): void {
    if (this.#over) return this.#stream.consumed(bytes.length);
    this.#receivedBytes += bytes.length;
    const decoded = this.#decoder === null ? ok(bytes) : this.#decoder.push(bytes);
    if (!decoded.ok) return this.#malformed(decoded.error);
    this.#decodedBytes += decoded.value.length;
    if (decoded.value.length > 0) this.user?.onRequestBody(decoded.value);
  }

  onRequestEnd(trailers: HeaderList): void {
    if (this.#over) return;
    if (this.#decoder !== null && !this.#decoder.isComplete) return this.#malformed("its base64 is cut short");
    this.user?.onRequestEnd(trailers);
  }

  onDownstreamSendable(): void {
    const ended = this.#ends;
    if (this.#flush() && !ended) this.user?.onDownstreamSendable();
  }

  onDownstreamAborted(why: string): void {
    this.#leave()?.onDownstreamAborted(why);
  }

  onDownstreamClosed(): void {
    this.#leave()?.onDownstreamClosed();
  }

  #malformed(why: string): void {
    const user = this.#leave();
    if (this.#answered) this.#stream.reset();
    else {
      const fields = ["content-type", this.#contentType, "grpc-status", String(GRPC_STATUS.INTERNAL), "grpc-message", why, REASON_HEADER, "bad_request"];
      this.#stream.respond({ status: 400, fields: new ListFields(fields), contentLength: 0 }, true);
    }
    user?.onDownstreamAborted(`the client's gRPC-Web body cannot be read: ${why}`);
  }

  #leave(): DownstreamUser | null {
    const { user } = this;
    this.#over = true;
    this.user = null;
    return user;
  }
}
