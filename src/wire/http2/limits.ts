// Every bound a peer could push against, each with its reason. The relations between them are checked when a connection is made.

/** A token bucket: `burst` events at once, `perSecond` for ever. */
export interface RateLimit {
  readonly burst: number;
  readonly perSecond: number;
}

/** What we announce to the peer in our SETTINGS, and the connection window. */
export interface LocalSettings {
  /** HPACK table the peer may build in our memory. */
  readonly headerTableSizeBytes: number;
  /** Streams the peer may have open; a client announces it too, though pushing is off. */
  readonly maxConcurrentStreams: number;
  readonly initialWindowBytes: number;
  readonly connectionWindowBytes: number;
  readonly maxFrameBytes: number;
  /** Decoded size of one header list: names + values + 32 each (RFC 9113, section 6.5.2). Enforced, not only announced. */
  readonly maxHeaderListBytes: number;
  /** Server: accept extended CONNECT (RFC 8441). */
  readonly enableConnectProtocol: boolean;
}

/** RFC 9113, section 6.9.2: the windows before anybody spoke. */
export const DEFAULT_WINDOW_BYTES = 65_535;
/** RFC 9113, section 6.9.1. */
export const WINDOW_BYTES_MAX = 0x7fff_ffff;
/** RFC 9113, section 6.5.2: the smallest and the largest SETTINGS_MAX_FRAME_SIZE. */
export const FRAME_BYTES_MIN = 16_384;
export const FRAME_BYTES_MAX = 16_777_215;
/** RFC 7541 / 9113: the table size before any SETTINGS. */
export const DEFAULT_HEADER_TABLE_BYTES = 4_096;
/** The last stream identifier there is. */
export const STREAM_ID_MAX = 0x7fff_ffff;

/** 4 MiB fills 100 Mb/s at 300 ms and 10 Gb/s at 3 ms; the reference proxy announces the same. */
export const STREAM_WINDOW_BYTES = 4 * 1024 * 1024;
/** Four stream windows: with equal windows one stalled stream stops its siblings (a deadlock the reference proxy met in production). */
export const CONNECTION_WINDOW_BYTES = 4 * STREAM_WINDOW_BYTES;
/** 1 MiB frames let one read of the plain socket become one TLS write. */
export const MAX_FRAME_BYTES = 1024 * 1024;
/** A CONNECT with baggage and tracing needs 1 KiB; 64 KiB is what the reference's server accepts, and Envoy's default is 60 KiB. */
export const MAX_HEADER_LIST_BYTES = 64 * 1024;
/** The reference announces 200 and opens at most 100. */
export const MAX_CONCURRENT_STREAMS = 200;
/** Streams we open before the peer's first SETTINGS has said how many it takes: the least the RFC recommends to allow. */
export const ASSUMED_CONCURRENT_STREAMS = 100;

export const DEFAULT_SETTINGS: LocalSettings = {
  headerTableSizeBytes: DEFAULT_HEADER_TABLE_BYTES,
  maxConcurrentStreams: MAX_CONCURRENT_STREAMS,
  initialWindowBytes: STREAM_WINDOW_BYTES,
  connectionWindowBytes: CONNECTION_WINDOW_BYTES,
  maxFrameBytes: MAX_FRAME_BYTES,
  maxHeaderListBytes: MAX_HEADER_LIST_BYTES,
  enableConnectProtocol: false,
};

/** Limits that are ours alone and never announced. */
export interface Http2Limits {
  readonly encodedHeaderBlockRatioMax: number;
  readonly continuationFramesMax: number;
  readonly settingsEntriesMax: number;
  readonly informationalResponsesMax: number;
  readonly unconsumedBytesMax: number;
  readonly outputDataBytesMax: number;
  readonly outputBytesMax: number;
  readonly queuedControlFramesMax: number;
  readonly sendQuantumBytes: number;
  readonly recentResetsMax: number;
  readonly goawayDebugBytesMax: number;
  readonly prematureResets: RateLimit;
  readonly peerResets: RateLimit;
  readonly inducedResets: RateLimit;
  readonly refusedStreams: RateLimit;
  readonly settingsFrames: RateLimit;
  readonly pings: RateLimit;
  readonly emptyFrames: RateLimit;
  readonly windowUpdates: RateLimit;
  readonly priorities: RateLimit;
  readonly unknownFrames: RateLimit;
  readonly goaways: RateLimit;
}

