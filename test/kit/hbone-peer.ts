// HBONE spoken by somebody else: node:http2 over node:tls, with certificates of the mesh's own CA, from and to places of the network.
//
//   const svid = issueSvid(mesh, identity("shop", "foreign"));
//   using server = await HboneServer.listen(place, svid, (stream) => { stream.respond({ ":status": 200 }); stream.pipe(stream); });
//   using client = await HboneClient.open(place, { ip: far.ipv4, port: 15008 }, svid);
//   const { status, stream } = await client.connect(`${far.ipv4}:9000`, { baggage: "..." });
//   using silent = await SilentServer.listen(place, svid);          // finishes TLS and says nothing more
//
// Each server keeps what it saw: `requests` (header lists), `identities` (URI SANs of those who came), `ended` (connections that ended).

import { once } from "node:events";
import http2 from "node:http2";
import { connect as connectNet, type Server, type Socket } from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { openAuthority } from "../../src/ca/authority-store.ts";
import { LEAF_LIFETIME_MS } from "../../src/ca/authority.ts";
import type { SocketAddress } from "../../src/core/ip.ts";
import { type SpiffeId, parseSpiffeId } from "../../src/core/spiffe.ts";
import { createRequest } from "../../src/identity/csr.ts";
import { dial } from "../../src/net/dial.ts";
import { close, connect, errnoName } from "../../src/net/libc.ts";
import { listenTcpAnyAddress } from "../../src/net/listen.ts";
import { encodeSockaddr } from "../../src/net/socket-address.ts";
import type { Mesh } from "./mesh.ts";
import { until } from "./until.ts";
import type { Place } from "./network.ts";

export const HBONE_PORT = 15008;
const HANDSHAKE_MS = 5_000;
const EISCONN = 106;
const EALREADY = 114;
const NO_KEEPALIVE = { idleS: 0, intervalS: 0, probes: 0 };

/** PEM texts, as node:tls takes them. */
export interface PeerSvid {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** A certificate of the mesh's CA for any identity of its trust domain. The first agent, which brings the CA, has been started. */
export function issueSvid(mesh: Mesh, id: SpiffeId): PeerSvid {
  const trustDomain = parseSpiffeId(id)!.trustDomain;
  const policy = { trustDomain, leafLifetimeMs: LEAF_LIFETIME_MS, leafLifetimeMsMax: LEAF_LIFETIME_MS };
  const directory = join(mesh.directory, `state-${mesh.agents[0]!.node.name}`, "ca");
  const opened = openAuthority({ directory, policy, organization: "test", plugIn: null, nowMs: Date.now() });
  if (!opened.ok) throw new Error(opened.error.message);
  const request = createRequest(id);
  const issued = opened.value.authority.sign({ csr: request.csrPem, mayHave: () => true, caller: "test", lifetimeMs: null }, Date.now());
  if (!issued.ok) throw new Error(issued.error.message);
  return { cert: issued.value.chainPem.join(""), key: request.privateKeyPem, ca: issued.value.trustBundlePem };
}

/** A TCP connection from a place. Rejects with the errno's name. @param mark 0x539 where the place is captured. */
export async function dialFrom(place: Place, to: SocketAddress, mark = 0): Promise<Socket> {
  const fd = dial({ namespaceFd: place.namespaceFd, to, mark, transparentSource: null, keepalive: NO_KEEPALIVE });
  const failed = (errno: number) => new Error(`cannot dial ${to.ip} port ${to.port} from ${place.name}: ${errnoName(errno)}`);
  if (fd < 0) throw failed(fd);
  // A socket that is adopted while it connects does not say when it has: asking again does.
  const address = encodeSockaddr(to);
  const state = await until(`${to.ip} port ${to.port} to answer`, HANDSHAKE_MS, () => {
    const errno = connect(fd, address);
    return errno === -EALREADY ? null : errno === 0 ? -EISCONN : errno;
  });
  if (state !== -EISCONN) {
    close(fd);
    throw failed(state);
  }
  return connectNet({ fd, allowHalfOpen: true } as unknown as Parameters<typeof connectNet>[0]);
}

/** TLS as HBONE has it: 1.3, our certificate, ALPN h2; the peer's chain is checked, its identity is not. */
export async function connectTls(place: Place, to: SocketAddress, svid: PeerSvid): Promise<tls.TLSSocket> {
  const socket = tls.connect({ socket: await dialFrom(place, to), ...svid, ALPNProtocols: ["h2"], minVersion: "TLSv1.3", checkServerIdentity: () => undefined });
  await once(socket, "secureConnect", { signal: AbortSignal.timeout(HANDSHAKE_MS) });
  socket.on("error", () => {}); // `close` follows
  return socket;
}

const serverOptions = (svid: PeerSvid) =>
  ({ ...svid, requestCert: true, rejectUnauthorized: true, minVersion: "TLSv1.3", ALPNProtocols: ["h2"] }) as const;

function listeningFd(place: Place): number {
  const fd = listenTcpAnyAddress({ namespaceFd: place.namespaceFd, port: HBONE_PORT, mark: 0, keepalive: null, shared: true });
  if (fd < 0) throw new Error(`cannot listen on port ${HBONE_PORT} in ${place.name}: ${errnoName(fd)}`);
  return fd;
}

async function listening<S extends Server>(server: S, place: Place): Promise<S> {
  server.listen({ fd: listeningFd(place) });
  await once(server, "listening");
  return server;
}

const identityOf = (socket: tls.TLSSocket): string => (socket.getPeerCertificate().subjectaltname ?? "").replace(/^URI:/, "");

export type RequestHandler = (stream: http2.ServerHttp2Stream, headers: http2.IncomingHttpHeaders) => void;

export class HboneServer implements Disposable {
  readonly requests: http2.IncomingHttpHeaders[] = [];
  readonly identities: string[] = [];
  /** HTTP/2 connections that came, and those that ended. */
  opened = 0;
  ended = 0;
  /** So many of the next connections are reset as soon as TLS stands, and before a word of HTTP/2. */
  breaks = 0;
  readonly #server: http2.Http2SecureServer;
  readonly #sessions = new Set<http2.ServerHttp2Session>();

