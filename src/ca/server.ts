// The CA's port: istio.v1.auth.IstioCertificateService over gRPC and TLS, so that the clients people already have can use it.
//
//   TLS (our own certificate, renewed in place) → bearer token → rate of this caller → request → Authority.sign → record → reply
//
// Authentication comes before the request is looked at, the record before the certificate leaves.

import { generateKeyPairSync } from "node:crypto";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { Code, ConnectError, type ConnectRouter, type ContextValues, type HandlerContext } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import type { Clock } from "../core/ports.ts";
import type { SpiffeId } from "../core/spiffe.ts";
import type { Timers } from "../net/timers.ts";
import type { NewName } from "../wire/x509/build.ts";
import { IstioCertificateService, type IstioCertificateRequest } from "../wire/protobuf/istio/v1/auth/ca_pb.ts";
import type { Authority, IssuedCertificate, SigningFaultCode } from "./authority.ts";
import type { Caller, TokenVerifier } from "./tokens.ts";

/** A request is a CSR of 2 KiB and a little metadata. */
export const REQUEST_MESSAGE_BYTES_MAX = 64 * 1024;
/** A node that starts with 200 identities gets them at once; after that, a certificate a second is far more than rotation needs. */
export const CALLER_BURST = 256;
export const CALLER_RATE_PER_S = 16;
/** Callers whose rate is remembered. */
const CALLERS_MAX = 16_384;
const CONNECTIONS_MAX = 4096;
/** Connections of one address: a node has one or two; many nodes may share an address. */
const CONNECTIONS_PER_ADDRESS_MAX = 512;
/** Who has not finished its handshake by then is cut off: connections that say nothing may not fill the port. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
const STREAMS_PER_CONNECTION_MAX = 32;
const CONNECTION_IDLE_MS = 5 * 60_000;
const SERVER_CERTIFICATE_LIFETIME_MS = 24 * 3_600_000;
/** Metadata field by which a node says for whom it asks. */
const IMPERSONATED_IDENTITY = "ImpersonatedIdentity";

export interface CaServerOptions {
  readonly authority: Authority;
  readonly tokens: TokenVerifier;
  readonly clock: Clock;
  readonly timers: Timers;
  /** DNS names and addresses that clients use for this CA. */
  readonly serverNames: readonly NewName[];
  /** Other services of the same port, with their own limits. */
  readonly beside?: {
    readonly routes: (router: ConnectRouter) => void;
    readonly contextValues: (request: { readonly socket: object }) => ContextValues;
  };
  /** Called before the certificate is sent. A throw withholds it. */
  readonly record: (issued: IssuedCertificate, caller: string) => void;
  readonly onEvent: (event: CaServerEvent) => void;
}

export type CaServerEvent =
  | { readonly kind: "issued"; readonly caller: string; readonly spiffeId: SpiffeId; readonly serialHex: string; readonly notAfterMs: number }
  | { readonly kind: "refused"; readonly caller: string; readonly code: RefusalCode; readonly message: string }
  | { readonly kind: "serverCertificate"; readonly notAfterMs: number };

export type RefusalCode = SigningFaultCode | "unauthenticated" | "token_review_failed" | "rate_limited" | "identity_mismatch" | "record_failed";

const STATUS: Readonly<Record<RefusalCode, Code>> = {
  request_too_large: Code.InvalidArgument,
  request_malformed: Code.InvalidArgument,
  key_refused: Code.InvalidArgument,
  signature_bad: Code.InvalidArgument,
  identity_missing: Code.InvalidArgument,
  extra_names: Code.InvalidArgument,
  extension_refused: Code.InvalidArgument,
  identity_malformed: Code.InvalidArgument,
  identity_mismatch: Code.InvalidArgument,
  trust_domain_foreign: Code.PermissionDenied,
  identity_denied: Code.PermissionDenied,
  lifetime_beyond_maximum: Code.OutOfRange,
  lifetime_beyond_issuer: Code.OutOfRange,
  issuer_expired: Code.FailedPrecondition,
  unauthenticated: Code.Unauthenticated,
  token_review_failed: Code.Unavailable,
  rate_limited: Code.ResourceExhausted,
  record_failed: Code.Unavailable,
};

export class CaServer {
  readonly counters: { issued: number; refused: Partial<Record<RefusalCode, number>> } = { issued: 0, refused: {} };
  readonly #options: CaServerOptions;
  readonly #server: http2.Http2SecureServer;
  readonly #sessions = new Set<http2.ServerHttp2Session>();
  readonly #sockets = new Set<Socket>();
  readonly #connectionsByAddress = new Map<string, number>();
  /** Cancels the handshake deadline of a connection, by its remote address and port. */
  readonly #handshakes = new Map<string, () => void>();
  readonly #budgets = new Map<string, Budget>();
  #cancelRenewal: (() => void) | null = null;

