import { describe, expect, test } from "bun:test";
import { ip } from "../../test/kit/mesh-records.ts";
import { seededRandom } from "../core/ports.ts";
import { FORGET_MS, type FoundAddress, KEEP_MS_MAX, KEEP_MS_MIN, NameResolver, RETRY_MS, RETRY_MS_MAX, STALE_MS_MAX } from "./name-resolver.ts";

const NAME = "api.example.com";

/** A resolver whose answers the test gives. */
class Fixture {
  nowMs = 0;
  asked: string[] = [];
  #pending: { resolve(found: readonly FoundAddress[]): void; reject(error: Error): void }[] = [];
  readonly names = new NameResolver({
    random: seededRandom(1), nowMs: () => this.nowMs,
    lookUp: (hostname) => {
      this.asked.push(hostname);
      return new Promise((resolve, reject) => this.#pending.push({ resolve, reject }));
    },
  });

  async answer(ttl: number, ...addresses: string[]): Promise<void> {
    this.#pending.shift()!.resolve(addresses.map((address) => ({ address, ttl })));
    await Promise.resolve();
  }

  async fail(code: string): Promise<void> {
    this.#pending.shift()!.reject(Object.assign(new Error(code), { code }));
    await new Promise<void>((resolve) => queueMicrotask(resolve));
  }

  known(): readonly string[] {
    return this.names.addresses(NAME, this.nowMs);
  }
}

describe("names", () => {
  test("are asked for once, and all of their addresses are used", async () => {
    const f = new Fixture();
    expect(f.known()).toEqual([]);
    expect(f.known()).toEqual([]);
    expect(f.asked).toEqual([NAME]);
    await f.answer(30, "198.18.0.2", "198.18.0.1", "198.18.0.2", "2001:db8::1");
    expect(f.known()).toEqual(["198.18.0.1", "198.18.0.2", "2001:db8::1"]);
    const got = new Set<string | null>();
    for (let i = 0; i < 60; i++) f.names.resolve(NAME, 4, 0, (address) => got.add(address));
    expect([...got].sort()).toEqual(["198.18.0.1", "198.18.0.2"]);
    f.names.resolve(NAME, 6, 0, (address) => expect(address).toBe(ip("2001:db8::1")));
    expect(f.asked.length).toBe(1);
  });

  test("are kept for their TTL, within bounds", async () => {
    for (const [ttl, keptMs] of [[0, KEEP_MS_MIN], [60, 60_000], [86_400, KEEP_MS_MAX]] as const) {
      const f = new Fixture();
      f.known();
      await f.answer(ttl, "198.18.0.1");
      f.nowMs = keptMs - 1;
      f.names.tick(f.nowMs);
      expect(f.asked.length).toBe(1);
      f.nowMs = keptMs;
      f.names.tick(f.nowMs);
      expect(f.asked.length).toBe(2);
    }
  });

  test("that cannot be resolved again keep their addresses, and are asked for again soon", async () => {
    const f = new Fixture();
    f.known();
    await f.answer(5, "198.18.0.1");
    const { version } = f.names;
    let dueMs = 5_000;
    for (const waitMs of [RETRY_MS, RETRY_MS * 2, RETRY_MS * 4]) {
      f.nowMs = dueMs;
      f.names.tick(f.nowMs);
      await f.fail("DNS_ETIMEOUT");
      expect(f.known()).toEqual(["198.18.0.1"]);
      expect(f.names.failure(NAME)).toBe("DNS_ETIMEOUT");
      f.nowMs = dueMs + waitMs - 1;
      f.names.tick(f.nowMs);
      dueMs += waitMs;
    }
    expect(f.asked.length).toBe(4);
    expect(RETRY_MS_MAX).toBeGreaterThan(RETRY_MS);
    f.nowMs = dueMs;
    f.names.tick(f.nowMs);
    // An answer without addresses is a failure too.
    await f.answer(30);
    expect(f.known()).toEqual(["198.18.0.1"]);
    expect(f.names.version).toBe(version);
    f.nowMs += RETRY_MS_MAX;
    f.names.tick(f.nowMs);
    await f.answer(30, "198.18.0.7");
    expect(f.known()).toEqual(["198.18.0.7"]);
    expect(f.names.failure(NAME)).toBeNull();
    expect(f.names.version).toBe(version + 1);
  });

  test("that are none are told like others, and throw nothing", async () => {
    const names = new NameResolver({
      random: seededRandom(1), nowMs: () => 0,
      lookUp: () => {
        throw new TypeError("no name");
      },
    });
    expect(await new Promise((resolve) => names.resolve("*.example.com", 4, 0, resolve))).toBeNull();
    expect(names.failure("*.example.com")).toBe("no name");
  });

  test("waiters are told when there is none", async () => {
    const f = new Fixture();
    const told: (string | null)[] = [];
    f.names.resolve(NAME, 4, 0, (address) => told.push(address));
    f.names.resolve(NAME, 4, 0, (address) => told.push(address));
    await f.fail("DNS_ENOTFOUND");
    expect(told).toEqual([null, null]);
    // The next connection waits for a new answer.
    f.names.resolve(NAME, 4, 0, (address) => told.push(address));
    expect(told.length).toBe(2);
    await f.answer(30, "198.18.0.1");
    expect(told).toEqual([null, null, "198.18.0.1"]);
  });

  test("what is much too old is used when there is no new answer only", async () => {
    const f = new Fixture();
    f.known();
    await f.answer(5, "198.18.0.1");
    const told: (string | null)[] = [];
    f.nowMs = 5_000 + STALE_MS_MAX - 1;
    f.names.resolve(NAME, 4, f.nowMs, (address) => told.push(address));
    expect(told).toEqual(["198.18.0.1"]);
    await f.answer(5, "198.18.0.2");
    f.nowMs += 5_000 + STALE_MS_MAX;
    f.names.resolve(NAME, 4, f.nowMs, (address) => told.push(address));
    expect(told.length).toBe(1);
    await f.fail("DNS_ETIMEOUT");
    expect(told[1]).toBe("198.18.0.2");
  });

  test("that nobody asks for any more are forgotten", async () => {
    const f = new Fixture();
    f.known();
    await f.answer(60, "198.18.0.1");
    f.nowMs = FORGET_MS + 1;
    f.names.tick(f.nowMs);
    expect(f.asked.length).toBe(1);
    expect(f.known()).toEqual([]);
  });
});
