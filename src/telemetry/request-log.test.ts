import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Provenance } from "../core/fault.ts";
import type { LogFormat } from "../mesh/l7/telemetry.ts";
import { COMMAND_NAMES, WEFT_NAMES } from "./log-commands.ts";
import { compileLogFormat, defaultLogFormat } from "./log-format.ts";
import { VALUE_CHARS_MAX } from "./log-text.ts";
import { KeptFields, type RequestRecord } from "./request-record.ts";
import { request, service, workload } from "./telemetry-fixtures.ts";

const WALL = Date.UTC(2026, 0, 2, 3, 4, 5, 106);
const redacted = { query: "redacted" } as const;
const full = { query: "full" } as const;
const provenance: Provenance = { kind: "VirtualService", namespace: "shop", name: "chaos", resourceVersion: "1", fieldPath: "spec.http[0].fault" };

const text = (r: RequestRecord, options: typeof redacted | typeof full = redacted) => defaultLogFormat("text", options).line(r, WALL);
const json = (r: RequestRecord) => JSON.parse(defaultLogFormat("json", redacted).line(r, WALL)) as Record<string, unknown>;

const troubled = request({
  status: 503, code: "connect_failed", flags: "UF,URX", detail: "connect to 198.18.0.2:8080 refused", attempts: 2, grpcStatus: 14, grpcMessage: "no \"cart\"", isGrpc: true, pathReceived: "/x/../cart",
  injected: [{ action: { kind: "delay", fixedMs: 100 }, provenance }],
  failedAttempts: [
    { address: "198.18.0.3:8080", endpoint: workload("web"), startedMs: 1010, endedMs: 1013, status: 0, grpcStatus: null, reason: "connect_failed", message: "refused", spanId: "" },
    { address: "198.18.0.2:8080", endpoint: workload("web"), startedMs: 1020, endedMs: 1029, status: 503, grpcStatus: null, reason: null, message: "", spanId: "" },
  ],
});

describe("text", () => {
  test("is Istio's line of Envoy, then ours", () => {
    expect(text(request())).toBe(
      '[2026-01-02T03:04:05.006Z] "GET /cart?[redacted] HTTP/1.1" 200 - via_upstream - "-" 10 2000 100 30 "-" "curl/8" "r-1" "web.shop" "198.18.0.2:8080"' +
      ' shop/web.shop.svc.cluster.local:80 - 198.18.9.9:80 198.18.0.1:40000 - "cart" src.workload="client" src.namespace="shop" src.identity="spiffe://cluster.local/ns/shop/sa/client"' +
      ' dst.workload="web" dst.namespace="shop" dst.identity="spiffe://cluster.local/ns/shop/sa/web" rule="HTTPRoute shop/web spec.rules[0].matches[0]" first_byte=40ms\n');
  });

  test("says what went wrong, where, and by which rule", () => {
    const line = text(troubled);
    expect(line).toContain('"GET /cart?[redacted] HTTP/1.1" 503 UF,URX connect_failed');
    expect(line).toContain(' reason=connect_failed rule="HTTPRoute shop/web spec.rules[0].matches[0]" detail="connect to 198.18.0.2:8080 refused" path_received="/x/../cart"');
    expect(line).toContain(' fault="delay 100 ms by VirtualService shop/chaos spec.http[0].fault" attempts=2');
    expect(line).toContain(' tried="198.18.0.3:8080 connect_failed after 3 ms: refused" tried="198.18.0.2:8080 503 after 9 ms" grpc_status=14 grpc_message="no \\"cart\\""');
  });

  test("a request that got nowhere has no times of an endpoint", () => {
    const line = text(request({ status: 404, code: "route_not_found", flags: "NR", attempts: 0, endpoint: null, endpointIdentity: null, upstreamAddress: null, cluster: null, attemptStartedMs: 0, routeId: null, ruleName: null, provenance: null, destinationAddress: null }));
    expect(line).toContain('404 NR route_not_found - "-" 10 2000 100 - "-" "curl/8" "r-1" "web.shop" "-" - - - 198.18.0.1:40000 - -');
  });

  test("the query is shown when asked for", () => expect(text(request(), full)).toContain('"GET /cart?token=secret HTTP/1.1"'));
});

describe("json", () => {
  test("is one object with Istio's names, numbers as numbers and what is absent as null", () => {
    expect(json(request())).toMatchObject({
      level: "info", method: "GET", path: "/cart?[redacted]", response_code: 200, duration: 100, upstream_service_time: 30, first_byte: 40, x_forwarded_for: null, user_agent: "curl/8",
      route_name: "cart", upstream_host: "198.18.0.2:8080", attempts: 1, "src.workload": "client",
    });
  });

  test("says what went wrong", () => {
    expect(json(troubled)).toMatchObject({
      level: "error", reason: "connect_failed", response_code: 503, faults: ["delay 100 ms by VirtualService shop/chaos spec.http[0].fault"], grpc_status: 14,
      tried: ["198.18.0.3:8080 connect_failed after 3 ms: refused", "198.18.0.2:8080 503 after 9 ms"],
    });
  });
});