  constructor(options: CaServerOptions) {
    this.#options = options;
    const { beside } = options;
    const handler = connectNodeAdapter({
      connect: false,
      grpcWeb: false,
      routes: (router) => {
        router.service(IstioCertificateService, { createCertificate: (request, context) => this.#createCertificate(request, context) }, { readMaxBytes: REQUEST_MESSAGE_BYTES_MAX });
        beside?.routes(router);
      },
      ...(beside === undefined ? {} : { contextValues: beside.contextValues }),
    });
    this.#server = http2.createSecureServer({
      ...this.#newServerCertificate(),
      minVersion: "TLSv1.2",
      allowHTTP1: false,
      settings: { maxConcurrentStreams: STREAMS_PER_CONNECTION_MAX, maxHeaderListSize: 32 * 1024 },
    }, handler);
    this.#server.on("connection", (socket: Socket) => this.#admit(socket));
    this.#server.on("secureConnection", (socket) => this.#endHandshake(peerOf(socket)));
    this.#server.on("session", (session) => this.#watchSession(session));
    // A broken handshake or connection is the peer's affair; the library has closed it already.
    this.#server.on("sessionError", () => {});
    this.#server.on("tlsClientError", () => {});
  }

  /** @param listen `{ host, port }` with port 0 for any, or `{ fd }` of a listening socket made elsewhere. */
  async listen(listen: { readonly host: string; readonly port: number } | { readonly fd: number }): Promise<AddressInfo> {
    const listening = Promise.withResolvers<void>();
    this.#server.once("error", listening.reject);
    this.#server.listen({ ...listen }, listening.resolve);
    await listening.promise;
    this.#server.off("error", listening.reject);
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error(`the CA listens on ${String(address)}, wanted an address and a port`);
    return address;
  }

  /** Makes a new certificate for this port now; connections keep theirs. Called at half-life, and when the issuer has changed. */
  renewServerCertificate(): void {
    this.#server.setSecureContext({ ...this.#newServerCertificate(), minVersion: "TLSv1.2" });
  }

