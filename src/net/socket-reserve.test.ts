import { afterEach, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { close, getIntOption, IP_TRANSPARENT, SO_MARK, SOL_IP, SOL_SOCKET } from "./libc.ts";
import { closeNamespace, openNamespace } from "./namespace.ts";
import { RESERVE_IDLE_MS, RESERVE_MAX, SocketReserve } from "./socket-reserve.ts";
import { unsealed } from "../../test/kit/box.ts";
import { describeUnless } from "../../test/kit/skip.ts";

const PLAIN = { v6: false, transparent: false };
const MARK = 0x539;

const openCount = (): number => readdirSync("/proc/self/fd").length;

describeUnless(unsealed)("socket reserve", () => {
  const namespace = openNamespace("/proc/self/ns/net");
  const taken: number[] = [];
  const take = (reserve: SocketReserve, nowMs: number, kind = PLAIN): number => {
    const fd = reserve.take(kind, nowMs);
    expect(fd).toBeGreaterThanOrEqual(0);
    taken.push(fd);
    return fd;
  };
  afterEach(() => {
    for (const fd of taken.splice(0)) close(fd);
  });

  test("a quiet namespace keeps nothing: one socket is made for one that is asked for", () => {
    const reserve = new SocketReserve(namespace, MARK);
    const before = openCount();
    take(reserve, 0);
    take(reserve, RESERVE_IDLE_MS);
    take(reserve, 3 * RESERVE_IDLE_MS);
    expect(openCount() - before).toBe(3);
  });

  test("asked often it makes more at once, up to its limit, and gives every one out once", () => {
    const reserve = new SocketReserve(namespace, MARK);
    const before = openCount();
    for (let i = 0; i < 5 * RESERVE_MAX; i++) take(reserve, i);
    const spare = openCount() - before - taken.length;
    expect(spare).toBeGreaterThan(0);
    expect(spare).toBeLessThan(RESERVE_MAX);
    expect(new Set(taken).size).toBe(taken.length);
    reserve.close();
    expect(openCount() - before).toBe(taken.length);
  });

  test("what nobody asks for is closed after a while", () => {
    const reserve = new SocketReserve(namespace, MARK);
    const before = openCount();
    for (let i = 0; i < 4; i++) take(reserve, i);
    reserve.tick(RESERVE_IDLE_MS);
    expect(openCount() - before).toBeGreaterThan(4);
    reserve.tick(3 + RESERVE_IDLE_MS);
    expect(openCount() - before).toBe(4);
  });

  test("each socket is marked, and transparent only where it was asked for", () => {
    const reserve = new SocketReserve(namespace, MARK);
    for (let i = 0; i < 3; i++) {
      const plain = take(reserve, i);
      const transparent = take(reserve, i, { v6: false, transparent: true });
      expect([plain, transparent].map((fd) => getIntOption(fd, SOL_SOCKET, SO_MARK))).toEqual([MARK, MARK]);
      expect([plain, transparent].map((fd) => getIntOption(fd, SOL_IP, IP_TRANSPARENT))).toEqual([0, 1]);
    }
    reserve.close();
  });

  test("a namespace that cannot be entered is an error for the caller, and nothing is left open", () => {
    const gone = openNamespace("/proc/self/ns/net");
    closeNamespace(gone);
    const before = openCount();
    expect(() => new SocketReserve(gone, MARK).take(PLAIN, 0)).toThrow("setns");
    expect(openCount()).toBe(before);
  });
});
