// A request and a response as routing sees them, whichever engine read them.

import type { HttpFields } from "./fields.ts";
import type { RequestTarget } from "./request-target.ts";

export interface HttpRequest {
  /** A token without lower-case letters. */
  readonly method: string;
  readonly target: RequestTarget;
  readonly fields: HttpFields;
  /** Of the body to come; LENGTH_UNKNOWN when it was not told. 0 without a body. */
  readonly contentLength: number;
  readonly hasBody: boolean;
  /** The client reads trailers (TE: trailers). */
  readonly acceptsTrailers: boolean;
  /** The client waits for a 100 before it sends the body. */
  readonly expectsContinue: boolean;
  /** The protocol it asks to change to, in lower case: Upgrade, or :protocol of an extended CONNECT. */
  readonly upgrade: string | null;
}

export interface HttpResponse {
  /** 100..599. */
  readonly status: number;
  readonly fields: HttpFields;
  /** As told, also where no body follows (HEAD, 304); LENGTH_UNKNOWN otherwise. */
  readonly contentLength: number;
}
