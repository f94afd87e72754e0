// How issuers and providers are asked: through the mesh where the URL names a service of it by plain HTTP, so that one which takes nothing
// but mutual TLS can be asked too; else over the network, as anybody would.

import { namespacedName } from "../../core/brand.ts";
import { err, ok } from "../../core/result.ts";
import type { FetchPort, IssuerRequest, IssuerResponse } from "../../identity/jwt/fetch-port.ts";
import type { Service } from "../../mesh/records.ts";
import type { MeshStore } from "../../mesh/store.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { headerValue, type HeaderList } from "../../wire/http/header-list.ts";
import { parseHost } from "../../wire/http/host.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { type CallHost, type ServiceAnswer, ServiceCall } from "./service-call.ts";

const HTTP_PORT = 80;
const utf8 = new TextDecoder();

export function meshFetch(outside: FetchPort, store: MeshStore, host: () => CallHost): FetchPort {
  return (request) => {
    const url = new URL(request.url);
    const port = url.port === "" ? HTTP_PORT : Number(url.port);
    // What nobody who operates the mesh has written must not reach into it.
    const service = url.protocol === "http:" && !request.publicOnly ? serviceAt(store, url.hostname, port) : undefined;
    return service === undefined ? outside(request) : ask(host(), service, port, url, request);
  };
}

/**
 * Undefined for a service behind a waypoint: whoever may write where tokens come from must not use our identity, which its endpoints
 * trust, to get around the policies that stand before it.
 */
function serviceAt(store: MeshStore, hostname: string, port: number): Service | undefined {
  const services = store.servicesByHostname(hostname).filter(({ ports, waypoints }) => waypoints.length === 0 && ports.some(({ servicePort }) => servicePort === port));
  return services.find(({ canonical }) => canonical) ?? services[0];
}

function ask(host: CallHost, service: Service, port: number, url: URL, request: IssuerRequest): ReturnType<FetchPort> {
  const what = `${request.method} ${url.origin}${url.pathname}, through the mesh`;
  if (request.signal.aborted) return Promise.resolve(err(`${what}: given up, we are shutting down`));
  const body = new TextEncoder().encode(request.body ?? "");
  const at = parseHost(url.host);
  const message = (): HttpRequest => ({
    method: request.method, target: { scheme: "http", host: at.ok ? at.value : null, path: url.pathname, pathReceived: null, query: url.search }, fields: ListFields.of(fieldsOf(request)),
    contentLength: body.length, hasBody: body.length > 0, acceptsTrailers: false, expectsContinue: false, upgrade: null,
  });
  return new Promise((done) => {
    const giveUp = (): void => {
      call.cancel();
      done(err(`${what}: given up, we are shutting down`));
    };
    const call = new ServiceCall(host, {
      service: namespacedName(service.namespace, service.hostname), port, version: null, request: message, body, timeoutMs: request.timeoutMs, repeatable: true, answerBytesMax: request.bodyBytesMax,
      longAnswer: "fails", grpcStatusOf: null,
    }, (answer) => {
      request.signal.removeEventListener("abort", giveUp);
      done(answer.ok ? ok(responseOf(answer.value)) : err(`${what}: ${answer.error}`));
    });
    request.signal.addEventListener("abort", giveUp, { once: true });
  });
}

function fieldsOf({ headers }: IssuerRequest): HeaderList {
  return Object.entries(headers).flatMap(([name, value]) => [name.toLowerCase(), value]);
}

function responseOf({ status, headers, body }: ServiceAnswer): IssuerResponse {
  return { status, location: headerValue(headers, "location") ?? null, cacheControl: headerValue(headers, "cache-control") ?? null, body: utf8.decode(body) };
}
