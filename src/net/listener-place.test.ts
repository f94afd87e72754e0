import { afterEach, expect, test } from "bun:test";
import { describeUnless } from "../../test/kit/skip.ts";
import { unsealed } from "../../test/kit/box.ts";
import { ListenerPlace } from "./listener-place.ts";
import { OWN_NAMESPACE } from "./namespace.ts";

const held: ListenerPlace[] = [];
const take = (): ListenerPlace | null => {
  const place = ListenerPlace.take(OWN_NAMESPACE);
  if (place !== null) held.push(place);
  return place;
};
afterEach(() => held.splice(0).forEach((place) => place.release()));

describeUnless(unsealed)("places of those who listen in one namespace", () => {
  test("two are there at once, a third waits, and each knows who came first", () => {
    let first = take()!;
    expect(first.isSecond).toBe(false);
    // Round all places, as upgrades do for years.
    for (let upgrade = 0; upgrade < 7; upgrade++) {
      const second = take()!;
      expect([first.isSecond, second.isSecond, take()]).toEqual([false, true, null]);
      first.release();
      first.release();
      expect(second.isSecond).toBe(false);
      first = second;
    }
  });

  test("the second one may go first", () => {
    const first = take()!;
    for (let rollback = 0; rollback < 4; rollback++) {
      const second = take()!;
      expect([first.isSecond, second.isSecond]).toEqual([false, true]);
      second.release();
    }
    expect(first.isSecond).toBe(false);
  });
});
