// TLS 1.3 for tunnels on Bun's native sockets: contexts from SVIDs, and the upgrade of a plain socket in place.
// Chain and signatures are checked by the TLS stack against the SVID's own trust bundle; who the peer is, is judged by the caller.

import { constants } from "node:crypto";
import tls from "node:tls";
import type { Socket, SocketHandler } from "bun";

/** What BoringSSL needs for one identity; the same context serves both roles. Swapped by making a new one: live connections keep theirs. */
export interface TlsContext {
  readonly native: unknown;
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
  return { native: (context as unknown as { context: unknown }).context };
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
  const chain: Uint8Array[] = [];
  let at = socket.getPeerCertificate(false);
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
  return upgrade(socket, { isServer: true, rejectUnauthorized: true }, context, handler, state);
}

/**
 * Takes over `socket` as the client of a handshake. The chain is verified, but the host name check of the stack does not fit SPIFFE:
 * use verifyServerChain in the `handshake` callback, then judge the identity.
 */
export function upgradeClient<T>(socket: Socket<unknown>, context: TlsContext, handler: SocketHandler<T>, state: T): NativeTlsSocket<T> {
  return upgrade(socket, { isServer: false, rejectUnauthorized: false }, context, handler, state);
}

/**
 * Null when the server's chain verified. The stack reports chain errors before name errors, so a name mismatch means that the
 * chain is good; SPIFFE certificates carry no host name and always end there.
 */
export function serverChainError(socket: NativeTlsSocket<unknown>, error: Error | null): string | null {
  if (socket.authorized) return null;
  const code = (error as { code?: string } | null)?.code;
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return null;
  return code ?? error?.message ?? "the server's certificate did not verify";
}

function upgrade<T>(
  socket: Socket<unknown>,
  role: { isServer: boolean; rejectUnauthorized: boolean },
  context: TlsContext,
  handler: SocketHandler<T>,
  state: T,
): NativeTlsSocket<T> {
  const options = {
    isServer: role.isServer,
    data: state,
    tls: { secureContext: context.native, requestCert: true, rejectUnauthorized: role.rejectUnauthorized, ALPNProtocols: ALPN_H2 },
    socket: handler,
  };
  const [, secured] = socket.upgradeTLS(options as unknown as Parameters<Socket<unknown>["upgradeTLS"]>[0]);
  return secured as unknown as NativeTlsSocket<T>;
}
