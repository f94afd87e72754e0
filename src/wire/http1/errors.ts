// What can be wrong with HTTP/1 messages, and what a server answers to it. Each code is a counter; every fault ends the connection.

import type { Blame } from "../../core/fault.ts";

/** Code to the status a server answers with before it closes. A client's fault in a response has no status: the waypoint says 502. */
const STATUS = {
  badStartLine: 400,
  badVersion: 505,
  badMethod: 400,
  methodTooLong: 501,
  targetTooLong: 414,
  badTarget: 400,
  badFieldName: 400,
  badFieldValue: 400,
  foldedField: 400,
  bareLineEnd: 400,
  headTooLarge: 431,
  tooManyFields: 431,
  noHost: 400,
  badHost: 400,
  severalHosts: 400,
  hostMismatch: 400,
  badConnection: 400,
  badContentLength: 400,
  severalContentLengths: 400,
  lengthAndEncoding: 400,
  badTransferEncoding: 400,
  unknownTransferEncoding: 501,
  encodingInHttp10: 400,
  unexpectedBody: 400,
  unknownExpectation: 417,
  badChunk: 400,
  chunkTooLarge: 413,
  chunkExtensionFlood: 400,
  badTrailer: 400,
  trailersTooLarge: 431,
  timeout: 408,
  truncated: 400,
  heldOverflow: 400,
  informationalFlood: 502,
  unexpectedBytes: 502,
  unexpectedUpgrade: 502,
  badStatus: 502,
  localError: 500,
} as const satisfies Record<string, number>;

export type Http1Code = keyof typeof STATUS;

/** `code` is stable (metrics, tests); `message` is for a person, and may be told to the peer: it never repeats the peer's bytes. */
export interface Http1Error {
  readonly code: Http1Code;
  readonly message: string;
  readonly blame: Blame;
}

export function statusOf(code: Http1Code): number {
  return STATUS[code];
}

export function peerError(code: Http1Code, message: string): Http1Error {
  return { code, message, blame: "peer" };
}
