// Each pod's way into the mesh and out of it, step by step, in a world that notes what is done to it and fails when it is told to.

import { describe, expect, test } from "bun:test";
import { err, ok, type Result } from "../core/result.ts";
import { Enrolment, type EnrolmentTimes, type PodWorld } from "./enrolment.ts";
import type { Membership } from "./membership.ts";
import type { Pod } from "./pod.ts";

const IN: Membership = { inMesh: true, why: "label" };
const OUT: Membership = { inMesh: false, why: "no label" };
const POD: Pod = {
  uid: "u1", namespace: "shop", name: "web-1", node: "a", serviceAccount: "web", labels: {}, annotations: {}, hostNetwork: false, addresses: ["198.18.1.7"], ended: false, probePorts: [],
};
const TIMES: EnrolmentTimes = { announceMs: 2_000, acceptMs: 500, retryFirstMs: 250, retryMaxMs: 1_000, startWaitMs: 25_000 };

/** Time stands still until `pass`; what is done is noted in order. */
class World implements PodWorld {
  readonly done: string[] = [];
  readonly open = new Set<number>();
  readonly failures: string[] = [];
  joinOutcome: () => Result<void, string> | Promise<Result<void, string>> = () => ok(undefined);
  announceOutcome: () => Result<void, string> = () => ok(undefined);
  found: Result<number, string> = ok(7);
  #pauses: { readonly ms: number; readonly resolve: () => void }[] = [];

  findNamespace(): Result<number, string> {
    if (this.found.ok) this.open.add(this.found.value);
    return this.found;
  }
  async join(pod: Pod, fd: () => number | null, waitMs: number): Promise<Result<void, string>> {
    this.done.push(`join ${pod.name} fd ${fd()} wait ${waitMs}`);
    return this.joinOutcome();
  }
  refresh(pod: Pod): Result<void, string> {
    this.done.push(`refresh ${pod.name}`);
    return ok(undefined);
  }
  stopRedirecting(pod: Pod): void {
    this.done.push(`stop redirecting ${pod.name}`);
  }
  async letGo(pod: Pod, fd: number | null): Promise<void> {
    if (fd !== null) this.open.delete(fd);
    this.done.push(`let go ${pod.name} fd ${fd}`);
  }
  async announce(_pod: Pod, inMesh: boolean): Promise<Result<void, string>> {
    this.done.push(`announce ${inMesh}`);
    return this.announceOutcome();
  }
  close(fd: number): void {
    this.open.delete(fd);
    this.done.push(`close ${fd}`);
  }
  changed(): void {}
  failed(_pod: Pod, why: string): void {
    this.failures.push(why);
  }
  pause(ms: number, wake: Promise<void>): Promise<void> {
    const pause = Promise.withResolvers<void>();
    this.#pauses.push({ ms, resolve: pause.resolve });
    return Promise.race([pause.promise, wake]);
  }

  /** Everything that can happen without time passing has happened. */
  async settle(): Promise<void> {
    for (let i = 0; i < 50; i++) await Promise.resolve();
  }
  async pass(): Promise<number[]> {
    const due = this.#pauses.splice(0);
    for (const { resolve } of due) resolve();
    await this.settle();
    return due.map(({ ms }) => ms);
  }
  take(): string[] {
    return this.done.splice(0);
  }
}

function make(): { world: World; enrolment: Enrolment; stage: () => string | undefined } {
  const world = new World();
  const enrolment = new Enrolment(world, TIMES);
  return { world, enrolment, stage: () => enrolment.memberOf(POD.uid)?.stage };
}

