import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { AUTHORIZER, jwtRule, requestPolicy, route, rule, WEB } from "../../test/kit/http-records.ts";
import { loginPolicy } from "../../test/kit/login-gate.ts";
import { provenance } from "../../test/kit/mesh-records.ts";
import { trafficPolicy } from "../../test/kit/upstreams.ts";
import { parseCidr } from "../core/ip.ts";
import { EMPTY_L7_SNAPSHOT, type L7Snapshot } from "../mesh/l7/delta.ts";
import { dumpL7, NOT_SHOWN, SECRET_FIELDS } from "./l7-dump.ts";

const SECRET = "s3cr3t";
const KEY_PEM = `-----BEGIN EC PRIVATE KEY-----\n${SECRET}\n-----END EC PRIVATE KEY-----\n`;
const collector = { name: "otel", protocol: "http" as const, service: WEB, port: 4318, path: "", timeoutMs: 1000, headers: [["x-tenant-token", SECRET]] as const };

/** Every place of a configuration that may hold a secret holds one. */
const snapshot: L7Snapshot = {
  ...EMPTY_L7_SNAPSHOT,
  routes: new Map([["HTTPRoute/shop/web", route({
    name: "web",
    rules: [rule({ name: "all", filters: [{ kind: "requestHeaders", change: { set: [["authorization", `Basic ${SECRET}`], ["x-shown", "shown"]], add: [["Cookie", SECRET]], remove: [] } }] })],
  })]]),
  trafficPolicies: new Map([[WEB, [trafficPolicy({ tls: { mode: "mutual", certificate: { certificatePem: "-----BEGIN CERTIFICATE-----", keyPem: KEY_PEM } } as never })]]]),
  requestPolicies: new Map([["shop/ask" as never, requestPolicy({ name: "ask", action: { kind: "custom", provider: "opa", authorizer: { ...AUTHORIZER, additionalHeaders: [["x-key", SECRET]] } }, rules: [{ remoteIps: [parseCidr("198.18.0.0/15")!] }] })]]),
  requestAuthentications: new Map([["shop/jwt" as never, {
    name: "jwt", namespace: "shop", targets: [], provenance: provenance("RequestAuthentication", "shop", "jwt"),
    rules: [jwtRule({ keys: { kind: "introspection", url: "https://issuer.example/introspect", clientId: "shop", clientSecret: SECRET } }), jwtRule({ keys: { kind: "inline", jwks: `{"keys":[{"kty":"oct","k":"${SECRET}"}]}` } })],
  }]]),
  loginPolicies: new Map([["shop/login" as never, loginPolicy({ clientSecret: SECRET, cookieKeys: [`${SECRET}1`, `${SECRET}2`] })]]),
  telemetry: new Map([["shop/t" as never, {
    name: "t", namespace: "shop", targets: [], metrics: [], provenance: provenance("Telemetry", "shop", "t"),
    tracing: { disabled: false, collectors: [collector], sampling: 1, tags: [] }, accessLog: { disabled: false, sinks: [{ kind: "otlp", collector }], conditions: [] },
  }]]),
};

describe("the L7 part of /config_dump", () => {
  const text = JSON.stringify(dumpL7(snapshot));

  test("shows no secret, wherever it stands", () => {
    expect(JSON.stringify([...snapshot.loginPolicies.values(), ...snapshot.telemetry.values(), ...snapshot.routes.values()])).toContain(SECRET);
    expect(text).not.toContain(SECRET);
    expect(text).not.toContain("PRIVATE KEY");
  });

  test("shows everything else: names, rules, values, addresses as text", () => {
    const dump = dumpL7(snapshot) as Record<string, Record<string, unknown>[]>;
    expect(dump["routes"]![0]).toMatchObject({ id: "HTTPRoute/shop/web" });
    expect(text).toContain('["x-shown","shown"]');
    expect(text).toContain(`["authorization","${NOT_SHOWN}"]`);
    expect(text).toContain(`["x-tenant-token","${NOT_SHOWN}"]`);
    expect(text).toContain('"remoteIps":["198.18.0.0/15"]');
    expect(dump["loginPolicies"]![0]).toMatchObject({ clientId: "shop", clientSecret: NOT_SHOWN, cookieKeys: [NOT_SHOWN, NOT_SHOWN] });
    expect(text).toContain("-----BEGIN CERTIFICATE-----");
    expect(Object.keys(dump["trafficPolicies"]!)).toEqual([WEB]);
  });
});

test("a field of the records that sounds like a secret is one, or is known to be none", () => {
  const harmless = new Set([
    // What a hash or a limit is taken of, names of cookies and claims, public certificates and lists of revoked ones.
    "key", "keys", "keysRef", "cookieName", "certificatePem", "caPem", "crlPem", "token", "tokens", "allowCredentials", "forwardOriginalToken",
  ]);
  const folder = join(import.meta.dir, "../mesh/l7");
  const fields = readdirSync(folder).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
    .flatMap((name) => [...readFileSync(join(folder, name), "utf8").matchAll(/readonly (\w+)\??:/g)].map((match) => match[1]!));
  const suspicious = [...new Set(fields)].filter((field) => /secret|password|pem$|keys?$|token|credential|jwks|cookie/i.test(field));
  expect(suspicious).toContain("clientSecret");
  // One more here: add it to SECRET_FIELDS of l7-dump.ts, or to the list above if everybody on the node may read it.
  expect(suspicious.filter((field) => !SECRET_FIELDS.has(field) && !harmless.has(field))).toEqual([]);
});
