import { describe, expect, test } from "bun:test";
import { err, ok, type Result } from "../core/result.ts";
import { FakeTime } from "../../test/kit/fake-time.ts";
import { quietLog } from "../../test/kit/quiet-log.ts";
import type { Api, ApiFault, ApiRequest } from "../runtime/kubernetes/api.ts";
import { Lease, LEASE_MS } from "./lease.ts";

interface Stored {
  readonly metadata: { readonly resourceVersion: string };
  readonly spec: { readonly holderIdentity: string; readonly leaseTransitions: number };
}

/** One Lease, with the API server's rule that a write names the version it replaces. */
class LeaseServer implements Api {
  stored: Stored | null = null;
  away = new Set<string>();
  #version = 0;

  as(replica: string): Api {
    return { request: (request) => (this.away.has(replica) ? Promise.resolve(fault("api_unreachable", 0)) : this.request(request)), watch: () => new Promise(() => {}) };
  }

  async request({ method, body }: ApiRequest): Promise<Result<unknown, ApiFault>> {
    if (method === "GET") return this.stored === null ? fault("api_not_found", 404) : ok(this.stored);
    const wanted = body as { readonly metadata: { readonly resourceVersion?: string }; readonly spec: Stored["spec"] };
    if ((this.stored?.metadata.resourceVersion ?? undefined) !== wanted.metadata.resourceVersion) return fault("api_conflict", 409);
    this.stored = { metadata: { resourceVersion: String(++this.#version) }, spec: wanted.spec };
    return ok(this.stored);
  }

  watch(): Promise<Result<void, ApiFault>> {
    return new Promise(() => {});
  }
}

const fault = (code: ApiFault["code"], status: number): Result<never, ApiFault> => err({ code, status, message: code, blame: "peer", dies: "nothing", retry: { kind: "never" } });

describe("the Lease", () => {
  function replicas(): { readonly server: LeaseServer; readonly time: FakeTime; readonly held: Record<string, boolean>; readonly a: Lease; readonly b: Lease } {
    const server = new LeaseServer();
    const time = new FakeTime();
    const held: Record<string, boolean> = { a: false, b: false };
    const make = (identity: string) => new Lease({
      api: server.as(identity), clock: time, random: { next: () => 0.5 }, timers: time, log: quietLog(), namespace: "istio-system", name: "weft-control", identity,
      onChange: (holds) => {
        held[identity] = holds;
        expect(Object.values(held).filter(Boolean).length).toBeLessThanOrEqual(1);
      },
    });
    return { server, time, held, a: make("a"), b: make("b") };
  }

  test("one of two has it, and keeps it", async () => {
    const { time, held, a, b } = replicas();
    a.start();
    b.start();
    await time.pass(120_000);
    expect([held["a"], held["b"], b.holder]).toEqual([true, false, "a"]);
  });

  test("one that reaches nobody any more stops before the other begins", async () => {
    const { server, time, held, a, b } = replicas();
    a.start();
    await time.pass(1_000);
    b.start();
    await time.pass(10_000);
    server.away.add("a");
    await time.pass(11_000);
    expect([held["a"], held["b"]]).toEqual([false, false]);
    await time.pass(LEASE_MS);
    expect([held["a"], held["b"], server.stored?.spec.leaseTransitions]).toEqual([false, true, 2]);
    server.away.delete("a");
    await time.pass(60_000);
    expect([held["a"], held["b"]]).toEqual([false, true]);
  });

  test("given back, it is taken at once", async () => {
    const { time, held, a, b } = replicas();
    a.start();
    await time.pass(1_000);
    b.start();
    await time.pass(1_000);
    await a.stop();
    await time.pass(4_000);
    expect([held["a"], held["b"]]).toEqual([false, true]);
  });
});
