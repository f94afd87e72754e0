import { expect, test } from "bun:test";
import { jwtRule, WEB } from "../../../test/kit/http-records.ts";
import { FakeClock, FakeNetwork, ISSUER, keySet, sign, testKey } from "../../../test/kit/issuer.ts";
import { loginPolicy } from "../../../test/kit/login-gate.ts";
import { provenance } from "../../../test/kit/mesh-records.ts";
import { namespacedName } from "../../core/brand.ts";
import { seededRandom } from "../../core/ports.ts";
import type { JwtRule } from "../../mesh/l7/access.ts";
import { EMPTY_L7_DELTA, type L7Delta } from "../../mesh/l7/delta.ts";
import { L7Store } from "../../mesh/l7/l7-store.ts";
import { bindRules } from "../../policy/http/tokens.ts";
import { IdentityChecks } from "./identity-checks.ts";

const KEYS = "https://issuer.example/keys";
const url: JwtRule["keys"] = { kind: "url", url: KEYS };

test("issuers are forgotten when the last rule that names them goes, and only then", async () => {
  const network = new FakeNetwork();
  const key = await testKey("a");
  network.answer(KEYS, keySet(key));
  const checks = new IdentityChecks({ fetch: network.fetch, clock: new FakeClock(), random: seededRandom(1) });
  const l7 = new L7Store();
  const apply = (delta: Partial<L7Delta>): void => {
    if (l7.apply({ ...EMPTY_L7_DELTA, ...delta }).accessChanged) checks.retain(l7);
  };
  const authentication = (name: string) => ({ name, namespace: "shop", targets: [{ kind: "service" as const, service: WEB }], rules: [jwtRule({ keys: url })], provenance: provenance("RequestAuthentication", "shop", name) });
  const [one, two] = [authentication("one"), authentication("two")];
  apply({ requestAuthentications: [one, two], loginPolicies: [loginPolicy({ name: "login" })] });
  const rules = bindRules([one]);
  const verdict = await checks.tokens.verify({ text: await sign(key), source: rules[0]!.rule.sources[0] ?? { kind: "header", name: "authorization", prefix: "Bearer " }, rules });
  expect(verdict).toMatchObject({ ok: true });
  const sources = (): string[] => checks.issuers().map(({ source }) => source);
  expect(sources()).toEqual([KEYS]);
  apply({ removedRequestAuthentications: [namespacedName("shop", "one")] });
  expect(sources()).toEqual([KEYS]);
  apply({ routes: [] });
  expect(network.count(KEYS)).toBe(1);
  apply({ removedRequestAuthentications: [namespacedName("shop", "two")] });
  expect(sources()).toEqual([]);
  checks.destroy();
});

test("the issuer of a login is kept as long as its policy is there", async () => {
  const network = new FakeNetwork();
  const checks = new IdentityChecks({ fetch: network.fetch, clock: new FakeClock(), random: seededRandom(1) });
  const l7 = new L7Store();
  const rule = jwtRule({ issuer: ISSUER, keys: { kind: "discovery" } });
  const policy = loginPolicy({ name: "login", namespace: "shop", issuer: ISSUER });
  const asked = { text: await sign(await testKey("a")), source: { kind: "header" as const, name: "authorization", prefix: "Bearer " }, rules: [{ rule, provenance: provenance("RequestAuthentication", "shop", "r") }] };
  expect(await checks.tokens.verify(asked)).toMatchObject({ ok: false, code: "token_keys_unavailable" });
  l7.apply({ ...EMPTY_L7_DELTA, loginPolicies: [policy] });
  checks.retain(l7);
  expect(checks.issuers().map(({ source }) => source)).toEqual([`discovery ${ISSUER}`]);
  l7.apply({ ...EMPTY_L7_DELTA, removedLoginPolicies: [namespacedName("shop", "login")] });
  checks.retain(l7);
  expect(checks.issuers()).toEqual([]);
  checks.destroy();
});
