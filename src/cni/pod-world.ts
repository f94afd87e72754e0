// What an enrolment's steps do: ZDS towards the ztunnels, rules in the pod's namespace, the annotation in the API.

import { err, ok } from "../core/result.ts";
import { close } from "../net/libc.ts";
import { countCarried } from "../net/redirect/carried-connections.ts";
import { drainRedirect, installRedirect, removeRedirect, repairRedirect } from "../net/redirect/redirect.ts";
import { forgetEndedDials } from "../net/redirect/translated-connections.ts";
import { REDIRECTION } from "../resources/annotations.ts";
import { type Api, MERGE_PATCH } from "../runtime/kubernetes/api.ts";
import type { PodWorld } from "./enrolment.ts";
import type { Pod } from "./pod.ts";
import { type CaptureSettings, podCapture } from "./pod-capture.ts";
import type { PodNamespaces } from "./pod-namespaces.ts";
import type { MeshedPod, ZdsServer } from "./zds-server.ts";

/** Pods that have left and have connections open. */
export interface Left {
  /** Resolves when nothing is open any more, or after so long. */
  emptied(limitMs: number): Promise<void>;
  removeAll(): void;
  readonly names: readonly string[];
}

export interface PodWorldOptions {
  readonly client: Api;
  readonly zds: () => ZdsServer;
  readonly namespaces: PodNamespaces;
  readonly capture: CaptureSettings;
  readonly onChanged: () => void;
  readonly onFailed: (pod: Pod, why: string) => void;
  readonly onNote: (pod: Pod, note: string) => void;
}

/** How often a pod that has left is asked whether a connection of its applications still goes through the mesh, and how long at most. */
const LEFT_POLL_MS = 2_000;
const LEFT_LIMIT_MS = 60 * 60_000;
/**
 * After the ztunnels have let go of a pod: their peers hear that its tunnels take nothing new, and what was on its way into one has come out
 * as a connection to the application. Until then a tunnel without any may still need the rules.
 */
export const LEFT_SETTLE_MS = 1_000;
/**
 * Looks that must see nothing before the rules go. The kernel lists sockets bucket by bucket and lets them change in between: where many
 * come and go, one that is there may be missing from a list.
 */
const LEFT_LOOKS = 2;
/** As LEFT_POLL_MS, while an agent waits for it to end. */
const EMPTIED_POLL_MS = 500;

export function podWorld(options: PodWorldOptions): PodWorld & { readonly left: Left } {
  const { client, zds, namespaces, capture } = options;
  const left = new LeftPods(capture, options.onNote);
  const told = new Map<string, string>();
  const optionsFor = (pod: Pod) => {
    const { options: redirect, ignored } = podCapture(pod, capture);
    const words = ignored.join("; ");
    if (words !== "" && told.get(pod.uid) !== words) options.onNote(pod, `annotations that are not understood are left out: ${words}`);
    if (words === "") told.delete(pod.uid);
    else told.set(pod.uid, words);
    return redirect;
  };
  return {
    left,
    findNamespace(pod) {
      const back = left.takeBack(pod.uid);
      if (back !== null) return ok(back);
      const found = namespaces.find(pod.uid);
      return found.kind === "found" ? ok(found.fd) : err(`its network namespace was not found: ${found.why}`);
    },
    async join(pod, namespaceFd, waitMs) {
      // One that runs can wait outside until it has a certificate; one that starts cannot.
      const added = await zds().add(meshed(pod, namespaceFd), waitMs, waitMs === 0);
      if (!added.ok) return err(`the ztunnel does not serve it: ${added.error}`);
      const fd = namespaceFd();
      if (fd === null) return err("its network namespace has gone");
      const installed = installRedirect(fd, optionsFor(pod));
      if (installed.ok) {
        for (const note of installed.value.notes) options.onNote(pod, note);
        if (waitMs === 0) options.onNote(pod, "in the mesh");
        return ok(undefined);
      }
      await zds().remove(pod.uid);
      return err(installed.error.message);
    },
    refresh(pod, namespaceFd) {
      const repaired = repairRedirect(namespaceFd, optionsFor(pod));
      return repaired.ok ? ok(undefined) : err(repaired.error.message);
    },
    stopRedirecting(pod, namespaceFd) {
      const drained = drainRedirect(namespaceFd, optionsFor(pod));
      if (!drained.ok) options.onNote(pod, drained.error.message);
    },
    async letGo(pod, namespaceFd) {
      told.delete(pod.uid);
      if (namespaceFd !== null) {
        options.onNote(pod, "out of the mesh");
        left.add(pod, namespaceFd);
      }
      await zds().remove(pod.uid);
      left.released(pod.uid);
    },
    async announce(pod, inMesh) {
      // By way of the status subresource: the right to change a pod's status is not the right to change the pod. The UID keeps us off a
      // namesake that came later.
      const body = { metadata: { uid: pod.uid, annotations: { [REDIRECTION]: inMesh ? "enabled" : null } } };
      const patched = await client.request({ method: "PATCH", path: `/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/status`, body, contentType: MERGE_PATCH });
      if (patched.ok || patched.error.status === 404 || patched.error.status === 409) return ok(undefined);
      return err(`the annotation ${REDIRECTION} cannot be written: ${patched.error.message}`);
    },
    close: (namespaceFd) => void close(namespaceFd),
    changed: options.onChanged,
    failed: options.onFailed,
    pause: (ms, wake) => Promise.race([Bun.sleep(ms), wake]).then(() => {}),
  };
}

