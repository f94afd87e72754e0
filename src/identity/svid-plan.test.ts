import { describe, expect, test } from "bun:test";
import { DAY_MS, HOUR_MS, NOON_MS, TEST_DOMAIN } from "../../test/kit/certificates.ts";
import { seededRandom } from "../core/ports.ts";
import { spiffeId, type SpiffeId } from "../core/spiffe.ts";
import { BACKOFF_MS_MAX, FETCHES_MAX, heldSvid, IDENTITIES_MAX, newSvidCacheState, nextAlarmMs, PATIENCE_MS, REFUSALS_BELIEVED, step, type SvidCacheState, type SvidEffect, type SvidEvent, TICK_MS, type Times, UNOWNED_IDLE_MS } from "./svid-plan.ts";
import type { Svid } from "./svid.ts";

const id = (n: number | string): SpiffeId => spiffeId(TEST_DOMAIN, "shop", `sa-${n}`);

function svid(spiffeId: SpiffeId, fromMs: number, lifetimeMs = DAY_MS): Svid {
  return { spiffeId, certificateChainPem: "", privateKeyPem: "", trustBundlePem: "", notBeforeMs: fromMs, notAfterMs: fromMs + lifetimeMs, serial: "01" };
}

/** The pure core with both clocks in hand. */
class Bench {
  readonly state: SvidCacheState = newSvidCacheState(seededRandom(7));
  readonly log: SvidEffect[] = [];
  monotonicMs = 1000;
  wallMs = NOON_MS;

  get now(): Times {
    return { monotonicMs: this.monotonicMs, wallMs: this.wallMs };
  }

  send(event: SvidEvent): SvidEffect[] {
    const effects = step(this.state, event, this.now);
    this.log.push(...effects);
    return effects;
  }

  pass(ms: number): SvidEffect[] {
    this.monotonicMs += ms;
    this.wallMs += ms;
    return this.send({ kind: "tick" });
  }

  /** Sends an event and returns the fetches it started. */
  fetches(event: SvidEvent): { fetchId: number; spiffeId: SpiffeId }[] {
    return this.send(event).filter((effect) => effect.kind === "fetch").map(({ fetchId, spiffeId }) => ({ fetchId, spiffeId }));
  }

  fetchOf(event: SvidEvent): { fetchId: number; spiffeId: SpiffeId } {
    const [fetch] = this.fetches(event);
    if (fetch === undefined) throw new Error(`no fetch after ${event.kind}`);
    return fetch;
  }

  nextFetch(passMs: number): { fetchId: number; spiffeId: SpiffeId } | undefined {
    const fetch = this.pass(passMs).find((effect) => effect.kind === "fetch");
    return fetch === undefined ? undefined : { fetchId: fetch.fetchId, spiffeId: fetch.spiffeId };
  }

  /** A workload appears and its certificate arrives. */
  hold(spiffeId: SpiffeId, lifetimeMs = DAY_MS): void {
    const fetch = this.fetchOf({ kind: "workloadAdded", spiffeId });
    this.send({ kind: "fetched", ...fetch, svid: svid(spiffeId, this.wallMs, lifetimeMs) });
  }
}