describe("enrolment", () => {
  test("a pod that runs and is wanted: found, joined, announced", async () => {
    const { world, enrolment, stage } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    expect(world.take()).toEqual(["join web-1 fd 7 wait 0", "announce true"]);
    expect(stage()).toBe("inside");
    expect(enrolment.namespaceOf(POD.uid)).toBe(7);
  });

  test("a pod that starts waits for the ztunnel, and is announced afterwards", async () => {
    const { world, enrolment } = make();
    const started = await enrolment.start(POD, IN, "c1", 9);
    expect(started.ok).toBeTrue();
    await world.settle();
    expect(world.take()).toEqual(["join web-1 fd 9 wait 25000", "announce true"]);
  });

  test("a pod that cannot join yet is tried again; no longer wanted or ended meanwhile, the ztunnel lets go of it", async () => {
    for (const end of [(enrolment: Enrolment) => enrolment.set(POD, OUT, false), (enrolment: Enrolment) => enrolment.delete(POD.uid)]) {
      const { world, enrolment, stage } = make();
      world.joinOutcome = () => err("no certificate yet");
      enrolment.set(POD, IN, false);
      await world.settle();
      expect([world.take(), world.failures, stage()]).toEqual([["join web-1 fd 7 wait 0"], ["no certificate yet"], "outside"]);
      expect(await world.pass()).toEqual([250]);
      expect(world.take()).toEqual(["join web-1 fd 7 wait 0"]);
      end(enrolment);
      await world.settle();
      expect(world.take().filter((done) => !done.startsWith("close"))).toEqual(["let go web-1 fd null"]);
      await world.pass();
      expect(world.take()).toEqual([]);
    }
  });

  test("a pod that cannot join does not start, and nothing of it is kept", async () => {
    const { world, enrolment, stage } = make();
    world.joinOutcome = () => err("no ztunnel");
    expect(await enrolment.start({ ...POD, addresses: [] }, IN, "c1", 9)).toEqual(err("no ztunnel"));
    await world.settle();
    expect(world.take()).toEqual(["join web-1 fd 9 wait 25000", "close 9"]);
    expect(stage()).toBe("outside");
    expect(enrolment.served).toEqual([]);
  });

  test("without an address there is no sandbox: its start is waited for, nothing is looked for", async () => {
    const { world, enrolment } = make();
    enrolment.set({ ...POD, addresses: [] }, IN, false);
    await world.settle();
    expect(world.take()).toEqual([]);
    expect(world.failures).toEqual([]);
  });

  test("leaving: announced first, captured until the others have heard, then rules, then listeners", async () => {
    const { world, enrolment, stage } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    world.take();
    enrolment.set(POD, OUT, true);
    await world.settle();
    expect(world.take()).toEqual(["announce false"]);
    expect(stage()).toBe("leaving");
    expect(enrolment.served).toHaveLength(1);
    expect(await world.pass()).toEqual([2_000]);
    expect(world.take()).toEqual(["stop redirecting web-1"]);
    expect(enrolment.served).toHaveLength(1);
    expect(await world.pass()).toEqual([500]);
    expect(world.take()).toEqual(["let go web-1 fd 7"]);
    expect(stage()).toBe("outside");
    expect(enrolment.served).toHaveLength(0);
  });

  test("leaving before the API has told of our own announcement: it is announced as outside all the same", async () => {
    const { world, enrolment } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    expect(world.take()).toEqual(["join web-1 fd 7 wait 0", "announce true"]);
    enrolment.set(POD, OUT, false); // its namespace lost the label; the pod is as it was before we wrote
    await world.settle();
    expect(world.take()).toEqual(["announce false"]);
    enrolment.set(POD, OUT, true); // our first writing comes back, after the second was sent
    enrolment.set(POD, OUT, false);
    await world.settle();
    expect(world.take()).toEqual([]); // and what is heard meanwhile makes no pause shorter
    expect(await world.pass()).toEqual([2_000]);
    expect(await world.pass()).toEqual([500]);
    expect(world.take()).toEqual(["stop redirecting web-1", "let go web-1 fd 7"]);
  });

  test("wanted again while it leaves: it comes back without having been away", async () => {
    const { world, enrolment, stage } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    enrolment.set(POD, OUT, true);
    await world.settle();
    world.take();
    enrolment.set(POD, IN, false);
    await world.settle();
    expect(world.take()).toEqual(["join web-1 fd 7 wait 0", "announce true"]);
    expect(stage()).toBe("inside");
    await world.pass();
    expect(world.take()).toEqual([]);
  });

  test("a failure is told once, tried again ever more rarely, and ends with the reason gone", async () => {
    const { world, enrolment, stage } = make();
    world.joinOutcome = () => err("no ztunnel");
    enrolment.set(POD, IN, false);
    await world.settle();
    expect([...(await world.pass()), ...(await world.pass()), ...(await world.pass()), ...(await world.pass())]).toEqual([250, 500, 1_000, 1_000]);
    expect(world.failures).toEqual(["no ztunnel"]);
    expect(enrolment.memberOf(POD.uid)?.failure).toBe("no ztunnel");
    world.joinOutcome = () => ok(undefined);
    await world.pass();
    expect(stage()).toBe("inside");
    expect(enrolment.memberOf(POD.uid)?.failure).toBeNull();
  });

  test("a start is not held up by a step that keeps failing", async () => {
    const { world, enrolment, stage } = make();
    world.found = err("no process of it runs on this node");
    enrolment.set(POD, IN, false);
    await world.settle();
    const started = enrolment.start(POD, IN, "c1", 9);
    await world.settle();
    expect((await started).ok).toBeTrue();
    expect(stage()).toBe("inside");
  });

  test("an ended pod is let go of at once, and forgotten", async () => {
    const { world, enrolment } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    world.take();
    enrolment.set({ ...POD, ended: true }, IN, true);
    await world.settle();
    expect(world.take()).toEqual(["close 7", "let go web-1 fd null"]);
    expect(enrolment.memberOf(POD.uid)).toBeNull();
    expect(world.open.size).toBe(0);
  });

  test("a pod that is deleted while it leaves goes at once, too", async () => {
    const { world, enrolment } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    enrolment.set(POD, OUT, true);
    await world.settle();
    world.take();
    enrolment.delete(POD.uid);
    await world.settle();
    expect(world.take()).toEqual(["close 7", "let go web-1 fd null"]);
    expect(enrolment.memberOf(POD.uid)).toBeNull();
  });

  test("a sandbox made anew: the old namespace is let go of before the new one joins", async () => {
    const { world, enrolment } = make();
    await enrolment.start(POD, IN, "c1", 7);
    await world.settle();
    world.take();
    await enrolment.start(POD, IN, "c2", 8);
    await world.settle();
    expect(world.take()).toEqual(["close 7", "let go web-1 fd null", "join web-1 fd 8 wait 25000"]);
    await enrolment.stop(POD.uid, "c1");
    expect(enrolment.namespaceOf(POD.uid)).toBe(8);
    await enrolment.stop(POD.uid, "c2");
    expect(enrolment.namespaceOf(POD.uid)).toBeNull();
  });

  test("GC ends what the runtime no longer knows, and nothing else", async () => {
    const { world, enrolment } = make();
    await enrolment.start(POD, IN, "c1", 7);
    await enrolment.start({ ...POD, uid: "u2", name: "web-2" }, IN, "c2", 8);
    await world.settle();
    await enrolment.collect(new Set(["c2"]));
    expect(enrolment.namespaceOf("u1")).toBeNull();
    expect(enrolment.namespaceOf("u2")).toBe(8);
  });

  test("the agent comes back: pods that are wanted are served before they have joined again, so that no ztunnel lets go of them", async () => {
    const { world, enrolment } = make();
    world.joinOutcome = () => err("no ztunnel has come");
    enrolment.set(POD, IN, true);
    await world.settle();
    expect(enrolment.served.map(({ pod, namespaceFd }) => [pod.name, namespaceFd()])).toEqual([["web-1", 7]]);
  });

  test("a pod with the rules of an agent before us that is not wanted any more is led out like any other", async () => {
    const { world, enrolment, stage } = make();
    enrolment.adopt(POD, OUT, 7);
    enrolment.set(POD, OUT, true);
    await world.settle();
    await world.pass();
    await world.pass();
    expect(world.take()).toEqual(["announce false", "stop redirecting web-1", "let go web-1 fd 7"]);
    expect(stage()).toBe("outside");
  });

  test("the agent ends: nothing is changed any more, and pods that start are left to its successor", async () => {
    const { world, enrolment } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    world.take();
    enrolment.freeze();
    const started = await enrolment.start({ ...POD, uid: "u2" }, IN, "c2", 9);
    expect(started.ok).toBeFalse();
    expect(world.take()).toEqual(["close 9"]);
  });

  test("the mesh is removed: everybody leaves", async () => {
    const { world, enrolment, stage } = make();
    enrolment.set(POD, IN, false);
    await world.settle();
    world.take();
    const released = enrolment.releaseAll();
    await world.settle();
    await world.pass();
    await world.pass();
    await released;
    expect(world.take()).toEqual(["announce false", "stop redirecting web-1", "let go web-1 fd 7"]);
    expect(stage()).toBe("outside");
  });
});
