// A service behind logins, tokens and access policies, each asked in the order in which a waypoint asks them. What the application would get
// is its answer, as JSON, so that a test sees what passes.

import type { LoginPolicy } from "../../src/mesh/l7/access.ts";
import type { AccessSet } from "../../src/mesh/l7/l7-store.ts";
import type { LoginService } from "../../src/identity/oidc/login-service.ts";
import type { TokenVerifier } from "../../src/identity/jwt/token-verifier.ts";
import { connectionFacts } from "../../src/policy/connection-facts.ts";
import { authoriseRequest } from "../../src/policy/http/authorise-request.ts";
import type { HeaderOperation } from "../../src/policy/http/header-change.ts";
import { type LoginAnswer, loginEndpoint, type LoginPass, requireLogin } from "../../src/policy/http/login.ts";
import { withoutLoginCookies } from "../../src/policy/http/login-cookies.ts";
import { authenticateSession } from "../../src/policy/http/login-token.ts";
import { REASON_HEADER, reasonEntry } from "../../src/policy/http/reason-codes.ts";
import type { RequestView } from "../../src/policy/http/request.ts";
import { type AuthenticationDecision, bindRules, decideAuthentication, findTokens, headerOperations } from "../../src/policy/http/tokens.ts";
import { STRANGER, TestFields, WEB } from "./http-records.ts";
import { ip, provenance } from "./mesh-records.ts";

/** `shop/login` of the service WEB at the issuer of test/kit/issuer.ts. */
export function loginPolicy(fields: Partial<LoginPolicy> = {}): LoginPolicy {
  return {
    name: "login", namespace: "shop", targets: [{ kind: "service", service: WEB }], issuer: "https://issuer.example", clientId: "shop", clientSecret: "s3cret", scopes: ["openid", "email"], userInfo: false,
    callbackPath: "/.weft/login/callback", logoutPath: "/.weft/login/logout", cookieName: "weft-login", cookieKeys: ["ab".repeat(32)], sessionMs: 8 * 3_600_000, broken: null,
    provenance: provenance("LoginPolicy", "shop", "login"), ...fields,
  };
}

export interface GateOptions {
  readonly service: LoginService;
  readonly tokens: Pick<TokenVerifier, "verify">;
  access: AccessSet;
}

export class LoginGate {
  readonly #options: GateOptions;
  /** Of the answers that the gate made by itself. */
  readonly details: string[] = [];

  constructor(options: GateOptions) {
    this.#options = options;
  }

  set access(access: AccessSet) {
    this.#options.access = access;
  }

  readonly fetch = async (request: Request): Promise<Response> => {
    const { service, access, tokens } = this.#options;
    const view = viewOf(request);
    const { logins } = access;
    const rules = bindRules(access.authentications);
    const endpoint = loginEndpoint(logins, view, service.context());
    const first = endpoint === null ? null : await service.settle(endpoint);
    if (first?.kind === "answer") return this.#own(first);
    // A token that a rule accepts speaks for the request; a browser has none.
    const found = findTokens(rules, view);
    const verdicts = "kind" in found ? [] : await Promise.all(found.map((token) => tokens.verify(token)));
    const authentication = "kind" in found ? found : decideAuthentication(rules, found, verdicts);
    if (authentication.kind === "rejected") return new Response(authentication.detail, { status: authentication.status, headers: { [REASON_HEADER]: authentication.code } });
    if (authentication.kind === "authenticated" || logins.length === 0) return this.#authorise(view, authentication, null);
    const decision = await service.settle(requireLogin(logins, view, service.context()));
    switch (decision.kind) {
      case "answer": return this.#own(decision);
      case "preflight": return this.#own(decision.otherwise);
      case "pass": return this.#authorise(view, authenticateSession(rules, logins[0]!, decision.session), decision);
      default: return decision satisfies never;
    }
  };

  #authorise(view: RequestView, authentication: Exclude<AuthenticationDecision, { kind: "rejected" }>, pass: LoginPass | null): Response {
    const token = authentication.kind === "authenticated" ? authentication.token : null;
    const facts = {
      ...connectionFacts({ peer: null, sourceIp: ip("198.18.0.9"), destinationIp: ip("198.18.0.1"), destinationPort: 8080 }, null), request: view, remoteIp: ip("198.18.0.9"), sni: null, token,
    };
    const decision = authoriseRequest(this.#options.access, facts);
    const cookies = (pass?.cookies ?? []).map((cookie): [string, string] => ["set-cookie", cookie]);
    if (decision.kind !== "allow") return new Response("RBAC: access denied", { status: 403, headers: [[REASON_HEADER, decision.kind === "deny" ? decision.code : "ask"], ...cookies] });
    const headers = seenByBackend(view, [...headerOperations(authentication.changes, view.fields)], this.#options.access.logins);
    const body = JSON.stringify({ path: view.path, query: view.query, principal: token?.principal ?? null, claims: token?.payload ?? null, headers });
    return new Response(body, { headers: [["content-type", "application/json"], ...cookies] });
  }

  #own({ code, status, headers, body, detail }: LoginAnswer): Response {
    this.details.push(detail);
    const entry = reasonEntry(code);
    const used = status ?? entry.status ?? 500;
    return new Response(body ?? (used >= 400 ? entry.meaning : ""), { status: used, headers: [[REASON_HEADER, code], ...headers.map(([name, value]): [string, string] => [name, value])] });
  }
}


function viewOf(request: Request): RequestView {
  const url = new URL(request.url);
  const headers: Record<string, string> = {};
  for (const [name, value] of request.headers) headers[name] = value;
  // Of a target as it is on the wire: URL takes nothing out of a path that begins with two slashes.
  return {
    method: request.method, path: url.pathname, query: url.search, host: url.hostname, authorityPort: url.port === "" ? null : Number(url.port), scheme: url.protocol === "https:" ? "https" : "http",
    fields: new TestFields(headers), source: STRANGER,
  };
}

function seenByBackend(view: RequestView, operations: readonly HeaderOperation[], logins: readonly LoginPolicy[]): Readonly<Record<string, string>> {
  const seen = new Map(["accept", "authorization", "cookie", "x-user", "x-groups"].map((name) => [name, view.fields.value(name)] as const));
  change(seen, operations);
  const fields = new TestFields({ cookie: seen.get("cookie") ?? [] });
  for (const policy of logins) change(seen, withoutLoginCookies(policy, fields));
  return Object.fromEntries([...seen].flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])));
}

function change(seen: Map<string, string | undefined>, operations: readonly HeaderOperation[]): void {
  for (const operation of operations) {
    switch (operation.kind) {
      case "set": seen.set(operation.name, operation.value); break;
      case "append": seen.set(operation.name, [seen.get(operation.name), operation.value].filter((value) => value !== undefined).join(", ")); break;
      case "remove": seen.delete(operation.name); break;
      default: operation satisfies never;
    }
  }
}
