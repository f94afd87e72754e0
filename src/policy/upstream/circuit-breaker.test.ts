import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DEFAULT_SETTINGS } from "../../../test/kit/upstreams.ts";
import { CircuitBreaker, explainRefusal, LIMITED_RESOURCES, Permits } from "./circuit-breaker.ts";

const LIMITS = { ...DEFAULT_SETTINGS.limits, connectionsMax: 2, pendingRequestsMax: 1, activeRequestsMax: 3, activeRetriesMax: 0 };

describe("circuit breaking", () => {
  test("refuses past a limit, at once, and says which", () => {
    const breaker = new CircuitBreaker(LIMITS);
    const owners = Array.from({ length: 4 }, () => new Permits(breaker));
    expect(owners.map((owner) => owner.acquire("activeRequests")?.limit ?? null)).toEqual([null, null, null, 3]);
    expect(explainRefusal(owners[3]!.acquire("activeRequests")!)).toBe("3 requests under way, which is the limit (activeRequestsMax)");
    expect([breaker.inUse("activeRequests"), breaker.refused("activeRequests")]).toEqual([3, 2]);
    expect(new Permits(breaker).acquire("activeRetries")).toEqual({ resource: "activeRetries", limit: 0, all: null });
    owners[0]!.release("activeRequests");
    expect(owners[3]!.acquire("activeRequests")).toBeNull();
  });

  test("what is held goes back with its owner, once, whatever goes wrong", () => {
    const breaker = new CircuitBreaker(LIMITS);
    expect(() => {
      using permits = new Permits(breaker);
      permits.acquire("pendingRequests");
      permits.acquire("activeRequests");
      permits.release("pendingRequests");
      permits.release("pendingRequests");
      throw new Error("the request failed");
    }).toThrow("the request failed");
    expect(LIMITED_RESOURCES.map((resource) => breaker.inUse(resource))).toEqual([0, 0, 0, 0]);
  });

  test("one owner cannot hold one thing twice", () => {
    const permits = new Permits(new CircuitBreaker(LIMITS));
    permits.acquire("connections");
    expect(() => permits.acquire("connections")).toThrow("twice");
  });

  test("counts what is held, and never more than the limit, whatever owners do", () => {
    const step = fc.record({ owner: fc.nat(7), resource: fc.constantFrom(...LIMITED_RESOURCES), action: fc.constantFrom("acquire", "release", "dispose") });
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const breaker = new CircuitBreaker(LIMITS);
      const owners = Array.from({ length: 8 }, () => new Permits(breaker));
      for (const { owner, resource, action } of steps) {
        const permits = owners[owner]!;
        if (action === "dispose") permits[Symbol.dispose]();
        else if (action === "release") permits.release(resource);
        else if (!permits.holds(resource)) permits.acquire(resource);
        LIMITED_RESOURCES.forEach((name, i) => {
          expect(breaker.inUse(name)).toBe(owners.filter((other) => other.holds(name)).length);
          expect(breaker.inUse(name)).toBeLessThanOrEqual([2, 1, 3, 0][i]!);
        });
      }
      for (const permits of owners) permits[Symbol.dispose]();
      expect(LIMITED_RESOURCES.map((name) => breaker.inUse(name))).toEqual([0, 0, 0, 0]);
    }));
  });
});
