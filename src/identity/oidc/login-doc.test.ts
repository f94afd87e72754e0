import { beforeAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Browser, CookieJar } from "../../../test/kit/browser.ts";
import { WEB } from "../../../test/kit/http-records.ts";
import { FakeClock, sign, testKey, type TestKey } from "../../../test/kit/issuer.ts";
import { LoginGate } from "../../../test/kit/login-gate.ts";
import { FakeProvider } from "../../../test/kit/openid-provider.ts";
import { namespacedName } from "../../core/brand.ts";
import { seededRandom } from "../../core/ports.ts";
import { EMPTY_L7_SNAPSHOT } from "../../mesh/l7/delta.ts";
import { type AccessSet, L7Store } from "../../mesh/l7/l7-store.ts";
import { REASON_HEADER } from "../../policy/http/reason-codes.ts";
import { diffL7 } from "../../resources/l7/l7-delta.ts";
import { describeDiagnostic, documents, entry, evaluate, namespace } from "../../resources/test-kit.ts";
import { IntrospectionCache } from "../jwt/introspection.ts";
import { JwksCache } from "../jwt/jwks-cache.ts";
import { TokenVerifier } from "../jwt/token-verifier.ts";
import { LoginService } from "./login-service.ts";

const examples = [...readFileSync(join(import.meta.dir, "../../../docs/login.md"), "utf8").matchAll(/```yaml\n([\s\S]*?)```/g)].map((match) => match[1]!);
const APP = "https://shop.example";
let key: TestKey;
let access: AccessSet;
beforeAll(async () => {
  key = await testKey("a");
  const evaluation = evaluate(documents(namespace("shop"), entry("web", { labels: "{app: web}" }), ...examples));
  expect(evaluation.diagnostics.map(describeDiagnostic)).toEqual([]);
  const store = new L7Store();
  store.apply(diffL7(EMPTY_L7_SNAPSHOT, evaluation.l7));
  access = store.access(WEB, namespacedName("shop", "waypoint"));
});

interface Opened {
  readonly status: number;
  readonly code: string | null;
  readonly headers: Readonly<Record<string, string>>;
}

/** Logs in with these groups, and opens pages. */
async function visitor(groups: readonly string[] | undefined): Promise<{ readonly open: (path: string, headers?: Readonly<Record<string, string>>) => Promise<Opened> }> {
  const clock = new FakeClock();
  const provider = new FakeProvider(key, clock);
  const { fetch } = provider;
  const verifier = new TokenVerifier({ keys: new JwksCache({ fetch, clock, random: seededRandom(1) }), introspection: new IntrospectionCache({ fetch, clock }), clock });
  const gate = new LoginGate({ service: new LoginService({ fetch, clock, verifier }), tokens: verifier, access });
  const browser = new Browser(gate.fetch, new CookieJar(() => clock.wallMs()));
  provider.claims = { groups };
  const sent = await browser.one(`${APP}/`);
  await browser.one(provider.authorise(sent.headers.get("location")!));
  return {
    open: async (path, headers = { accept: "text/html" }) => {
      const visit = await browser.one(APP + path, headers);
      return { status: visit.status, code: visit.headers.get(REASON_HEADER), headers: visit.status === 200 ? JSON.parse(visit.body).headers : {} };
    },
  };
}

describe("docs/login.md", () => {
  test("its examples are one service with a login, policies and headers", () => {
    expect([examples.length, access.logins.length, access.policies.length, access.authentications.length]).toEqual([3, 1, 2, 1]);
  });
  test.each<readonly [string, readonly string[] | undefined, number, number]>([
    ["staff", ["staff"], 200, 403], ["an admin", ["admins"], 200, 200], ["both", ["staff", "admins"], 200, 200], ["somebody else", ["guests"], 403, 403], ["somebody without groups", undefined, 403, 403], ["somebody with a group of a similar name", ["admins2"], 403, 403],
  ])("%s: what opens", async (_, groups, page, admin) => {
    const { open } = await visitor(groups);
    const statuses = await Promise.all(["/", "/cart", "/admin", "/admin/users"].map(async (path) => (await open(path)).status));
    expect(statuses).toEqual([page, page, admin, admin]);
  });
  test("the application learns who is there, and a browser cannot say it itself", async () => {
    const { open } = await visitor(["staff", "cooks"]);
    expect((await open("/", { accept: "text/html", "x-user": "root" })).headers).toMatchObject({ "x-user": "bob", "x-groups": "staff,cooks" });
  });
  test("a program with a token needs no session", async () => {
    const { open } = await visitor(["guests"]);
    const bearer = async (claims: Readonly<Record<string, unknown>>): Promise<Opened> => open("/", { authorization: `Bearer ${await sign(key, { aud: "shop", ...claims })}` });
    expect([(await bearer({ groups: ["staff"] })).status, (await bearer({})).code, (await bearer({ aud: "other" })).code]).toEqual([200, "access_not_allowed", "token_audience"]);
  });
  test("its codes are ours", () => {
    const doc = readFileSync(join(import.meta.dir, "../../../docs/login.md"), "utf8");
    const codes = readFileSync(join(import.meta.dir, "../../../docs/response-codes.md"), "utf8");
    for (const [, code] of doc.matchAll(/\b[45]\d\d `(\w+)`/g)) expect(codes).toContain(`| \`${code}\` |`);
  });
});
