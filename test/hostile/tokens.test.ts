// The JWT list of docs/bad-input.md through a running waypoint: tokens that try to be taken for somebody's, and issuers whose keys are not
// what they should be. Nobody is let in, nobody is asked whom a token names, honest tokens go on, and each refusal has its reason.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout } from "bun:test";
import { createHmac, createPublicKey, createSign } from "node:crypto";
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { exportPKCS8 } from "jose";
import { KEY_SET_BYTES_MAX, KEYS_MAX, UNKNOWN_KEY_REFETCH_MS } from "../../src/identity/jwt/limits.ts";
import { item } from "../kit/bad-input.ts";
import { ISSUER, keySet, sign, testKey, type TestKey } from "../kit/issuer.ts";
import { until } from "../kit/until.ts";
import { type Backend, backend1 } from "../kit/waypoint.ts";
import { ownAddresses, serviceYaml, WAYPOINT_YAML, WaypointProcess } from "../kit/waypoint-process.ts";

setDefaultTimeout(60_000);

const [WEB, ISSUER_IP] = ["198.18.7.51", "198.18.7.52"];
const PORT = 8080;
const ISSUER_URL = "http://issuer.shop.svc.cluster.local:8000";
const ANSWERS = "weft_request_answers_total";
const WAIT_MS = 10_000;
/** Each issuer is put in force, asked, and given up. */
const ISSUERS_MS = 60_000;
const GROWTH_BYTES_MAX = 64 * 1024 * 1024;

let waypoint: WaypointProcess;
let web: Backend;
let issuer: Server;
let es: TestKey;
let rs: TestKey;
/** What the issuer's addresses answer, by path. */
const answers = new Map<string, (response: ServerResponse) => void>();
const asked: string[] = [];

const object = (apiVersion: string, kind: string, name: string, spec: object): string => JSON.stringify({ apiVersion, kind, metadata: { name, namespace: "shop" }, spec });
const rules = (path: string): string => object("security.istio.io/v1", "RequestAuthentication", "jwt", {
  targetRefs: [{ group: "", kind: "Service", name: "web" }],
  jwtRules: [{ issuer: ISSUER, audiences: ["web"], jwksUri: `${ISSUER_URL}${path}`, outputClaimToHeaders: [{ header: "x-subject", claim: "sub" }], timeout: "1s", fromHeaders: [{ name: "authorization", prefix: "Bearer " }, { name: "x-token" }] }],
});

beforeAll(async () => {
  ownAddresses([WEB, ISSUER_IP]);
  [es, rs] = [await testKey("es"), await testKey("rs", "RS256")];
  web = await backend1((request, response) => response.end(`as ${request.headers["x-subject"] ?? "nobody"}`), WEB);
  issuer = createServer((request, response) => {
    asked.push(request.url!);
    (answers.get(request.url!) ?? ((to) => to.writeHead(404).end()))(response);
  });
  await new Promise<void>((resolve) => issuer.listen(8000, ISSUER_IP, resolve));
  answers.set("/keys", (response) => response.end(keySet(es, rs)));
  waypoint = await WaypointProcess.start({
    yaml: { "services.yaml": [WAYPOINT_YAML, serviceYaml("web", WEB, web.port), serviceYaml("issuer", ISSUER_IP, (issuer.address() as AddressInfo).port, 8000)].join("\n---\n"), "jwt.yaml": rules("/keys") },
    flags: ["--serve", `127.0.0.1:${PORT}=shop/web.shop.svc.cluster.local:80`, "--workers", "1"],
  });
  expect(await ask(await good(es))).toBe("as bob");
}, 60_000);

afterAll(async () => {
  await waypoint?.[Symbol.asyncDispose]();
  await web?.[Symbol.asyncDispose]();
  issuer?.closeAllConnections();
  issuer?.close();
});

