// Servers outside the mesh that speak TLS, with certificates of an authority made for the test.

import { createServer as createHttps } from "node:https";
import { createSecureServer } from "node:http2";
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { KeyObject } from "node:crypto";
import type { Server as TlsServer, TLSSocket } from "node:tls";
import { createRevocationList, createRoot, type Issuer } from "../../src/ca/authority.ts";
import { readCertificates } from "../../src/identity/chain.ts";
import { KEY_USAGE, OID } from "../../src/wire/x509/oids.ts";
import { dnsName, ekuExtension, forge, HOUR_MS, keyUsageExtension, mustRead, newEcKey, sanExtension, spkiOf, uriName, writePem } from "./certificates.ts";

export interface LeafOptions {
  readonly dns?: readonly string[];
  readonly uris?: readonly string[];
  /** Ran out an hour ago. */
  readonly expired?: boolean;
}

export interface Leaf {
  readonly certificatePem: string;
  readonly keyPem: string;
}

const pemOf = (key: KeyObject): string => key.export({ type: "pkcs8", format: "pem" }).toString();

export class BackendAuthority {
  readonly caPem: string;
  readonly #root: Issuer;
  readonly #nowMs: number;
  #leaves = 0;

  constructor(nowMs = Date.now()) {
    const key = newEcKey();
    const der = createRoot({ key, organization: "backends", commonName: "root", nowMs: nowMs - 10 * HOUR_MS, lifetimeMs: 1000 * HOUR_MS });
    this.#root = { certificate: mustRead(der), key, chainPem: [] };
    this.#nowMs = nowMs;
    this.caPem = writePem("CERTIFICATE", der);
  }

  leaf({ dns = [], uris = [], expired = false }: LeafOptions): Leaf {
    const key = newEcKey();
    const der = forge({
      issuer: this.#root, spkiDer: spkiOf(key), serial: Uint8Array.of(0x11, 0x22, ++this.#leaves), notBeforeMs: this.#nowMs - 5 * HOUR_MS, notAfterMs: this.#nowMs + (expired ? -1 : 5) * HOUR_MS,
      extensions: [keyUsageExtension(KEY_USAGE.digitalSignature), ekuExtension(OID.serverAuth, OID.clientAuth), sanExtension(...dns.map(dnsName), ...uris.map(uriName))],
    });
    return { certificatePem: writePem("CERTIFICATE", der), keyPem: pemOf(key) };
  }

  /** A list of those that are no longer good, as PEM. */
  revocationList(...leaves: readonly Leaf[]): string {
    const entries = leaves.map(({ certificatePem }) => {
      const read = readCertificates(certificatePem);
      if (!read.ok) throw new Error(read.error);
      return { serialHex: read.value[0]!.serialHex, revokedAtMs: this.#nowMs - HOUR_MS };
    });
    return writePem("X509 CRL", createRevocationList({ issuer: this.#root, entries, number: 1, nowMs: this.#nowMs, lifetimeMs: 10 * HOUR_MS }));
  }
}

export interface TlsSeen {
  readonly method: string;
  readonly url: string;
  readonly version: string;
  readonly sni: string | false | null;
  readonly alpn: string | false | null;
  readonly client: string | null;
  readonly scheme: string | null;
}

export interface TlsBackend extends AsyncDisposable {
  readonly port: number;
  readonly seen: TlsSeen[];
  /** Connections accepted so far. */
  connections: number;
  /** From the next handshake on; of a server that speaks both. */
  use(leaf: Leaf): void;
}

export interface TlsBackendOptions {
  readonly leaf: Leaf;
  /** `both`: HTTP/2 and HTTP/1.1 by ALPN; `http1`: a server that knows no HTTP/2. */
  readonly speaks?: "both" | "http1";
  readonly clientCaPem?: string;
  readonly tlsMax?: "TLSv1.2";
  readonly host?: string;
  readonly port?: number;
}

export async function tlsBackend({ leaf, speaks = "http1", clientCaPem, tlsMax, host = "127.0.0.1", port = 0 }: TlsBackendOptions, handler: RequestListener): Promise<TlsBackend> {
  const seen: TlsSeen[] = [];
  const sockets = new Set<Socket>();
  const options = {
    cert: leaf.certificatePem, key: leaf.keyPem, ...(clientCaPem === undefined ? {} : { ca: clientCaPem, requestCert: true, rejectUnauthorized: true }), ...(tlsMax === undefined ? {} : { maxVersion: tlsMax }),
  };
  const listener = (request: IncomingMessage, response: ServerResponse): void => {
    const socket = ((request as unknown as { stream?: { session?: { socket: TLSSocket } } }).stream?.session?.socket ?? request.socket) as TLSSocket;
    seen.push({
      method: request.method!, url: request.url!, version: request.httpVersion, sni: (socket as unknown as { servername?: string }).servername ?? null, alpn: socket.alpnProtocol,
      client: socket.getPeerCertificate?.()?.subjectaltname ?? null, scheme: (request.headers as Record<string, string>)[":scheme"] ?? null,
    });
    handler(request, response as ServerResponse & { req: IncomingMessage });
  };
  const server = speaks === "both" ? createSecureServer({ ...options, allowHTTP1: true }, listener as never) : createHttps({ ...options, ALPNProtocols: ["http/1.1"] } as never, listener);
  const backend: TlsBackend = {
    port: 0, seen, connections: 0,
    use: (next) => (server as unknown as TlsServer).setSecureContext({ ...options, cert: next.certificatePem, key: next.keyPem }),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
  server.on("connection", (socket: Socket) => {
    backend.connections++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  server.on("secureConnection", (socket: TLSSocket) => socket.on("error", () => {}));
  await new Promise<void>((resolve) => server.listen(port, host, resolve));
  (backend as { port: number }).port = (server.address() as AddressInfo).port;
  return backend;
}
