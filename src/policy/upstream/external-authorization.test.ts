import { describe, expect, test } from "bun:test";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { field, message, number } from "../../../test/kit/protobuf-bytes.ts";
import { namespacedName } from "../../core/brand.ts";
import type { ExternalAuthorizer } from "../../mesh/l7/access.ts";
import { CheckRequestSchema, CheckResponseSchema } from "../../wire/protobuf/envoy/service/auth/v3/external_auth_pb.ts";
import { ANSWER_BODY_BYTES_MAX, ANSWER_HEADERS_MAX } from "./defaults.ts";
import { authorizationFailed, type CheckFacts, checkRequest as plainCheckRequest, httpCheckHeaders, httpCheckPath, judgeCheckResponse, judgeHttpAnswer, mayAsk } from "./external-authorization.ts";

const GRPC: ExternalAuthorizer = {
  protocol: "grpc", service: namespacedName("infra", "opa.infra"), port: 9191, timeoutMs: 200, onFailure: "deny", statusOnError: 503, pathPrefix: "", includeRequestHeaders: [],
  includeBodyBytesMax: 0, allowPartialBody: false, bodyAsBytes: false, changesRoute: false, additionalHeaders: [["x-mesh", "weft"]], headersDownstreamOnAllow: ["x-seen"], headersUpstream: ["x-auth-*"], headersDownstream: ["x-why"],
};
const FACTS: CheckFacts = {
  id: "r1", method: "POST", path: "/a?b=c", host: "web.shop", scheme: "http", protocol: "HTTP/2", headers: [["x-a", "1"], ["x-a", "2"], ["cookie", "a=b"], ["cookie", "c=d"], ["x-raw", "\xc3\xa4"]],
  sizeBytes: -1, body: null, source: { ip: "198.18.0.1", port: 4000, principal: "spiffe://td/ns/a/sa/b", service: "" }, destination: { ip: "198.18.0.2", port: 8080, principal: "", service: "web" },
  sni: "", wallMs: 1_700_000_000_123,
};
const checkRequest = (authorizer: ExternalAuthorizer, facts: CheckFacts) => create(CheckRequestSchema, plainCheckRequest(authorizer, facts));
const ok = number(1, 0);
const answer = (authorizer: ExternalAuthorizer, ...fields: readonly (readonly number[])[]) => judgeCheckResponse(authorizer, fromBinary(CheckResponseSchema, message(...fields)));
const header = (name: string, value: string, ...more: readonly (readonly number[])[]): Uint8Array => message(field(1, message(field(1, name), field(2, value))), ...more);

