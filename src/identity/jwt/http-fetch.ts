// The real FetchPort: node's HTTP client, which lets us see every address before it is connected to. No redirect is followed here, no
// environment proxy used, and an answer longer than allowed ends the connection.

import { lookup } from "node:dns";
import { request as httpRequest, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import type { LookupFunction } from "node:net";
import { type IpAddress, parseIp } from "../../core/ip.ts";
import { err, ok, type Result } from "../../core/result.ts";
import { isNeverRemote, isPrivateAddress } from "../../policy/ports.ts";
import type { FetchPort, IssuerRequest, IssuerResponse } from "./fetch-port.ts";

type Resolve = typeof lookup;

export interface HttpFetchOptions {
  /** Roots for https, PEM; null for the system's. */
  readonly ca?: string | null;
  /** Never to loopback and other addresses that lead to no other machine: URLs come from whoever may write resources, and this process listens there. */
  readonly remoteOnly?: boolean;
  /** For tests. */
  readonly resolve?: Resolve;
}

export function httpFetch({ ca = null, remoteOnly = false, resolve = lookup }: HttpFetchOptions = {}): FetchPort {
  return (request) => send(request, { ca, unwanted: request.publicOnly ? PRIVATE : remoteOnly ? NEVER_REMOTE : null, resolve });
}

/** Addresses that are not connected to. */
interface Unwanted {
  readonly what: string;
  readonly covers: (ip: IpAddress) => boolean;
}
const PRIVATE: Unwanted = { what: "private", covers: isPrivateAddress };
const NEVER_REMOTE: Unwanted = { what: "loopback or link-local", covers: isNeverRemote };

function send(request: IssuerRequest, { ca, unwanted, resolve }: { readonly ca: string | null; readonly unwanted: Unwanted | null; readonly resolve: Resolve }): Promise<Result<IssuerResponse, string>> {
  const url = new URL(request.url);
  const literal = parseIp(url.hostname.replace(/^\[|\]$/g, ""));
  if (unwanted !== null && literal !== null && unwanted.covers(literal)) return Promise.resolve(err(`${url.host} is a ${unwanted.what} address: not connected to`));
  const what = `${request.method} ${url.origin}${url.pathname}`;
  const signal = AbortSignal.any([request.signal, AbortSignal.timeout(request.timeoutMs)]);
  const options: RequestOptions = { method: request.method, headers: request.headers, signal, agent: false, lookup: unwanted === null ? resolve : without(unwanted, resolve), ...(ca === null ? {} : { ca }) };
  return new Promise((done) => {
    const fail = (error: unknown): void => done(err(`${what}: ${explain(error, request)}`));
    const sent = (url.protocol === "https:" ? httpsRequest : httpRequest)(url, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > request.bodyBytesMax) {
          done(err(`${what}: the answer is longer than ${request.bodyBytesMax} bytes`));
          sent.destroy();
          return;
        }
        chunks.push(chunk);
      });
      response.on("error", fail);
      response.on("aborted", () => fail(new Error("the answer ended early")));
      response.on("end", () => done(ok({
        status: response.statusCode ?? 0, location: response.headers.location ?? null, cacheControl: response.headers["cache-control"] ?? null, body: Buffer.concat(chunks).toString("utf8"),
      })));
    });
    sent.on("error", fail);
    sent.end(request.body ?? undefined);
  });
}

/** The addresses that are looked at are the ones that are connected to: a name cannot answer twice differently. */
function without({ what, covers }: Unwanted, resolve: Resolve): LookupFunction {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) return callback(error, "", 0);
      const [first] = addresses;
      const refused = addresses.find(({ address }) => {
        const ip = parseIp(address);
        return ip === null || covers(ip);
      });
      if (first === undefined || refused !== undefined) {
        return callback(Object.assign(new Error(`${hostname} is the ${what} address ${refused?.address ?? "(none)"}: not connected to`), { code: "EPRIVATE" }), "", 0);
      }
      if (options.all === true) callback(null, addresses);
      else callback(null, first.address, first.family);
    });
  };
}

function explain(error: unknown, request: IssuerRequest): string {
  if (request.signal.aborted) return "given up, we are shutting down";
  if (error instanceof Error && (error.name === "TimeoutError" || error.name === "AbortError")) return `no answer in ${request.timeoutMs} ms`;
  return error instanceof Error ? error.message : String(error);
}
