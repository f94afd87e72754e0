import { beforeAll, describe, expect, test } from "bun:test";
import { FakeClock, FakeNetwork, ISSUER, keySet, testKey } from "../../../test/kit/issuer.ts";
import { seededRandom } from "../../core/ports.ts";
import { JwksCache, type KeyedRule } from "./jwks-cache.ts";

const KEYS = "https://issuer.example/keys";
const DISCOVERY = `${ISSUER}/.well-known/openid-configuration`;
const byUrl: KeyedRule = { issuer: ISSUER, fetchTimeoutMs: 500, keys: { kind: "url", url: KEYS } };
const discovered: KeyedRule = { issuer: ISSUER, fetchTimeoutMs: 500, keys: { kind: "discovery" } };
let good: string;
beforeAll(async () => {
  good = keySet(await testKey("a"));
});

function world() {
  const clock = new FakeClock();
  const network = new FakeNetwork();
  return { clock, network, cache: new JwksCache({ fetch: network.fetch, clock, random: seededRandom(1) }) };
}
const outcome = async (cache: JwksCache, rule = byUrl): Promise<number | string> => {
  const keys = await cache.keysFor(rule);
  return keys.ok ? keys.value.size : keys.error;
};

describe("fetching", () => {
  test("once however many ask, and not again while it is fresh", async () => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good);
    expect(await Promise.all([outcome(cache), outcome(cache), outcome(cache)])).toEqual([1, 1, 1]);
    clock.ms += 15 * 60_000;
    expect(await outcome(cache)).toBe(1);
    expect(network.count(KEYS)).toBe(1);
    expect(network.asked[0]).toMatchObject({ method: "GET", timeoutMs: 500, bodyBytesMax: 256 * 1024, publicOnly: false });
  });
  test("before it is old, in the background: nobody waits", async () => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    clock.ms += 23 * 60_000;
    const held = network.hold(KEYS, good);
    expect(await outcome(cache)).toBe(1);
    expect(network.count(KEYS)).toBe(2);
    held.release();
    await cache.refreshDue();
  });
  test("refreshDue does so without a request", async () => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    await cache.refreshDue();
    expect(network.count(KEYS)).toBe(1);
    clock.ms += 23 * 60_000;
    await cache.refreshDue();
    expect(network.count(KEYS)).toBe(2);
  });
  test.each([["max-age=120", 133_000], ["public, max-age=1", 67_000], ["max-age=99999999", 67 * 60_000], ["no-store", 23 * 60_000]])("Cache-Control %s is kept within bounds", async (cacheControl, dueMs) => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good, { cacheControl });
    await outcome(cache);
    clock.ms += dueMs * 0.75;
    await cache.refreshDue();
    expect(network.count(KEYS)).toBe(1);
    clock.ms += dueMs * 0.25;
    await cache.refreshDue();
    expect(network.count(KEYS)).toBe(2);
  });
  test("issuers that no rule names any more are forgotten", async () => {
    const { network, cache } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    cache.retain([]);
    expect(cache.status()).toEqual([]);
  });
  test("what is known of each can be looked at", async () => {
    const { network, cache } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    await outcome(cache, discovered);
    expect(cache.status()).toEqual([
      { source: KEYS, keys: 1, fetchedAtMs: 1_700_000_000_000, failures: 0, fault: null }, { source: `discovery ${ISSUER}`, keys: null, fetchedAtMs: null, failures: 1, fault: `${DISCOVERY}: connection refused` },
    ]);
  });
});

describe("an issuer that is down", () => {
  test("is survived with the keys that it last gave, for a day", async () => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    network.down(KEYS);
    for (let hour = 0; hour < 23; hour++) {
      clock.ms += 3_600_000;
      await cache.refreshDue();
      expect(await outcome(cache)).toBe(1);
    }
    clock.ms += 2 * 3_600_000;
    await cache.refreshDue();
    expect(await outcome(cache)).toContain("connection refused");
  });
  test("is not asked by every request: failures are remembered, for longer each time", async () => {
    const { network, cache, clock } = world();
    for (let i = 0; i < 100; i++) expect(await outcome(cache)).toBe(`${KEYS}: connection refused`);
    expect(network.count(KEYS)).toBe(1);
    clock.ms += 1_200;
    await outcome(cache);
    expect(network.count(KEYS)).toBe(2);
    clock.ms += 1_200;
    await outcome(cache);
    expect(network.count(KEYS)).toBe(2);
    for (let s = 0; s < 3600; s++) {
      clock.ms += 1_000;
      await outcome(cache);
    }
    expect(network.count(KEYS)).toBeLessThan(80);
    network.answer(KEYS, good);
    clock.ms += 70_000;
    await cache.refreshDue();
    expect(await outcome(cache)).toBe(1);
  });
  test.each([["status 500", good, { status: 500 }, "answered 500"], ["no JSON", "<html>", {}, "no JSON"], ["no list", "{}", {}, "no list named keys"], ["too many keys", JSON.stringify({ keys: Array.from({ length: 201 }, () => ({})) }), {}, "at most 200"]] as const)(
    "%s is a failure like any other", async (_, body, fields, why) => {
      const { network, cache, clock } = world();
      network.answer(KEYS, good);
      await outcome(cache);
      network.answer(KEYS, body, fields);
      clock.ms += 23 * 60_000;
      await cache.refreshDue();
      expect(await outcome(cache)).toBe(1);
      expect(cache.status()[0]!.fault).toContain(why);
    });
  test("an empty set is what the issuer says, and believed", async () => {
    const { network, cache, clock } = world();
    network.answer(KEYS, good);
    await outcome(cache);
    network.answer(KEYS, '{"keys":[]}');
    clock.ms += 23 * 60_000;
    await cache.refreshDue();
    expect(await outcome(cache)).toBe(0);
  });
});

