// One request and its response on a client connection. The connection is the only writer; everybody else reads.

import { LENGTH_UNKNOWN } from "../http/content-length.ts";
import type { HttpRequest, HttpResponse } from "../http/message.ts";
import type { RawHead } from "./raw-head.ts";
import { Send, type SendingExchange } from "./send-half.ts";
import type { OutgoingRequest } from "./writer.ts";

/** The request as it came in, to be sent on: the same target in its one form. */
export function outgoingRequest(request: HttpRequest): OutgoingRequest {
  const { method, target, fields, contentLength, acceptsTrailers, expectsContinue, upgrade } = request;
  const host = target.host?.text ?? "";
  return { method, target: method === "CONNECT" ? host : target.path + target.query, host, fields, contentLength, acceptsTrailers, expectsContinue, upgrade };
}

export class IncomingResponse implements HttpResponse {
  readonly status: number;
  /** Valid until the callback returns; until the exchange is closed after `fields.keep()`. An interim response's: until the callback returns. */
  readonly fields: RawHead;
  readonly contentLength: number;

  constructor(status: number, fields: RawHead, contentLength: number = LENGTH_UNKNOWN) {
    this.status = status;
    this.fields = fields;
    this.contentLength = contentLength;
  }
}

export class ClientExchange implements SendingExchange {
  /** The caller's own object; the engine never looks at it. */
  user: unknown = null;
  readonly method: string;
  readonly upgrade: string | null;

  /** Read only for all but the connection, from here on. */
  requestDone: boolean;
  responseStarted = false;
  responseDone = false;
  /** CONNECT answered with 2xx, or Upgrade with 101: raw bytes both ways. */
  isTunnel = false;
  isClosed = false;
  informationalCount = 0;

  /** Private to the connection. */
  keepAlive = true;
  waiting = false;
  send: Send = Send.nothing;
  sendLeft = 0;

  constructor(request: OutgoingRequest, endStream: boolean) {
    this.method = request.method;
    this.upgrade = request.upgrade;
    this.requestDone = endStream;
  }

  get mayBecomeTunnel(): boolean {
    return this.upgrade !== null || this.method === "CONNECT";
  }
}