  private constructor(svid: PeerSvid, onRequest: RequestHandler) {
    this.#server = http2.createSecureServer({ ...serverOptions(svid), allowHTTP1: false });
    const [speak] = this.#server.listeners("secureConnection") as ((socket: tls.TLSSocket) => void)[];
    this.#server.removeAllListeners("secureConnection").on("secureConnection", (socket: tls.TLSSocket) => {
      if (this.breaks === 0) return speak!.call(this.#server, socket);
      this.breaks--;
      socket.on("error", () => {}).destroy();
    });
    this.#server.on("session", (session) => {
      this.opened++;
      this.#sessions.add(session);
      this.identities.push(identityOf(session.socket as tls.TLSSocket));
      session.on("error", () => {});
      session.on("close", () => {
        this.ended++;
        this.#sessions.delete(session);
      });
    });
    this.#server.on("stream", (stream, headers) => {
      this.requests.push(headers);
      stream.on("error", () => {});
      onRequest(stream as http2.ServerHttp2Stream, headers);
    });
    this.#server.on("tlsClientError", () => {}).on("sessionError", () => {});
  }

  static async listen(place: Place, svid: PeerSvid, onRequest: RequestHandler): Promise<HboneServer> {
    const server = new HboneServer(svid, onRequest);
    await listening(server.#server, place);
    return server;
  }

  /** Ends every connection by force; still listening. */
  cut(): void {
    for (const session of this.#sessions) session.destroy();
  }

  [Symbol.dispose](): void {
    this.#server.close();
    this.cut();
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: http2.IncomingHttpHeaders;
  readonly stream: http2.ClientHttp2Stream;
}

export class HboneClient implements Disposable {
  readonly session: http2.ClientHttp2Session;

  private constructor(session: http2.ClientHttp2Session) {
    this.session = session;
    session.on("error", () => {});
  }

  static async open(place: Place, to: SocketAddress, svid: PeerSvid): Promise<HboneClient> {
    const socket = await connectTls(place, to, svid);
    return new HboneClient(http2.connect(`https://${to.ip.includes(":") ? `[${to.ip}]` : to.ip}:${to.port}`, { createConnection: () => socket }));
  }

  /** One CONNECT and its answer. */
  async connect(authority: string, headers: http2.OutgoingHttpHeaders = {}): Promise<Answer> {
    const stream = this.session.request({ ":method": "CONNECT", ":authority": authority, ...headers }, { endStream: false });
    stream.on("error", () => {});
    const [answer] = (await once(stream, "response", { signal: AbortSignal.timeout(HANDSHAKE_MS) })) as [http2.IncomingHttpHeaders & { ":status"?: number }];
    return { status: answer[":status"]!, headers: answer, stream };
  }

  [Symbol.dispose](): void {
    this.session.destroy();
  }
}

/** Finishes the TLS handshake and says nothing more. */
export class SilentServer implements Disposable {
  accepted = 0;
  ended = 0;
  readonly #server: tls.Server;
  readonly #sockets = new Set<tls.TLSSocket>();

  private constructor(svid: PeerSvid) {
    this.#server = tls.createServer(serverOptions(svid), (socket) => {
      this.accepted++;
      this.#sockets.add(socket);
      socket.on("error", () => {}).on("close", () => {
        this.ended++;
        this.#sockets.delete(socket);
      });
      socket.resume();
    });
    this.#server.on("tlsClientError", () => {});
  }

  static async listen(place: Place, svid: PeerSvid): Promise<SilentServer> {
    const server = new SilentServer(svid);
    await listening(server.#server, place);
    return server;
  }

  [Symbol.dispose](): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
