// Network namespaces of pods that run already: found through the processes of the node, which name their pod in their control group.
// Needs the node's process namespace and, for other users' processes, CAP_SYS_PTRACE.

import { readdirSync, readFileSync } from "node:fs";
import { closeNamespace, namespaceIdentity, namespaceIdentityAt, openNamespace } from "../net/namespace.ts";
import { errnoName } from "../net/libc.ts";

/** A pod's UID in the names that kubelets give to control groups: with hyphens (cgroupfs) or underscores (systemd). */
const POD_GROUP = /[/-]pod([0-9a-f]{8}([-_])[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{4}\2[0-9a-f]{12}|[0-9a-f]{32})(?=[/.]|$)/m;

/** The pod a process belongs to. The outermost name counts: those further in are the pod's own to choose. @param cgroup text of /proc/PID/cgroup */
export function podOfCgroup(cgroup: string): string | null {
  for (const line of cgroup.split("\n")) {
    const uid = POD_GROUP.exec(line)?.[1];
    if (uid !== undefined) return uid.replaceAll("_", "-");
  }
  return null;
}

const READ_AGAIN_MS = 200;

export type FoundNamespace =
  /** The caller's. */
  | { readonly kind: "found"; readonly fd: number }
  | { readonly kind: "none"; readonly why: string };

export class PodNamespaces {
  readonly #proc: string;
  readonly #own: string | null;
  readonly #byPod = new Map<string, string[]>();
  #readAtMs = Number.NEGATIVE_INFINITY;

  constructor(proc = "/proc") {
    this.#proc = proc;
    this.#own = namespaceIdentityAt(`${proc}/self/ns/net`);
  }

  find(podUid: string): FoundNamespace {
    let why = "no process of it runs on this node";
    for (const pid of this.#processesOf(podUid)) {
      const fd = openNamespace(`${this.#proc}/${pid}/ns/net`);
      if (fd < 0) {
        why = `the network namespace of its process ${pid} cannot be opened: ${errnoName(fd)}`;
        continue;
      }
      // A process that has ended since may have left its number to another; and one in the node's own namespace is no use.
      if (this.#podOf(pid) === podUid && namespaceIdentity(fd) !== this.#own) return { kind: "found", fd };
      closeNamespace(fd);
    }
    return { kind: "none", why };
  }

  /** Read at most so often: at the start, every pod is asked for. */
  #processesOf(podUid: string): readonly string[] {
    if (performance.now() - this.#readAtMs >= READ_AGAIN_MS) {
      this.#byPod.clear();
      for (const pid of readdirSync(this.#proc)) {
        const uid = /^\d+$/.test(pid) ? this.#podOf(pid) : null;
        if (uid === null) continue;
        const pids = this.#byPod.get(uid);
        if (pids === undefined) this.#byPod.set(uid, [pid]);
        else pids.push(pid);
      }
      this.#readAtMs = performance.now();
    }
    return this.#byPod.get(podUid) ?? [];
  }

  #podOf(pid: string): string | null {
    try {
      return podOfCgroup(readFileSync(`${this.#proc}/${pid}/cgroup`, "utf8"));
    } catch {
      return null; // it has ended
    }
  }
}