/** A block larger on the wire than twice its decoded limit cannot end well: the connection dies. Between the two only the stream does. */
export const ENCODED_HEADER_BLOCK_RATIO_MAX = 2;
/** With 16 KiB frames 8 would carry the largest block we take; 32 forgives small frames and still ends the CONTINUATION flood (CVE-2024-27919). */
export const CONTINUATION_FRAMES_MAX = 32;
/** Eleven settings are registered. Nobody honest sends 64 in one frame (CVE-2019-9515's relative). */
export const SETTINGS_ENTRIES_MAX = 64;
/** 1xx before one response: 100, 102, 103 and some early hints; more is a flood towards whoever waits behind us. */
export const INFORMATIONAL_RESPONSES_MAX = 32;
/** Received bytes nobody consumed yet, over all streams, up to which the connection window is given back at once (see creditConnection in connection.ts). */
export const UNCONSUMED_BYTES_MAX = 4 * CONNECTION_WINDOW_BYTES;
/** DATA queued for a socket that is full: one bulk write's worth. Beyond it senders are told to wait. */
export const OUTPUT_DATA_BYTES_MAX = 1024 * 1024;
/** Hard end of the output queue, whatever is in it: the peer sends but does not read. One more frame of DATA always fits below it. */
export const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
/** PING and SETTINGS acknowledgements and RST_STREAM waiting to be read by the peer (CVE-2019-9512, -9514, -9515); Envoy allows 1000. */
export const QUEUED_CONTROL_FRAMES_MAX = 1_000;
/** While several streams wait, one takes this much per turn: large enough for one TLS batch, small enough that nobody waits long. */
export const SEND_QUANTUM_BYTES = 256 * 1024;
/** Streams we reset whose late frames are still expected and dropped in silence: more than the peer could have had open. */
export const RECENT_RESETS_MAX = 512;
/** Kept of a peer's GOAWAY text, and sent of ours: enough for a sentence. */
export const GOAWAY_DEBUG_BYTES_MAX = 512;

/** Rapid reset (CVE-2023-44487): streams opened and reset before we answered. Aborted connections come singly, not by the hundred each second. */
export const PREMATURE_RESETS: RateLimit = { burst: 1_000, perSecond: 200 };
/** Resets after our answer began: how many tunnels end. Only a backstop, so that no kind of frame is without a limit. */
export const PEER_RESETS: RateLimit = { burst: 20_000, perSecond: 10_000 };
/** MadeYouReset (CVE-2025-8671): stream errors by which the peer makes *us* reset. A correct peer causes none. */
export const INDUCED_RESETS: RateLimit = { burst: 100, perSecond: 20 };
/** Streams above the announced number: a client may burst before it read our SETTINGS, then it must stop. */
export const REFUSED_STREAMS: RateLimit = { burst: 2_000, perSecond: 100 };
/** Each costs an acknowledgement and a walk over all streams (CVE-2019-9515). */
export const SETTINGS_FRAMES: RateLimit = { burst: 100, perSecond: 10 };
/** Keep-alive is one in ten seconds, bandwidth probing (gRPC) one per round trip while it grows (CVE-2019-9512). */
export const PINGS: RateLimit = { burst: 1_000, perSecond: 200 };
/** DATA without bytes and without END_STREAM, header fragments without bytes (CVE-2019-9518). Some libraries flush with an empty DATA. */
export const EMPTY_FRAMES: RateLimit = { burst: 1_000, perSecond: 100 };
/** On top of what our own DATA earns the peer (`WINDOW_UPDATES_PER_DATA_FRAME`, one per `WINDOW_UPDATE_BYTES`). */
export const WINDOW_UPDATES: RateLimit = { burst: 2_000, perSecond: 200 };
export const WINDOW_UPDATES_PER_DATA_FRAME = 4;
/** Peers that give credit back for every 512 bytes are poor, not hostile. */
export const WINDOW_UPDATE_BYTES = 512;
/** Priorities are ignored; old browsers send a handful per page (CVE-2019-9513 was their flood). */
export const PRIORITIES: RateLimit = { burst: 1_000, perSecond: 100 };
/** Extension frames are skipped: GREASE, PRIORITY_UPDATE, ALTSVC. */
export const UNKNOWN_FRAMES: RateLimit = { burst: 1_000, perSecond: 100 };
/** A graceful end takes two. */
export const GOAWAYS: RateLimit = { burst: 10, perSecond: 1 };

