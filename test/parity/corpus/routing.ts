// Which rule a request meets.

import { ask, type Case, request } from "../description.ts";

export const ROUTING: readonly Case[] = [
  {
    name: "paths",
    service: { routes: [{ rules: [
      { matches: [{ path: { exact: "/exact" } }], to: [{ server: "two" }], response: { set: { "x-rule": "exact" } } },
      { matches: [{ path: { prefix: "/prefix" } }], to: [{ server: "two" }], response: { set: { "x-rule": "prefix" } } },
      { matches: [{ path: { prefix: "/slash/" } }], to: [{ server: "two" }], response: { set: { "x-rule": "slash" } } },
      { matches: [{ path: { regex: "/regex/[0-9]+" } }], to: [{ server: "two" }], response: { set: { "x-rule": "regex" } } },
      { matches: [{ path: { regex: "/(a|b)*c" } }], to: [{ server: "two" }], response: { set: { "x-rule": "alternatives" } } },
      { response: { set: { "x-rule": "rest" } } },
    ] }] },
    exchanges: [
      ask("/exact"), ask("/exact/"), ask("/exact/more"), ask("/exact?query=1"), ask("/Exact"), ask("/prefix"), ask("/prefix/"), ask("/prefix/a/b"), ask("/prefixed"), ask("/prefix?x=/y"),
      ask("/slash"), ask("/slash/"), ask("/slash/x"), ask("/slashes"), ask("/regex/42"), ask("/regex/42a"), ask("/regex/"), ask("/a/regex/42"), ask("/aac"), ask("/bbbbac"), ask("/abd"), ask("/"), ask("/?"), ask("/%65xact"),
      ask("/exact%2f"), ask("/prefix%2fa"), ask("/exact;v=1"), ask("/exact#fragment"),
    ],
  },
  {
    name: "no rule for the rest",
    service: { routes: [{ rules: [{ matches: [{ path: { prefix: "/known" } }] }] }] },
    exchanges: [ask("/known"), ask("/unknown"), ask("/unknown", { method: "POST", body: "x" }), ask("/unknown", { method: "HEAD" })],
  },
  {
    name: "methods",
    service: { routes: [{ rules: [
      { matches: [{ method: "GET" }], response: { set: { "x-rule": "get" } } }, { matches: [{ method: "DELETE", path: { prefix: "/things" } }], response: { set: { "x-rule": "delete" } } },
      { matches: [{ path: { prefix: "/things" } }], response: { set: { "x-rule": "things" } } },
    ] }] },
    exchanges: [
      ask("/"), ask("/things"), ask("/things", { method: "DELETE" }), ask("/", { method: "DELETE" }), ask("/things", { method: "PATCH", body: "p" }), ask("/", { method: "HEAD" }), ask("/things", { method: "OPTIONS" }),
      ask("/things", { method: "PROPFIND" }), ask("/things", { method: "get" }),
    ],
  },
  {
    name: "headers",
    service: { routes: [{ rules: [
      { matches: [{ headers: { "x-version": { exact: "2" } } }], to: [{ server: "two" }] }, { matches: [{ headers: { "x-version": { exact: "3" }, "x-beta": { exact: "yes" } } }], response: { set: { "x-rule": "both" } } },
      { matches: [{ headers: { "X-Case": { exact: "Value" } } }], response: { set: { "x-rule": "case" } } }, { matches: [{ headers: { "x-match": { regex: "v[0-9]+(\\.[0-9]+)?" } } }], response: { set: { "x-rule": "regex" } } },
      { response: { set: { "x-rule": "rest" } } },
    ] }] },
    exchanges: [
      ask("/", { headers: { "x-version": "2" } }), ask("/", { headers: { "X-VERSION": "2" } }), ask("/", { headers: { "x-version": "22" } }), ask("/", { headers: { "x-version": "3" } }), ask("/", { headers: { "x-version": "3", "x-beta": "yes" } }),
      ask("/", { headers: { "x-case": "Value" } }), ask("/", { headers: { "x-case": "value" } }), ask("/", { headers: { "x-match": "v1.2" } }), ask("/", { headers: { "x-match": "v1.2.3" } }), ask("/", { headers: { "x-match": "av1" } }),
      ask("/", { headers: { "x-version": "  2  " }, name: "spaces around the value" }), { name: "the header twice", send: request("/", { headers: { "x-version": "2", "X-Version": "9" } }) },
      { name: "the header twice, equal", send: request("/", { headers: { "x-version": "2", "X-Version": "2" } }) }, ask("/", { headers: { "x-version": "" }, name: "an empty value" }),
    ],
  },
  {
    name: "query parameters",
    service: { routes: [{ rules: [
      { matches: [{ query: { v: { exact: "2" } } }], to: [{ server: "two" }] }, { matches: [{ query: { a: { exact: "1" }, b: { exact: "2" } } }], response: { set: { "x-rule": "both" } } },
      { matches: [{ query: { r: { regex: "[a-c]+" } } }], response: { set: { "x-rule": "regex" } } }, { response: { set: { "x-rule": "rest" } } },
    ] }] },
    exchanges: [
      ask("/?v=2"), ask("/?v=1"), ask("/?V=2"), ask("/?v=22"), ask("/?x=1&v=2"), ask("/?v=2&v=3"), ask("/?v=3&v=2"), ask("/?v"), ask("/?v="), ask("/?a=1&b=2"), ask("/?b=2&a=1"), ask("/?a=1"), ask("/?r=abc"), ask("/?r=abcd"),
      ask("/?v=%32"), ask("/?%76=2"), ask("/?v=2+"), ask("/?v=2;x=1"), ask("/path?v=2#v=3"),
    ],
  },
  {
    name: "precedence",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/" } }], response: { set: { "x-rule": "root" } } }, { matches: [{ path: { prefix: "/a" } }], response: { set: { "x-rule": "a" } } }, { matches: [{ path: { prefix: "/a/b" } }], response: { set: { "x-rule": "a/b" } } },
      { matches: [{ path: { exact: "/a/b" } }], response: { set: { "x-rule": "exact a/b" } } }, { matches: [{ path: { prefix: "/a" }, method: "POST" }], response: { set: { "x-rule": "post a" } } },
      { matches: [{ path: { prefix: "/a" }, headers: { "x-one": { exact: "1" } } }], response: { set: { "x-rule": "a one" } } },
      { matches: [{ path: { prefix: "/a" }, headers: { "x-one": { exact: "1" }, "x-two": { exact: "2" } } }], response: { set: { "x-rule": "a one two" } } },
      { matches: [{ path: { prefix: "/a" }, query: { q: { exact: "1" } } }], response: { set: { "x-rule": "a q" } } }, { matches: [{ path: { prefix: "/same" } }], response: { set: { "x-rule": "first" } } },
      { matches: [{ path: { prefix: "/same" } }], response: { set: { "x-rule": "second" } } },
    ] }] },
    exchanges: [
      ask("/"), ask("/a"), ask("/a/x"), ask("/a/b"), ask("/a/b/c"), ask("/a", { method: "POST", body: "" }), ask("/a", { headers: { "x-one": "1" } }), ask("/a", { headers: { "x-one": "1", "x-two": "2" } }), ask("/a?q=1"),
      ask("/a?q=1", { headers: { "x-one": "1" } }), ask("/a", { method: "POST", body: "", headers: { "x-one": "1", "x-two": "2" } }), ask("/a/b", { headers: { "x-one": "1" } }), ask("/same"),
    ],
  },
  {
    name: "hosts",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ host: { exact: "shop.example" } }], response: { set: { "x-rule": "shop" } } }, { matches: [{ host: { regex: "[a-z]+\\.shop\\.example" } }], response: { set: { "x-rule": "any shop" } } },
      { matches: [{ host: { prefix: "api" }, path: { prefix: "/v1" } }], response: { set: { "x-rule": "api" } } }, { response: { set: { "x-rule": "rest" } } },
    ] }] },
    exchanges: [
      ask("/", { host: "shop.example" }), ask("/", { host: "SHOP.Example" }), ask("/", { host: "shop.example:8080" }), ask("/", { host: "a.shop.example" }), ask("/", { host: "a.b.shop.example" }), ask("/v1", { host: "api.test" }),
      ask("/v2", { host: "api.test" }), ask("/", { host: "elsewhere.test" }), ask("/", { host: "shop.example." }), ask("/", { host: "198.51.100.7" }),
      ask("http://shop.example/absolute", { host: "shop.example", name: "absolute form" }), ask("http://shop.example/absolute", { host: "elsewhere.test", name: "absolute form, another Host" }),
    ],
  },
  {
    name: "hostnames of an HTTPRoute",
    service: { routes: [{ hostnames: ["shop.example"], rules: [{ response: { set: { "x-rule": "shop" } } }] }] },
    exchanges: [ask("/", { host: "shop.example" }), ask("/", { host: "other.example" })],
  },
  {
    name: "weights",
    service: { routes: [{ rules: [
      { matches: [{ path: { prefix: "/all" } }], to: [{ server: "one", weight: 0 }, { server: "two", weight: 5 }] },
      { matches: [{ path: { prefix: "/own" } }], to: [{ server: "one", weight: 0 }, { server: "two", weight: 1, request: { set: { "x-for": "two" } } }] },
    ] }] },
    exchanges: [ask("/all"), ask("/all/2"), ask("/own"), ask("/own", { headers: { "x-for": "me" } })],
  },
  {
    name: "VirtualService: the first match wins",
    service: { kind: "VirtualService", routes: [{ rules: [
      { matches: [{ path: { prefix: "/a" } }], response: { set: { "x-rule": "a" } } }, { matches: [{ path: { exact: "/a/b" } }], response: { set: { "x-rule": "never" } } },
      { matches: [{ path: { regex: "/r[0-9]*" } }, { headers: { "x-or": { exact: "1" } } }], response: { set: { "x-rule": "either" } } }, { response: { set: { "x-rule": "rest" } } },
    ] }] },
    exchanges: [ask("/a"), ask("/a/b"), ask("/abc"), ask("/r12"), ask("/r12/"), ask("/x", { headers: { "x-or": "1" } }), ask("/x"), ask("/A")],
  },
];
