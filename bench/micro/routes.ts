// What a decision about one request costs, without sockets: nanoseconds to find its rule at 10 and 1 000 rules, to plan it, and to
// authorise it under 100 policies. `bun bench/micro/routes.ts`. Compare only runs of the same machine.

import { seededRandom } from "../../src/core/ports.ts";
import type { RequestMatch } from "../../src/mesh/l7/match.ts";
import { authoriseRequest } from "../../src/policy/http/authorise-request.ts";
import { planRequest } from "../../src/policy/http/plan.ts";
import type { RequestFacts } from "../../src/policy/http/request-rules.ts";
import { Router } from "../../src/policy/http/router.ts";
import { connectionFacts } from "../../src/policy/connection-facts.ts";
import { condition, header, jwtRule, param, path, regex, request, type RequestFields, requestPolicy, route, to } from "../../test/kit/http-records.ts";
import { exact, identity, ip, prefix, suffix } from "../../test/kit/mesh-records.ts";

const ROUND_MS = 60;
const ROUNDS = 7;

/** Nanoseconds per call, the median of rounds. */
function nsPer(call: () => unknown): string {
  const rounds: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const started = performance.now();
    let calls = 0;
    do {
      for (let k = 0; k < 256; k++) if (call() === undefined) throw new Error("no answer");
      calls += 256;
    } while (performance.now() - started < ROUND_MS);
    if (round > 0) rounds.push(((performance.now() - started) * 1e6) / calls);
  }
  return `${rounds.sort((a, b) => a - b)[ROUNDS >> 1]!.toFixed(0)} ns`;
}
const row = (name: string, ...cells: readonly string[]): void => console.log(name.padEnd(52) + cells.map((cell) => cell.padStart(12)).join(""));

const HEADERS = { accept: "*/*", "user-agent": "bench", "x-tenant": "t7", "x-request-id": "0f5b1f0e" };
const routerOf = (count: number, match: (i: number) => Partial<RequestMatch>): Router => new Router([route({ rules: [...Array.from({ length: count }, (_, i) => to(`b${i}`, match(i))), to("rest")] })]);

row("find the rule of a request", "10 rules", "1 000 rules");
function find(name: string, match: (i: number) => Partial<RequestMatch>, asked: (count: number) => RequestFields): void {
  row(name, ...[10, 1000].map((count) => {
    const router = routerOf(count, match);
    const view = request({ headers: HEADERS, ...asked(count) });
    return nsPer(() => router.match(view));
  }));
}
find("by exact path", (i) => ({ path: path.exact(`/api/v1/items/${i}`) }), (n) => ({ url: `/api/v1/items/${n - 1}` }));
find("by prefix", (i) => ({ path: path.prefix(`/api/v1/service-${i}`) }), (n) => ({ url: `/api/v1/service-${n - 1}/items/42` }));
find("by prefix and method", (i) => ({ path: path.prefix(`/api/v1/service-${i}`), method: { kind: "exact", value: "GET" } }), (n) => ({ url: `/api/v1/service-${n - 1}/items/42` }));
find("by one header on one path", (i) => ({ path: path.prefix("/"), headers: [header("x-tenant", `t${i}`)] }), (n) => ({ headers: { ...HEADERS, "x-tenant": `t${n - 1}` } }));
find("by prefix, header and query", (i) => ({ path: path.prefix(`/s${i}`), headers: [header("x-tenant", "t7")], query: [param("v", "2")] }), (n) => ({ url: `/s${n - 1}/x?a=1&v=2` }));
find("by simple regex (linear)", (i) => ({ path: regex(`/svc-${i}/[0-9]+/.*`) }), (n) => ({ url: `/svc-${n - 1}/42/x` }));
find("by general regex (linear)", (i) => ({ path: regex(`/svc-${i}/([a-z]+/)+x?y`) }), (n) => ({ url: `/svc-${n - 1}/ab/cd/xy` }));
find("the rule for the rest", (i) => ({ path: path.prefix(`/api/v1/service-${i}`) }), () => ({ url: "/elsewhere/and/further" }));

console.log();
row("rule and plan", "10 rules", "1 000 rules");
row("by prefix, to a backend", ...[10, 1000].map((count) => {
  const router = routerOf(count, (i) => ({ path: path.prefix(`/api/v1/service-${i}`) }));
  const view = request({ headers: HEADERS, url: `/api/v1/service-${count - 1}/items/42` });
  const context = { random: seededRandom(1), listenerPort: 80, nowMs: 0, sessionSigner: null };
  return nsPer(() => planRequest(view, router.match(view), context));
}));

console.log();
row("authorise a request", "1 policy", "100 policies");
const claims = { iss: "https://issuer.example", sub: "bob", groups: ["dev", "ops"], scope: "read write" };
const facts: RequestFacts = {
  ...connectionFacts({ peer: identity("n7", "a"), sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080 }, null),
  request: request({ headers: HEADERS, url: "/api/v1/items/42" }), remoteIp: ip("198.18.0.9"), sni: null, token: { principal: "https://issuer.example/bob", payload: claims, rule: jwtRule() },
};
function authorise(name: string, make: (i: number) => Parameters<typeof requestPolicy>[0]): void {
  row(name, ...[1, 100].map((count) => {
    const set = { policies: Array.from({ length: count }, (_, i) => requestPolicy(make(i))), authentications: [], logins: [] };
    return nsPer(() => authoriseRequest(set, facts));
  }));
}
authorise("allow by principal, method and path; the last holds", (i) => ({ name: `p${i}`, rules: [{ principals: [exact(`cluster.local/ns/n${i === 0 ? 7 : i + 100}/sa/a`)], methods: [exact("GET")], paths: [prefix("/api/")] }] }));
authorise("allow by path alone, none holds", (i) => ({ name: `p${i}`, rules: [{ paths: [prefix(`/svc-${i}/`)] }] }));
authorise("deny by header, none holds", (i) => ({ name: `p${i}`, action: "deny", rules: [condition({ kind: "header", name: "x-tenant" }, [exact(`x${i}`)])] }));
authorise("allow by a claim of a list, none holds", (i) => ({ name: `p${i}`, rules: [condition({ kind: "claim", path: ["groups"] }, [exact(`g${i}`)])] }));
authorise("allow by path template, none holds", (i) => ({ name: `p${i}`, rules: [{ paths: [{ kind: "template", value: `/svc-${i}/{*}/x` }] }] }));
authorise("deny by host suffix, none holds", (i) => ({ name: `p${i}`, action: "deny", rules: [{ hosts: [suffix(`.h${i}.example`)] }] }));

console.log();
row("facts of a connection, once for each", nsPer(() => connectionFacts({ peer: identity("n7", "a"), sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080 }, null)));
