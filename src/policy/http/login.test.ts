import { describe, expect, test } from "bun:test";
import { request, type RequestFields } from "../../../test/kit/http-records.ts";
import { identity, ip } from "../../../test/kit/mesh-records.ts";
import { loginPolicy } from "../../../test/kit/login-gate.ts";
import type { LoginPolicy } from "../../mesh/l7/access.ts";
import { loginEndpoint, type LoginStep, requireLogin } from "./login.ts";
import { withoutLoginCookies } from "./login-cookies.ts";
import type { LoginCrypto } from "./login-port.ts";
import { externalScheme, isNavigation } from "./login-request.ts";

let count = 0;
/** Opens what it sealed, and says for what; encryption itself is src/identity/oidc's. */
const crypto: LoginCrypto = {
  seal: (text, purpose) => Buffer.from(JSON.stringify([purpose, text])).toString("base64url"),
  open: (sealed, purpose) => {
    const [sealedFor, text] = JSON.parse(Buffer.from(sealed, "base64url").toString()) as [string, string];
    return sealedFor === purpose ? text : null;
  },
  secret: () => `secret${count++}`,
  sha256: (text) => `hash-of-${text}`,
};
const context = { cryptoOf: () => crypto, nowMs: 1_000_000 };
const require = (fields: RequestFields, ...policies: readonly LoginPolicy[]): LoginStep => requireLogin(policies.length === 0 ? [loginPolicy()] : policies, request({ host: "shop.example", scheme: "https", ...fields }), context);
const brief = (step: LoginStep): unknown => (step.kind === "ask" ? `ask ${step.about}` : step.kind === "answer" ? [step.code, step.status] : step.kind);

describe("what can be sent to log in", () => {
  const html = { accept: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" };
  test.each<readonly [string, RequestFields, boolean]>([
    ["a page", { headers: html }, true], ["its head", { method: "HEAD", headers: html }, true], ["a page, as the browser says", { headers: { accept: "*/*", "sec-fetch-mode": "navigate" } }, true], ["xhtml alone", { headers: { accept: "application/xhtml+xml" } }, true],
    ["a form", { method: "POST", headers: { ...html, "sec-fetch-mode": "navigate" } }, false], ["a script's call", { headers: { ...html, "sec-fetch-mode": "cors" } }, false], ["an image", { headers: { ...html, "sec-fetch-mode": "no-cors" } }, false],
    ["a WebSocket", { headers: { ...html, upgrade: "websocket" } }, false], ["one over HTTP/2", { method: "CONNECT", headers: html }, false], ["an old script's call", { headers: { ...html, "x-requested-with": "XMLHttpRequest" } }, false],
    ["a program", { headers: { accept: "*/*" } }, false], ["events", { headers: { accept: "text/event-stream" } }, false], ["nothing said", {}, false], ["something like a page", { headers: { accept: "text/html5, xtext/html" } }, false],
    ["gRPC", { method: "POST", headers: { ...html, "content-type": "application/grpc" } }, false], ["gRPC-Web by GET", { headers: { ...html, "content-type": "application/grpc-web+proto" } }, false],
  ])("%s", (_, fields, can) => {
    expect(isNavigation(request(fields))).toBe(can);
    expect(brief(require(fields))).toEqual(can ? "ask provider" : ["login_required", 401]);
  });
  test("what cannot is told so, with what RFC 9110 wants of a 401, and kept by nobody", () => {
    const step = require({ method: "POST" });
    expect(step.kind === "answer" ? step.headers : step).toEqual([["cache-control", "no-store"], ["referrer-policy", "no-referrer"], ["www-authenticate", "Bearer"]]);
  });
  test("a CORS preflight is left to rules, and to no backend", () => {
    const step = require({ method: "OPTIONS", headers: { origin: "https://app.example", "access-control-request-method": "PUT" } });
    expect(step.kind === "preflight" ? brief(step.otherwise) : step).toEqual(["login_required", 401]);
    expect(brief(require({ method: "OPTIONS", headers: { origin: "https://app.example" } }))).toEqual(["login_required", 401]);
  });
  test("without a host nobody could be sent back", () => expect(brief(require({ host: "", headers: html }))).toEqual(["login_required", 401]));
});

describe("policies that cannot be enforced", () => {
  test("a broken one answers everything, callback and logout too", () => {
    const broken = loginPolicy({ broken: "the Secret shop/s is not there", cookieKeys: [] });
    for (const url of ["/", "/.weft/login/callback?code=a&state=b", "/.weft/login/logout"]) {
      const step = loginEndpoint([broken], request({ url }), context) ?? requireLogin([broken], request({ url }), context);
      expect(step).toMatchObject({ kind: "answer", code: "rule_broken", detail: "LoginPolicy shop/login: the Secret shop/s is not there" });
    }
  });
  test("which of several counts is not guessed", () => {
    expect(require({}, loginPolicy(), loginPolicy({ name: "other" }))).toMatchObject({ code: "rule_broken", detail: expect.stringContaining("several policies ask for a login") });
  });
  test("one that is broken beside a sound one", () => expect(brief(require({}, loginPolicy(), loginPolicy({ broken: "x" })))).toEqual(["rule_broken", null]));
});

describe("paths of a login", () => {
  test.each(["/", "/.weft/login/callback/", "/.weft/login", "/.weft/login/callbackx", "/x/.weft/login/callback"])("%s is none", (url) => expect(loginEndpoint([loginPolicy()], request({ url }), context)).toBeNull());
  test("without a policy there are none", () => expect(loginEndpoint([], request({ url: "/.weft/login/callback" }), context)).toBeNull());
});

describe("the scheme that the browser sees", () => {
  const scheme = (told: string, peer = true): string => externalScheme(request({ headers: { "x-forwarded-proto": told }, source: { identity: peer ? identity("shop", "gateway") : null, ip: ip("198.18.0.9") } }));
  test.each([["https", "https"], ["HTTPS, http", "https"], ["http", "http"], ["javascript", "http"], ["", "http"]])("a gateway of the mesh says %j", (told, expected) => expect(scheme(told)).toBe(expected));
  test("nobody else is believed", () => expect(scheme("https", false)).toBe("http"));
});

describe("cookies that a backend sees", () => {
  const left = (cookie: string | readonly string[], name = "weft-login"): unknown => withoutLoginCookies(loginPolicy({ cookieName: name }), request({ headers: { cookie } }).fields);
  test.each([
    ["a=b", []], ["weft-login=x", [{ kind: "remove", name: "cookie" }]], ["a=b; __Host-weft-login=x;__Host-weft-login.1=y; c=d", [{ kind: "set", name: "cookie", value: "a=b; c=d" }]],
    ["weft-login-flow-abc=x; weft-login-flow=z", [{ kind: "set", name: "cookie", value: "weft-login-flow=z" }]], ["weft-loginx=1; xweft-login=2; weft-login.x=3; =4", []], ["__Host-weft-login-flow-abc=x", [{ kind: "remove", name: "cookie" }]],
  ])("%s", (cookie, expected) => expect(left(cookie)).toEqual(expected as unknown[]));
  test("over several lines, as HTTP/2 sends them", () => expect(left(["a=b", "weft-login=x", "c=d"])).toEqual([{ kind: "set", name: "cookie", value: "a=b; c=d" }]));
  test("none at all", () => expect(withoutLoginCookies(loginPolicy(), request().fields)).toEqual([]));
  test("a name that has the prefix already", () => expect(left("__Host-who=x; who=y; a=b", "__Host-who")).toEqual([{ kind: "set", name: "cookie", value: "a=b" }]));
});