export function meshed(pod: Pod, namespaceFd: () => number | null): MeshedPod {
  const { uid, namespace, name, serviceAccount } = pod;
  return { uid, namespace, name, serviceAccount, namespaceFd };
}

interface LeftPod {
  readonly pod: Pod;
  readonly namespaceFd: number;
  readonly sinceMs: number;
  releasedMs: number | null;
  isToldOf: boolean;
  /** Looks after one another that saw nothing that needs rules. */
  nothingSeen: number;
}

/** Pods that have left the mesh with connections still open: their rules redirect nothing new, and go with the last of these. */
class LeftPods implements Left {
  readonly #capture: CaptureSettings;
  readonly #onNote: PodWorldOptions["onNote"];
  readonly #pods = new Map<string, LeftPod>();
  #timer: ReturnType<typeof setInterval> | null = null;

  constructor(capture: CaptureSettings, onNote: PodWorldOptions["onNote"]) {
    this.#capture = capture;
    this.#onNote = onNote;
  }

  add(pod: Pod, namespaceFd: number): void {
    this.#pods.set(pod.uid, { pod, namespaceFd, sinceMs: performance.now(), releasedMs: null, isToldOf: false, nothingSeen: 0 });
    this.#timer ??= setInterval(() => this.look(), LEFT_POLL_MS);
  }

  /** No ztunnel serves it any more. */
  released(uid: string): void {
    const there = this.#pods.get(uid);
    if (there === undefined || there.releasedMs !== null) return;
    there.releasedMs = performance.now();
    // What the ztunnels dialled since the rules were drained; whoever is given one of these ports all the same is waited for.
    forgetEndedDials(there.namespaceFd);
  }

  /** It is wanted again. The descriptor is the caller's. */
  takeBack(uid: string): number | null {
    const there = this.#pods.get(uid);
    this.#forget(uid);
    return there?.namespaceFd ?? null;
  }

  look(): void {
    for (const left of [...this.#pods.values()]) if (!this.#needsRules(left, performance.now())) this.#remove(left.pod, left.namespaceFd);
  }

  #needsRules(left: LeftPod, nowMs: number): boolean {
    const { pod, namespaceFd, sinceMs, releasedMs } = left;
    if (nowMs - sinceMs >= LEFT_LIMIT_MS) return false;
    if (releasedMs === null || nowMs - releasedMs < LEFT_SETTLE_MS) return true;
    const carried = countCarried(namespaceFd, podCapture(pod, this.#capture).options);
    // Sockets that cannot be listed hold nothing: rules that nobody can look behind are not kept.
    if (!carried.ok || carried.value === 0) return ++left.nothingSeen < LEFT_LOOKS;
    left.nothingSeen = 0;
    if (!left.isToldOf) this.#onNote(pod, `connections through the mesh that are still open: ${carried.value}; its rules go with the last of them`);
    left.isToldOf = true;
    return true;
  }

  async emptied(limitMs: number): Promise<void> {
    for (const deadline = performance.now() + limitMs; ; await Bun.sleep(EMPTIED_POLL_MS)) {
      this.look();
      if (this.#pods.size === 0 || performance.now() >= deadline) return;
    }
  }

  get names(): readonly string[] {
    return [...this.#pods.values()].map(({ pod }) => `${pod.namespace}/${pod.name}`);
  }

  /** At once, whatever is open. */
  removeAll(): void {
    for (const { pod, namespaceFd } of [...this.#pods.values()]) this.#remove(pod, namespaceFd);
  }

  #remove(pod: Pod, namespaceFd: number): void {
    removeRedirect(namespaceFd, podCapture(pod, this.#capture).options);
    close(namespaceFd);
    this.#forget(pod.uid);
  }

  #forget(uid: string): void {
    this.#pods.delete(uid);
    if (this.#pods.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
