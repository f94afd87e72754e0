import { expect, test } from "bun:test";
import { newPulse, Pulse, PulseWatch } from "./thread-pulse.ts";

function watched() {
  let now = 0;
  const events: string[] = [];
  const shared = newPulse();
  const watch = new PulseWatch({
    pulses: [shared], nowMs: () => now, hungMs: 1_000,
    onHung: (thread, silentMs) => events.push(`data-${thread} hung ${silentMs}`), onAlive: (thread, silentMs) => events.push(`data-${thread} alive ${silentMs}`),
  });
  return { pulse: new Pulse(shared, 100), watch, events, to: (ms: number) => void (now = ms), nowMs: () => now };
}

test("a thread that ticks is alive, and says how late it was", () => {
  const { pulse, watch, events, to } = watched();
  pulse.beat(0);
  pulse.beat(100);
  pulse.beat(450);
  to(500);
  watch.look();
  expect(watch.take()).toEqual([{ lastS: 0.25, maxS: 0.25 }]);
  pulse.beat(550);
  watch.look();
  expect([watch.take(), watch.allAlive, events]).toEqual([[{ lastS: 0, maxS: 0 }], true, []]);
});

test("one that stops is hung after its time, once, and alive again when it ticks", () => {
  const { pulse, watch, events, to } = watched();
  pulse.beat(0);
  watch.look();
  to(999);
  watch.look();
  expect(watch.allAlive).toBe(true);
  to(1_500);
  watch.look();
  watch.look();
  expect([watch.allAlive, events]).toEqual([false, ["data-0 hung 1500"]]);
  to(2_000);
  expect(watch.take()[0]!.lastS).toBe(2);
  pulse.beat(2_000);
  watch.look();
  expect([watch.allAlive, events]).toEqual([true, ["data-0 hung 1500", "data-0 alive 2000"]]);
  expect(watch.take()).toEqual([{ lastS: 1.9, maxS: 1.9 }]);
});

test("a real thread that never comes back is noticed", async () => {
  const shared = newPulse();
  const source = `self.onmessage = ({ data }) => { const slots = new Int32Array(data); Atomics.add(slots, 0, 1); postMessage("on"); for (;;) Atomics.wait(slots, 2, 0); };`;
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  const on = new Promise((resolve) => (worker.onmessage = resolve));
  worker.postMessage(shared);
  await on;
  const hung: number[] = [];
  const watch = new PulseWatch({ pulses: [shared], nowMs: () => performance.now(), hungMs: 50, onHung: (thread) => hung.push(thread), onAlive: () => {} });
  while (watch.allAlive) {
    watch.look();
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(hung).toEqual([0]);
  worker.terminate();
});
