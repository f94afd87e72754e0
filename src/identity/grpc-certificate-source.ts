// Certificates from a CA over gRPC: istiod, istio-csr, or ours. Token and root are files that others rotate, so they are looked at
// again for each call. This file brings the gRPC library into memory: import it only where a CA address is configured.

import { readFileSync, statSync } from "node:fs";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { RETRY_NEVER } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import { IstioCertificateService, type IstioCertificateResponse } from "../wire/protobuf/istio/v1/auth/ca_pb.ts";
import type { CertificateSource, IssuedChain, IssueFault, IssueFaultCode, IssueRequest } from "./certificate-source.ts";

/** A chain and a bundle of roots; istiod's have some 5 KiB. */
const RESPONSE_BYTES_MAX = 1024 * 1024;
const CHAIN_ELEMENTS_MAX = 16;
export const CA_CALL_TIMEOUT_MS = 10_000;
const PING_INTERVAL_MS = 30_000;
const PING_TIMEOUT_MS = 10_000;

export interface GrpcSourceOptions {
  /** `host:port` or `https://host:port` (CA_ADDRESS). Only TLS is spoken. */
  readonly address: string;
  /** Name the CA's certificate must carry when it is not the address (ALT_CA_HOSTNAME). */
  readonly serverName: string | null;
  /** PEM file of the roots that sign the CA's own certificate (CA_ROOT_CA); null trusts the system's. */
  readonly rootCaPath: string | null;
  /** File with the token, read at each call (AUTH_TOKEN), a literal, or none. */
  readonly token: { readonly kind: "file"; readonly path: string } | { readonly kind: "literal"; readonly value: string } | { readonly kind: "none" };
  /** Sent as `clusterid`. */
  readonly clusterId: string;
  /** Further headers (CA_HEADER_*). */
  readonly headers: Readonly<Record<string, string>>;
  /** Names the identity in the metadata too: wanted by istiod from a node that asks for its pods. */
  readonly impersonate: boolean;
  readonly callTimeoutMs?: number;
}

interface Channel {
  /** What the root file looked like when the channel was made. */
  readonly rootStamp: string;
  readonly sessions: Http2SessionManager;
  readonly client: Client<typeof IstioCertificateService>;
}

export class GrpcCertificateSource implements CertificateSource {
  readonly #options: GrpcSourceOptions;
  #channel: Channel | null = null;

  constructor(options: GrpcSourceOptions) {
    this.#options = options;
  }

  async issue(request: IssueRequest): Promise<Result<IssuedChain, IssueFault>> {
    const prepared = this.#prepare(request);
    if (!prepared.ok) return prepared;
    try {
      return this.#read(request, await this.#call(prepared.value, request));
    } catch (cause) {
      return this.#explain(request, cause);
    }
  }

  destroy(): void {
    this.#channel?.sessions.abort();
    this.#channel = null;
  }

  /** A CA near its own end refuses the usual lifetime; what is left is better than nothing. */
  async #call(prepared: { readonly client: Channel["client"]; readonly headers: Record<string, string> }, request: IssueRequest): Promise<IstioCertificateResponse> {
    const { client, headers } = prepared;
    const timeoutMs = this.#options.callTimeoutMs ?? CA_CALL_TIMEOUT_MS;
    const message = {
      csr: request.csrPem,
      validityDuration: BigInt(Math.floor(request.lifetimeMs / 1000)),
      ...(this.#options.impersonate ? { metadata: { ImpersonatedIdentity: request.spiffeId as string } } : {}),
    };
    try {
      return await client.createCertificate(message, { headers, signal: request.signal, timeoutMs });
    } catch (cause) {
      if (ConnectError.from(cause).code !== Code.OutOfRange) throw cause;
      return await client.createCertificate({ ...message, validityDuration: 0n }, { headers, signal: request.signal, timeoutMs });
    }
  }

