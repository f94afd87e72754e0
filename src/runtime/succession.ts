// How a process comes into its state directory: first to it, after one that crashed, or in the place of one that is running.

import { ok, err, type Result } from "../core/result.ts";
import { F_SETFD, FD_CLOEXEC, fcntl } from "../net/libc.ts";
import { EXCHANGE_MS, HANDOVER_SOCKET, takeOver, type Takeover, type TakeoverFault } from "./handover.ts";
import { InheritedSockets, type NamedSocket, PROCESS_OWNER, socketName } from "./inherited-sockets.ts";
import { passedDescriptors } from "./service-manager.ts";
import { StateLock } from "./state-lock.ts";

export const LOCK_NAME = socketName(PROCESS_OWNER, "lock");

export interface SuccessionOptions {
  /** The state directory. */
  readonly state: string;
  readonly role: string;
  /** False: a running process is not asked, and its state directory is found locked. */
  readonly handover: boolean;
  /** What a service manager passed is found here. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly exchangeMs?: number;
}

export interface Succession {
  readonly lock: StateLock;
  readonly inherited: InheritedSockets;
  /** Null when nobody was there to take over from. */
  readonly takeover: Takeover | null;
}

/** @returns the sockets that there are, and the lock; or why this process must not start, in words for the operator. */
export async function enterState(options: SuccessionOptions): Promise<Result<Succession, string>> {
  const { state, role } = options;
  const passed = passedDescriptors(options.environment, process.pid);
  // Passed on purpose to us, not to what we start.
  for (const { fd } of passed) fcntl(fd, F_SETFD, FD_CLOEXEC);
  if (options.handover) {
    const asked = await takeOver({ path: `${state}/${HANDOVER_SOCKET}`, role, ...(options.exchangeMs === undefined ? {} : { exchangeMs: options.exchangeMs }) });
    if (!asked.ok) return err(refusal(asked.error, state, options.exchangeMs ?? EXCHANGE_MS));
    if (asked.value !== null) return succeed(asked.value, passed, role);
  }
  const lock = await StateLock.take(state, role);
  return lock.ok ? ok({ lock: lock.value, inherited: new InheritedSockets(passed, false), takeover: null }) : lock;
}

function succeed(takeover: Takeover, passed: readonly NamedSocket[], role: string): Result<Succession, string> {
  const lock = takeover.sockets.find(({ name }) => name === LOCK_NAME);
  if (lock === undefined) return err(`process ${takeover.predecessorPid} handed over its sockets without the lock of its state directory`);
  const sockets = takeover.sockets.filter((socket) => socket !== lock);
  return ok({ lock: StateLock.handedOver(lock.fd, role), inherited: new InheritedSockets([...sockets, ...passed], true), takeover });
}

function refusal({ kind, message, predecessorPid }: TakeoverFault, state: string, exchangeMs: number): string {
  const who = predecessorPid === null ? "the running weft" : `the running weft (process ${predecessorPid})`;
  switch (kind) {
    case "refused":
      return `${who} does not give its place away: ${message}. Stop it, then start this one; until this one is ready, traffic of captured workloads waits or is refused, and none passes unguarded`;
    case "silent":
      return `${who} holds ${state} and did not answer within ${exchangeMs} ms. If it hangs, end it (kill -9 ${predecessorPid ?? "PID"}) and start again: rules and state are on this machine, traffic goes on as soon as this process is ready`;
    case "broken":
      return `cannot take over from ${who}: ${message}. Is it a weft, and is ${state} its state directory?`;
  }
}