describe("discovery", () => {
  const document = (fields: Readonly<Record<string, unknown>> = {}): string => JSON.stringify({ issuer: ISSUER, jwks_uri: KEYS, ...fields });
  test("finds the keys", async () => {
    const { network, cache } = world();
    network.answer(DISCOVERY, document());
    network.answer(KEYS, good);
    expect(await outcome(cache, discovered)).toBe(1);
  });
  test("an issuer with a path, and a slash at its end", async () => {
    const { network, cache } = world();
    network.answer("https://issuer.example/realm/.well-known/openid-configuration", document({ issuer: "https://issuer.example/realm/" }));
    network.answer(KEYS, good);
    expect(await outcome(cache, { ...discovered, issuer: "https://issuer.example/realm/" })).toBe(1);
  });
  test.each([
    ["that speaks for another", document({ issuer: "https://evil.example" }), 'speaks for the issuer "https://evil.example"'], ["without keys", JSON.stringify({ issuer: ISSUER }), "no jwks_uri"], ["that is no JSON", "x", "no JSON"], ["that is no object", "[]", "no JSON object"],
    ["that leads from https to http", document({ jwks_uri: "http://issuer.example/keys" }), "refused"], ["that leads to a file", document({ jwks_uri: "file:///etc/passwd" }), "refused"],
  ])("a document %s is refused", async (_, body, why) => {
    const { network, cache } = world();
    network.answer(DISCOVERY, body);
    expect(await outcome(cache, discovered)).toContain(why);
    expect(network.asked.length).toBe(1);
  });
});

describe("redirects", () => {
  const redirected = async (location: string | null, from = KEYS) => {
    const { network, cache } = world();
    network.answer(from, "", { status: 302, location });
    network.answer("https://cdn.example/keys", good);
    network.answer("https://issuer.example/other", good);
    return { outcome: await outcome(cache, { ...byUrl, keys: { kind: "url", url: from } }), network };
  };
  test("to another public host: with the address checked after its name is resolved", async () => {
    const { outcome: got, network } = await redirected("https://cdn.example/keys");
    expect([got, network.asked.map(({ publicOnly }) => publicOnly)]).toEqual([1, [false, true]]);
  });
  test("to the same host", async () => {
    const { outcome: got, network } = await redirected("/other");
    expect([got, network.asked.map(({ publicOnly }) => publicOnly)]).toEqual([1, [false, false]]);
  });
  test.each([
    "https://127.0.0.1/", "https://10.1.2.3/", "https://172.16.0.1/", "https://192.168.0.1/", "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://[::1]/", "https://[fe80::1]/", "https://[fd00:ec2::254]/", "https://[::ffff:10.0.0.1]/",
    "https://0.0.0.0/", "https://2130706433/", "https://0x7f.1/", "https://0177.0.0.1/", "https://localhost/", "https://a.localhost/", "http://cdn.example/keys", "file:///etc/passwd", "ftp://cdn.example/", "https://user:pass@cdn.example/", "//127.0.0.1/", "https://",
  ])("to %s is refused without asking there", async (location) => {
    const { outcome: got, network } = await redirected(location);
    expect([typeof got, network.asked.length]).toEqual(["string", 1]);
  });
  test("without a location", async () => expect((await redirected(null)).outcome).toContain("location null"));
  test("in a circle they end", async () => {
    const { outcome: got, network } = await redirected(KEYS);
    expect([got, network.asked.length]).toEqual([`${KEYS} redirects more than 3 times`, 4]);
  });
  test("an address that the operator wrote may be private", async () => {
    const { network, cache } = world();
    network.answer("http://10.0.0.5:8080/keys", good);
    expect(await outcome(cache, { ...byUrl, keys: { kind: "url", url: "http://10.0.0.5:8080/keys" } })).toBe(1);
  });
});

test("destroyed, it lets go of what is under way", async () => {
  const { network, cache } = world();
  network.answer(KEYS, good);
  await outcome(cache);
  cache.destroy();
  expect([network.asked[0]!.signal.aborted, cache.status()]).toEqual([true, []]);
});