describe("the question", () => {
  test("is Envoy's message", () => {
    const bytes = toBinary(CheckRequestSchema, checkRequest({ ...GRPC, includeRequestHeaders: ["x-none"] }, FACTS));
    const peer = (ip: string, port: number, ...more: readonly (readonly number[])[]): Uint8Array => message(field(1, field(1, message(field(2, ip), number(3, port)))), ...more);
    const map = (name: string, value: string): number[] => field(3, message(field(1, name), field(2, value)));
    expect(bytes).toEqual(message(field(1, message(
      field(1, peer("198.18.0.1", 4000, field(4, "spiffe://td/ns/a/sa/b"))),
      field(2, peer("198.18.0.2", 8080, field(2, "web"))),
      field(4, message(
        field(1, message(number(1, 1_700_000_000), number(2, 123_000_000))),
        field(2, message(
          field(1, "r1"), field(2, "POST"), map(":method", "POST"), map(":path", "/a?b=c"), map(":authority", "web.shop"), map(":scheme", "http"), map("x-mesh", "weft"),
          field(4, "/a?b=c"), field(5, "web.shop"), field(6, "http"), field(7, "b=c"), [9 * 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], field(10, "HTTP/2"),
        )),
      )),
    ))));
  });

  test("has all headers, joined, as text; or those that are named", () => {
    const all = checkRequest(GRPC, FACTS).attributes!.request!.http!.headers;
    expect(all).toMatchObject({ "x-a": "1,2", cookie: "a=b; c=d", "x-raw": "ä", ":path": "/a?b=c" });
    const some = checkRequest({ ...GRPC, includeRequestHeaders: ["cookie", "x-r*"] }, FACTS).attributes!.request!.http!.headers;
    expect(Object.keys(some).filter((name) => !name.startsWith(":")).sort()).toEqual(["cookie", "x-mesh", "x-raw"]);
  });

  test("says the length of the body, and the name that the client's TLS asked for, where there are any", () => {
    const { request, tlsSession } = checkRequest(GRPC, { ...FACTS, sizeBytes: 30, sni: "shop.example" }).attributes!;
    expect([request!.http!.headers["content-length"], request!.http!.size, tlsSession!.sni]).toEqual(["30", 30n, "shop.example"]);
    expect(checkRequest(GRPC, FACTS).attributes!.request!.http!.headers["content-length"]).toBeUndefined();
  });

  test("a header named as something of Object stays a header", () => {
    const headers = checkRequest(GRPC, { ...FACTS, headers: [["constructor", "a"], ["tostring", "b"]] }).attributes!.request!.http!.headers;
    expect([headers["constructor"], headers["tostring"]]).toEqual(["a", "b"]);
  });

  test("by HTTP has the headers that are named and the credentials, below a prefix", () => {
    const http: ExternalAuthorizer = { ...GRPC, protocol: "http", includeRequestHeaders: ["x-a", "content-*"], pathPrefix: "/check/" };
    const facts: CheckFacts = { ...FACTS, headers: [["authorization", "Bearer x"], ["x-mesh", "forged"], ["x-envoy-auth-partial-body", "true"], ["content-type", "text/plain"], ...FACTS.headers] };
    expect(httpCheckHeaders(http, facts)).toEqual(["authorization", "Bearer x", "x-a", "1", "x-a", "2", "x-mesh", "weft"]);
    expect(httpCheckHeaders(http, { ...facts, body: { bytes: new Uint8Array(3), isWhole: false } })).toEqual([
      "authorization", "Bearer x", "content-type", "text/plain", "x-a", "1", "x-a", "2", "x-mesh", "weft", "x-envoy-auth-partial-body", "true",
    ]);
    expect(httpCheckPath(http, facts)).toEqual({ path: "/check/a", query: "?b=c" });
    expect(httpCheckPath({ ...http, pathPrefix: "" }, { ...facts, path: "*" })).toEqual({ path: "/", query: "" });
  });

  test("has the body as text or as bytes, cut only where that is allowed", () => {
    const body = { bytes: new TextEncoder().encode("ä"), isWhole: true };
    expect(checkRequest(GRPC, { ...FACTS, body }).attributes!.request!.http).toMatchObject({ body: "ä", headers: { "x-envoy-auth-partial-body": "false" } });
    const raw = checkRequest(GRPC, { ...FACTS, body: { bytes: Uint8Array.of(0xff), isWhole: true } }).attributes!.request!.http!;
    expect([raw.body, [...raw.rawBody]]).toEqual(["", [0xff]]);
    expect([mayAsk(GRPC, { ...body, isWhole: false }), mayAsk({ ...GRPC, allowPartialBody: true }, { ...body, isWhole: false }), mayAsk(GRPC, body), mayAsk(GRPC, null)]).toEqual([false, true, true, true]);
    expect(checkRequest({ ...GRPC, bodyAsBytes: true }, { ...FACTS, body }).attributes!.request!.http).toMatchObject({ body: "", rawBody: body.bytes });
    expect(checkRequest({ ...GRPC, allowPartialBody: true }, { ...FACTS, body: { ...body, isWhole: false } }).attributes!.request!.http!.headers["x-envoy-auth-partial-body"]).toBe("true");
  });
});

