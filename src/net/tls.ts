// TLS on Bun's native sockets: contexts, and the upgrade of a plain socket in place. TLS 1.3 with SVIDs for tunnels; for backends outside
// the mesh what they speak. Chain and signatures are checked by the TLS stack against the trust given; who the peer is, is judged by the caller.

import { constants } from "node:crypto";
import type { Socket as NodeSocket } from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import type { Socket, SocketHandler } from "bun";
import { readCertificate } from "../wire/x509/certificate.ts";
import { systemRoots } from "./system-roots.ts";

/** What BoringSSL needs for one identity; the same context serves both roles. Swapped by making a new one: live connections keep theirs. */
export interface TlsContext {
  readonly native: unknown;
  /** The same context for node:tls, which carries TLS over something that is not a socket. */
  readonly secure: tls.SecureContext;
}

export interface TlsMaterial {
  readonly certificateChainPem: string;
  readonly privateKeyPem: string;
  readonly trustBundlePem: string;
}

/** ALPN in wire form: one length byte, then `h2`. Exactly this protocol is offered and accepted. */
const ALPN_H2 = Buffer.from("\x02h2");

/**
 * Builds a context: TLS 1.3 only, trust in the given bundle alone, no session tickets (a resumed session would skip the
 * expiry check of the client certificate). Throws on material that does not parse.
 */
export function createTlsContext(material: TlsMaterial): TlsContext {
  const context = tls.createSecureContext({
    cert: material.certificateChainPem,
    key: material.privateKeyPem,
    ca: material.trustBundlePem,
    minVersion: "TLSv1.3",
    secureOptions: constants.SSL_OP_NO_TICKET,
    ecdhCurve: "X25519:P-256:P-384",
  } as tls.SecureContextOptions);
  return { native: (context as unknown as { context: unknown }).context, secure: context };
}

/** What Bun's native socket offers beyond its published type. */
export interface NativeTlsSocket<T> extends Omit<Socket<T>, "alpnProtocol" | "authorized" | "getPeerCertificate"> {
  readonly alpnProtocol: string | false;
  readonly authorized: boolean;
  /** With `false`: detailed, the issuers linked through issuerCertificate up to the root. */
  getPeerCertificate(abbreviated: boolean): PeerCertificateChain | null | undefined;
}

interface PeerCertificateChain {
  readonly raw?: Uint8Array;
  readonly issuerCertificate?: PeerCertificateChain;
}

/** Longest chain looked at: leaf, intermediates and root. */
export const PEER_CHAIN_LENGTH_MAX = 8;

/** DER of the verified chain, leaf first. Empty when the peer sent none. */
export function peerChain(socket: NativeTlsSocket<unknown>): Uint8Array[] {
  return chainOf(socket.getPeerCertificate(false));
}

function chainOf(leaf: PeerCertificateChain | null | undefined): Uint8Array[] {
  const chain: Uint8Array[] = [];
  let at = leaf;
  while (at?.raw !== undefined && chain.length < PEER_CHAIN_LENGTH_MAX) {
    chain.push(at.raw);
    if (at.issuerCertificate === at) break;
    at = at.issuerCertificate;
  }
  return chain;
}

/**
 * Takes over `socket` as the server of a handshake. Must run inside the socket's `open` callback, before any byte is read.
 * A peer without a certificate, or with one that does not verify, is refused by the TLS stack.
 */
export function upgradeServer<T>(socket: Socket<unknown>, context: TlsContext, handler: SocketHandler<T>, state: T): NativeTlsSocket<T> {
  return upgrade(socket, true, { ...meshHandshake(context), rejectUnauthorized: true }, handler, state);
}

/**
 * Takes over `socket` as the client of a handshake. The chain is verified, but the host name check of the stack does not fit SPIFFE:
 * use serverChainError in the `handshake` callback, then judge the identity.
 */
export function upgradeClient<T>(socket: Socket<unknown>, context: TlsContext, handler: SocketHandler<T>, state: T): NativeTlsSocket<T> {
  return upgrade(socket, false, { ...meshHandshake(context), rejectUnauthorized: false }, handler, state);
}

/**
 * Null when the server's chain verified. The stack reports chain errors before name errors, so a name mismatch means that the
 * chain is good; SPIFFE certificates carry no host name and always end there.
 */
export function serverChainError(socket: NativeTlsSocket<unknown>, error: Error | null): string | null {
  return chainError(socket.authorized, error);
}

/** A chain that did not verify is never taken for a good one because nobody said why. */
function chainError(authorized: boolean, error: (Error & { code?: string }) | string | null | undefined): string | null {
  if (authorized) return null;
  const why = typeof error === "string" ? error : error?.code ?? error?.message;
  return why === "ERR_TLS_CERT_ALTNAME_INVALID" ? null : why ?? "the server's certificate did not verify";
}

/** TLS inside a byte stream: the same rules as on a socket. */
export interface StreamTls {
  /** False when the peer is slow: `onDrain` follows. `bytes` is borrowed until then, so it is copied. */
  write(bytes: Uint8Array): boolean;
  pause(): void;
  resume(): void;
  end(): void;
  destroy(): void;
}

