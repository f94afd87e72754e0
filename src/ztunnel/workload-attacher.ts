// Attaches the workloads of this node, each by itself: opens its namespace, makes its listeners, hands them to the data
// threads, and puts the redirection rules in last, so that no packet is redirected to a port that nobody listens on.
// One workload's failure is reported and retried alone.

import type { WorkloadUid } from "../core/brand.ts";
import { formatCidr } from "../core/ip.ts";
import { err, ok, type Result } from "../core/result.ts";
import type { LocalWorkload } from "../mesh/local-workload.ts";
import type { Keepalive } from "../net/dial.ts";
import { close, EADDRINUSE, errnoName, F_DUPFD_CLOEXEC, fcntl, getIntOption, SO_ACCEPTCONN, SO_MARK, setIntOption, SOL_SOCKET } from "../net/libc.ts";
import { listenTcpAnyAddress } from "../net/listen.ts";
import { ListenerPlace } from "../net/listener-place.ts";
import { ListenerRetreat, RETREAT_MS } from "../net/listener-retreat.ts";
import { inNamespace, namespaceIdentity, namespaceIdentityAt, openNamespace } from "../net/namespace.ts";
import { type RedirectOptions, REDIRECT_DEFAULTS } from "../net/redirect/options.ts";
import { type InheritedSockets, type NamedSocket, socketName, workloadOwner } from "../runtime/inherited-sockets.ts";
import type { DataThreads, ThreadAttachment } from "./data-threads.ts";
import { DNS_LISTENING_ROLES } from "./dns/workload-dns.ts";
import type { Redirection } from "./redirection.ts";

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

/**
 * How long a workload's listeners wait for those of an agent that is on its way out, where two are there already: as long as its retreat
 * takes. Then they are made all the same: three at once are better than a workload that nobody serves.
 */
const PLACE_WAIT_MS = RETREAT_MS + 1_000;
const PLACE_LOOK_MS = 20;

/** How often it is looked whether another namespace has come in the place of one that is attached. */
export const NAMESPACE_LOOK_MS = 1_000;

const PORTS = [["outbound", OUTBOUND_PORT], ["inbound-plaintext", INBOUND_PLAINTEXT_PORT], ["inbound-hbone", INBOUND_HBONE_PORT]] as const;
type ListenerRole = (typeof PORTS)[number][0];

/** One step of attaching that failed. */
export interface AttachFailure {
  readonly step: "namespace" | "listen" | "data thread" | "redirect" | "dns";
  readonly message: string;
}

/** What an attached workload holds. */
interface Attachment {
  readonly namespaceFd: number;
  readonly namespaceIdentity: string;
  readonly threadFds: ReadonlySet<number>;
  /** The listeners; the data threads' to close. */
  readonly sockets: readonly NamedSocket[];
  /** False while a predecessor still holds the rules that lead to these listeners. */
  readonly rulesOurs: boolean;
  /** Among the processes that listen there; null where too many did. */
  readonly place: ListenerPlace | null;
}

type State =
  /** `failure`: of the attempt before; null while it is tried for the first time. */
  | { readonly kind: "attaching"; readonly failure: AttachFailure | null }
  | ({ readonly kind: "attached" } & Attachment)
  /** Nothing new is redirected; the listeners take what is still on its way, until the timer fires or the workload comes back. */
  | ({ readonly kind: "leaving"; readonly timer: ReturnType<typeof setTimeout> } & Attachment)
  | { readonly kind: "failed"; readonly failure: AttachFailure; readonly attempts: number; readonly retryAtMs: number; readonly inherited: boolean };

interface Entry {
  wanted: LocalWorkload;
  state: State;
}

export interface WorkloadHooks {
  /** Starts what else lives in the namespace (DNS). A failure fails the attachment. @param owner names its sockets. */
  started(workload: LocalWorkload, namespaceFd: number, owner: string): Promise<Result<readonly NamedSocket[], string>>;
  /** Takes nothing new any more; what is under way is brought to its end. */
  draining(uid: WorkloadUid): void;
  stopped(uid: WorkloadUid): void;
  /** Sockets that outlive the process where somebody keeps them; and names of those that are about to be closed for good. */
  opened(sockets: readonly NamedSocket[]): void;
  closing(names: readonly string[]): void;
  /** Out of the mesh: its listeners are closed. */
  left(uid: WorkloadUid): void;
  /** Something an operator should know of a workload that was attached. */
  note(uid: WorkloadUid, note: string): void;
  /** For who wants to follow it: one step of attaching is done, or an attempt failed. */
  step(uid: WorkloadUid, step: string): void;
  /** Attached, or failed: the first failure only. */
  report(uid: WorkloadUid, failure: AttachFailure | null): void;
}

