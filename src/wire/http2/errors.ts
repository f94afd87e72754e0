// HTTP/2 error codes (RFC 9113, section 7) and the one fault that ends a connection. Knows nothing of sockets.

import type { Blame } from "../../core/fault.ts";

export const ErrorCode = {
  noError: 0x0,
  protocolError: 0x1,
  internalError: 0x2,
  flowControlError: 0x3,
  settingsTimeout: 0x4,
  streamClosed: 0x5,
  frameSizeError: 0x6,
  refusedStream: 0x7,
  cancel: 0x8,
  compressionError: 0x9,
  connectError: 0xa,
  enhanceYourCalm: 0xb,
  inadequateSecurity: 0xc,
  http11Required: 0xd,
} as const;

const NAMES = [
  "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
  "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
] as const;

/** The RFC's name for a code, for logs; codes nobody registered print as `0x2a`. */
export function errorName(code: number): string {
  return NAMES[code] ?? `0x${code.toString(16)}`;
}

/** Why a connection died. `counter` is stable and names the counter that moved; `message` also went to the peer in the GOAWAY. */
export interface Http2Error {
  readonly code: number;
  readonly counter: FatalCounter;
  readonly message: string;
  readonly blame: Blame;
}

/** Every way a peer can make us give up a connection: one counter each in `Http2Counters`. */
export type FatalCounter =
  | "badPreface"
  | "protocolErrors"
  | "frameSizeErrors"
  | "flowControlErrors"
  | "compressionErrors"
  | "closedStreamErrors"
  | "headerBlockTooLarge"
  | "continuationFloods"
  | "resetFloods"
  | "inducedResetFloods"
  | "refusedStreamFloods"
  | "settingsFloods"
  | "pingFloods"
  | "emptyFrameFloods"
  | "windowUpdateFloods"
  | "priorityFloods"
  | "unknownFrameFloods"
  | "outputOverflows"
  | "goawayFloods"
  | "localErrors";
