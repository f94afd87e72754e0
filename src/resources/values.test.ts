import { describe, expect, test } from "bun:test";
import type { LogStep } from "../mesh/l7/telemetry.ts";
import { parseAccessLogFilter } from "./access-log-filter.ts";
import { DURATION_MS_MAX, parseDuration, parseGatewayDuration } from "./durations.ts";
import { httpStatusOfGrpc, parseGrpcStatus } from "./grpc-status.ts";
import { pathFault } from "./http-values.ts";
import { regexFault } from "./patterns.ts";
import { parseRetryOn } from "./retry-on.ts";

describe("durations", () => {
  test("of the Gateway API: whole numbers with units, up to four", () => {
    expect(["0s", "500ms", "10s", "1h30m", "1h2m3s4ms"].map(parseGatewayDuration)).toEqual([0, 500, 10_000, 5_400_000, 3_723_004]);
  });
  for (const text of ["", "10", "s", "-1s", "1.5s", "1d", "100000s", "1s ", "1h1h1h1h1h", "1S", "10us"]) test(`of the Gateway API: not ${JSON.stringify(text)}`, () => expect(parseGatewayDuration(text)).toBeNull());
  test("of Istio: fractions and small units too, in whole milliseconds", () => {
    expect(["0s", "1.5s", "0.25h", "1h0.5s", "1000us", "2000000ns"].map(parseDuration)).toEqual([0, 1500, 900_000, 3_600_500, 1, 2]);
  });
  for (const text of ["", "1", "1.s", ".5s", "1s2", "0.1ms", "1us", "1e3s", "+1s", "600h1000000h", "1s".repeat(40)]) test(`of Istio: not ${JSON.stringify(text)}`, () => expect(parseDuration(text)).toBeNull());
  test("a timer can hold each of them", () => expect([parseGatewayDuration("596h"), parseGatewayDuration("597h"), DURATION_MS_MAX]).toEqual([2_145_600_000, null, 2 ** 31 - 1]));
});

describe("regular expressions", () => {
  test("RE2 syntax is sound", () => expect(["a.*", "(?i)x", "[[:alpha:]]+", "^/v[12]/", "a{1000}"].map(regexFault)).toEqual([null, null, null, null, null]));
  test("what cannot be matched in linear time is refused", () => {
    for (const text of ["(?=a)", "(a)\\1", "(?<!a)b", "a**", "(", "[z-a]", "a{1001}"]) expect(regexFault(text)).toStartWith("expected a regex in RE2 syntax");
  });
  test("length and size are bounded", () => {
    expect(regexFault("a".repeat(1025))).toBe("expected a regex of at most 1024 characters");
    expect(regexFault("(a{100}b{100}c{100}){10}d{1000}e{999}")).toContain("compiles to at most 2000 instructions");
  });
});

test("paths: normal form alone", () => {
  expect(["/", "/a/b", "/a/", "/a%20b", "/.well-known", "/a..b"].map(pathFault)).toEqual([null, null, null, null, null, null]);
  for (const path of ["", "a", "//", "/a//b", "/./a", "/a/..", "/a/../b", "/a%2Fb", "/a%2fb", "/a#b", "/a?b", "/a b", "/%zz", `/${"a".repeat(1024)}`, "/é"]) expect([path.slice(0, 10), pathFault(path)]).not.toEqual([path.slice(0, 10), null]);
});

test("retryOn: names of Envoy and status codes", () => {
  expect(parseRetryOn(" gateway-error, 429 ,retriable-status-codes,unavailable,refused-stream").conditions).toEqual({ statuses: [429, 502, 503, 504], grpcStatuses: [14], onConnectFailure: true, onReset: true, onRefusedStream: true });
  expect(parseRetryOn("connect-failure,reset-before-request").conditions).toEqual({ statuses: [], grpcStatuses: [], onConnectFailure: true, onReset: false, onRefusedStream: false });
  expect(parseRetryOn("reset,sometimes,600,retriable-headers")).toMatchObject({ unknown: ["sometimes", "600"], unsupported: ["retriable-headers"], conditions: { onReset: true, onConnectFailure: true } });
});

test("gRPC statuses: by name or number", () => {
  expect(["OK", "UNAVAILABLE", "16", "17", "01", "unavailable", "-1"].map(parseGrpcStatus)).toEqual([0, 14, 16, null, null, null, null]);
  expect([0, 4, 7, 8, 14, 16].map(httpStatusOfGrpc)).toEqual([200, 504, 403, 429, 503, 401]);
});

describe("access log filters", () => {
  test("comparisons joined by &&", () => {
    expect(parseAccessLogFilter("response.code != 200 && request.duration >= duration('500ms')&&random()<.5")).toEqual({ ok: true, value: [{ kind: "status", compare: "!=", value: 200 }, { kind: "slowerThanMs", value: 500 }, { kind: "sample", fraction: 0.5 }] });
  });
  test("anything else is one expression: ! before comparisons, && before ||", () => {
    const code: LogStep = { kind: "attribute", name: "response.code" };
    expect(parseAccessLogFilter('response.code >= 400 || !(request.method == "GET") && has(request.useragent)')).toEqual({ ok: true, value: [{ kind: "expression", steps: [
      code, { kind: "literal", value: 400 }, { kind: "compare", compare: ">=" },
      { kind: "attribute", name: "request.method" }, { kind: "literal", value: "GET" }, { kind: "compare", compare: "==" }, { kind: "not" },
      { kind: "attribute", name: "request.useragent" }, { kind: "present" }, { kind: "and" }, { kind: "or" },
    ] }] });
    expect(parseAccessLogFilter("'X-User' in request.headers && request.headers[\"X-Role\"].startsWith('a')")).toEqual({ ok: true, value: [{ kind: "expression", steps: [
      { kind: "field", side: "request", name: "x-user" }, { kind: "present" }, { kind: "field", side: "request", name: "x-role" }, { kind: "literal", value: "a" }, { kind: "text", test: "startsWith" }, { kind: "and" },
    ] }] });
  });
  test.each([
    ["", "expected a comparison"], ["response.code", "the whole to be a truth, and not a number"], ["response.code >= 400 &&", "and not its end"], ["response.code > '4'", "of one kind, and not a number and a text"],
    ["response.duration > duration('x')", 'expected a duration such as "500ms", and not "x"'], ["response.duration > 5", "and not a time and a number"], ["request.pat == '/'", "expected one of request.method,"], ["request.path == '/' 'b'", 'nothing at "b"'],
    ["(response.code > 1", "expected ) at its end"], ["request.path.matches('a+')", "startsWith, endsWith, contains of a text, and not matches"], ["request.path ~ '/'", 'and not "~ \'/\'"'], ["connection.mtls > true", "expected == or !="],
    ["!response.code", "what stands after ! to be a truth"], ["'x' in request", "expected request.headers"], [`${"(".repeat(40)}true${")".repeat(40)}`, "at most 32 parentheses"], [Array.from({ length: 200 }, () => "true").join(" || "), "at most 256 parts"],
  ])("not %j", (text, reason) => {
    const parsed = parseAccessLogFilter(text);
    expect(parsed.ok ? "" : parsed.error).toContain(reason);
  });
});