  /** Takes no new connections, lets requests end, then cuts what is left. */
  async drain(deadlineMs: number): Promise<void> {
    const closed = Promise.withResolvers<void>();
    this.#cancelRenewal?.();
    this.#server.close(() => closed.resolve());
    for (const session of this.#sessions) session.close();
    const cancel = this.#options.timers.after(deadlineMs, () => {
      this.destroy();
      closed.resolve();
    });
    await closed.promise;
    cancel();
  }

  destroy(): void {
    this.#cancelRenewal?.();
    this.#server.close();
    for (const session of this.#sessions) session.destroy();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #createCertificate(request: IstioCertificateRequest, context: HandlerContext): Promise<{ certChain: string[] }> {
    const caller = await this.#authenticate(context);
    const nowMs = this.#options.clock.wallMs();
    this.#spend(caller);
    const issued = this.#options.authority.sign({
      csr: request.csr,
      mayHave: (id) => this.#mayHave(caller, id, request),
      caller: caller.name,
      lifetimeMs: request.validityDuration > 0n ? Number(request.validityDuration) * 1000 : null,
    }, nowMs);
    if (!issued.ok) throw this.#refuse(caller.name, issued.error.code, issued.error.message);
    try {
      this.#options.record(issued.value, caller.name);
    } catch (cause) {
      throw this.#refuse(caller.name, "record_failed", `the certificate for ${issued.value.spiffeId} was withheld because it could not be recorded: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    this.counters.issued++;
    this.#options.onEvent({ kind: "issued", caller: caller.name, spiffeId: issued.value.spiffeId, serialHex: issued.value.serialHex, notAfterMs: issued.value.notAfterMs });
    return { certChain: [...issued.value.chainPem, issued.value.trustBundlePem] };
  }

  async #authenticate(context: HandlerContext): Promise<Caller> {
    const header = context.requestHeader.get("authorization") ?? "";
    const token = /^Bearer ([\x21-\x7e]+)$/i.exec(header)?.[1];
    if (token === undefined) throw this.#refuse("nobody", "unauthenticated", header === "" ? "the request has no authorization header, wanted Bearer and a token" : "the authorization header is not Bearer and a token");
    let caller: Caller | null;
    try {
      caller = await this.#options.tokens.verify(token);
    } catch (cause) {
      throw this.#refuse("nobody", "token_review_failed", `the bearer token could not be checked, try again: ${cause instanceof Error ? cause.message : String(cause)}`);
    }
    if (caller === null) throw this.#refuse("nobody", "unauthenticated", "the bearer token is not one of this CA's; is the token file of the client current?");
    return caller;
  }

  #spend(caller: Caller): void {
    const nowMs = this.#options.clock.monotonicMs();
    let budget = this.#budgets.get(caller.name);
    if (budget === undefined) {
      budget = { tokens: CALLER_BURST, atMs: nowMs };
      // The oldest goes: who comes back after so many others has a full budget again anyway.
      if (this.#budgets.size >= CALLERS_MAX) this.#budgets.delete(this.#budgets.keys().next().value!);
      this.#budgets.set(caller.name, budget);
    }
    budget.tokens = Math.min(CALLER_BURST, budget.tokens + ((nowMs - budget.atMs) / 1000) * CALLER_RATE_PER_S);
    budget.atMs = nowMs;
    if (budget.tokens < 1) throw this.#refuse(caller.name, "rate_limited", `${caller.name} asks for more than ${CALLER_RATE_PER_S} certificates a second; try again in a second`);
    budget.tokens--;
  }

  /** A node that names somebody in the metadata must mean the identity in its request. */
  #mayHave(caller: Caller, id: SpiffeId, request: IstioCertificateRequest): boolean {
    const claimed = request.metadata?.[IMPERSONATED_IDENTITY];
    if (claimed !== undefined && claimed !== id) {
      throw this.#refuse(caller.name, "identity_mismatch", `${caller.name} asks on behalf of ${JSON.stringify(claimed).slice(0, 256)}, but its certificate request is for ${id}`);
    }
    return caller.mayHave(id);
  }

  #refuse(caller: string, code: RefusalCode, message: string): ConnectError {
    this.counters.refused[code] = (this.counters.refused[code] ?? 0) + 1;
    this.#options.onEvent({ kind: "refused", caller, code, message });
    return new ConnectError(`${message} (${code})`, STATUS[code]);
  }

  #newServerCertificate(): { readonly cert: string; readonly key: string } {
    const { authority, clock, serverNames, timers, onEvent } = this.#options;
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const nowMs = clock.wallMs();
    const certificate = authority.signServer({ publicKey: pair.publicKey, names: serverNames, lifetimeMs: SERVER_CERTIFICATE_LIFETIME_MS, nowMs });
    this.#cancelRenewal?.();
    this.#cancelRenewal = timers.after(Math.max(1000, (certificate.notAfterMs - nowMs) / 2), () => this.renewServerCertificate());
    onEvent({ kind: "serverCertificate", notAfterMs: certificate.notAfterMs });
    return { cert: certificate.certificateChainPem, key: pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
  }

  #admit(socket: Socket): void {
    const peer = peerOf(socket);
    const address = socket.remoteAddress ?? "";
    const count = this.#connectionsByAddress.get(address) ?? 0;
    if (this.#sockets.size >= CONNECTIONS_MAX || count >= CONNECTIONS_PER_ADDRESS_MAX) {
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    this.#connectionsByAddress.set(address, count + 1);
    this.#handshakes.set(peer, this.#options.timers.after(HANDSHAKE_TIMEOUT_MS, () => socket.destroy()));
    socket.once("close", () => {
      this.#sockets.delete(socket);
      this.#endHandshake(peer);
      const left = (this.#connectionsByAddress.get(address) ?? 1) - 1;
      if (left > 0) this.#connectionsByAddress.set(address, left);
      else this.#connectionsByAddress.delete(address);
    });
  }

  #endHandshake(peer: string): void {
    this.#handshakes.get(peer)?.();
    this.#handshakes.delete(peer);
  }

  /** Open connections, those still in their handshake among them. */
  get connectionCount(): number {
    return this.#sockets.size;
  }

  get handshakeCount(): number {
    return this.#handshakes.size;
  }

  #watchSession(session: http2.ServerHttp2Session): void {
    this.#sessions.add(session);
    session.once("close", () => this.#sessions.delete(session));
    // A stream that waits for news is no idleness.
    let streams = 0;
    session.on("stream", (stream: http2.ServerHttp2Stream) => {
      streams++;
      stream.once("close", () => streams--);
    });
    session.setTimeout(CONNECTION_IDLE_MS, () => {
      if (streams === 0) session.close();
    });
  }
}

interface Budget {
  tokens: number;
  atMs: number;
}

function peerOf(socket: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
