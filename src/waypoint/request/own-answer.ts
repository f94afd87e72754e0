// Answers that the waypoint makes by itself: the code in a header, the words in the body, and for gRPC the status where its clients look.

import { GRPC_MESSAGE_CHARS_MAX } from "../../wire/grpc/status.ts";
import { LENGTH_UNKNOWN } from "../../wire/http/content-length.ts";
import { ListFields } from "../../wire/http/fields.ts";
import type { HeaderList } from "../../wire/http/header-list.ts";
import type { HttpResponse } from "../../wire/http/message.ts";
import type { Http1Code } from "../../wire/http1/errors.ts";
import { RULE_HEADER } from "../../policy/http/rule-header.ts";
import { GRPC_STATUS, grpcStatusOf, type ReasonCode, REASON_HEADER, reasonEntry } from "../../policy/http/reason-codes.ts";

export interface OwnAnswer {
  readonly code: ReasonCode;
  /** Null: the code's own. */
  readonly status: number | null;
  /** Of gRPC requests; null: the one that the code or the status stands for. */
  readonly grpcStatus: number | null;
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** What the client reads, as text or as bytes with their type among the headers; null: the meaning of the code. */
  readonly body: string | Uint8Array | null;
}

export interface Rendered {
  readonly response: HttpResponse;
  readonly body: Uint8Array;
  readonly grpcStatus: number | null;
}

const NO_BODY = new Uint8Array(0);
const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** Said by gRPC itself, once. */
const OF_GRPC = new Set(["content-type", "grpc-status", "grpc-message"]);

export function ownAnswer(code: ReasonCode, fields: Partial<Omit<OwnAnswer, "code">> = {}): OwnAnswer {
  return { code, status: null, grpcStatus: null, headers: [], body: null, ...fields };
}

/**
 * @param grpcContentType the request's content type when it is gRPC, else null.
 * @param rule where the client is told of it.
 */
export function renderAnswer(answer: OwnAnswer, grpcContentType: string | null, rule: string | null): Rendered {
  const { code, headers } = answer;
  const entry = reasonEntry(code);
  const status = answer.status ?? entry.status ?? 500;
  if (grpcContentType !== null && (status >= 400 || answer.grpcStatus !== null)) return renderGrpc(answer, status, grpcContentType, rule);
  const isError = status >= 400;
  const text = answer.body ?? (isError ? `${entry.meaning}\n` : "");
  const body = status === 204 || status === 304 || text === "" ? NO_BODY : typeof text === "string" ? encoder.encode(text) : text;
  const list: HeaderList = [REASON_HEADER, code];
  if (rule !== null) list.push(RULE_HEADER, rule);
  for (const [name, value] of headers) list.push(name, value);
  if (body.length > 0 && !headers.some(([name]) => name === "content-type")) list.push("content-type", "text/plain; charset=utf-8");
  const contentLength = status === 204 || status === 304 ? LENGTH_UNKNOWN : body.length;
  return { response: { status, fields: new ListFields(list), contentLength }, body, grpcStatus: null };
}

/** Trailers only: everything stands in the head (gRPC over HTTP/2, "Responses"). */
function renderGrpc(answer: OwnAnswer, status: number, contentType: string, rule: string | null): Rendered {
  const entry = reasonEntry(answer.code);
  const grpcStatus = answer.grpcStatus ?? (entry.grpc === null ? grpcStatusOf(status) : GRPC_STATUS[entry.grpc]);
  const list: HeaderList = ["content-type", contentType, "grpc-status", String(grpcStatus), "grpc-message", percentEncode(messageOf(answer) || entry.meaning), REASON_HEADER, answer.code];
  if (rule !== null) list.push(RULE_HEADER, rule);
  for (const [name, value] of answer.headers) if (!OF_GRPC.has(name)) list.push(name, value);
  return { response: { status: 200, fields: new ListFields(list), contentLength: 0 }, body: NO_BODY, grpcStatus };
}

function messageOf({ body }: OwnAnswer): string {
  const text = body === null ? "" : typeof body === "string" ? body : decoder.decode(body);
  return text.trim().slice(0, GRPC_MESSAGE_CHARS_MAX);
}

/** As gRPC wants its messages: UTF-8, everything but printable ASCII and the percent sign escaped. */
function percentEncode(text: string): string {
  let out = "";
  for (const byte of encoder.encode(text)) out += byte >= 0x20 && byte <= 0x7e && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  return out;
}

/** The code of an answer that the HTTP/1 engine gives by itself. */
export function reasonOfHttp1(code: Http1Code): ReasonCode {
  switch (code) {
    case "headTooLarge":
    case "tooManyFields":
    case "targetTooLong":
    case "trailersTooLarge":
      return "headers_too_large";
    case "chunkTooLarge":
      return "body_too_large";
    case "timeout":
      return "request_timeout_reading";
    default:
      return "bad_request";
  }
}
