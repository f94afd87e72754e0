// A service that another one is asked about.

import { ask, type AuthorizerRule, call, type Case, type Exchange } from "../description.ts";
import { ISSUER } from "../tokens.ts";

const says = (what: string, more: Readonly<Record<string, string>> = {}, arrivals = 1): Exchange => ask("/a/b?c=d", { headers: { "x-authz": what, ...more }, arrivals });

/** Long enough for the question to arrive on a busy machine. */
const SILENCE_MS = 500;
const SILENT: readonly (readonly [string, AuthorizerRule])[] = [
  ["HTTP", { protocol: "http", shown: ["x-authz"] }], ["HTTP that lets pass", { protocol: "http", shown: ["x-authz"], failOpen: true }], ["HTTP with another status", { protocol: "http", shown: ["x-authz"], statusOnError: 503 }], ["gRPC", { protocol: "grpc" }],
];

export const AUTHORIZERS: readonly Case[] = [
  {
    name: "HTTP",
    service: { routes: [{ rules: [{ response: { set: { "x-rule": "r" } } }] }], authorizer: { protocol: "http", shown: ["x-authz", "cookie"], toServer: ["x-user", "x-role"], toClientOnDeny: ["x-why", "www-authenticate"], toClientOnAllow: ["x-role"] } },
    exchanges: [
      says("allow", { "x-user": "forged", cookie: "a=1", "x-hidden": "1", authorization: "Bearer x" }, 2), ask("/", { arrivals: 2 }), says("deny"), says("break"), ask("/a", { method: "PUT", body: "not shown", headers: { "x-authz": "allow" }, arrivals: 2 }), ask("/a", { method: "HEAD", headers: { "x-authz": "deny" }, arrivals: 1 }), ask("/%61/../b//c", { headers: { "x-authz": "allow" }, arrivals: 2 }),
    ],
  },
  {
    name: "HTTP, with a path, more headers and the body",
    service: { routes: [{ rules: [{}] }], authorizer: { protocol: "http", pathPrefix: "/check", shown: ["x-authz", "content-type"], added: { "x-from": "a proxy" }, bodyBytes: 10, toClientOnDeny: ["x-why"] } },
    exchanges: [ask("/a?b", { headers: { "x-authz": "allow" }, arrivals: 2 }), ask("/a", { body: "short", headers: { "x-authz": "allow", "content-type": "text/plain" }, arrivals: 2 }), ask("/a", { body: "longer than ten bytes", headers: { "x-authz": "allow" } }), ask("/a", { body: "short", headers: { "x-authz": "deny" }, arrivals: 1 })],
  },
  ...SILENT.map(([name, rule]): Case => ({ name: `${name}, silent`, service: { routes: [{ rules: [{}] }], authorizer: { ...rule, timeoutMs: SILENCE_MS } }, exchanges: [says("silent", {}, rule.failOpen === true ? 2 : 1)] })),
  { name: "HTTP, failures let pass", service: { routes: [{ rules: [{}] }], authorizer: { protocol: "http", shown: ["x-authz"], failOpen: true } }, exchanges: [says("break", {}, 2), says("deny"), says("allow", {}, 2)] },
  { name: "HTTP, failures by another status", service: { routes: [{ rules: [{}] }], authorizer: { protocol: "http", shown: ["x-authz"], statusOnError: 503 } }, exchanges: [says("break"), says("deny")] },
  {
    name: "gRPC",
    service: { routes: [{ rules: [{}] }], authorizer: { protocol: "grpc" } },
    exchanges: [says("allow", { "x-user": "forged" }, 2), says("change", { "x-set": "theirs", "x-add": "one", "x-remove": "gone" }, 2), says("deny"), says("break"), ask("/a", { method: "PUT", body: "not shown", headers: { "x-authz": "allow" }, arrivals: 2 }), ask("/a", { method: "HEAD", headers: { "x-authz": "deny" }, arrivals: 1 }), ask("/", { host: "other.example:8080", arrivals: 2 })],
  },
  {
    name: "gRPC, with the body",
    service: { routes: [{ rules: [{}] }], authorizer: { protocol: "grpc", bodyBytes: 10, partialBody: true } },
    exchanges: [ask("/a", { body: "short", headers: { "x-authz": "allow" }, arrivals: 2 }), ask("/a", { body: "longer than ten bytes", headers: { "x-authz": "allow" }, arrivals: 2, name: "a longer body" }), ask("/a", { body: "short", headers: { "x-authz": "deny" }, arrivals: 1 })],
  },
  { name: "gRPC, for calls", service: { port: "grpc", servers: "http2", routes: [{ rules: [{}] }], authorizer: { protocol: "grpc" } }, exchanges: [call("/a.B/C", { headers: { "x-authz": "allow" }, arrivals: 2 }), call("/a.B/C", { headers: { "x-authz": "deny" }, arrivals: 1 }), call("/a.B/C", { headers: { "x-authz": "break" }, arrivals: 1 })] },
  {
    name: "before the other policies, after the token",
    service: { routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER }], authorizer: { protocol: "http", shown: ["x-authz"] }, access: [{ action: "DENY", rules: [{ paths: ["/denied"] }] }] },
    exchanges: [ask("/denied", { headers: { "x-authz": "deny" }, arrivals: 1 }), ask("/denied", { headers: { "x-authz": "allow" }, arrivals: 1 }), ask("/", { headers: { "x-authz": "deny", authorization: "Bearer {token expired}" } }), ask("/", { headers: { "x-authz": "allow", authorization: "Bearer {token good}" }, arrivals: 2 })],
  },
];
