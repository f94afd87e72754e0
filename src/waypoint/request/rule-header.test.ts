// The name of the rule beside the reason: whom an answer tells it, from the request to the header as it is written.

import { describe, expect, test } from "bun:test";
import { requestMatch, requestPolicy, route, rule } from "../../../test/kit/http-records.ts";
import { identity, provenance } from "../../../test/kit/mesh-records.ts";
import { backend1, WaypointFixture } from "../../../test/kit/waypoint.ts";
import { ruleText } from "../../policy/http/rule-header.ts";

const DENIED = { requestPolicies: [requestPolicy({ name: "no-delete", action: "deny", rules: [requestMatch({ methods: [{ kind: "exact", value: "DELETE" }] })] })] };
const NAMED = "AuthorizationPolicy shop/no-delete spec.rules[0]";
const INSIDE = { identity: identity("shop", "front") };
const OUTSIDE = { identity: null };

async function told(options: Partial<ConstructorParameters<typeof WaypointFixture>[0]>, headers: Readonly<Record<string, string>> = {}, method = "DELETE"): Promise<[reason: string | null, rule: string | null]> {
  await using server = await backend1((_request, response) => response.writeHead(200, { "x-weft-rule": "HTTPRoute other/of-a-waypoint-behind" }).end());
  await using waypoint = new WaypointFixture({ endpoints: [server], l7: DENIED, source: INSIDE, ...options });
  const answer = await waypoint.fetch("/", { method, headers });
  await answer.text();
  return [answer.headers.get("x-weft-reason"), answer.headers.get("x-weft-rule")];
}

describe("x-weft-rule", () => {
  test("a caller of the mesh is told the rule", async () => {
    expect(await told({})).toEqual(["access_denied", NAMED]);
  });

  test("a client from outside is not, nor a proxy of the mesh that asks for one", async () => {
    expect(await told({ source: OUTSIDE })).toEqual(["access_denied", null]);
    for (const name of ["x-forwarded-for", "forwarded"]) expect(await told({}, { [name]: "for=198.51.100.1" })).toEqual(["access_denied", null]);
  });

  test("unless the operator wants everybody told, or nobody", async () => {
    expect(await told({ source: OUTSIDE, ruleTelling: "always" }, { "x-forwarded-for": "198.51.100.1" })).toEqual(["access_denied", NAMED]);
    expect(await told({ ruleTelling: "never" })).toEqual(["access_denied", null]);
  });

  test("what a waypoint behind this one says goes no further than our own would", async () => {
    expect(await told({}, {}, "GET")).toEqual([null, "HTTPRoute other/of-a-waypoint-behind"]);
    expect(await told({ source: OUTSIDE }, {}, "GET")).toEqual([null, null]);
    expect(await told({ ruleTelling: "never" }, {}, "GET")).toEqual([null, null]);
  });

  test("a request that no ALLOW policy matches is told which there are, and a route which rule", async () => {
    const allow = (name: string) => requestPolicy({ name, action: "allow", rules: [requestMatch({ methods: [{ kind: "exact", value: "GET" }] })] });
    expect(await told({ l7: { requestPolicies: ["a", "b"].map(allow) } })).toEqual(["access_not_allowed", "AuthorizationPolicy shop/a, AuthorizationPolicy shop/b"]);
    expect(await told({ l7: { routes: [route({ rules: [rule({ backends: [] })] })] } })).toEqual(["no_backend", "HTTPRoute shop/route spec.rules[0]"]);
  });

  test("an answer that no rule had a part in names none", async () => {
    expect(await told({ l7: {}, endpoints: [] })).toEqual(["no_endpoints", null]);
  });
});

test("whatever stands in a name, the header is printable and bounded", () => {
  const text = ruleText(provenance("HTTPRoute", "s\r\nx: y", "é".repeat(600)), [])!;
  expect(text).toMatch(/^[\x20-\x7e]{1,512}$/);
  expect(text).toStartWith("HTTPRoute s??x: y/???");
  expect(text).toEndWith("...");
  expect(ruleText(null, [])).toBeNull();
});