describe("fetching", () => {
  test("one request for an identity, however many ask", () => {
    const bench = new Bench();
    expect(bench.fetches({ kind: "workloadAdded", spiffeId: id(1) })).toHaveLength(1);
    for (let i = 0; i < 5; i++) expect(bench.fetches({ kind: "needed", spiffeId: id(1), priority: "realtime" })).toHaveLength(0);
    expect(bench.fetches({ kind: "workloadAdded", spiffeId: id(1) })).toHaveLength(0);
  });

  test("never more than eight at once; the next starts when one ends", () => {
    const bench = new Bench();
    let running = 0;
    const started: { fetchId: number; spiffeId: SpiffeId }[] = [];
    for (let i = 0; i < 30; i++) started.push(...bench.fetches({ kind: "workloadAdded", spiffeId: id(i) }));
    expect(started).toHaveLength(FETCHES_MAX);
    while (started.length > 0) {
      const fetch = started.shift()!;
      running++;
      started.push(...bench.fetches({ kind: "fetched", ...fetch, svid: svid(fetch.spiffeId, bench.wallMs) }));
      expect(started.length).toBeLessThanOrEqual(FETCHES_MAX);
    }
    expect(running).toBe(30);
    expect(bench.state.fetching).toBe(0);
  });

  test("a waiting connection overtakes a warm-up, and a warm-up a renewal; first come first served inside one priority", () => {
    const bench = new Bench();
    const held = [id("old-1"), id("old-2")];
    for (const one of held) bench.hold(one);
    const blockers = Array.from({ length: FETCHES_MAX }, (_, i) => bench.fetchOf({ kind: "workloadAdded", spiffeId: id(`blocker-${i}`) }));
    for (const one of held) bench.send({ kind: "renew", spiffeId: one });
    bench.send({ kind: "workloadAdded", spiffeId: id("warm-1") });
    bench.send({ kind: "workloadAdded", spiffeId: id("warm-2") });
    bench.send({ kind: "workloadAdded", spiffeId: id("raised") });
    bench.send({ kind: "needed", spiffeId: id("raised"), priority: "realtime" });
    bench.send({ kind: "needed", spiffeId: id("now"), priority: "realtime" });
    const order = blockers.flatMap((fetch) => bench.fetches({ kind: "fetched", ...fetch, svid: svid(fetch.spiffeId, bench.wallMs) })).map((fetch) => fetch.spiffeId);
    expect(order).toEqual([id("raised"), id("now"), id("warm-1"), id("warm-2"), id("old-1"), id("old-2")]);
  });

  test("who asks for what is held gets it at once, without a fetch", () => {
    const bench = new Bench();
    bench.hold(id(1));
    expect(bench.send({ kind: "needed", spiffeId: id(1), priority: "realtime" })).toMatchObject([{ kind: "publish", svid: { spiffeId: id(1) } }]);
  });

  test("an answer to a cancelled fetch, or for an identity's previous life, is not used", () => {
    const bench = new Bench();
    const first = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    expect(bench.send({ kind: "workloadRemoved", spiffeId: id(1) })).toMatchObject([{ kind: "cancelFetch", fetchId: first.fetchId }, { kind: "drop", forget: true }]);
    expect(bench.send({ kind: "fetched", ...first, svid: svid(id(1), bench.wallMs) })).toEqual([]);
    const second = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    expect(bench.send({ kind: "fetchFailed", ...first, message: "late" })).toEqual([]);
    expect(bench.send({ kind: "fetched", ...second, svid: svid(id(1), bench.wallMs) })).toMatchObject([{ kind: "publish" }]);
    expect(bench.state.fetching).toBe(0);
  });

  test("the number of identities is bounded, and who goes beyond hears of it", () => {
    const bench = new Bench();
    bench.send({ kind: "workloadAdded", spiffeId: id(0) });
    const entry = bench.state.entries.get(id(0))!;
    for (let i = 1; i < IDENTITIES_MAX; i++) bench.state.entries.set(id(i), { ...entry, spiffeId: id(i), work: { kind: "idle" } });
    expect(bench.send({ kind: "needed", spiffeId: id("more"), priority: "realtime" })).toMatchObject([{ kind: "failed", spiffeId: id("more") }, { kind: "unavailable", spiffeId: id("more") }]);
  });
});

