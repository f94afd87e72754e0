// What happened on one connection. Plain numbers, read by the metrics; the names are stable.

import type { FatalCounter } from "./errors.ts";

export class Http2Counters implements Record<FatalCounter, number> {
  dataFramesReceived = 0;
  dataFramesSent = 0;
  dataBytesReceived = 0;
  dataBytesSent = 0;
  streamsOpened = 0;
  streamsClosed = 0;
  settingsReceived = 0;
  pingsReceived = 0;
  goawaysReceived = 0;
  resetsReceived = 0;
  resetsSent = 0;
  /** Resets received before our answer began: rapid reset. */
  prematureResets = 0;
  /** Stream errors by which the peer made us reset: MadeYouReset. */
  inducedResets = 0;
  /** Streams above our maximum or after our GOAWAY. */
  refusedStreams = 0;
  malformedMessages = 0;
  headerListsTooLarge = 0;
  emptyFrames = 0;
  windowUpdatesReceived = 0;
  prioritiesReceived = 0;
  unknownFrames = 0;
  /** Frames for streams that we had reset, dropped. */
  lateFrames = 0;
  /** A sender had to wait: for its own stream's window, for the connection's, for the socket. */
  stalledOnStreamWindow = 0;
  stalledOnConnectionWindow = 0;
  stalledOnOutput = 0;
  /** Times the connection window was not given back on receipt, because too much was unconsumed. */
  receiveBudgetExhausted = 0;

  badPreface = 0;
  protocolErrors = 0;
  frameSizeErrors = 0;
  flowControlErrors = 0;
  compressionErrors = 0;
  closedStreamErrors = 0;
  headerBlockTooLarge = 0;
  continuationFloods = 0;
  resetFloods = 0;
  inducedResetFloods = 0;
  refusedStreamFloods = 0;
  settingsFloods = 0;
  pingFloods = 0;
  emptyFrameFloods = 0;
  windowUpdateFloods = 0;
  priorityFloods = 0;
  unknownFrameFloods = 0;
  outputOverflows = 0;
  goawayFloods = 0;
  localErrors = 0;
}
