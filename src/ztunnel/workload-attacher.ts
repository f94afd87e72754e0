// Attaches the workloads of this node, each by itself: opens its namespace, makes its listeners, hands them to the data
// threads, and puts the redirection rules in last, so that no packet is redirected to a port that nobody listens on.
// One workload's failure is reported and retried alone.

import type { WorkloadUid } from "../core/brand.ts";
import { formatCidr } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { Keepalive } from "../net/dial.ts";
import { close, EADDRINUSE, errnoName } from "../net/libc.ts";
import { listenTcpAnyAddress } from "../net/listen.ts";
import { openNamespace } from "../net/namespace.ts";
import { type RedirectOptions, REDIRECT_DEFAULTS } from "../net/redirect/options.ts";
import { drainRedirect, installRedirect, removeRedirect } from "../net/redirect/redirect.ts";
import type { DataThreads } from "./data-threads.ts";
import type { WorkloadListeners } from "./messages.ts";

export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;
export const INBOUND_HBONE_PORT = 15008;

/** First and longest wait before a workload that could not be attached is tried again. */
export const RETRY_FIRST_MS = 250;
export const RETRY_MS_MAX = 5_000;

/**
 * How long the listeners of a workload that left the mesh stay: connections that were redirected before the rules went may still be in
 * their handshake, and other nodes may not have heard of it yet. Longer than the kernel's first retransmission of a SYN.
 */
export const LEAVE_MS = 1_500;

/** One step of attaching that failed. */
export interface AttachFailure {
  readonly step: "namespace" | "listen" | "data thread" | "redirect" | "dns";
  readonly message: string;
}

/** What an attached workload holds. */
interface Attachment {
  readonly namespaceFd: number;
  readonly threadFds: ReadonlySet<number>;
}

type State =
  | { readonly kind: "attaching" }
  | ({ readonly kind: "attached" } & Attachment)
  /** Nothing new is redirected; the listeners take what is still on its way, until the timer fires or the workload comes back. */
  | ({ readonly kind: "leaving"; readonly timer: ReturnType<typeof setTimeout> } & Attachment)
  | { readonly kind: "failed"; readonly failure: AttachFailure; readonly attempts: number; readonly retryAtMs: number };

interface Entry {
  wanted: LocalWorkload;
  state: State;
}

export interface WorkloadHooks {
  /** Starts what else lives in the namespace (DNS). A failure fails the attachment. */
  started(workload: LocalWorkload, namespaceFd: number): Promise<Result<void, string>>;
  stopped(uid: WorkloadUid): void;
  /** Out of the mesh: its listeners are closed. */
  left(uid: WorkloadUid): void;
  /** Something an operator should know of a workload that was attached. */
  note(uid: WorkloadUid, note: string): void;
  report(uid: WorkloadUid, failure: AttachFailure | null): void;
}

export interface AttacherOptions {
  readonly threads: DataThreads;
  readonly hooks: WorkloadHooks;
  readonly packetMark: number;
  /** Names this process in the rules, so that a predecessor does not take away what is ours. */
  readonly owner: string;
  /** What a workload gets that does not say itself whether its DNS is captured. */
  readonly dnsCapture: boolean;
  readonly keepalive: Keepalive;
  readonly nowMs: () => number;
}

export class WorkloadAttacher {
  readonly #options: AttacherOptions;
  readonly #entries = new Map<WorkloadUid, Entry>();
  /** Left the mesh, with connections still open: rules that redirect nothing new stay until the last one has ended. */
  readonly #draining = new Set<{ readonly workload: LocalWorkload; readonly namespaceFd: number; readonly threadFds: Set<number> }>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  #stopped = false;

  constructor(options: AttacherOptions) {
    this.#options = options;
  }

