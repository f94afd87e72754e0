// External authorisation (AuthorizationPolicy CUSTOM): what an authoriser is told of a request in envoy.service.auth.v3, and what its
// answer means, by gRPC or by HTTP. What cannot be understood is a failure, and the authoriser's `onFailure` decides it. Sends nothing.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { err, ok, type Result } from "../../core/result.ts";
import type { ExternalAuthorizer, TextName } from "../../mesh/l7/access.ts";
import type { HeaderValueOption } from "../../wire/protobuf/envoy/config/core/v3/base_pb.ts";
import type { CheckRequestSchema, CheckResponse, DeniedHttpResponse, OkHttpResponse } from "../../wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { wireText } from "../http/wire-text.ts";
import { ANSWER_BODY_BYTES_MAX, ANSWER_HEADERS_MAX } from "./defaults.ts";
import { checkHeaders, checkRemovals, type HeaderAction, type AnswerHeader, type SentHeader } from "./service-answer.ts";

export interface CheckPeer {
  readonly ip: string;
  readonly port: number;
  /** SPIFFE ID; "" when not authenticated. */
  readonly principal: string;
  readonly service: string;
}

export interface CheckFacts {
  /** Request ID. */
  readonly id: string;
  readonly method: string;
  /** With the query. */
  readonly path: string;
  readonly host: string;
  readonly scheme: string;
  /** `HTTP/1.1`, `HTTP/2`. */
  readonly protocol: string;
  /** Names in lower case, one char per byte in values; a name may come several times. */
  readonly headers: Iterable<readonly [name: string, value: string]>;
  /** Content-Length; -1 when it is not known. */
  readonly sizeBytes: number;
  /** What was read of the body; null when none is to be sent. */
  readonly body: { readonly bytes: Uint8Array; readonly isWhole: boolean } | null;
  readonly source: CheckPeer;
  readonly destination: CheckPeer;
  readonly sni: string;
  readonly wallMs: number;
}

export type AuthorizationVerdict =
  | {
    readonly kind: "allowed";
    readonly requestHeaders: readonly AnswerHeader[];
    readonly removeHeaders: readonly string[];
    readonly responseHeaders: readonly AnswerHeader[];
    readonly setQuery: readonly (readonly [name: string, value: string])[];
    readonly removeQuery: readonly string[];
    /** Not allowed by the authoriser, but because it failed and `onFailure` says so; "" otherwise. */
    readonly failure: string;
  }
  /** `failure`: why nobody could decide; "" when the authoriser said no. */
  | { readonly kind: "denied"; readonly status: number; readonly headers: readonly AnswerHeader[]; readonly body: Uint8Array; readonly failure: string };

/** The authoriser said no and not with which status: as Envoy. */
const STATUS_DENIED = 403;
const STATUS_MIN = 200;
const STATUS_MAX = 599;
const NO_BODY = new Uint8Array(0);
const PARTIAL_BODY_HEADER = "x-envoy-auth-partial-body";
/** How an HTTP authoriser says which headers are to be taken out of the request: names with commas between them. */
const REMOVE_HEADER = "x-envoy-auth-headers-to-remove";
/** Where a refused browser is to go, how a client is asked to log in, and what the body is: always passed on with a refusal. */
const OF_A_REFUSAL = new Set(["location", "www-authenticate", "proxy-authenticate", "set-cookie", "content-type"]);
/** By number of append_action. */
const APPEND_ACTIONS: readonly HeaderAction[] = ["append", "addIfAbsent", "set", "setIfPresent"];

// ---- the question

/** False when the body is longer than allowed and may not be cut: nobody is asked, and the request is refused with 413. */
export function mayAsk(authorizer: ExternalAuthorizer, body: CheckFacts["body"]): boolean {
  return body === null || body.isWhole || authorizer.allowPartialBody;
}

