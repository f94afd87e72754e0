// Who may do what, and how the caller is known.

import { ask, type Case, type Exchange } from "../description.ts";
import { ISSUER, OTHER_ISSUER } from "../tokens.ts";

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
    name: "headers of a rule for those who may not",
    service: { routes: [{ rules: [{ response: { set: { "x-rule": "r" } } }] }], tokens: [{ issuer: ISSUER }], access: [{ action: "DENY", rules: [{ paths: ["/denied"] }] }] },
    exchanges: [ask("/denied"), withToken("/", "expired"), ask("/")],
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
  {
    name: "kinds of tokens",
    service: { routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER, audiences: ["web", "mobile"], claimHeaders: { "x-subject": "sub", "x-admin": "admin", "x-groups": "groups", "x-realm": "realm", "x-city": "city", "x-level": "level", "x-org": "org.id" } }] },
    exchanges: [
      ...["rs256", "rs512", "ps256", "es384", "es512", "eddsa", "hs256", "critical", "other-kid", "two-audiences", "no-expiry", "expiry-as-text", "expiry-as-fraction", "soon-valid", "issuer-with-slash", "with-jku", "claims", "typed", "type-text"].map((name) => withToken("/", name)),
      ask("/", { headers: { authorization: "Bearer  {token good}" }, name: "two spaces" }), ask("/", { headers: { authorization: "Bearer {token good} " }, name: "a space at the end" }), ask("/", { headers: { authorization: "Bearer {token good}.x" }, name: "a fourth part" }), ask("/", { headers: { authorization: "Bearer {token good}=" }, name: "with padding" }),
      ask("/", { headers: { authorization: "{token good}" }, name: "without a scheme" }), ask("/", { headers: { authorization: "Bearer {token good}", Authorization: "Bearer {token bob}" }, name: "two headers" }), ask("/", { headers: { authorization: "Bearer {token good}", Authorization: "Bearer {token good}" }, name: "two headers, equal" }),
      ask("/?access_token={token good}", { headers: bearer("bob"), name: "in the header and in the query" }), ask("/?access_token={token good}&access_token={token bob}", { name: "two in the query" }), ask("/?x=1&access_token={token good}&y=2", { name: "in the query, among others" }), ask("/", { headers: { cookie: "access_token={token good}" }, name: "in a cookie" }),
    ],
  },
  {
    name: "several issuers",
    service: { routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER, audiences: ["web"] }, { issuer: OTHER_ISSUER, claimHeaders: { "x-other": "sub" } }] },
    exchanges: [...["good", "foreign-issuer", "foreign-audience", "expired"].map((name) => withToken("/", name)), ask("/")],
  },
  {
    name: "conditions",
    service: {
      routes: [{ rules: [{}] }], tokens: [{ issuer: ISSUER }],
      access: [{ action: "ALLOW", rules: [
        { paths: ["/aud"], audiences: ["web"] }, { paths: ["/nested"], claims: { "realm][roles": ["admin"] } }, { paths: ["/prefix"], claims: { role: ["read*"] } }, { paths: ["/suffix"], claims: { role: ["*er"] } }, { paths: ["/present"], claims: { role: ["*"] } }, { paths: ["/not-bob"], principals: ["*"], notPrincipals: [`${ISSUER}/bob`] },
        { paths: ["/hosts"], notHosts: ["closed.example", "*.closed.example"] }, { paths: ["/no-debug"], notHeaders: { "x-debug": ["1", "true"] } }, { paths: ["/issuer"], principals: [`${ISSUER}/*`] }, { paths: ["/subject"], principals: ["*/ann"] }, { paths: ["/two"], claims: { role: ["reader"], groups: ["eu"] } },
      ] }],
    },
    exchanges: [
      ...["/aud", "/nested", "/prefix", "/suffix", "/present", "/not-bob", "/issuer", "/subject", "/two"].flatMap((target) => [ask(target), ...["good", "bob", "claims"].map((name) => withToken(target, name))]), ask("/hosts"), ask("/hosts", { host: "closed.example" }), ask("/hosts", { host: "a.closed.example" }), ask("/hosts", { host: "Closed.Example" }), ask("/hosts", { host: "closed.example:81" }),
      ask("/no-debug"), ask("/no-debug", { headers: { "x-debug": "1" } }), ask("/no-debug", { headers: { "x-debug": "2" } }), ask("/no-debug", { headers: { "x-debug": "2", "X-Debug": "1" }, name: "x-debug twice" }),
    ],
  },
  {
    name: "what policies and routes see of a token",
    service: {
      routes: [{ rules: [{ matches: [{ headers: { "x-role": { exact: "reader" } } }], to: [{ server: "two" }] }, {}] }], tokens: [{ issuer: ISSUER, claimHeaders: { "x-role": "role" } }],
      access: [{ action: "DENY", rules: [{ paths: ["/written"], headers: { "x-role": ["writer"] } }, { paths: ["/token"], headers: { authorization: ["*"] } }] }],
    },
    exchanges: [
      ask("/"), withToken("/", "good"), withToken("/", "bob"), ask("/written"), withToken("/written", "good"), withToken("/written", "bob"), ask("/written", { headers: { "x-role": "writer" } }), ask("/", { headers: { "x-role": "reader" } }),
      ask("/token"), withToken("/token", "good"), ask("/token", { headers: { authorization: "Basic eDp5" } }),
    ],
  },
];
