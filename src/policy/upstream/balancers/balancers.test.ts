import { describe, expect, test } from "bun:test";
import { endpoint, endpoints, requestFacts, UpstreamFixture } from "../../../../test/kit/upstreams.ts";
import { seededRandom } from "../../../core/ports.ts";
import type { Balancing } from "../../../mesh/l7/traffic-policy.ts";
import { LATENCY_DECAY_MS, PENALTY_MS, SLOW_START_SHARE_MIN, ZONE_PREFERENCE_FACTOR } from "../defaults.ts";
import { Attempt } from "../attempt.ts";
import { hashText } from "./hash.ts";
import { hashOfRequest } from "./hash-key.ts";

const fixture = (count: number, balancing: Balancing, more: { readonly slowStartMs?: number; readonly weights?: readonly number[]; readonly seed?: number } = {}): UpstreamFixture =>
  new UpstreamFixture(endpoints(count, (i) => ({ capacity: more.weights?.[i] ?? 1 })), { settings: { balancing, slowStartMs: more.slowStartMs ?? 0 }, seed: more.seed ?? 7 });

/** Largest difference of a share from what it should be, in standard deviations of a fair draw. */
function deviation(counts: Readonly<Record<string, number>>, weights: readonly number[]): number {
  const draws = Object.values(counts).reduce((sum, n) => sum + n, 0);
  const total = weights.reduce((sum, w) => sum + w, 0);
  return Math.max(...weights.map((weight, i) => {
    const p = weight / total;
    return Math.abs((counts[`e${i}`] ?? 0) - draws * p) / Math.sqrt(draws * p * (1 - p));
  }));
}

describe("random", () => {
  test("gives each its share by weight", () => {
    expect(deviation(fixture(5, { kind: "random" }).tally(50_000), [1, 1, 1, 1, 1])).toBeLessThan(4);
    const weights = [1, 2, 3, 10, 100];
    expect(deviation(fixture(5, { kind: "random" }, { weights }).tally(50_000), weights)).toBeLessThan(4);
  });

  test("never takes one that was tried while there is another", () => {
    const f = fixture(4, { kind: "random" }, { weights: [1000, 1, 1, 1] });
    expect(Object.keys(f.tally(500, () => ({ tried: [f.of("e0"), f.of("e2")] }))).sort()).toEqual(["e1", "e3"]);
    expect(f.pick({ tried: f.upstream.endpoints }).reason).toBe("triedBefore");
  });
});

describe("round robin", () => {
  test("goes round: equal endpoints differ by one at most, at any time", () => {
    const f = fixture(7, { kind: "roundRobin" });
    const counts = new Map<string, number>();
    for (let i = 0; i < 7 * 50; i++) {
      const name = f.name();
      counts.set(name, (counts.get(name) ?? 0) + 1);
      if (i >= 7) expect(Math.max(...counts.values()) - Math.min(...counts.values())).toBeLessThanOrEqual(1);
    }
  });

  test("is exact by weight, and smooth: the heavy one is not called in a row", () => {
    const f = fixture(3, { kind: "roundRobin" }, { weights: [5, 1, 1] });
    const names = Array.from({ length: 700 }, () => f.name());
    const count = (name: string): number => names.filter((n) => n === name).length;
    expect([count("e0"), count("e1"), count("e2")].map((n, i) => Math.abs(n - [500, 100, 100][i]!) <= 1)).toEqual([true, true, true]);
    for (let i = 0; i + 7 <= names.length; i++) expect(names.slice(i, i + 7).filter((n) => n === "e0").length).toBeLessThanOrEqual(6);
  });

  test("keeps its place when endpoints come and go", () => {
    const f = fixture(4, { kind: "roundRobin" });
    f.tally(1000);
    f.add(endpoint("new"));
    const counts = f.tally(500);
    expect(Object.values(counts).map((n) => Math.abs(n - 100) <= 1)).toEqual([true, true, true, true, true]);
    f.remove("e0", "e1");
    expect(Object.values(f.tally(300)).map((n) => Math.abs(n - 100) <= 1)).toEqual([true, true, true]);
  });

  test("who has not had a turn yet comes before those who had, also after a change", () => {
    for (let seed = 0; seed < 20; seed++) {
      const f = fixture(4, { kind: "roundRobin" }, { seed });
      const had = [f.name(), f.name()];
      f.add(endpoint("new"));
      const next = Array.from({ length: 5 }, () => f.name());
      const waiting = ["e0", "e1", "e2", "e3"].filter((name) => !had.includes(name));
      const lastOfWaiting = Math.max(...waiting.map((name) => next.indexOf(name)));
      const firstAgain = Math.min(...had.map((name) => (next.includes(name) ? next.indexOf(name) : Infinity)));
      expect(lastOfWaiting).toBeLessThan(firstAgain);
    }
  });

  test("of many waypoints does not begin with the same endpoint", () => {
    const firsts = new Set(Array.from({ length: 40 }, (_, seed) => fixture(8, { kind: "roundRobin" }, { seed }).name()));
    expect(firsts.size).toBeGreaterThan(4);
  });

  test("looks past what was tried", () => {
    const f = fixture(3, { kind: "roundRobin" });
    expect(f.tally(50, () => ({ tried: [f.of("e0"), f.of("e1")] }))).toEqual({ e2: 50 });
  });
});

