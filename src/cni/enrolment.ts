// The pods of this node, and the steps by which each gets into the mesh and out of it. One pod's steps are done one after the other,
// towards what was last wanted of it; different pods do not wait for each other. What the steps do to the world is in PodWorld.
//
//   outside ──join──▶ inside      listeners (ztunnel) first, then rules: nothing is redirected to a port where nobody listens
//   inside ──leave──▶ leaving     it is announced as outside, and stays captured until the others have heard of it
//   leaving ────────▶ outside     rules stop redirecting; then the ztunnel lets go, and what is open ends by itself
//
// A pod that ends is let go of at once, wherever it was.

import { ok, err, type Result } from "../core/result.ts";
import type { Membership } from "./membership.ts";
import type { Pod } from "./pod.ts";

/** What the steps do. A failure is a reason, for the pod's events and the log; the step is tried again. */
export interface PodWorld {
  /** Copies: the descriptor given to `join` is the enrolment's. Null when the pod has no namespace that could be found. */
  findNamespace(pod: Pod): Result<number, string>;
  /** Listeners and, for a pod that runs, its certificate; then rules. Idempotent. @param waitMs how long a ztunnel is waited for; 0 for a pod that runs. */
  join(pod: Pod, namespaceFd: () => number | null, waitMs: number): Promise<Result<void, string>>;
  /** Rules alone, for a pod that is inside: what its annotations and probes ask for now. */
  refresh(pod: Pod, namespaceFd: number): Result<void, string>;
  /** Nothing new is redirected. */
  stopRedirecting(pod: Pod, namespaceFd: number): void;
  /** The ztunnel lets go of it. With a descriptor, which is then the world's, rules go when the last connection has; null: the pod has ended, or has no rules. */
  letGo(pod: Pod, namespaceFd: number | null): Promise<void>;
  announce(pod: Pod, inMesh: boolean): Promise<Result<void, string>>;
  close(namespaceFd: number): void;
  /** The set of pods that are inside has changed. */
  changed(): void;
  failed(pod: Pod, why: string): void;
  /** Resolves after so long, or when `wake` does. */
  pause(ms: number, wake: Promise<void>): Promise<void>;
}

export interface EnrolmentTimes {
  /** Between being announced as outside and being so: peers go on using tunnels until they have heard. */
  readonly announceMs: number;
  /** Between the end of redirection and the end of the listeners: connections that were redirected are accepted. */
  readonly acceptMs: number;
  readonly retryFirstMs: number;
  readonly retryMaxMs: number;
  /** How long a pod that starts waits for a ztunnel. Less than the plugin waits for us. */
  readonly startWaitMs: number;
}

export const ENROLMENT_TIMES: EnrolmentTimes = { announceMs: 2_000, acceptMs: 500, retryFirstMs: 250, retryMaxMs: 15_000, startWaitMs: 25_000 };

type Stage = "outside" | "inside" | "leaving";

interface Member {
  pod: Pod;
  membership: Membership;
  /** The pod is gone, or its containers have ended. */
  ended: boolean;
  stage: Stage;
  /** A ztunnel was told of it for a join that failed: it may serve it all the same, and go on trying. */
  offered: boolean;
  namespaceFd: number | null;
  containerId: string | null;
  /** What the pod's annotation says, by the API or by our own writing, whichever was later heard of. */
  announced: boolean;
  /** What we have written and the API has not told us yet: until then what it tells may be older. */
  unconfirmed: boolean | null;
  failure: string | null;
  /** Rules were made for this pod as it was then. */
  rulesOf: Pod | null;
  running: Promise<void> | null;
  /** Something is to be looked at: the pause before another try ends. */
  wake: PromiseWithResolvers<void>;
  /** It is wanted again, has ended or is claimed: the pauses of leaving end. Anything else that is heard of it leaves them as long as they are. */
  recall: PromiseWithResolvers<void>;
  dirty: boolean;
  /** Calls that wait for the pod to be theirs: the loop of steps makes room between two. */
  claims: number;
}

export interface MemberStatus {
  readonly pod: Pod;
  readonly stage: Stage;
  readonly membership: Membership;
  readonly failure: string | null;
}

export class Enrolment {
  readonly #world: PodWorld;
  readonly #times: EnrolmentTimes;
  readonly #members = new Map<string, Member>();
  #stopped = false;

  constructor(world: PodWorld, times: EnrolmentTimes = ENROLMENT_TIMES) {
    this.#world = world;
    this.#times = times;
  }

  /** What is known of a pod of this node, from the API. */
  set(pod: Pod, membership: Membership, announced: boolean): void {
    const member = this.#members.get(pod.uid) ?? this.#make(pod, membership, announced);
    member.pod = pod;
    member.membership = membership;
    member.announced = announced;
    if (member.unconfirmed === announced) member.unconfirmed = null;
    member.ended = pod.ended;
    this.#look(member);
  }