/** The question as plain data: what makes a message of it is loaded when somebody asks. */
export function checkRequest(authorizer: ExternalAuthorizer, facts: CheckFacts): MessageInitShape<typeof CheckRequestSchema> {
  const { body } = facts;
  const headers = headersFor(authorizer, facts);
  if (body !== null) headers[PARTIAL_BODY_HEADER] = body.isWhole ? "false" : "true";
  const question = facts.path.indexOf("?");
  const text = body === null ? "" : authorizer.bodyAsBytes ? null : utf8OrNull(body.bytes);
  return {
    attributes: {
      source: peerOf(facts.source),
      destination: peerOf(facts.destination),
      request: {
        time: { seconds: BigInt(Math.floor(facts.wallMs / 1000)), nanos: Math.floor(facts.wallMs % 1000) * 1_000_000 },
        http: {
          id: facts.id, method: facts.method, headers, path: readable(facts.path), host: facts.host, scheme: facts.scheme,
          query: question < 0 ? "" : readable(facts.path.slice(question + 1)), size: BigInt(facts.sizeBytes), protocol: facts.protocol,
          // Text where it is text, else bytes: protobuf strings must be UTF-8.
          body: text ?? "", rawBody: text === null && body !== null ? body.bytes : NO_BODY,
        },
      },
      ...(facts.sni === "" ? {} : { tlsSession: { sni: facts.sni } }),
    },
  };
}

/** HTTP authorisers are asked with the request's own method, host and path, below their prefix. */
export function httpCheckPath(authorizer: ExternalAuthorizer, facts: CheckFacts): { readonly path: string; readonly query: string } {
  const question = facts.path.indexOf("?");
  const path = question < 0 ? facts.path : facts.path.slice(0, question);
  // A prefix that ends in a slash does not make two of it.
  const prefix = authorizer.pathPrefix.endsWith("/") ? authorizer.pathPrefix.slice(0, -1) : authorizer.pathPrefix;
  return { path: path.startsWith("/") ? prefix + path : `${prefix}/`, query: question < 0 ? "" : facts.path.slice(question) };
}

/** Headers of an HTTP question: name, value, …. Those that are named, what a decision cannot do without, and the authoriser's own. */
export function httpCheckHeaders(authorizer: ExternalAuthorizer, facts: CheckFacts): string[] {
  const list: string[] = [];
  const own = new Map(authorizer.additionalHeaders);
  for (const [name, value] of facts.headers) {
    if (own.has(name) || name === PARTIAL_BODY_HEADER || (name !== "authorization" && !matchesAny(name, authorizer.includeRequestHeaders))) continue;
    // What the body is, is said only with the body.
    if (facts.body === null && name.startsWith("content-")) continue;
    list.push(name, value);
  }
  for (const [name, value] of own) list.push(name, wireText(value));
  if (facts.body !== null) list.push(PARTIAL_BODY_HEADER, facts.body.isWhole ? "false" : "true");
  return list;
}

function headersFor(authorizer: ExternalAuthorizer, facts: CheckFacts): Record<string, string> {
  const headers: Record<string, string> = { ":method": facts.method, ":path": readable(facts.path), ":authority": facts.host, ":scheme": facts.scheme };
  const { includeRequestHeaders } = authorizer;
  for (const [name, value] of facts.headers) {
    if (includeRequestHeaders.length > 0 && !matchesAny(name, includeRequestHeaders)) continue;
    const before = Object.hasOwn(headers, name) ? headers[name] : undefined;
    headers[name] = before === undefined ? readable(value) : `${before}${name === "cookie" ? "; " : ","}${readable(value)}`;
  }
  // Said beside the fields, and by Envoy among them.
  if (facts.sizeBytes > 0 && (includeRequestHeaders.length === 0 || matchesAny("content-length", includeRequestHeaders))) headers["content-length"] = String(facts.sizeBytes);
  for (const [name, value] of authorizer.additionalHeaders) headers[name] = value;
  return headers;
}