describe("least request", () => {
  test("levels requests under way, by weight", () => {
    const f = fixture(2, { kind: "leastRequest" }, { weights: [3, 1] });
    for (let i = 0; i < 400; i++) new Attempt().start(f.upstream, f.pick(), 0);
    expect([f.of("e0").active, f.of("e1").active]).toEqual([300, 100]);
  });

  test("keeps a hundred far closer together than chance", () => {
    const spread = (kind: "leastRequest" | "random"): number => {
      const f = fixture(100, { kind });
      for (let i = 0; i < 10_000; i++) new Attempt().start(f.upstream, f.pick(), 0);
      const active = f.upstream.endpoints.map((e) => e.active);
      return Math.max(...active) - Math.min(...active);
    };
    expect(spread("leastRequest")).toBeLessThan(12);
    expect(spread("random")).toBeGreaterThan(30);
  });
});

describe("peak-EWMA", () => {
  const peak: Balancing = { kind: "peakEwma" };

  test("sends little to the slow one, and equal shares to equals", () => {
    const f = fixture(4, peak);
    for (let i = 0; i < 4; i++) f.request(`e${i}`, "success", i === 0 ? 50 : 5);
    const counts = f.tally(12_000);
    // e0 wins only against nobody: two choices never take it.
    expect(counts["e0"] ?? 0).toBe(0);
    expect(deviation({ e0: counts["e1"]!, e1: counts["e2"]!, e2: counts["e3"]! }, [1, 1, 1])).toBeLessThan(4);
  });

  test("comes back to one that was slow, since what was seen fades", () => {
    const f = fixture(2, peak);
    f.request("e0", "success", 40);
    for (let i = 0; i < 200; i++) f.request("e1", "success", 10);
    expect(f.tally(100)).toEqual({ e1: 100 });
    new Attempt().start(f.upstream, { endpoint: f.of("e1"), reason: "balanced" }, 0);
    f.of("e1").awaiting = 0;
    expect(f.name()).toBe("e1");
    f.nowMs = LATENCY_DECAY_MS * 5;
    expect(f.name()).toBe("e0");
  });

  test("a single pause raises the estimate fourfold at most; slowness that stays raises it all the way", () => {
    const f = fixture(2, peak);
    f.request("e0", "success", 2);
    f.request("e0", "success", 1000);
    expect(f.of("e0").latencyMs).toBe(8);
    for (let i = 0; i < 4; i++) f.request("e0", "success", 1000);
    expect(f.of("e0").latencyMs).toBe(1000);
  });

  test("knows one to be slow before it answers", () => {
    const f = fixture(2, peak);
    f.request("e0", "success", 5);
    f.request("e1", "success", 10);
    expect(f.tally(50)).toEqual({ e0: 50 });
    new Attempt().start(f.upstream, { endpoint: f.of("e0"), reason: "balanced" }, 0);
    new Attempt().start(f.upstream, { endpoint: f.of("e1"), reason: "balanced" }, 0);
    f.nowMs = 30;
    new Attempt().start(f.upstream, { endpoint: f.of("e1"), reason: "balanced" }, 30);
    f.of("e1").silentSinceMs = 30;
    // e0 owes an answer for 30 ms; e1 has one request more, but answers.
    expect(f.tally(50)).toEqual({ e1: 50 });
  });

  test("an endpoint that fails fast does not attract requests", () => {
    const f = fixture(3, peak);
    for (let round = 0; round < 20; round++) {
      f.request("e0", "gatewayError", 0.3);
      f.request("e1", "success", 20);
      f.request("e2", "success", 20);
      f.nowMs += 100;
    }
    expect(f.tally(1000)["e0"] ?? 0).toBe(0);
  });

  test("leaves one alone that asked for it with Retry-After, until the time is over", () => {
    const f = fixture(2, peak);
    for (const name of ["e0", "e1"]) f.request(name, "success", 5);
    f.request("e0", "overloaded", 5, 30_000);
    f.request("e1", "success", 5);
    for (let i = 0; i < 20; i++) new Attempt().start(f.upstream, f.pick(), f.nowMs);
    expect([f.of("e0").active, f.of("e1").active]).toEqual([0, 20]);
    expect(f.of("e0").avoidUntilMs).toBe(30_005);
    f.request("e1", "overloaded", 5);
    expect(f.of("e1").avoidUntilMs).toBe(5 + PENALTY_MS);
  });

  test("does not throw a herd at a newcomer", () => {
    const f = fixture(4, peak);
    f.serve(200, () => "success");
    f.add(endpoint("new"));
    for (let i = 0; i < 50; i++) new Attempt().start(f.upstream, f.pick(), f.nowMs);
    expect(f.of("new").active).toBeGreaterThan(5);
    expect(f.of("new").active).toBeLessThan(16);
  });

  test("prefers the client's zone, and spills over when it is busier by the factor", () => {
    const at = (zone: string) => ({ locality: { region: "r", zone, subzone: "" } });
    const f = new UpstreamFixture([endpoint("near", at("a")), endpoint("far1", at("b")), endpoint("far2", at("c"))], { source: endpoint("client", at("a")) });
    expect(f.tally(100)).toEqual({ near: 100 });
    for (let i = 0; i < 60; i++) new Attempt().start(f.upstream, f.pick(), 0);
    const [near, far] = [f.of("near").active, (f.of("far1").active + f.of("far2").active) / 2];
    expect(near / far).toBeGreaterThan(ZONE_PREFERENCE_FACTOR * 0.8);
    expect(near / far).toBeLessThan(ZONE_PREFERENCE_FACTOR * 1.3);
    expect(f.tally(50, () => ({ tried: [f.of("near")] }))["near"]).toBeUndefined();
    for (let i = 0; i < 3; i++) f.request("near", "connectFailure");
    expect(f.tally(50)["near"]).toBeUndefined();
  });
});

