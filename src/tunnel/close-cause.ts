// Why a connection ended: one closed set of codes, each with who is to blame. The first cause wins; what follows from it is not a cause.

import type { Blame } from "../core/fault.ts";

export type CloseCode =
  | "clean"
  | "socket_reset"
  | "socket_closed_early"
  | "stream_reset"
  | "tunnel_lost"
  | "half_close_idle"
  | "connect_failed"
  | "connect_timeout"
  | "tls_failed"
  | "http2_failed"
  | "identity_refused"
  | "certificate_missing"
  | "certificate_revoked"
  | "destination_refused"
  | "policy_denied"
  | "policy_changed"
  | "no_endpoint"
  | "bad_request"
  | "illegal_destination"
  | "workload_unknown"
  | "workload_gone"
  | "original_destination_unknown"
  | "limit"
  | "drained";

export interface CloseCause {
  readonly code: CloseCode;
  readonly blame: Blame | "none";
  /** For a person; says what was seen and wanted. */
  readonly message: string;
  /** Istio's response_flags value for the metrics. */
  readonly flags: ResponseFlags;
  /** The connection below broke off before the peer had read anything of ours, as when it is being replaced: soon it may be otherwise. */
  readonly brokeOff?: true;
}

export type ResponseFlags = "-" | "DENY" | "CONNECT" | "TLS_FAILURE" | "H2_HANDSHAKE_FAILURE" | "NETWORK_POLICY" | "IDENTITY_ERROR" | "CERT_REVOKED";

const cause = (code: CloseCode, blame: CloseCause["blame"], message: string, flags: ResponseFlags = "-"): CloseCause => ({ code, blame, message, flags });

export const causes = {
  clean: cause("clean", "none", ""),
  socketClosedEarly: cause("socket_closed_early", "peer", "the application closed its socket with bytes still under way to it"),
  tunnelLost: (why: string) => cause("tunnel_lost", "peer", `the tunnel was lost: ${why}`),
  socketReset: (errno: string) => cause("socket_reset", "peer", `the application's socket was reset (${errno})`),
  streamReset: (code: number, name: string, by: "peer" | "us") => cause("stream_reset", "peer", by === "peer"
    ? `the other end reset the stream (HTTP/2 error ${code} ${name})`
    : `the other end broke a rule of HTTP/2 on this stream, which was reset with error ${code} ${name}`),
  halfCloseIdle: (ms: number) => cause("half_close_idle", "none", `one side ended and nothing moved for ${ms} ms`),
  connectFailed: (message: string) => cause("connect_failed", "peer", message, "CONNECT"),
  connectTimeout: (message: string) => cause("connect_timeout", "peer", message, "CONNECT"),
  tlsFailed: (message: string) => cause("tls_failed", "peer", message, "TLS_FAILURE"),
  tlsBrokeOff: (message: string): CloseCause => ({ ...cause("tls_failed", "peer", message, "TLS_FAILURE"), brokeOff: true }),
  http2Failed: (message: string) => cause("http2_failed", "peer", message, "H2_HANDSHAKE_FAILURE"),
  http2BrokeOff: (message: string): CloseCause => ({ ...cause("http2_failed", "peer", message, "H2_HANDSHAKE_FAILURE"), brokeOff: true }),
  identityRefused: (message: string) => cause("identity_refused", "peer", message, "IDENTITY_ERROR"),
  certificateMissing: (message: string) => cause("certificate_missing", "us", message, "IDENTITY_ERROR"),
  certificateRevoked: (message: string) => cause("certificate_revoked", "peer", message, "CERT_REVOKED"),
  destinationRefused: (message: string) => cause("destination_refused", "peer", message, "CONNECT"),
  policyDenied: (message: string) => cause("policy_denied", "operator", message, "DENY"),
  policyChanged: (message: string) => cause("policy_changed", "operator", message, "DENY"),
  noEndpoint: (message: string) => cause("no_endpoint", "operator", message, "CONNECT"),
  badRequest: (message: string) => cause("bad_request", "peer", message, "CONNECT"),
  illegalDestination: (message: string) => cause("illegal_destination", "peer", message, "DENY"),
  workloadUnknown: (message: string) => cause("workload_unknown", "operator", message, "CONNECT"),
  workloadGone: cause("workload_gone", "operator", "the workload left this node"),
  originalDestinationUnknown: cause("original_destination_unknown", "peer", "the connection was not redirected here: something dialled our port itself"),
  limit: (message: string) => cause("limit", "peer", message),
  /** Ours, not what this peer did: descriptors or memory ran short. */
  ourLimit: (message: string) => cause("limit", "us", message),
  drained: cause("drained", "operator", "the agent is shutting down and its drain time is over"),
} as const;