function peerOf({ ip, port, principal, service }: CheckPeer) {
  return { address: { address: { case: "socketAddress" as const, value: { address: ip, portSpecifier: { case: "portValue" as const, value: port } } } }, principal, service };
}

function matchesAny(name: string, patterns: readonly TextName[]): boolean {
  return patterns.some((pattern) => (pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern));
}

// ---- the answer

export function judgeCheckResponse(authorizer: ExternalAuthorizer, response: CheckResponse): AuthorizationVerdict {
  const { httpResponse } = response;
  const code = response.status?.code ?? 0;
  if (httpResponse.case === "errorResponse") return authorizationFailed(authorizer, `it answered that it failed itself (${response.status?.message ?? ""})`);
  // Envoy takes an empty message for OK; a server that forgot to answer must not open anything.
  if (response.status === undefined && httpResponse.case === undefined) return authorizationFailed(authorizer, "it answered with an empty message, wanted a status");
  // Only a status of OK together with no refusal opens; whoever says both does not know.
  if (code === 0 && httpResponse.case === "deniedResponse") return authorizationFailed(authorizer, "it answered OK with a refusal, wanted one of them");
  const verdict = code === 0 ? allowed(httpResponse.case === "okResponse" ? httpResponse.value : null) : denied(httpResponse.case === "deniedResponse" ? httpResponse.value : null);
  return verdict.ok ? verdict.value : authorizationFailed(authorizer, `it answered with ${verdict.error}`);
}

export interface HttpAnswer {
  readonly status: number;
  /** Names in lower case. */
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly body: Uint8Array;
}

/** HTTP authorisers: 200 allows, 5xx is a failure, anything else refuses and is passed on. */
export function judgeHttpAnswer(authorizer: ExternalAuthorizer, answer: HttpAnswer): AuthorizationVerdict {
  if (answer.status >= 500) return authorizationFailed(authorizer, `it answered ${answer.status}, wanted 200 or a refusal`);
  if (answer.status === 200) {
    const requestHeaders = passedOn(answer, (name) => matchesAny(name, authorizer.headersUpstream));
    if (!requestHeaders.ok) return authorizationFailed(authorizer, `it answered with ${requestHeaders.error}`);
    const responseHeaders = passedOn(answer, (name) => matchesAny(name, authorizer.headersDownstreamOnAllow));
    if (!responseHeaders.ok) return authorizationFailed(authorizer, `it answered with ${responseHeaders.error}`);
    const removals = checkRemovals(answer.headers.filter(([name]) => name === REMOVE_HEADER).flatMap(([, value]) => value.split(",").map((one) => one.trim()).filter((one) => one !== "")));
    if (!removals.ok) return authorizationFailed(authorizer, `it answered with ${removals.error}`);
    return { kind: "allowed", requestHeaders: requestHeaders.value, removeHeaders: removals.value, responseHeaders: responseHeaders.value, setQuery: [], removeQuery: [], failure: "" };
  }
  const headers = passedOn(answer, (name) => OF_A_REFUSAL.has(name) || matchesAny(name, authorizer.headersDownstream));
  // A refusal with a header that cannot be sent is a refusal all the same.
  return { kind: "denied", status: deniedStatus(answer.status), headers: headers.ok ? headers.value : [], body: bounded(answer.body), failure: "" };
}

/** Headers of an answer that go on: the first of a name takes the place of what is there, further ones stand beside it. */
function passedOn(answer: HttpAnswer, isWanted: (name: string) => boolean): Result<readonly AnswerHeader[], string> {
  const seen = new Set<string>();
  return checkHeaders(answer.headers.filter(([name]) => isWanted(name)).map(([name, value]) => {
    const action: HeaderAction = seen.has(name) ? "append" : "set";
    seen.add(name);
    return { action, name, text: "", raw: Uint8Array.from(value, (char) => char.charCodeAt(0)) };
  }));
}

