// Answers of authorisers and rate limit services: whatever bytes come, the verdict is one of those there are; only a status of OK opens, and
// nothing that reaches a message is a header that may not stand there. Bodies of gRPC and gRPC-Web are read back wherever they are cut.

import { fromBinary } from "@bufbuild/protobuf";
import type { Random } from "../../src/core/ports.ts";
import { isName, isValue } from "../../src/wire/http/field-bytes.ts";
import { isConnectionSpecific } from "../../src/wire/http/fields.ts";
import { frameGrpcMessage, readGrpcMessage } from "../../src/wire/grpc/message.ts";
import { WebTextDecoder } from "../../src/wire/grpc/web.ts";
import { CheckResponseSchema } from "../../src/wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { RateLimitResponseSchema } from "../../src/wire/protobuf/envoy/service/ratelimit/v3/rls_pb.ts";
import { judgeCheckResponse, judgeHttpAnswer } from "../../src/policy/upstream/external-authorization.ts";
import { judgeRateLimitResponse } from "../../src/policy/upstream/rate-limit/global.ts";
import type { AnswerHeader } from "../../src/policy/upstream/service-answer.ts";
import type { GlobalRateLimit } from "../../src/mesh/l7/traffic-policy.ts";
import { AUTHORIZER } from "../kit/http-records.ts";
import { field, message, number } from "../kit/protobuf-bytes.ts";
import { below, bytes, pick } from "./choices.ts";
import type { FuzzRun } from "./fuzz.ts";
import { takeTurns } from "./iterate.ts";

export const name = "service-answers";

const DENYING = { ...AUTHORIZER, headersUpstream: ["*"], headersDownstream: ["*"], headersDownstreamOnAllow: ["*"] };
const LIMIT: GlobalRateLimit = {
  name: "l", service: AUTHORIZER.service, port: 1, domain: "d", descriptors: [], hits: 1, hitsHeader: null, timeoutMs: 1, onFailure: "deny", matches: [], fieldPath: "",
};

export const run = (fuzzRun: FuzzRun) => takeTurns(fuzzRun, [checked, limited, answered, framed]);

const some = <T>(random: Random, max: number, make: () => T): T[] => Array.from({ length: below(random, max + 1) }, make);

const NAMES = ["x-user", "X-User", "Host", ":path", "content-length", "x y", "", "set-cookie", "location", "grpc-status", "\u00e9", "a\r\nb"];
const VALUES = ["1", "", "a b", "a\r\nb: c", "\0", "\u00e9", "x".repeat(300)];
const headerValue = (random: Random): Uint8Array => message(field(1, pick(random, NAMES)), field(2, pick(random, VALUES)));
const option = (random: Random): number[] => [...field(1, headerValue(random)), ...(random.next() < 0.5 ? [] : number(3, below(random, 6)))];

/** Some fields as they should be, others not, and now and then bytes that are none. */
function checkResponse(random: Random): Uint8Array {
  if (random.next() < 0.2) return bytes(random, below(random, 60));
  const status = random.next() < 0.8 ? field(1, message(number(1, pick(random, [0, 0, 7, 16, 99])))) : [];
  const denied = (): number[] => field(2, message(field(1, message(number(1, pick(random, [0, 200, 302, 401, 403, 999])))), ...some(random, 4, () => field(2, Uint8Array.from(option(random)))), field(3, pick(random, VALUES))));
  const allowed = (): number[] => field(3, message(...some(random, 4, () => field(2, Uint8Array.from(option(random)))), ...some(random, 3, () => field(5, pick(random, NAMES))), ...some(random, 3, () => field(6, Uint8Array.from(option(random))))));
  const all = [...status, ...(random.next() < 0.4 ? denied() : []), ...(random.next() < 0.6 ? allowed() : [])];
  if (random.next() < 0.2 && all.length > 0) all[below(random, all.length)] = below(random, 256);
  return Uint8Array.from(all);
}