  /** The captured workloads of this node, all of them: what is not named is released, or has gone when `known` no longer holds it. */
  want(captured: readonly LocalWorkload[], known: (uid: WorkloadUid) => boolean): void {
    const wanted = new Map(captured.map((workload) => [workload.uid, workload]));
    for (const [uid, entry] of this.#entries) {
      const next = wanted.get(uid);
      if (next === undefined) this.#release(entry, known(uid) ? "released" : "gone");
      else if (!sameAttachment(entry.wanted, next)) this.#letGo(entry, "released");
      else if (entry.state.kind === "leaving") this.#comeBack(entry, entry.state);
    }
    for (const workload of captured) {
      if (this.#entries.has(workload.uid)) continue;
      const entry: Entry = { wanted: workload, state: { kind: "attaching" } };
      this.#entries.set(workload.uid, entry);
      void this.#attach(entry, 0);
    }
  }

  /** Workloads that are wanted and not attached yet, with the reason of those that failed. */
  get pending(): { uid: WorkloadUid; failure: AttachFailure | null }[] {
    return [...this.#entries.values()]
      .filter(({ state }) => state.kind === "attaching" || state.kind === "failed")
      .map((entry) => ({ uid: entry.wanted.uid, failure: entry.state.kind === "failed" ? entry.state.failure : null }));
  }

  /** Every captured workload and how far it is. */
  get states(): { uid: WorkloadUid; state: string }[] {
    return [...this.#entries].map(([uid, { state }]) => ({ uid, state: state.kind === "failed" ? `failed: ${state.failure.step}: ${state.failure.message}` : state.kind }));
  }

  /** Whether anything of the workload is here still: listeners, or connections from before it left. */
  holds(uid: WorkloadUid): boolean {
    return this.#entries.has(uid) || [...this.#draining].some(({ workload }) => workload.uid === uid);
  }

  get attachedCount(): number {
    return [...this.#entries.values()].filter((entry) => entry.state.kind === "attached").length;
  }

  /** The node is ending: attaches nothing any more. With `leaveMesh` nothing new is redirected; else a successor holds the rules. */
  stop(leaveMesh: boolean): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    for (const { wanted, state } of this.#entries.values()) {
      if (state.kind !== "attached" && state.kind !== "leaving") continue;
      if (state.kind === "leaving") clearTimeout(state.timer);
      this.#options.hooks.stopped(wanted.uid);
      if (leaveMesh) drainRedirect(state.namespaceFd, this.#redirectOptions(wanted));
    }
  }

  /** After the last connection: leaves the namespaces as they were found, or to the successor. */
  finish(leaveMesh: boolean): void {
    for (const { wanted, state } of this.#entries.values()) {
      if (state.kind !== "attached" && state.kind !== "leaving") continue;
      if (leaveMesh || state.kind === "leaving") removeRedirect(state.namespaceFd, this.#redirectOptions(wanted));
      close(state.namespaceFd);
    }
    for (const { workload, namespaceFd } of this.#draining) {
      removeRedirect(namespaceFd, this.#redirectOptions(workload));
      close(namespaceFd);
    }
    this.#draining.clear();
    this.#entries.clear();
  }

  async #attach(entry: Entry, attempts: number): Promise<void> {
    entry.state = { kind: "attaching" };
    const outcome = await this.#tryAttach(entry.wanted);
    if (this.#stopped || this.#entries.get(entry.wanted.uid) !== entry) {
      if (outcome.ok) this.#leave(entry.wanted, outcome.value, "released");
      return;
    }
    if (outcome.ok) {
      entry.state = { kind: "attached", ...outcome.value };
      this.#options.hooks.report(entry.wanted.uid, null);
      return;
    }
    const waitMs = Math.min(RETRY_MS_MAX, RETRY_FIRST_MS * 2 ** attempts);
    entry.state = { kind: "failed", failure: outcome.error, attempts: attempts + 1, retryAtMs: this.#options.nowMs() + waitMs };
    if (attempts === 0) this.#options.hooks.report(entry.wanted.uid, outcome.error);
    this.#armRetry();
  }

  async #tryAttach(workload: LocalWorkload): Promise<Result<Attachment, AttachFailure>> {
    const path = workload.networkNamespace.kind === "host" ? OWN_NAMESPACE : workload.networkNamespace.path;
    const namespaceFd = openNamespace(path);
    if (namespaceFd < 0) return failed("namespace", `cannot open network namespace ${path}: ${errnoName(namespaceFd)}`);
    const attachments = this.#makeListeners(path);
    if (!attachments.ok) {
      close(namespaceFd);
      return attachments;
    }
    const refused = await this.#options.threads.attach(workload.uid, attachments.value);
    if (refused !== null) {
      this.#undo(workload, namespaceFd, "released");
      return failed("data thread", refused);
    }
    const started = await this.#options.hooks.started(workload, namespaceFd);
    if (!started.ok) {
      this.#undo(workload, namespaceFd, "released");
      return failed("dns", started.error);
    }
    const redirected = installRedirect(namespaceFd, this.#redirectOptions(workload));
    if (!redirected.ok) {
      this.#undo(workload, namespaceFd, "released");
      return failed("redirect", redirected.error.message);
    }
    for (const note of redirected.value.notes) this.#options.hooks.note(workload.uid, note);
    return ok({ namespaceFd, threadFds: new Set(attachments.value.map((attachment) => attachment.namespaceFd)) });
  }

  /** One set of listeners for each data thread; all or none. */
  #makeListeners(path: string): Result<{ namespaceFd: number; listeners: WorkloadListeners }[], AttachFailure> {
    const made: { namespaceFd: number; listeners: WorkloadListeners }[] = [];
    const opened: number[] = [];
    for (let i = 0; i < this.#options.threads.count; i++) {
      const namespaceFd = openNamespace(path);
      const ports = [OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, INBOUND_HBONE_PORT];
      const fds = namespaceFd < 0 ? [namespaceFd] : ports.map((port) => listenTcpAnyAddress({ namespaceFd, port, mark: this.#options.packetMark, keepalive: port === INBOUND_HBONE_PORT ? null : this.#options.keepalive }));
      opened.push(namespaceFd, ...fds);
      const bad = fds.findIndex((fd) => fd < 0);
      if (bad >= 0) {
        for (const fd of opened) if (fd >= 0) close(fd);
        return failed("listen", `cannot listen on port ${ports[bad]} in ${path}: ${errnoName(fds[bad]!)}${portHint(fds[bad]!)}`);
      }
      made.push({ namespaceFd, listeners: { outboundFd: fds[0]!, inboundPlaintextFd: fds[1]!, inboundHboneFd: fds[2]! } });
    }
    return ok(made);
  }

  #release(entry: Entry, mode: "gone" | "released"): void {
    const { state } = entry;
    if (mode === "gone" || state.kind === "attaching" || state.kind === "failed") return this.#letGo(entry, mode);
    if (state.kind === "leaving") return;
    this.#drainRules(entry.wanted, state.namespaceFd);
    entry.state = { ...state, kind: "leaving", timer: setTimeout(() => this.#letGo(entry, "released"), LEAVE_MS) };
  }

  /** Wanted again before its listeners were closed: only the rules come back. */
  #comeBack(entry: Entry, state: Extract<State, { kind: "leaving" }>): void {
    clearTimeout(state.timer);
    const redirected = installRedirect(state.namespaceFd, this.#redirectOptions(entry.wanted));
    if (!redirected.ok) {
      this.#letGo(entry, "released"); // and `want` attaches it anew
      return;
    }
    const { namespaceFd, threadFds } = state;
    entry.state = { kind: "attached", namespaceFd, threadFds };
    this.#options.hooks.report(entry.wanted.uid, null);
  }

  #letGo(entry: Entry, mode: "gone" | "released"): void {
    const { state } = entry;
    if (state.kind === "leaving") clearTimeout(state.timer);
    this.#entries.delete(entry.wanted.uid);
    if (state.kind === "attached" || state.kind === "leaving") this.#leave(entry.wanted, state, mode);
  }

  #drainRules(workload: LocalWorkload, namespaceFd: number): void {
    const drained = drainRedirect(namespaceFd, this.#redirectOptions(workload));
    if (!drained.ok && drained.error.code !== "redirect_superseded") this.#options.hooks.note(workload.uid, drained.error.message);
  }

  /** Out of the mesh: nothing new is redirected; what is open ends now (`gone`) or by itself (`released`). */
  #leave(workload: LocalWorkload, { namespaceFd, threadFds }: Attachment, mode: "gone" | "released"): void {
    this.#drainRules(workload, namespaceFd);
    this.#draining.add({ workload, namespaceFd, threadFds: new Set(threadFds) });
    this.#options.hooks.stopped(workload.uid);
    this.#options.threads.post({ kind: "detach", uid: workload.uid, mode });
    this.#options.hooks.left(workload.uid);
  }

  /** A data thread has closed the last connection of a workload that left. */
  releasedByThread(uid: WorkloadUid, namespaceFd: number): void {
    for (const draining of this.#draining) {
      if (draining.workload.uid !== uid || !draining.threadFds.delete(namespaceFd) || draining.threadFds.size > 0) continue;
      this.#draining.delete(draining);
      this.#endRedirect(draining.workload, draining.namespaceFd);
    }
  }

  /** Takes the rules away, unless they are in use: the workload has come back, or connections of an earlier stay are still open. */
  #endRedirect(workload: LocalWorkload, namespaceFd: number): void {
    const inUse = this.#entries.has(workload.uid) || [...this.#draining].some((other) => other.workload.uid === workload.uid);
    if (!inUse) removeRedirect(namespaceFd, this.#redirectOptions(workload));
    close(namespaceFd);
  }

  /** An attachment that failed half-way. Rules first, listeners last: nothing is redirected to a closed port. */
  #undo(workload: LocalWorkload, namespaceFd: number, mode: "gone" | "released"): void {
    removeRedirect(namespaceFd, this.#redirectOptions(workload));
    this.#options.hooks.stopped(workload.uid);
    this.#options.threads.post({ kind: "detach", uid: workload.uid, mode });
    close(namespaceFd);
  }

  #redirectOptions(workload: LocalWorkload): RedirectOptions {
    const { owner, packetMark, dnsCapture } = this.#options;
    return {
      ...REDIRECT_DEFAULTS,
      owner,
      scope: workload.networkNamespace.kind === "host" ? "host" : "workload",
      dnsCapture: workload.dnsCapture ?? dnsCapture,
      inboundCapture: workload.inboundCapture,
      exclusions: workload.exclusions,
      packetMark: { value: packetMark, mask: REDIRECT_DEFAULTS.packetMark.mask },
    };
  }

  #armRetry(): void {
    if (this.#timer !== null || this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      const nowMs = this.#options.nowMs();
      for (const entry of this.#entries.values()) {
        if (entry.state.kind === "failed" && entry.state.retryAtMs <= nowMs) void this.#attach(entry, entry.state.attempts);
      }
      if (this.pending.some(({ failure }) => failure !== null)) this.#armRetry();
    }, RETRY_FIRST_MS);
  }
}

function failed(step: AttachFailure["step"], message: string): Result<never, AttachFailure> {
  return err({ step, message });
}

const OWN_NAMESPACE = "/proc/self/ns/net";

/** True when nothing changed that the kernel was told. */
function sameAttachment(a: LocalWorkload, b: LocalWorkload): boolean {
  const told = ({ networkNamespace, inboundCapture, dnsCapture, exclusions }: LocalWorkload) => JSON.stringify([
    networkNamespace, inboundCapture, dnsCapture, { ...exclusions, outboundCidrs: exclusions.outboundCidrs.map(formatCidr) },
  ]);
  return told(a) === told(b);
}

function portHint(errno: number): string {
  return errno === -EADDRINUSE ? "; a program in this namespace holds the port, or a proxy runs there under another user" : "";
}
