// Who may do what, and how the caller is known.

import { ask, type Case, type Exchange } from "../description.ts";
import { ISSUER } from "../tokens.ts";

const bearer = (name: string): Readonly<Record<string, string>> => ({ authorization: `Bearer {token ${name}}` });
const withToken = (target: string, name: string): Exchange => ask(target, { headers: bearer(name), name: `${target} with ${name}` });

export const ACCESS: readonly Case[] = [
  {
    name: "deny",
    service: { routes: [{ rules: [{}] }], access: [{ action: "DENY", rules: [{ methods: ["DELETE"] }, { paths: ["/admin*"] }, { paths: ["/secret"], notMethods: ["GET"] }, { headers: { "x-bad": ["1", "yes*"] } }, { hosts: ["closed.example"] }] }] },
    exchanges: [
      ask("/"), ask("/", { method: "DELETE" }), ask("/admin"), ask("/admin/x"), ask("/administrator"), ask("/Admin"), ask("/x/../admin"), ask("/%61dmin"), ask("//admin"), ask("/./admin"), ask("/admin?x=1"), ask("/secret"), ask("/secret", { method: "POST", body: "x" }), ask("/secret/"),
      ask("/", { headers: { "x-bad": "1" } }), ask("/", { headers: { "x-bad": "yes sir" } }), ask("/", { headers: { "x-bad": "no" } }), ask("/", { headers: { "x-bad": "no", "X-Bad": "1" }, name: "x-bad twice, the second is bad" }), ask("/", { headers: { "x-bad": "1", "X-Bad": "no" }, name: "x-bad twice, the first is bad" }), ask("/", { headers: { "x-bad": "no, 1" } }), ask("/", { host: "closed.example" }), ask("/", { host: "CLOSED.example" }), ask("/", { host: "closed.example:80" }),
      ask("/a%2f..%2fadmin"), ask("/a/..%2fadmin"), ask("/admin%00"), ask("/a\\..\\admin"), ask("/admin;x"), ask("/%2e%2e/admin"), ask("/a/%2e%2e/admin"), ask("/a/..;/admin"), ask("/a/..;x/admin"),
    ],
  },
  {
    name: "allow",
    service: { routes: [{ rules: [{}] }], access: [{ action: "ALLOW", rules: [{ methods: ["GET"], paths: ["/open", "/files/*", "*.css"] }, { methods: ["P*"], paths: ["/in"], headers: { "x-key": ["*"] } }, { paths: ["/not*"], notPaths: ["/not/this"] }] }] },
    exchanges: [
      ask("/open"), ask("/open/"), ask("/open", { method: "POST", body: "x" }), ask("/files/"), ask("/files/a/b"), ask("/files"), ask("/style.css"), ask("/style.css?x"), ask("/style.css/"), ask("/in", { method: "POST", body: "x", headers: { "x-key": "k" } }),
      ask("/in", { method: "PUT", body: "x" }), ask("/in", { headers: { "x-key": "k" } }), ask("/not/that"), ask("/not/this"), ask("/not/this/"), ask("/elsewhere"), ask("/open", { method: "HEAD" }), ask("/files/../open"), ask("/closed/../open"), ask("/open/../closed"),
    ],
  },
  {
    name: "deny before allow",
    service: { routes: [{ rules: [{}] }], access: [{ action: "ALLOW", rules: [{ paths: ["/a*"] }] }, { action: "DENY", rules: [{ paths: ["/a/b*"] }] }, { action: "ALLOW", rules: [{ paths: ["/c"] }] }] },
    exchanges: [ask("/a"), ask("/a/b"), ask("/a/c"), ask("/c"), ask("/d")],
  },
  {
    name: "tokens",
    service: { routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER, audiences: ["web"], claimHeaders: { "x-subject": "sub", "x-role": "role", "x-level": "level" } }] },
    exchanges: [
      ask("/"), ...["good", "bob", "expired", "early", "foreign-issuer", "foreign-audience", "no-audience", "foreign-key", "no-kid", "unsigned", "changed", "no-subject"].map((name) => withToken("/", name)),
      ask("/", { headers: { authorization: "Bearer nonsense" } }), ask("/", { headers: { authorization: "Bearer " } }), ask("/", { headers: { authorization: "Basic YTpi" } }), ask("/", { headers: { authorization: "bearer {token good}" }, name: "bearer in small letters" }),
      ask("/", { headers: { "x-subject": "forged" } }), ask("/", { headers: { ...bearer("good"), "x-subject": "forged" }, name: "a forged header beside a token" }), ask("/?access_token={token good}", { name: "in the query" }), ask("/?access_token=nonsense"),
    ],
  },
  {
    name: "tokens from elsewhere, passed on",
    service: { routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER, forward: true, header: { name: "x-token", prefix: "T " } }] },
    exchanges: [ask("/", { headers: { "x-token": "T {token good}" } }), ask("/", { headers: { "x-token": "{token good}" }, name: "without the prefix" }), ask("/", { headers: { "x-token": "T {token expired}" } }), ask("/", { headers: bearer("expired") })],
  },
  {
    name: "access by token",
    service: {
      routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER }],
      access: [{ action: "ALLOW", rules: [{ paths: ["/any"], principals: ["*"] }, { paths: ["/ann"], principals: [`${ISSUER}/ann`] }, { paths: ["/readers"], claims: { role: ["reader"] } }, { paths: ["/staff"], claims: { groups: ["staff"] } }, { paths: ["/open"] }] }],
    },
    exchanges: [
      ask("/open"), ask("/any"), withToken("/any", "good"), withToken("/any", "no-subject"), withToken("/ann", "good"), withToken("/ann", "bob"), withToken("/readers", "good"), withToken("/readers", "bob"), withToken("/staff", "good"), withToken("/staff", "bob"),
      withToken("/open", "expired"), ask("/ann"),
    ],
  },
];
