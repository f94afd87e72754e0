import { afterEach, describe, expect, test } from "bun:test";
import { type Due, DueList } from "./due-list.ts";

class Member implements Due {
  dueIndex = -1;
  readonly fired: number[] = [];
  readonly whenFired: Promise<void>;
  dueMs: number;
  readonly #then: (self: Member) => void;
  #resolve!: () => void;

  constructor(dueMs: number, then: (self: Member) => void = () => {}) {
    this.dueMs = dueMs;
    this.#then = then;
    this.whenFired = new Promise((resolve) => (this.#resolve = resolve));
  }

  onDue(nowMs: number): void {
    this.fired.push(nowMs);
    this.#resolve();
    this.#then(this);
  }
}

const now = (): number => performance.now();
let list = new DueList(now);
afterEach(() => {
  list.close();
  list = new DueList(now);
});

describe("due list", () => {
  test("calls each once its time has come, and not before", async () => {
    const [late, soon] = [new Member(now() + 60), new Member(now() + 20)];
    list.add(late);
    list.add(soon);
    await soon.whenFired;
    expect(late.fired).toEqual([]);
    await late.whenFired;
    expect(soon.fired).toHaveLength(1);
  });

  test("a deadline that moved away is not called at the old time; one that was lowered is called at the new", async () => {
    const startMs = now();
    const moved = new Member(startMs + 10);
    const lowered = new Member(startMs + 60_000);
    list.add(moved);
    list.add(lowered);
    moved.dueMs = startMs + 80;
    lowered.dueMs = startMs + 40;
    list.sooner(lowered);
    await lowered.whenFired;
    expect(moved.fired).toEqual([]);
    await moved.whenFired;
    expect(moved.fired[0]).toBeGreaterThanOrEqual(startMs + 80);
  });

  test("one that was taken off, even by another that is due with it, is not called", async () => {
    const dueMs = now() + 10;
    const second = new Member(dueMs);
    const first = new Member(dueMs, () => list.remove(second));
    const last = new Member(dueMs + 30);
    for (const member of [first, second, last]) list.add(member);
    await last.whenFired;
    expect([first.fired.length, second.fired.length, list.size]).toEqual([1, 0, 2]);
  });

  test("one that sets its next time while it is called is called again", async () => {
    const again = new Member(now() + 5, (self) => {
      if (self.fired.length < 3) self.dueMs = now() + 5;
    });
    const last = new Member(now() + 100);
    list.add(again);
    list.add(last);
    await last.whenFired;
    expect(again.fired).toHaveLength(3);
  });
});