function checked(random: Random): void {
  const input = checkResponse(random);
  const response = decoded(() => fromBinary(CheckResponseSchema, input));
  if (response === null) return;
  const verdict = judgeCheckResponse(DENYING, response);
  if (verdict.kind === "allowed") {
    if ((response.status?.code ?? 0) !== 0 || response.httpResponse.case === "deniedResponse" || response.httpResponse.case === "errorResponse") throw new Error("opened by something else than OK");
    sound(verdict.requestHeaders);
    sound(verdict.responseHeaders);
    for (const name of verdict.removeHeaders) if (!isName(name) || isConnectionSpecific(name)) throw new Error(`removes ${JSON.stringify(name)}`);
  } else {
    if (verdict.status < 200 || verdict.status > 599) throw new Error(`status ${verdict.status}`);
    sound(verdict.headers);
  }
}

function limited(random: Random): void {
  const input = random.next() < 0.3 ? bytes(random, below(random, 60)) : message(number(1, pick(random, [0, 1, 2, 3])), ...some(random, 3, () => field(3, headerValue(random))), ...some(random, 3, () => field(4, headerValue(random))));
  const response = decoded(() => fromBinary(RateLimitResponseSchema, input));
  if (response === null) return;
  const verdict = judgeRateLimitResponse(LIMIT, response);
  if (verdict.allowed && response.overallCode !== 1) throw new Error(`let through by code ${response.overallCode}`);
  sound(verdict.requestHeaders);
  sound(verdict.responseHeaders);
}

function answered(random: Random): void {
  const status = pick(random, [200, 201, 204, 302, 401, 403, 404, 500, 503]);
  const headers = some(random, 6, () => [pick(random, [...NAMES, "x-envoy-auth-headers-to-remove"]).toLowerCase(), pick(random, VALUES)] as const);
  const verdict = judgeHttpAnswer(DENYING, { status, headers, body: bytes(random, below(random, 20)) });
  if (verdict.kind === "allowed" && status !== 200) throw new Error(`opened by ${status}`);
  sound(verdict.kind === "allowed" ? [...verdict.requestHeaders, ...verdict.responseHeaders] : verdict.headers);
}

function framed(random: Random): void {
  const sent = bytes(random, below(random, 100));
  const body = frameGrpcMessage(sent);
  const read = readGrpcMessage(body);
  if (!read.ok || !Buffer.from(read.value).equals(Buffer.from(sent))) throw new Error("not read back");
  if (readGrpcMessage(body.subarray(0, below(random, body.length))).ok) throw new Error("half a message was read");
  readGrpcMessage(bytes(random, below(random, 30)));
  const text = Buffer.from(Buffer.from(sent).toString("base64"), "latin1");
  const decoder = new WebTextDecoder();
  const out: number[] = [];
  for (let at = 0; at < text.length; ) {
    const size = 1 + below(random, 9);
    const piece = decoder.push(text.subarray(at, at + size));
    if (!piece.ok) throw new Error(piece.error);
    out.push(...piece.value);
    at += size;
  }
  if (!decoder.isComplete || !Buffer.from(out).equals(Buffer.from(sent))) throw new Error("base64 is not read back");
  const noise = new WebTextDecoder().push(bytes(random, below(random, 30)));
  if (noise.ok && noise.value.length > 30) throw new Error("more came out than went in");
}

function decoded<T>(decode: () => T): T | null {
  try {
    return decode();
  } catch {
    // No message at all: the caller of the service says so.
    return null;
  }
}

function sound(headers: readonly AnswerHeader[]): void {
  for (const { name, value } of headers) {
    if (!isName(name) || name !== name.toLowerCase() || name.startsWith(":") || isConnectionSpecific(name) || !isValue(value)) throw new Error(`${JSON.stringify(name)}: ${JSON.stringify(value)} would be sent`);
  }
}
