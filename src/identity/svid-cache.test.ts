import { describe, expect, test } from "bun:test";
import { DAY_MS, HOUR_MS, NOON_MS, TEST_DOMAIN, testCa, WEB } from "../../test/kit/certificates.ts";
import { FakeTime } from "../../test/kit/fake-time.ts";
import { seededRandom } from "../core/ports.ts";
import { err, ok } from "../core/result.ts";
import { spiffeId, type SpiffeId } from "../core/spiffe.ts";
import type { CertificateSource, IssueRequest } from "./certificate-source.ts";
import { createRequest } from "./csr.ts";
import { FETCH_TIMEOUT_MS, SvidCache } from "./svid-cache.ts";
import { BACKOFF_FIRST_MS_MAX, REFUSALS_BELIEVED } from "./svid-plan.ts";
import type { Svid } from "./svid.ts";

const id = (n: number | string): SpiffeId => spiffeId(TEST_DOMAIN, "shop", `sa-${n}`);

describe("certificates of a node", () => {
  interface Shell {
    readonly cache: SvidCache;
    readonly time: FakeTime;
    readonly published: Svid[];
    readonly failures: string[];
    readonly saved: string[];
  }

  function shell(source: CertificateSource): Shell {
    const time = new FakeTime(NOON_MS);
    const published: Svid[] = [];
    const failures: string[] = [];
    const saved: string[] = [];
    const cache = new SvidCache({
      source, clock: time, timers: time, random: seededRandom(3), lifetimeMs: DAY_MS, createRequest,
      store: { save: (one) => void saved.push(one.serial), remove: (one) => void saved.push(`removed ${one}`) },
      onPublish: (one) => void published.push(one), onDrop: () => {}, onFailed: (_one, message) => void failures.push(message), onUnavailable: () => {}, onWarning: () => {},
    });
    return { cache, time, published, failures, saved };
  }

  const signer = (nowMs: () => number, tamper: (request: IssueRequest) => Partial<IssueRequest> = () => ({})): CertificateSource => {
    const ca = testCa({ nowMs: NOON_MS - DAY_MS });
    return {
      async issue(request) {
        const asked = { ...request, ...tamper(request) };
        const issued = ca.authority.sign({ csr: asked.csrPem, mayHave: () => true, caller: "test", lifetimeMs: asked.lifetimeMs }, nowMs());
        if (!issued.ok) throw new Error(issued.error.message);
        return ok(issued.value);
      },
    };
  };

  test("fetches, saves before it publishes, renews at half-life, and ends with no timer left", async () => {
    let time: FakeTime | null = null;
    const it = shell(signer(() => time!.wallMs()));
    time = it.time;
    it.cache.workloadAdded(WEB);
    await it.time.pass(0);
    expect(it.published).toHaveLength(1);
    expect(it.saved).toEqual([it.published[0]!.serial]);
    expect(it.cache.get(WEB)?.serial).toBe(it.published[0]!.serial);
    expect(it.cache.list()).toMatchObject([{ spiffeId: WEB, workloads: 1, work: "idle", failure: null, certificate: { serial: it.published[0]!.serial } }]);
    expect(JSON.stringify(it.cache.list())).not.toContain("PRIVATE KEY");
    await it.time.pass(0.56 * DAY_MS);
    expect(it.published).toHaveLength(2);
    expect(it.cache.counters).toMatchObject({ fetches: 2, fetchFailures: 0, renewals: 1 });
    it.cache.workloadRemoved(WEB);
    expect(it.saved.at(-1)).toBe(`removed ${WEB}`);
    it.cache.destroy();
    expect(it.time.pending).toBe(0);
  });

  const fault = (code: "refused" | "unavailable") => err({ code, message: code, blame: "peer" as const, dies: "nothing" as const, retry: { kind: "never" as const } });

  test("awaited: what workloads need and have not, until it comes or the CA has refused it for good; not what cannot be reached", async () => {
    let now = (): number => NOON_MS;
    const ca = signer(() => now());
    let says: "refused" | "unavailable" | "yes" = "refused";
    const it = shell({ issue: async (request) => (says === "yes" ? ca.issue(request) : fault(says)) });
    now = () => it.time.wallMs();
    it.cache.need(id("passer-by"), "realtime");
    it.cache.workloadAdded(WEB);
    await it.time.pass(1);
    // The first word may be that of a CA that has not heard of us yet.
    expect(it.cache.awaited).toEqual([WEB]);
    for (let failures = 1; failures < REFUSALS_BELIEVED; failures++) await it.time.pass(BACKOFF_FIRST_MS_MAX * 2 ** failures);
    expect(it.cache.awaited).toEqual([]);
    says = "unavailable";
    await it.time.pass(BACKOFF_FIRST_MS_MAX * 2 ** REFUSALS_BELIEVED);
    expect(it.cache.awaited).toEqual([WEB]);
    says = "yes";
    await it.time.pass(BACKOFF_FIRST_MS_MAX * 2 ** (REFUSALS_BELIEVED + 1));
    expect([it.published.length > 0, it.cache.awaited]).toEqual([true, []]);
    it.cache.destroy();
  });

  test("awaited: a refusal that comes after its workload has left is none of the next one's", async () => {
    const late = Promise.withResolvers<ReturnType<typeof fault>>();
    let asked = 0;
    const it = shell({ issue: () => (++asked === 1 ? late.promise : Promise.resolve(fault("unavailable"))) });
    it.cache.workloadAdded(WEB);
    it.cache.workloadRemoved(WEB);
    it.cache.workloadAdded(WEB);
    await it.time.pass(1);
    for (let failures = 1; failures < REFUSALS_BELIEVED; failures++) await it.time.pass(BACKOFF_FIRST_MS_MAX * 2 ** failures);
    late.resolve(fault("refused"));
    await it.time.pass(1);
    expect(asked).toBeGreaterThan(REFUSALS_BELIEVED);
    expect(it.cache.awaited).toEqual([WEB]);
    it.cache.destroy();
  });

  test("a source that never answers gives its slot back after the time limit, and is told to stop", async () => {
    const signals: AbortSignal[] = [];
    const it = shell({ issue: ({ signal }) => (signals.push(signal), new Promise(() => {})) });
    it.cache.need(WEB, "realtime");
    await it.time.pass(FETCH_TIMEOUT_MS);
    expect(it.failures[0]).toContain(`did not answer within ${FETCH_TIMEOUT_MS} ms`);
    expect(signals[0]?.aborted).toBe(true);
    it.cache.destroy();
  });

  test("a certificate for another key, another identity, or from another root is refused", async () => {
    const other = createRequest(WEB).csrPem;
    const stranger = createRequest(id("stranger")).csrPem;
    const foreign = testCa({ nowMs: NOON_MS - DAY_MS });
    const sources: readonly (readonly [CertificateSource, string])[] = [
      [signer(() => NOON_MS, () => ({ csrPem: other })), "another key"],
      [signer(() => NOON_MS, () => ({ csrPem: stranger })), "wanted exactly"],
      [{ issue: async (request) => {
        const issued = await signer(() => NOON_MS).issue(request);
        return issued.ok ? ok({ ...issued.value, trustBundlePem: foreign.rootPem }) : issued;
      } }, "ends at no root"],
      [{ issue: async () => err({ code: "refused" as const, message: "no", blame: "peer" as const, dies: "nothing" as const, retry: { kind: "never" as const } }) }, "no"],
      [{ issue: async () => { throw new Error("broken source"); } }, "broken source"],
      [signer(() => NOON_MS + 2 * HOUR_MS), "is valid only from"],
    ];
    for (const [source, message] of sources) {
      const it = shell(source);
      it.cache.need(WEB, "realtime");
      await it.time.pass(1);
      expect(it.published).toEqual([]);
      expect(it.failures[0]).toContain(message);
      it.cache.destroy();
    }
  });
});