describe("renewal and failure", () => {
  test("renews around half-life, each certificate at its own moment", () => {
    const moments = new Set<number>();
    const bench = new Bench();
    for (let i = 0; i < 6; i++) bench.hold(id(i));
    for (let minutes = 0; minutes < 24 * 60; minutes++) {
      for (const effect of bench.pass(60_000)) {
        if (effect.kind !== "fetch") continue;
        const age = bench.wallMs - NOON_MS;
        expect(age).toBeGreaterThanOrEqual(0.45 * DAY_MS);
        expect(age).toBeLessThanOrEqual(0.55 * DAY_MS + 60_000);
        moments.add(age);
      }
      if (moments.size === 6) break;
    }
    expect(moments.size).toBeGreaterThanOrEqual(5);
  });

  test("the old certificate stays in use while renewal fails, to its last second", () => {
    const bench = new Bench();
    bench.hold(id(1), HOUR_MS);
    let fetches = 0;
    while (bench.wallMs < NOON_MS + HOUR_MS) {
      expect(heldSvid(bench.state, id(1), bench.now)).not.toBeNull();
      for (const effect of bench.pass(1000)) {
        if (effect.kind === "fetch") {
          fetches++;
          bench.send({ kind: "fetchFailed", fetchId: effect.fetchId, spiffeId: id(1), message: "CA down" });
        }
        expect(effect.kind).not.toBe("drop");
      }
    }
    expect(fetches).toBeGreaterThan(10);
    expect(bench.pass(1000)).toContainEqual({ kind: "drop", spiffeId: id(1), forget: false });
    expect(heldSvid(bench.state, id(1), bench.now)).toBeNull();
  });

  test("back-off starts within 0.5 to 1 s, doubles, and stays below 150 s", () => {
    const bench = new Bench();
    let fetch = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    const delays: number[] = [];
    for (let i = 0; i < 14; i++) {
      bench.send({ kind: "fetchFailed", ...fetch, message: "CA down" });
      const failedAtMs = bench.monotonicMs;
      let again: { fetchId: number; spiffeId: SpiffeId } | undefined;
      while (again === undefined) again = bench.nextFetch(10);
      delays.push(bench.monotonicMs - failedAtMs);
      fetch = again;
    }
    for (const [i, delay] of delays.entries()) {
      expect(delay).toBeGreaterThanOrEqual(Math.min(BACKOFF_MS_MAX, 500 * 2 ** i));
      expect(delay).toBeLessThanOrEqual(Math.min(BACKOFF_MS_MAX, 1000 * 2 ** i) + 10);
    }
  });

  test("a success resets the back-off", () => {
    const bench = new Bench();
    let fetch = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    for (let i = 0; i < 6; i++) {
      bench.send({ kind: "fetchFailed", ...fetch, message: "x" });
      fetch = bench.nextFetch(BACKOFF_MS_MAX)!;
    }
    bench.send({ kind: "fetched", ...fetch, svid: svid(id(1), bench.wallMs) });
    fetch = bench.fetchOf({ kind: "renew", spiffeId: id(1) });
    bench.send({ kind: "fetchFailed", ...fetch, message: "x" });
    expect(bench.pass(1000).some((effect) => effect.kind === "fetch")).toBe(true);
  });

  test("near the end of a certificate the next try comes before the end, however long the back-off would be", () => {
    const bench = new Bench();
    bench.hold(id(1), HOUR_MS);
    bench.pass(HOUR_MS - 60_000);
    let { fetchId } = [...bench.log].reverse().find((effect) => effect.kind === "fetch")!;
    for (let i = 0; i < 8 && bench.wallMs < NOON_MS + HOUR_MS - 4000; i++) {
      bench.send({ kind: "fetchFailed", fetchId, spiffeId: id(1), message: "x" });
      let again: { fetchId: number } | undefined;
      while (again === undefined) again = bench.nextFetch(100);
      ({ fetchId } = again);
      expect(bench.wallMs).toBeLessThan(NOON_MS + HOUR_MS);
    }
  });

  test("connections wait while a CA is away for a moment; when it stays away, they and who comes later are told", () => {
    const bench = new Bench();
    let fetch: { readonly fetchId: number; readonly spiffeId: SpiffeId } = bench.fetchOf({ kind: "needed", spiffeId: id(1), priority: "realtime" });
    const beganMs = bench.monotonicMs;
    const failure = { spiffeId: id(1), message: "connection refused" };
    for (;;) {
      const effects = bench.send({ kind: "fetchFailed", ...fetch, message: failure.message });
      const away = bench.monotonicMs - beganMs >= PATIENCE_MS;
      expect(effects).toEqual(away ? [{ kind: "failed", ...failure }, { kind: "unavailable", ...failure }] : [{ kind: "failed", ...failure }]);
      expect(bench.send({ kind: "needed", spiffeId: id(1), priority: "realtime" })).toEqual(away ? [{ kind: "unavailable", ...failure }] : []);
      if (away) break;
      let again: { readonly fetchId: number } | undefined;
      while (again === undefined) again = bench.nextFetch(100);
      fetch = { fetchId: again.fetchId, spiffeId: id(1) };
    }
    expect(bench.monotonicMs - beganMs).toBeLessThan(2 * PATIENCE_MS);
  });

  test("a refusal that is repeated is believed without that patience", () => {
    const bench = new Bench();
    let fetch: { readonly fetchId: number; readonly spiffeId: SpiffeId } = bench.fetchOf({ kind: "needed", spiffeId: id(1), priority: "realtime" });
    for (let refusals = 1; refusals <= REFUSALS_BELIEVED; refusals++) {
      const kinds = bench.send({ kind: "fetchFailed", ...fetch, message: "who are you", refused: true }).map(({ kind }) => kind);
      expect(kinds).toEqual(refusals === REFUSALS_BELIEVED ? ["failed", "unavailable"] : ["failed"]);
      let again: { readonly fetchId: number } | undefined;
      while (again === undefined) again = bench.nextFetch(100);
      fetch = { fetchId: again.fetchId, spiffeId: id(1) };
    }
  });

  test("a certificate that is past its half-life when it comes is not renewed in a loop", () => {
    const bench = new Bench();
    const fetch = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    bench.send({ kind: "fetched", ...fetch, svid: svid(id(1), bench.wallMs - 20 * HOUR_MS) });
    expect(bench.pass(30_000).some((effect) => effect.kind === "fetch")).toBe(false);
    expect(bench.pass(31_000).some((effect) => effect.kind === "fetch")).toBe(true);
  });

  test("a certificate that has expired when it comes is a failure", () => {
    const bench = new Bench();
    const fetch = bench.fetchOf({ kind: "workloadAdded", spiffeId: id(1) });
    expect(bench.send({ kind: "fetched", ...fetch, svid: svid(id(1), bench.wallMs - 2 * DAY_MS) })).toMatchObject([{ kind: "failed" }]);
    expect(heldSvid(bench.state, id(1), bench.now)).toBeNull();
  });
});