/** The verdict when the authoriser could not be asked. `why` for a person: `no answer in 200 ms`. */
export function authorizationFailed(authorizer: ExternalAuthorizer, why: string): AuthorizationVerdict {
  const opens = authorizer.onFailure === "allow";
  const failure = `asked authoriser ${authorizer.service} port ${authorizer.port} (${authorizer.protocol}): ${why}; ${opens ? "let through" : "denied"} (onFailure: ${authorizer.onFailure})`;
  if (opens) return { kind: "allowed", requestHeaders: [], removeHeaders: [], responseHeaders: [], setQuery: [], removeQuery: [], failure };
  return { kind: "denied", status: authorizer.statusOnError, headers: [], body: NO_BODY, failure };
}

function allowed(response: OkHttpResponse | null): Result<AuthorizationVerdict, string> {
  if (response === null) return ok({ kind: "allowed", requestHeaders: [], removeHeaders: [], responseHeaders: [], setQuery: [], removeQuery: [], failure: "" });
  const requestHeaders = checkHeaders(response.headers.map((option) => toSent(option, "set")));
  if (!requestHeaders.ok) return requestHeaders;
  const responseHeaders = checkHeaders(response.responseHeadersToAdd.map((option) => toSent(option, "append")));
  if (!responseHeaders.ok) return responseHeaders;
  const removals = checkRemovals(response.headersToRemove);
  if (!removals.ok) return removals;
  const parameters = response.queryParametersToSet.length + response.queryParametersToRemove.length;
  if (parameters > ANSWER_HEADERS_MAX) return err(`${parameters} query parameters, wanted at most ${ANSWER_HEADERS_MAX}`);
  return ok({
    kind: "allowed", requestHeaders: requestHeaders.value, removeHeaders: removals.value, responseHeaders: responseHeaders.value,
    setQuery: response.queryParametersToSet.map(({ key, value }) => [key, value] as const), removeQuery: response.queryParametersToRemove, failure: "",
  });
}

function denied(response: DeniedHttpResponse | null): Result<AuthorizationVerdict, string> {
  if (response === null) return ok({ kind: "denied", status: STATUS_DENIED, headers: [], body: NO_BODY, failure: "" });
  const headers = checkHeaders(response.headers.map((option) => toSent(option, "set")));
  // A refusal with a header that cannot be sent is a refusal all the same.
  return ok({
    kind: "denied", status: deniedStatus(response.status?.code ?? 0), headers: headers.ok ? headers.value : [], body: bounded(new TextEncoder().encode(response.body)), failure: "",
  });
}

function deniedStatus(code: number): number {
  return code >= STATUS_MIN && code <= STATUS_MAX ? code : STATUS_DENIED;
}

/** A body beyond the limit is left out: half a page says nothing. */
function bounded(body: Uint8Array): Uint8Array {
  return body.length <= ANSWER_BODY_BYTES_MAX ? body : NO_BODY;
}

/** `append` is what most servers send; where it is absent a number other than 0 names the action, and 0 means what it always meant there. */
function toSent({ header, append, appendAction }: HeaderValueOption, absent: HeaderAction): SentHeader {
  const action = append !== undefined ? (append ? "append" : "set") : appendAction === 0 ? absent : APPEND_ACTIONS[appendAction] ?? absent;
  return { action, name: header?.key ?? "", text: header?.value ?? "", raw: header?.rawValue ?? NO_BODY };
}

// ---- text

const decoder = new TextDecoder("utf-8");
const strictDecoder = new TextDecoder("utf-8", { fatal: true });

/** One char per byte to text; bytes that are not UTF-8 become U+FFFD. */
function readable(bytes: string): string {
  return /^[\x00-\x7f]*$/.test(bytes) ? bytes : decoder.decode(Uint8Array.from(bytes, (char) => char.charCodeAt(0)));
}

function utf8OrNull(bytes: Uint8Array): string | null {
  try {
    return strictDecoder.decode(bytes);
  } catch {
    // Not UTF-8: sent as bytes.
    return null;
  }
}
