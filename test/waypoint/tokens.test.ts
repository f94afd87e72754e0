// Tokens and logins through `weft waypoint` as a process, while issuers go down, change their keys and come back; and policies that change
// under connections that are open. The issuer is a service of the mesh: its name is known nowhere else.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createServer, type Server } from "node:http";
import { connect, type Socket } from "node:net";
import { promised } from "../kit/fair-time.ts";
import { keySet, sign, testKey, type TestKey } from "../kit/issuer.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend1 } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

const CHANGE_MS_PROMISED = 1_000;
const [WEB, ISSUER, BROKEN] = ["198.18.7.11", "198.18.7.12", "198.18.7.13"];
const URL_BASE = "http://127.0.0.1:8080";
const ISSUER_URL = "http://issuer.shop.svc.cluster.local:8000";

let waypoint: WaypointProcess;
let web: Backend;
let issuer: Issuer;
let first: TestKey;

/** Keys, introspection and discovery at one address, which goes down and comes back. */
class Issuer {
  keys: readonly TestKey[] = [];
  readonly active = new Set<string>();
  readonly asked: string[] = [];
  #server: Server | null = null;

  async up(): Promise<void> {
    const server = (this.#server = createServer(async (request, response) => {
      this.asked.push(request.url!);
      let body = "";
      for await (const chunk of request) body += String(chunk);
      if (request.url === "/keys") return void response.setHeader("content-type", "application/json").end(keySet(...this.keys));
      if (request.url === "/introspect") {
        const token = new URLSearchParams(body).get("token") ?? "";
        return void response.setHeader("content-type", "application/json").end(JSON.stringify(this.active.has(token) ? { active: true, sub: "carol", iss: "https://opaque.example" } : { active: false }));
      }
      if (request.url === "/.well-known/openid-configuration") {
        return void response.setHeader("content-type", "application/json").end(JSON.stringify({
          issuer: ISSUER_URL, authorization_endpoint: `${ISSUER_URL}/authorize`, token_endpoint: `${ISSUER_URL}/token`, jwks_uri: `${ISSUER_URL}/keys`, response_types_supported: ["code"], code_challenge_methods_supported: ["S256"],
        }));
      }
      response.writeHead(404).end();
    }));
    await new Promise<void>((resolve) => server.listen(8000, ISSUER, resolve));
  }

  async down(): Promise<void> {
    const server = this.#server!;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

const object = (apiVersion: string, kind: string, name: string, spec: object): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop" }, spec });
const targetRefs = [{ group: "", kind: "Service", name: "web" }];
const authentication = (jwtRules: readonly object[]): string => object("security.istio.io/v1", "RequestAuthentication", "jwt", { targetRefs, jwtRules });

beforeAll(async () => {
  ownAddresses([WEB, ISSUER, BROKEN]);
  web = await backend1((request, response) => response.end(`${request.method} as ${request.headers["x-subject"] ?? "nobody"}`), WEB);
  first = await testKey("k1");
  issuer = new Issuer();
  issuer.keys = [first];
  await issuer.up();
  waypoint = await WaypointProcess.start({
    yaml: {
      "services.yaml": [WAYPOINT_YAML, serviceYaml("web", WEB, web.port), serviceYaml("issuer", ISSUER, 8000, 8000), serviceYaml("broken", BROKEN, 8000, 8000)].join("\n---\n"),
      "jwt.yaml": authentication([{ issuer: "https://issuer.example", jwksUri: `${ISSUER_URL}/keys`, outputClaimToHeaders: [{ header: "x-subject", claim: "sub" }], timeout: "2s" }]),
    },
    flags: ["--serve", "127.0.0.1:8080=shop/web.shop.svc.cluster.local:80", "--workers", "1"],
  });
}, 60_000);

afterAll(async () => {
  await waypoint[Symbol.asyncDispose]();
  await web[Symbol.asyncDispose]();
  await issuer.down().catch(() => {});
});

const fresh = async (key: TestKey, claims: object = {}): Promise<string> => {
  const nowS = Math.floor(Date.now() / 1000);
  return sign(key, { iat: nowS, exp: nowS + 600, jti: crypto.randomUUID(), ...claims });
};

async function ask(token: string | null): Promise<string> {
  const response = await fetch(URL_BASE, token === null ? {} : { headers: { authorization: `Bearer ${token}` } });
  const text = await response.text();
  return response.ok ? text : `${response.status} ${response.headers.get("x-weft-reason")}`;
}

describe("an issuer that is a service of the mesh", () => {
  test("is asked through it: its tokens become the caller", async () => {
    expect(await ask(await fresh(first))).toBe("GET as bob");
    expect(issuer.asked).toContain("/keys");
    expect(await ask(null)).toBe("GET as nobody");
    expect(await ask(`${await fresh(first)}x`)).toBe("401 token_signature");
  });

  test("is survived when it is down: with the keys it last gave, for tokens never seen before", async () => {
    await issuer.down();
    expect(await ask(await fresh(first, { sub: "dave" }))).toBe("GET as dave");
    const stranger = await testKey("k9");
    expect(await ask(await fresh(stranger))).toBe("401 token_key_unknown");
    await issuer.up();
  });

  test("may change its keys: a token of a new one is taken as soon as it may be asked again, one of a withdrawn one no more", async () => {
    const second = await testKey("k2");
    issuer.keys = [second];
    const token = await fresh(second);
    // At most every ten seconds a token with an unknown key makes the waypoint ask: anybody can write such a token.
    await until("the new key to be known", 20_000, async () => (await ask(token)) === "GET as bob");
    expect(await ask(await fresh(first))).toBe("401 token_key_unknown");
    issuer.keys = [first, second];
  }, 60_000);

  test("that never answered makes tokens 503 and not 401: the client has done nothing wrong; other requests go on", async () => {
    waypoint.write("jwt.yaml", authentication([{ issuer: "https://issuer.example", jwksUri: "http://broken.shop.svc.cluster.local:8000/keys", timeout: "1s" }]));
    const token = await fresh(first);
    await until("the new issuer to be in force", 3_000, async () => (await ask(token)) === "503 token_keys_unavailable");
    expect(await ask(null)).toBe("GET as nobody");
    const line = await until("the line that says why", 3_000, () => waypoint.lines.find(({ response_code_details }) => response_code_details === "token_keys_unavailable") ?? null);
    expect(JSON.stringify(line)).toContain("broken.shop.svc.cluster.local:8000/keys, through the mesh");
  });
});

describe("tokens that only their issuer can read", () => {
  beforeAll(async () => {
    waypoint.write("jwt.yaml", [
      object("v1", "Secret", "client", {}).replace('"spec":{}', `"type":"Opaque","stringData":{"secret":"s3cret"}`),
      object("weft.dev/v1alpha1", "TokenIntrospection", "opaque", {
        targetRefs, issuer: "https://opaque.example", url: `${ISSUER_URL}/introspect`, clientId: "waypoint", clientSecretRef: { name: "client", key: "secret" }, outputClaimToHeaders: [{ header: "x-subject", claim: "sub" }], timeout: "1s",
      }),
    ].join("\n---\n"));
    issuer.active.add("good");
    await until("introspection to be in force", 3_000, async () => (await ask("good")) === "GET as carol");
  });

  test("are asked about; one that is not active is refused", async () => {
    expect(await ask("bad")).toBe("401 token_inactive");
    expect(await ask("good")).toBe("GET as carol");
  });

  test("with the issuer down those that were just asked about go on, others are 503, until it is back", async () => {
    await issuer.down();
    expect(await ask("good")).toBe("GET as carol");
    issuer.active.add("other");
    expect(await ask("other")).toBe("503 token_keys_unavailable");
    await issuer.up();
    await until("the other token", 5_000, async () => (await ask("other")) === "GET as carol");
  });
});

describe("a login whose provider is down", () => {
  test("says so, and works when the provider is back", async () => {
    const secrets = object("v1", "Secret", "login", {}).replace('"spec":{}', `"type":"Opaque","stringData":{"secret":"s3cret","keys":"${"ab".repeat(32)}"}`);
    await issuer.down();
    waypoint.write("jwt.yaml", `${secrets}\n---\n${object("weft.dev/v1alpha1", "LoginPolicy", "login", { targetRefs, issuer: ISSUER_URL, clientId: "web", clientSecretRef: { name: "login", key: "secret" }, cookie: { keysRef: { name: "login", key: "keys" } } })}`);
    const page = async (): Promise<string> => {
      const response = await fetch(URL_BASE, { redirect: "manual", headers: { accept: "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" } });
      await response.text();
      return `${response.status} ${response.headers.get("x-weft-reason")} ${(response.headers.get("location") ?? "").split("?")[0]}`;
    };
    await until("the login to be in force", 5_000, async () => (await page()).startsWith("503 login_unavailable"));
    await issuer.up();
    await until("the way to the provider", 10_000, async () => (await page()) === `302 login_required ${ISSUER_URL}/authorize`);
    waypoint.remove("jwt.yaml");
    await until("the login to be gone", 3_000, async () => (await ask(null)) === "GET as nobody");
  }, 60_000);
});

describe("a policy that changes", () => {
  /** One connection; each answer's status. */
  class KeptConnection {
    readonly socket: Socket = connect(8080, "127.0.0.1");
    #received = "";

    constructor() {
      this.socket.on("data", (chunk) => (this.#received += chunk.toString("latin1")));
      this.socket.on("error", () => {});
    }

    async status(): Promise<number> {
      this.#received = "";
      this.socket.write("GET /kept HTTP/1.1\r\nHost: web\r\n\r\n");
      const answer = await until("an answer", 5_000, () => /^HTTP\/1\.1 (\d+)[^]*?\r\n\r\n[^]/.exec(this.#received));
      return Number(answer[1]);
    }
  }

  test("is in force within a second for requests on a connection that is open already", async () => {
    const kept = new KeptConnection();
    expect(await kept.status()).toBe(200);
    const deny = object("security.istio.io/v1", "AuthorizationPolicy", "kept", { targetRefs, action: "DENY", rules: [{ to: [{ operation: { paths: ["/kept"] } }] }] });
    for (const [change, wanted] of [[() => waypoint.write("deny.yaml", deny), 403], [() => waypoint.remove("deny.yaml"), 200]] as const) {
      change();
      await promised(`status ${wanted}`, CHANGE_MS_PROMISED, async () => (await kept.status()) === wanted);
    }
    expect(kept.socket.destroyed).toBe(false);
    kept.socket.destroy();
  });
});
