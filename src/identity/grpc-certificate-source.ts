// Certificates from a CA over gRPC: istiod, istio-csr, or ours. This file brings HTTP/2 and messages into memory: import it only where a CA
// address is configured.

import { create, toBinary } from "@bufbuild/protobuf";
import { RETRY_NEVER } from "../core/fault.ts";
import { err, ok, type Result } from "../core/result.ts";
import { decode } from "../wire/protobuf/decode.ts";
import { IstioCertificateRequestSchema, type IstioCertificateResponse, IstioCertificateResponseSchema, IstioCertificateService } from "../wire/protobuf/istio/v1/auth/ca_pb.ts";
import type { GrpcEnd } from "./grpc-call.ts";
import { callUnary } from "./grpc-unary.ts";
import { type ChannelToken, GrpcChannel, type PreparedCall } from "./grpc-channel.ts";
import type { CertificateSource, IssuedChain, IssueFault, IssueFaultCode, IssueRequest } from "./certificate-source.ts";

const PATH = `/${IstioCertificateService.typeName}/${IstioCertificateService.method.createCertificate.name}`;
/** A chain and a bundle of roots; istiod's have some 5 KiB. */
const RESPONSE_BYTES_MAX = 1024 * 1024;
const CHAIN_ELEMENTS_MAX = 16;
export const CA_CALL_TIMEOUT_MS = 10_000;
/** Of that, for the connection: one that was sent to a replica that has just gone never comes, and the next goes elsewhere. */
const CONNECT_MS = 3_000;

export interface GrpcSourceOptions {
  /** `host:port` or `https://host:port` (CA_ADDRESS). Only TLS is spoken. */
  readonly address: string;
  /** Name the CA's certificate must carry when it is not the address (ALT_CA_HOSTNAME). */
  readonly serverName: string | null;
  /** PEM file, or PEM text, of the roots that sign the CA's own certificate (CA_ROOT_CA); null trusts the system's. */
  readonly rootCaPath: string | null;
  /** File with the token, read at each call (AUTH_TOKEN), a literal, or none. */
  readonly token: ChannelToken;
  /** Sent as `clusterid`. */
  readonly clusterId: string;
  /** Further headers (CA_HEADER_*). */
  readonly headers: Readonly<Record<string, string>>;
  /** Names the identity in the metadata too: wanted by istiod from a node that asks for its pods. */
  readonly impersonate: boolean;
  readonly callTimeoutMs?: number;
}

export class GrpcCertificateSource implements CertificateSource {
  readonly #options: GrpcSourceOptions;
  readonly #channel: GrpcChannel;

  constructor(options: GrpcSourceOptions) {
    this.#options = options;
    this.#channel = new GrpcChannel({ ...options, rootCa: options.rootCaPath, responseBytesMax: RESPONSE_BYTES_MAX });
  }

  async issue(request: IssueRequest): Promise<Result<IssuedChain, IssueFault>> {
    const prepared = this.#channel.prepare();
    if (!prepared.ok) return this.#fault("unavailable", request, prepared.error);
    const failure = await prepared.value.connect(Math.min(CONNECT_MS, this.#callTimeoutMs));
    if (failure !== null) return request.signal.aborted ? this.#fault("aborted", request, "given up") : this.#fault("unavailable", request, failure);
    const answer = await this.#call(prepared.value, request);
    return answer.ok ? this.#read(request, answer.value) : this.#explain(request, answer.error);
  }

  destroy(): void {
    this.#channel.destroy();
  }

  get #callTimeoutMs(): number {
    return this.#options.callTimeoutMs ?? CA_CALL_TIMEOUT_MS;
  }

  /** A CA near its own end refuses the usual lifetime; what is left is better than nothing. */
  async #call(prepared: PreparedCall, request: IssueRequest): Promise<Result<IstioCertificateResponse, GrpcEnd>> {
    const answer = await this.#ask(prepared, request, BigInt(Math.floor(request.lifetimeMs / 1000)));
    return answer.ok || answer.error.status !== "OutOfRange" ? answer : await this.#ask(prepared, request, 0n);
  }

  async #ask(prepared: PreparedCall, request: IssueRequest, validityDuration: bigint): Promise<Result<IstioCertificateResponse, GrpcEnd>> {
    const question = create(IstioCertificateRequestSchema, {
      csr: request.csrPem, validityDuration, ...(this.#options.impersonate ? { metadata: { ImpersonatedIdentity: request.spiffeId as string } } : {}),
    });
    const answer = await callUnary(prepared, { path: PATH, question: toBinary(IstioCertificateRequestSchema, question), signal: request.signal, timeoutMs: this.#callTimeoutMs });
    if (!answer.ok) return answer;
    const response = decode(IstioCertificateResponseSchema, answer.value);
    return response.ok ? response : err({ status: "Internal", message: `the answer cannot be read: ${response.error}` });
  }

  /** Leaf first, then intermediates, the roots together at the end. */
  #read(request: IssueRequest, response: IstioCertificateResponse): Result<IssuedChain, IssueFault> {
    const elements = response.certChain;
    const trustBundlePem = elements.at(-1);
    if (trustBundlePem === undefined || elements.length < 2 || elements.length > CHAIN_ELEMENTS_MAX) {
      return this.#fault("bad_reply", request, `the reply has ${elements.length} certificates, wanted a leaf, perhaps intermediates, and the roots`);
    }
    return ok({ chainPem: elements.slice(0, -1).map((pem) => (pem.endsWith("\n") ? pem : `${pem}\n`)), trustBundlePem });
  }

  #explain(request: IssueRequest, { status, message }: GrpcEnd): Result<never, IssueFault> {
    if (request.signal.aborted) return this.#fault("aborted", request, "given up");
    const answered = status !== "Unavailable" && status !== "DeadlineExceeded" && status !== "Unknown" && status !== "Internal" && status !== "Canceled";
    return this.#fault(answered ? "refused" : "unavailable", request, `${status}: ${message}`);
  }

  #fault(code: IssueFaultCode, request: IssueRequest, seen: string): Result<never, IssueFault> {
    return err({
      code,
      message: `certificate for ${request.spiffeId} from the CA at ${this.#options.address}: ${seen}`,
      blame: code === "aborted" ? "us" : "peer",
      dies: "nothing",
      retry: code === "aborted" ? RETRY_NEVER : { kind: "after", afterMs: 1000 },
      cause: null,
    });
  }
}
