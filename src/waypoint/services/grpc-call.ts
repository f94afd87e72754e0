// A unary gRPC call to a service, by ServiceCall: message in, message out, and everything that is no good answer as words for a person.

import type { NamespacedName } from "../../core/brand.ts";
import { err, type Result } from "../../core/result.ts";
import { GRPC_STATUS } from "../../policy/http/reason-codes.ts";
import { formatGrpcTimeout } from "../../policy/upstream/grpc-timeout.ts";
import { frameGrpcMessage, readGrpcMessage } from "../../wire/grpc/message.ts";
import { decodeGrpcMessage, parseGrpcStatusField } from "../../wire/grpc/status.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { headerValue, type HeaderList } from "../../wire/http/header-list.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { serviceHost } from "../request/outgoing.ts";
import { type CallHost, type ServiceAnswer, ServiceCall } from "./service-call.ts";

export interface GrpcQuestion {
  readonly service: NamespacedName;
  readonly port: number;
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly message: Uint8Array;
  readonly timeoutMs: number;
  /** See ServiceQuestion. */
  readonly repeatable: boolean;
  /** Sent beside gRPC's own: name, value, …. */
  readonly metadata: HeaderList;
}

/** Of an answer: what its headers and body may be at most (policy/upstream/defaults.ts), and room for the rest of the message. */
const ANSWER_BYTES_MAX = 256 * 1024;

/** @param done as ServiceCall's; with the bytes of the one message of an answer with status OK. */
export function callGrpc(host: CallHost, question: GrpcQuestion, done: (answer: Result<Uint8Array, string>) => void): ServiceCall {
  const { service, port, path, message, timeoutMs, repeatable, metadata } = question;
  const body = frameGrpcMessage(message);
  const request = (leftMs: number): HttpRequest => ({
    method: "POST", target: { scheme: "http", host: serviceHost(service, port), path, pathReceived: null, query: "" },
    fields: new ListFields(["content-type", "application/grpc", "grpc-timeout", formatGrpcTimeout(Math.max(1, leftMs)), ...metadata]),
    contentLength: body.length, hasBody: true, acceptsTrailers: true, expectsContinue: false, upgrade: null,
  });
  return new ServiceCall(
    host, { service, port, version: "HTTP/2", request, body, timeoutMs, repeatable, answerBytesMax: ANSWER_BYTES_MAX, longAnswer: "fails", grpcStatusOf: statusOf },
    (answer) => done(answer.ok ? readAnswer(answer.value) : answer),
  );
}

function statusOf({ headers, trailers }: ServiceAnswer): number | null {
  return parseGrpcStatusField(headerValue(trailers, "grpc-status") ?? headerValue(headers, "grpc-status"));
}

function readAnswer(answer: ServiceAnswer): Result<Uint8Array, string> {
  const { status: httpStatus, headers, trailers, body } = answer;
  const type = headerValue(headers, "content-type") ?? "";
  if (httpStatus !== 200 || !type.startsWith("application/grpc")) return err(`it answered HTTP ${httpStatus} with content type ${JSON.stringify(type)}, wanted gRPC`);
  const status = statusOf(answer);
  if (status === null) return err("its answer ended without a grpc-status");
  if (status !== GRPC_STATUS.OK) return err(`it answered with gRPC status ${status} (${nameOf(status)}) ${JSON.stringify(decodeGrpcMessage(headerValue(trailers, "grpc-message") ?? headerValue(headers, "grpc-message") ?? ""))}`);
  const message = readGrpcMessage(body);
  return message.ok ? message : err(`it answered with ${message.error}`);
}

function nameOf(status: number): string {
  return Object.entries(GRPC_STATUS).find(([, code]) => code === status)?.[0] ?? "unknown";
}