describe("slow start", () => {
  test.each(["random", "roundRobin", "leastRequest", "peakEwma"] as const)("%s: a new endpoint begins with a small share that grows to the whole", (kind) => {
    const f = fixture(4, { kind }, { slowStartMs: 60_000 });
    f.serve(400, () => "success");
    f.add(endpoint("new"));
    const share = (): number => {
      const attempts = Array.from({ length: 2000 }, () => {
        const attempt = new Attempt();
        attempt.start(f.upstream, f.pick(), f.nowMs);
        return attempt;
      });
      const active = f.of("new").active / 2000;
      for (const attempt of attempts) {
        attempt.settle("neutral", f.nowMs);
        attempt.end(f.nowMs);
      }
      return active * 5;
    };
    expect(share()).toBeLessThan(SLOW_START_SHARE_MIN * 2.5);
    f.nowMs = 30_000;
    const half = share();
    expect(half).toBeGreaterThan(0.4);
    expect(half).toBeLessThan(0.75);
    f.nowMs = 60_000;
    expect(share()).toBeGreaterThan(0.9);
  });
});

describe.each([
  ["ring hash", { kind: "ringHash", key: { kind: "sourceIp" }, ringSizeMin: 1024 }, 0.25],
  ["Maglev", { kind: "maglev", key: { kind: "sourceIp" }, tableSize: 65_537 }, 0.02],
] as const)("%s", (_, balancing, unevenness) => {
  const KEYS = 20_000;
  const hashes = Array.from({ length: KEYS }, (_, i) => hashText(`198.18.${i >> 8}.${i & 255}`));
  const owners = (f: UpstreamFixture): string[] => hashes.map((hash) => f.name({ hash }));
  const moved = (before: readonly string[], after: readonly string[]): number => before.filter((owner, i) => owner !== after[i]).length;

  test("gives a key the same endpoint always, on every waypoint, however the endpoints arrived", () => {
    const first = owners(fixture(10, balancing));
    expect(owners(new UpstreamFixture(endpoints(10).reverse(), { settings: { balancing }, seed: 99 }))).toEqual(first);
  });

  test("spreads keys evenly, and by weight", () => {
    const share = (f: UpstreamFixture): Record<string, number> => {
      const counts: Record<string, number> = {};
      for (const owner of owners(f)) counts[owner] = (counts[owner] ?? 0) + 1;
      return counts;
    };
    for (const count of Object.values(share(fixture(10, balancing)))) expect(Math.abs(count / (KEYS / 10) - 1)).toBeLessThan(unevenness + 0.06);
    const weighted = share(fixture(3, balancing, { weights: [1, 2, 5] }));
    expect(Math.abs(weighted["e0"]! / (KEYS / 8) - 1)).toBeLessThan(unevenness + 0.06);
    expect(Math.abs(weighted["e2"]! / ((KEYS * 5) / 8) - 1)).toBeLessThan(unevenness + 0.06);
  });

  test("moves only the keys of an endpoint that goes, and no more than its share to one that comes", () => {
    const f = fixture(20, balancing);
    const before = owners(f);
    f.remove("e7");
    f.upstream.maintain();
    const without = owners(f);
    const others = before.filter((owner, i) => owner !== "e7" && owner !== without[i]).length;
    // A ring moves nothing else; Maglev's table a little.
    expect(others).toBeLessThanOrEqual(balancing.kind === "ringHash" ? 0 : KEYS * 0.03);
    f.add(endpoint("e7"));
    f.upstream.maintain();
    expect(moved(before, owners(f))).toBe(0);
    f.add(endpoint("extra"));
    f.upstream.maintain();
    const after = owners(f);
    expect(moved(before, after)).toBeLessThan((KEYS / 21) * 1.6);
    if (balancing.kind === "ringHash") expect(before.filter((owner, i) => owner !== after[i] && after[i] !== "extra").length).toBe(0);
  });

  test("moves only the keys of an endpoint that is ejected, and brings them back", () => {
    const f = fixture(10, balancing);
    const before = owners(f);
    for (let i = 0; i < 3; i++) f.request("e3", "connectFailure");
    const during = owners(f);
    expect(during.includes("e3")).toBe(false);
    expect(before.filter((owner, i) => owner !== "e3" && owner !== during[i]).length).toBe(0);
    // Its keys go to many, not to one neighbour.
    expect(new Set(during.filter((_, i) => before[i] === "e3")).size).toBeGreaterThan(5);
    f.upstream.setHealth(f.of("e3"), "healthy", 0);
    for (const e of f.upstream.endpoints) f.upstream.setHealth(e, "healthy", 0);
    expect(owners(f)).toEqual(before);
  });

  test("a retry goes to another endpoint, the same one for the same key", () => {
    const f = fixture(10, balancing);
    const hash = hashText("a");
    const first = f.pick({ hash }).endpoint!;
    const second = f.name({ hash, tried: [first] });
    expect(second).not.toBe(first.target.workload.uid);
    expect(f.name({ hash, tried: [first] })).toBe(second);
  });

  test("builds tables apart from requests, and never sends to an endpoint that is gone meanwhile", () => {
    const f = fixture(10, balancing);
    expect(f.upstream.maintain()).toBe(true);
    expect(f.upstream.maintain()).toBe(false);
    f.remove("e1", "e2", "e3", "e4");
    const stale = owners(f);
    expect(stale.some((owner) => ["e1", "e2", "e3", "e4"].includes(owner))).toBe(false);
    expect(f.upstream.maintain()).toBe(true);
  });

  test("finds one when nearly all are out", () => {
    const f = new UpstreamFixture(endpoints(200), { settings: { balancing } });
    for (const e of f.upstream.endpoints) f.upstream.setHealth(e, e.target.workload.uid === "e42" ? "healthy" : "unhealthy", 0);
    expect(new Set(owners(f).slice(0, 200))).toEqual(new Set(["e42"]));
  });
});

