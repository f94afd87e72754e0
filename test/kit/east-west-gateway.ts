// An east-west gateway as the wire contract has it: ends the outer HBONE tunnel, takes CONNECT for `service:port`, and joins the stream
// to port 15008 of one endpoint after the other. What it carries is TLS between others: it reads none of it.
//
//   using gateway = await EastWestGateway.listen(place, svid, () => [far1.ipv4, far2.ipv4]);
//   gateway.connects       what was asked for: ["web.shop.svc.cluster.local:80", ...]
//   gateway.cut()          every connection through it is reset

import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type { IpAddress } from "../../src/core/ip.ts";
import { dialFrom, HBONE_PORT, HboneServer, type PeerSvid } from "./hbone-peer.ts";
import type { Place } from "./network.ts";

/** The endpoints of a service, by the authority of a CONNECT. */
export type Endpoints = (authority: string) => readonly IpAddress[];

export class EastWestGateway implements Disposable {
  readonly connects: string[] = [];
  /** Endpoints dialled, in order. */
  readonly chosen: IpAddress[] = [];
  readonly #place: Place;
  readonly #endpoints: Endpoints;
  readonly #upstreams = new Set<Socket>();
  #server: HboneServer | null = null;

  private constructor(place: Place, endpoints: Endpoints) {
    this.#place = place;
    this.#endpoints = endpoints;
  }

  static async listen(place: Place, svid: PeerSvid, endpoints: Endpoints): Promise<EastWestGateway> {
    const gateway = new EastWestGateway(place, endpoints);
    gateway.#server = await HboneServer.listen(place, svid, (stream, headers) => void gateway.#connect(stream, String(headers[":authority"])));
    return gateway;
  }

  /** SPIFFE IDs of those who made tunnels to it. */
  get callers(): readonly string[] {
    return this.#server!.identities;
  }

  /** Connections to endpoints open now. */
  get open(): number {
    return this.#upstreams.size;
  }

  cut(): void {
    this.#server!.cut();
    for (const upstream of this.#upstreams) upstream.destroy();
  }

  [Symbol.dispose](): void {
    this.#server?.[Symbol.dispose]();
    for (const upstream of this.#upstreams) upstream.destroy();
  }

  async #connect(stream: ServerHttp2Stream, authority: string): Promise<void> {
    this.connects.push(authority);
    const endpoints = this.#endpoints(authority);
    const ip = endpoints[this.chosen.length % Math.max(1, endpoints.length)];
    if (ip === undefined) return stream.respond({ ":status": 503 }, { endStream: true });
    this.chosen.push(ip);
    let upstream: Socket;
    try {
      upstream = await dialFrom(this.#place, { ip, port: HBONE_PORT });
    } catch {
      if (!stream.destroyed) stream.respond({ ":status": 503 }, { endStream: true });
      return;
    }
    if (stream.destroyed) return void upstream.destroy();
    this.#upstreams.add(upstream);
    stream.respond({ ":status": 200 });
    stream.pipe(upstream);
    upstream.pipe(stream);
    upstream.on("error", () => {}); // `close` follows
    upstream.on("close", () => {
      this.#upstreams.delete(upstream);
      if (!stream.destroyed) stream.end();
    });
    stream.on("close", () => upstream.destroy());
  }
}
