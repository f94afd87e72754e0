import { expect, test } from "bun:test";
import { seededRandom } from "../core/ports.ts";
import { deepEqual } from "./mesh-delta.ts";
import { StateMap } from "./state-map.ts";

test("a map of states: each is what a copy of the whole would be, and what was handed out stays as it is", () => {
  const random = seededRandom(7);
  let states = StateMap.empty<string, number>();
  let copy = new Map<string, number>();
  const handedOut: (readonly [StateMap<string, number>, ReadonlyMap<string, number>])[] = [];
  for (let round = 0; round < 200; round++) {
    const key = (): string => `key-${Math.floor(random.next() * 600)}`;
    const upserted = Array.from({ length: Math.floor(random.next() * 20) }, () => [key(), round] as const);
    const removed = Array.from({ length: Math.floor(random.next() * 10) }, key);
    copy = new Map(copy);
    for (const one of removed) copy.delete(one);
    for (const [one, value] of upserted) copy.set(one, value);
    states = states.with(upserted, removed);
    handedOut.push([states, copy]);
  }
  const sorted = (map: ReadonlyMap<string, number>): (readonly [string, number])[] => [...map].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [state, wanted] of handedOut) {
    expect(sorted(state)).toEqual(sorted(wanted));
    expect([state.size, [...state.keys()].length, [...state.values()].length]).toEqual([wanted.size, wanted.size, wanted.size]);
    for (let i = 0; i < 600; i += 37) expect([state.get(`key-${i}`), state.has(`key-${i}`)]).toEqual([wanted.get(`key-${i}`), wanted.has(`key-${i}`)]);
  }
  expect(states.with([], [])).toBe(states);
  expect([deepEqual(states, copy), deepEqual(states.with([["key-1", -1]], []), copy.set("key-1", -2))]).toEqual([true, false]);
});