test("a ring that grows moves keys to the newcomer and nowhere else, at any size", () => {
  const balancing: Balancing = { kind: "ringHash", key: { kind: "sourceIp" }, ringSizeMin: 1024 };
  const hashes = Array.from({ length: 3000 }, (_, i) => hashText(`k${i}`));
  const f = fixture(1, balancing);
  let before = hashes.map((hash) => f.name({ hash }));
  for (let i = 1; i < 40; i++) {
    f.add(endpoint(`n${i}`));
    f.upstream.maintain();
    const after = hashes.map((hash) => f.name({ hash }));
    expect(after.filter((owner, k) => owner !== before[k] && owner !== `n${i}`)).toEqual([]);
    before = after;
  }
});

describe("hash keys", () => {
  const random = seededRandom(3);
  test("are read from header, cookie, query and source", () => {
    const facts = requestFacts({ headers: { "x-user": "u" }, cookies: { c: "u" }, query: { q: "u" }, sourceIp: "u" });
    const hash = hashText("u");
    for (const key of [{ kind: "header", name: "x-user" }, { kind: "cookie", name: "c", path: "/", ttlMs: null }, { kind: "query", name: "q" }, { kind: "sourceIp" }] as const) {
      expect(hashOfRequest(key, facts, random)).toEqual({ kind: "found", hash });
    }
  });
  test("without the key the choice is random; a cookie with a lifetime is made and leads back", () => {
    const none = requestFacts({});
    expect(new Set(Array.from({ length: 20 }, () => hashOfRequest({ kind: "header", name: "x" }, none, random).hash)).size).toBe(20);
    expect(hashOfRequest({ kind: "cookie", name: "c", path: "/", ttlMs: null }, none, random).kind).toBe("absent");
    const made = hashOfRequest({ kind: "cookie", name: "c", path: "/p", ttlMs: 1000 }, none, random);
    if (made.kind !== "newCookie") throw new Error(`found ${made.kind}`);
    expect(made.cookie).toMatchObject({ name: "c", path: "/p", ttlMs: 1000 });
    expect(hashOfRequest({ kind: "cookie", name: "c", path: "/p", ttlMs: 1000 }, requestFacts({ cookies: { c: made.cookie.value } }), random)).toEqual({ kind: "found", hash: made.hash });
  });
});