export interface AttacherOptions {
  readonly threads: DataThreads;
  readonly hooks: WorkloadHooks;
  readonly packetMark: number;
  /** Who makes the rules that lead to the listeners. */
  readonly redirection: Redirection;
  /** Names this process in the rules, so that a predecessor does not take away what is ours. */
  readonly owner: string;
  /** What a workload gets that does not say itself whether its DNS is captured. */
  readonly dnsCapture: boolean;
  readonly keepalive: Keepalive;
  /** Listeners from before this process. */
  readonly inherited: InheritedSockets;
  readonly nowMs: () => number;
}

export class WorkloadAttacher {
  readonly #options: AttacherOptions;
  readonly #entries = new Map<WorkloadUid, Entry>();
  /** Left the mesh, with connections still open: rules that redirect nothing new stay until the last one has ended. */
  readonly #draining = new Set<{ readonly workload: LocalWorkload; readonly namespaceFd: number; readonly threadFds: Set<number> }>();
  #timer: ReturnType<typeof setTimeout> | null = null;
  readonly #lookTimer: ReturnType<typeof setInterval>;
  #stopped = false;
  /** What was wanted last, kept while frozen. */
  #wanted: { readonly captured: readonly LocalWorkload[]; readonly known: (uid: WorkloadUid) => boolean } | null = null;
  #frozen = false;
  /** A predecessor has connections open that need the rules' translation: rules are not taken away before it has ended. */
  #predecessorDrains = false;
  readonly #removals: { readonly workload: LocalWorkload; readonly namespaceFd: number }[] = [];

  constructor(options: AttacherOptions) {
    this.#options = options;
    this.#predecessorDrains = this.#frozen = options.inherited.shared;
    this.#lookTimer = setInterval(() => this.#lookAtNamespaces(), NAMESPACE_LOOK_MS);
  }