  #prepare(request: IssueRequest): Result<{ readonly client: Channel["client"]; readonly headers: Record<string, string> }, IssueFault> {
    const { token, clusterId, headers } = this.#options;
    try {
      const bearer = token.kind === "none" ? null : token.kind === "literal" ? token.value : readFileSync(token.path, "utf8").trim();
      if (bearer !== null && !/^[\x21-\x7e]+$/.test(bearer)) return this.#fault("unavailable", request, `the token ${token.kind === "file" ? `in ${token.path} ` : ""}is empty or not printable`, null);
      return ok({
        client: this.#currentChannel().client,
        headers: { ...headers, ...(clusterId === "" ? {} : { clusterid: clusterId }), ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }) },
      });
    } catch (cause) {
      return this.#fault("unavailable", request, cause instanceof Error ? cause.message : String(cause), cause);
    }
  }

  #currentChannel(): Channel {
    const { rootCaPath } = this.#options;
    const stats = rootCaPath === null ? null : statSync(rootCaPath);
    const rootStamp = stats === null ? "system" : `${stats.ino} ${stats.mtimeMs} ${stats.size}`;
    if (this.#channel !== null && this.#channel.rootStamp === rootStamp) return this.#channel;
    const previous = this.#channel;
    this.#channel = this.#connect(rootStamp, rootCaPath === null ? null : readFileSync(rootCaPath, "utf8"));
    previous?.sessions.abort();
    return this.#channel;
  }

  #connect(rootStamp: string, rootPem: string | null): Channel {
    const baseUrl = this.#options.address.includes("://") ? this.#options.address : `https://${this.#options.address}`;
    if (!baseUrl.startsWith("https://")) throw new Error(`the CA's address is ${baseUrl}; only TLS is spoken to a CA`);
    const tls = {
      minVersion: "TLSv1.2" as const,
      ...(rootPem === null ? {} : { ca: rootPem }),
      ...(this.#options.serverName === null ? {} : { servername: this.#options.serverName }),
    };
    const sessions = new Http2SessionManager(baseUrl, { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS, pingIdleConnection: true }, tls);
    const transport = createGrpcTransport({ baseUrl, sessionManager: sessions, readMaxBytes: RESPONSE_BYTES_MAX });
    return { rootStamp, sessions, client: createClient(IstioCertificateService, transport) };
  }

  /** Leaf first, then intermediates, the roots together at the end. */
  #read(request: IssueRequest, response: IstioCertificateResponse): Result<IssuedChain, IssueFault> {
    const elements = response.certChain;
    const trustBundlePem = elements.at(-1);
    if (trustBundlePem === undefined || elements.length < 2 || elements.length > CHAIN_ELEMENTS_MAX) {
      return this.#fault("bad_reply", request, `the reply has ${elements.length} certificates, wanted a leaf, perhaps intermediates, and the roots`, null);
    }
    return ok({ chainPem: elements.slice(0, -1).map((pem) => (pem.endsWith("\n") ? pem : `${pem}\n`)), trustBundlePem });
  }

  #explain(request: IssueRequest, cause: unknown): Result<never, IssueFault> {
    const error = ConnectError.from(cause);
    if (request.signal.aborted) return this.#fault("aborted", request, "given up", cause);
    const answered = error.code !== Code.Unavailable && error.code !== Code.DeadlineExceeded && error.code !== Code.Unknown && error.code !== Code.Internal && error.code !== Code.Canceled;
    return this.#fault(answered ? "refused" : "unavailable", request, `${Code[error.code]}: ${error.rawMessage}`, cause);
  }

  #fault(code: IssueFaultCode, request: IssueRequest, seen: string, cause: unknown): Result<never, IssueFault> {
    return err({
      code,
      message: `certificate for ${request.spiffeId} from the CA at ${this.#options.address}: ${seen}`,
      blame: code === "aborted" ? "us" : "peer",
      dies: "nothing",
      retry: code === "aborted" ? RETRY_NEVER : { kind: "after", afterMs: 1000 },
      cause,
    });
  }
}