describe("the hash", () => {
  // Published vectors of MurmurHash3 x86 32 bits; the bytes as little-endian UTF-16.
  test.each([
    ["", 0, 0], ["", 1, 0x514e28b7], ["", 0xffffffff, 0x81f16f39], ["\uffff\uffff", 0, 0x76293b50], ["\u4321\u8765", 0, 0xf55b516b], ["\u4321\u8765", 0x5082edee, 0x2362f9de],
    ["\u4321", 0, 0xa0f7b07a], ["\0\0", 0, 0x2362f9de], ["\0", 0, 0x30f4c306],
  ] as const)("of %j with seed %i is what it should be", (text, seed, hash) => expect(hashText(text, seed)).toBe(hash));
  test("fills 32 bits evenly", () => {
    const buckets = new Int32Array(256);
    for (let i = 0; i < 100_000; i++) buckets[hashText(`key-${i}`) >>> 24]!++;
    const expected = 100_000 / 256;
    const chi = buckets.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    expect(chi).toBeLessThan(340);
  });
  test("tells apart what differs little", () => {
    const texts = ["", "a", "b", "aa", "ab", "ba", "aaa", "\0", "\0\0", "ä", "€", "😀"];
    expect(new Set(texts.map((text) => hashText(text))).size).toBe(texts.length);
  });
});

test.each(["peakEwma", "leastRequest", "roundRobin", "random"] as const)("%s: the same seed and history give the same choices, however the endpoints arrived", (kind) => {
  const names = (reverse: boolean): string[] => {
    const workloads = endpoints(20, (i) => ({ capacity: (i % 3) + 1 }));
    const f = new UpstreamFixture(reverse ? workloads.reverse() : workloads, { settings: { balancing: { kind } } });
    return Array.from({ length: 300 }, () => f.name());
  };
  expect(names(true)).toEqual(names(false));
});