export const DEFAULT_LIMITS: Http2Limits = {
  encodedHeaderBlockRatioMax: ENCODED_HEADER_BLOCK_RATIO_MAX,
  continuationFramesMax: CONTINUATION_FRAMES_MAX,
  settingsEntriesMax: SETTINGS_ENTRIES_MAX,
  informationalResponsesMax: INFORMATIONAL_RESPONSES_MAX,
  unconsumedBytesMax: UNCONSUMED_BYTES_MAX,
  outputDataBytesMax: OUTPUT_DATA_BYTES_MAX,
  outputBytesMax: OUTPUT_BYTES_MAX,
  queuedControlFramesMax: QUEUED_CONTROL_FRAMES_MAX,
  sendQuantumBytes: SEND_QUANTUM_BYTES,
  recentResetsMax: RECENT_RESETS_MAX,
  goawayDebugBytesMax: GOAWAY_DEBUG_BYTES_MAX,
  prematureResets: PREMATURE_RESETS,
  peerResets: PEER_RESETS,
  inducedResets: INDUCED_RESETS,
  refusedStreams: REFUSED_STREAMS,
  settingsFrames: SETTINGS_FRAMES,
  pings: PINGS,
  emptyFrames: EMPTY_FRAMES,
  windowUpdates: WINDOW_UPDATES,
  priorities: PRIORITIES,
  unknownFrames: UNKNOWN_FRAMES,
  goaways: GOAWAYS,
};

/** Throws when settings and limits contradict each other or the RFC: our configuration's fault, found when the connection is made. */
export function assertLimits(settings: LocalSettings, limits: Http2Limits): void {
  const must = (held: boolean, what: string): void => {
    if (!held) throw new RangeError(`http2: ${what}`);
  };
  must(settings.maxFrameBytes >= FRAME_BYTES_MIN && settings.maxFrameBytes <= FRAME_BYTES_MAX, "maxFrameBytes must lie in 16384..16777215");
  must(settings.initialWindowBytes >= 0 && settings.initialWindowBytes <= WINDOW_BYTES_MAX, "initialWindowBytes must lie in 0..2^31-1");
  must(settings.connectionWindowBytes >= DEFAULT_WINDOW_BYTES && settings.connectionWindowBytes <= WINDOW_BYTES_MAX, "connectionWindowBytes must lie in 65535..2^31-1");
  must(settings.headerTableSizeBytes >= 0 && settings.headerTableSizeBytes <= 1024 * 1024, "headerTableSizeBytes must lie in 0..1 MiB");
  must(settings.maxHeaderListBytes >= 256 && settings.maxHeaderListBytes <= 16 * 1024 * 1024, "maxHeaderListBytes must lie in 256 B..16 MiB");
  must(settings.maxConcurrentStreams >= 0 && settings.maxConcurrentStreams <= WINDOW_BYTES_MAX, "maxConcurrentStreams must lie in 0..2^31-1");
  must(limits.outputBytesMax >= 2 * limits.outputDataBytesMax, "outputBytesMax must leave room above twice outputDataBytesMax");
  must(limits.sendQuantumBytes > 0 && limits.outputDataBytesMax > 0, "sendQuantumBytes and outputDataBytesMax must be positive");
}
