// A control plane for tests: our xDS server on a TLS port of a test CA, with tokens.

import { connectNodeAdapter } from "@connectrpc/connect-node";
import { generateKeyPairSync } from "node:crypto";
import * as http2 from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import type { ConnectRouter } from "@connectrpc/connect";
import { seededRandom, systemClock } from "../../src/core/ports.ts";
import { err, ok } from "../../src/core/result.ts";
import { systemTimers } from "../../src/net/timers.ts";
import type { ClientView } from "../../src/xds/serving.ts";
import { XdsServer, type XdsServerEvent } from "../../src/xds/server.ts";
import { HOUR_MS, type testCa } from "./certificates.ts";

export const XDS_SERVER_NAME = "istiod.istio-system.svc";

export interface TestXdsServerOptions {
  readonly ca: ReturnType<typeof testCa>;
  readonly token: string;
  /** Null: it may be what it says. */
  readonly refusal?: (view: ClientView) => string | null;
  /** Further services of the same port. */
  readonly routes?: (router: ConnectRouter) => void;
  readonly host?: string;
  readonly port?: number;
  /** Calls what makes the listening socket, in the network namespace where it is to be. */
  readonly inside?: (listen: () => void) => void;
}

export class TestXdsServer implements AsyncDisposable {
  readonly xds: XdsServer;
  readonly events: XdsServerEvent[] = [];
  readonly #server: http2.Http2SecureServer;
  readonly #sockets = new Set<Socket>();

  private constructor({ ca, token, refusal = () => null, routes = () => {} }: TestXdsServerOptions) {
    this.xds = new XdsServer({
      replica: { name: "test", version: "0", clusterId: "Kubernetes" }, clock: systemClock, random: seededRandom(1), timers: systemTimers, onEvent: (event) => this.events.push(event),
      authenticate: { authenticate: async ({ bearerToken }) => (bearerToken === token ? ok({ name: "test", refusal, statusRefusal: () => null }) : err("the token is not known")) },
    });
    const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const certificate = ca.authority.signServer({ publicKey: pair.publicKey, names: [{ kind: "dns", dnsName: XDS_SERVER_NAME }], lifetimeMs: HOUR_MS, nowMs: systemClock.wallMs() });
    this.#server = http2.createSecureServer(
      { cert: certificate.certificateChainPem, key: pair.privateKey.export({ type: "pkcs8", format: "pem" }).toString(), allowHTTP1: false },
      connectNodeAdapter({
        connect: false, grpcWeb: false, contextValues: this.xds.contextValues,
        routes: (router) => {
          this.xds.routes(router);
          routes(router);
        },
      }),
    );
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("sessionError", () => {});
    this.#server.on("tlsClientError", () => {});
  }

  static async start(options: TestXdsServerOptions): Promise<TestXdsServer> {
    const made = new TestXdsServer(options);
    const listening = Promise.withResolvers<void>();
    const { inside = (listen) => listen() } = options;
    inside(() => void made.#server.listen(options.port ?? 0, options.host ?? "127.0.0.1", () => listening.resolve()));
    await listening.promise;
    return made;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Cuts every connection and closes the port, as a kill would. */
  async [Symbol.asyncDispose](): Promise<void> {
    const closed = Promise.withResolvers<void>();
    this.#server.close(() => closed.resolve());
    for (const socket of this.#sockets) socket.destroy();
    await closed.promise;
  }
}