  /** A pod with the rules of an agent before us, at our start, before `set`. @param namespaceFd becomes the enrolment's. */
  adopt(pod: Pod, membership: Membership, namespaceFd: number): void {
    const member = this.#make(pod, membership, true);
    member.stage = "inside";
    member.namespaceFd = namespaceFd;
  }

  /** The API no longer has it. */
  delete(uid: string): void {
    const member = this.#members.get(uid);
    if (member === undefined) return;
    member.ended = true;
    this.#look(member);
  }

  /**
   * A pod that is about to start. Resolves when it may.
   * @param namespaceFd becomes the enrolment's.
   */
  async start(pod: Pod, membership: Membership, containerId: string, namespaceFd: number): Promise<Result<void, string>> {
    if (this.#stopped) {
      this.#world.close(namespaceFd);
      return err("this agent is ending; its successor will be asked again");
    }
    const member = this.#members.get(pod.uid) ?? this.#make(pod, membership, false);
    const joined = await this.#exclusive(member, async () => {
      // A sandbox made anew is another namespace: what was inside before is no more.
      member.ended = false;
      if (member.namespaceFd !== null) await this.#end(member);
      member.pod = pod;
      member.membership = membership;
      member.containerId = containerId;
      member.namespaceFd = namespaceFd;
      this.#members.set(pod.uid, member);
      const outcome = await this.#join(member, this.#times.startWaitMs);
      if (!outcome.ok) this.#closeNamespace(member);
      return outcome;
    });
    if (joined.ok) this.#look(member); // to announce it
    return joined;
  }

  /** The runtime takes a sandbox down. */
  async stop(uid: string | null, containerId: string): Promise<void> {
    const member = [...this.#members.values()].find((each) => each.containerId === containerId || (each.containerId === null && each.pod.uid === uid));
    if (member === undefined) return;
    await this.#exclusive(member, () => this.#end(member));
  }

  /** Sandboxes that the runtime no longer knows. Those whose id we were never told are the API's to end. */
  async collect(validContainerIds: ReadonlySet<string>): Promise<void> {
    for (const member of this.#members.values()) {
      if (member.containerId !== null && !validContainerIds.has(member.containerId)) await this.#exclusive(member, () => this.#end(member));
    }
  }

  /** Rules that somebody has removed or changed are put back. */
  repair(): void {
    for (const member of this.#members.values()) {
      if (member.stage !== "inside" || member.running !== null || member.namespaceFd === null) continue;
      const repaired = this.#world.refresh(member.pod, member.namespaceFd);
      this.#noteFailure(member, repaired.ok ? null : repaired.error);
    }
  }

  /** Everybody out, as if nobody wanted to be in: the mesh is being removed from this node. Resolves when all are. */
  async releaseAll(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#members.values()].map(async (member) => {
      member.membership = { inMesh: false, why: "the mesh is being removed from this node" };
      this.#look(member);
      while (member.running !== null) await member.running;
    }));
  }

  /** This process ends and another will go on: nothing is changed any more. */
  freeze(): void {
    this.#stopped = true;
    for (const member of this.#members.values()) endPauses(member);
  }

  get members(): readonly MemberStatus[] {
    return [...this.#members.values()].map(({ pod, stage, membership, failure }) => ({ pod, stage, membership, failure }));
  }

  /** Those that a ztunnel has to serve, or serves already from before us, with their namespaces where these are known. */
  get served(): readonly { readonly pod: Pod; readonly namespaceFd: () => number | null }[] {
    const wanted = ({ membership, ended, pod }: Member): boolean => membership.inMesh && !ended && pod.addresses.length > 0;
    return [...this.#members.values()].filter((member) => member.stage !== "outside" || wanted(member)).map((member) => ({ pod: member.pod, namespaceFd: () => member.namespaceFd }));
  }

  memberOf(uid: string): MemberStatus | null {
    const member = this.#members.get(uid);
    return member === undefined ? null : { pod: member.pod, stage: member.stage, membership: member.membership, failure: member.failure };
  }

  /** Null when nothing is inside. Borrowed. */
  namespaceOf(uid: string): number | null {
    const member = this.#members.get(uid);
    return member?.stage === "inside" ? member.namespaceFd : null;
  }

  #make(pod: Pod, membership: Membership, announced: boolean): Member {
    const member: Member = {
      pod, membership, ended: false, stage: "outside", offered: false, namespaceFd: null, containerId: null, announced, unconfirmed: null, failure: null, rulesOf: null,
      running: null, wake: Promise.withResolvers(), recall: Promise.withResolvers(), dirty: false, claims: 0,
    };
    this.#members.set(pod.uid, member);
    return member;
  }

  #look(member: Member): void {
    member.dirty = true;
    member.wake.resolve();
    if (member.membership.inMesh || member.ended) member.recall.resolve();
    if (member.running !== null || member.claims > 0) return;
    member.running = this.#run(member).finally(() => {
      member.running = null;
      if (member.dirty && member.claims === 0 && !this.#frozen(member)) this.#look(member);
    });
  }

  #frozen(member: Member): boolean {
    return this.#stopped && member.membership.inMesh;
  }

  /** Works towards what is wanted until it is so. */
  async #run(member: Member): Promise<void> {
    let retryMs = this.#times.retryFirstMs;
    while (member.dirty && member.claims === 0 && !this.#frozen(member)) {
      member.dirty = false;
      member.wake = Promise.withResolvers();
      member.recall = Promise.withResolvers();
      const stepped = await this.#step(member);
      this.#noteFailure(member, stepped.ok ? null : stepped.error);
      if (stepped.ok) {
        retryMs = this.#times.retryFirstMs;
        continue;
      }
      if (member.claims === 0) await this.#world.pause(retryMs, member.wake.promise);
      retryMs = Math.min(this.#times.retryMaxMs, retryMs * 2);
      member.dirty = true;
    }
  }

  async #step(member: Member): Promise<Result<void, string>> {
    if (member.ended) {
      await this.#end(member);
      return ok(undefined);
    }
    const wanted = member.membership.inMesh;
    if (wanted && member.stage !== "inside") {
      if (member.namespaceFd === null) {
        // Without an address it has no sandbox yet: its namespace comes with the plugin's call.
        if (member.pod.addresses.length === 0) return ok(undefined);
        const found = this.#world.findNamespace(member.pod);
        if (!found.ok) return found;
        member.namespaceFd = found.value;
      }
      const joined = await this.#join(member, 0);
      if (!joined.ok) return joined;
    }
    if (wanted && member.stage === "inside" && member.rulesOf !== member.pod && member.namespaceFd !== null) {
      const refreshed = this.#world.refresh(member.pod, member.namespaceFd);
      if (!refreshed.ok) return refreshed;
      member.rulesOf = member.pod;
      this.#world.changed();
    }
    if (member.announced !== (wanted && member.stage === "inside") || (member.unconfirmed ?? wanted) !== wanted) {
      const announced = await this.#world.announce(member.pod, wanted);
      if (!announced.ok) return announced;
      member.announced = wanted;
      member.unconfirmed = wanted;
    }
    if (!wanted && member.stage !== "outside") await this.#leave(member);
    if (!wanted && member.offered) await this.#withdraw(member);
    return ok(undefined);
  }

  async #withdraw(member: Member): Promise<void> {
    member.offered = false;
    await this.#world.letGo(member.pod, null);
  }

  async #join(member: Member, waitMs: number): Promise<Result<void, string>> {
    const { pod } = member;
    const joined = await this.#world.join(pod, () => member.namespaceFd, waitMs);
    member.offered = !joined.ok;
    if (!joined.ok) return joined;
    member.stage = "inside";
    member.rulesOf = pod;
    this.#world.changed();
    return joined;
  }

  /** In two steps with pauses between; wanted again meanwhile, it stays. */
  async #leave(member: Member): Promise<void> {
    member.stage = "leaving";
    await this.#world.pause(this.#times.announceMs, member.recall.promise);
    if (member.membership.inMesh || member.ended) return;
    if (member.namespaceFd !== null) this.#world.stopRedirecting(member.pod, member.namespaceFd);
    await this.#world.pause(this.#times.acceptMs, member.recall.promise);
    if (member.membership.inMesh || member.ended) return;
    const fd = member.namespaceFd;
    member.namespaceFd = null;
    member.stage = "outside";
    member.rulesOf = null;
    this.#world.changed();
    await this.#world.letGo(member.pod, fd);
  }

  async #end(member: Member): Promise<void> {
    const wasServed = member.stage !== "outside" || member.offered;
    member.stage = "outside";
    member.offered = false;
    member.rulesOf = null;
    member.containerId = null;
    this.#closeNamespace(member);
    if (wasServed) {
      this.#world.changed();
      await this.#world.letGo(member.pod, null);
    }
    if (member.ended) this.#members.delete(member.pod.uid);
  }

  #closeNamespace(member: Member): void {
    if (member.namespaceFd !== null) this.#world.close(member.namespaceFd);
    member.namespaceFd = null;
  }

  #noteFailure(member: Member, failure: string | null): void {
    if (member.failure === failure) return;
    member.failure = failure;
    if (failure !== null) this.#world.failed(member.pod, failure);
    this.#world.changed();
  }

  /** As a step of its own: nothing else happens to the pod meanwhile. */
  async #exclusive<T>(member: Member, work: () => Promise<T>): Promise<T> {
    member.claims += 1;
    let running: Promise<T>;
    try {
      while (member.running !== null) {
        endPauses(member);
        await member.running;
      }
      running = work();
      member.running = running.then(() => {}, () => {});
    } finally {
      member.claims -= 1;
    }
    try {
      return await running;
    } finally {
      member.running = null;
      if (member.dirty) this.#look(member);
    }
  }
}

/** Whatever the loop of steps waits for, it goes on. */
function endPauses({ wake, recall }: Member): void {
  wake.resolve();
  recall.resolve();
}
