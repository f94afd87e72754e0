import { describe, expect, test } from "bun:test";
import { namespacedName } from "../core/brand.ts";
import { seededRandom } from "../core/ports.ts";
import type { RouteSet } from "../mesh/l7/l7-store.ts";
import type { ConnectionRule, Route } from "../mesh/l7/route.ts";
import { planConnection } from "./connection-route.ts";

const service = (name: string) => namespacedName("shop", `${name}.shop`);
const backend = (name: string, weight = 1): ConnectionRule["backends"][number] => ({ weight, filters: [], target: { kind: "service", service: service(name), port: 80, subset: null } });

function set(protocol: "tcp" | "tls", ...rules: readonly (readonly [sni: readonly string[], ...backends: ConnectionRule["backends"]])[]): RouteSet {
  const routes = rules.map(([sni, ...backends], i): Route => ({
    id: `r${i}`, name: `r${i}`, namespace: "shop", parents: [], createdMs: i, provenance: { kind: "TLSRoute", namespace: "shop", name: `r${i}`, resourceVersion: "1", fieldPath: "" },
    rules: { protocol, rules: [{ sni, backends, fieldPath: "spec.rules[0]" }] },
  }));
  return { protocol, routes };
}

function goesTo(routes: RouteSet, sni: string | null): string {
  const plan = planConnection(routes, sni, seededRandom(1));
  return plan.kind === "forward" ? plan.target.service : plan.kind === "refuse" ? plan.why : plan.kind;
}

describe("by name", () => {
  const routes = set("tls", [["*.example"], backend("wide")], [["*.shop.example", "other.test"], backend("narrow")], [["db.shop.example"], backend("exact")], [["db.shop.example"], backend("younger")]);
  test.each([
    ["db.shop.example", service("exact")], ["a.shop.example", service("narrow")], ["a.b.shop.example", service("narrow")], ["other.test", service("narrow")], ["shop.example", service("wide")],
    ["example", "none of the 4 TLSRoutes is for the server name example"], ["xexample", "none of the 4 TLSRoutes is for the server name xexample"], [null, "none of the 4 TLSRoutes is for a client that asks for no server name"],
  ])("%p", (sni, expected) => expect(goesTo(routes, sni)).toBe(expected));

  test("a route for every name is the last resort, and the only one without a name", () => {
    const all = set("tls", [[], backend("any")], [["*.example"], backend("wide")]);
    expect([goesTo(all, "a.example"), goesTo(all, "else.test"), goesTo(all, null)]).toEqual([service("wide"), service("any"), service("any")]);
  });
});

describe("by weight", () => {
  test("each gets its share, one with 0 nothing", () => {
    const routes = set("tcp", [[], backend("a", 3), backend("none", 0), backend("b", 1)]);
    const random = seededRandom(5);
    const counts: Record<string, number> = {};
    for (let i = 0; i < 4_000; i++) {
      const plan = planConnection(routes, null, random);
      if (plan.kind === "forward") counts[plan.target.service] = (counts[plan.target.service] ?? 0) + 1;
    }
    expect(Object.keys(counts).sort()).toEqual([service("a"), service("b")].sort());
    expect(Math.abs(counts[service("a")]! - 3_000)).toBeLessThan(150);
  });

  test("a draw at the very end still draws somebody", () => {
    const plan = planConnection(set("tcp", [[], backend("a", 1), backend("b", 2), backend("none", 0)]), null, { next: () => 1 });
    expect(plan).toMatchObject({ kind: "forward", target: { service: service("b") } });
  });

  test("what cannot be served is refused with where that is written", () => {
    expect(goesTo(set("tcp", [[], backend("a", 0)]), null)).toBe("every backend of TLSRoute shop/r0 spec.rules[0] has weight 0");
    expect(goesTo(set("tcp", [[], { weight: 1, filters: [], target: { kind: "invalid", reason: "no such Service" } }]), null)).toBe("the backend that was drawn cannot be used: no such Service");
  });
});

test("without routes of connections nothing is routed", () => {
  expect(goesTo({ protocol: null, routes: [] }, "a")).toBe("unrouted");
  expect(goesTo({ protocol: "http", routes: [] }, "a")).toBe("unrouted");
});