  /** The captured workloads of this node, all of them: what is not named is released, or has gone when `known` no longer holds it. */
  want(captured: readonly LocalWorkload[], known: (uid: WorkloadUid) => boolean): void {
    const first = this.#wanted === null;
    this.#wanted = { captured, known };
    if (this.#stopped || (this.#frozen && !first)) return;
    const wanted = new Map(captured.map((workload) => [workload.uid, workload]));
    for (const [uid, entry] of this.#entries) {
      const next = wanted.get(uid);
      if (next === undefined) this.#release(entry, known(uid) ? "released" : "gone");
      else if (!sameAttachment(entry.wanted, next)) this.#letGo(entry, "released");
      else if (entry.state.kind === "leaving") this.#comeBack(entry, entry.state);
    }
    for (const workload of captured) {
      if (!this.#entries.has(workload.uid)) this.#start(workload);
    }
  }

  #start(workload: LocalWorkload): void {
    const entry: Entry = { wanted: workload, state: { kind: "attaching", failure: null } };
    this.#entries.set(workload.uid, entry);
    void this.#attach(entry, 0);
  }

  /** Workloads that are wanted and not attached; `failure` is null while one is tried for the first time, else why it failed last. */
  get pending(): { uid: WorkloadUid; failure: AttachFailure | null }[] {
    return [...this.#entries.values()].flatMap(({ wanted: { uid }, state }) => (state.kind === "attaching" || state.kind === "failed" ? [{ uid, failure: state.failure }] : []));
  }

  /** Every captured workload and how far it is. */
  get states(): { uid: WorkloadUid; state: string }[] {
    return [...this.#entries].map(([uid, { state }]) => ({ uid, state: state.kind === "failed" ? `failed: ${state.failure.step}: ${state.failure.message}` : state.kind }));
  }

  /** Null when it is attached, its failure when it is not; undefined while it is tried for the first time, or is not wanted. */
  outcome(uid: WorkloadUid): AttachFailure | null | undefined {
    const state = this.#entries.get(uid)?.state;
    switch (state?.kind) {
      case undefined:
      case "leaving":
        return undefined;
      case "attaching":
        return state.failure ?? undefined;
      case "attached":
        return null;
      case "failed":
        return state.failure;
    }
  }

  /** Whether anything of the workload is here still: listeners, or connections from before it left. */
  holds(uid: WorkloadUid): boolean {
    return this.#entries.has(uid) || [...this.#draining].some(({ workload }) => workload.uid === uid);
  }

  get attachedCount(): number {
    return [...this.#entries.values()].filter((entry) => entry.state.kind === "attached").length;
  }

  // Handover. Between offer and outcome nothing is attached or released here, nor by the successor beyond what it finds: two processes
  // serve the same listeners.

  /** Listeners of every workload that is in the mesh, by workload. From here on nothing changes, until `thaw` or `stop`. */
  offer(): ReadonlyMap<WorkloadUid, readonly NamedSocket[]> {
    this.#frozen = true;
    return new Map([...this.#entries].flatMap(([uid, { state }]) => (state.kind === "attached" ? [[uid, state.sockets] as const] : [])));
  }

  /** The successor did not come up: the rules are ours again, whatever it did, and what changed meanwhile is made up for. */
  thaw(): void {
    if (!this.#frozen) return;
    this.#frozen = false;
    for (const entry of this.#entries.values()) if (entry.state.kind === "attached") this.#installRules(entry, entry.state);
    if (this.#wanted !== null) this.want(this.#wanted.captured, this.#wanted.known);
    this.#armRetry();
  }

  /** Null when every workload is attached, or failed for a reason that is not the listeners' it inherited; else what is waited for. */
  get unsettled(): string | null {
    for (const { wanted, state } of this.#entries.values()) {
      if (state.kind === "attaching") return `${wanted.uid} is being attached`;
      if (state.kind === "failed" && state.inherited) return `${wanted.uid}: ${state.failure.step}: ${state.failure.message}`;
    }
    return null;
  }

  /** The predecessor has stopped accepting: its rules are ours now, and what changed meanwhile is made up for. */
  claimRules(): void {
    this.#frozen = false;
    for (const entry of this.#entries.values()) {
      if (entry.state.kind === "attached" && !entry.state.rulesOurs) this.#installRules(entry, { ...entry.state, rulesOurs: true });
    }
    if (this.#wanted !== null) this.want(this.#wanted.captured, this.#wanted.known);
    this.#armRetry();
  }

  /** The predecessor's last connection has ended. */
  predecessorEnded(): void {
    this.#predecessorDrains = false;
    for (const { workload, namespaceFd } of this.#removals.splice(0)) this.#endRedirect(workload, namespaceFd);
  }

  /** Puts the rules in force for a workload whose listeners are there. A failure releases it, to be tried again. */
  #installRules(entry: Entry, attached: Attachment): void {
    const redirected = this.#options.redirection.install(attached.namespaceFd, this.#redirectOptions(entry.wanted));
    if (redirected.ok) {
      entry.state = { ...attached, kind: "attached" };
      return;
    }
    this.#leave(entry.wanted, attached, "released");
    this.#failed(entry, { step: "redirect", message: redirected.error.message }, { attempts: 0, inherited: false });
  }

  /** The node is ending: attaches nothing any more. With `leaveMesh` nothing new is redirected; else a successor holds the rules. */
  stop(leaveMesh: boolean): void {
    this.#stopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    clearInterval(this.#lookTimer);
    for (const { wanted, state } of this.#entries.values()) {
      if (state.kind !== "attached" && state.kind !== "leaving") continue;
      if (state.kind === "leaving") clearTimeout(state.timer);
      this.#options.hooks.draining(wanted.uid);
      if (leaveMesh) this.#options.redirection.drain(state.namespaceFd, this.#redirectOptions(wanted));
    }
  }

  /** The node is ending beside a successor with listeners of its own, or may be: those of ours that are in the mesh are given nothing new. */
  retreat(): ListenerRetreat {
    return ListenerRetreat.begin([...this.#entries.values()].flatMap(({ wanted, state }) => {
      if (state.kind !== "attached") return [];
      const others = state.place?.isSecond === true ? "first" : "last";
      const owner = workloadOwner(wanted.uid, state.namespaceIdentity);
      return [...PORTS.map(([role]) => role), ...DNS_LISTENING_ROLES].flatMap((role) => {
        const fds = state.sockets.filter(({ name }) => name === socketName(owner, role)).map(({ fd }) => fd);
        return fds.length === 0 ? [] : [{ fds, others } as const];
      });
    }));
  }

  /** Our listeners are closed, or a successor's: whoever comes need not wait for us. */
  releasePlaces(): void {
    for (const { state } of this.#entries.values()) if (state.kind === "attached" || state.kind === "leaving") state.place?.release();
  }

  /** After the last connection: leaves the namespaces as they were found, or to the successor. */
  finish(leaveMesh: boolean): void {
    for (const { wanted, state } of this.#entries.values()) {
      if (state.kind !== "attached" && state.kind !== "leaving") continue;
      this.#options.hooks.stopped(wanted.uid);
      state.place?.release();
      if (leaveMesh || state.kind === "leaving") this.#options.redirection.remove(state.namespaceFd, this.#redirectOptions(wanted));
      close(state.namespaceFd);
    }
    for (const { workload, namespaceFd } of this.#draining) {
      this.#options.redirection.remove(namespaceFd, this.#redirectOptions(workload));
      close(namespaceFd);
    }
    this.#draining.clear();
    this.#entries.clear();
  }

  async #attach(entry: Entry, attempts: number): Promise<void> {
    entry.state = { kind: "attaching", failure: entry.state.kind === "failed" ? entry.state.failure : null };
    const inherited = { any: false };
    const outcome = await this.#tryAttach(entry.wanted, inherited);
    if (this.#stopped || this.#entries.get(entry.wanted.uid) !== entry) {
      if (outcome.ok) this.#leave(entry.wanted, outcome.value, "released");
      return;
    }
    if (outcome.ok) {
      entry.state = { kind: "attached", ...outcome.value };
      this.#options.hooks.report(entry.wanted.uid, null);
      return;
    }
    this.#failed(entry, outcome.error, { attempts, inherited: inherited.any });
  }

  #failed(entry: Entry, failure: AttachFailure, { attempts, inherited }: { readonly attempts: number; readonly inherited: boolean }): void {
    const waitMs = Math.min(RETRY_MS_MAX, RETRY_FIRST_MS * 2 ** attempts);
    entry.state = { kind: "failed", failure, attempts: attempts + 1, retryAtMs: this.#options.nowMs() + waitMs, inherited };
    this.#options.hooks.step(entry.wanted.uid, `attempt ${attempts + 1} failed (${failure.step}: ${failure.message}), the next in ${waitMs} ms`);
    if (attempts === 0) this.#options.hooks.report(entry.wanted.uid, failure);
    this.#armRetry();
  }

  /** @param inherited told whether the workload had listeners from before. */
  async #tryAttach(workload: LocalWorkload, inherited: { any: boolean }): Promise<Result<Attachment, AttachFailure>> {
    const path = pathOf(workload);
    const namespaceFd = openNamespace(path);
    if (namespaceFd < 0) return failed("namespace", `cannot open network namespace ${path}: ${errnoName(namespaceFd)}`);
    const problem = entryProblem(namespaceFd);
    if (problem !== null) {
      close(namespaceFd);
      return failed("namespace", `${path}: ${problem}`);
    }
    const identity = namespaceIdentity(namespaceFd);
    const owner = workloadOwner(workload.uid, identity);
    const place = await this.#takePlace(namespaceFd);
    const made = this.#makeListeners({ path, namespaceFd, owner }, inherited);
    if (!made.ok) {
      place?.release();
      close(namespaceFd);
      return made;
    }
    const { attachments, sockets } = made.value;
    const step = (words: string) => this.#options.hooks.step(workload.uid, words);
    step(`${sockets.length} listeners in ${path} (${identity})${inherited.any ? ", some of them from before" : ""}`);
    const refused = await this.#options.threads.attach(workload.uid, attachments);
    if (refused !== null) {
      this.#undo(workload, namespaceFd, place);
      return failed("data thread", refused);
    }
    step("the data threads have the listeners");
    const started = await this.#options.hooks.started(workload, namespaceFd, owner);
    if (!started.ok) {
      this.#undo(workload, namespaceFd, place);
      return failed("dns", started.error);
    }
    if (started.value.length > 0) step(`${started.value.length} sockets for DNS`);
    const rulesOurs = !(inherited.any && this.#options.inherited.shared);
    if (rulesOurs) {
      const redirected = this.#options.redirection.install(namespaceFd, this.#redirectOptions(workload));
      if (!redirected.ok) {
        this.#undo(workload, namespaceFd, place);
        return failed("redirect", redirected.error.message);
      }
      step("the redirection rules are in force");
      for (const note of redirected.value.notes) this.#options.hooks.note(workload.uid, note);
    }
    const open = [...sockets, ...started.value];
    this.#options.hooks.opened(open);
    return ok({ namespaceFd, namespaceIdentity: identity, threadFds: new Set(attachments.map((attachment) => attachment.namespaceFd)), sockets: open, rulesOurs, place });
  }

  async #takePlace(namespaceFd: number): Promise<ListenerPlace | null> {
    for (const untilMs = this.#options.nowMs() + PLACE_WAIT_MS; ; ) {
      const place = ListenerPlace.take(namespaceFd);
      if (place !== null || this.#stopped || this.#options.nowMs() >= untilMs) return place;
      await new Promise<void>((resolve) => setTimeout(resolve, PLACE_LOOK_MS));
    }
  }

  /**
   * Listeners for each data thread, all or none: those from before, dealt out among the threads, and new ones where there are none.
   * None from before is left out: its queue would be lost with it.
   */
  #makeListeners(at: { readonly path: string; readonly namespaceFd: number; readonly owner: string }, inherited: { any: boolean }): Result<{ attachments: ThreadAttachment[]; sockets: NamedSocket[] }, AttachFailure> {
    const { threads, packetMark, keepalive } = this.#options;
    const before = new Map(PORTS.map(([role]) => [role, this.#inheritedListeners(at.owner, role)]));
    inherited.any = [...before.values()].some((fds) => fds.length > 0);
    const attachments: ThreadAttachment[] = [];
    const sockets: NamedSocket[] = [];
    const opened: number[] = [];
    const giveUp = (message: string) => {
      for (const fd of [...opened, ...[...before.values()].flat()]) close(fd);
      return failed("listen", message);
    };
    for (let thread = 0; thread < threads.count; thread++) {
      const namespaceFd = fcntl(at.namespaceFd, F_DUPFD_CLOEXEC, 0);
      if (namespaceFd < 0) return giveUp(`cannot keep ${at.path} open: ${errnoName(namespaceFd)}`);
      opened.push(namespaceFd);
      const listeners = new Map<ListenerRole, number[]>();
      for (const [role, port] of PORTS) {
        const fds = before.get(role)!.filter((_, i) => i % threads.count === thread);
        if (fds.length === 0) {
          const fd = listenTcpAnyAddress({ namespaceFd, port, mark: packetMark, keepalive: role === "inbound-hbone" ? null : keepalive, shared: true });
          if (fd < 0) return giveUp(`cannot listen on port ${port} in ${at.path}: ${errnoName(fd)}${portHint(fd)}`);
          opened.push(fd);
          fds.push(fd);
        }
        listeners.set(role, fds);
        for (const fd of fds) sockets.push({ name: socketName(at.owner, role), fd });
      }
      attachments.push({ namespaceFd, listeners: { outboundFds: listeners.get("outbound")!, inboundPlaintextFds: listeners.get("inbound-plaintext")!, inboundHboneFds: listeners.get("inbound-hbone")! } });
    }
    return ok({ attachments, sockets });
  }

  /** Those that listen; our mark is put on again, as the setting may be another now. */
  #inheritedListeners(owner: string, role: ListenerRole): number[] {
    return this.#options.inherited.take(socketName(owner, role)).filter((fd) => {
      const usable = getIntOption(fd, SOL_SOCKET, SO_ACCEPTCONN) === 1 && setIntOption(fd, SOL_SOCKET, SO_MARK, this.#options.packetMark) >= 0;
      if (!usable) close(fd);
      return usable;
    });
  }

  /** A namespace that came in the place of one that is attached is another workload's life: the old one's has ended. */
  #lookAtNamespaces(): void {
    if (this.#frozen || this.#stopped) return;
    for (const [uid, entry] of this.#entries) {
      const { wanted, state } = entry;
      if (wanted.networkNamespace.kind === "host" || (state.kind !== "attached" && state.kind !== "leaving")) continue;
      const identity = namespaceIdentityAt(wanted.networkNamespace.path);
      if (identity === null || identity === state.namespaceIdentity) continue;
      this.#options.hooks.note(uid, `another network namespace is at ${wanted.networkNamespace.path} now: it is attached in the place of the old one`);
      const again = state.kind === "attached";
      this.#letGo(entry, "gone");
      if (again) this.#start(wanted);
    }
  }

  #release(entry: Entry, mode: "gone" | "released"): void {
    const { state } = entry;
    if (mode === "gone" || state.kind === "attaching" || state.kind === "failed") return this.#letGo(entry, mode);
    if (state.kind === "leaving") return;
    this.#drainRules(entry.wanted, state.namespaceFd);
    this.#options.hooks.step(entry.wanted.uid, `nothing new is redirected; its listeners close in ${LEAVE_MS} ms`);
    entry.state = { ...state, kind: "leaving", timer: setTimeout(() => this.#letGo(entry, "released"), LEAVE_MS) };
  }

  /** Wanted again before its listeners were closed: only the rules come back. */
  #comeBack(entry: Entry, state: Extract<State, { kind: "leaving" }>): void {
    clearTimeout(state.timer);
    const redirected = this.#options.redirection.install(state.namespaceFd, this.#redirectOptions(entry.wanted));
    if (!redirected.ok) {
      this.#letGo(entry, "released"); // and `want` attaches it anew
      return;
    }
    const { timer: _, ...attachment } = state;
    entry.state = { ...attachment, kind: "attached", rulesOurs: true };
    this.#options.hooks.report(entry.wanted.uid, null);
  }

  #letGo(entry: Entry, mode: "gone" | "released"): void {
    const { state } = entry;
    if (state.kind === "leaving") clearTimeout(state.timer);
    this.#entries.delete(entry.wanted.uid);
    if (state.kind === "attached" || state.kind === "leaving") this.#leave(entry.wanted, state, mode);
  }

  #drainRules(workload: LocalWorkload, namespaceFd: number): void {
    const drained = this.#options.redirection.drain(namespaceFd, this.#redirectOptions(workload));
    if (!drained.ok && drained.error.code !== "redirect_superseded") this.#options.hooks.note(workload.uid, drained.error.message);
  }

  /** Out of the mesh: nothing new is redirected; what is open ends now (`gone`) or by itself (`released`). */
  #leave(workload: LocalWorkload, { namespaceFd, threadFds, sockets, place }: Attachment, mode: "gone" | "released"): void {
    place?.release();
    this.#drainRules(workload, namespaceFd);
    this.#draining.add({ workload, namespaceFd, threadFds: new Set(threadFds) });
    this.#options.hooks.closing(sockets.map(({ name }) => name));
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
    if (this.#predecessorDrains) return void this.#removals.push({ workload, namespaceFd });
    const inUse = this.#entries.has(workload.uid) || [...this.#draining].some((other) => other.workload.uid === workload.uid);
    if (!inUse) this.#options.redirection.remove(namespaceFd, this.#redirectOptions(workload));
    close(namespaceFd);
  }

  /** An attachment that failed half-way. Rules first, listeners last: nothing is redirected to a closed port. */
  #undo(workload: LocalWorkload, namespaceFd: number, place: ListenerPlace | null): void {
    this.#options.redirection.remove(namespaceFd, this.#redirectOptions(workload));
    this.#options.hooks.stopped(workload.uid);
    this.#options.threads.post({ kind: "detach", uid: workload.uid, mode: "released" });
    place?.release();
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
      if (this.#frozen) return; // thaw() goes on with it
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

const pathOf = ({ networkNamespace }: LocalWorkload): string => (networkNamespace.kind === "host" ? OWN_NAMESPACE : networkNamespace.path);

/** Null when the namespace can be entered: the file at its path may be something else, or not be mounted yet. */
function entryProblem(namespaceFd: number): string | null {
  try {
    return inNamespace(namespaceFd, () => null);
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause);
  }
}

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
