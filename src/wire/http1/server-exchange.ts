// One request and its response on a server connection. The connection is the only writer; everybody else reads.

import type { HttpRequest } from "../http/message.ts";
import type { RequestTarget } from "../http/request-target.ts";
import type { RawHead } from "./raw-head.ts";
import { Send, type SendingExchange } from "./send-half.ts";

export interface ServerRequestFacts {
  readonly method: string;
  readonly target: RequestTarget;
  readonly fields: RawHead;
  readonly minor: number;
  readonly contentLength: number;
  readonly hasBody: boolean;
  readonly acceptsTrailers: boolean;
  readonly expectsContinue: boolean;
  readonly upgrade: string | null;
  readonly keepAlive: boolean;
}

export class ServerExchange implements HttpRequest, SendingExchange {
  /** The caller's own object; the engine never looks at it. */
  user: unknown = null;

  readonly method: string;
  readonly target: RequestTarget;
  /** Valid until `onRequest` returns; until the exchange is closed after `fields.keep()`. */
  readonly fields: RawHead;
  /** HTTP/1.0 or 1.1. */
  readonly minor: number;
  readonly contentLength: number;
  readonly hasBody: boolean;
  readonly acceptsTrailers: boolean;
  readonly expectsContinue: boolean;
  readonly upgrade: string | null;

  /** Read only for all but the connection, from here on. */
  requestDone: boolean;
  responseStarted = false;
  responseDone = false;
  /** CONNECT answered with 2xx, or Upgrade with 101: raw bytes both ways. */
  isTunnel = false;
  isClosed = false;

  /** Private to the connection. */
  keepAlive: boolean;
  continueSent = false;
  /** The rest of the request is read and dropped. */
  discarding = false;
  waiting = false;
  send: Send = Send.nothing;
  sendLeft = 0;

  constructor(facts: ServerRequestFacts) {
    this.method = facts.method;
    this.target = facts.target;
    this.fields = facts.fields;
    this.minor = facts.minor;
    this.contentLength = facts.contentLength;
    this.hasBody = facts.hasBody;
    this.acceptsTrailers = facts.acceptsTrailers;
    this.expectsContinue = facts.expectsContinue;
    this.upgrade = facts.upgrade;
    this.requestDone = !facts.hasBody;
    this.keepAlive = facts.keepAlive;
  }

  /** It asks for a tunnel, and what follows belongs to the tunnel alone. */
  get mayBecomeTunnel(): boolean {
    return this.upgrade !== null || this.method === "CONNECT";
  }
}
