// Asks one external authoriser about one request, by Envoy's gRPC protocol or by HTTP, and gives its verdict. What is asked and what an
// answer means is decided in policy/upstream/external-authorization.ts; this sends it.

import { unreachable } from "../../core/result.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import { ANSWER_BODY_BYTES_MAX } from "../../policy/upstream/defaults.ts";
import {
  authorizationFailed, type AuthorizationVerdict, type CheckFacts, checkRequest, httpCheckHeaders, httpCheckPath, judgeCheckResponse, judgeHttpAnswer,
} from "../../policy/upstream/external-authorization.ts";
import { ListFields } from "../../wire/http/fields.ts";
import { type HeaderList, headerPairs } from "../../wire/http/header-list.ts";
import { parseHost } from "../../wire/http/host.ts";
import type { HttpRequest } from "../../wire/http/message.ts";
import { callGrpc } from "./grpc-call.ts";
import { serviceHost } from "../request/outgoing.ts";
import { type PendingAnswer, withMessages } from "./message-loader.ts";
import { type CallHost, ServiceCall } from "./service-call.ts";

const CHECK_PATH = "/envoy.service.auth.v3.Authorization/Check";
const NO_BODY = new Uint8Array(0);

/**
 * @param facts its body, where the authoriser is to have one, read already.
 * @param metadata sent with the question for traces: name, value, ….
 * @param done once, never before this returned, not after `cancel`.
 */
export function askAuthorizer(host: CallHost, authorizer: ExternalAuthorizer, facts: CheckFacts, metadata: HeaderList, done: (verdict: AuthorizationVerdict) => void): PendingAnswer {
  switch (authorizer.protocol) {
    case "grpc": return askByGrpc(host, authorizer, facts, metadata, done);
    case "http": return askByHttp(host, authorizer, facts, metadata, done);
    default: return unreachable(authorizer.protocol);
  }
}

function askByGrpc(host: CallHost, authorizer: ExternalAuthorizer, facts: CheckFacts, metadata: HeaderList, done: (verdict: AuthorizationVerdict) => void): PendingAnswer {
  const { service, port, timeoutMs } = authorizer;
  const question = checkRequest(authorizer, facts);
  return withMessages(({ encodeCheck, decodeCheck }) => callGrpc(host, { service, port, path: CHECK_PATH, message: encodeCheck(question), timeoutMs, repeatable: true, metadata }, (answer) => {
    if (!answer.ok) return done(authorizationFailed(authorizer, answer.error));
    const response = decodeCheck(answer.value);
    done(response === null ? authorizationFailed(authorizer, "its answer is no CheckResponse") : judgeCheckResponse(authorizer, response));
  }));
}

function askByHttp(host: CallHost, authorizer: ExternalAuthorizer, facts: CheckFacts, metadata: HeaderList, done: (verdict: AuthorizationVerdict) => void): PendingAnswer {
  const { service, port, timeoutMs } = authorizer;
  const body = facts.body?.bytes ?? NO_BODY;
  const list: HeaderList = [...httpCheckHeaders(authorizer, facts), ...metadata];
  const original = parseHost(facts.host);
  const target = { scheme: "http" as const, host: original.ok ? original.value : serviceHost(service, port), pathReceived: null, ...httpCheckPath(authorizer, facts) };
  const request = (): HttpRequest => ({
    method: facts.method, target, fields: new ListFields([...list]), contentLength: body.length, hasBody: body.length > 0, acceptsTrailers: false, expectsContinue: false, upgrade: null,
  });
  return new ServiceCall(
    host, { service, port, version: null, request, body, timeoutMs, repeatable: true, answerBytesMax: ANSWER_BODY_BYTES_MAX, longAnswer: "isCut", grpcStatusOf: null },
    (answer) => {
      if (!answer.ok) return done(authorizationFailed(authorizer, answer.error));
      const { status, headers, body: answerBody } = answer.value;
      done(judgeHttpAnswer(authorizer, { status, headers: headerPairs(headers), body: answerBody }));
    },
  );
}
