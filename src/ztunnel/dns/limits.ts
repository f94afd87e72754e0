// Bounds of the DNS proxy of one workload, with their reasons. Tests shorten the times.

export interface DnsLimits {
  /** From a question to SERVFAIL when no resolver answers: glibc and musl give up on us after five seconds. */
  readonly answerMs: number;
  /** Silence after which the next resolver is asked too, while the first may still answer. */
  readonly attemptMs: number;
  /** Questions sent upstream for one client question. */
  readonly attemptsMax: number;
  /** Different questions under way upstream; more get SERVFAIL. Each holds a socket. */
  readonly flightsMax: number;
  /** Clients that wait for one and the same question. */
  readonly waitersMax: number;
  /** Replies that fit no question before a socket is given up: a forger gets no more guesses. */
  readonly badRepliesMax: number;
  readonly tcpConnectionsMax: number;
  /** Questions under way on one TCP connection; reading stops until one is answered. */
  readonly tcpPipelineMax: number;
  /** A TCP client that sends no whole question and awaits no answer. */
  readonly tcpIdleMs: number;
  /** Answers a TCP client has not taken. */
  readonly tcpUnsentBytesMax: number;
  /** Questions a second, and the burst: the proxy shares its thread with everything else that controls the node. */
  readonly questionsPerSecond: number;
}

export const DNS_LIMITS: DnsLimits = {
  answerMs: 5_000,
  attemptMs: 1_500,
  attemptsMax: 4,
  flightsMax: 256,
  waitersMax: 64,
  badRepliesMax: 16,
  tcpConnectionsMax: 64,
  tcpPipelineMax: 16,
  tcpIdleMs: 10_000,
  tcpUnsentBytesMax: 256 * 1024,
  questionsPerSecond: 5_000,
};