describe("a form of one's own", () => {
  const line = (format: LogFormat, r: RequestRecord = request(), options: typeof redacted | typeof full = redacted) => compileLogFormat(format, options).line(r, WALL);
  const of = (command: string, r: RequestRecord = request()) => line({ kind: "text", line: command }, r).slice(0, -1);

  test.each([
    ["%REQ(:METHOD)%", "GET"], ["%REQ(:PATH)%", "/cart?[redacted]"], ["%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "/cart?[redacted]"], ["%REQ(:AUTHORITY)%", "web.shop"], ["%REQ(User-Agent)%", "curl/8"],
    ["%REQ(X-REQUEST-ID)%", "r-1"], ["%REQ(NOT-THERE)%", "-"], ["%REQ(NOT-THERE?USER-AGENT):4%", "curl"], ["%RESP(:STATUS)%", "200"], ["%RESP(SERVER)%", "-"], ["%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "30"],
    ["%START_TIME%", "2026-01-02T03:04:05.006Z"], ["%START_TIME(%s%3f)%", String(WALL - 100)], ["%PROTOCOL%", "HTTP/1.1"], ["%RESPONSE_CODE%", "200"], ["%RESPONSE_FLAGS%", "-"], ["%BYTES_SENT%", "2000"],
    ["%BYTES_RECEIVED%", "10"], ["%DURATION%", "100"], ["%UPSTREAM_HOST%", "198.18.0.2:8080"], ["%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "198.18.0.1"], ["%DOWNSTREAM_PEER_URI_SAN%", "spiffe://cluster.local/ns/shop/sa/client"],
    ["%ROUTE_NAME%", "cart"], ["%TRACE_ID%", "-"], ["%GRPC_STATUS%", "-"], ["%WEFT(rule)%", "HTTPRoute shop/web spec.rules[0].matches[0]"], ["%WEFT(source_workload)%", "client"], ["100%%", "100%"], ["plain", "plain"], ["", ""],
  ])("%s prints %j", (command, printed) => expect(of(command)).toBe(printed));

  test("gRPC statuses by name and by number", () => {
    expect(of("%GRPC_STATUS% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%", troubled)).toBe("Unavailable 14 14");
    expect(of("%WEFT(tried)%", troubled)).toContain("198.18.0.2:8080 503 after 9 ms");
  });

  test.each(["connect_failed", "tls_failed", "tls_broken", "endpoint_denied"] as const)("%s is why there was no connection; what a server answered is not", (code) => {
    expect(of("%UPSTREAM_TRANSPORT_FAILURE_REASON%", request({ code, detail: "why" }))).toBe("why");
    expect(of("%UPSTREAM_TRANSPORT_FAILURE_REASON%", request({ code: "upstream_reset", detail: "why" }))).toBe("-");
  });

  test("says which fields the record must keep", () => {
    const compiled = compileLogFormat({ kind: "text", line: "%REQ(X-A?X-B)% %REQ(:PATH)% %RESP(X-C)% %REQ(X-REQUEST-ID)%" }, redacted);
    expect(compiled.requestFields).toEqual(["x-a", "x-b"]);
    expect(compiled.responseFields).toEqual(["x-c"]);
    expect(compiled.problems).toEqual([]);
  });

  test("fields of a JSON object keep their kind, and a mixture is text", () => {
    const fields = [["code", "%RESPONSE_CODE%"], ["grpc", "%GRPC_STATUS_NUMBER%"], ["who", "%DOWNSTREAM_REMOTE_ADDRESS%"], ["mix\"ed", "a \"%RESPONSE_CODE%\" %REQ(USER-AGENT)%"], ["fixed", "x"]] as const;
    const r = request({ requestFields: new KeptFields(["user-agent"], ['e"\nvil']) });
    expect(JSON.parse(line({ kind: "json", fields }, r))).toEqual({ code: 200, grpc: null, who: "198.18.0.1:40000", 'mix"ed': 'a "200" e"\nvil', fixed: "x" });
  });

  test.each(["%NOPE%", "%WEFT(nope)%", "%WEFT(constructor)%", "%REQ(a b)%", "%REQ(a?b?c)%", "%START_TIME(%Y)%", "%PROTOCOL(x)%", "%toString%"])("%s is not known", (command) => {
    const compiled = compileLogFormat({ kind: "text", line: `[${command}]` }, redacted);
    if (command === "%toString%") expect(compiled.line(request(), WALL)).toBe("[%toString%]\n");
    else expect([compiled.line(request(), WALL), compiled.problems.length, compiled.problems[0]]).toEqual(["[-]\n", 1, expect.stringContaining(command)]);
  });

  test("one newline ends it, wherever it came from", () => {
    expect(line({ kind: "text", line: "a" })).toBe("a\n");
    expect(line({ kind: "text", line: "a\n" })).toBe("a\n");
  });
});

test("docs/telemetry.md has every command, and no other", () => {
  const rows = readFileSync(join(import.meta.dir, "../../docs/telemetry.md"), "utf8").split("\n").filter((line) => line.startsWith("| `%")).map((line) => line.split(" | ")[0]!);
  const named = rows.flatMap((row) => [...row.matchAll(/%([A-Z_]+)(?:\(([^)]*)\))?%/g)].map(([, name, argument]) => (name === "WEFT" ? `WEFT ${argument}` : name!)));
  expect(named.sort()).toEqual([...COMMAND_NAMES, ...WEFT_NAMES.map((name) => `WEFT ${name}`)].sort());
});

describe("what no log should have", () => {
  const r = request({
    requestFields: new KeptFields(["authorization", "cookie", "referer"], ["Bearer secret", "session=secret", "http://web.shop/x?token=secret"]), responseFields: new KeptFields(["set-cookie"], ["session=secret"]),
  });
  test("credentials are never shown, queries of a referer only when asked for", () => {
    const format = { kind: "text", line: "%REQ(AUTHORIZATION)% %REQ(COOKIE)% %RESP(SET-COOKIE)% %REQ(REFERER)%" } as const;
    expect(compileLogFormat(format, redacted).line(r, WALL)).toBe("[redacted] [redacted] [redacted] http://web.shop/x?[redacted]\n");
    expect(compileLogFormat(format, full).line(r, WALL)).toBe("[redacted] [redacted] [redacted] http://web.shop/x?token=secret\n");
  });
});

describe("hostile values", () => {
  const evil = 'x" reason=forged\n[2026] "GET \u001b[31m\\\u2028\u0085\u007f\ud800 \ufeff';
  const hostile = request({
    method: evil, path: evil, query: `?${evil}`, host: evil, pathReceived: evil, detail: evil, grpcMessage: evil, requestId: evil, ruleName: evil, source: workload(evil), endpoint: workload(evil),
    service: { ...service, hostname: evil }, requestFields: new KeptFields(["user-agent", "x-forwarded-for"], [evil, evil]), provenance: { ...provenance, name: evil },
    failedAttempts: [{ address: evil, endpoint: null, startedMs: 1, endedMs: 2, status: 0, grpcStatus: null, reason: "connect_failed", message: evil, spanId: "" }], injected: [{ action: { kind: "reset" }, provenance: { ...provenance, name: evil } }],
  });

  test("cannot forge a line, a field or a terminal sequence", () => {
    const forms = [defaultLogFormat("text", full), defaultLogFormat("json", full), compileLogFormat({ kind: "text", line: "%REQ(:PATH)% %REQ(USER-AGENT)% %WEFT(detail)% %WEFT(tried)%" }, full)];
    for (const form of forms) {
      const line = form.line(hostile, WALL);
      expect(line.indexOf("\n")).toBe(line.length - 1);
      expect(line.slice(0, -1)).toMatch(/^[\x20-\x7e]*$/);
      expect(line).not.toContain('x" reason=forged');
    }
    expect((JSON.parse(defaultLogFormat("json", full).line(hostile, WALL)) as Record<string, unknown>)["detail"]).toBe(evil);
  });

  test("are cut", () => {
    const line = text(request({ path: "/".repeat(100_000), detail: "d".repeat(100_000) }));
    expect(line.length).toBeLessThan(2 * VALUE_CHARS_MAX + 1500);
  });
});

test("what repeats from line to line is written as ever, and what changes is not", () => {
  const evil = 'x" "forged\n';
  const asked = (userAgent: string, target: string) => text(request({ requestFields: new KeptFields(["user-agent", "x-forwarded-for"], [userAgent, undefined]), path: target, ruleName: target }));
  const alone = [asked("curl/8", "/a"), asked(evil, "/b")];
  expect([asked("curl/8", "/a"), asked("curl/8", "/a"), asked(evil, "/b"), asked(evil, "/b"), asked("curl/8", "/a")]).toEqual([alone[0]!, alone[0]!, alone[1]!, alone[1]!, alone[0]!]);
  expect(alone[0]).toContain('"GET /a?[redacted] HTTP/');
  expect(alone[0]).toContain('"curl/8"');
  expect(alone[1]).toContain('"x\\" \\"forged\\n"');
  expect(alone[1]).not.toBe(alone[0]);
});