export interface StreamTlsEvents {
  /** The chain verified; who the peer is, is the caller's to judge. */
  onSecure(chainDer: Uint8Array[], alpn: string | false): void;
  onData(chunk: Uint8Array): void;
  onDrain(): void;
  onEnd(): void;
  /** Once; `error` is null after a clean end. */
  onClose(error: Error | null): void;
}

/** Starts a client handshake inside `stream`. Slower than a native socket: for the rare tunnel inside a tunnel. */
export function connectTlsOverStream(stream: Duplex, context: TlsContext, events: StreamTlsEvents): StreamTls {
  const socket = tls.connect({
    socket: stream as unknown as NodeSocket, secureContext: context.secure, ALPNProtocols: ["h2"], rejectUnauthorized: true, checkServerIdentity: () => undefined,
  });
  return streamTls(socket, events);
}

function streamTls(socket: tls.TLSSocket, events: StreamTlsEvents): StreamTls {
  let failure: Error | null = null;
  socket.on("secureConnect", () => events.onSecure(chainOf(socket.getPeerCertificate(true) as unknown as PeerCertificateChain), socket.alpnProtocol ?? false));
  socket.on("data", (chunk: Uint8Array) => events.onData(chunk));
  socket.on("drain", () => events.onDrain());
  socket.on("end", () => events.onEnd());
  socket.on("error", (error: Error) => {
    failure ??= error;
  });
  socket.on("close", () => events.onClose(failure));
  return {
    write: (bytes) => socket.write(Buffer.from(bytes)),
    pause: () => void socket.pause(),
    resume: () => void socket.resume(),
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}

// ---- towards servers outside the mesh, as they are: host names, public authorities, TLS 1.2 and later

/** What is shown to, and trusted of, a backend. */
export interface BackendTlsMaterial {
  /** PEM; null for the system's roots. */
  readonly caPem: string | null;
  readonly certificate: { readonly certificatePem: string; readonly keyPem: string } | null;
}

/** Throws on material that does not parse. Costly with the system's roots: make it once. */
export function createBackendTlsContext({ caPem, certificate }: BackendTlsMaterial): TlsContext {
  const ca = caPem ?? systemRoots();
  const context = tls.createSecureContext({
    ...(ca === null ? {} : { ca }), ...(certificate === null ? {} : { cert: certificate.certificatePem, key: certificate.keyPem }), minVersion: "TLSv1.2",
  } as tls.SecureContextOptions);
  return { native: (context as unknown as { context: unknown }).context, secure: context };
}

export interface BackendHandshake {
  readonly context: TlsContext;
  readonly sni: string;
  /** In order of preference; empty: none is offered. */
  readonly alpn: readonly string[];
}

/** Takes over a connected socket as the client of a backend. Judge it with `serverChainError` in the `handshake` callback. */
export function upgradeBackend<T>(socket: Socket<unknown>, { context, sni, alpn }: BackendHandshake, handler: SocketHandler<T>, state: T): NativeTlsSocket<T> {
  const protocols = alpn.length === 0 ? {} : { ALPNProtocols: Buffer.concat(alpn.map((name) => Buffer.from(String.fromCharCode(name.length) + name, "latin1"))) };
  return upgrade(socket, false, { secureContext: context.native, rejectUnauthorized: false, serverName: sni, ...protocols }, handler, state);
}

/** The same inside a stream. `chainError` is null when the chain verified. */
export function connectBackendOverStream(stream: Duplex, { context, sni, alpn }: BackendHandshake, events: Omit<StreamTlsEvents, "onSecure"> & { onSecure(chainDer: Uint8Array[], alpn: string | false, chainError: string | null): void }): StreamTls {
  const socket = tls.connect({
    socket: stream as unknown as NodeSocket, secureContext: context.secure, servername: sni, rejectUnauthorized: false, checkServerIdentity: () => undefined, ...(alpn.length === 0 ? {} : { ALPNProtocols: [...alpn] }),
  });
  return streamTls(socket, { ...events, onSecure: (chain, chosen) => events.onSecure(chain, chosen, chainError(socket.authorized, socket.authorizationError as Error | string | null | undefined)) });
}

/** What a certificate may be used for by its names. Null when it does not parse. */
export function presentedNames(leafDer: Uint8Array): { readonly dnsNames: readonly string[]; readonly uris: readonly string[]; readonly ips: readonly string[] } | null {
  const read = readCertificate(leafDer);
  if (!read.ok) return null;
  const { dnsNames, uris, ipAddresses } = read.value.subjectAltNames;
  return { dnsNames, uris, ips: ipAddresses };
}

const meshHandshake = (context: TlsContext) => ({ secureContext: context.native, requestCert: true, ALPNProtocols: ALPN_H2 });

/** @param handshake as Bun's native TLS takes it. */
function upgrade<T>(socket: Socket<unknown>, isServer: boolean, handshake: Readonly<Record<string, unknown>>, handler: SocketHandler<T>, state: T): NativeTlsSocket<T> {
  const options = { isServer, data: state, tls: handshake, socket: handler };
  const [, secured] = socket.upgradeTLS(options as unknown as Parameters<Socket<unknown>["upgradeTLS"]>[0]);
  return secured as unknown as NativeTlsSocket<T>;
}