describe("the answer by gRPC", () => {
  test("OK goes on with headers to set, append and remove, and changes of the query", () => {
    const yes = message(
      field(2, header("X-User", "a")), field(2, header("x-group", "b", field(2, number(1, 1)))), field(2, header("x-more", "c", number(3, 1))), field(2, header("x-set", "d", field(2, []))),
      field(5, "Authorization"), field(6, header("x-seen", "e")), field(7, message(field(1, "q"), field(2, "v"))), field(8, "secret"),
    );
    expect(answer(GRPC, field(1, ok), field(3, yes))).toEqual({
      kind: "allowed", failure: "",
      requestHeaders: [{ action: "set", name: "x-user", value: "a" }, { action: "append", name: "x-group", value: "b" }, { action: "addIfAbsent", name: "x-more", value: "c" }, { action: "set", name: "x-set", value: "d" }],
      removeHeaders: ["authorization"], responseHeaders: [{ action: "append", name: "x-seen", value: "e" }], setQuery: [["q", "v"]], removeQuery: ["secret"],
    });
    expect(answer(GRPC, field(1, []))).toMatchObject({ kind: "allowed", requestHeaders: [] });
  });

  test("a refusal is passed on with status, headers and body", () => {
    const verdict = answer(GRPC, field(1, number(1, 16)), field(2, message(field(1, number(1, 401)), field(2, header("WWW-Authenticate", "Bearer")), field(3, "log in"))));
    expect(verdict).toMatchObject({ kind: "denied", status: 401, headers: [{ action: "set", name: "www-authenticate", value: "Bearer" }], failure: "" });
    if (verdict.kind === "denied") expect(new TextDecoder().decode(verdict.body)).toBe("log in");
    expect(answer(GRPC, field(1, number(1, 7)))).toMatchObject({ kind: "denied", status: 403 });
  });

  test.each([[0], [99], [700]] as const)("a refusal with status %i is 403", (status) =>
    expect(answer(GRPC, field(1, number(1, 7)), field(2, field(1, number(1, status))))).toMatchObject({ kind: "denied", status: 403 }));

  test("a refusal that cannot be sent whole is a refusal all the same", () => {
    const verdict = answer({ ...GRPC, onFailure: "allow" }, field(1, number(1, 7)), field(2, message(field(2, header("a b", "x")), field(3, "x".repeat(ANSWER_BODY_BYTES_MAX + 1)))));
    expect(verdict).toMatchObject({ kind: "denied", status: 403, headers: [], body: new Uint8Array(0) });
  });

  test("refusal code with an OK body is a refusal", () => expect(answer({ ...GRPC, onFailure: "allow" }, field(1, number(1, 7)), field(3, []))).toMatchObject({ kind: "denied", status: 403, failure: "" }));

  test.each([
    ["an empty message", []],
    ["OK with a refusal", [field(1, ok), field(2, field(3, "no"))]],
    ["an error of its own", [field(1, number(1, 13)), field(5, [])]],
    ["a header value with a line break", [field(1, ok), field(3, field(2, header("x", "a\nb")))]],
    ["a header to remove that is no name", [field(1, ok), field(3, field(5, "a b"))]],
    ["too many headers", [field(1, ok), field(3, Array.from({ length: ANSWER_HEADERS_MAX + 1 }, () => field(2, header("x", "a"))).flat())]],
    ["too many query parameters", [field(1, ok), field(3, Array.from({ length: ANSWER_HEADERS_MAX + 1 }, () => field(8, "x")).flat())]],
  ] as const)("%s is a failure, and the policy decides", (_, fields) => {
    expect(answer(GRPC, ...fields)).toMatchObject({ kind: "denied", status: 503 });
    const opened = answer({ ...GRPC, onFailure: "allow" }, ...fields);
    expect(opened).toMatchObject({ kind: "allowed", requestHeaders: [], removeHeaders: [] });
    if (opened.kind === "allowed") expect(opened.failure).toContain("asked authoriser infra/opa.infra port 9191 (grpc): it answered");
  });

  test("never moves the request elsewhere: host, pseudo headers and framing are left out", () => {
    const yes = message(...["host", ":path", ":authority", "content-length", "x-ok"].map((name) => field(2, header(name, "1"))), field(5, "host"), field(5, ":method"), field(5, "x-gone"));
    expect(answer(GRPC, field(1, ok), field(3, yes))).toMatchObject({ kind: "allowed", requestHeaders: [{ name: "x-ok" }], removeHeaders: ["x-gone"] });
  });
});

describe("the answer by HTTP", () => {
  const http = { ...GRPC, protocol: "http" as const };
  const body = new TextEncoder().encode("no");
  test("200 goes on with the headers that the policy names", () => {
    expect(judgeHttpAnswer(http, { status: 200, headers: [["x-auth-user", "a"], ["x-auth-group", "b"], ["x-auth-group", "c"], ["x-seen", "s"], ["x-other", "d"]], body })).toMatchObject({
      kind: "allowed", responseHeaders: [{ action: "set", name: "x-seen", value: "s" }], requestHeaders: [{ action: "set", name: "x-auth-user", value: "a" }, { action: "set", name: "x-auth-group", value: "b" }, { action: "append", name: "x-auth-group", value: "c" }],
    });
  });
  test("anything else refuses, with where to go and what the policy names", () => {
    expect(judgeHttpAnswer(http, { status: 302, headers: [["location", "/login"], ["x-why", "x"], ["server", "y"]], body })).toMatchObject({ kind: "denied", status: 302, headers: [{ name: "location" }, { name: "x-why" }], body });
    expect(judgeHttpAnswer(http, { status: 204, headers: [], body })).toMatchObject({ kind: "denied", status: 204 });
  });
  test("5xx is a failure, and the policy decides", () => {
    expect(judgeHttpAnswer(http, { status: 500, headers: [], body })).toMatchObject({ kind: "denied", status: 503 });
    expect(judgeHttpAnswer({ ...http, onFailure: "allow" }, { status: 500, headers: [], body })).toMatchObject({ kind: "allowed" });
  });
});

test("silence is decided by the policy, and says what was asked", () => {
  expect(authorizationFailed(GRPC, "no answer in 200 ms")).toEqual({
    kind: "denied", status: 503, headers: [], body: new Uint8Array(0), failure: "asked authoriser infra/opa.infra port 9191 (grpc): no answer in 200 ms; denied (onFailure: deny)",
  });
  expect(authorizationFailed({ ...GRPC, onFailure: "allow" }, "x").kind).toBe("allowed");
});
