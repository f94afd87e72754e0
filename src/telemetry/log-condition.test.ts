// Filters as users write them, read at the border and run on a request.

import { describe, expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import type { AccessLogCondition } from "../mesh/l7/telemetry.ts";
import { parseAccessLogFilter } from "../resources/access-log-filter.ts";
import { fieldsOf, holds } from "./log-condition.ts";
import { KeptFields, type RequestRecord } from "./request-record.ts";
import { request } from "./telemetry-fixtures.ts";

function read(filter: string): readonly AccessLogCondition[] {
  const parsed = parseAccessLogFilter(filter);
  if (!parsed.ok) throw new Error(parsed.error);
  return parsed.value;
}
const random = seededRandom(1);
const wanted = (filter: string, r: RequestRecord): boolean => read(filter).every((condition) => holds(condition, r, random));

describe("filters", () => {
  const r = request({ requestFields: new KeptFields(["user-agent", "x-role"], ["probe/1", "admin"]), responseFields: new KeptFields(["x-cache"], ["hit"]) });
  test.each([
    ["response.code >= 400 || request.method == 'GET'", true], ["response.code >= 400 || request.method == 'POST'", false], ["!(request.useragent.startsWith('probe'))", false],
    // Istio's own example.
    ["!has(request.useragent) || !(request.useragent.startsWith('Amazon-Route53-Health-Check-Service'))", true],
    ["connection.mtls && request.url_path.contains('art')", true], ["request.path == '/cart?token=secret' && request.query == 'token=secret'", true], ["request.host.endsWith('.shop')", true],
    ["request.headers['x-role'] == 'admin' && 'x-cache' in response.headers", true], ["request.headers['x-other'] == 'a'", false], ["request.headers['x-other'] != 'a'", true], ["has(request.headers['x-other'])", false],
    ["response.duration > duration('50ms') && response.duration < duration('0.2s')", true], ["request.size + 1 == 2", null], ["source.port == 40000 && destination.port == 80", true], ["upstream.address.startsWith('198.18.0.2:')", true],
    ["response.grpc_status == 0", false], ["has(weft.reason)", false], ["response.code_details == 'via_upstream'", true], ["xds.route_name == 'cart' && xds.cluster_name.contains('web.shop')", true], ["random() < 2.0", true], ["random() > 1.5 || false", false],
    ["response.code == 200 && response.code != 404 && (response.code > 199 && response.code <= 200)", true], ["true || false && false", true], ["(true || false) && false", false],
  ])("%s: %p", (filter, expected) => {
    if (expected === null) expect(parseAccessLogFilter(filter).ok).toBe(false);
    else expect(wanted(filter, r)).toBe(expected);
  });

  test("of what ended without an answer", () => {
    const none = request({ status: 0, responseFields: null, destinationAddress: null, upstreamAddress: null, cluster: null, code: "connect_failed" });
    expect(wanted("'x-cache' in response.headers || has(destination.port) || has(upstream.address)", none)).toBe(false);
    expect(wanted("weft.reason == 'connect_failed' && !(response.grpc_status >= 0)", none)).toBe(true);
  });

  test("say which fields the record must keep", () => {
    const conditions = read("'X-A' in request.headers || request.headers.b == 'c' || has(request.useragent) || has(request.referer) || response.headers['x-d'] == ''");
    expect([fieldsOf(conditions, "request"), fieldsOf(conditions, "response")]).toEqual([["x-a", "b", "user-agent", "referer"], ["x-d"]]);
    expect(fieldsOf(read("response.code > 400 && random() < 0.5"), "request")).toEqual([]);
  });
});
