// Who is taken for whom, when the API server answers, when it is away, and when clocks differ.

import { describe, expect, test } from "bun:test";
import { FakeTime } from "../../test/kit/fake-time.ts";
import { err, ok, type Result } from "../core/result.ts";
import { parseTrustDomain, spiffeId } from "../core/spiffe.ts";
import type { Api, ApiFault, ApiRequest } from "../runtime/kubernetes/api.ts";
import { Callers, CLOCK_SKEW_MS, REVIEW_KEPT_MS, UNASKED_KEPT_MS, UNASKED_PAUSE_MS } from "./callers.ts";

const NOW_MS = Date.UTC(2026, 10, 26);
const DAY_MS = 86_400_000;
const AUDIENCE = "istio-ca";

/** Judges tokens as an API server does that has one pod. */
class Reviewer implements Api {
  away = false;
  podIsThere = true;
  reviews = 0;

  async request({ body }: ApiRequest): Promise<Result<unknown, ApiFault>> {
    this.reviews++;
    if (this.away) return err({ code: "api_unreachable", status: 0, message: "no answer", blame: "peer", dies: "nothing", retry: { kind: "never" } });
    const { spec } = body as { readonly spec: { readonly token: string; readonly audiences: readonly string[] } };
    return ok({ status: this.podIsThere && spec.token.endsWith(".good") ? { authenticated: true, audiences: spec.audiences, user: { username: "system:serviceaccount:shop:web" } } : { authenticated: false } });
  }

  watch(): Promise<Result<void, ApiFault>> {
    return new Promise(() => {});
  }
}

const tokenUntil = (expMs: number, signature = "good", audience = AUDIENCE): string => ["e30", Buffer.from(JSON.stringify({ aud: [audience], exp: Math.floor(expMs / 1000) })).toString("base64url"), signature].join(".");

function callers(): { readonly api: Reviewer; readonly time: FakeTime; readonly asks: (token: string) => Promise<string> } {
  const api = new Reviewer();
  const time = new FakeTime(NOW_MS);
  const made = new Callers({ api, clock: time, audience: AUDIENCE, namespace: "istio-system", trustDomain: parseTrustDomain("cluster.local")!, nodeAccounts: [], pods: () => ({ podByUid: () => null, runsOn: () => false }) });
  const own = spiffeId(parseTrustDomain("cluster.local")!, "shop", "web");
  return { api, time, asks: async (token) => made.verify(token).then((caller) => (caller === null ? "nobody" : caller.mayHave(own) ? caller.name : "may not"), (cause: Error) => cause.message) };
}

describe("tokens", () => {
  test("the API server is asked once in a while, and not about what is none of ours", async () => {
    const { api, time, asks } = callers();
    const token = tokenUntil(NOW_MS + DAY_MS);
    expect([await asks(token), await asks(token)]).toEqual(["shop/web", "shop/web"]);
    expect([await asks(tokenUntil(NOW_MS + DAY_MS, "good", "vault")), await asks("no token"), await asks(tokenUntil(NOW_MS - DAY_MS))]).toEqual(["nobody", "nobody", "nobody"]);
    expect(api.reviews).toBe(1);
    await time.pass(REVIEW_KEPT_MS);
    api.podIsThere = false;
    expect(await asks(token)).toBe("nobody");
    expect(api.reviews).toBe(2);
  });

  test("while it is away: who was known is known for an hour, without asking each time; nobody else is, nor called bad", async () => {
    const { api, time, asks } = callers();
    const known = tokenUntil(NOW_MS + DAY_MS);
    await asks(known);
    await time.pass(REVIEW_KEPT_MS);
    api.away = true;
    expect([await asks(known), await asks(known), await asks(known)]).toEqual(["shop/web", "shop/web", "shop/web"]);
    expect(api.reviews).toBe(2);
    expect(await asks(tokenUntil(NOW_MS + DAY_MS + 1_000))).toBe("no answer");
    await time.pass(UNASKED_PAUSE_MS);
    expect(await asks(known)).toBe("shop/web");
    expect(api.reviews).toBe(4);
    await time.pass(UNASKED_KEPT_MS);
    expect(await asks(known)).toBe("no answer");
    // Back: its word counts at once.
    api.away = false;
    api.podIsThere = false;
    expect(await asks(known)).toBe("nobody");
  });

  test("while it is away, nobody is known for longer than his token is good", async () => {
    const { api, time, asks } = callers();
    const short = tokenUntil(NOW_MS + REVIEW_KEPT_MS + 1_000);
    await asks(short);
    await time.pass(REVIEW_KEPT_MS);
    api.away = true;
    expect(await asks(short)).toBe("shop/web");
    await time.pass(1_000);
    expect(await asks(short)).toBe("no answer");
  });

  test("a clock that is five minutes ahead does not refuse a token that the API server takes; one that is behind asks as well", async () => {
    const { api, time, asks } = callers();
    time.wallOffsetMs = NOW_MS + CLOCK_SKEW_MS;
    expect(await asks(tokenUntil(NOW_MS + 1_000))).toBe("shop/web");
    time.wallOffsetMs = NOW_MS - CLOCK_SKEW_MS;
    expect(await asks(tokenUntil(NOW_MS + 2_000))).toBe("shop/web");
    time.wallOffsetMs = NOW_MS + DAY_MS;
    expect(await asks(tokenUntil(NOW_MS + 3_000))).toBe("nobody");
    expect(api.reviews).toBe(2);
  });
});
