// Every bound a peer could push against, each with its reason. Time is the shell's: `phase` tells it what the peer is taking time over.

export interface Http1Limits {
  readonly headBytesMax: number;
  readonly startLineBytesMax: number;
  readonly fieldLineBytesMax: number;
  readonly fieldsMax: number;
  readonly methodBytesMax: number;
  readonly trailerBytesMax: number;
  readonly trailersMax: number;
  readonly chunkSizeDigitsMax: number;
  readonly chunkExtensionBytesMax: number;
  readonly informationalResponsesMax: number;
  readonly pipelinedBytesMax: number;
  readonly heldBytesMax: number;
  readonly earlyDrainBytesMax: number;
  readonly lingerBytesMax: number;
  readonly outputDataBytesMax: number;
}

/** The same as for HTTP/2, so that what one version brings the other can carry; Envoy's default is 60 KiB. */
export const HEAD_BYTES_MAX = 64 * 1024;
/** RFC 9112, section 3, asks for 8000 at least; twice that leaves room for links with a token in them. Beyond it: 414. */
export const START_LINE_BYTES_MAX = 16 * 1024;
/** Half a head: room for the largest cookie jars and tokens, while the rest of the head still fits. */
export const FIELD_LINE_BYTES_MAX = 32 * 1024;
/** Browsers send 20, a request through several proxies 50; Envoy and Apache stop at 100. */
export const FIELDS_MAX = 128;
/** The longest registered method has 17 bytes. */
export const METHOD_BYTES_MAX = 32;
/** gRPC's status, message and details are the largest trailers in use; 8 KiB of details is what its libraries send at most. */
export const TRAILER_BYTES_MAX = 16 * 1024;
export const TRAILERS_MAX = 64;
/** Enough for 2^64; leading zeros count, so nobody sends them by the megabyte. */
export const CHUNK_SIZE_DIGITS_MAX = 16;
/** Of one body, over all its chunks. Nobody uses extensions; they are dropped. Go's server had no such bound (CVE-2023-39326). */
export const CHUNK_EXTENSION_BYTES_MAX = 4 * 1024;
/** 1xx before one response: 100, 102, 103 and some early hints; more is a flood towards whoever waits behind us. */
export const INFORMATIONAL_RESPONSES_MAX = 32;
/** Requests received behind the one being answered, in bytes. Beyond it they are not read: the present answer ends the connection. */
export const PIPELINED_BYTES_MAX = 128 * 1024;
/** Received and not taken yet while somebody paused: one read of a socket (512 KiB), twice. A shell that stops reading never gets here. */
export const HELD_BYTES_MAX = 1024 * 1024;
/** Rest of a request body that is read and dropped, after it was answered early, to keep the connection: about what is on its way anyway. */
export const EARLY_DRAIN_BYTES_MAX = 256 * 1024;
/** Dropped after the last answer, so that the peer reads it before it meets a reset (RFC 9112, section 9.6). */
export const LINGER_BYTES_MAX = 1024 * 1024;
/** Queued for a socket that is full. Beyond it senders are told to wait; what they offered before, up to a whole read of a socket (512 KiB), is taken. */
export const OUTPUT_DATA_BYTES_MAX = 256 * 1024;

export const DEFAULT_LIMITS: Http1Limits = {
  headBytesMax: HEAD_BYTES_MAX,
  startLineBytesMax: START_LINE_BYTES_MAX,
  fieldLineBytesMax: FIELD_LINE_BYTES_MAX,
  fieldsMax: FIELDS_MAX,
  methodBytesMax: METHOD_BYTES_MAX,
  trailerBytesMax: TRAILER_BYTES_MAX,
  trailersMax: TRAILERS_MAX,
  chunkSizeDigitsMax: CHUNK_SIZE_DIGITS_MAX,
  chunkExtensionBytesMax: CHUNK_EXTENSION_BYTES_MAX,
  informationalResponsesMax: INFORMATIONAL_RESPONSES_MAX,
  pipelinedBytesMax: PIPELINED_BYTES_MAX,
  heldBytesMax: HELD_BYTES_MAX,
  earlyDrainBytesMax: EARLY_DRAIN_BYTES_MAX,
  lingerBytesMax: LINGER_BYTES_MAX,
  outputDataBytesMax: OUTPUT_DATA_BYTES_MAX,
};

/** Throws when limits contradict each other: our configuration's fault, found when the connection is made. */
export function assertLimits(limits: Http1Limits): void {
  const must = (held: boolean, what: string): void => {
    if (!held) throw new RangeError(`http1: ${what}`);
  };
  must(limits.startLineBytesMax <= limits.headBytesMax, "startLineBytesMax must not exceed headBytesMax");
  must(limits.fieldLineBytesMax <= limits.headBytesMax, "fieldLineBytesMax must not exceed headBytesMax");
  must(limits.fieldsMax > 0 && limits.fieldsMax <= 4096, "fieldsMax must lie in 1..4096");
  must(limits.pipelinedBytesMax <= limits.heldBytesMax, "pipelinedBytesMax must not exceed heldBytesMax");
  must(limits.chunkSizeDigitsMax > 0 && limits.chunkSizeDigitsMax <= 16, "chunkSizeDigitsMax must lie in 1..16");
  must(limits.outputDataBytesMax > 0, "outputDataBytesMax must be positive");
}
