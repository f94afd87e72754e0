// The request as it goes to the server: the target that the plan says, and an upgrade in the form that the server's HTTP has for it.

import { createHash } from "node:crypto";
import { nameHalf, type NamespacedName } from "../../core/brand.ts";
import type { Random } from "../../core/ports.ts";
import type { HttpFields } from "../../wire/http/fields.ts";
import { type Host, parseHost } from "../../wire/http/host.ts";
import type { HttpRequest, HttpResponse } from "../../wire/http/message.ts";
import type { RequestTarget } from "../../wire/http/request-target.ts";

export class OutgoingRequest implements HttpRequest {
  readonly method: string;
  readonly target: RequestTarget;
  readonly fields: HttpFields;
  readonly contentLength: number;
  readonly hasBody: boolean;
  readonly acceptsTrailers: boolean;
  readonly expectsContinue: boolean;
  readonly upgrade: string | null;

  constructor(request: HttpRequest, target: RequestTarget, method: string, hasBody: boolean) {
    this.method = method;
    this.target = target;
    this.fields = request.fields;
    this.contentLength = hasBody ? request.contentLength : 0;
    this.hasBody = hasBody;
    this.acceptsTrailers = request.acceptsTrailers;
    this.expectsContinue = request.expectsContinue;
    this.upgrade = request.upgrade;
  }
}

export interface OutgoingTarget {
  readonly path: string;
  readonly query: string;
  /** As a rule writes it; null: the client's own. */
  readonly host: string | null;
  /** For a request that names none (HTTP/1.0). */
  readonly serviceHost: string;
}

/** The same object when nothing changes. */
export function outgoingOf(request: HttpRequest, wanted: OutgoingTarget): HttpRequest {
  const { target } = request;
  const host = wanted.host === null ? target.host ?? hostOf(wanted.serviceHost) : hostOf(wanted.host);
  if (host === target.host && wanted.path === target.path && wanted.query === target.query) return request;
  return new OutgoingRequest(request, { scheme: target.scheme, host, path: wanted.path, pathReceived: target.pathReceived, query: wanted.query }, request.method, request.hasBody);
}

/** The host of a service and port, for what the waypoint itself asks it. */
export function serviceHost(service: NamespacedName, port: number): Host | null {
  return hostOf(`${nameHalf(service)}:${port}`);
}

/** Rules were checked when they were read; one that slipped through leaves the host out, which the server will refuse. */
function hostOf(text: string): Host | null {
  const parsed = parseHost(text);
  return parsed.ok ? parsed.value : null;
}

const WEBSOCKET = "websocket";
/** RFC 6455, section 1.3. */
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/**
 * An upgrade that goes from one version of HTTP to another (RFC 8441, section 5): a GET with Upgrade is an extended CONNECT, and the
 * key of a WebSocket handshake belongs to HTTP/1 alone.
 */
export class UpgradeBridge {
  /** What the server must prove to have understood; null when nothing is to be proved. */
  #accept: string | null = null;

  toHttp1(request: HttpRequest, random: Random): HttpRequest {
    if (request.upgrade === WEBSOCKET) {
      const key = Buffer.from(Array.from({ length: 16 }, () => Math.floor(random.next() * 256))).toString("base64");
      request.fields.set("sec-websocket-key", key);
      this.#accept = acceptOf(key);
    }
    return new OutgoingRequest(request, request.target, "GET", false);
  }

  toHttp2(request: HttpRequest): HttpRequest {
    const key = request.fields.value("sec-websocket-key");
    if (request.upgrade === WEBSOCKET && key !== undefined) {
      this.#accept = acceptOf(key);
      request.fields.remove("sec-websocket-key");
    }
    return new OutgoingRequest(request, request.target, request.method, false);
  }

  /** HTTP/1 server, HTTP/2 client. False: the server's proof is wrong. */
  granted1to2(response: HttpResponse): boolean {
    const proof = response.fields.value("sec-websocket-accept");
    response.fields.remove("sec-websocket-accept");
    return this.#accept === null || proof === this.#accept;
  }

  /** HTTP/2 server, HTTP/1 client: the proof is ours to give. */
  granted2to1(response: HttpResponse): void {
    if (this.#accept !== null) response.fields.set("sec-websocket-accept", this.#accept);
  }
}

function acceptOf(key: string): string {
  return createHash("sha1").update(key + WEBSOCKET_GUID).digest("base64");
}