describe("workloads come and go", () => {
  test("dropped with the last workload of the identity, not before", () => {
    const bench = new Bench();
    bench.hold(id(1));
    bench.send({ kind: "workloadAdded", spiffeId: id(1) });
    expect(bench.send({ kind: "workloadRemoved", spiffeId: id(1) })).toEqual([]);
    expect(bench.send({ kind: "workloadRemoved", spiffeId: id(1) })).toEqual([{ kind: "drop", spiffeId: id(1), forget: true }]);
    expect(bench.state.entries.size).toBe(0);
    expect(bench.send({ kind: "workloadRemoved", spiffeId: id(1) })).toEqual([]);
  });

  test("an identity that only connections asked for, or that only the disk knew, is forgotten after a while", () => {
    const bench = new Bench();
    bench.send({ kind: "restored", svid: svid(id(1), bench.wallMs) });
    bench.send({ kind: "needed", spiffeId: id(2), priority: "realtime" });
    bench.pass(UNOWNED_IDLE_MS - 1000);
    expect(bench.state.entries.size).toBe(2);
    bench.pass(1000);
    expect(bench.state.entries.size).toBe(0);
    expect(bench.state.fetching).toBe(0);
  });

  test("a restored certificate serves at once and is not fetched again before half-life", () => {
    const bench = new Bench();
    expect(bench.send({ kind: "restored", svid: svid(id(1), bench.wallMs - HOUR_MS) })).toMatchObject([{ kind: "publish" }]);
    expect(bench.fetches({ kind: "workloadAdded", spiffeId: id(1) })).toEqual([]);
  });

  test("an expired one from disk is ignored", () => {
    const bench = new Bench();
    expect(bench.send({ kind: "restored", svid: svid(id(1), bench.wallMs - 2 * DAY_MS) })).toEqual([]);
  });
});

describe("the wall clock jumps", () => {
  test("a day ahead and back again: the certificate is withdrawn, and served again", () => {
    const bench = new Bench();
    bench.hold(id(1));
    bench.wallMs += DAY_MS + HOUR_MS;
    const ahead = bench.send({ kind: "tick" });
    expect(ahead).toContainEqual({ kind: "drop", spiffeId: id(1), forget: false });
    const fetch = ahead.find((effect) => effect.kind === "fetch")!;
    bench.send({ kind: "fetchFailed", fetchId: fetch.fetchId, spiffeId: id(1), message: "CA down" });
    bench.wallMs -= DAY_MS + HOUR_MS;
    expect(bench.send({ kind: "tick" })).toMatchObject([{ kind: "publish", svid: { spiffeId: id(1) } }]);
  });

  test("a day back: the certificate is kept and nothing is fetched", () => {
    const bench = new Bench();
    bench.hold(id(1));
    bench.wallMs -= DAY_MS;
    expect(bench.pass(TICK_MS)).toEqual([]);
    expect(heldSvid(bench.state, id(1), bench.now)).not.toBeNull();
  });

  test("is noticed within one tick, and the alarm never fires in a loop", () => {
    const bench = new Bench();
    for (let i = 0; i < 12; i++) bench.hold(id(i));
    for (const jump of [DAY_MS, -DAY_MS, 13 * HOUR_MS, -20 * DAY_MS, 40 * DAY_MS]) {
      bench.wallMs += jump;
      let alarms = 0;
      const untilMs = bench.monotonicMs + 60_000;
      while (bench.monotonicMs < untilMs) {
        const atMs = nextAlarmMs(bench.state, bench.now)!;
        expect(atMs).toBeLessThanOrEqual(bench.monotonicMs + TICK_MS);
        const stepMs = Math.max(1, atMs - bench.monotonicMs);
        for (const effect of bench.pass(stepMs)) {
          if (effect.kind === "fetch") bench.send({ kind: "fetched", fetchId: effect.fetchId, spiffeId: effect.spiffeId, svid: svid(effect.spiffeId, bench.wallMs) });
        }
        alarms++;
      }
      expect(alarms).toBeLessThan(60);
    }
  });
});