const nowS = (): number => Math.floor(Date.now() / 1000);
const times = (): object => ({ iat: nowS(), exp: nowS() + 600, aud: "web", jti: crypto.randomUUID() });
const good = (key: TestKey, claims: object = {}, header: Readonly<Record<string, unknown>> = {}): Promise<string> => sign(key, { ...times(), ...claims }, header);
const part = (value: unknown): string => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const claims = (more: object = {}): object => ({ iss: ISSUER, sub: "root", ...times(), ...more });

/** Header and payload as they are written here, signed by the key of the issuer. */
async function written(header: string, payload: string): Promise<string> {
  const text = `${part(header)}.${part(payload)}`;
  const signature = createSign("sha256").update(text).sign({ key: await exportPKCS8(es.privateKey), dsaEncoding: "ieee-p1363" });
  return `${text}.${signature.toString("base64url")}`;
}

async function ask(token: string, headers: Readonly<Record<string, string>> = {}): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${PORT}/`, { headers: { authorization: `Bearer ${token}`, ...headers } });
  const text = await response.text();
  return response.ok ? text : `${response.status} ${response.headers.get("x-weft-reason")}`;
}

/** Each token is refused with this reason, which is counted; nobody was asked anything, and honest tokens are taken. */
async function refused(tokens: readonly string[], reason: string | RegExp): Promise<void> {
  const [askedBefore, before, bytesBefore] = [asked.length, await waypoint.metric(ANSWERS), waypoint.residentBytes()];
  for (const token of tokens) {
    const verdict = await ask(token);
    if (typeof reason === "string" ? verdict !== `401 ${reason}` : !reason.test(verdict)) expect({ token: token.slice(0, 500), verdict }).toEqual({ token: token.slice(0, 500), verdict: String(reason) });
  }
  await until("the refusals to be counted", WAIT_MS, async () => (await waypoint.metric(ANSWERS)) - before >= tokens.length);
  // A key that is not known may be asked for, once in a while.
  expect(asked.slice(askedBefore).filter((path) => path !== "/keys")).toEqual([]);
  expect(waypoint.residentBytes() - bytesBefore).toBeLessThan(GROWTH_BYTES_MAX);
  expect(await ask(await good(es))).toBe("as bob");
}

describe("tokens", () => {
  item("signed by nobody: alg none in every spelling", () => refused(
    ["none", "None", "NONE", "nOnE", "", "null", " none"].flatMap((alg) => ["", "AAAA"].map((signature) => `${part({ alg, typ: "JWT" })}.${part(claims())}.${signature}`)), "token_algorithm"));

  item("signed with the public key as a secret", async () => {
    const { n = "", e = "" } = rs.jwk;
    const key = createPublicKey({ key: { kty: "RSA", n, e }, format: "jwk" });
    const secrets: (string | Buffer)[] = [key.export({ type: "spki", format: "pem" }), key.export({ type: "spki", format: "der" }), key.export({ type: "pkcs1", format: "pem" }), JSON.stringify(rs.jwk), Buffer.from(n, "base64url"), n, "", "rs"];
    await refused(["HS256", "HS384", "HS512"].flatMap((alg) => secrets.map((secret) => {
      const text = `${part({ alg, kid: "rs", typ: "JWT" })}.${part(claims())}`;
      return `${text}.${createHmac(`sha${alg.slice(2)}`, secret).update(text).digest("base64url")}`;
    })), "token_algorithm");
  });

  item("signed by one algorithm, said to be another's", async () => {
    const [header, payload, signature] = (await good(es)).split(".") as [string, string, string];
    await refused(["ES384", "ES512", "RS256", "PS256", "EdDSA"].map((alg) => `${part({ alg, kid: "es" })}.${payload}.${signature}`), "token_key_unknown");
    // Signatures that are nothing: of zeros, of the order, in the other encoding, cut, doubled.
    const der = createSign("sha256").update(`${header}.${payload}`).sign(await exportPKCS8(es.privateKey)).toString("base64url");
    const zeros = Buffer.alloc(64).toString("base64url");
    const order = Buffer.from("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", "hex");
    await refused([zeros, Buffer.concat([order, order]).toString("base64url"), der, signature.slice(0, 40), signature + signature, "AA"].map((wrong) => `${header}.${payload}.${wrong}`), "token_signature");
  });

  item("key names that are paths, queries and words of the language", async () => {
    const stranger = await testKey("stranger");
    const kids = ["../../../../dev/null", "/proc/self/environ", "' OR 1=1 --", "https://evil.example/key", "\u0000", "__proto__", "constructor", "toString", "x".repeat(5_000), "", "rs"];
    await refused(await Promise.all(kids.map((kid) => good({ ...stranger, kid }, { sub: "root" }))), /^401 token_(key_unknown|signature)$/);
    await refused([await good({ ...stranger, kid: "es" }, { sub: "root" })], "token_signature");
  });

  item("headers that bring or name a key of their own", async () => {
    const stranger = await testKey("es");
    const evil = `${ISSUER_URL}/evil`;
    const x5c = ["MIIB"];
    await refused([
      await good(stranger, { sub: "root" }, { jwk: stranger.jwk }), await good(stranger, { sub: "root" }, { jku: evil }), await good(stranger, { sub: "root" }, { x5u: evil }), await good(stranger, { sub: "root" }, { x5c }),
      await good(stranger, { sub: "root" }, { jwk: stranger.jwk, jku: evil, x5u: evil, x5c, x5t: "AAAA" }),
    ], "token_signature");
  });

  item("critical extensions, known and unknown, and a payload that is said to be no base64", async () => {
    const head = (more: object): string => JSON.stringify({ alg: "ES256", kid: "es", ...more });
    const payload = JSON.stringify(claims());
    await refused(await Promise.all([{ crit: ["exp"], exp: 1 }, { crit: ["b64"], b64: false }, { crit: ["http://x.example/y"], "http://x.example/y": true }, { crit: [] }, { crit: "b64" }, { crit: null }, { crit: [1] }].map((more) => written(head(more), payload))), "token_malformed");
  });

  item("members that are there twice", async () => {
    const times = JSON.stringify(claims()).slice(1, -1);
    // As RFC 7519 asks: the last one counts, for the signature, for policies and for the server alike.
    expect(await ask(await written('{"alg":"none","alg":"ES256","kid":"es"}', `{${times},"sub":"alice","sub":"bob"}`))).toBe("as bob");
    await refused([await written('{"alg":"ES256","alg":"none","kid":"es"}', `{${times}}`)], "token_algorithm");
    await refused([await written('{"alg":"ES256","kid":"es"}', `{${times},"exp":${nowS() + 60},"exp":1}`)], "token_expired");
    await refused([await written('{"alg":"ES256","kid":"es"}', `{${times},"aud":"web","aud":"else"}`)], "token_audience");
    await refused([await written('{"alg":"ES256","kid":"es"}', `{${times},"iss":"https://evil.example"}`)], "token_issuer");
  });

  item("times that are no numbers", async () => {
    const bad = ["\"9999999999\"", "null", "true", "[]", "{}", "\"\""];
    const with_ = (name: string, json: string): Promise<string> => written('{"alg":"ES256","kid":"es"}', `{${JSON.stringify(claims({ [name]: undefined })).slice(1, -1)},"${name}":${json}}`);
    for (const name of ["exp", "nbf", "iat"]) await refused(await Promise.all(bad.filter((json) => name !== "iat" || json !== "").map((json) => with_(name, json))), /^401 token_(malformed|expired|not_yet_valid)$/);
    await refused(await Promise.all(["0", "-1", "1.5", "-1e308"].map((json) => with_("exp", json))), "token_expired");
    await refused(await Promise.all(["9999999999", "1e300"].map((json) => with_("nbf", json))), "token_not_yet_valid");
    expect(await ask(await with_("exp", "1e300"))).toBe("as root");
  });

  item("audiences and issuers of other types", async () => {
    await refused(await Promise.all([{ aud: undefined }, { aud: null }, { aud: 1 }, { aud: {} }, { aud: [] }, { aud: ["Web", "web ", 1] }, { aud: "web,else" }, { aud: [["web"]] }].map((more) => written('{"alg":"ES256","kid":"es"}', JSON.stringify(claims(more))))), /^401 token_(audience|malformed)$/);
    await refused(await Promise.all([{ iss: undefined }, { iss: null }, { iss: [ISSUER] }, { iss: `${ISSUER}/` }, { iss: ISSUER.toUpperCase() }, { iss: { toString: ISSUER } }].map((more) => written('{"alg":"ES256","kid":"es"}', JSON.stringify(claims(more))))), "token_issuer");
  });

  item("huge, deep, and no tokens at all", async () => {
    expect(await ask(await good(es, { pad: "x".repeat(8_000) }))).toBe("as bob");
    await refused([await good(es, { pad: "x".repeat(15_000) })], "token_malformed");
    expect(await ask(await good(es, { pad: "x".repeat(100_000) }))).toBe("431 headers_too_large");
    await refused([`${part('{"alg":"ES256","kid":"es"}')}.${part(`{"iss":"${ISSUER}","a":${"[".repeat(8_000)}${"]".repeat(8_000)}}`)}.AAAA`, `${part(`{"alg":"ES256","kid":"es","a":${"{\"a\":".repeat(3_000)}1${"}".repeat(3_000)}}`)}.${part(claims())}.AAAA`], /^401 token_(malformed|signature)$/);
    const token = await good(es);
    await refused(["a.b.c", "..", `${token}.${token}`, token.replaceAll(".", ".."), `${token}=`, part(claims()), "null.null.null", `${part("null")}.${part("null")}.`, `${part("[]")}.${part(claims())}.AAAA`, "eyJhbGciOiJub25lIn0", token.replaceAll("-", "+").replaceAll("_", "/") === token ? `${token}+` : token.replaceAll("-", "+").replaceAll("_", "/")], /^401 token_(malformed|issuer|signature)$/);
    // In two places, and twice in one: which one counts would be a guess.
    expect(await ask(token, { "x-token": `${token.slice(0, -4)}AAAA` })).toMatch(/^401 token_/);
    expect(await ask(`${token}, Bearer ${token}`)).toMatch(/^401 token_(several|malformed)$/);
  });

  item("ten thousand tokens that each name another key", async () => {
    const stranger = await testKey("k0");
    const [, payload, signature] = (await good(stranger)).split(".");
    const [askedBefore, bytesBefore, startedMs] = [asked.length, waypoint.residentBytes(), performance.now()];
    for (let i = 0; i < 10_000; i += 100) {
      const verdicts = await Promise.all(Array.from({ length: 100 }, (_, n) => ask(`${part({ alg: "ES256", kid: `k${i + n}` })}.${payload}.${signature}`)));
      for (const verdict of verdicts) if (verdict !== "401 token_key_unknown") expect(verdict).toBe("401 token_key_unknown");
    }
    // By each of them, now and then: not by each token.
    expect(asked.length - askedBefore).toBeLessThanOrEqual(2 + Math.ceil((performance.now() - startedMs) / UNKNOWN_KEY_REFETCH_MS));
    expect(waypoint.residentBytes() - bytesBefore).toBeLessThan(GROWTH_BYTES_MAX);
    expect(await ask(await good(es))).toBe("as bob");
  });
});

describe("issuers", () => {
  let number = 0;
  /** A new issuer with these keys: its tokens are 503, whatever they are; the line says why, and requests without a token go on. */
  async function fails(what: string, answer: (response: ServerResponse) => void, why: RegExp): Promise<void> {
    const bytesBefore = waypoint.residentBytes();
    const path = `/bad/${number++}`;
    answers.set(path, answer);
    waypoint.write("jwt.yaml", rules(path));
    const token = await good(es);
    await until(`${what}: 503 and a line that says ${String(why)}`, WAIT_MS, async () => (await ask(token)) === "503 token_keys_unavailable" && waypoint.lines.slice(-20).some((line) => line["response_code_details"] === "token_keys_unavailable" && JSON.stringify(line).includes(path) && why.test(JSON.stringify(line)))).catch((error: unknown) => {
      throw new Error(`${String(error)}; the last one: ${JSON.stringify(waypoint.lines.at(-1))}`);
    });
    expect(await (await fetch(`http://127.0.0.1:${PORT}/`)).text()).toBe("as nobody");
    expect(waypoint.residentBytes() - bytesBefore).toBeLessThan(GROWTH_BYTES_MAX);
  }

  item("key sets that are huge, endless, or of too many keys", async () => {
    await fails("huge", (response) => response.end(" ".repeat(KEY_SET_BYTES_MAX + 1)), /longer than|bytes/);
    await fails("endless", (response) => {
      const timer = setInterval(() => response.write("x".repeat(1024 * 1024)), 5);
      response.on("close", () => clearInterval(timer));
    }, /longer than|bytes/);
    await fails("many", (response) => response.end(JSON.stringify({ keys: Array.from({ length: KEYS_MAX + 1 }, () => ({})) })), /at most 200/);
  }, ISSUERS_MS);

  item("key sets that come slowly, in part, or never", async () => {
    await fails("never", () => {}, /1000 ms/);
    await fails("by the byte", (response) => {
      const timer = setInterval(() => response.write(" "), 50);
      response.on("close", () => clearInterval(timer));
    }, /1000 ms/);
    await fails("in part", (response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write("{", () => response.destroy());
    }, /./);
  }, ISSUERS_MS);

  item("key sets that are none", async () => {
    for (const [what, body, why] of [["HTML", "<html>", /JSON/], ["nothing", "", /JSON/], ["a list", "[]", /keys/], ["null", "null", /keys/], ["keys that are no list", '{"keys":{}}', /keys/], ["deep", `{"keys":${"[".repeat(60_000)}`, /JSON/]] as const) await fails(what, (response) => response.end(body), why);
    await fails("status 500", (response) => response.writeHead(500).end(keySet(es)), /500/);
    await fails("status 204", (response) => response.writeHead(204).end(), /204|JSON/);
  }, ISSUERS_MS);

  item("redirects to addresses inside, in circles, and to nowhere", async () => {
    const seen = asked.length;
    const redirect = (location: string) => (response: ServerResponse): void => void response.writeHead(302, { location }).end();
    for (const location of ["http://169.254.169.254/latest/meta-data", "http://127.0.0.1:15000/config_dump", "http://[::1]:15000/", "http://10.0.0.1/keys", "http://localhost/keys", "http://2130706433/", "http://0x7f.1/"]) await fails(location, redirect(location), /private address/);
    for (const [location, why] of [["file:///etc/passwd", /no http/], ["javascript:1", /no http/], ["", /location|redirects more/], ["http://u:p@issuer.shop.svc.cluster.local:8000/keys", /no http/]] as const) await fails(location, redirect(location), why);
    const circle = `/bad/${number}`;
    await fails("in a circle", redirect(`${ISSUER_URL}${circle}`), /redirects more than 3 times/);
    expect(asked.slice(seen)).not.toContain("/keys");
  }, ISSUERS_MS);

  item("keys that are weak, oversized, private, or no keys, beside one that is good", async () => {
    const keys = [null, 1, {}, { kty: "oct", k: "AAAA", kid: "es" }, { kty: "EC", crv: "P-256", x: "!!", y: "!!", kid: "es" }, { kty: "RSA", n: part("x".repeat(20_000)), e: "AQAB", kid: "es" }, { kty: "RSA", n: "AQAB", e: "AQAB", kid: "es" }, { ...es.jwk, use: "enc" }, es.jwk];
    answers.set("/mixed", (response) => response.end(JSON.stringify({ keys })));
    waypoint.write("jwt.yaml", rules("/mixed"));
    await until("the good one to be taken", WAIT_MS, async () => (await ask(await good(es))) === "as bob" && asked.includes("/mixed"));
    const text = `${part({ alg: "HS256", kid: "es" })}.${part(claims())}`;
    expect(await ask(`${text}.${createHmac("sha256", Buffer.from("AAAA", "base64url")).update(text).digest("base64url")}`)).toBe("401 token_algorithm");
  }, ISSUERS_MS);
});
